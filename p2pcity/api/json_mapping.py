r"""The JSON that goes out: events as CloudEvents, answers, statuses, blocks.

An event is the CloudEvents 1.0 JSON format plus these extension attributes, which the node sets:

| attribute | what |
|---|---|
| `p2pcitycursor` | `height.transaction.event`, its place in the ledger and a stream's cursor |
| `p2pcityheight`, `p2pcitytransaction`, `p2pcityevent` | block, transaction id, position in it |
| `p2pcityauthor`, `p2pcitymember` | the author's public key, its member's name |
| `p2pcityblocktime` | the block's time |
| `longitude`, `latitude` | the place, decimal degrees as text (CloudEvents has no fractions) |

`time` is RFC 3339 in UTC with milliseconds. Keys and ids are hex. `data` is JSON; a byte string as
the whole data is `data_base64`, one inside of it base64url text without padding (RFC 8949 section
6.1), integer map keys become decimal text. An event whose body was erased or withheld is a
tombstone: only the attributes that start with `p2pcity`, and `"p2pcitytombstone": true`.
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

from p2pcity.api.service import (
    Answer,
    EventPage,
    StoredBlock,
    StoredEvent,
    TransactionStatus,
)
from p2pcity.api.times import write_time
from p2pcity.wire.event import Event

PREFIX: Final = "p2pcity"
LONGITUDE: Final = "longitude"
LATITUDE: Final = "latitude"

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def dump(value: object) -> bytes:
    """Return compact JSON in UTF-8."""
    return _encoder.encode(value).encode()


def stored_event(stored: StoredEvent) -> dict[str, object]:
    """Return the CloudEvents JSON of an event on the ledger, or its tombstone."""
    cursor = stored.cursor
    document: dict[str, object] = {}
    if stored.event is not None:
        document = cloudevent(stored.event)
    else:
        document["p2pcitytombstone"] = True
    # These last: an author's own attribute of such a name must not pass for the node's.
    document["p2pcitycursor"] = str(cursor)
    document["p2pcityheight"] = cursor.height
    document["p2pcitytransaction"] = stored.transaction.hex()
    document["p2pcityevent"] = cursor.event
    document["p2pcityauthor"] = stored.author.hex()
    document["p2pcityblocktime"] = write_time(stored.time_ms)
    if stored.member is not None:
        document["p2pcitymember"] = stored.member
    return document


def cloudevent(event: Event) -> dict[str, object]:
    """Return an event in the CloudEvents 1.0 JSON format, without what the node adds."""
    document: dict[str, object] = {
        name: _extension(value)
        for name, value in event.extensions.items()
        if not name.startswith(PREFIX)
    }
    document["specversion"] = "1.0"
    document["id"] = event.id
    document["source"] = event.source
    document["type"] = event.type
    if event.subject is not None:
        document["subject"] = event.subject
    if event.time_ms is not None:
        document["time"] = write_time(event.time_ms)
    if event.place is not None:
        document[LONGITUDE], document[LATITUDE] = map(degrees, event.place)
    if event.dataschema is not None:
        document["dataschema"] = event.dataschema
    if event.datacontenttype is not None:
        document["datacontenttype"] = event.datacontenttype
    if isinstance(event.data, bytes):
        document["data_base64"] = b64encode(event.data).decode()
    elif event.data is not None:
        document["data"] = _json_value(event.data)
    return document


def degrees(value_e7: int) -> str:
    """Return 1e-7 degrees as the shortest decimal text: 134050000 is `13.405`."""
    whole, fraction = divmod(abs(value_e7), 10_000_000)
    text = f"{whole}.{fraction:07d}".rstrip("0").rstrip(".")
    return f"-{text}" if value_e7 < 0 else text


def answer(item: Answer) -> dict[str, object]:
    """Return the answer to one submitted transaction or event; all members always there."""
    document: dict[str, object] = {
        "id": None if item.id is None else item.id.hex(),
        "verdict": item.verdict,
        "status": item.status,
        "reason": item.reason,
        "detail": item.detail,
        "height": item.height,
        "leaf_index": item.leaf_index,
    }
    if item.event is not None:
        document["event"] = item.event
    return document


def transaction_status(item: TransactionStatus) -> dict[str, object]:
    """Return where a transaction stands; what is not known is null."""
    return {
        "id": item.id.hex(),
        "status": item.status,
        "reason": item.reason,
        "height": item.height,
        "leaf_index": item.leaf_index,
        "time": None if item.time_ms is None else write_time(item.time_ms),
        "author": None if item.author is None else item.author.hex(),
        "count": item.count,
    }


def page(item: EventPage) -> dict[str, object]:
    """Return a page of events and the cursor of the next one, null at the end."""
    return {
        "events": [stored_event(event) for event in item.events],
        "next": None if item.next is None else str(item.next),
    }


def block(item: StoredBlock) -> dict[str, object]:
    """Return a block's header and what became of each of its transactions."""
    return {
        "height": item.height,
        "hash": item.hash.hex(),
        "parent": None if item.parent is None else item.parent.hex(),
        "time": write_time(item.time_ms),
        "epoch": item.epoch,
        "rules": item.rules,
        "size": len(item.data),
        "tree_size": item.tree_size,
        "transactions": [
            {
                "id": entry.id.hex(),
                "author": entry.author.hex(),
                "count": entry.count,
                "outcome": entry.outcome,
                "leaf_index": entry.leaf_index,
            }
            for entry in item.transactions
        ],
        "change": None if item.change is None else item.change.hex(),
    }


def _extension(value: str | int | bool | bytes) -> str | int | bool:
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _json_value(value: Any) -> object:
    if isinstance(value, bytes):
        return urlsafe_b64encode(value).rstrip(b"=").decode()
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return value
