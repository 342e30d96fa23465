"""Anti-entropy between two nodes: what one lacks comes, within the limits, and comes back."""

from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from p2pcity.admission.admission import AdmissionConfig
from p2pcity.errors import DecodeError, Unavailable
from p2pcity.mempool.mempool import MempoolConfig
from p2pcity.node.anti_entropy import PEERS_A_ROUND, AntiEntropy
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.limits import SYNC_IDS_MAX
from p2pcity.wire.sync import (
    NO_SESSION,
    SYNC_BYTES_MAX,
    BaseAnswer,
    BaseQuestion,
    BlockAnswer,
    BlockQuery,
    EntriesAnswer,
    EntriesQuery,
    Fetch,
    Fetched,
    PendingAnswer,
    PendingQuery,
    StatusQuery,
)
from p2pcity.wire.transaction import Carried
from tests.node_case import Door, HandNetwork, ids, no_threads

__all__ = ["no_threads"]
pytestmark = pytest.mark.usefixtures("no_threads")


async def block_bytes(height: int) -> bytes | None:
    return b"block" if height == 1 else None


async def no_entries(question: EntriesQuery) -> EntriesAnswer:
    return EntriesAnswer(question.index, 1, 0, ())


async def no_base(question: BaseQuestion) -> sync_wire.Answer:
    return BaseAnswer(0, None, 0, 0, 1)


class Peer(Door):
    def __init__(
        self,
        name: str,
        mempool: MempoolConfig | None = None,
        admission: AdmissionConfig | None = None,
    ) -> None:
        super().__init__(admission, mempool)
        self.name = name
        self.network = HandNetwork()
        self.make()

    def make(self) -> None:
        """Begin a run of its own, as after a restart."""
        self.anti_entropy = AntiEntropy(
            network=self.network.typed,
            mempool=self.mempool,
            intake=self.intake,
            is_known=self.state.is_known,
            block_bytes=block_bytes,
            entries=no_entries,
            bases=no_base,
            session=self.name.encode().ljust(16, b"."),
        )

    async def ask(self, question: sync_wire.Request) -> sync_wire.Answer:
        return sync_wire.decode_answer(await self.anti_entropy.answer(sync_wire.encode(question)))


@dataclass
class Pair:
    """`far` has transactions, `near` asks for them each second; `is_cut`: no answer comes."""

    near: Peer
    far: Peer
    is_cut: bool = False

    def __post_init__(self) -> None:
        self.near.network.connected = ["far"]
        self.near.network.answer = self.answer
        self.far.chain = self.near.chain

    async def answer(self, peer: str, protocol: str, data: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.is_cut:
            raise Unavailable(f"{peer} is not connected")
        return await self.far.anti_entropy.answer(data)

    @property
    def lacking(self) -> set[bytes]:
        return set(ids(self.far.mempool.select(1 << 30))) - set(
            ids(self.near.mempool.select(1 << 30))
        )


def large(peer: Peer, count: int) -> list[Carried]:
    """Transactions of 60 KB in the mempool of `peer`."""
    made = [
        peer.chain.carried(*(peer.chain.event(data="x" * 30_000) for _ in range(2)))
        for _ in range(count)
    ]
    for item in made:
        peer.mempool.add(item, peer.now_ms)
    return made


async def test_what_this_node_lacks_comes_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    pair.far.put(3)
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(1.5)
    assert pair.lacking == set()
    pair.far.put(2)
    await trio.sleep(3)
    assert pair.lacking == set()
    assert pair.near.anti_entropy.fetched_count == 5
    assert {peer for _, peer in pair.near.admitted} == {"far"}


async def test_of_many_peers_a_few_are_asked_a_round_and_all_in_turn(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    names = [f"peer{number}" for number in range(10)]
    network = pair.near.network
    network.connected = names
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(1.5)
    assert len(network.asked) == PEERS_A_ROUND
    await trio.sleep(4)
    for begin in range(0, 5 * PEERS_A_ROUND, PEERS_A_ROUND):
        asked = {peer for peer, _, _ in network.asked[begin : begin + PEERS_A_ROUND]}
        assert asked == set((names * 2)[begin : begin + PEERS_A_ROUND])
    # A new one, and one that comes back, are asked next.
    network.connected = ["new", *names]
    pair.near.anti_entropy.forget("peer9")
    await trio.sleep(1)
    assert {"new", "peer9"} < {peer for peer, _, _ in network.asked[-PEERS_A_ROUND:]}


async def test_what_was_missed_while_cut_off_comes_later(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(1.5)
    pair.is_cut = True
    pair.far.put(3)
    await trio.sleep(5)
    assert len(pair.lacking) == 3
    pair.is_cut = False
    await trio.sleep(1)
    assert pair.lacking == set()


async def test_a_connection_that_breaks_between_question_and_fetch_loses_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    pair.far.put(3)

    async def answer(peer: str, protocol: str, data: bytes) -> bytes:
        if isinstance(sync_wire.decode_request(data), Fetch):
            raise Unavailable("the connection ended")
        return await pair.far.anti_entropy.answer(data)

    pair.near.network.answer = answer
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(2.5)
    assert len(pair.lacking) == 3
    pair.near.network.answer = pair.answer
    await trio.sleep(1)
    assert pair.lacking == set()


async def test_a_peer_that_starts_anew_is_asked_from_its_beginning(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    pair.far.put(50)
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(1.5)
    new = Peer("far again")
    new.chain = pair.near.chain
    new.put(3)
    pair.far = new
    await trio.sleep(2)
    assert pair.lacking == set()


async def test_more_than_one_answer_holds_comes_in_several(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    large(pair.far, 40)
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(1.5)
    assert pair.lacking == set()
    fetches = [
        data
        for _, _, data in pair.near.network.asked
        if isinstance(sync_wire.decode_request(data), Fetch)
    ]
    assert len(fetches) == 3


@pytest.mark.parametrize("kind", ["mempool", "quota"])
async def test_what_finds_no_room_now_is_asked_for_again(
    nursery: trio.Nursery, autojump_clock: MockClock, kind: str
) -> None:
    near = (
        Peer("near", mempool=MempoolConfig(transactions_max=2))
        if kind == "mempool"
        else Peer("near", admission=AdmissionConfig(peer_per_second=1, peer_burst=2))
    )
    pair = Pair(near, Peer("far"))
    pair.far.put(6)
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(1.5)
    assert len(pair.lacking) == 4
    for _ in range(4):
        applied = ids(near.mempool.select(1 << 20))
        near.mempool.remove(applied)
        pair.far.mempool.remove(applied)
        near.now_ms += 5000
        await trio.sleep(1)
    assert pair.lacking == set()
    assert len(near.mempool) + len(pair.far.mempool) < 6


async def test_rubbish_costs_the_peer_and_not_the_node(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = Pair(Peer("near"), Peer("far"))
    answers = [
        b"rubbish",
        sync_wire.encode(Fetched(())),
        sync_wire.encode(PendingAnswer(NO_SESSION, 1, (bytes(32),))),
        sync_wire.encode(PendingAnswer(NO_SESSION, 1, ())),
        sync_wire.encode(PendingAnswer(NO_SESSION, 2, (bytes(32),))),
        sync_wire.encode(Fetched((b"rubbish",))),
        sync_wire.encode(PendingAnswer(NO_SESSION, 2**64 - 1, ())),
    ]

    async def answer(peer: str, protocol: str, data: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        if answers:
            return answers.pop(0)
        return await pair.far.anti_entropy.answer(data)

    pair.near.network.answer = answer
    nursery.start_soon(pair.near.anti_entropy.run)
    await trio.sleep(8)
    assert answers == []
    assert pair.near.network.penalised == ["far"] * 3
    assert pair.near.rejected == [("malformed", "far")]
    # And what it says properly afterwards is heard.
    pair.far.put(2)
    await trio.sleep(2)
    assert pair.lacking == set()


async def test_the_answer_counts_from_the_beginning_of_its_own_session() -> None:
    far = Peer("far")
    carried = far.put(3)
    answer = await far.ask(PendingQuery(NO_SESSION, 2))
    assert isinstance(answer, PendingAnswer)
    assert (answer.last, list(answer.ids)) == (3, ids(carried))
    answer = await far.ask(PendingQuery(answer.session, 2))
    assert isinstance(answer, PendingAnswer)
    assert (answer.last, list(answer.ids)) == (3, ids(carried[2:]))
    answer = await far.ask(PendingQuery(answer.session, 2**64 - 1))
    assert isinstance(answer, PendingAnswer)
    assert answer.ids == ()


async def test_the_answers_keep_the_limits() -> None:
    far = Peer("far")
    far.put(SYNC_IDS_MAX + 5)
    answer = await far.ask(PendingQuery(NO_SESSION, 0))
    assert isinstance(answer, PendingAnswer)
    assert (len(answer.ids), answer.last) == (SYNC_IDS_MAX, SYNC_IDS_MAX)
    big = Peer("big")
    question = sync_wire.encode(Fetch(tuple(ids(large(big, 30)))))
    data = await big.anti_entropy.answer(question)
    assert 900_000 < len(data) <= SYNC_BYTES_MAX


async def test_blocks_are_answered_and_what_is_no_question_is_a_fault() -> None:
    far = Peer("far")
    assert await far.ask(BlockQuery(1)) == BlockAnswer(1, b"block")
    assert await far.ask(BlockQuery(2)) == BlockAnswer(2, None)
    for data in (b"rubbish", sync_wire.encode(StatusQuery()), sync_wire.encode(Fetched(()))):
        with pytest.raises(DecodeError):
            await far.anti_entropy.answer(data)
