"""Where a transaction stands, asked while it moves from the mempool to the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from p2pcity.city.membership import State
from p2pcity.errors import CorruptionError
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.writer import WriterThread
from p2pcity.node.reading import Reading
from p2pcity.node.reads import Reads
from p2pcity.wire.transaction import Carried
from tests.chain_case import NOW_MS
from tests.node_case import Door, append, make_log, open_views


class Thread:
    """Reads at once; `after` runs behind the first read, before its answer is there."""

    def __init__(self) -> None:
        self.after: Callable[[], None] | None = None
        self.error: Exception | None = None

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        result = function(*arguments)
        await trio.lowlevel.checkpoint()
        after, self.after = self.after, None
        if after is not None:
            after()
        return result


class Case(Door):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.log = make_log(directory / "log", self.chain)
        self.views = open_views(directory, self.chain, self.log)
        self.outbox = Outbox.open(directory / "outbox.db", clock_ms=lambda: NOW_MS)
        self.in_outbox: set[bytes] = set()
        self.thread = Thread()
        self.damage: list[CorruptionError] = []
        self.reader = self.views.open_reader()
        self.reading = Reading(
            genesis=self.chain.genesis,
            state=State.from_genesis(self.chain.genesis),
            views=self.views,
            reader=self.reader,
            reader_thread=cast(WriterThread, self.thread),
            outbox=self.outbox,
            outbox_thread=cast(WriterThread, self.thread),
            mempool=self.mempool,
            reads=cast(Reads, None),
            is_in_outbox=self.in_outbox.__contains__,
            on_damage=self.damage.append,
        )

    def write(self, *carried: Carried) -> None:
        """Commit `carried` and write it to the views."""
        self.chain.add(*carried)
        append(self.log, self.chain)
        self.views.apply_blocks([(self.log.last_index, self.chain.blocks[-1])])

    def apply(self, *carried: Carried) -> None:
        """Commit and apply `carried`, as the apply loop does: first the views, then the rest."""
        self.write(*carried)
        self.reading.applied(self.views.height, self.views.head)
        self.mempool.remove(item.transaction.id for item in carried)
        self.in_outbox.difference_update(item.transaction.id for item in carried)

    def close(self) -> None:
        self.reader.close()
        self.views.close()
        self.outbox.close()
        self.log.close()

    async def status(self, carried: Carried) -> str:
        return (await self.reading.status_of(carried.transaction.id)).status


@pytest.fixture
def case(tmp_path: Path) -> Any:
    case = Case(tmp_path)
    yield case
    case.close()


async def test_pending_committed_and_unknown(case: Case) -> None:
    [carried] = case.put()
    assert await case.status(carried) == "pending"
    case.apply(carried)
    found = await case.reading.status_of(carried.transaction.id)
    assert (found.status, found.height, found.leaf_index) == ("committed", 1, 0)
    assert await case.status(case.chain.carried()) == "unknown"


@pytest.mark.parametrize("where", ["mempool", "outbox"])
async def test_what_is_applied_during_the_look_up_is_found(case: Case, where: str) -> None:
    carried = case.chain.carried()
    if where == "mempool":
        case.mempool.add(carried, NOW_MS)
    else:
        case.in_outbox.add(carried.transaction.id)
    case.thread.after = lambda: case.apply(carried)
    assert await case.status(carried) == "committed"


async def test_nothing_is_told_of_a_block_before_the_head_names_it(
    case: Case,
) -> None:
    carried = case.chain.carried()
    case.write(carried)
    heads: list[tuple[str, int]] = []

    async def ask() -> None:
        heads.append((await case.status(carried), case.reading.head().height))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert heads == []
        case.reading.applied(case.views.height, case.views.head)
    assert heads == [("committed", 1)]


async def test_a_visible_end_stays_visible(case: Case) -> None:
    carried = case.chain.carried()
    case.outbox.add([(carried.transaction.id, NOW_MS, carried.data)])
    assert await case.status(carried) == "pending"
    case.outbox.settle([carried.transaction.id], "expired", "expired")
    assert await case.status(carried) == "expired"


async def test_damage_that_a_client_meets_is_told_to_the_node(case: Case) -> None:
    case.thread.error = CorruptionError("a page")
    with pytest.raises(CorruptionError):
        await case.status(case.chain.carried())
    assert len(case.damage) == 1


async def test_a_block_is_given_as_bytes_within_the_ledger_only(case: Case) -> None:
    block = case.chain.make([case.chain.carried()])
    case.apply(*case.put())
    assert await case.reading.block_bytes(0) is None
    data = await case.reading.block_bytes(1)
    assert data == case.chain.blocks[0].data != block.data
    assert await case.reading.block_bytes(2) is None
    assert await case.reading.block_bytes(2**64 - 1) is None
