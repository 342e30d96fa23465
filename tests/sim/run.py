"""One seed from beginning to end: faults for a minute or more, then peace, then the count.

The storm lasts until a minute has passed and 200 transactions are acknowledged (at most
`STORM_S_MAX`). Then faults stop, all nodes restart, and within `PEACE_S` and forty election
time-outs everything that was accepted must be committed or visibly expired, a read and a new
transaction must get through, and all nodes must hold the same ledger, byte for byte.
"""

import gc
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pcity.errors import P2PCityError
from tests.sim.checkers import Violation, check
from tests.sim.city import memory_installed
from tests.sim.clients import Clients
from tests.sim.cluster import Cluster
from tests.sim.faults import Nemesis
from tests.sim.world import SECOND, World

STORM_S_MIN: Final = 60
STORM_S_MAX: Final = 150
PEACE_S: Final = 20
ACKNOWLEDGED_MIN: Final = 200


@dataclass(slots=True)
class Outcome:
    """What became of a seed; `failure` is empty when all held."""

    seed: int
    drawn: int = 0
    acknowledged: int = 0
    reads: int = 0
    seconds: float = 0.0
    events: int = 0
    messages: int = 0
    blocks: int = 0
    terms: int = 0
    changes: int = 0
    expired: int = 0
    nodes: int = 0
    trace_hash: str = ""
    struck: dict[str, int] = field(default_factory=dict)
    failure: str = ""

    @property
    def is_counted(self) -> bool:
        """Whether enough happened for the seed to say anything."""
        return self.acknowledged >= ACKNOWLEDGED_MIN and self.seconds >= STORM_S_MIN


def run_seed(seed: int, *, is_traced: bool = False, kinds: Sequence[str] | None = None) -> Outcome:
    """Run one seed; a failure is told in the outcome, not raised.

    `kinds` are the only kinds of fault that strike, instead of those that the seed draws.
    """
    outcome = Outcome(seed)
    world = World(seed, is_traced=is_traced)
    is_collecting = gc.isenabled()
    gc.disable()  # A seed is short; the collector's walks over all the others are not.
    with memory_installed():
        cluster = Cluster(world)
        clients = Clients(cluster)
        try:
            nemesis = Nemesis(cluster, clients, kinds)
            outcome.drawn = len(nemesis.kinds)
            _run(world, cluster, clients, nemesis)
        except (Violation, AssertionError, P2PCityError) as error:
            outcome.failure = f"{type(error).__name__}: {error}"
            if is_traced:
                traceback.print_exc()
        except Exception as error:  # noqa: BLE001 - I10: whatever it is, the seed failed
            outcome.failure = "".join(traceback.format_exception(error)[-6:])
    if is_collecting:
        gc.enable()
    checkers = cluster.checkers
    outcome.acknowledged = len(checkers.acknowledged)
    outcome.reads = checkers.reads + checkers.session_reads
    outcome.seconds = world.now / SECOND
    outcome.events = world.events
    outcome.messages = cluster.network.sent
    outcome.blocks = len(checkers.chain)
    outcome.terms = checkers.leaders
    outcome.changes = checkers.changes
    outcome.expired = len(clients.expired)
    outcome.nodes = len(cluster.nodes)
    outcome.trace_hash = world.trace_hash()
    outcome.struck = dict(sorted(world.struck.items()))
    return outcome


def _run(world: World, cluster: Cluster, clients: Clients, nemesis: Nemesis) -> None:
    cluster.start()
    clients.start()
    nemesis.begin()
    end = STORM_S_MIN * SECOND
    world.run_until(end)
    while len(cluster.checkers.acknowledged) < ACKNOWLEDGED_MIN and end < STORM_S_MAX * SECOND:
        end += 5 * SECOND
        world.run_until(end)
    nemesis.end()
    finish(world, cluster, clients)


def finish(world: World, cluster: Cluster, clients: Clients) -> None:
    """Faults are over: everything comes to an end, and all nodes hold the same."""
    _make_peace(world, cluster, clients)
    cluster.checkers.finished()
    if not world.struck["clock jump"]:
        # By a clock that is wrong, much is over that is not.
        cluster.checkers.told_expired(clients.expired)
    cluster.compare_exports()
    for id_, node in clients.kept.items():
        ended = any(n.views.has_transaction(id_) for n in cluster.nodes) or id_ in clients.ended
        check(ended, f"{id_.hex()[:8]}, which {node} accepted, vanished")


def _make_peace(world: World, cluster: Cluster, clients: Clients) -> None:
    """Progress within the stated time once all faults are over."""
    clients.is_open = False
    cluster.operator.voters_min = 1
    reads = cluster.checkers.reads
    deadline = world.now + PEACE_S * SECOND + 40 * cluster.election_time
    probe = cluster.city.good(clients.next_number())
    clients.submit([probe])
    while world.now < deadline:
        world.run_until(world.now + SECOND // 2)
        cluster.operator.settle()
        clients.read()
        if (
            probe.id in clients.ended
            and not clients.open_count
            and cluster.checkers.reads > reads
            and cluster.is_agreed()
        ):
            return
    raise Violation(
        f"no peace: {clients.open_count} transactions open, "
        f"{cluster.checkers.reads - reads} reads answered, leader {cluster.leader()}, applied "
        f"{[n.views.applied_index if n.is_up else -1 for n in cluster.nodes]}"
    )
