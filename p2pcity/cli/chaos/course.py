"""One run: calm, then faults from the plan, then calm again; and what came of it."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from p2pcity.cli.chaos import ledgers, members, nemeses, operations
from p2pcity.cli.chaos.checker import Findings, check
from p2pcity.cli.chaos.clients import Clients, Recorder
from p2pcity.cli.chaos.ground import Ground, Prepared
from p2pcity.cli.chaos.history import LedgerCopy, Operation, write_ledgers
from p2pcity.cli.chaos.plan import Strike, Trial, draw_again
from p2pcity.cli.chaos.site import Acting, Site, wait
from p2pcity.cli.demo.watching import Watcher
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.local_node import LocalNode
from p2pcity.errors import Unavailable

HISTORY_FILE: Final = "history.ndjson"
LEDGERS_FILE: Final = "ledgers.ndjson"
CALM_ACKNOWLEDGED: Final = 40
"""So many acknowledgements must come before the first fault, and after the last one."""
READS_MIN: Final = 20
"""A run with fewer linearizable or local reads shows nothing."""
_CALM_S: Final = 60.0
_EQUAL_S: Final = 90.0
_LOOK_S: Final = 0.5
_AGAIN_MAX: Final = 3
# What a node may write as an error when it met such a fault; everything else is a bug.
_MAY_SAY: Final = {
    # SQLite says so of shared memory that can't grow.
    "disk-full": ("No space left", "the disk is full", "Make room", "SQLITE_IOERR_SHM"),
    "clock": ("clock_not_right",),
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Met:
    """What a strike of a stated size met: these nodes, and how often it struck them."""

    nodes: tuple[str, ...] = ()
    struck: int = 0


@dataclass(slots=True)
class Outcome:
    """What a run brought; times are time.monotonic_ns()."""

    nodes_are: str = "processes"
    cuts: str = "bytes"
    """Both as the ground has them."""
    operations: list[Operation] = field(default_factory=list)
    ledgers: list[LedgerCopy] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    problems: list[str] = field(default_factory=list)
    """What else went wrong: a node that did not end, an error in a log, an unsound directory."""
    strikes: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    met: dict[int, Met] = field(default_factory=dict)
    """By the number of the strike in the plan, for those of a stated size."""
    spans_ns: list[tuple[int, int]] = field(default_factory=list)
    """When faults were under way."""
    began_ns: int = 0
    mended_ns: int = 0
    ready_ns: int = 0
    """When all nodes were ready again; 0: they were not in time."""
    ended_ns: int = 0
    resumed: int = 0
    logged: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each event stands in each node's log."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A strike under way, and how often the event that ends it was logged before it."""

    acts: list[Acting]
    began_ns: int
    logged: int


class Course:
    """Runs a trial on the nodes of its ground, and writes into `home`; `run` once."""

    def __init__(self, home: Path, trial: Trial, ground: Ground, *, say: Say) -> None:
        self._home = home.resolve()
        self._trial = trial
        self._ground = ground
        self._names = trial.names
        self._say = say
        self._outcome = Outcome(nodes_are=ground.nodes_are, cuts=ground.cuts)

    def run(self) -> Outcome:
        """Take the course; nothing of the network runs when it returns or raises."""
        with ExitStack() as stack:
            prepared = self._ground.prepare(self._trial, self._home, stack)
            network = prepared.network
            site = Site(
                network,
                prepared.links,
                Watcher(network),
                spares=prepared.spares,
                home=self._home,
            )
            self._take(site, prepared)
        self._check_directories([*network.nodes, *site.removed])
        self._outcome.findings = check(self._outcome.operations, self._outcome.ledgers)
        return self._outcome

    def _take(self, site: Site, prepared: Prepared) -> None:
        outcome, network, trial = self._outcome, site.network, self._trial
        network.start()
        network.wait_ready(deadline_s=_CALM_S)
        site.watcher.start({})
        recorder = Recorder(self._home / HISTORY_FILE)
        clients = Clients(
            network,
            recorder,
            author=prepared.author,
            seed=trial.seed,
            batch=trial.batch,
            writers=trial.writers,
            rate=trial.rate,
            shunned=site.shunned,
        )
        try:
            recorder.add(_past(network))
            with clients:
                self._say(f"{len(network.nodes)} nodes are ready; the clients begin")
                self._wait_calm(recorder, "before the first fault")
                self._strike(site, recorder)
                is_well = self._mend(site)
                if is_well:
                    over_s = outcome.began_ns / 1e9 + trial.lasts_s
                    time.sleep(max(0.0, over_s - time.monotonic()))
                    self._wait_calm(recorder, "after the last fault")
                outcome.problems += clients.stop()
            if is_well:
                self._finish(network, clients)
            self._stop(network)
            self._read_logs([*network.nodes, *site.removed])
        finally:
            site.watcher.stop()
            recorder.close()
            outcome.operations = recorder.operations
            outcome.ended_ns = time.monotonic_ns()

    def _mend(self, site: Site) -> bool:
        """End what is not over yet, and wait until all nodes are ready; whether they are."""
        site.wires.mend()
        self._outcome.mended_ns = time.monotonic_ns()
        self._say("all faults are over")
        try:
            site.wait_ready([node.name for node in site.network.nodes], _CALM_S)
        except Unavailable as error:
            self._outcome.problems += [*site.findings, str(error)]
            return False
        self._outcome.ready_ns = time.monotonic_ns()
        self._outcome.problems += site.findings
        self._promote(site)
        return True

    def _wait_calm(self, recorder: Recorder, when: str) -> None:
        wanted = recorder.acknowledged + CALM_ACKNOWLEDGED
        if not recorder.wait(wanted, READS_MIN, time.monotonic() + _CALM_S):
            self._outcome.problems.append(
                f"no {CALM_ACKNOWLEDGED} acknowledgements and {READS_MIN} reads within "
                f"{_CALM_S:.0f} s {when}"
            )

    # -- faults ------------------------------------------------------------------------------

    def _strike(self, site: Site, recorder: Recorder) -> None:
        """Carry out the plan, and let what met nothing strike again, a few times at most."""
        self._outcome.began_ns = time.monotonic_ns()
        self._carry_out(self._trial.plan, site, recorder)
        for turn in range(_AGAIN_MAX if self._trial.strikes_again else 0):
            missing = [name for name in self._names if not self._outcome.struck[name]]
            self._carry_out(draw_again(self._trial.seed, missing, turn), site, recorder)

    def _carry_out(self, plan: Sequence[Strike], site: Site, recorder: Recorder) -> None:
        """Begin and end each strike at its time; whatever happens, all are ended."""
        start_s = time.monotonic()
        moments = sorted(
            [(strike.at_s, 1, at) for at, strike in enumerate(plan)]
            + [(strike.at_s + strike.lasts_s, 0, at) for at, strike in enumerate(plan)]
        )
        acting: dict[int, _Begun] = {}
        try:
            for at_s, is_begin, at in moments:
                while is_begin or at in acting:
                    left_s = start_s + at_s - time.monotonic()
                    if left_s <= 0:
                        break
                    is_looking = any(plan[other].until for other in acting)
                    time.sleep(min(left_s, _LOOK_S) if is_looking else left_s)
                    self._end_early(plan, acting, site)
                if is_begin:
                    self._say(f"{_says(plan[at])}; {recorder.acknowledged:,} acknowledged")
                    logged = _count_logged(site, plan[at].until)
                    acting[at] = _Begun([], time.monotonic_ns(), logged)
                    self._begin(plan[at], site, at, acting[at].acts)
                elif at in acting:
                    self._end(plan[at], at, acting.pop(at))
        finally:
            for at, begun in acting.items():
                self._end(plan[at], at, begun)

    def _end_early(self, plan: Sequence[Strike], acting: dict[int, _Begun], site: Site) -> None:
        """End the strikes whose event was logged since they began."""
        for at in [at for at in acting if plan[at].until]:
            if _count_logged(site, plan[at].until) > acting[at].logged:
                self._say(f"{plan[at].until} is logged: {plan[at].nemesis} ends")
                self._end(plan[at], at, acting.pop(at))

    def _begin(self, strike: Strike, site: Site, at: int, acts: list[Acting]) -> None:
        self._outcome.strikes += 1
        strikes = [strike]
        if strike.size:
            nodes = site.find(strike)
            self._outcome.met[at] = Met(nodes)
            groups = [nodes] if strike.nemesis in nemeses.TOGETHER else [(name,) for name in nodes]
            strikes = [replace(strike, nodes=group) for group in groups if group]
        for one in strikes:
            act = _ACTS[one.nemesis](site, one)
            try:
                next(act)
            except StopIteration:
                # There was nobody to strike.
                continue
            acts.append(act)

    def _end(self, strike: Strike, at: int, begun: _Begun) -> None:
        struck = 0
        for act in begun.acts:
            try:
                next(act)
            except StopIteration as ended:
                struck += ended.value
        self._outcome.struck[strike.nemesis] += struck
        if struck:
            self._outcome.spans_ns.append((begun.began_ns, time.monotonic_ns()))
        if at in self._outcome.met:
            self._outcome.met[at] = replace(self._outcome.met[at], struck=struck)

    def _promote(self, site: Site) -> None:
        """Let all vote again who were demoted, by a change that came late too."""
        if "members" in self._names:
            site.demoted.update(node.name for node in site.network.nodes if node.role == "orderer")

        def do_all_vote() -> bool:
            for name in sorted(site.demoted):
                members.promote(site, name)
            return not site.demoted

        if not wait(do_all_vote, _CALM_S):
            names = ", ".join(sorted(site.demoted))
            self._outcome.problems.append(f"{names} did not vote within {_CALM_S:.0f} s")

    # -- afterwards --------------------------------------------------------------------------

    def _finish(self, network: LocalNetwork, clients: Clients) -> None:
        """Let all nodes come to the same ledger, and read them to the end."""
        outcome = self._outcome
        if not wait(lambda: _are_equal(network), _EQUAL_S):
            outcome.problems.append(
                f"the nodes do not come to the same ledger within {_EQUAL_S:.0f} s"
            )
        self._say("reading every ledger, block by block and event by event")
        outcome.ledgers = ledgers.read_all(network)
        write_ledgers(self._home / LEDGERS_FILE, outcome.ledgers)
        events = max(len(copy.events) for copy in outcome.ledgers)
        for reader in clients.readers:
            if not reader.finish(events, time.monotonic() + _CALM_S):
                outcome.problems.append(f"a stream brought {reader.count} of {events} events")
            outcome.resumed += reader.resumed

    def _stop(self, network: LocalNetwork) -> None:
        outcome, late = self._outcome, network.stop()
        outcome.problems += [f"{name} did not end by itself when told to" for name in late]
        for node in network.nodes:
            if node.exit_code:
                outcome.problems.append(f"{node.name} ended with exit code {node.exit_code}")

    def _read_logs(self, nodes: Sequence[LocalNode]) -> None:
        """Read the logs for events and for bugs; what containers print is kept in `home`."""
        for node in nodes:
            text = node.log_text()
            if not node.log_file.exists():
                (self._home / f"{node.name}.log").write_text(text, encoding="utf-8")
            self._outcome.logged[node.name] = events_in(text)
            self._outcome.problems += [
                f"{node.name} wrote: {line}" for line in errors_in(text, self._names)
            ]

    def _check_directories(self, nodes: Sequence[LocalNode]) -> None:
        """Let `p2pcity check` judge every data directory."""
        for node in nodes:
            said = node.find_damage()
            if said:
                self._outcome.problems.append(f"p2pcity check on {node.name}: {said}")


def errors_in(log: str, names: Sequence[str]) -> list[str]:
    """The first tracebacks and errors in a log that the nemeses `names` do not explain.

    Nothing explains a traceback.
    """
    found = []
    allowed = [word for name in names for word in _MAY_SAY.get(name, ())]
    for line in log.splitlines():
        fields: Any = None
        if line.startswith("{"):
            try:
                fields = json.loads(line)
            except ValueError:
                # A node that was killed in the middle of a line.
                continue
        is_error = fields is not None and fields.get("level") in ("error", "critical")
        is_explained = any(word in line for word in allowed)
        if "Traceback" in line or (is_error and not is_explained):
            found.append(line[:300])
    return found[:3]


def events_in(log: str) -> Counter[str]:
    """How often each event stands in a log of JSON."""
    found: Counter[str] = Counter()
    for line in log.splitlines():
        if line.startswith("{"):
            # A node that was killed in the middle of a line.
            with contextlib.suppress(ValueError):
                found[str(json.loads(line).get("event"))] += 1
    return found


def _says(strike: Strike) -> str:
    whom = f"{strike.size} nodes" if strike.size > 1 else strike.target
    most = "at most " if strike.until else ""
    return f"{strike.nemesis} for {most}{strike.lasts_s:.1f} s ({whom})"


def _count_logged(site: Site, event: str) -> int:
    """How often all nodes have logged an event so far."""
    return sum(events_in(node.log_text())[event] for node in site.network.nodes) if event else 0


_ACTS: Final = {**nemeses.ACTS, **operations.ACTS}


def _past(network: LocalNetwork) -> list[Operation]:
    """What stands on the ledger already, as if it had just been sent and accepted.

    So it must stay there, and nobody has invented it. Raises Unavailable when it can't be read.
    """
    if not any(status and status["ledger"]["height"] for status in network.statuses().values()):
        return []
    called_ns = time.monotonic_ns()
    if not wait(lambda: _are_equal(network), _EQUAL_S):
        raise Unavailable(
            f"the nodes do not come to the same ledger within {_EQUAL_S:.0f} s",
            remedy="Let nobody else write, and see what `p2pcity testnet status` says.",
        )
    found = network.statuses()
    whole = [node for node in network.nodes if _keeps_all(found[node.name])]
    if not whole:
        raise Unavailable(
            "no node keeps all blocks, and the history could not be held against the ledger",
            remedy="Use a network of which one node keeps all: ledger.keep_blocks = 0.",
        )
    copy = ledgers.read(whole[0])
    return [
        Operation(
            "accept",
            process=-1,
            node=copy.node,
            called_ns=called_ns,
            returned_ns=time.monotonic_ns(),
            outcome="ok",
            id=item.id,
            status="pending",
        )
        for item in copy.transactions
    ]


def _keeps_all(status: Mapping[str, Any] | None) -> bool:
    return status is not None and status["ledger"]["first_height"] <= 1


def _are_equal(network: LocalNetwork) -> bool:
    """Whether all nodes show one head, and have nothing left to order."""
    found = list(network.statuses().values())
    heads = {None if status is None else status["ledger"]["head"] for status in found}
    return len(heads) == 1 and all(
        status is not None
        and status["mempool"]["transactions"] == 0
        and status["outbox"]["pending"] == 0
        for status in found
    )
