"""Bits gone bad in views.db: found and made again, or where nothing lies; never a wrong answer."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from p2pcity.ledger import views_store
from p2pcity.ledger.views_reader import ViewsDamaged, ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.views.position import BEGINNING
from p2pcity.wire import transaction
from tests.chain_case import STRANGER, Chain
from tests.segment_case import flip
from tests.views_case import apply_all, dump, open_store

BLOCKS: Final = 60
FOUND: Final = 60
FOUND_LONG: Final = 200
REBUILT: Final = 2
"""So many of each kind are made anew and compared whole; that takes as long as to write them."""
FLIPS_PER_FOUND: Final = 5
"""Pages that nobody uses, and free space in those that are, take more than half of the flips."""


@pytest.fixture(scope="module")
def chain() -> Chain:
    """Blocks with applied, duplicate and unauthorised transactions."""
    chain = Chain()
    for number in range(BLOCKS):
        event = chain.event(type=f"city.type{number % 5}.x", data="x" * (number * 9))
        carried = [chain.carried(event), chain.carried(chain.event(), event)]
        if number % 7 == 0:
            carried.append(chain.carried(key=STRANGER))
        chain.add(*carried)
    return chain


@pytest.fixture(scope="module")
def written(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("views") / "views.db"
    store = open_store(chain, path)
    apply_all(store, chain)
    store.close()
    return path


def ids(chain: Chain) -> list[bytes]:
    carried = [data for block in chain.blocks for data in block.transactions]
    return [transaction.decode_carried(data).transaction.id for data in carried]


def answers(store: ViewsStore, reader: ViewsReader, chain: Chain) -> Iterator[Any]:
    """Everything that can be asked: by applier, clients and peers."""
    yield reader.meta()
    yield reader.types()
    page = reader.events_after(BEGINNING, 1_000)
    yield page
    for height in range(1, BLOCKS + 2):
        yield reader.block(height)
        yield reader.block_bytes(height)
        records = reader.block_transactions(height)
        yield records
    for id_ in ids(chain):
        yield store.has_transaction(id_)
        yield reader.transaction(id_)
        yield reader.transaction_bytes(id_)


def rows(path: Path) -> list[str]:
    """All rows of all tables; the words of the schema (cREATE TABLE) are SQLite's business."""
    return [line for line in dump(path) if line.startswith("INSERT")]


def judge(chain: Chain, path: Path, truth: list[Any]) -> str:
    """What became of a damaged file: found at the start, when asked, or nothing to find."""
    store = open_store(chain, path)
    try:
        if store.recovery is not None:
            return "at the start"
        with store.open_reader() as reader:
            try:
                told = list(answers(store, reader, chain))
            except ViewsDamaged:
                return "when asked"
        assert told == truth, "a wrong answer"
        return "harmless"
    finally:
        store.close()


@pytest.mark.scenario("A5", tier="U")
@pytest.mark.parametrize(
    ("found", "rebuilt"),
    [(FOUND, REBUILT), pytest.param(FOUND_LONG, FOUND_LONG, marks=pytest.mark.long)],
)
def test_flips_are_found_or_harmless(
    chain: Chain, written: Path, tmp_path: Path, found: int, rebuilt: int
) -> None:
    """Until so many were found; where nothing was, every row is what it was."""
    store = open_store(chain, written)
    with store.open_reader() as reader:
        truth = list(answers(store, reader, chain))
    store.close()
    whole = dump(written)
    size = written.stat().st_size
    rng = random.Random(17)
    seen: Counter[str] = Counter()
    while seen["at the start"] + seen["when asked"] < found:
        assert seen.total() < FLIPS_PER_FOUND * found, seen
        path = tmp_path / "views.db"
        shutil.copy(written, path)
        flip(path, rng.randrange(8 * size))
        what = judge(chain, path, truth)
        seen[what] += 1
        if what == "harmless":
            assert rows(path) == rows(written), "a row was changed, and nobody found it"
            continue
        if seen[what] > rebuilt:
            continue
        if what == "when asked":
            # The node begins again without them.
            views_store.delete(path)
        store = open_store(chain, path)
        apply_all(store, chain)
        store.close()
        assert dump(path) == whole, "the log gives the same ones"
    print(dict(seen), size, len(whole))
    assert seen["at the start"]
    assert seen["when asked"]
