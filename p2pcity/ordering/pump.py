"""The order in which a `Ready` is carried out: persist, then send, then apply.

The pump holds no disk and no socket. Whoever turns it (the node's loop, or a simulator) does

    save = pump.begin()          # None: nothing to do
    ...write save.hard_state and save.entries, one sync if save.must_sync...
    pump.finish(save)            # sends, hands over what is committed, answers reads

and may call `step`, `tick` and `propose` of the raw node between the two calls: what they
cause is in the next `begin`. The rule of order is the whole content of this module, so the
simulator turns the very code that the node turns (protocol/05-ordering.md, "Duties").

A committed change of voters takes effect here, in the order of the entries: after its entry is
on disk, before the raw node goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2pcity.ordering.members import Members
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState
from p2pcity.raft.ready import Ready
from p2pcity.wire.raft import Entry, HardState, Message


@dataclass(frozen=True, slots=True)
class Save:
    """What must be on disk before `Pump.finish` may be called.

    `entries` replace everything the log holds from `entries[0].index` on. `must_sync` says that
    the write must have reached the disk; without it a plain write is enough.
    """

    hard_state: HardState | None
    entries: tuple[Entry, ...]
    must_sync: bool
    ready: Ready

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write, so that no disk needs to be waited for."""
        return self.hard_state is None and not self.entries


class Pump:
    """Turns a raw node: one `Ready` at a time, each carried out in the order that Raft needs."""

    def __init__(
        self,
        raw_node: RawNode,
        members: Members,
        *,
        send: Callable[[str, Message], None],
        apply: Callable[[Sequence[Entry]], None],
        answer_reads: Callable[[Sequence[ReadState], Sequence[bytes]], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._raw_node = raw_node
        self._members = members
        self._changed = changed
        self._send = send
        self._apply = apply
        self._answer_reads = answer_reads
        self._open: Save | None = None

    def begin(self) -> Save | None:
        """Take the next `Ready`; None when there is nothing to do."""
        assert self._open is None, "finish the last save before the next begins"
        if not self._raw_node.has_ready():
            return None
        ready = self._raw_node.ready()
        self._open = Save(ready.hard_state, ready.entries, ready.must_sync, ready)
        return self._open

    def finish(self, save: Save) -> None:
        """Say that `save` is on disk: messages go out, committed entries are handed to apply."""
        assert save is self._open, "only what begin returned can be finished"
        self._open = None
        for receiver, message in save.ready.messages:
            self._send(receiver, message)
        for entry in save.ready.committed_entries:
            if self._members.take(entry):
                self._raw_node.configure(self._members.configuration)
                self._changed()
        self._raw_node.advance(save.ready)
        if save.ready.committed_entries:
            self._apply(save.ready.committed_entries)
        if save.ready.read_states or save.ready.reads_dropped:
            self._answer_reads(save.ready.read_states, save.ready.reads_dropped)
