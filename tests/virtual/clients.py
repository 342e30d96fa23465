"""The clients of a seed: they submit, wait, hang up, try again elsewhere, read and follow.

A client goes on with a transaction until it is told how it ended. What it was told is what the
checkers hold the nodes to.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Final

import trio

from p2pcity.api.service import Answer, EventInput, Head, TransactionStatus, Wait
from p2pcity.errors import ConfigError, LocalError, P2PCityError
from p2pcity.node.service import NodeService
from tests.sim.checkers import Violation, check
from tests.sim.city import Sample
from tests.virtual.cluster import Cluster
from tests.virtual.door import Gone
from tests.virtual.followers import Follower
from tests.virtual.host import Host

_COMMITTED: Final = ("committed", "duplicate")
_WAITS: Final[tuple[Wait, ...]] = ("committed", "committed", "committed", "accepted", "none")
_SHORT_EVERY: Final = 9


class Clients:
    """Everybody who asks the nodes for something."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.is_open = True
        self.answers_lost = 0.0
        self.copies = 1
        self.open_count = 0
        self.number = 0
        self.accepted: dict[bytes, Host] = {}
        self.ended: dict[bytes, str] = {}
        self.followers = [Follower(cluster, number) for number in range(2)]
        self.counts = dict.fromkeys(("submits", "reads", "statuses", "events", "gone"), 0)

    async def run(self) -> None:
        """Be at work until cancelled; whatever a client finds wrong ends the seed."""
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(self._guarded, partial(self._submit_on, number))
            for number in range(2):
                nursery.start_soon(self._guarded, partial(self._read_on, number))
                nursery.start_soon(self._guarded, self.followers[number].run)
            nursery.start_soon(self._guarded, self._send_events)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a checker's, or a bug: the seed failed
            self.world.violate(error)

    # -- submitting --------------------------------------------------------------------------

    def next_samples(self, random: Random) -> list[Sample]:
        """New transactions; now and then one that lives for a few seconds only."""
        samples = []
        for _ in range(random.choice((1, 1, 2, 3, 5))):
            self.number += 1
            if self.number % _SHORT_EVERY == 0:
                expires_s = int(self.world.now) + random.randint(1, 6)
                samples.append(self.cluster.city.short(self.number, expires_s))
            else:
                samples.append(self.cluster.city.good(self.number))
        for sample in samples:
            self.cluster.checkers.submitted(sample)
        return samples

    async def _submit_on(self, number: int) -> None:
        random = self.world.random(f"client {number}")
        while True:
            await trio.sleep(random.expovariate(1 / 0.25))
            if self.is_open:
                await self.submit(self.next_samples(random), random)

    async def submit(self, samples: Sequence[Sample], random: Random) -> None:
        """Bring transactions, until each of them has ended."""
        self.open_count += len(samples)
        missing = {sample.id: sample for sample in samples}
        while missing:
            wait = random.choice(_WAITS)
            async with trio.open_nursery() as nursery:
                for _ in range(self.copies):
                    host = random.choice(self.cluster.hosts)
                    nursery.start_soon(self._submit_once, host, missing, wait, random)
            if missing:
                await trio.sleep(random.uniform(0.05, 0.6))

    async def _submit_once(
        self, host: Host, missing: dict[bytes, Sample], wait: Wait, random: Random
    ) -> None:
        timeout_s = random.choice((0.3, 1.0, 3.0))
        data = [sample.data for sample in missing.values()]
        ids = list(missing)
        self.counts["submits"] += 1

        async def call(service: NodeService) -> tuple[Sequence[Answer], int]:
            answers = await service.submit(data, wait, int(timeout_s * 1000))
            return answers, service.head().height

        try:
            # Sometimes the client hangs up before the node has answered.
            patience_s = timeout_s * random.choice((0.2, 2.0, 2.0))
            answers, height = await host.ask(call, patience_s)
        except (Gone, P2PCityError) as error:
            self._note_no_answer(error)
            return
        if random.random() < self.answers_lost:
            self.world.struck["answer lost"] += 1
            return
        check(len(answers) == len(ids), f"{host} answers {len(answers)} of {len(ids)}")
        for id_, answer in zip(ids, answers, strict=True):
            is_ended = self._take_answer(host, id_, answer, wait, height)
            if answer.reason == "expired" and not is_ended:
                is_ended = await self._ask_end(id_)
            if is_ended and id_ in missing:
                del missing[id_]
                self.open_count -= 1

    def _note_no_answer(self, error: Exception) -> None:
        if not isinstance(error, Gone | LocalError):
            raise Violation(f"a client is told {type(error).__name__}: {error}") from error
        self.counts["gone"] += 1

    def _take_answer(self, host: Host, id_: bytes, answer: Answer, wait: Wait, head: int) -> bool:
        """Hold the nodes to an answer; whether it says how the transaction ended."""
        check(answer.id == id_, f"{host} answers for another transaction")
        self.world.note("answer", host, id_.hex()[:8], answer.status, answer.height)
        if answer.status in _COMMITTED:
            self.acknowledge(host, id_, answer.height, head)
            return True
        if answer.status == "pending":
            if wait != "none":
                self.accepted.setdefault(id_, host)
            return False
        if answer.status == "expired":
            self.ended.setdefault(id_, "expired")
            return True
        check(
            answer.status == "rejected" and answer.verdict == "ignore",
            f"{host} says {answer.status} {answer.reason} of a good transaction",
        )
        return False

    async def _ask_end(self, id_: bytes) -> bool:
        """A node says that it is too late to bring it: did it get in before, elsewhere?"""
        host = self.world.random(f"end {id_.hex()}").choice(self.cluster.hosts)
        try:
            status = await host.ask(partial(status_of, id_), 6.0)
        except (Gone, P2PCityError) as error:
            self._note_no_answer(error)
            return False
        if status.status in _COMMITTED:
            self.acknowledge(host, id_, status.height, host.height)
            return True
        if status.status not in ("expired", "unknown"):
            # It waits there, or was turned away there too: that is no end.
            return False
        self.ended.setdefault(id_, "expired")
        return True

    def acknowledge(self, host: Host, id_: bytes, height: int | None, head: int) -> None:
        """I1: a node says `committed`."""
        chain = self.cluster.checkers.chain
        check(height is not None and 0 < height <= min(head, len(chain)), f"{host}: {height}")
        assert height is not None
        self.cluster.checkers.acknowledge(id_, height, chain[height - 1].block.hash)
        # The first end that was told stays: another one is a contradiction.
        self.ended.setdefault(id_, "committed")

    async def probe(self, host: Host, random: Random) -> None:
        """In peace: a new transaction and a read get through on this very node."""
        self.number += 1
        sample = self.cluster.city.good(self.number)
        self.cluster.checkers.submitted(sample)
        missing = {sample.id: sample}
        self.open_count += 1
        while missing:
            await self._submit_once(host, missing, "committed", random)
        while not await self.read(host):
            pass

    async def transfer(self, host: Host, target: str | None) -> None:
        """An operator asks for another leader."""
        try:
            await host.ask(lambda service: service.transfer_leader(target), 7.0)
        except (Gone, LocalError):
            return
        except ConfigError as error:
            # It voted when the operator looked.
            check(self.cluster.checkers.changes > 0, f"{host} says {error}")
            return
        self.counts["transfers"] = self.counts.get("transfers", 0) + 1

    # -- events that a node signs ------------------------------------------------------------

    async def _send_events(self) -> None:
        """Programs without keys: the same event again until it stands, from the same node."""
        random = self.world.random("events")
        number = 0
        while True:
            await trio.sleep(random.expovariate(1 / 0.8))
            if not self.is_open:
                continue
            number += 1
            event = EventInput(id=str(number), type="permit.asked", source="urn:desk")
            await self._send_event(event, random.choice(self.cluster.hosts), random)

    async def _send_event(self, event: EventInput, host: Host, random: Random) -> None:
        told: set[tuple[bytes, int]] = set()
        timeout_s = random.choice((0.3, 2.0))
        self.counts["events"] += 1

        async def send() -> None:
            try:
                [answer] = await host.ask(
                    lambda service: service.submit_events(
                        [event], "committed", int(timeout_s * 1000)
                    ),
                    timeout_s * random.choice((0.5, 2.0)),
                )
            except (Gone, P2PCityError) as error:
                self._note_no_answer(error)
                return
            if answer.status in _COMMITTED:
                assert answer.id is not None
                assert answer.height is not None
                told.add((answer.id, answer.height))

        self.open_count += 1
        while not told:
            async with trio.open_nursery() as nursery:
                for _ in range(random.choice((1, 1, 3))):
                    nursery.start_soon(send)
            if not told:
                await trio.sleep(random.uniform(0.05, 0.5))
        self.open_count -= 1

    # -- reading -----------------------------------------------------------------------------

    async def _read_on(self, number: int) -> None:
        """Linearizable reads, statuses of what is known, and a session that must not go back."""
        random = self.world.random(f"reader {number}")
        session: dict[tuple[Host, int], int] = {}
        while True:
            await trio.sleep(random.expovariate(1 / 0.3))
            host = random.choice(self.cluster.hosts)
            kind = random.random()
            if kind < 0.5:
                await self.read(host)
            elif kind < 0.9:
                await self._read_status(host, random)
            else:
                await self._read_session(host, session)

    async def read(self, host: Host) -> bool:
        """I5: one linearizable read; whether there was an answer."""
        checkers = self.cluster.checkers
        floor = checkers.height_told

        async def call(service: NodeService) -> tuple[int, bytes]:
            await service.known_events([bytes(32)])
            head = service.head()
            return head.height, head.hash

        try:
            height, hash_ = await host.ask(call, 6.0)
        except (Gone, P2PCityError) as error:
            self._note_no_answer(error)
            return False
        self.counts["reads"] += 1
        self.world.note("read", host, floor, height)
        checkers.read(floor, height, hash_)
        return True

    async def _read_status(self, host: Host, random: Random) -> None:
        """What was acknowledged before a linearizable status is asked for is told so."""
        checkers = self.cluster.checkers
        if not checkers.acknowledged:
            return
        id_ = random.choice(list(checkers.acknowledged)[-20:])
        height, _ = checkers.acknowledged[id_]
        try:
            status = await host.ask(partial(status_of, id_), 6.0)
        except (Gone, P2PCityError) as error:
            self._note_no_answer(error)
            return
        self.counts["statuses"] += 1
        check(
            status.status in _COMMITTED and status.height == height,
            f"I5 {host} says {status.status} at {status.height} of {id_.hex()[:8]}, "
            f"which was committed at {height}",
        )

    async def _read_session(self, host: Host, session: dict[tuple[Host, int], int]) -> None:
        """I6: what one life of a node shows never goes back."""
        try:
            life, head = await host.ask(partial(_head, host), 2.0)
        except (Gone, P2PCityError) as error:
            self._note_no_answer(error)
            return
        floor = session.get((host, life), 0)
        self.cluster.checkers.read_session(floor, head.height, head.hash)
        session[(host, life)] = head.height


async def status_of(id_: bytes, service: NodeService) -> TransactionStatus:
    """Where a transaction stands, linearizably."""
    return await service.transaction(id_, is_linearizable=True)


async def _head(host: Host, service: NodeService) -> tuple[int, Head]:
    return host.life, service.head()
