"""One seed from beginning to end: faults for a while, then peace, then the count.

Within `PEACE_S` of the last fault everything that was accepted must have ended, a read and a new
transaction must get through on every node, all nodes must show the same ledger, followers must
have every event once, and nothing may be left in queues that nobody empties.
"""

import gc
import os
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog
import trio

from p2pcity.api.service import Cursor
from p2pcity.errors import P2PCityError
from tests.short_intervals import short_intervals
from tests.sim.checkers import Violation, check
from tests.sim.city import SPARES_MAX
from tests.virtual import faults_members
from tests.virtual.clients import Clients, status_of
from tests.virtual.clockwork import run_virtual
from tests.virtual.cluster import POLL_S, Cluster
from tests.virtual.faults import Storm
from tests.virtual.host import Host
from tests.virtual.operator import Operator
from tests.virtual.world import World

STORM_S: Final = 7.0
LONG_STORM_S: Final = 10.0
PEACE_S: Final = 40.0
ACKNOWLEDGED_MIN: Final = 10
BASE_INTERVAL: Final = 8
PRUNED: Final[Mapping[str, Any]] = {"keep_blocks": 8, "segment_bytes_max": 8_000}
"""How nodes keep few blocks, with a base at each multiple of BASE_INTERVAL."""
_MEMORY: Final = Path("/dev/shm")


@dataclass(slots=True)
class Outcome:
    """What became of a seed; `failure` is empty when all held."""

    seed: int
    acknowledged: int = 0
    reads: int = 0
    streamed: int = 0
    seconds: float = 0.0
    steps: int = 0
    messages: int = 0
    blocks: int = 0
    terms: int = 0
    changes: int = 0
    expired: int = 0
    trace_hash: str = ""
    struck: dict[str, int] = field(default_factory=dict)
    failure: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether enough happened for the seed to say anything."""
        return self.acknowledged >= ACKNOWLEDGED_MIN


@contextmanager
def root_directory() -> Iterator[Path]:
    """A directory for the nodes' files, in memory where the system has such a place."""
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="p2pcity-virtual-", dir=place) as name:
        yield Path(name)


@contextmanager
def quiet_logs(world: World) -> Iterator[None]:
    """Keep the nodes' log lines to readers of a trace."""
    before = structlog.get_config()

    def take(_: object, method: str, event: MutableMapping[str, Any]) -> str:
        if method != "debug":
            world.say("log", *(f"{key}={value}" for key, value in event.items()))
        raise structlog.DropEvent

    structlog.configure(processors=[take], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def run_seed(seed: int, *, is_traced: bool = False) -> Outcome:
    """Run one seed; a failure is told in the outcome, not raised."""
    outcome = Outcome(seed)
    is_collecting = gc.isenabled()
    gc.disable()  # When it runs depends on all that ran before; a seed is short.
    try:
        with root_directory() as root:
            _run_in(root, outcome, is_traced)
    finally:
        if is_collecting:
            gc.enable()
    return outcome


def _run_in(root: Path, outcome: Outcome, is_traced: bool) -> None:
    made: list[tuple[World, Cluster, Clients]] = []

    async def main() -> None:
        world = World(outcome.seed, is_traced=is_traced)
        pruning = short_intervals(BASE_INTERVAL) if is_pruning(outcome.seed) else nullcontext()
        with quiet_logs(world), pruning:
            cluster = _draw_cluster(world, root)
            clients = Clients(cluster)
            made.append((world, cluster, clients))
            await run_watched(cluster, partial(_course, cluster, clients, outcome))

    try:
        outcome.steps = run_virtual(outcome.seed, main)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.failure = describe(error)
        if is_traced:
            traceback.print_exception(error)
    world, cluster, clients = made[0]
    checkers = cluster.checkers
    outcome.acknowledged = len(checkers.acknowledged)
    outcome.reads = checkers.reads + clients.counts["statuses"]
    outcome.streamed = sum(len(follower.got) for follower in clients.followers)
    outcome.messages = cluster.wires.messages
    outcome.blocks = len(checkers.chain)
    outcome.terms = checkers.leaders
    outcome.changes = checkers.changes
    outcome.expired = sum(end == "expired" for end in clients.ended.values())
    outcome.trace_hash = world.trace_hash()
    outcome.struck = dict(sorted(world.struck.items()))


def describe(error: BaseException) -> str:
    """The first error that says what went wrong, with where it was raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    kind = type(error).__name__
    if isinstance(error, Violation | P2PCityError):
        return f"{kind}: {error}"
    return f"{kind}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"


async def run_watched(cluster: Cluster, course: Callable[[], Awaitable[None]]) -> None:
    """Run `course` over a cluster; the first violation ends it and is raised."""
    world = cluster.world
    async with trio.open_nursery() as nursery:
        cluster.nursery = nursery
        nursery.start_soon(world.run)

        async def watch() -> None:
            await world.failed.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            await course()
            for host in cluster.hosts:
                await host.stop()
        finally:
            # Nobody who stands still hears that all is over.
            for host in cluster.hosts:
                host.resume()
        nursery.cancel_scope.cancel()
    for host in cluster.hosts:
        host.kill()
    if world.violations:
        raise world.violations[0]


def is_changing(seed: int) -> bool:
    """Whether the city of a seed changes: two seeds of five, drawn like all else."""
    return Random(f"{seed}/city changes").random() < 0.4


def is_pruning(seed: int) -> bool:
    """Whether the nodes of a seed keep few blocks: three seeds of ten, likewise."""
    return Random(f"{seed}/few blocks are kept").random() < 0.3


def _draw_cluster(world: World, root: Path) -> Cluster:
    random = world.random("cluster")
    orderers, observers = random.choice(((3, 0), (3, 0), (3, 0), (3, 1), (3, 1), (4, 0), (5, 0)))
    changes: dict[str, Any] = {}
    if is_changing(world.seed):
        draws = world.random("changes")
        changes = {
            "spares": draws.randint(1, SPARES_MAX),
            "promotion_ms": draws.choice((100, 500, 2000)),
            "has_peers_listed": True,
        }
    if is_pruning(world.seed):
        changes |= PRUNED
    return Cluster(
        world,
        root,
        orderers=orderers,
        observers=observers,
        preset=random.choice(("local", "lan", "lan")),
        latency_s=random.choice((0.0005, 0.005, 0.03)),
        work_s=random.choice((0.0003, 0.002, 0.01)),
        **changes,
    )


async def _course(cluster: Cluster, clients: Clients, outcome: Outcome) -> None:
    world = cluster.world
    assert cluster.nursery is not None
    cluster.start()
    with trio.fail_after(PEACE_S):
        await cluster.wait_up()
        await cluster.wait_leader()
    cluster.nursery.start_soon(clients.run)
    changes = faults_members.KINDS if cluster.is_changing else None
    storm = Storm(cluster, clients, changes)
    storm.begin()
    await trio.sleep(LONG_STORM_S if changes or cluster.is_pruning else STORM_S)
    storm.end()
    await make_peace(cluster, clients)
    outcome.seconds = world.now
    await compare(cluster, clients)


async def make_peace(cluster: Cluster, clients: Clients) -> None:
    """Progress within the stated time once all faults are over."""
    clients.is_open = False
    with trio.move_on_after(PEACE_S) as scope:
        while not all(host.is_up and not host.is_stopping for host in cluster.hosts):
            # Some may be on their way out still: they start once they are gone.
            cluster.start()
            await trio.sleep(POLL_S)
        await cluster.wait_leader()
        if cluster.is_changing:
            # What was promised by nodes that are out of the city holds once they are back.
            await Operator(cluster).settle()
        random = cluster.world.random("peace")
        for host in cluster.hosts:
            await clients.probe(host, random)
        while clients.open_count:  # noqa: ASYNC110 - many clients, no one event
            await trio.sleep(POLL_S)
        await _wait_settled(cluster)
    if not scope.cancelled_caught:
        return
    leader = cluster.leader()
    raise Violation(
        f"no peace: {clients.open_count} transactions open, leader {leader}, heights "
        f"{[host.height if host.is_up else -1 for host in cluster.hosts]}, left "
        f"{[leftovers(host) for host in cluster.hosts if host.is_up]}"
    )


async def _wait_settled(cluster: Cluster) -> None:
    def is_settled() -> bool:
        return cluster.is_agreed() and not any(leftovers(host) for host in cluster.hosts)

    while not is_settled():  # noqa: ASYNC110 - many nodes, no one event
        await trio.sleep(POLL_S)


def leftovers(host: Host) -> dict[str, int]:
    """What still waits in a node; all of it must end once nobody brings anything."""
    parts = host.parts
    counts = {
        "mempool": len(parts.mempool),
        "waiters": len(parts.waiters),
        "outbox": parts.outbox.pending_count,
        "outbox under way": len(parts.outbox._under_way),
        "outbox ends": len(parts.outbox._settled),
        "forwarding": len(parts.forwarding._queue) + len(parts.forwarding._due_s),
        "names": len(parts.submitting._pending_names) + len(parts.submitting._names_by_id),
        "reoffering": len(parts.reoffering._rows),
        "proposer": parts.ordering.proposer.blocks_in_flight,
        "visits": host.door.stuck_count,
    }
    return {name: count for name, count in counts.items() if count}


async def compare(cluster: Cluster, clients: Clients) -> None:
    """All nodes, and all that clients were told, against one ledger."""
    checkers = cluster.checkers
    checkers.finished()
    await cluster.compare_ledgers()
    end = Cursor.before(len(checkers.chain) + 1)
    for follower in clients.followers:
        with trio.fail_after(PEACE_S):
            while follower.cursor < end:  # noqa: ASYNC110
                await trio.sleep(POLL_S)
        follower.compare(checkers.chain)
    on_ledger = checkers.ids
    if not cluster.world.struck["set clock"]:
        # By a clock that is wrong, much is over that is not.
        checkers.told_expired(id_ for id_, end in clients.ended.items() if end == "expired")
    for id_, host in clients.accepted.items():
        is_ended = id_ in on_ledger or id_ in clients.ended
        state = await host.ask(partial(status_of, id_), 10.0)
        is_told = state.status in ("committed", "duplicate", "expired")
        check(is_ended and is_told, f"{id_.hex()[:8]}, accepted by {host}, is {state.status}")
        is_on_ledger = state.status in ("committed", "duplicate")
        check(
            is_on_ledger == (id_ in on_ledger),
            f"{host} says {state.status} of {id_.hex()[:8]}, on the ledger: {id_ in on_ledger}",
        )
