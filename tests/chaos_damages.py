"""34 ways to damage a history that was right.

A damage changes what a client was told, or what the nodes hold, in a way that no correct network
can show; the checker must reject each. `None` says that this history has nothing to damage so.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from p2pcity.cli.chaos.history import LedgerCopy, Operation, Placed
from tests.chaos_histories import Copies, History, Operations, applied

Damage = Callable[[Random, Operations, Copies], History | None]


def _pick(choice: Random, found: Sequence[int]) -> int | None:
    return choice.choice(found) if found else None


def _acknowledged(operations: list[Operation]) -> list[int]:
    return [at for at, o in enumerate(operations) if o.kind == "submit" and o.status == "committed"]


def _of(operations: list[Operation], kind: str, least: int = 0) -> list[int]:
    return [at for at, o in enumerate(operations) if o.kind == kind and len(o.events) >= least]


def _floor(operations: list[Operation], before_ns: int) -> int:
    """The highest height that operations had shown before a point of time."""
    return max(
        (
            max(o.head_height or 0, int(o.events[-1][0].split(".")[0]) if o.events else 0)
            for o in operations
            if o.outcome == "ok" and o.returned_ns is not None and o.returned_ns < before_ns
        ),
        default=0,
    )


def _without(copy: LedgerCopy, id_: str) -> LedgerCopy:
    """A ledger that never had a transaction, with its leaves counted anew."""
    kept, leaf = [], 0
    for item in copy.transactions:
        if item.id == id_:
            continue
        if item.leaf_index is None:
            kept.append(item)
        else:
            changes = sum(height < item.height for height in copy.changes)
            kept.append(replace(item, leaf_index=leaf + changes))
            leaf += 1
    events = tuple(event for event in copy.events if event[1] != id_)
    return replace(copy, transactions=tuple(kept), events=events)


def _all(ledgers: list[LedgerCopy], change: Callable[[LedgerCopy], LedgerCopy]) -> list[LedgerCopy]:
    return [change(copy) for copy in ledgers]


def _with(copy: LedgerCopy, item: Placed) -> LedgerCopy:
    return replace(copy, transactions=(*copy.transactions, item))


def _number(value: int | None) -> int:
    """A number that this operation is known to have."""
    assert value is not None
    return value


def _set(operations: list[Operation], at: int, **changes: object) -> list[Operation]:
    changed = list(operations)
    changed[at] = replace(operations[at], **changes)  # type: ignore[arg-type]  # fields by name
    return changed


def lose_everywhere(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = _pick(choice, _acknowledged(operations))
    if at is None:
        return None
    return operations, _all(ledgers, lambda copy: _without(copy, operations[at].id))


def lose_on_one_node(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = _pick(choice, _acknowledged(operations))
    if at is None:
        return None
    who = choice.randrange(3)
    return operations, [
        _without(copy, operations[at].id) if number == who else copy
        for number, copy in enumerate(ledgers)
    ]


def lose_the_accepted(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    placed = {t.id for t in ledgers[0].transactions}
    at = _pick(choice, [a for a in _of(operations, "accept") if operations[a].id in placed])
    if at is None:
        return None
    return operations, _all(ledgers, lambda copy: _without(copy, operations[at].id))


def swap_two_answers(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = _acknowledged(operations)
    one, two = choice.sample(found, 2)
    a, b = operations[one], operations[two]
    changed = _set(operations, one, height=b.height, leaf_index=b.leaf_index)
    return _set(changed, two, height=a.height, leaf_index=a.leaf_index), ledgers


def answer_another_leaf(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = choice.choice(_acknowledged(operations))
    return _set(operations, at, leaf_index=_number(operations[at].leaf_index) + 1), ledgers


def answer_a_lower_height(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = choice.choice(_acknowledged(operations))
    return _set(operations, at, height=_number(operations[at].height) - 1), ledgers


def answer_twice_in_two_places(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = choice.choice(_acknowledged(operations))
    told = operations[at]
    again = replace(
        told,
        called_ns=_number(told.returned_ns),
        returned_ns=_number(told.returned_ns) + 1,
        height=_number(told.height) + 1,
    )
    return [*operations, again], ledgers


def stand_twice(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    item = choice.choice(applied(ledgers[0]))
    leaf = 1 + max(t.leaf_index or 0 for t in ledgers[0].transactions)

    def change(copy: LedgerCopy) -> LedgerCopy:
        again = replace(item, height=copy.height, leaf_index=leaf)
        return replace(copy, transactions=(*copy.transactions, again))

    return operations, _all(ledgers, change)


def show_an_event_twice(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    _, id_, name = choice.choice(ledgers[0].events)

    def change(copy: LedgerCopy) -> LedgerCopy:
        return replace(copy, events=(*copy.events, (f"{copy.height}.99.0", id_, name)))

    return operations, _all(ledgers, change)


def invent_a_transaction(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    leaf = 1 + max(t.leaf_index or 0 for t in ledgers[0].transactions)
    item = Placed("ab" * 10, ledgers[0].height, "applied", leaf)
    return operations, _all(ledgers, lambda copy: _with(copy, item))


def order_what_was_refused(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    [refused] = [o for o in operations if o.outcome == "fail"]
    leaf = 1 + max(t.leaf_index or 0 for t in ledgers[0].transactions)
    item = Placed(refused.id, ledgers[0].height, "applied", leaf)
    return operations, _all(ledgers, lambda copy: _with(copy, item))


def forget_who_sent_it(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = choice.choice(_acknowledged(operations))
    return [o for o in operations if o.id != operations[at].id], ledgers


def read_an_old_state(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = [
        at
        for at in _of(operations, "read")
        if operations[at].status != "committed" and _floor(operations, operations[at].called_ns) > 0
    ]
    at = _pick(choice, found)
    if at is None:
        return None
    head = _floor(operations, operations[at].called_ns) - 1
    return _set(operations, at, head_height=head, head=ledgers[0].hashes[head]), ledgers


def not_know_what_was_acknowledged(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    acknowledged = [operations[at] for at in _acknowledged(operations)]
    told = choice.choice(acknowledged)
    now_ns = _number(told.returned_ns)
    newest = ledgers[0].height
    stale = Operation(
        *("read", 11, "node2", now_ns + 1, now_ns + 2, "ok", told.id),
        status=choice.choice(("unknown", "pending")),
        head_height=newest,
        head=ledgers[0].hashes[newest],
    )
    return [*operations, stale], ledgers


def end_a_page_too_early(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = []
    for at in _of(operations, "query", 1):
        height = int(operations[at].events[-1][0].split(".")[0])
        if _floor(operations, operations[at].called_ns) >= height:
            found.append(at)
    chosen = _pick(choice, found)
    if chosen is None:
        return None
    return _set(operations, chosen, events=operations[chosen].events[:-1]), ledgers


def _leave_one_out(
    choice: Random, operations: Operations, ledgers: Copies, kind: str
) -> History | None:
    at = _pick(choice, _of(operations, kind, 3))
    if at is None:
        return None
    events = list(operations[at].events)
    del events[choice.randrange(1, len(events) - 1)]
    return _set(operations, at, events=tuple(events)), ledgers


def leave_a_gap_in_a_page(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    return _leave_one_out(choice, operations, ledgers, "query")


def leave_a_gap_in_a_stream(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    return _leave_one_out(choice, operations, ledgers, "stream")


def double_an_event_of_a_stream(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = choice.choice(_of(operations, "stream", 1))
    events = list(operations[at].events)
    events.insert(0, events[0])
    return _set(operations, at, events=tuple(events)), ledgers


def swap_events_of_a_stream(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = choice.choice(_of(operations, "stream", 2))
    events = list(operations[at].events)
    events[0], events[1] = events[1], events[0]
    return _set(operations, at, events=tuple(events)), ledgers


def send_a_foreign_event(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = choice.choice(_of(operations, "stream", 1))
    events = list(operations[at].events)
    events[-1] = (events[-1][0], "cd" * 10)
    return _set(operations, at, events=tuple(events)), ledgers


def lose_a_connection_of_a_stream(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    found = [
        at
        for at in _of(operations, "stream", 1)
        if any(
            o.kind == "stream"
            and o.process == operations[at].process
            and o.called_ns > operations[at].called_ns
            for o in operations
        )
        and operations[at].after
    ]
    at = choice.choice(found)
    return [o for number, o in enumerate(operations) if number != at], ledgers


def begin_a_stream_again(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = [at for at in _of(operations, "stream", 1) if operations[at].after]
    at = choice.choice(found)
    events = [(cursor, id_) for cursor, id_, _ in ledgers[0].events]
    return _set(
        operations, at, after="", events=tuple(events[: len(operations[at].events)])
    ), ledgers


def another_hash(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = choice.choice([a for a, o in enumerate(operations) if o.head_height is not None])
    return _set(operations, at, head="ee" * 32), ledgers


def a_head_that_never_was(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = choice.choice([a for a, o in enumerate(operations) if o.head_height is not None])
    return _set(operations, at, head_height=ledgers[0].height + 1), ledgers


def fork_a_node(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    who, height = choice.randrange(3), choice.randrange(1, ledgers[0].height + 1)
    hashes = list(ledgers[who].hashes)
    hashes[height] = "dd" * 32
    changed = list(ledgers)
    changed[who] = replace(ledgers[who], hashes=tuple(hashes))
    return operations, changed


def send_after_it_was_seen(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    placed = {t.id: t.height for t in ledgers[0].transactions}
    at = choice.choice(_acknowledged(operations))
    id_ = operations[at].id
    saw = [
        _number(o.returned_ns)
        for o in operations
        if o.outcome == "ok" and (o.head_height or 0) >= placed[id_] and o.id != id_
    ]
    if not saw:
        return None
    seen = min(saw)
    return [
        replace(o, called_ns=seen + 1, returned_ns=max(o.returned_ns or 0, seen + 2))
        if o.id == id_ and o.kind in ("submit", "accept")
        else o
        for o in operations
    ], ledgers


def go_back(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = [at for at in _of(operations, "local") if (operations[at].head_height or 0) > 0]
    at = _pick(choice, found)
    if at is None:
        return None
    told = operations[at]
    head = choice.randrange(_number(told.head_height))
    later = replace(
        told,
        called_ns=_number(told.returned_ns) + 1,
        returned_ns=_number(told.returned_ns) + 2,
        head_height=head,
        head=ledgers[0].hashes[head],
    )
    return [*operations, later], ledgers


def call_it_a_duplicate(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    at = choice.choice(_acknowledged(operations))
    return _set(operations, at, status="duplicate"), ledgers


def call_a_duplicate_committed(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = _pick(choice, [a for a, o in enumerate(operations) if o.status == "duplicate"])
    return None if at is None else (_set(operations, at, status="committed"), ledgers)


def call_it_expired(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = [at for at in _of(operations, "read") if operations[at].status == "committed"]
    at = _pick(choice, found)
    if at is None:
        return None
    return _set(operations, at, status="expired", height=None, leaf_index=None), ledgers


def answer_above_the_head(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    at = choice.choice(_acknowledged(operations))
    head = _number(operations[at].height) - 1
    return _set(operations, at, head_height=head, head=ledgers[0].hashes[head]), ledgers


def swap_leaves(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    found = [a for a, t in enumerate(ledgers[0].transactions) if t.leaf_index is not None]
    one, two = choice.sample(found, 2)

    def change(copy: LedgerCopy) -> LedgerCopy:
        items = list(copy.transactions)
        a, b = items[one], items[two]
        items[one] = replace(a, leaf_index=b.leaf_index)
        items[two] = replace(b, leaf_index=a.leaf_index)
        return replace(copy, transactions=tuple(items))

    return operations, _all(ledgers, change)


def hide_a_change(choice: Random, operations: Operations, ledgers: Copies) -> History | None:
    last = max(item.height for item in applied(ledgers[0]))
    found = [height for height in ledgers[0].changes if height < last]
    if not found:
        return None
    hidden = choice.choice(found)

    def change(copy: LedgerCopy) -> LedgerCopy:
        return replace(copy, changes=tuple(h for h in copy.changes if h != hidden))

    return operations, _all(ledgers, change)


def change_one_node_alone(
    choice: Random, operations: Operations, ledgers: Copies
) -> History | None:
    who = choice.randrange(3)
    changed = list(ledgers)
    changed[who] = replace(ledgers[who], changes=(*ledgers[who].changes, ledgers[who].height))
    return operations, changed


DAMAGES: Final[tuple[tuple[Damage, str], ...]] = (
    (lose_everywhere, "lost"),
    (lose_on_one_node, "unequal"),
    (lose_the_accepted, "lost"),
    (swap_two_answers, "moved"),
    (answer_another_leaf, "moved"),
    (answer_a_lower_height, "moved"),
    (answer_twice_in_two_places, "moved"),
    (stand_twice, "twice"),
    (show_an_event_twice, "twice"),
    (invent_a_transaction, "invented"),
    (order_what_was_refused, "invented"),
    (forget_who_sent_it, "invented"),
    (read_an_old_state, "stale"),
    (not_know_what_was_acknowledged, "stale"),
    (end_a_page_too_early, "stale"),
    (leave_a_gap_in_a_page, "stream"),
    (leave_a_gap_in_a_stream, "stream"),
    (double_an_event_of_a_stream, "stream"),
    (swap_events_of_a_stream, "stream"),
    (send_a_foreign_event, "stream"),
    (lose_a_connection_of_a_stream, "stream"),
    (begin_a_stream_again, "stream"),
    (another_hash, "fork"),
    (a_head_that_never_was, "fork"),
    (fork_a_node, "unequal"),
    (send_after_it_was_seen, "early"),
    (go_back, "backwards"),
    (call_it_a_duplicate, "untrue"),
    (call_a_duplicate_committed, "untrue"),
    (call_it_expired, "untrue"),
    (answer_above_the_head, "untrue"),
    (swap_leaves, "order"),
    (hide_a_change, "order"),
    (change_one_node_alone, "unequal"),
)
"""Each way to damage a history, and what the checker must call it."""
