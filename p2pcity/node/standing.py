"""Which voters keep what they promised, this node included (`ordering.promises`).

Hello tells where a voter's log stands, before anything else is said. One that has less than it
acknowledged runs on an older copy of its disk: nothing that it says in Raft is heard here. Hello
and a leader's answers to status tell this node what it promised itself, if it should not know.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from p2pcity.errors import DecodeError, P2PCityError
from p2pcity.ledger import promises_file
from p2pcity.ledger.writer import WriterThread
from p2pcity.ordering.promises import Promises
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire.hello import Hello
from p2pcity.wire.promise import Promise
from p2pcity.wire.raft import Message
from p2pcity.wire.sync import StatusAnswer

_PERIOD_S: Final = 1.0
_SAVE_PERIODS: Final = 10
_CLOSE_S: Final = 2.0
_REMEDY: Final = (
    "put its newest data directory back, or join it anew: p2pcity init in an empty directory, "
    "then on another node p2pcity raft replace --remove {peer} --add node.card"
)

_logger = structlog.get_logger("p2pcity.node.standing")


class Standing:
    """Judges voters by their hellos, and this node by what others know of it."""

    def __init__(
        self,
        *,
        own_id: str,
        own_incarnation: bytes,
        voters: Callable[[], Mapping[str, bytes]],
        raw_node: RawNode,
        path: Path,
        writer: WriterThread,
    ) -> None:
        """Read what was remembered; `voters` gives the incarnation of each voter in force."""
        self._own_id = own_id
        self._own_incarnation = own_incarnation
        self._read_voters = voters
        self._voters = voters()
        self._raw_node = raw_node
        self._path = path
        self._writer = writer
        self._promises = Promises(_remembered(path))
        self._saved_version = self._promises.version
        self._broken: dict[str, str] = {}
        # Why this node neither votes nor follows; empty while it does.
        self.own_alarm = ""

    @property
    def is_barred(self) -> bool:
        """Whether this node takes no part in Raft: it has less than it promised."""
        return bool(self.own_alarm)

    @property
    def alarms(self) -> list[str]:
        """What an operator has to know, with the remedy; empty when all voters kept their word."""
        return [*([self.own_alarm] if self.own_alarm else ()), *self._broken.values()]

    def is_heard(self, peer: str) -> bool:
        """Whether what this peer says in Raft counts."""
        return peer not in self._broken

    def told(self) -> tuple[Promise, ...]:
        """What this node knows of the voters in force."""
        known = (self._promises.of(*voter) for voter in self._voters.items())
        return tuple(promise for promise in known if promise.index or promise.term)

    def changed(self) -> None:
        """Take note that a change of voters took effect."""
        self._voters = self._read_voters()

    def connected(self, peer: str, hello: Hello) -> None:
        """A peer said hello: judge it, and this node by what it says."""
        self._note_leading()
        self._broken.pop(peer, None)
        if self._voters.get(peer) != hello.incarnation:
            return
        self._judge_own(peer, hello.promises)
        if hello.last_index is None or hello.term is None:
            return
        if self._promises.is_broken(peer, hello.incarnation, hello.last_index, hello.term):
            known = self._promises.of(peer, hello.incarnation)
            what = _what(hello.last_index, hello.term, known)
            remedy = _REMEDY.format(peer=peer)
            self._broken[peer] = f"{peer} has an older log than it had: {what}; {remedy}"
            _logger.error("peer_has_older_log", peer=peer, reason=what, remedy=remedy)

    def disconnected(self, peer: str) -> None:
        """The peer is gone; what it says in its next hello counts."""
        self._broken.pop(peer, None)

    def said(self, peer: str, answer: StatusAnswer) -> None:
        """A peer told its status: a leader's word on what voters acknowledged is remembered."""
        voters = self._voters
        if peer not in voters or peer != self._raw_node.leader or not self.is_heard(peer):
            return
        self._judge_own(peer, answer.promises)
        commit = self._raw_node.status().commit
        for promise in answer.promises:
            if voters.get(promise.peer) == promise.incarnation:
                # Beyond what is committed here nobody can say yet what has to stay.
                index = min(promise.index, commit)
                self._promises.add(Promise(promise.peer, promise.incarnation, index))

    def heard(self, peer: str, message: Message) -> None:
        """A peer said this in Raft."""
        incarnation = self._voters.get(peer)
        if incarnation is not None:
            self._promises.spoke(peer, incarnation, message)

    async def run(self) -> None:
        """Note what voters acknowledge while this node leads, and save it now and then."""
        periods = 0
        try:
            while True:
                await trio.sleep(_PERIOD_S)
                self._note_leading()
                periods += 1
                if periods % _SAVE_PERIODS == 0:
                    await self._save()
        finally:
            scope = trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S)
            with scope, suppress(P2PCityError):
                await self._save()

    def _note_leading(self) -> None:
        if self._raw_node.is_leader:
            heard = {peer: item for peer, item in self._voters.items() if self.is_heard(peer)}
            self._promises.leads(self._raw_node.status(), heard)

    def _judge_own(self, peer: str, promises: tuple[Promise, ...]) -> None:
        for promise in promises:
            if (promise.peer, promise.incarnation) != (self._own_id, self._own_incarnation):
                continue
            last_index, term = self._raw_node.last_index, self._raw_node.term
            if (last_index >= promise.index and term >= promise.term) or self.is_barred:
                continue
            what = _what(last_index, term, promise)
            remedy = _REMEDY.format(peer=self._own_id)
            self.own_alarm = (
                f"this node neither votes nor follows, since it has an older log than it had: "
                f"{what}, as {peer} knows; stop it, then {remedy}"
            )
            _logger.error("older_log", known_by=peer, reason=what, remedy=f"stop it, then {remedy}")

    async def _save(self) -> None:
        version = self._promises.version
        if version == self._saved_version:
            return
        try:
            await self._writer.run(promises_file.write, self._path, self._promises.listed())
        except OSError as error:
            _logger.warning("promises_not_saved", reason=str(error))
            return
        self._saved_version = version


def _what(last_index: int, term: int, promise: Promise) -> str:
    return (
        f"it ends at index {last_index} in term {term}, "
        f"it acknowledged index {promise.index} and spoke in term {promise.term}"
    )


def _remembered(path: Path) -> tuple[Promise, ...]:
    try:
        return promises_file.read(path)
    except DecodeError as error:
        _logger.warning("promises_unreadable", path=str(path), reason=str(error))
        return ()
