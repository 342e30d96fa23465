"""The peer book: addresses that can be dialled, bounds, demerits and bans."""

import random

import pytest
import trio

from p2pcity.net.config import NetConfig
from p2pcity.net.discovery import parse_records
from p2pcity.net.peers import ADDRESSES_PER_PEER_MAX, PeerBook, normalise_address

PEER = "12D3KooWBFeDLf4rf2b7MZka8R6DCw1dxzWPSpb2Uor1dAJNoCE9"
OTHER = "12D3KooWH1LARKWjWaL9X7ssShnSRLcJYxXCsX4JxCNe1gSoDREp"


def make_book(**changes: float) -> PeerBook:
    config = NetConfig(**changes)  # type: ignore[arg-type]  # only floats are changed
    return PeerBook(config, "own", lambda peer: peer == PEER, random.Random(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}", "/ip4/10.0.0.1/tcp/4001"),
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001"),
        ("/ip6/::1/tcp/4001", "/ip6/::1/tcp/4001"),
        ("/dns4/node.example.org/tcp/4001", "/dns4/node.example.org/tcp/4001"),
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{OTHER}", None),
        ("/ip4/10.0.0.1/tcp/0", None),
        ("/ip4/0.0.0.0/tcp/4001", None),
        ("/ip4/10.0.0.1/udp/4001/quic-v1", None),
        ("/ip4/10.0.0.1/tcp/4001/ws", None),
        (f"/ip4/10.0.0.1/tcp/4001/p2p/{OTHER}/p2p-circuit/p2p/{PEER}", None),
        ("/ip4/999.0.0.1/tcp/4001", None),
        ("/ip4/10.0.0.1", None),
        ("nonsense", None),
        ("", None),
        ("/", None),
        ("/ip4/10.0.0.1/tcp/99999", None),
    ],
)
def test_addresses(text: str, expected: str | None) -> None:
    assert normalise_address(text, PEER) == expected


async def test_addresses_are_bounded_and_the_operators_stay() -> None:
    record = make_book().record(PEER)
    assert record is not None
    record.add_addresses(["/ip4/10.0.0.1/tcp/1"], "config")
    for number in range(2, 50):
        record.add_addresses([f"/ip4/10.0.0.1/tcp/{number}"], "hello")
    assert len(record.addresses) == ADDRESSES_PER_PEER_MAX
    assert record.addresses["/ip4/10.0.0.1/tcp/1"] == "config"
    assert "/ip4/10.0.0.1/tcp/49" in record.addresses


async def test_the_address_that_worked_comes_first() -> None:
    record = make_book().record(PEER)
    assert record is not None
    record.add_addresses([f"/ip4/10.0.0.{n}/tcp/1" for n in (1, 2, 3)], "config")
    record.prefer("/ip4/10.0.0.3/tcp/1")
    assert next(iter(record.addresses)) == "/ip4/10.0.0.3/tcp/1"
    assert len(record.addresses) == 3


async def test_a_new_address_wakes_the_dialler() -> None:
    record = make_book().record(PEER)
    assert record is not None
    changed = record.changed
    record.add_addresses(["/ip4/10.0.0.1/tcp/1"], "mdns")
    assert changed.is_set()
    changed = record.changed
    record.add_addresses(["/ip4/10.0.0.1/tcp/1"], "mdns")
    assert not changed.is_set()


async def test_only_allowed_peers_have_a_record() -> None:
    book = make_book()
    assert book.record(OTHER) is None
    assert book.record("own") is None
    assert not book.is_admitted(OTHER)
    assert book.is_admitted(PEER)


async def test_demerits_ban_for_a_while_and_longer_each_time(
    autojump_clock: object,
) -> None:
    book = make_book(demerits_max=100, ban_s=60)
    for ban_s in (60, 120, 240):
        assert not book.penalise(PEER, 60)
        assert book.penalise(PEER, 60)
        assert not book.is_admitted(PEER)
        await trio.sleep(ban_s - 1)
        assert not book.is_admitted(PEER)
        await trio.sleep(2)
        assert book.is_admitted(PEER)


async def test_who_is_struck_off_makes_room() -> None:
    allowed = {PEER, OTHER}
    book = PeerBook(NetConfig(), "own", allowed.__contains__, random.Random(1))
    record, other = book.record(PEER), book.record(OTHER)
    assert record is not None
    assert other is not None
    allowed.discard(PEER)
    book.prune()
    assert not book.is_current(record)
    assert book.records() == (other,)
    allowed.add(PEER)
    assert book.record(PEER) is not record


def test_mdns_records() -> None:
    records: dict[bytes, bytes | None] = {
        b"dnsaddr": f"/ip4/10.0.0.1/tcp/1/p2p/{PEER}".encode(),
        b"dnsaddr2": f"/ip4/10.0.0.2/tcp/1/p2p/{PEER}".encode(),
        b"other": b"x",
        b"dnsaddr3": None,
        b"dnsaddr4": b"/ip4/10.0.0.2/tcp/1",
        b"dnsaddr5": b"\xff" * 10,
        b"dnsaddr6": b"/p2p/" + b"x" * 1000,
    }
    assert parse_records(records) == {PEER: [f"/ip4/10.0.0.{n}/tcp/1/p2p/{PEER}" for n in (1, 2)]}
