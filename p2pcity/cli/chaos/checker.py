"""Holds a history of clients against the ledgers of all nodes: is it linearizable, is it whole?

Pure, and O(n log n), because a ledger makes it easy: answers carry height and hash, so nobody
has to search for an order. What is checked, by the name of its finding:

| finding | what it means |
|---|---|
| unequal | two nodes hold different ledgers |
| twice | a transaction or an event stands on the ledger more than once |
| order | leaf indices or heights on the ledger do not count up by one |
| lost | acknowledged or accepted, and not on the ledger |
| moved | on the ledger in another place than a client was told |
| invented | on the ledger, and nobody sent it; or everybody who sent it was told that it failed |
| untrue | an answer says what the ledger does not: a duplicate that is none, an unknown id |
| fork | an answer named a head that is not the final ledger's block at that height |
| stale | a linearizable read shows less than what an operation before it had shown |
| early | a block was seen before something in it was sent |
| backwards | a node's own state went back between two reads |
| stream | a query or a stream left out, doubled or moved an event |
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pcity.cli.chaos.history import LedgerCopy, Operation, Placed, fullest, is_equal

APPLIED: Final = "applied"
_SENDS: Final = ("submit", "accept")
_LINEARIZABLE: Final = ("read", "query")
_PLACED: Final = ("committed", "duplicate")
_ENDS: Final = ("expired", "rejected")
_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be: its kind (see the table above) and a sentence."""

    kind: str
    says: str


@dataclass(slots=True)
class Findings:
    """How often each kind was found, and the first few of each."""

    counts: Counter[str] = field(default_factory=Counter)
    shown: list[Finding] = field(default_factory=list)

    def add(self, kind: str, says: str) -> None:
        """Note one."""
        self.counts[kind] += 1
        if self.counts[kind] <= _SHOWN_MAX:
            self.shown.append(Finding(kind, says))


class _Ledger:
    """The ledger that all nodes should hold, by whatever it is asked for."""

    def __init__(self, copy: LedgerCopy) -> None:
        self.hashes = copy.hashes
        self.applied: dict[str, Placed] = {}
        self.dropped: dict[str, Placed] = {}
        for item in copy.transactions:
            if item.outcome == APPLIED:
                self.applied.setdefault(item.id, item)
            else:
                self.dropped.setdefault(item.id, item)
        self.events = [(cursor, id_) for cursor, id_, _ in copy.events]
        self.positions = {cursor: at for at, (cursor, _) in enumerate(self.events)}
        self.owners = {name: id_ for _, id_, name in copy.events}
        self.event_keys = [_key(cursor) for cursor, _ in self.events]


def check(operations: Sequence[Operation], ledgers: Sequence[LedgerCopy]) -> Findings:
    """Return everything that is wrong; empty counts mean that history and ledgers agree."""
    findings = Findings()
    if not ledgers:
        findings.add("unequal", "there is no ledger to hold the history against")
        return findings
    if not is_equal(ledgers):
        tips = ", ".join(f"{copy.node} {copy.height} {copy.hashes[-1][:12]}" for copy in ledgers)
        findings.add("unequal", f"the nodes hold different ledgers: {tips}")
    copy = fullest(ledgers)
    if copy.first > 1:
        findings.add("unequal", f"nobody keeps the blocks below {copy.first}: they were pruned")
        return findings
    _check_ledger(copy, findings.add)
    ledger = _Ledger(copy)
    sent = _first_calls(operations)
    _check_origin(ledger, operations, sent, findings.add)
    for operation in operations:
        if operation.outcome == "ok":
            _check_answer(operation, ledger, findings.add)
    _check_times(operations, ledger, sent, findings.add)
    _check_local(operations, findings.add)
    _check_streams(operations, ledger, findings.add)
    return findings


_Add = Callable[[str, str], None]


def _check_ledger(copy: LedgerCopy, add: _Add) -> None:
    """Each transaction and each event once, counted up without a hole."""
    seen: set[str] = set()
    changes = iter((*copy.changes, copy.height + 1))
    leaf, height, change = 0, 0, next(changes)
    for item in copy.transactions:
        if not height <= item.height <= copy.height:
            add("order", f"{item.id} is at height {item.height}, after one at {height}")
        height = max(height, item.height)
        while change < height:
            leaf, change = leaf + 1, next(changes)
        if item.outcome != APPLIED:
            continue
        if item.id in seen:
            add("twice", f"transaction {item.id} stands on the ledger twice")
        seen.add(item.id)
        if item.leaf_index != leaf:
            add("order", f"{item.id} has leaf {item.leaf_index}, the one before it {leaf - 1}")
        leaf += 1
    names: set[str] = set()
    last = (0, 0, 0)
    for cursor, id_, name in copy.events:
        if name in names:
            add("twice", f"event {name} stands on the ledger twice")
        names.add(name)
        if _key(cursor) <= last:
            add("order", f"event {name} at {cursor} comes after {last}")
        last = max(last, _key(cursor))
        if id_ not in seen:
            add("invented", f"event {name} belongs to no applied transaction")


def _first_calls(operations: Iterable[Operation]) -> dict[str, int]:
    """When each transaction was sent for the first time."""
    sent: dict[str, int] = {}
    for operation in operations:
        if operation.kind in _SENDS:
            before = sent.get(operation.id)
            if before is None or operation.called_ns < before:
                sent[operation.id] = operation.called_ns
    return sent


def _check_origin(
    ledger: _Ledger, operations: Iterable[Operation], sent: dict[str, int], add: _Add
) -> None:
    hopeful = {o.id for o in operations if o.kind in _SENDS and o.outcome != "fail"}
    for id_ in (*ledger.applied, *ledger.dropped):
        if id_ not in sent:
            add("invented", f"nobody sent {id_}, which is on the ledger")
        elif id_ not in hopeful:
            add("invented", f"{id_} is on the ledger, and all who sent it were told that it failed")


def _check_answer(operation: Operation, ledger: _Ledger, add: _Add) -> None:
    """What one answer says of heads, and of its transaction."""
    if operation.head_height is not None:
        hashes = ledger.hashes
        if not (
            operation.head_height < len(hashes) and hashes[operation.head_height] == operation.head
        ):
            add("fork", f"{_who(operation)} saw {operation.head[:12]} at {operation.head_height}")
    if operation.kind == "forge":
        add("untrue", f"{_who(operation)} was told {operation.status!r} of a forged transaction")
    if operation.kind not in ("submit", "accept", "read"):
        return
    placed = ledger.applied.get(operation.id)
    if operation.status in _PLACED:
        if placed is None:
            add("lost", f"{_who(operation)} was told that {operation.id} is {operation.status}")
        elif (placed.height, placed.leaf_index) != (operation.height, operation.leaf_index):
            told = (operation.height, operation.leaf_index)
            is_at = (placed.height, placed.leaf_index)
            add("moved", f"{operation.id} is at {is_at}, {_who(operation)} was told {told}")
        elif operation.head_height is not None and operation.head_height < placed.height:
            add("untrue", f"{_who(operation)} was told of {operation.id} above the node's head")
        elif operation.kind in _SENDS:
            _check_events(operation, ledger, add)
    elif operation.kind in _SENDS and operation.status == "pending":
        # The node's disk answers for it, also when a client had waited for more.
        if placed is None and operation.id not in ledger.dropped:
            add("lost", f"{_who(operation)} was told that {operation.id} is accepted")
    elif operation.status in _ENDS:
        if placed is not None:
            add("untrue", f"{_who(operation)} was told that {operation.id} is {operation.status}")
    elif operation.kind in _SENDS:
        add("untrue", f"{_who(operation)} was told {operation.status!r} of {operation.id}, and ok")


def _check_events(operation: Operation, ledger: _Ledger, add: _Add) -> None:
    """A duplicate's events stand on the ledger by another transaction; else some are its own."""
    owners = {ledger.owners.get(name) for name in operation.names}
    is_duplicate = operation.id not in owners
    if None in owners or is_duplicate != (operation.status == "duplicate"):
        add("untrue", f"{_who(operation)} was told that {operation.id} is {operation.status}")


def _check_times(
    operations: Sequence[Operation], ledger: _Ledger, sent: dict[str, int], add: _Add
) -> None:
    """Sweep all calls and returns by time; at the same time the call counts as first."""
    moments: list[tuple[int, int, int]] = []
    for at, operation in enumerate(operations):
        moments.append((operation.called_ns, 0, at))
        if operation.returned_ns is not None and operation.outcome == "ok":
            moments.append((operation.returned_ns, 1, at))
    moments.sort()
    floor = 0
    for _, is_return, at in moments:
        operation = operations[at]
        if is_return:
            floor = max(floor, _shows(operation))
            continue
        if operation.kind in _LINEARIZABLE and operation.outcome == "ok":
            most = _shows_at_most(operation, ledger)
            if most < floor:
                add("stale", f"{_who(operation)} shows height {most} at most, {floor} was seen")
        elif operation.kind in _SENDS and operation.called_ns == sent[operation.id]:
            placed = ledger.applied.get(operation.id) or ledger.dropped.get(operation.id)
            if placed is not None and placed.height <= floor:
                add("early", f"{operation.id} is in block {placed.height}, seen before it was sent")


def _shows(operation: Operation) -> int:
    """The height that an operation proves to be committed."""
    shown = operation.head_height or 0
    if operation.height is not None and operation.status in _PLACED:
        shown = max(shown, operation.height)
    if operation.events:
        shown = max(shown, _height(operation.events[-1][0]))
    return shown


def _shows_at_most(operation: Operation, ledger: _Ledger) -> int:
    """The highest state that a linearizable read can have been answered from."""
    most = len(ledger.hashes) if operation.head_height is None else operation.head_height
    if operation.kind == "read" and operation.status not in _PLACED:
        placed = ledger.applied.get(operation.id)
        if placed is not None:
            most = min(most, placed.height - 1)
    if operation.kind == "query" and operation.is_end:
        last = operation.events[-1][0] if operation.events else operation.after
        at = ledger.positions.get(last, -1) + 1
        if at < len(ledger.events):
            most = min(most, ledger.event_keys[at][0] - 1)
    return most


def _check_local(operations: Iterable[Operation], add: _Add) -> None:
    """One node's own state never goes back from one answer to a later request."""
    moments: dict[str, list[tuple[int, int, int]]] = {}
    for operation in operations:
        if operation.head_height is None or operation.returned_ns is None:
            continue
        own = moments.setdefault(operation.node, [])
        # A call waits for its height: it is known at its return only.
        own.append((operation.called_ns, 0, operation.head_height))
        own.append((operation.returned_ns, 1, operation.head_height))
    for node, own in moments.items():
        own.sort()
        floor = 0
        for _, is_return, height in own:
            if is_return:
                floor = max(floor, height)
            elif height < floor:
                add("backwards", f"{node} was at {floor} and then answered from {height}")


def _check_streams(operations: Iterable[Operation], ledger: _Ledger, add: _Add) -> None:
    """Every page and every connection shows the ledger's events, from its cursor on, as they are.

    And a reader that comes again goes on where it was.
    """
    last: dict[int, str] = {}
    for operation in sorted(_with_events(operations), key=lambda o: o.called_ns):
        at = _position_after(operation.after, ledger)
        expected = ledger.events[at : at + len(operation.events)]
        if list(operation.events) != expected:
            add("stream", f"{_who(operation)} after {operation.after!r} got other events")
        if operation.kind == "stream":
            if operation.after != last.get(operation.process, operation.after):
                add(
                    "stream",
                    f"{_who(operation)} resumes after {operation.after!r}: not where it was",
                )
            last[operation.process] = (
                operation.events[-1][0] if operation.events else operation.after
            )


def _with_events(operations: Iterable[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if operation.kind == "stream" or (operation.kind == "query" and operation.outcome == "ok"):
            yield operation


def _position_after(cursor: str, ledger: _Ledger) -> int:
    """The position of the first event after a cursor, which may lie between events."""
    if not cursor:
        return 0
    at = ledger.positions.get(cursor)
    if at is not None:
        return at + 1
    return bisect_right(ledger.event_keys, _key(cursor))


def _key(cursor: str) -> tuple[int, int, int]:
    height, transaction, event = cursor.split(".")
    return int(height), int(transaction), int(event)


def _height(cursor: str) -> int:
    return int(cursor.partition(".")[0])


def _who(operation: Operation) -> str:
    return f"client {operation.process} at {operation.node} ({operation.kind})"
