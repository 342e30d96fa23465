"""Two and three networks over real libp2p: hello, lanes, requests, reconnecting, refusing."""

import socket
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from p2pcity.errors import ConfigError, DecodeError, RemoteError, Unavailable
from p2pcity.net import hello as hello_exchange
from p2pcity.net.config import LaneConfig
from p2pcity.net.links import Link
from p2pcity.net.muxing import CityStream
from tests.net_case import (
    DEADLINE_S,
    Place,
    Relay,
    connect_all,
    free_port,
    introduce,
    make_places,
    running,
)

pytestmark = pytest.mark.integration

HALF_A_WINDOW = 128 * 1024


def link_between(one: Place, two: Place) -> Link:
    link = one.network._links.active(two.id)
    assert link is not None
    return link


def has_two_links(place: Place) -> bool:
    return len(place.network._links.all()) == 2


def has_heard(place: Place, count: int) -> bool:
    return len(place.raft) == count


def is_refused(place: Place, reason: str) -> bool:
    (info,) = place.network.peers()
    return (info.state, info.last_refusal) == ("refused", reason)


async def test_three_nodes_connect_and_send() -> None:
    places = make_places(3)
    introduce(places)
    async with running(*places):
        await connect_all(places)
        for place in places:
            for info in place.network.peers():
                assert (info.state, info.is_connected, info.height) == ("connected", True, 7)
                assert info.release == "0.1.0"
        one, two, _ = places
        assert one.network.send(two.id, "control", b"vote")
        assert one.network.send(two.id, "bulk", bytes(3_000_000))
        await two.wait_until(lambda: len(two.raft) == 2)
        assert set(two.raft) == {(one.id, b"vote"), (one.id, bytes(3_000_000))}
        [info] = [info for info in two.network.peers() if info.peer == one.id]
        assert info.traffic["bulk"].bytes_in > 3_000_000
        assert 0 < info.traffic["control"].bytes_in < 10_000
        assert 0 < info.traffic["rest"].bytes_in < 300_000
        assert sum(traffic.bytes_in for traffic in info.traffic.values()) == info.bytes_in
        # One connection a pair, whoever has dialled: the larger peer id does when it must wait.
        for place in places:
            await place.wait_until(partial(has_two_links, place))


async def test_messages_keep_their_order_on_a_lane() -> None:
    places = make_places(2)
    introduce(places)
    async with running(*places):
        await connect_all(places)
        one, two = places
        for number in range(2000):
            assert two.network.send(one.id, "control", number.to_bytes(4, "big"))
        await one.wait_until(lambda: len(one.raft) == 2000)
        assert [int.from_bytes(data, "big") for _, data in one.raft] == list(range(2000))


async def test_short_messages_bring_no_window_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credit comes back for half of a window at a time, and before the sender has none left."""
    real, credits_ = CityStream.send_window_update, []

    async def send(self: CityStream, increment: int, skip_lock: bool = False) -> None:
        credits_.append(increment)
        await real(self, increment, skip_lock)

    places = make_places(2)
    introduce(places)
    async with running(*places):
        await connect_all(places)
        one, two = places
        monkeypatch.setattr(CityStream, "send_window_update", send)
        for number in range(1, 201):
            assert two.network.send(one.id, "control", b"vote")
            await one.wait_until(partial(has_heard, one, number))
        assert credits_ == []
        for number in range(1, 21):
            assert two.network.send(one.id, "bulk", bytes(1_000_000))
            await one.wait_until(partial(has_heard, one, 200 + number))
        assert min(credits_) >= HALF_A_WINDOW
        assert sum(credits_) >= 20_000_000 - 2 * HALF_A_WINDOW


async def test_send_says_no_when_full_or_not_connected() -> None:
    one, two = make_places(2, bulk=LaneConfig(queue_bytes_max=1_000_000, write_bytes_max=131_076))
    introduce([one, two])
    assert not one.network.send(two.id, "bulk", b"x")
    async with running(one, two):
        await connect_all([one, two])
        sent = [one.network.send(two.id, "bulk", bytes(300_000)) for _ in range(5)]
        assert sent == [True, True, True, False, False]
        assert not one.network.send(two.id, "no such lane", b"x")
        assert one.network.statistics()["dropped"] == 4
        await two.wait_until(lambda: len(two.raft) == 3)


async def test_requests_are_answered_both_ways_and_many_at_once() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        for asker, asked in ((one, two), (two, one)):
            for protocol in ("forward", "sync", "status"):
                answer = await asker.network.request(asked.id, protocol, b"?", 5)
                assert answer == protocol.encode() + b":?"
        big = bytes(2_000_000)
        assert await one.network.request(two.id, "sync", big, 5) == b"sync:" + big
        answers: list[bytes] = []

        async def ask(number: int) -> None:
            answers.append(await one.network.request(two.id, "forward", bytes([number]), 5))

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask, number)
        assert sorted(answers) == sorted(b"forward:" + bytes([n]) for n in range(60))


async def test_requests_have_bounds_and_deadlines() -> None:
    one, two = make_places(2, requests_outstanding_max=4)
    introduce([one, two])
    two.answer_gate = trio.Event()
    async with running(one, two):
        await connect_all([one, two])
        errors: list[Exception] = []

        async def ask() -> None:
            try:
                await one.network.request(two.id, "sync", b"?", 0.3)
            except Unavailable as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(ask)
        assert sum("4 sync requests are outstanding" in str(error) for error in errors) == 2
        assert sum("no sync answer in 0.3 s" in str(error) for error in errors) == 4
        two.answer_gate.set()
        # The late answers find nobody and do no harm.
        assert await one.network.request(two.id, "sync", b"!", 5) == b"sync:!"
        with pytest.raises(Unavailable, match="not connected"):
            await one.network.request("nobody", "sync", b"?", 1)


async def test_a_handler_that_refuses_or_fails_does_not_break_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = make_places(2)
    failures: list[Exception] = [
        Unavailable("no leader"),
        ZeroDivisionError("ours"),
        DecodeError("theirs"),
    ]

    async def answer(peer: str, protocol: str, data: bytes) -> bytes:
        if failures:
            raise failures.pop(0)
        return b"fine"

    monkeypatch.setattr(two, "_answer", answer)
    two.make_network()
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        for reason in ("no leader", "internal", "malformed"):
            with pytest.raises(RemoteError, match=reason):
                await one.network.request(two.id, "status", b"?", 5)
        assert await one.network.request(two.id, "status", b"?", 5) == b"fine"
        # Only the one that was the peer's fault counts against it.
        assert [info.score for info in two.network.peers()] == [-10.0]


async def test_a_node_that_restarts_is_found_again() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two) as nursery:
        await connect_all([one, two])
        two.stop()
        await one.wait_until(lambda: not one.network.is_connected(two.id))
        two.make_network()
        await two.start(nursery)
        await connect_all([one, two])
        assert one.ups == [(two.id, True), (two.id, False), (two.id, True)]
        assert two.network.send(one.id, "control", b"again")
        await one.wait_until(lambda: (two.id, b"again") in one.raft)


async def test_a_node_that_moves_to_another_port_says_so_in_hello() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two) as nursery:
        await connect_all([one, two])
        two.stop()
        await one.wait_until(lambda: not one.network.is_connected(two.id))
        two.port = free_port()
        two.config = replace(two.config, listen=(f"/ip4/127.0.0.1/tcp/{two.port}",))
        two.make_network()
        await two.start(nursery)
        await connect_all([one, two])
        record = one.network._book.record(two.id)
        assert record is not None
        assert record.addresses[f"/ip4/127.0.0.1/tcp/{two.port}"] == "hello"


async def test_both_dial_at_once_and_one_connection_stays() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        for _ in range(5):
            # A second connection, dialled by the other side, gives way; nobody goes down.
            record = two.network._book.record(one.id)
            assert record is not None
            assert two.network._dialler is not None
            before = link_between(two, one)
            link = await two.network._dialler._dial(record, next(iter(record.addresses)))
            if link is not None:
                with trio.fail_after(DEADLINE_S):
                    await link.ended.wait()
            assert link_between(two, one) is before
        assert one.ups == [(two.id, True)]
        assert two.ups == [(one.id, True)]


async def test_a_replaced_connection_stays_until_the_other_side_has_chosen_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = make_places(2)
    one.allowed.add(two.id)
    two.knows(one)
    async with running(one, two):
        await connect_all([one, two])
        before = link_between(one, two)
        assert not before.is_dialled
        chosen = trio.Event()
        welcome = hello_exchange.welcome

        async def welcome_late(*given: Any) -> hello_exchange.Outcome:
            outcome = await welcome(*given)
            await chosen.wait()
            return outcome

        monkeypatch.setattr(hello_exchange, "welcome", welcome_late)
        record = one.network._book.record(two.id)
        assert record is not None
        assert one.network._dialler is not None
        link = await one.network._dialler._dial(record, f"/ip4/127.0.0.1/tcp/{two.port}")
        assert link is not None
        assert await link.wait_ready()
        # This side has chosen its own connection, the other side has not heard of it yet.
        assert link_between(one, two) is link
        assert before.replaced.is_set()
        assert not before.ended.is_set()
        chosen.set()
        with trio.fail_after(DEADLINE_S):
            await before.ended.wait()
        await connect_all([one, two])
        assert one.ups == [(two.id, True)]
        assert two.ups == [(one.id, True)]


async def test_a_third_party_is_refused_at_the_handshake() -> None:
    one, two, stranger = make_places(3)
    introduce([one, two])
    stranger.knows(one)
    async with running(one, two, stranger):
        await connect_all([one, two])
        await one.wait_until(lambda: one.network.statistics()["refused"] >= 2)
        assert stranger.ups == []
        assert {info.peer for info in one.network.peers()} == {two.id}
        (info,) = stranger.network.peers()
        assert info.state in ("disconnected", "connecting")
        assert one.network.is_connected(two.id)


async def test_a_peer_that_is_struck_off_is_cut_off() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        one.allowed.discard(two.id)
        await one.wait_until(lambda: not one.network.is_connected(two.id))
        await two.wait_until(lambda: not two.network.is_connected(one.id))
        one.allowed.add(two.id)
        await connect_all([one, two])


@pytest.mark.parametrize("field", ["hello_network", "hello_parameters"])
async def test_hello_refuses_with_a_reason_on_both_sides(field: str) -> None:
    one, two = make_places(2, refused_backoff_min_s=0.2, refused_backoff_max_s=0.4)
    introduce([one, two])
    original = getattr(two, field)
    reason = {"hello_network": "wrong-network", "hello_parameters": "other-parameters"}[field]
    async with running(one, two):
        setattr(two, field, bytes(32))
        for link in one.network._links.all():
            link.close("anew")
        for place in (one, two):
            await place.wait_until(partial(is_refused, place, reason))
        assert not one.network.is_connected(two.id)
        setattr(two, field, original)
        await connect_all([one, two])


async def test_a_taken_port_is_an_error_with_a_remedy() -> None:
    (one,) = make_places(1)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", one.port))
        other.listen()
        with pytest.raises(ConfigError, match=f"port {one.port}") as raised:
            await one.network.run()
        assert "another port" in raised.value.remedy


@pytest.mark.parametrize("listen", ["/ip4/127.0.0.1/udp/1", "nonsense", "/ip4/192.0.2.1/tcp/4001"])
async def test_a_wrong_address_is_an_error_with_a_remedy(listen: str) -> None:
    (one,) = make_places(1, listen=(listen,))
    with pytest.raises(ConfigError) as raised:
        await one.network.run()
    assert raised.value.remedy


async def test_shutting_down_with_all_connections_up_ends() -> None:
    places = make_places(4)
    introduce(places)
    with trio.fail_after(2 * DEADLINE_S):
        async with running(*places):
            await connect_all(places)


async def test_what_was_queued_goes_out_before_the_end() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(two) as nursery:
        await one.start(nursery)
        await connect_all([one, two])
        assert one.network.send(two.id, "control", b"timeout-now")
        one.stop()
        await two.wait_until(lambda: (one.id, b"timeout-now") in two.raft)


async def test_a_silent_peer_is_cut_off_and_comes_back() -> None:
    one, two = make_places(2, silence_s=1.0, ping_interval_s=0.2, dial_timeout_s=1.0)
    introduce([one, two])
    relay = Relay(two.port)
    # Only through the relay at first; hello tells where the other one really is.
    one.known[two.id] = (f"/ip4/127.0.0.1/tcp/{relay.port}",)
    two.known.clear()
    async with running(two) as nursery:
        await nursery.start(relay.run)
        await one.start(nursery)
        await connect_all([one, two])
        # Like SIGSTOP: connections stay open, nothing passes, and a close would wait for ever.
        relay.freeze()
        assert one.network.send(two.id, "bulk", bytes(4_000_000))
        for place, other in ((one, two), (two, one)):
            await place.wait_until(partial(place.ups.__contains__, (other.id, False)))
        await connect_all([one, two])


async def test_a_process_that_stood_still_does_not_blame_its_peers() -> None:
    one, two = make_places(2, silence_s=1.0, ping_interval_s=0.2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        # The whole process is held up, as by SIGSTOP or a suspended machine.
        time.sleep(1.6)  # noqa: ASYNC251
        for _ in range(4):
            assert await one.network.request(two.id, "status", b"?", 5) == b"status:?"
            with trio.move_on_after(0.2):
                await trio.sleep_forever()
        assert one.ups == [(two.id, True)]
        assert two.ups == [(one.id, True)]


async def test_round_trip_times_are_known() -> None:
    one, two = make_places(2, ping_interval_s=0.05)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        await one.wait_until(lambda: one.network.peers()[0].rtt_ms is not None)
        rtt_ms = one.network.peers()[0].rtt_ms
        assert rtt_ms is not None
        assert 0 < rtt_ms < DEADLINE_S * 1000
