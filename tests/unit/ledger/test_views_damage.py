"""views.db damaged, foreign, missing or behind: never served, begun anew; and its rebuild."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pcity.ledger import views_store
from p2pcity.ledger.rebuild import rebuild
from p2pcity.ledger.views_reader import ViewsDamaged
from p2pcity.views.position import BEGINNING
from tests.chain_case import STRANGER, Chain, make_genesis
from tests.views_case import apply_all, change, dump, harmed, open_store


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET time_ms = time_ms + 1",
        "UPDATE events SET author = 1",
        "UPDATE transactions SET leaf_index = 4",
        "UPDATE transactions SET outcome = 2",
        "UPDATE blocks SET tree_size = 4",
        "UPDATE blocks SET hash = zeroblob(32)",
        "DELETE FROM blocks",
        "UPDATE meta SET applied_index = 4",
        "UPDATE meta SET checksum = 'text'",
        "DELETE FROM meta",
    ],
)
def test_damaged_rows_are_not_served(chain: Chain, path: Path, sql: str) -> None:
    carried = chain.carried()
    chain.add(carried)
    store = open_store(chain, path)
    apply_all(store, chain)
    with store.open_reader() as reader:
        change(path, sql)

        def ask_everything() -> None:
            reader.meta()
            reader.transaction(carried.transaction.id)
            reader.block(1)
            reader.events_after(BEGINNING, 1)

        with pytest.raises(ViewsDamaged) as caught:
            ask_everything()
        assert "rebuild" in caught.value.remedy
    store.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE meta SET height = 4",
        "DELETE FROM blocks",
        "UPDATE blocks SET hash = zeroblob(32)",
        "DELETE FROM meta",
    ],
)
def test_a_damaged_head_begins_the_views_anew(chain: Chain, path: Path, sql: str) -> None:
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    before = store.meta
    store.close()
    change(path, sql)
    store = open_store(chain, path)
    assert isinstance(store.recovery, ViewsDamaged)
    assert store.applied_index == 0
    apply_all(store, chain)
    assert store.meta == before
    store.close()


def break_nothing(path: Path) -> None:
    """An empty file."""
    path.write_bytes(b"")


def break_header(path: Path) -> None:
    path.write_bytes(b"x" * 5_000)


def break_length(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6_000])


def break_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


def break_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE blocks")
    connection.close()


@pytest.mark.parametrize(
    "damage", [break_nothing, break_header, break_length, break_version, break_table]
)
def test_a_file_that_cannot_be_used_begins_anew(
    chain: Chain, path: Path, damage: Callable[[Path], None]
) -> None:
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    store.close()
    damage(path)
    store = open_store(chain, path)
    assert store.recovery is not None
    assert store.applied_index == 0
    apply_all(store, chain)
    store.close()


def test_views_of_another_network_begin_anew(chain: Chain, path: Path) -> None:
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    store.close()
    other = Chain(make_genesis("other"))
    store = open_store(other, path)
    assert store.recovery is not None
    assert store.head == other.genesis.network
    store.close()


def test_views_of_another_log_begin_anew(chain: Chain, path: Path) -> None:
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    store.close()
    other = Chain()
    other.add(other.carried(other.event(id="another")))
    store = open_store(other, path)
    assert store.recovery is not None
    store.close()


def test_a_log_that_is_behind_the_views_is_for_the_caller_to_judge(
    chain: Chain, path: Path
) -> None:
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    store.close()
    store = open_store(Chain(), path)
    assert store.recovery is None
    assert store.applied_index == 1
    store.close()


def test_rebuild_gives_the_same_file(chain: Chain, path: Path, tmp_path: Path) -> None:
    event = chain.event()
    chain.add(chain.carried(event), chain.carried(key=STRANGER))
    chain.add_nothing()
    chain.add(chain.carried(event), harmed(chain.carried()))
    chain.add(chain.carried())
    store = open_store(chain, path)
    apply_all(store, chain)
    before = store.meta
    store.close()
    expected = dump(path)
    path.write_bytes(b"damaged")
    seen: list[tuple[int, int]] = []
    store = rebuild(path, chain.genesis, chain, 4, lambda done, last: seen.append((done, last)))
    assert store.meta == before
    store.close()
    assert dump(path) == expected
    assert seen[-1] == (4, 4)


def test_checkpoints_keep_the_wal_short(
    chain: Chain, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views_store, "CHECKPOINT_ROWS", 10)
    store = open_store(chain, path)
    wal = path.with_name("views.db-wal")
    sizes = []
    for _ in range(6):
        chain.add(chain.carried(), chain.carried())
        apply_all(store, chain)
        sizes.append(wal.stat().st_size)
    assert 0 in sizes
    # A reader in the way: the checkpoint comes later, and nobody waits.
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN")
    blocker.execute("SELECT count(*) FROM events").fetchall()
    chain.add(chain.carried())
    apply_all(store, chain)
    assert store.checkpoint() is False
    blocker.close()
    assert store.checkpoint() is True
    assert wal.stat().st_size == 0
    store.close()
