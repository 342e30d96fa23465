"""Gossip over real libp2p: everybody gets everything once, rejecting costs, limits hold."""

import time
from functools import partial

import pytest
import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.pubsub.pb import rpc_pb2
from trio.testing import wait_all_tasks_blocked

from p2pcity.net.gossip import CityPubsub
from p2pcity.wire.limits import GOSSIP_BYTES_MAX
from tests.net_case import TOPIC, Place, connect_all, introduce, make_places, running

pytestmark = pytest.mark.integration


def pubsub_of(place: Place) -> CityPubsub:
    assert place.network._pubsub is not None
    return place.network._pubsub


def is_in_mesh(place: Place, others: list[str]) -> bool:
    return all(map(pubsub_of(place).is_in_mesh, others))


def has_gossip(place: Place, count: int) -> bool:
    return len(place.gossip) >= count


def score_of(place: Place, other: Place) -> float:
    return next(info.score for info in place.network.peers() if info.peer == other.id)


async def wait_mesh(places: list[Place]) -> None:
    for place in places:
        others = [other.id for other in places if other is not place]
        await place.wait_until(partial(is_in_mesh, place, others))


def signed(origin: Place, data: bytes, seqno: int, topic: str = TOPIC) -> rpc_pb2.Message:
    key = Ed25519PrivateKey.from_bytes(origin.key.seed)
    message = rpc_pb2.Message(
        from_id=pubsub_of(origin).my_id.to_bytes(),
        data=data,
        seqno=seqno.to_bytes(8, "big"),
        topicIDs=[topic],
    )
    message.signature = key.sign(b"libp2p-pubsub:" + message.SerializeToString())
    message.key = key.get_public_key().serialize()
    return message


async def test_everybody_gets_every_message_once() -> None:
    places = make_places(3)
    introduce(places)
    async with running(*places):
        await connect_all(places)
        await wait_mesh(places)
        sent = {
            place.id: [b"%d %s" % (n, place.id.encode()) for n in range(20)] for place in places
        }
        for number in range(20):
            for place in places:
                await place.network.publish(sent[place.id][number])
        for place in places:
            expected = sorted(m for id_, ms in sent.items() if id_ != place.id for m in ms)
            await place.wait_until(partial(has_gossip, place, 40))
            assert sorted(data for _, data in place.gossip) == expected


async def test_the_largest_message_passes() -> None:
    places = make_places(2)
    introduce(places)
    async with running(*places):
        await connect_all(places)
        await wait_mesh(places)
        await places[0].network.publish(bytes(GOSSIP_BYTES_MAX))
        await places[1].wait_until(lambda: bool(places[1].gossip))
        [sender], [receiver] = (place.network.peers() for place in places)
        assert sender.traffic["gossip"].bytes_out > GOSSIP_BYTES_MAX
        assert receiver.traffic["gossip"].bytes_in > GOSSIP_BYTES_MAX
        assert receiver.traffic["rest"].bytes_in < GOSSIP_BYTES_MAX // 10
        assert places[1].gossip[0] == (places[0].id, bytes(GOSSIP_BYTES_MAX))


async def test_a_rejected_message_costs_its_forwarder_and_is_not_passed_on() -> None:
    places = make_places(3)
    introduce(places)
    one, two, three = places
    async with running(*places):
        await connect_all(places)
        await wait_mesh(places)
        await one.network.publish(b"bad")
        await two.wait_until(lambda: bool(two.gossip))
        await three.wait_until(lambda: bool(three.gossip))
        assert two.gossip[0][0] == three.gossip[0][0] == one.id
        # It is blamed once the handler has returned.
        await two.wait_until(lambda: score_of(two, one) < 0)
        assert score_of(two, three) == 0


async def test_a_peer_that_only_sends_bad_messages_is_banned() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        await wait_mesh([one, two])
        for number in range(12):
            await one.network.publish(b"bad %d" % number)
        await two.wait_until(lambda: two.network.peers()[0].state == "banned")
        await one.wait_until(lambda: not one.network.is_connected(two.id))


async def test_a_handler_that_fails_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_places(2)

    def fail(peer: str, data: bytes) -> bool:
        two.gossip.append((peer, data))
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(two, "_take_gossip", fail)
    two.make_network()
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        await wait_mesh([one, two])
        for number in range(3):
            await one.network.publish(b"%d" % number)
        await two.wait_until(lambda: len(two.gossip) == 3)
        assert two.network.peers()[0].score == 0
        assert two.ups == [(one.id, True)]


async def test_a_garbled_copy_does_not_keep_the_true_one_out() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        await wait_mesh([one, two])
        true = signed(one, b"true", 7)
        garbled = rpc_pb2.Message()
        garbled.CopyFrom(true)
        garbled.data = b"false"
        forwarder = pubsub_of(one).my_id
        await pubsub_of(two).push_msg(forwarder, garbled)
        assert not two.gossip
        await pubsub_of(two).push_msg(forwarder, true)
        await pubsub_of(two).push_msg(forwarder, true)
        assert list(two.gossip) == [(one.id, b"true")]
        assert pubsub_of(two).counters.badly_signed == 1


async def test_origin_and_forwarder_have_limits() -> None:
    one, two = make_places(2, gossip_per_origin_s=2.0, gossip_per_forwarder_s=5.0)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        forwarder = pubsub_of(one).my_id
        receiver = pubsub_of(two)
        begin_s = trio.current_time()
        for number in range(40):
            await receiver._take(forwarder, rpc_pb2.RPC(publish=[signed(one, b"x", number)]))
        # Two seconds' worth at once, and then by the clock, however slow this machine is.
        most = 4 + 2 * (trio.current_time() - begin_s)
        assert 4 <= len(two.gossip) <= most
        assert receiver.counters.rate_limited == 40 - len(two.gossip)


async def test_messages_of_strangers_and_other_topics_are_ignored_without_blame() -> None:
    one, two, stranger = make_places(3)
    introduce([one, two])
    async with running(one, two, stranger):
        await connect_all([one, two])
        forwarder = pubsub_of(one).my_id
        receiver = pubsub_of(two)
        messages = [signed(stranger, b"x", 1), signed(one, b"x", 2, topic="/other/1")]
        await receiver._take(forwarder, rpc_pb2.RPC(publish=messages))
        assert not two.gossip
        assert receiver.counters.unknown_origin == 1
        assert receiver.counters.other_topic == 1
        assert two.network.peers()[0].score == 0


async def test_a_restarted_node_does_not_reuse_its_numbers() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two) as nursery:
        await connect_all([one, two])
        await wait_mesh([one, two])
        await one.network.publish(b"before")
        await two.wait_until(lambda: len(two.gossip) == 1)
        one.stop()
        await two.wait_until(lambda: not two.network.is_connected(one.id))
        one.make_network()
        await one.start(nursery)
        await connect_all([one, two])
        await wait_mesh([one, two])
        await one.network.publish(b"after")
        await two.wait_until(lambda: len(two.gossip) == 2)


async def test_prune_is_clamped_and_unknown_topics_leave_nothing() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        await wait_mesh([one, two])
        sender = pubsub_of(one).my_id
        receiver = pubsub_of(two)
        control = rpc_pb2.ControlMessage()
        control.prune.add(topicID=TOPIC, backoff=2**64 - 1)
        control.prune.add(topicID="/unknown", backoff=5)
        control.graft.add(topicID="/unknown")
        control.ihave.add(topicID="/unknown", messageIDs=[b"ff"])
        await receiver._take(sender, rpc_pb2.RPC(control=control))
        back_off = receiver.gossipsub.back_off
        assert set(back_off) == {TOPIC}
        assert back_off[TOPIC][sender] <= time.time() + 60
        assert "/unknown" not in receiver.gossipsub.ihave_message_limits[sender]
        assert set(receiver.gossipsub.graft_flood_tracking[sender]) == {TOPIC}


async def test_asking_for_the_same_message_many_times_gives_it_once() -> None:
    one, two = make_places(2)
    introduce([one, two])
    async with running(one, two):
        await connect_all([one, two])
        await wait_mesh([one, two])
        await one.network.publish(bytes(10_000))
        (id_,) = pubsub_of(one).gossipsub.mcache.window(TOPIC)
        asker = pubsub_of(two).my_id
        before = one.network.peers()[0].bytes_out
        control = rpc_pb2.ControlMessage()
        control.iwant.add(messageIDs=[id_] * 5000)
        await pubsub_of(one)._take(asker, rpc_pb2.RPC(control=control))
        await wait_all_tasks_blocked(0.05)
        assert one.network.peers()[0].bytes_out - before < 30_000
