"""Gossipsub for one topic of transactions, without what can be made to grow, loop or crash.

libp2p's Pubsub and GossipSub (0.8.1) do the mesh; these subclasses read the streams and judge
the messages. Messages are taken in order, one after the other, in the reader's own task: the
library starts a task for each, which keeps no order and gives no back-pressure. Nothing a peer
sends is kept without a bound, and no exception leaves a stream's handler.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio
from libp2p.abc import IHost, INetStream
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.pubsub_notifee import PubsubNotifee
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.utils import safe_bytes_from_hex
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.utils.varint import encode_uvarint

from p2pcity.crypto.keys import verify
from p2pcity.errors import DecodeError
from p2pcity.net.config import NetConfig
from p2pcity.net.frames import VarintReader
from p2pcity.net.pacing import TokenBucket
from p2pcity.wire.limits import GOSSIP_BYTES_MAX

INBOUND_RPC_BYTES_MAX: Final = 4 << 20
# libp2p's queue to a peer holds 32 messages and drops the rest without a word; a burst of 20
# batches a second from each of a dozen nodes needs more. Up to 64 KiB each: 32 MiB at worst.
OUTBOUND_QUEUE_MAX: Final = 512
BACK_OFF_S_MAX: Final = 60
_WRITE_BYTES_MAX: Final = 64 * 1024
_STREAMS_PER_PEER_MAX: Final = 2
_PUBLISHED_PER_RPC_MAX: Final = 1024
_SUBSCRIPTIONS_PER_RPC_MAX: Final = 32
_CONTROLS_PER_RPC_MAX: Final = 64
_WANTED_IDS_MAX: Final = 64
_OFFERED_IDS_MAX: Final = 512
_ORIGINS_MAX: Final = 1024
_SEQNO_BYTES: Final = 8
# An Ed25519 key in a peer id: an identity multihash of the protobuf of the key
# (libp2p peer id specification); `key` of a message is that protobuf.
_KEY_HEAD: Final = bytes.fromhex("08011220")
_PEER_ID_HEAD: Final = bytes.fromhex("0024") + _KEY_HEAD
_PEER_ID_BYTES: Final = len(_PEER_ID_HEAD) + 32


@dataclass(slots=True)
class GossipCounters:
    """What happened on the topic since the start.

    `published` are this node's own messages, `sent` the copies that went to peers, forwarded ones
    and those that were asked for included; `received` are new ones that were judged.
    """

    published: int = 0
    sent: int = 0
    received: int = 0
    rejected: int = 0
    badly_signed: int = 0
    rate_limited: int = 0
    unknown_origin: int = 0
    other_topic: int = 0
    dropped_out: int = 0


class CityGossipSub(GossipSub):
    """The mesh of one topic."""

    def __init__(self, counters: GossipCounters) -> None:
        # Every value was measured or looked up: 1.2.0 lost messages, the default heartbeat is
        # 120 s, "adaptive" slows it down just when the mesh is ill, and the spam limit counts
        # this node's own messages.
        super().__init__(
            protocols=[PROTOCOL_ID_V11],
            # Each node gets as many copies of a message as it has peers in the mesh: with 8, a
            # city of twelve nodes is a full mesh, and two fifths of its work were copies.
            degree=4,
            degree_low=3,
            degree_high=6,
            heartbeat_interval=1,
            heartbeat_initial_delay=0.5,
            gossip_window=5,
            gossip_history=10,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
            adaptive_gossip_enabled=False,
            prune_back_off=5,
            unsubscribe_back_off=2,
        )
        # Peers are scored by this room, for everything they do.
        self.scorer = None
        self._counters = counters

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Pass a message on to the mesh.

        The library's version signs a peer record for each, and keeps every message and every
        delivery time in tables without an end.
        """
        assert self.pubsub is not None
        self.mcache.put(pubsub_msg)
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        origin = ID(pubsub_msg.from_id)
        for peer in self._get_peers_to_send(pubsub_msg.topicIDs, msg_forwarder, origin):
            queue = self.pubsub.peer_queues.get(peer)
            if queue is None:
                continue
            # One object for all: it is put into bytes once.
            if queue.push(rpc):
                self._counters.sent += 1
            else:
                self._handle_dropped_rpc(peer, rpc, "queue_full")

    async def emit_control_message(self, control_msg: rpc_pb2.ControlMessage, to_peer: ID) -> None:
        """Send a control message, without the signed peer record that nobody here reads."""
        self.send_rpc(to_peer, rpc_pb2.RPC(control=control_msg), priority=True)

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Send nothing: a new peer catches up by anti-entropy, in one answer."""

    def _handle_dropped_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, reason: str) -> None:
        self._counters.dropped_out += len(rpc.publish)
        super()._handle_dropped_rpc(peer_id, rpc, reason)

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        """Act on a control message, as far as it is about our topic and within the bounds."""
        control = rpc.control
        total = len(control.ihave) + len(control.iwant) + len(control.graft) + len(control.prune)
        if total > _CONTROLS_PER_RPC_MAX:
            raise DecodeError(f"{total} control messages in one RPC", reason="size")
        for ihave in control.ihave:
            if ihave.topicID in self.mesh:
                del ihave.messageIDs[_OFFERED_IDS_MAX:]
                await self.handle_ihave(ihave, sender_peer_id)
        wanted = dict.fromkeys(id_ for iwant in control.iwant for id_ in iwant.messageIDs)
        if wanted:
            few = list(wanted)[:_WANTED_IDS_MAX]
            await self.handle_iwant(rpc_pb2.ControlIWant(messageIDs=few), sender_peer_id)
        for graft in control.graft:
            if graft.topicID in self.mesh:
                await self.handle_graft(graft, sender_peer_id)
        for prune in control.prune:
            if prune.topicID in self.mesh:
                # Unclamped, one PRUNE with 2^64 - 1 s would keep a peer out for ever.
                clamped = min(prune.backoff, BACK_OFF_S_MAX)
                own = rpc_pb2.ControlPrune(topicID=prune.topicID, backoff=clamped)
                await self.handle_prune(own, sender_peer_id)

    async def handle_iwant(self, iwant_msg: rpc_pb2.ControlIWant, sender_peer_id: ID) -> None:
        """Send the cached messages that the peer asks for, each in an RPC of its own."""
        if not self._check_iwant_rate_limit(sender_peer_id):
            return
        for wire_id in iwant_msg.messageIDs:
            id_ = safe_bytes_from_hex(wire_id)
            message = self.mcache.get(id_) if id_ is not None else None
            if message is not None:
                self._counters.sent += 1
                self.send_rpc(sender_peer_id, rpc_pb2.RPC(publish=[message]))


class CityPubsub(Pubsub):
    """One topic's streams and messages.

    `on_message(forwarder, data)` judges each new message, which is passed on only then, and
    holds up that peer's stream meanwhile: False rejects it and blames the
    forwarder through `on_fault(forwarder, reason, is_fatal)`; fatal is what ends a stream.
    """

    def __init__(
        self,
        host: IHost,
        topic: str,
        config: NetConfig,
        *,
        is_allowed: Callable[[str], bool],
        on_message: Callable[[str, bytes], Awaitable[bool]],
        on_fault: Callable[[str, str, bool], None],
    ) -> None:
        self.counters = GossipCounters()
        self.gossipsub = CityGossipSub(self.counters)
        super().__init__(
            host,
            self.gossipsub,
            strict_signing=True,
            seen_ttl=300,
            max_inbound_rpc_size=INBOUND_RPC_BYTES_MAX,
            allowed_topics={topic},
        )
        # The library counts from whole seconds: a node that restarts would reuse numbers that
        # its peers still remember, and its messages would be taken for old ones.
        self.counter = time.time_ns()
        # Peers come and go with hello, not with the bare connection.
        network = host.get_network()
        for notifee in list(network.notifees):  # type: ignore[attr-defined]  # Swarm's
            if isinstance(notifee, PubsubNotifee):
                network.remove_notifee(notifee)
        self._topic = topic
        self._config = config
        self._is_allowed = is_allowed
        self._on_message = on_message
        self._on_fault = on_fault
        self._reading: dict[ID, int] = {}
        # The RPC that was put into bytes last: a message goes to all peers of the mesh.
        self._encoded = (rpc_pb2.RPC(), b"")
        self._forwarders: dict[ID, TokenBucket] = {}
        # Of each connected peer's messages: all, and those that were known here already.
        self._copies: dict[ID, tuple[int, int]] = {}
        self._origins: dict[bytes, TokenBucket] = {}

    def add_peer(self, peer: str) -> None:
        """Open our stream to a peer that completed hello; tried again until it works."""
        self.manager.run_task(self._handle_new_peer_with_retry, ID.from_string(peer))

    def remove_peer(self, peer: str) -> None:
        """Forget a peer that has no connection any more."""
        peer_id = ID.from_string(peer)
        self._forwarders.pop(peer_id, None)
        self._copies.pop(peer_id, None)
        self._handle_dead_peer(peer_id)

    def is_in_mesh(self, peer: str) -> bool:
        """Tell whether `peer` is one that this node sends messages to directly."""
        return ID.from_string(peer) in self.gossipsub.mesh.get(self._topic, set())

    def duplicate_percent(self, peer: str) -> float | None:
        """How many in a hundred of a peer's messages were known already; None without any."""
        total, known = self._copies.get(ID.from_string(peer), (0, 0))
        return round(100 * known / total, 1) if total else None

    def is_subscribed(self, peer: str) -> bool:
        """Tell whether `peer` said that it wants the topic."""
        return ID.from_string(peer) in self.peer_topics.get(self._topic, ())

    async def send(self, data: bytes) -> None:
        """Publish one message of up to GOSSIP_BYTES_MAX bytes."""
        assert len(data) <= GOSSIP_BYTES_MAX, "the caller packs batches"
        self.counters.published += 1
        await self.publish(self._topic, data)

    def get_hello_packet(self) -> rpc_pb2.RPC:
        """Return the first RPC to a peer: our subscription."""
        packet = rpc_pb2.RPC()
        for topic in self.topic_ids:
            packet.subscriptions.add(subscribe=True, topicid=topic)
        return packet

    async def _handle_new_peer(self, peer_id: ID) -> None:
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue._queue.max_size = OUTBOUND_QUEUE_MAX

    async def handle_sending_messages(
        self, peer_id: ID, stream: INetStream, queue: RpcQueue
    ) -> None:
        """Write what is queued for a peer until the queue or the stream ends."""
        assert isinstance(stream, NetStream)
        try:
            while (rpc := await queue.pop()) is not None:
                frames = [self._encode(rpc)]
                size = len(frames[0])
                while len(queue) and size < _WRITE_BYTES_MAX:
                    following = await queue.pop()
                    if following is not None:
                        frames.append(self._encode(following))
                        size += len(frames[-1])
                await stream.muxed_stream.write(b"".join(frames))
        except BaseLibp2pError:
            self._handle_dead_peer(peer_id)

    def _encode(self, rpc: rpc_pb2.RPC) -> bytes:
        if rpc is not self._encoded[0]:
            data = rpc.SerializeToString()
            self._encoded = (rpc, encode_uvarint(len(data)) + data)
        return self._encoded[1]

    async def stream_handler(self, stream: INetStream) -> None:
        """Read a peer's stream until it ends. Whatever goes wrong costs the peer, not the node."""
        peer_id = stream.muxed_conn.peer_id
        if self._reading.get(peer_id, 0) >= _STREAMS_PER_PEER_MAX:
            await stream.reset()
            return
        self._reading[peer_id] = self._reading.get(peer_id, 0) + 1
        try:
            await self.continuously_read_stream(stream)
        except BaseLibp2pError:
            await _reset(stream)
        except Exception as error:  # noqa: BLE001
            # A stream's root: protobuf's errors are as many as its authors.
            await _reset(stream)
            self._on_fault(peer_id.to_base58(), f"gossip: {error}", True)
        finally:
            self._reading[peer_id] -= 1
            if not self._reading[peer_id]:
                del self._reading[peer_id]

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Take RPCs from `stream`, one after the other; raises what the bytes provoke."""
        peer_id = stream.muxed_conn.peer_id
        reader = VarintReader(self.max_inbound_rpc_size)
        assert isinstance(stream, NetStream)
        while True:
            for frame in reader.feed(await stream.muxed_stream.read()):
                rpc = rpc_pb2.RPC()
                rpc.ParseFromString(frame)
                await self._take(peer_id, rpc)

    async def _take(self, peer_id: ID, rpc: rpc_pb2.RPC) -> None:
        if len(rpc.subscriptions) > _SUBSCRIPTIONS_PER_RPC_MAX:
            raise DecodeError(f"{len(rpc.subscriptions)} subscriptions in one RPC", reason="size")
        if len(rpc.publish) > _PUBLISHED_PER_RPC_MAX:
            raise DecodeError(f"{len(rpc.publish)} messages in one RPC", reason="size")
        for subscription in rpc.subscriptions:
            if subscription.topicid == self._topic:
                self.handle_subscription(peer_id, subscription)
        for message in rpc.publish:
            if self._is_wanted(peer_id, message):
                await self.push_msg(peer_id, message)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer_id)

    def _is_wanted(self, peer_id: ID, message: rpc_pb2.Message) -> bool:
        if list(message.topicIDs) != [self._topic]:
            self.counters.other_topic += 1
            return False
        _check_form(message)
        now_s = trio.current_time()
        bucket = self._forwarders.get(peer_id)
        if bucket is None:
            rate = self._config.gossip_per_forwarder_s
            bucket = self._forwarders[peer_id] = TokenBucket(rate, 2 * rate, now_s)
        if not bucket.take(now_s):
            self.counters.rate_limited += 1
            return False
        is_known = message.from_id == self.my_id.to_bytes() or self._is_msg_seen(message)
        total, known = self._copies.get(peer_id, (0, 0))
        self._copies[peer_id] = (total + 1, known + is_known)
        if is_known:
            return False
        if not self._is_allowed(ID(message.from_id).to_base58()):
            # Maybe a member that we have not heard of yet: no blame.
            self.counters.unknown_origin += 1
            return False
        return True

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judge a message and pass it on; our own ones are only passed on."""
        if self._is_msg_seen(msg):
            return
        if msg_forwarder == self.my_id:
            self._mark_msg_seen(msg)
        elif not await self._is_good(msg_forwarder, msg):
            return
        await self.router.publish(msg_forwarder, msg)

    async def _is_good(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        if not _is_signed(message):
            # Not remembered: a garbled copy must not keep the true one out.
            self.counters.badly_signed += 1
            self._on_fault(forwarder.to_base58(), "gossip: a wrong signature", False)
            return False
        # Before it is judged, which waits: a copy from another peer is not judged as well.
        self._mark_msg_seen(message)
        if not self._take_from_origin(message.from_id):
            self.counters.rate_limited += 1
            return False
        self.counters.received += 1
        if not await self._on_message(forwarder.to_base58(), message.data):
            self.counters.rejected += 1
            self._on_fault(forwarder.to_base58(), "gossip: a rejected message", False)
            return False
        return True

    def _take_from_origin(self, origin: bytes) -> bool:
        now_s = trio.current_time()
        bucket = self._origins.get(origin)
        if bucket is None:
            if len(self._origins) >= _ORIGINS_MAX:
                del self._origins[next(iter(self._origins))]
            rate = self._config.gossip_per_origin_s
            bucket = self._origins[origin] = TokenBucket(rate, 2 * rate, now_s)
        return bucket.take(now_s)


def _check_form(message: rpc_pb2.Message) -> None:
    """Raise DecodeError unless origin, key, number and size have the form that ours have."""
    if len(message.data) > GOSSIP_BYTES_MAX:
        raise DecodeError(f"a gossip message of {len(message.data)} bytes", reason="size")
    if len(message.from_id) != _PEER_ID_BYTES or not message.from_id.startswith(_PEER_ID_HEAD):
        raise DecodeError("the origin's peer id is not of an Ed25519 key")
    if message.key and message.key != message.from_id[2:]:
        raise DecodeError("the key is not the origin's", reason="signature")
    if len(message.seqno) != _SEQNO_BYTES:
        raise DecodeError("the sequence number has not eight bytes")


def _is_signed(message: rpc_pb2.Message) -> bool:
    """Verify the origin's signature (libp2p pubsub specification, message signing)."""
    unsigned = rpc_pb2.Message(
        from_id=message.from_id, data=message.data, seqno=message.seqno, topicIDs=message.topicIDs
    )
    payload = PUBSUB_SIGNING_PREFIX.encode() + unsigned.SerializeToString()
    return verify(message.from_id[len(_PEER_ID_HEAD) :], payload, message.signature)


async def _reset(stream: INetStream) -> None:
    # On a stalled link even a reset waits for the socket.
    with trio.move_on_after(1):
        await stream.reset()
