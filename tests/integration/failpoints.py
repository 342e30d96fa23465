"""A plugin for `warm_nodes`: the process kills itself in front of or behind a named step.

The steps are the node's own functions, wrapped in this process alone.
"""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any, Final

from p2pcity.ledger import database
from p2pcity.ledger.outbox import Outbox
from p2pcity.ledger.segment_file import SegmentFile
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.views_store import ViewsStore
from p2pcity.node.apply_loop import ApplyLoop
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.node.submitting import Submitting
from p2pcity.wire.raft import AppendAnswer, VoteAnswer
from tests.integration import small_files

_Test = Callable[..., bool]


def _always(*_: Any) -> bool:
    return True


def _is_vote(log: SegmentLog, hard_state: Any, *_: Any) -> bool:
    known = log.hard_state
    return hard_state is not None and (hard_state.term, hard_state.vote) != (known.term, known.vote)


def _is_append(_: Any, hard_state: Any, entries: Any, *__: Any) -> bool:
    return bool(entries)


def _is_commit(log: SegmentLog, hard_state: Any, entries: Any, *_: Any) -> bool:
    return hard_state is not None and not entries and not _is_vote(log, hard_state)


def _sends(kind: type) -> _Test:
    def test(_: Any, __: str, message: Any) -> bool:
        return isinstance(message, kind)

    return test


@dataclass(frozen=True, slots=True)
class Step:
    """A function of the node, and which of its calls are meant."""

    owner: Any
    function: str
    is_meant: _Test = _always


STEPS: Final = {
    "save of term and vote": Step(SegmentLog, "save", _is_vote),
    "save of entries": Step(SegmentLog, "save", _is_append),
    "save of the commit index": Step(SegmentLog, "save", _is_commit),
    "new file": Step(SegmentFile, "make"),
    "answer to a vote": Step(OrderingLoop, "_send", _sends(VoteAnswer)),
    "answer to entries": Step(OrderingLoop, "_send", _sends(AppendAnswer)),
    "hand-out of committed entries": Step(ApplyLoop, "committed"),
    "apply": Step(ViewsStore, "apply_blocks"),
    "checkpoint": Step(database, "checkpoint"),
    "write of what was accepted": Step(Outbox, "write"),
    "answer to a client": Step(Submitting, "_answer"),
}
WHENS: Final = ("before", "after")


def install(when: str, name: str, count: str) -> None:
    """Let this process die before or after the call of that number of a step."""
    small_files.install()
    assert when in WHENS
    step, left = STEPS[name], int(count)
    kept = vars(step.owner)[step.function]
    function = getattr(kept, "__func__", kept)
    lock = threading.Lock()

    def is_due(arguments: tuple[Any, ...]) -> bool:
        nonlocal left
        if not step.is_meant(*arguments):
            return False
        with lock:
            left -= 1
            return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def call(*arguments: Any, **named: Any) -> Any:
        is_now = is_due(arguments)
        if is_now and when == "before":
            die()
        result = function(*arguments, **named)
        if is_now:
            die()
        return result

    async def call_async(*arguments: Any, **named: Any) -> Any:
        is_now = is_due(arguments)
        if is_now and when == "before":
            die()
        result = await function(*arguments, **named)
        if is_now:
            die()
        return result

    wrapped: Any = call_async if iscoroutinefunction(function) else call
    setattr(step.owner, step.function, classmethod(wrapped) if kept is not function else wrapped)
