"""Applying what is committed: in order, once, and never lost for lack of room."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pcity.errors import DecodeError, DivergedError, Unavailable
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.ledger.writer import WriterThread
from p2pcity.node import intake as intake_module
from p2pcity.node.apply_loop import ApplyLoop, ended_ids, settled
from p2pcity.node.waiting import Settled
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.wire.raft import Entry, HardState
from p2pcity.wire.transaction import Carried
from tests.chain_case import NOW_MS, STRANGER
from tests.node_case import DEADLINE_S, Door, append, ids, make_log, open_views
from tests.views_case import harmed


class Case(Door):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.log: SegmentLog = make_log(directory / "log", self.chain)
        self.views: ViewsStore = open_views(directory, self.chain, self.log)
        self.writer = WriterThread("test", 8)
        self.told: list[tuple[list[AppliedBlock], int]] = []
        self.loop = ApplyLoop(
            raft_log=self.log,
            views=self.views,
            writer=self.writer,
            mempool=self.mempool,
            intake=self.intake,
            on_applied=self._on_applied,
        )

    def _on_applied(self, blocks: Sequence[AppliedBlock], index: int) -> None:
        self.told.append((list(blocks), index))

    async def apply_all(self) -> None:
        append(self.log, self.chain)
        await self.loop.catch_up(self.log.last_index)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
async def case(directory: Path) -> Any:
    case = Case(directory)
    yield case
    await case.writer.close()
    case.views.close()
    case.log.close()


async def test_copies_of_what_a_block_brought_need_no_second_look(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = [case.chain.carried() for _ in range(3)]
    case.chain.add(*carried)
    await case.apply_all()
    examined: list[Sequence[bytes]] = []
    real = intake_module.examine_all

    def examine_all(network: bytes, items: Sequence[bytes]) -> list[Carried | DecodeError]:
        examined.append(items)
        return real(network, items)

    monkeypatch.setattr(intake_module, "examine_all", examine_all)
    judged = await case.intake.admit([item.data for item in carried], "peer")
    assert {item.verdict.reason for item in judged} == {"duplicate"}
    assert examined == [[]]
    assert len(case.mempool) == 0


async def test_committed_entries_are_applied_in_order_and_told_once(case: Case) -> None:
    case.chain.add_nothing()
    carried = [case.chain.carried() for _ in range(4)]
    case.chain.add(*carried[:2])
    case.chain.add(*carried[2:])
    append(case.log, case.chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.loop.run)
        case.loop.committed([Entry(1, 3, b"")])
        with trio.fail_after(DEADLINE_S):
            while case.loop.applied_index < 3:  # noqa: ASYNC110 - the writer's thread is real
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    heights = [block.height for blocks, _ in case.told for block in blocks]
    assert heights == [1, 2]
    assert case.told[-1][1] == case.views.applied_index == 3
    assert case.views.frontier.size == 4


async def test_what_is_in_the_mempool_is_not_verified_again(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = case.put(1)[0], case.chain.carried()
    seen: list[bytes] = []
    examine = case.intake.examine

    async def note(items: Sequence[bytes]) -> Any:
        seen.extend(items)
        return await examine(items)

    monkeypatch.setattr(case.intake, "examine", note)
    case.chain.add(known, unknown)
    await case.apply_all()
    assert seen == [unknown.data]
    assert case.views.frontier.size == 2


async def test_a_full_disk_is_waited_out(
    case: Case, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr("p2pcity.node.apply_loop._RETRY_S", 0.01)
    apply_blocks = case.views.apply_blocks
    has_room = False
    tries = 0

    def apply_or_not(*arguments: Any) -> list[AppliedBlock]:
        nonlocal tries
        tries += 1
        if not has_room:
            raise Unavailable("the disk is full")
        return apply_blocks(*arguments)

    monkeypatch.setattr(case.views, "apply_blocks", apply_or_not)
    case.chain.add(case.chain.carried())
    nursery.start_soon(case.apply_all)
    with trio.fail_after(DEADLINE_S):
        while tries < 3:  # noqa: ASYNC110 - the writer's thread is real
            await trio.sleep(0.001)
        assert "the disk is full" in case.loop.alarm
        assert case.told == []
        has_room = True
        while not case.told:  # noqa: ASYNC110 - likewise
            await trio.sleep(0.001)
    assert case.loop.alarm == ""
    assert (case.loop.applied_index, case.views.height) == (1, 1)


async def test_a_checkpoint_without_room_undoes_nothing(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pcity.ledger.views_store.CHECKPOINT_ROWS", 1)

    def checkpoint() -> bool:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(case.views, "checkpoint", checkpoint)
    for _ in range(2):
        case.chain.add(case.chain.carried())
        await case.apply_all()
    assert (case.loop.applied_index, case.views.height) == (2, 2)


async def test_a_committed_entry_that_is_no_block_stops_the_node_with_its_own_code(
    case: Case,
) -> None:
    case.log.save(HardState(1, None, 1), [Entry(1, 1, b"rubbish")], True)
    with pytest.raises(DivergedError) as caught:
        await case.loop.catch_up(1)
    assert caught.value.exit_code == 13
    assert caught.value.remedy
    assert case.loop.applied_index == 0


async def test_how_each_transaction_of_a_block_ended(case: Case) -> None:
    good = case.chain.carried()
    twin = case.chain.carried(*good_events(case))
    late = case.chain.carried(expires_ms=NOW_MS - 1)
    stranger = case.chain.carried(key=STRANGER)
    garbled = harmed(case.chain.carried())
    case.chain.add(good, good, twin, late, stranger, garbled)
    await case.apply_all()
    [([block], _)] = case.told
    assert dict(settled(block)) == {
        good.transaction.id: Settled("committed", "", 1, 0),
        twin.transaction.id: Settled("committed", "", 1, 1),
        late.transaction.id: Settled("expired", "expired"),
        stranger.transaction.id: Settled("rejected", "unauthorised"),
    }
    # A garbled copy ends nothing: the true one has the same id.
    assert garbled.transaction.id not in ended_ids(block)
    assert set(ended_ids(block)) == set(ids([good, twin, late, stranger]))


async def test_a_transaction_of_known_events_only_ends_as_a_duplicate(case: Case) -> None:
    event = case.chain.event()
    first, second = case.chain.carried(event), case.chain.carried(event)
    case.chain.add(first, second)
    await case.apply_all()
    [([block], _)] = case.told
    states = {id_: end.state for id_, end in settled(block)}
    assert states == {first.transaction.id: "committed", second.transaction.id: "duplicate"}


def good_events(case: Case) -> Iterator[Any]:
    yield case.chain.event()
