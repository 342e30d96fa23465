"""What the tests of the node's parts share: transactions, an intake, and a network by hand."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, cast

import pytest

from p2pcity.admission.admission import Admission, AdmissionConfig
from p2pcity.city.membership import State
from p2pcity.errors import Unavailable
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.mempool.mempool import Mempool, MempoolConfig
from p2pcity.net.network import Network
from p2pcity.net.peers import PeerInfo
from p2pcity.node import intake as intake_module
from p2pcity.node.intake import Intake
from p2pcity.node.moments import Moments
from p2pcity.wire.raft import Entry, HardState
from p2pcity.wire.transaction import Carried
from tests.chain_case import NOW_MS, Chain

DEADLINE_S: Final = 20.0
Answer = Callable[[str, str, bytes], Awaitable[bytes]]


async def refuse(peer: str, protocol: str, data: bytes) -> bytes:
    """What a peer that is gone answers."""
    raise Unavailable(f"{peer} is not connected")


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examine everything on the loop: a clock that jumps does not wait for worker threads."""
    monkeypatch.setattr(intake_module, "_INLINE_MAX", 1_000_000)


class HandNetwork:
    """The interface of `net.Network` as far as the node's loops use it, turned by hand."""

    def __init__(self, *connected: str, answer: Answer = refuse) -> None:
        self.connected = list(connected)
        self.answer = answer
        self.asked: list[tuple[str, str, bytes]] = []
        self.published: list[bytes] = []
        self.penalised: list[str] = []

    @property
    def typed(self) -> Network:
        """The same object, as the node's parts want it."""
        return cast(Network, self)

    async def request(self, peer: str, protocol: str, data: bytes, timeout_s: float) -> bytes:
        self.asked.append((peer, protocol, data))
        return await self.answer(peer, protocol, data)

    async def publish(self, data: bytes) -> None:
        self.published.append(data)

    def penalise(self, peer: str) -> None:
        self.penalised.append(peer)

    def peers(self) -> tuple[PeerInfo, ...]:
        return tuple(PeerInfo(peer, "connected", is_connected=True) for peer in self.connected)


class KnownState:
    """`admission.StateView` over a genesis and a mempool; `on_ledger` is set by the test."""

    def __init__(self, state: State, mempool: Mempool) -> None:
        self._state = state
        self._mempool = mempool
        self.on_ledger: set[bytes] = set()
        self.error: Exception | None = None
        self.head_time_ms = NOW_MS

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        return self._state.author_types(key)

    def is_known(self, id: bytes) -> bool:
        if self.error is not None:
            raise self.error
        return id in self._mempool or id in self.on_ledger


class Door:
    """A real intake with a real admission and mempool, and what it told the node."""

    def __init__(
        self, admission: AdmissionConfig | None = None, mempool: MempoolConfig | None = None
    ) -> None:
        self.chain = Chain()
        self.now_ms = NOW_MS
        self.mempool = Mempool(mempool)
        self.state = KnownState(State.from_genesis(self.chain.genesis), self.mempool)
        self.admitted: list[tuple[list[Carried], str | None]] = []
        self.rejected: list[tuple[str, str | None]] = []
        self.moments = Moments(lambda: self.now_ms * 1000)
        network = self.chain.genesis.network
        self.intake = Intake(
            admission=Admission(admission or AdmissionConfig(), network),
            mempool=self.mempool,
            state=self.state,
            network=network,
            now_ms=lambda: self.now_ms,
            on_admitted=lambda carried, peer: self.admitted.append((list(carried), peer)),
            on_rejected=lambda reason, peer: self.rejected.append((reason, peer)),
            moments=self.moments,
        )

    def put(self, count: int = 1) -> list[Carried]:
        """Put new transactions straight into the mempool."""
        made = [self.chain.carried() for _ in range(count)]
        for item in made:
            self.mempool.add(item, self.now_ms)
        return made


def ids(carried: Sequence[Carried]) -> list[bytes]:
    return [item.transaction.id for item in carried]


def make_log(directory: Path, chain: Chain) -> SegmentLog:
    """A segment log that holds the chain's entries, all committed."""
    SegmentLog.create(directory, b"i" * 16)
    log = SegmentLog.open(directory)
    append(log, chain)
    return log


def append(log: SegmentLog, chain: Chain) -> None:
    """Save what the chain has and the log lacks, and say that it is committed."""
    entries = [
        Entry(1, index, payload or b"")
        for index, payload in chain.pairs(log.last_index + 1)
        if index > log.last_index
    ]
    log.save(HardState(1, None, chain.last_index), entries, True)


def open_views(directory: Path, chain: Chain, log: SegmentLog) -> ViewsStore:
    return ViewsStore.open(directory / "views.db", genesis=chain.genesis, raft_log=log)
