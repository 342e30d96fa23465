"""The demo's bundles, and its accounts: what is lost, doubled or misplaced must be seen."""

from collections import Counter
from dataclasses import replace

import pytest

from p2pcity.api.service import EventInput
from p2pcity.cli.demo.bundles import Name, Signed, bundle, sign
from p2pcity.cli.demo.events import AuthoredEvent
from p2pcity.cli.demo.ledgers import Comparison, Ledger, compare
from p2pcity.cli.demo.loader import Acknowledged
from p2pcity.crypto.keys import PrivateKey
from p2pcity.wire import transaction
from p2pcity.wire.limits import TRANSACTION_BYTES_MAX


def _events(author: str, count: int, data: object = None) -> list[AuthoredEvent]:
    return [AuthoredEvent(author, EventInput(str(n), "t", "/s", data=data)) for n in range(count)]


def test_bundles_keep_every_event_once_and_in_order() -> None:
    mixed = [item for pair in zip(_events("a", 30), _events("b", 30), strict=True) for item in pair]
    bundles = bundle(mixed, 12)
    assert [(item.author, len(item.events)) for item in bundles] == [
        ("a", 12), ("b", 12), ("a", 12), ("b", 12), ("a", 6), ("b", 6),
    ]  # fmt: skip
    for author in ("a", "b"):
        ids = [e.id for item in bundles if item.author == author for e in item.events]
        assert ids == [str(n) for n in range(30)]


def test_large_events_make_small_bundles() -> None:
    key = PrivateKey.from_seed(bytes(32))
    bundles = bundle(_events("a", 12, "x" * 20_000), 12)
    assert [len(item.events) for item in bundles] == [3, 3, 3, 3]
    for item in bundles:
        assert len(sign(item, key, bytes(32)).data) <= TRANSACTION_BYTES_MAX


def test_what_is_signed_passes_examination() -> None:
    key, network = PrivateKey.from_seed(bytes(32)), bytes(32)
    signed = sign(bundle(_events("a", 5))[0], key, network)
    carried = transaction.examine(signed.data, network)
    assert carried.id.hex() == signed.id
    assert signed.names == tuple((key.public.hex(), "/s", str(n)) for n in range(5))


NAMES: tuple[Name, ...] = (("k", "/s", "1"), ("k", "/s", "2"))
TOLD = [Acknowledged(Signed("id", b"", "k", NAMES), 7, 0, 0.0, 0.1, ("node1",))]
GOOD = Ledger("node1", "orderer", 9, "head", "root", 3, "digest", Counter(NAMES), {"id": 7})
ALL_WELL = Comparison(lost=0, duplicated=0, misplaced=0, unexpected=0, is_equal=True)


def test_equal_ledgers_that_hold_what_was_told() -> None:
    assert compare(TOLD, [GOOD, replace(GOOD, name="node2")]) == ALL_WELL


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (replace(GOOD, events=Counter(NAMES[:1])), replace(ALL_WELL, lost=1)),
        (replace(GOOD, events=Counter([*NAMES, *NAMES])), replace(ALL_WELL, duplicated=2)),
        (replace(GOOD, heights={"id": 8}), replace(ALL_WELL, misplaced=2)),
        (
            replace(GOOD, events=Counter([*NAMES, ("k", "/s", "3")])),
            replace(ALL_WELL, unexpected=1),
        ),
        (replace(GOOD, head="other"), replace(ALL_WELL, is_equal=False)),
        (replace(GOOD, height=8), replace(ALL_WELL, is_equal=False)),
        (replace(GOOD, root="other"), replace(ALL_WELL, is_equal=False)),
        (replace(GOOD, digest="other"), replace(ALL_WELL, is_equal=False)),
    ],
)
def test_one_bad_ledger_is_seen(bad: Ledger, expected: Comparison) -> None:
    assert compare(TOLD, [GOOD, bad]) == expected
