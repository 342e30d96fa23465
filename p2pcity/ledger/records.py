"""The bytes of the segment log: how a record is written, and how it is checked when read.

All integers are big-endian and unsigned. A file is the 8 bytes `FILE_MAGIC` and then records;
the first record of a file is its header. A record is

    length        4   bytes of the whole record, this field and the checksum included
    data length   4   bytes of `data`
    kind          1   see `Kind`
    index         8   entry: its Raft index; truncation: the first index that is removed;
                      else the last index of the raft_log at that moment
    data              as its kind says
    bodies            only in entries: the events' bodies, one after the other
    checksum     16   BLAKE2b-128 over the checksum of the record before, then the first 17
                      bytes above, then `data`: the bodies are not part of it

so that any record can be checked alone by reading the 16 bytes in front of it too. A file's
header takes the checksum of the last record of the file before (16 zero bytes in the first).

The data of each kind:

    file header   format version 2, incarnation 16, mark key 16, sequence 8, first index 8,
                  checksum before 16 (this record's layout stays the same in all versions)
    entry         form 1, term 8, payload length 4, count of bodies 4, then for each body its
                  length 4 and the first 16 bytes of its RFC 9162 leaf hash, then the rest:
                  form 0: the payload whole; form 1: the skeleton of a block (`wire.block`)
    hard state    term 8, commit 8, then the vote as UTF-8 text (empty: no vote)
    truncation    nothing
    sync mark     mark magic 16, sequence of the file 8, offset of this record 8, index 8, seal 16
    network       network id 32

A body is erased by writing the 16 bytes of its leaf hash over it, again and again, cut to its
length: no checksum changes, and a page of zeros is never taken for an erasure.

A sync mark says: everything before me was on the disk when I was written. Its magic and its
seal (BLAKE2b-128 over magic, sequence, offset and index) are keyed with the mark key, 16 random
bytes that never leave the node, so a mark is found by scanning even where a length is
destroyed, and nobody can put bytes into an event that look like one. The header of a file says
the same of all files before it.

The format is that of a file, and never falls from one file to the next. A release reads every
format up to its own and writes only in its own: an older file is closed, and the next one begun.

A group is what one save wrote: a truncation (if any), entries, a hard state (if any): in this
order, so that no commit index is ever read without the entries that it speaks of.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from p2pcity.crypto.merkle import leaf_hash
from p2pcity.errors import DecodeError
from p2pcity.wire import block
from p2pcity.wire.raft import Entry, HardState

FILE_MAGIC: Final = b"p2pclog\n"
FORMAT_VERSION: Final = 1
CHECKSUM_BYTES: Final = 16
ZERO_CHECKSUM: Final = bytes(CHECKSUM_BYTES)

_HEAD: Final = struct.Struct(">IIBQ")
_FILE: Final = struct.Struct(">H16s16sQQ16s")
_ENTRY: Final = struct.Struct(">BQII")
_BODY: Final = struct.Struct(">I16s")
_HARD_STATE: Final = struct.Struct(">QQ")
_MARK: Final = struct.Struct(">16sQQQ16s")
_blake2b = hashlib.blake2b

HEAD_BYTES: Final = _HEAD.size
RECORD_BYTES_MIN: Final = HEAD_BYTES + CHECKSUM_BYTES
FILE_HEADER_BYTES: Final = len(FILE_MAGIC) + RECORD_BYTES_MIN + _FILE.size
MARK_RECORD_BYTES: Final = RECORD_BYTES_MIN + _MARK.size

_FORM_WHOLE: Final = 0
_FORM_BLOCK: Final = 1
_FORMS: Final = (_FORM_WHOLE, _FORM_BLOCK)


class Kind(IntEnum):
    """What a record holds."""

    FILE = 1
    ENTRY = 2
    HARD_STATE = 3
    TRUNCATION = 4
    SYNC_MARK = 5
    NETWORK = 6


# Plain numbers: a start compares the kind of each record of its log with them.
ENTRY: Final = int(Kind.ENTRY)
HARD_STATE: Final = int(Kind.HARD_STATE)
SYNC_MARK: Final = int(Kind.SYNC_MARK)


class BadRecord(Exception):
    """The bytes at an offset are no whole, unharmed record; recovery says what that means.

    `index` is the Raft index of the entry whose body is harmed, None when that is not known.
    """

    index: int | None = None


# Not frozen, which would cost a start much: it makes one for each record of its log.
@dataclass(slots=True)
class Record:
    """One checked record; `offset` and `length` are those of the whole record in its file.

    `entry` is what the data of an entry says, None for all other kinds.
    """

    kind: int
    index: int
    data: bytes
    offset: int
    length: int
    checksum: bytes
    entry: "EntryParts | None" = None


class FileHeader(NamedTuple):
    """What the first record of a file says."""

    incarnation: bytes
    mark_key: bytes
    sequence: int
    first_index: int
    previous: bytes
    version: int = FORMAT_VERSION


class EntryParts(NamedTuple):
    """An entry's data, taken apart; `bodies` holds (length, first 16 bytes of leaf hash)."""

    form: int
    term: int
    payload_length: int
    bodies: tuple[tuple[int, bytes], ...]
    rest: bytes


def _checksum(previous: bytes, checked: bytes) -> bytes:
    # One call: three updates cost a start with 100,000 entries a tenth of a second more.
    return _blake2b(previous + checked, digest_size=CHECKSUM_BYTES).digest()


def read_head(buffer: bytes, offset: int) -> tuple[int, int, int, int]:
    """Return length, data length, kind and index of the record at `offset`, unchecked."""
    length, data_length, kind, index = _HEAD.unpack_from(buffer, offset)
    return length, data_length, kind, index


def checksum_of(previous: bytes, record: bytes) -> bytes:
    """Return the checksum of a record without its last 16 bytes, as its head divides it."""
    _, data_length, _, _ = _HEAD.unpack_from(record)
    return _checksum(previous, record[: HEAD_BYTES + data_length])


def encode_record(
    kind: Kind, index: int, data: bytes, previous: bytes, bodies: Sequence[bytes] = ()
) -> bytes:
    """Return a record's bytes; its last 16 are the `previous` of the next record."""
    length = RECORD_BYTES_MIN + len(data) + sum(map(len, bodies))
    checked = _HEAD.pack(length, len(data), kind, index) + data
    return b"".join((checked, *bodies, _checksum(previous, checked)))


def parse_record(buffer: bytes, offset: int, previous: bytes) -> Record:
    """Return the record at `offset`, bodies included in the check; BadRecord if it is harmed."""
    if offset + RECORD_BYTES_MIN > len(buffer):
        raise BadRecord("the record is cut off in its head")
    length, data_length, kind, index = _HEAD.unpack_from(buffer, offset)
    if length < RECORD_BYTES_MIN + data_length:
        raise BadRecord("the record's length is impossible")
    end = offset + length
    if end > len(buffer):
        raise BadRecord("the record reaches beyond the end of the file")
    data_start = offset + HEAD_BYTES
    data_end = data_start + data_length
    data = buffer[data_start:data_end]
    checksum = buffer[end - CHECKSUM_BYTES : end]
    if _checksum(previous, buffer[offset:data_end]) != checksum:
        raise BadRecord("the checksum is wrong")
    if kind == ENTRY:
        try:
            parts = parse_entry(data)
            read_bodies(parts, buffer, data_end, end)
        except BadRecord as bad:
            bad.index = index
            raise
        return Record(kind, index, data, offset, length, checksum, parts)
    if length != RECORD_BYTES_MIN + data_length:
        raise BadRecord("only entries have bodies")
    return Record(kind, index, data, offset, length, checksum)


def encode_file_header(header: FileHeader) -> bytes:
    """Return the first bytes of a file: the magic and the header record."""
    data = _FILE.pack(
        header.version,
        header.incarnation,
        header.mark_key,
        header.sequence,
        header.first_index,
        header.previous,
    )
    record = encode_record(Kind.FILE, header.first_index - 1, data, header.previous)
    return FILE_MAGIC + record


def parse_file_header(buffer: bytes) -> tuple[FileHeader, Record]:
    """Return the header of the file in `buffer`; BadRecord if it is harmed.

    The version is not judged here: a newer file has the same header.
    """
    start = len(FILE_MAGIC)
    if len(buffer) < FILE_HEADER_BYTES or buffer[:start] != FILE_MAGIC:
        raise BadRecord("the file does not begin like a segment")
    previous = buffer[FILE_HEADER_BYTES - 2 * CHECKSUM_BYTES : FILE_HEADER_BYTES - CHECKSUM_BYTES]
    record = parse_record(buffer, start, previous)
    if record.kind != Kind.FILE or len(record.data) != _FILE.size:
        raise BadRecord("the first record is no file header")
    version, incarnation, mark_key, sequence, first_index, before = _FILE.unpack(record.data)
    return FileHeader(incarnation, mark_key, sequence, first_index, before, version), record


def encode_hard_state(hard_state: HardState, last_index: int, previous: bytes) -> bytes:
    """Return the record of a hard state."""
    return encode_record(Kind.HARD_STATE, last_index, hard_state_data(hard_state), previous)


def hard_state_data(hard_state: HardState) -> bytes:
    """Return the data of a hard state's record."""
    vote = (hard_state.vote or "").encode()
    return _HARD_STATE.pack(hard_state.term, hard_state.commit) + vote


def parse_hard_state(data: bytes) -> HardState:
    """Return the hard state in a record's data; BadRecord when it is none."""
    if len(data) < _HARD_STATE.size:
        raise BadRecord("the hard state is too short")
    term, commit = _HARD_STATE.unpack_from(data)
    try:
        vote = data[_HARD_STATE.size :].decode()
    except UnicodeDecodeError as error:
        raise BadRecord("the vote is no text") from error
    return HardState(term=term, vote=vote or None, commit=commit)


def encode_entry(entry: Entry, previous: bytes) -> bytes:
    """Return the record of an entry: a block in two halves, anything else whole.

    The storage takes whatever Raft hands it; that a payload is no block is for apply to say.
    """
    form, rest, bodies = _FORM_WHOLE, entry.payload, tuple[bytes, ...]()
    if entry.payload:
        try:
            rest, bodies = block.split(entry.payload)
            form = _FORM_BLOCK
        except DecodeError:
            pass
    head = _ENTRY.pack(form, entry.term, len(entry.payload), len(bodies))
    directory = [_BODY.pack(len(body), leaf_hash(body)[:CHECKSUM_BYTES]) for body in bodies]
    data = b"".join((head, *directory, rest))
    return encode_record(Kind.ENTRY, entry.index, data, previous, bodies)


def parse_entry(data: bytes) -> EntryParts:
    """Take an entry's data apart; BadRecord when it contradicts itself."""
    if len(data) < _ENTRY.size:
        raise BadRecord("the entry is too short")
    form, term, payload_length, count = _ENTRY.unpack_from(data)
    start = _ENTRY.size + count * _BODY.size
    if form not in _FORMS or start > len(data) or (count and not form):
        raise BadRecord("the entry's form is unknown")
    bodies = tuple(_BODY.iter_unpack(data[_ENTRY.size : start])) if count else ()
    return EntryParts(form, term, payload_length, bodies, data[start:])


def read_bodies(
    parts: EntryParts, buffer: bytes, start: int, record_end: int
) -> tuple[bytes | None, ...]:
    """Return the bodies that begin at `start`, each checked; None for an erased one.

    `record_end` is where the record ends. Raises BadRecord at the first harmed body.
    """
    end = record_end - CHECKSUM_BYTES
    bodies: list[bytes | None] = []
    for length, check in parts.bodies:
        body = buffer[start : start + length]
        start += length
        if start > end:
            raise BadRecord("the bodies reach beyond the record")
        if leaf_hash(body)[:CHECKSUM_BYTES] == check:
            bodies.append(body)
        elif body == erased_body(length, check):
            bodies.append(None)
        else:
            raise BadRecord("an event's body is harmed")
    if start != end:
        raise BadRecord("the record has more bodies than it names")
    return tuple(bodies)


def erased_body(length: int, check: bytes) -> bytes:
    """Return what stands in the place of an erased body of `length` bytes."""
    return (check * (length // CHECKSUM_BYTES + 1))[:length]


def read_payload(record: Record, buffer: bytes) -> tuple[int, bytes]:
    """Return (term, payload) of the entry `record`, which was parsed out of `buffer`.

    Raises BadRecord when its two halves don't make a payload.
    """
    parts = record.entry
    if parts is None:
        raise BadRecord("the record is no entry")
    if parts.form == _FORM_WHOLE:
        return parts.term, parts.rest
    start = record.offset + HEAD_BYTES + len(record.data)
    bodies = read_bodies(parts, buffer, start, record.offset + record.length)
    try:
        payload = block.join(parts.rest, bodies)
    except DecodeError as error:
        raise BadRecord(f"skeleton and bodies make no block: {error}") from error
    if None not in bodies and len(payload) != parts.payload_length:
        raise BadRecord("skeleton and bodies make another payload")
    return parts.term, payload


def encode_mark(mark_key: bytes, sequence: int, offset: int, index: int, previous: bytes) -> bytes:
    """Return the record of a sync mark that will stand at `offset` of file `sequence`."""
    magic = mark_magic(mark_key)
    seal = _seal(mark_key, magic, sequence, offset, index)
    data = _MARK.pack(magic, sequence, offset, index, seal)
    return encode_record(Kind.SYNC_MARK, index, data, previous)


def mark_magic(mark_key: bytes) -> bytes:
    """Return the 16 bytes that every sync mark of a log begins with."""
    return hashlib.blake2b(b"p2pcity/sync-mark/1", key=mark_key, digest_size=16).digest()


def _seal(mark_key: bytes, magic: bytes, sequence: int, offset: int, index: int) -> bytes:
    data = magic + struct.pack(">QQQ", sequence, offset, index)
    return hashlib.blake2b(data, key=mark_key, digest_size=16).digest()


def is_mark(mark_key: bytes, data: bytes, sequence: int, offset: int) -> bool:
    """Whether `data` (of a record or found by scanning) is a true mark for this very place."""
    if len(data) != _MARK.size:
        return False
    magic, mark_sequence, mark_offset, index, seal = _MARK.unpack(data)
    return bool(
        (mark_sequence, mark_offset) == (sequence, offset)
        and seal == _seal(mark_key, magic, sequence, offset, index)
        and magic == mark_magic(mark_key)
    )


def find_mark(buffer: bytes, start: int, mark_key: bytes, sequence: int) -> int | None:
    """Return the offset of the first true mark above `start`, whatever lies between."""
    magic = mark_magic(mark_key)
    at = buffer.find(magic, start + HEAD_BYTES + 1)
    while at >= 0:
        offset = at - HEAD_BYTES
        if is_mark(mark_key, buffer[at : at + _MARK.size], sequence, offset):
            return offset
        at = buffer.find(magic, at + 1)
    return None
