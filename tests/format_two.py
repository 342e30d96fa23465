"""The next format of each file, which only tests know: another shape in every store.

`install` makes this process a later release: it writes entries backwards, its outbox has a column
more, and its views have another table.
"""

from collections.abc import Callable
from typing import Any, Final

from p2pcity.ledger import outbox, records
from p2pcity.ledger.records import Kind, Record
from p2pcity.views import schema
from p2pcity.wire.raft import Entry

LOG: Final = records.FORMAT_VERSION + 1
OUTBOX: Final = outbox.FORMAT_VERSION + 1
VIEWS: Final = schema.VERSION + 1
_FORM: Final = 2
_STEP: Final = (
    "ALTER TABLE settled ADD COLUMN source TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX settled_source ON settled (source)",
    # What touches every page: a change that is not one write.
    "UPDATE pending SET carried = carried",
)
_TABLE: Final = "CREATE TABLE later (one INTEGER PRIMARY KEY)"


def _encode_entry(entry: Entry, previous: bytes) -> bytes:
    head = records._ENTRY.pack(_FORM, entry.term, len(entry.payload), 0)
    return records.encode_record(Kind.ENTRY, entry.index, head + entry.payload[::-1], previous)


def _with_backwards(
    read: Callable[[Record, bytes], tuple[int, bytes]],
) -> Callable[[Record, bytes], tuple[int, bytes]]:
    def read_payload(record: Record, buffer: bytes) -> tuple[int, bytes]:
        parts = record.entry
        if parts is not None and parts.form == _FORM:
            return parts.term, parts.rest[::-1]
        return read(record, buffer)

    return read_payload


def install_log(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Give the segment log its next format; `put` sets an attribute."""
    put(records, "FORMAT_VERSION", LOG)
    put(records, "_FORMS", (*records._FORMS, _FORM))
    put(records, "encode_entry", _encode_entry)
    put(records, "read_payload", _with_backwards(records.read_payload))


def install_outbox(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Give the outbox its next format."""
    put(outbox, "_STEPS", (*outbox._STEPS, _STEP))
    put(outbox, "FORMAT_VERSION", OUTBOX)


def install_views(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Give the views their next format."""
    put(schema, "VERSION", VIEWS)
    put(schema, "TABLES", (*schema.TABLES, _TABLE))


def install() -> None:
    """A plugin for `warm_nodes`: all of them."""
    install_log()
    install_outbox()
    install_views()
