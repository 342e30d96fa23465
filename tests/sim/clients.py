"""The clients of a seed: they submit, wait, try again elsewhere, and read.

A client knows a node's address and nothing else. It goes on until it is told how its
transaction ended; what it was told is what the checkers hold the nodes to.
"""

from collections.abc import Callable
from typing import Final

from tests.sim.checkers import check
from tests.sim.city import Sample
from tests.sim.cluster import Cluster
from tests.sim.node import Node
from tests.sim.world import SECOND

_OPEN_MAX: Final = 120
_LATENCY: Final = 2000
_ENDS: Final = ("committed", "expired")


class _Submission:
    """One transaction under way; `node` is where it was sent last."""

    __slots__ = ("is_ended", "node", "sample", "tries")

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.is_ended = False
        self.tries = 0
        self.node = -1


class Clients:
    """Everybody who brings transactions and asks for heights."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.random = self.world.random("clients")
        self.answers_lost = 0
        self.copies = 1
        self.is_open = True
        self.submitted = 0
        self.kept: dict[bytes, str] = {}
        self.ended: dict[bytes, str] = {}
        self.submissions: dict[bytes, _Submission] = {}
        self._sessions = [0, 0, 0]
        self._number = 0
        gap_ms, self._burst = self.random.choice(((400, 3), (700, 6), (1100, 9)))
        self._gap = gap_ms * SECOND // 1000
        self._wait = self.random.choice((1, 2, 4)) * SECOND

    def start(self) -> None:
        """Begin to submit and to read."""
        self._submit_some()
        self._read_some()

    @property
    def open_count(self) -> int:
        """How many transactions have no end yet."""
        return len(self.submissions)

    @property
    def expired(self) -> list[bytes]:
        """The transactions of which a client was told that they expired."""
        return [id_ for id_, state in self.ended.items() if state == "expired"]

    def next_number(self) -> int:
        """The number of a transaction that was not used yet in this seed."""
        self._number += 1
        return self._number

    @property
    def last_number(self) -> int:
        """The number of the newest transaction."""
        return self._number

    def check_again(self, id_: bytes, state: str, height: int, hash_: bytes) -> None:
        """What was told committed once is told so again, at the same height."""
        check(state == "committed", f"I1 {id_.hex()[:8]} was committed, and is told {state}")
        self.cluster.checkers.acknowledge(id_, height, hash_)

    # -- submitting --------------------------------------------------------------------------

    def _submit_some(self) -> None:
        if not self.is_open:
            return
        self.world.after(1 + int(self.random.expovariate(1 / self._gap)), self._submit_some)
        if self.open_count >= _OPEN_MAX:
            return
        samples = [
            self.cluster.city.good(self.next_number())
            for _ in range(self.random.randint(1, self._burst))
        ]
        self.submit(samples)

    def submit(self, samples: list[Sample]) -> None:
        """Bring these, together, to some node (or to several)."""
        for sample in samples:
            self.cluster.checkers.submitted(sample)
        submissions = [_Submission(sample) for sample in samples]
        for submission in submissions:
            self.submissions[submission.sample.id] = submission
        self.submitted += len(samples)
        if self.copies > 1:
            self.world.struck["duplicate submit"] += 1
        for _ in range(self.copies):
            self._send(submissions)

    def _send(self, submissions: list[_Submission]) -> None:
        nodes = self.cluster.nodes
        node = nodes[self.random.randrange(len(nodes))]
        submissions = [item for item in submissions if not item.is_ended]
        if not submissions:
            return
        if not self.is_open:
            # In peace everybody is asked in turn: of many nodes few may be members (seed 13308).
            node = nodes[(submissions[0].node + 1) % len(nodes)]
        for item in submissions:
            item.tries += 1
            item.node = node.number
        delay = self._wait + self.random.randrange(self._wait)
        self.world.after(delay + 2 * SECOND, self._send, submissions)
        self.world.after(self._latency(), self._arrive, node, submissions, delay)

    def _arrive(self, node: Node, submissions: list[_Submission], delay: int) -> None:
        if not node.is_up:
            return
        items = [item.sample.data for item in submissions]

        def answer(id_: bytes, state: str, height: int, hash_: bytes) -> None:
            self.world.after(self._latency(), self._answered, id_, state, height, hash_)

        node.arrive(node.desk.submit, items, answer)
        node.after(delay, self._wait_over, node, [item.sample.id for item in submissions])

    def _wait_over(self, node: Node, ids: list[bytes]) -> None:
        """The node stops waiting: it answers `pending` and keeps what has no end."""
        for id_ in node.desk.accept([id_ for id_ in ids if id_ not in self.ended]):
            self.kept.setdefault(id_, str(node))

    def _answered(self, id_: bytes, state: str, height: int, hash_: bytes) -> None:
        if self.answers_lost and self.random.randrange(100) < self.answers_lost:
            self.world.struck["lost answers"] += 1
            return
        if state == "committed":
            self.world.note("acknowledged", height, int.from_bytes(id_[:7], "big"))
            self.cluster.checkers.acknowledge(id_, height, hash_)
        submission = self.submissions.get(id_)
        if state in _ENDS and submission is not None:
            submission.is_ended = True
            self.ended[id_] = state
            del self.submissions[id_]

    def _latency(self) -> int:
        return _LATENCY + self.random.randrange(_LATENCY)

    # -- bad ones ----------------------------------------------------------------------------

    def inject(self, samples: list[Sample], told: Callable[[str], None]) -> None:
        """Bring transactions that nobody may order, as a client and as a peer."""
        nodes = self.cluster.nodes
        for sample in samples:
            node = nodes[self.random.randrange(len(nodes))]
            if not node.is_up:
                continue
            if self.random.random() < 0.5:
                peer = nodes[self.random.randrange(len(nodes))].name
                node.arrive(self._gossip_one, node, peer, sample.data, told)
            else:
                node.arrive(
                    node.desk.submit, [sample.data], lambda _id, state, _height, _hash: told(state)
                )

    @staticmethod
    def _gossip_one(node: Node, peer: str, data: bytes, told: Callable[[str], None]) -> None:
        node.gossip.receive(peer, [data])
        told("gossip")

    # -- reading -----------------------------------------------------------------------------

    def _read_some(self) -> None:
        if not self.is_open:
            return
        self.world.after(1 + int(self.random.expovariate(2 / SECOND)), self._read_some)
        self.read()
        if self.random.random() < 0.3:
            self._read_session(self.random.randrange(len(self._sessions)))

    def read(self, node: Node | None = None) -> None:
        """One linearizable read, on `node` or on any."""
        checkers = self.cluster.checkers
        floor = checkers.height_told
        nodes = self.cluster.nodes
        chosen = nodes[self.random.randrange(len(nodes))] if node is None else node
        if not chosen.is_up:
            return

        def told(height: int, hash_: bytes) -> None:
            self.world.after(self._latency(), returned, height, hash_)

        def returned(height: int, hash_: bytes) -> None:
            self.world.note("read", floor, height)
            checkers.read(floor, height, hash_)

        chosen.after(self._latency(), self._read_on, chosen, told)

    @staticmethod
    def _read_on(node: Node, told: Callable[[int, bytes], None]) -> None:
        node.reads.read(told)

    def _read_session(self, session: int) -> None:
        """A local read that presents the height this client has seen."""
        nodes = self.cluster.nodes
        node = nodes[self.random.randrange(len(nodes))]
        floor = self._sessions[session]
        if node.is_up and not node.is_paused and node.views.tip.height >= floor:
            tip = node.views.tip
            self.cluster.checkers.read_session(floor, tip.height, tip.hash)
            self._sessions[session] = tip.height
