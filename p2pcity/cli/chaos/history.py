"""What clients asked and were told, an operation a line of NDJSON; and what the nodes hold after.

A line is `{"kind":"submit","process":3,"node":"node2","called_ns":...,"returned_ns":...,...}`;
fields that say nothing are left out. Times are time.monotonic_ns() of the one machine. An
operation that never returned, or whose answer leaves open what became of it, is `unknown`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from p2pcity.errors import ConfigError

Kind = Literal["submit", "accept", "forge", "read", "query", "local", "stream"]
"""submit: wait=committed. accept: wait=accepted. forge: what must be refused. read: a linearizable
read of a transaction's status. query: a linearizable page of events. local: a read of the node's
own state. stream: what one connection of a reader of the stream brought."""

Outcome = Literal["ok", "fail", "unknown"]
"""fail: the node said that this request did nothing."""

EventPlace = tuple[str, str]
"""An event's cursor, and the id of its transaction in hex."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of one client and its answer.

    `id` is the transaction's, `names` the ids of its events. `status`, `height` and `leaf_index`
    are the answer's; `head_height` and `head` the node's last applied block when it answered.
    `after` is the cursor that a query or stream began after (empty: from the beginning),
    `events` what came, and `is_end` says that the query reached the end of the ledger.
    """

    kind: Kind
    process: int
    node: str
    called_ns: int
    returned_ns: int | None = None
    outcome: Outcome = "unknown"
    id: str = ""
    names: tuple[str, ...] = ()
    status: str = ""
    reason: str = ""
    height: int | None = None
    leaf_index: int | None = None
    head_height: int | None = None
    head: str = ""
    after: str = ""
    events: tuple[EventPlace, ...] = ()
    is_end: bool = False

    def to_line(self) -> str:
        """Return the operation as one line of JSON, without its newline."""
        shown = {name: getattr(self, name) for name in _NAMES}
        return json.dumps(
            {name: value for name, value in shown.items() if value != _DEFAULTS[name]},
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Operation":
        """Return the operation that `to_line` wrote; TypeError when it is none."""
        for name in ("names", "events"):
            if name in document:
                document[name] = tuple(
                    tuple(item) if isinstance(item, list) else item for item in document[name]
                )
        return cls(**document)


_NAMES: Final = tuple(item.name for item in fields(Operation))
_DEFAULTS: Final[dict[str, object]] = {item.name: item.default for item in fields(Operation)}


@dataclass(frozen=True, slots=True)
class Placed:
    """One transaction of a block; `leaf_index` is None when apply dropped it."""

    id: str
    height: int
    outcome: str
    leaf_index: int | None


@dataclass(frozen=True, slots=True)
class LedgerCopy:
    """All that one node's ledger holds, as its API says it.

    `hashes` are the blocks' by height, the genesis first; `transactions` are in the ledger's
    order, dropped ones included; `events` are (cursor, transaction id, event id); `changes` are
    the heights of blocks with a change of who orders, which is a leaf behind its transactions.
    `first` is the lowest block that the node keeps; there is nothing of those below it but the
    genesis, and their hashes are empty.
    """

    node: str
    hashes: tuple[str, ...]
    transactions: tuple[Placed, ...]
    events: tuple[tuple[str, str, str], ...]
    changes: tuple[int, ...] = ()
    first: int = 1

    @property
    def height(self) -> int:
        """The height of the last block."""
        return len(self.hashes) - 1

    def since(self, height: int) -> tuple[object, ...]:
        """All that it holds from a height on, to be compared with another's."""
        return (
            len(self.hashes),
            self.hashes[height:],
            tuple(item for item in self.transactions if item.height >= height),
            tuple(item for item in self.events if int(item[0].partition(".")[0]) >= height),
            tuple(item for item in self.changes if item >= height),
        )


def read(file: Path) -> list[Operation]:
    """Return the operations of a history file; ConfigError when it is none."""
    found = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found.append(Operation.from_json(json.loads(line)))
                except (ValueError, TypeError) as error:
                    raise ConfigError(
                        f"{file}: line {number} is no operation: {error}",
                        remedy="Give the history.ndjson that `p2pcity testnet chaos` wrote.",
                    ) from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", remedy="Name a history file.") from None
    return found


def write_ledgers(file: Path, ledgers: Sequence[LedgerCopy]) -> None:
    """Write what the nodes hold, one node a line; equal ones say only whose they equal."""
    lines: list[dict[str, object]] = []
    for ledger in ledgers:
        first = ledgers[0]
        if ledger is not first and _content(ledger) == _content(first):
            lines.append({"node": ledger.node, "equals": first.node})
            continue
        transactions = [(t.id, t.height, t.outcome, t.leaf_index) for t in ledger.transactions]
        lines.append(
            {
                "node": ledger.node,
                "hashes": ledger.hashes,
                "transactions": transactions,
                "events": ledger.events,
                "changes": ledger.changes,
                "first": ledger.first,
            }
        )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_ledgers(file: Path) -> list[LedgerCopy]:
    """Return what `write_ledgers` wrote; ConfigError when it is something else."""
    found: dict[str, LedgerCopy] = {}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            same = found.get(item.get("equals"))
            if same is not None:
                copy = replace(same, node=item["node"])
            else:
                copy = LedgerCopy(
                    item["node"],
                    tuple(item["hashes"]),
                    tuple(Placed(*row) for row in item["transactions"]),
                    tuple((cursor, id_, name) for cursor, id_, name in item["events"]),
                    tuple(item["changes"]),
                    item["first"],
                )
            found[copy.node] = copy
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", remedy="Name a ledgers file.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{file} is no file of ledgers: {error}",
            remedy="Give the ledgers.ndjson that `p2pcity testnet chaos` wrote.",
        ) from None
    return list(found.values())


def _content(ledger: LedgerCopy) -> tuple[object, ...]:
    return ledger.first, ledger.hashes, ledger.transactions, ledger.events, ledger.changes


def fullest(ledgers: Sequence[LedgerCopy]) -> LedgerCopy:
    """The first of those that keep the most blocks."""
    return min(ledgers, key=lambda copy: copy.first)


def is_equal(ledgers: Sequence[LedgerCopy]) -> bool:
    """Whether all nodes hold the same, as far down as each keeps it."""
    if not ledgers:
        return True
    full = fullest(ledgers)
    return all(
        _content(copy) == _content(full)
        or (copy.hashes[0] == full.hashes[0] and copy.since(copy.first) == full.since(copy.first))
        for copy in ledgers
    )
