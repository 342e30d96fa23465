"""Histories that are right, made from a seed: a ledger that grows, three nodes, their clients."""

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Final

from p2pcity.cli.chaos.history import LedgerCopy, Operation, Placed

NODES: Final = ("node1", "node2", "node3")
_BLOCKS: Final = 25
_MS: Final = 1_000_000

Operations = list[Operation]
Copies = list[LedgerCopy]
History = tuple[Operations, Copies]


@dataclass
class _Block:
    committed_ns: int
    items: list[tuple[str, str, str]]
    """Transaction id, its event's id, and `applied`, or `duplicate` when the event was there."""


class _City:
    """A ledger that grows, and three nodes that show it each at its own pace."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.operations: list[Operation] = []
        self.blocks = [_Block(0, [])]
        self._now_ns = 1_000 * _MS
        self._wanted: list[tuple[int, str, str, str]] = []

    def make(self) -> History:
        for height in range(1, _BLOCKS + 1):
            sent = [self._send(height, number) for number in range(self.random.randrange(1, 5))]
            self._now_ns += self.random.randrange(5, 20) * _MS
            self.blocks.append(_Block(self._now_ns, [item for item in sent if item]))
            self._now_ns += self.random.randrange(5, 20) * _MS
        self.copy = self._copy()
        self._answer_sends()
        for number in range(60):
            self._look(number)
        for process in (20, 21):
            self._stream(process)
        self._set_heads()
        self.operations.sort(key=lambda operation: operation.called_ns)
        return self.operations, [replace(self.copy, node=node) for node in NODES]

    def _send(self, height: int, number: int) -> tuple[str, str, str]:
        id_ = f"{height:02}{number:02}{self.random.getrandbits(64):016x}"
        name = f"event-{id_}"
        kind, outcome = "submit", "applied"
        if self.random.random() < 0.15:
            kind = "accept"
        earlier = [item for block in self.blocks for item in block.items if item[2] == "applied"]
        if earlier and self.random.random() < 0.1:
            name, outcome = self.random.choice(earlier)[1], "duplicate"
        called_ns = self._now_ns + self.random.randrange(1, 4) * _MS
        self._wanted.append((called_ns, id_, name, f"{kind} {outcome} {height}"))
        return id_, name, outcome

    def _copy(self) -> LedgerCopy:
        transactions, events, changes, leaf = [], [], [], 0
        for height, block in enumerate(self.blocks):
            for position, (id_, name, outcome) in enumerate(block.items):
                transactions.append(Placed(id_, height, "applied", leaf))
                leaf += 1
                if outcome == "applied":
                    events.append((f"{height}.{position}.0", id_, name))
            if self.random.random() < 0.2:
                changes.append(height)
                leaf += 1
        hashes = tuple(f"{height:064x}" for height in range(len(self.blocks)))
        return LedgerCopy("", hashes, tuple(transactions), tuple(events), tuple(changes))

    def _answer_sends(self) -> None:
        placed = {item.id: item for item in self.copy.transactions}
        for called_ns, id_, name, what in self._wanted:
            kind, outcome, height = what.split()
            node = self.random.choice(NODES)
            sent = Operation(
                kind="accept" if kind == "accept" else "submit",
                process=self.random.randrange(8),
                node=node,
                called_ns=called_ns,
                id=id_,
                names=(name,),
            )
            committed_ns = self.blocks[int(height)].committed_ns
            returned_ns = committed_ns + self.random.randrange(1, 9) * _MS
            if kind == "accept":
                returned_ns = called_ns + _MS
                sent = replace(sent, returned_ns=returned_ns, outcome="ok", status="pending")
            elif self.random.random() < 0.1:
                sent = replace(sent, returned_ns=returned_ns, reason="timeout")
            else:
                where = placed[id_]
                sent = replace(
                    sent,
                    returned_ns=returned_ns,
                    outcome="ok",
                    status="duplicate" if outcome == "duplicate" else "committed",
                    height=where.height,
                    leaf_index=where.leaf_index,
                )
            self.operations.append(sent)
        refused = Operation("submit", 1, "node1", 5 * _MS, 6 * _MS, "fail", "ff" * 10, ("bad",))
        self.operations.append(refused)

    def _height_at(self, at_ns: int) -> int:
        return bisect_right([block.committed_ns for block in self.blocks], at_ns) - 1

    def _look(self, number: int) -> None:
        called_ns = self.random.randrange(1_000 * _MS, self._now_ns)
        returned_ns = called_ns + self.random.randrange(1, 15) * _MS
        height = self._height_at(self.random.randrange(called_ns, returned_ns))
        node = self.random.choice(NODES)
        kind = ("read", "query", "local")[number % 3]
        if kind == "local":
            self.operations.append(
                Operation("local", 10, node, called_ns, returned_ns, "ok", head_height=0)
            )
        elif kind == "read":
            placed = self.random.choice(applied(self.copy))
            is_there = placed.height <= height
            self.operations.append(
                Operation(
                    *("read", 11, node, called_ns, returned_ns, "ok", placed.id),
                    status="committed" if is_there else "unknown",
                    height=placed.height if is_there else None,
                    leaf_index=placed.leaf_index if is_there else None,
                    head_height=height,
                )
            )
        else:
            events = [(c, i) for c, i, _ in self.copy.events if int(c.split(".")[0]) <= height]
            start = self.random.randrange(len(events)) if events else 0
            self.operations.append(
                Operation(
                    *("query", 12, node, called_ns, returned_ns, "ok"),
                    after=events[start - 1][0] if start else "",
                    events=tuple(events[start:]),
                    is_end=True,
                    head_height=height,
                )
            )

    def _stream(self, process: int) -> None:
        after, at, now_ns = "", 0, 1_000 * _MS
        while at < len(self.copy.events):
            count = self.random.randrange(0, 7)
            got = tuple((cursor, id_) for cursor, id_, _ in self.copy.events[at : at + count])
            called_ns = now_ns
            if got:
                height = int(got[-1][0].split(".")[0])
                now_ns = max(now_ns, self.blocks[height].committed_ns)
            now_ns += self.random.randrange(1, 9) * _MS
            node = self.random.choice(NODES)
            self.operations.append(
                Operation(
                    *("stream", process, node, called_ns, now_ns, "ok"), after=after, events=got
                )
            )
            now_ns += _MS
            after = got[-1][0] if got else after
            at += len(got)

    def _set_heads(self) -> None:
        """Each node's head in the order of its answers: never back, never ahead of the ledger."""
        now: dict[str, int] = dict.fromkeys(NODES, 0)
        heads: dict[int, int] = {}
        done = [o for o in self.operations if o.returned_ns is not None and o.outcome == "ok"]
        for operation in sorted(done, key=lambda o: (o.returned_ns or 0, o.called_ns)):
            if operation.kind == "stream":
                continue
            assert operation.returned_ns is not None
            least = max(now[operation.node], operation.head_height or 0, operation.height or 0)
            most = max(least, self._height_at(operation.returned_ns))
            head = self.random.randrange(least, most + 1)
            now[operation.node] = head
            heads[id(operation)] = head
        self.operations = [
            replace(o, head_height=heads[id(o)], head=self.copy.hashes[heads[id(o)]])
            if id(o) in heads
            else o
            for o in self.operations
        ]


def applied(copy: LedgerCopy) -> list[Placed]:
    return [item for item in copy.transactions if item.leaf_index is not None]


@cache
def make(seed: int) -> History:
    """A history of about 180 operations that three nodes with one ledger can show."""
    return _City(seed).make()
