"""Runs a story: commands, `----`, and what the cluster said (see testdata/).

Commands: cluster voters=N [learners=N] [setting=value]; terms NODE T,T,...; campaign NODE;
propose NODE "text" [times]; tick NODE [times]; ticks TIMES; beat TIMES NODE... (each in turn);
settle; partition 1 2 | 3; heal; drop FROM TO; crash NODE; restart NODE; transfer NODE TO;
read NODE CONTEXT; reads; unreachable NODE PEER; forge FROM TO Message key=value...; status; logs;
progress NODE; ignored NODE; trace (the messages since the last `trace` or `hush`); hush; hold
(nothing is delivered any more, but by `deliver TIMES [TO]`; `lose [TO]` empties the queue);
join NODE; change NODE v4 l5 o6 r1 (vote, learn, observe, remove); leave NODE; manual (joint
states do not end by themselves, until `auto`); configurations; applied; slow NODE (its syncs
wait), saving, sync NODE [times] (one ends), fast NODE; pause NODE, resume NODE (SIGSTOP and
SIGCONT: messages wait meanwhile); prune NODE INDEX (its log begins behind that), fetch NODE PEER
(which is down and starts with what is committed on PEER's disk); adopt NODE PEER [COUNT] (it takes
so many of the entries that PEER knows to be committed); target (who was told to fetch, how far).
"""

import shlex
from collections.abc import Callable

from p2pcity.errors import P2PCityError
from p2pcity.wire import raft as messages
from p2pcity.wire.raft import Entry
from tests.raft.cluster import Cluster, changed


class Script:
    """One story's cluster and the lines it has to say."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None
        self._out: list[str] = []
        self._is_held = False

    @property
    def cluster(self) -> Cluster:
        """The cluster that the story began with."""
        assert self._cluster is not None, "a story begins with `cluster`"
        return self._cluster

    def run(self, line: str) -> list[str]:
        """Run one command; returns what it says."""
        self._out = []
        name, *words = shlex.split(line)
        command: Callable[..., None] = getattr(self, f"do_{name}")
        try:
            command(*words)
        except P2PCityError as error:
            self._say(f"{type(error).__name__}: {error}")
        return self._out

    def _say(self, line: str) -> None:
        self._out.append(line)

    def _settle(self) -> None:
        if not self._is_held:
            self.cluster.settle()

    def do_hold(self) -> None:
        self._is_held = True

    def do_deliver(self, times: str, to: str | None = None) -> None:
        for _ in range(int(times)):
            for name in self.cluster.members:
                self.cluster.pump(name)
            self.cluster.deliver_one(to)
        for name in self.cluster.members:
            self.cluster.pump(name)

    def do_lose(self, to: str | None = None) -> None:
        kept = [one for one in self.cluster.queue if to not in (None, one[1])]
        self.cluster.queue.clear()
        self.cluster.queue.extend(kept)

    def do_settle(self) -> None:
        self._is_held = False
        self.cluster.settle()

    def do_hush(self) -> None:
        assert self.cluster.trace is not None
        self.cluster.trace.clear()

    def do_cluster(self, *words: str) -> None:
        settings = {key: int(value) for key, value in (word.split("=") for word in words)}
        self._cluster = Cluster(**settings)  # type: ignore[arg-type]  # words name its arguments
        self._cluster.trace = []

    def do_terms(self, node: str, terms: str) -> None:
        self.cluster.members[node].disk.preset([int(term) for term in terms.split(",")])
        self.cluster.start(node)

    def do_campaign(self, node: str) -> None:
        self.cluster.members[node].up.campaign()
        self._settle()

    def do_propose(self, node: str, text: str, times: str = "1") -> None:
        for _ in range(int(times)):
            term, index = self.cluster.members[node].up.propose(text.encode())
            self._say(f"{index}@{term}")
        self._settle()

    def do_tick(self, node: str, times: str = "1") -> None:
        for _ in range(int(times)):
            self.cluster.tick([node], is_held=self._is_held)

    def do_ticks(self, times: str) -> None:
        for _ in range(int(times)):
            self.cluster.tick(is_held=self._is_held)

    def do_beat(self, times: str, *nodes: str) -> None:
        for _ in range(int(times)):
            for node in nodes:
                self.do_tick(node)

    def do_partition(self, *words: str) -> None:
        self.cluster.partition([group.split() for group in " ".join(words).split("|")])

    def do_heal(self) -> None:
        self.cluster.cut = {}

    def do_drop(self, sender: str, to: str) -> None:
        self.cluster.cut[(sender, to)] = True

    def do_crash(self, node: str) -> None:
        self.cluster.crash(node)

    def do_restart(self, node: str) -> None:
        self.cluster.start(node)
        self._settle()

    def do_transfer(self, node: str, to: str) -> None:
        self.cluster.members[node].up.transfer_leader(to)
        self._settle()

    def do_slow(self, node: str) -> None:
        self.cluster.members[node].is_slow = True

    def do_sync(self, node: str, times: str = "1") -> None:
        for _ in range(int(times)):
            self.cluster.sync(node)
            self._settle()

    def do_saving(self) -> None:
        for name, member in self.cluster.members.items():
            if member.saving is not None:
                entries = (f"{entry.index}@{entry.term}" for entry in member.saving.entries)
                self._say(f"{name} [{' '.join(entries)}]")

    def do_fast(self, node: str) -> None:
        member = self.cluster.members[node]
        member.is_slow = False
        if member.saving is not None:
            self.cluster.sync(node)
        self._settle()

    def do_pause(self, node: str) -> None:
        self.cluster.pause(node)

    def do_resume(self, node: str) -> None:
        self.cluster.resume(node)
        self._settle()

    def do_prune(self, node: str, index: str) -> None:
        self.cluster.members[node].disk.prune(int(index))

    def do_fetch(self, node: str, peer: str) -> None:
        self.cluster.fetch(node, peer)

    def do_adopt(self, node: str, peer: str, count: str = "1000") -> None:
        up, other = self.cluster.members[node].up, self.cluster.members[peer].disk
        first = up.commit + 1
        last = min(other.hard_state.commit, up.commit + int(count))
        entries = other.entries(first, last + 1, 1 << 30) if first <= last else []
        self._say("taken" if up.adopt(other.hard_state.term, entries) else "not taken")
        self._settle()

    def do_target(self) -> None:
        for name, member in self.cluster.members.items():
            if member.node is not None and member.node.sync_target:
                self._say(f"{name} {member.node.sync_target}")

    def do_applied(self) -> None:
        for name, member in self.cluster.members.items():
            texts = (entry.payload.decode() or "-" for entry in member.applied)
            self._say(f"{name} {' '.join(texts)}")

    def do_join(self, node: str) -> None:
        self.cluster.join(node)

    def do_manual(self) -> None:
        self.cluster.has_auto_leave = False

    def do_auto(self) -> None:
        self.cluster.has_auto_leave = True

    def do_change(self, node: str, *words: str) -> None:
        payload = " ".join(("change", *words)).encode()
        changed(self.cluster.members[node].configuration, payload)
        self._propose_change(node, payload)

    def do_leave(self, node: str) -> None:
        self._propose_change(node, b"leave")

    def _propose_change(self, node: str, payload: bytes) -> None:
        term, index = self.cluster.members[node].up.propose(payload, is_change=True)
        self._say(f"{index}@{term}")
        self._settle()

    def do_configurations(self) -> None:
        for name, member in self.cluster.members.items():
            known = member.configuration
            line = f"{name} voters=({' '.join(known.voters)})"
            if known.is_joint:
                line += f" and ({' '.join(known.voters_outgoing)})"
            if known.learners or known.learners_next:
                line += f" learners=({' '.join((*known.learners, *known.learners_next))})"
            if known.observers:
                line += f" observers=({' '.join(known.observers)})"
            self._say(line)

    def do_read(self, node: str, context: str) -> None:
        self.cluster.members[node].up.read_index(context.encode())
        self._settle()

    def do_reads(self) -> None:
        for name, member in self.cluster.members.items():
            for read in member.reads:
                self._say(f"{name} {read.context.decode()} index={read.index}")
            for context in member.reads_dropped:
                self._say(f"{name} {context.decode()} dropped")
            member.reads.clear()
            member.reads_dropped.clear()

    def do_unreachable(self, node: str, peer: str) -> None:
        self.cluster.members[node].up.report_unreachable(peer)
        self._settle()

    def do_forge(self, sender: str, to: str, kind: str, *words: str) -> None:
        values: dict[str, object] = {}
        for key, text in (word.split("=") for word in words):
            values[key] = text == "true" if text in ("true", "false") else text
            if text.isdigit():
                values[key] = int(text)
            elif key == "entries":
                pairs = (pair.split("@") for pair in text.split(","))
                values[key] = tuple(Entry(int(t), int(i), b"forged") for i, t in pairs)
        self.cluster.members[to].up.step(sender, getattr(messages, kind)(**values))
        self._settle()

    def do_status(self) -> None:
        for name, member in self.cluster.members.items():
            if member.node is None:
                self._say(f"{name} down")
                continue
            status = member.node.status()
            role = status.role if status.is_voter else "learner"
            self._say(
                f"{name} {role:<13} term={status.term} leader={status.leader or '-'} "
                f"commit={status.commit} last={status.last_index}"
            )

    def do_logs(self) -> None:
        for name, member in self.cluster.members.items():
            self._say(f"{name} {' '.join(map(str, member.disk.terms()))}")

    def do_progress(self, node: str) -> None:
        for peer, known in self.cluster.members[node].up.status().progress.items():
            if peer != node:
                self._say(
                    f"{peer} {known.state} match={known.match} next={known.next} "
                    f"in-flight={known.in_flight_messages} active={known.recent_active}"
                )

    def do_ignored(self, node: str) -> None:
        for reason, count in sorted(self.cluster.members[node].up.status().ignored.items()):
            self._say(f"{reason} {count}")

    def do_trace(self) -> None:
        assert self.cluster.trace is not None
        self._out += self.cluster.trace
        self.cluster.trace.clear()


def run_story(text: str) -> str:
    """Run a whole story and return it with what was said this time.

    A block is comments and commands, `----`, the answer, and an empty line.
    """
    script = Script()
    result: list[str] = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n----")[0].split("\n")
        said: list[str] = []
        for line in lines:
            if line and not line.startswith("#"):
                said += script.run(line)
        result.append("\n".join([*lines, "----", *said] if said else lines))
    return "\n\n".join(result).rstrip("\n") + "\n"
