"""What a hostile peer, or anybody who finds the port, can send: the node lives through it.

An attacker here is a whole network of ours whose key is on the victim's list, and which opens
streams of its own to say what it likes. An honest third node must get through afterwards.
"""

import os
import random
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.rsa import create_new_key_pair as new_rsa_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from trio.testing import wait_all_tasks_blocked

from p2pcity.net.frames import LANE, PIECE, WHOLE, encode_frame
from p2pcity.net.links import Link
from p2pcity.wire.limits import GOSSIP_BYTES_MAX
from tests.net_case import (
    DEADLINE_S,
    PREFIX,
    TOPIC,
    Place,
    connect_all,
    introduce,
    make_places,
    running,
)

pytestmark = pytest.mark.integration

GOSSIP: Final = "/meshsub/1.1.0"
RSS_GROWTH_MAX: Final = 50 * 1024 * 1024
_GARBAGE: Final = random.Random(1).randbytes(4096)


def varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def rpc(**fields: object) -> bytes:
    data = rpc_pb2.RPC(**fields).SerializeToString()  # type: ignore[arg-type]  # any field
    return varint(len(data)) + data


def message(**changes: object) -> bytes:
    """An RPC with one message that is wrong only in what is changed."""
    origin = ID.from_string("12D3KooWBFeDLf4rf2b7MZka8R6DCw1dxzWPSpb2Uor1dAJNoCE9").to_bytes()
    fields: dict[str, object] = {
        "from_id": origin,
        "data": b"x",
        "seqno": bytes(8),
        "topicIDs": [TOPIC],
        "signature": bytes(64),
    }
    return rpc(publish=[rpc_pb2.Message(**(fields | changes))])  # type: ignore[arg-type]  # any


def many_controls() -> bytes:
    control = rpc_pb2.ControlMessage()
    for number in range(10_000):
        control.prune.add(topicID=f"/{number}", backoff=2**64 - 1)
    return rpc(control=control)


def many_offers() -> bytes:
    control = rpc_pb2.ControlMessage()
    control.ihave.add(topicID=TOPIC, messageIDs=[b"%08x" % n for n in range(100_000)])
    return rpc(control=control)


def not_utf8_topic() -> bytes:
    data = message(topicIDs=["aaaa"]).replace(b"aaaa", b"\xff\xfe\xfd\xfc")
    return data


RSA_KEY: Final = new_rsa_pair(2048).public_key.serialize()

PUBSUB_PAYLOADS: Final[dict[str, Callable[[], bytes]]] = {
    "an RPC that does not parse": lambda: varint(50) + b"\xff" * 50,
    "random bytes": lambda: _GARBAGE,
    "a from that is no peer id, with a key": lambda: message(from_id=b"\x01\x02", key=b"k" * 36),
    "a garbage key": lambda: message(key=b"\x08\x01\x12\xff" + bytes(32)),
    "a bad RSA key": lambda: message(from_id=bytes([0x12, 0x20]) + bytes(32), key=RSA_KEY[:-9]),
    "another one's RSA key": lambda: message(key=RSA_KEY),
    "a truncated length": lambda: b"\x80",
    "a length of 2^63": lambda: varint(2**63),
    "a length without an end": lambda: b"\xff" * 64,
    "a truncated RPC": lambda: message()[:-3],
    "an empty RPC": lambda: b"\x00",
    "no sequence number": lambda: message(seqno=b""),
    "a wrong signature": message,
    "too much data": lambda: message(data=bytes(GOSSIP_BYTES_MAX + 1)),
    "a topic that is not UTF-8": not_utf8_topic,
    "5,000 subscriptions": lambda: rpc(
        subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=str(n)) for n in range(5000)]
    ),
    "10,000 PRUNEs": many_controls,
    "100,000 IHAVE ids": many_offers,
    "2,000 messages": lambda: rpc(publish=[rpc_pb2.Message(data=b"x")] * 2000),
    "a bad peer record": lambda: rpc(senderRecord=b"\xff" * 100),
}

STREAM_PAYLOADS: Final[dict[str, tuple[str, bytes]]] = {
    "identify: garbage": ("/ipfs/id/1.0.0", _GARBAGE),
    "ping: too short": ("/ipfs/ping/1.0.0", bytes(31)),
    "ping: too long": ("/ipfs/ping/1.0.0", bytes(33)),
    "ping: a megabyte": ("/ipfs/ping/1.0.0", bytes(1 << 20)),
    "raft: no lane": (f"{PREFIX}/raft/1", encode_frame(WHOLE, b"x")),
    "raft: an unknown lane": (f"{PREFIX}/raft/1", encode_frame(LANE, b"fast")),
    "raft: a lane twice": (f"{PREFIX}/raft/1", encode_frame(LANE, b"control")),
    "raft: a length of 4 GiB": (f"{PREFIX}/raft/1", b"\xff\xff\xff\xff"),
    "raft: random bytes": (f"{PREFIX}/raft/1", _GARBAGE),
    "forward: a second stream": (f"{PREFIX}/forward/1", encode_frame(WHOLE, _GARBAGE)),
    "hello: a second one": ("/p2pcity/hello/1", encode_frame(WHOLE, b"x")),
    "hello: random bytes": ("/p2pcity/hello/1", _GARBAGE),
}

# On the kept streams themselves.
KEPT_PAYLOADS: Final[dict[str, tuple[str, bytes]]] = {
    "control: a lane twice": ("control", encode_frame(LANE, b"bulk")),
    "bulk: a piece that is not full": ("bulk", encode_frame(PIECE, b"x")),
    "bulk: 2^32 - 1 bytes": ("bulk", b"\xff\xff\xff\xff"),
    "forward: too short": ("forward", encode_frame(WHOLE, b"\x00")),
    "forward: an answer to nothing": ("forward", encode_frame(WHOLE, struct.pack(">BI", 1, 99))),
    "forward: an unknown kind": ("forward", encode_frame(WHOLE, struct.pack(">BI", 9, 1))),
}


def link_between(one: Place, two: Place) -> Link:
    link = one.network._links.active(two.id)
    assert link is not None
    return link


async def open_stream(attacker: Place, victim: Place, protocol: str) -> INetStream:
    host = attacker.network._host
    assert host is not None
    return await host.open_stream(link_between(attacker, victim), [TProtocol(protocol)])


async def say(stream: INetStream, data: bytes) -> None:
    """Write `data`, close our side, and wait until the victim is done with it, or 1 s."""
    with trio.move_on_after(1):
        try:
            await stream.write(data)
            await stream.close_write()  # type: ignore[attr-defined]  # NetStream has it
            while await stream.read():
                pass
        except BaseLibp2pError:
            # It hung up on us: fine.
            return


async def assert_lives(victim: Place, honest: Place) -> None:
    """An honest node gets through, both ways."""
    await honest.wait_peer(victim)
    assert await honest.network.request(victim.id, "status", b"?", 5) == b"status:?"
    mark = os.urandom(8)
    assert victim.network.send(honest.id, "control", mark)
    await honest.wait_until(lambda: (victim.id, mark) in honest.raft)


async def run_attack(attack: Callable[[Place, Place], Awaitable[None]]) -> Place:
    attacker, victim, honest = make_places(3)
    introduce([attacker, victim, honest])
    async with running(attacker, victim, honest):
        await connect_all([attacker, victim, honest])
        await attack(attacker, victim)
        await assert_lives(victim, honest)
        # One fault does not cost the honest one anything, and the attacker no more than a ban.
        scores = {info.peer: info.score for info in victim.network.peers()}
        assert scores[honest.id] == 0
    return victim


@pytest.mark.parametrize("name", PUBSUB_PAYLOADS)
async def test_malformed_gossip(name: str) -> None:
    async def attack(attacker: Place, victim: Place) -> None:
        await say(await open_stream(attacker, victim, GOSSIP), PUBSUB_PAYLOADS[name]())

    victim = await run_attack(attack)
    assert not victim.gossip


@pytest.mark.parametrize("name", STREAM_PAYLOADS)
async def test_malformed_streams(name: str) -> None:
    protocol, data = STREAM_PAYLOADS[name]

    async def attack(attacker: Place, victim: Place) -> None:
        await _attack_once(attacker, victim, protocol, data)

    await run_attack(attack)


@pytest.mark.parametrize("name", KEPT_PAYLOADS)
async def test_malformed_kept_streams(name: str) -> None:
    which, data = KEPT_PAYLOADS[name]

    async def attack(attacker: Place, victim: Place) -> None:
        link = link_between(attacker, victim)
        kept = link.lanes.get(which) or link.requests[which].kept
        kept._push(data)
        await victim.wait_until(lambda: (attacker.id, False) in victim.ups)

    victim = await run_attack(attack)
    assert not victim.raft


async def test_a_raft_message_that_cannot_be_decoded_costs_the_connection() -> None:
    attacker, victim, honest = make_places(3)
    introduce([attacker, victim, honest])
    victim.on_raft = lambda peer, data: data != b"bad"
    async with running(attacker, victim, honest):
        await connect_all([attacker, victim, honest])
        assert attacker.network.send(victim.id, "control", b"bad")
        await victim.wait_until(lambda: (attacker.id, False) in victim.ups)
        await assert_lives(victim, honest)


async def test_a_raft_handler_that_fails_costs_the_connection_and_not_the_node() -> None:
    attacker, victim, honest = make_places(3)
    introduce([attacker, victim, honest])

    def fail(peer: str, data: bytes) -> None:
        raise ZeroDivisionError("a bug of ours")

    victim.on_raft = fail
    async with running(attacker, victim, honest):
        await connect_all([attacker, victim, honest])
        assert attacker.network.send(victim.id, "bulk", b"x")
        await victim.wait_until(lambda: (attacker.id, False) in victim.ups)
        await assert_lives(victim, honest)


async def test_an_endless_protocol_list_is_cut() -> None:
    async def attack(attacker: Place, victim: Place) -> None:
        stream = await link_between(attacker, victim).conn.new_stream()
        lines = [b"/multistream/1.0.0\n", *(b"/unknown/%d\n" % n for n in range(5000))]
        await say(stream, b"".join(varint(len(line)) + line for line in lines))

    await run_attack(attack)


async def test_a_megabyte_of_a_protocol_line_is_cut() -> None:
    async def attack(attacker: Place, victim: Place) -> None:
        stream = await link_between(attacker, victim).conn.new_stream()
        await say(stream, varint(1 << 20) + bytes(1 << 20))

    await run_attack(attack)


async def test_streams_of_one_connection_are_bounded() -> None:
    async def attack(attacker: Place, victim: Place) -> None:
        link = link_between(attacker, victim)
        with trio.move_on_after(3):
            # 200 are as many as the attacker's own library opens at once.
            for _ in range(200):
                await link.conn.new_stream()
        with trio.fail_after(DEADLINE_S):
            while link_between(victim, attacker).streams_open > 64:
                await wait_all_tasks_blocked(0.01)

    await run_attack(attack)


async def test_nothing_is_served_before_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose hello never comes gets nothing, and ends."""
    attacker, victim, honest = make_places(3, hello_timeout_s=2.0)
    introduce([victim, honest])
    victim.allowed.add(attacker.id)
    attacker.allowed.add(victim.id)
    async with running(attacker, victim, honest):
        await connect_all([victim, honest])
        monkeypatch.setattr(attacker.network._connections, "_say_hello", _say_nothing)
        attacker.knows(victim)
        with trio.fail_after(DEADLINE_S):
            while not (links := victim.network._links.to(attacker.id)):
                await wait_all_tasks_blocked(0.01)
            while not (mine := attacker.network._links.to(victim.id)):
                await wait_all_tasks_blocked(0.01)
        host = attacker.network._host
        assert host is not None
        (link,) = mine
        stream = await host.open_stream(link, [TProtocol(f"{PREFIX}/status/1")])
        await stream.write(encode_frame(WHOLE, struct.pack(">BI", 0, 1) + b"?"))
        with trio.fail_after(DEADLINE_S):
            with pytest.raises(BaseLibp2pError):
                await stream.read()
            await links[0].ended.wait()
        assert (attacker.id, True) not in victim.ups
        await assert_lives(victim, honest)


async def _say_nothing(link: Link) -> None:
    return


async def strangers(victim: Place, attack: Callable[[trio.SocketStream], Awaitable[None]]) -> None:
    """Let one who has no key at all connect to the victim's port."""
    stream = await trio.open_tcp_stream("127.0.0.1", victim.port)
    async with stream:
        with trio.move_on_after(1):
            try:
                await attack(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


HANDSHAKE: Final = b"\x13/multistream/1.0.0\n"


async def _send_random(stream: trio.SocketStream) -> None:
    await stream.send_all(_GARBAGE)


async def _send_http(stream: trio.SocketStream) -> None:
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while await stream.receive_some():
        pass


async def _send_tls(stream: trio.SocketStream) -> None:
    await stream.send_all(bytes.fromhex("16030100f4010000f00303") + bytes(200))


async def _send_half_noise(stream: trio.SocketStream) -> None:
    await stream.send_all(HANDSHAKE + b"\x07/noise\n" + b"\x00\x20" + bytes(range(1, 33)))
    while await stream.receive_some():
        pass


async def _send_bad_noise(stream: trio.SocketStream) -> None:
    await stream.send_all(HANDSHAKE + b"\x07/noise\n" + b"\x00\x20" + bytes(range(1, 33)))
    await stream.send_all(b"\x01\x00" + _GARBAGE[:256])


async def _send_plaintext(stream: trio.SocketStream) -> None:
    await stream.send_all(HANDSHAKE + b"\x11/plaintext/2.0.0\n" + bytes(100))


async def _send_huge_line(stream: trio.SocketStream) -> None:
    await stream.send_all(varint(2**62) + bytes(8 << 20))


async def _send_endless_list(stream: trio.SocketStream) -> None:
    await stream.send_all(HANDSHAKE + b"\x09/unknown\n" * 100_000)


STRANGERS: Final = {
    "random bytes": _send_random,
    "HTTP": _send_http,
    "TLS": _send_tls,
    "half a Noise handshake": _send_half_noise,
    "a bad Noise handshake": _send_bad_noise,
    "plaintext": _send_plaintext,
    "a line of 2^62 bytes": _send_huge_line,
    "an endless protocol list": _send_endless_list,
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_strangers_at_the_port(name: str) -> None:
    victim, honest = make_places(2)
    introduce([victim, honest])
    async with running(victim) as nursery:
        for _ in range(10):
            nursery.start_soon(strangers, victim, STRANGERS[name])
        await honest.start(nursery)
        await assert_lives(victim, honest)


async def test_400_idle_connections_keep_nobody_out() -> None:
    victim, honest = make_places(2)
    introduce([victim, honest])
    async with running(victim) as nursery:
        for _ in range(400):
            nursery.start_soon(strangers, victim, _send_half_noise)
        await victim.wait_until(lambda: victim.network.statistics()["handshakes_evicted"] > 100)
        await honest.start(nursery)
        await assert_lives(victim, honest)


def rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_memory_stays_within_its_bound() -> None:
    """All of the above, again and again, against one victim that bans nobody."""
    attacker, victim, honest = make_places(3, demerits_max=1e9)
    introduce([attacker, victim, honest])
    async with running(attacker, victim, honest):
        await connect_all([attacker, victim, honest])
        before = rss()
        for _ in range(3):
            for make in PUBSUB_PAYLOADS.values():
                await _attack_once(attacker, victim, GOSSIP, make())
            for protocol, data in STREAM_PAYLOADS.values():
                await _attack_once(attacker, victim, protocol, data)
            async with trio.open_nursery() as nursery:
                for attack in STRANGERS.values():
                    nursery.start_soon(strangers, victim, attack)
        await assert_lives(victim, honest)
        grown = rss() - before
        print(f"grown by {grown / 1e6:.1f} MB")
        assert grown < RSS_GROWTH_MAX


async def _attack_once(attacker: Place, victim: Place, protocol: str, data: bytes) -> None:
    await attacker.wait_peer(victim)
    try:
        stream = await open_stream(attacker, victim, protocol)
    except (SwarmException, AssertionError, BaseLibp2pError):
        # The last attack's connection is on its way out.
        return
    await say(stream, data)
