"""A damaged record made again: the bytes that stood there, proven by the checksums around them.

Checksums are chained, so a record is right if its checksum is the one that stands at its end, or
the one that the next record continues. What is proven so is bit for bit what this node wrote:
nobody has to be trusted for it, whoever named the content. Marks, truncations, headers and hard
states are worked out from what stands around them; entries come from other nodes.

Where a length is destroyed, the records go on at the first place from which an unbroken chain
leads to a true sync mark. Nobody can put such a chain into an event: its last link is a mark, and
each link before it would have to be known beforehand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Final, NamedTuple

from p2pcity.ledger import records
from p2pcity.ledger.records import CHECKSUM_BYTES, BadRecord, FileHeader, Kind
from p2pcity.wire.raft import Entry, HardState

# Length and data length below 64 MiB and more, a kind, and an index below 2^40.
_HEADS: Final = re.compile(rb"(?=[\0-\5]...[\0-\5]...[\2-\6]\0\0\0)", re.DOTALL)
_BIT_SEARCH_BYTES_MAX: Final = 256
_TERMS_AHEAD: Final = 4
_TRIES_MAX: Final = 100_000
_COMMITS_AHEAD: Final = 8
_RUNS_MAX: Final = 1_000
_RUN_TRIES_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Mender:
    """What a repair may use: the network's id, and what others said, by index.

    `entries` are what they gave, right or wrong; `committed` the terms of what they know to be
    committed.
    """

    network: bytes
    entries: Mapping[int, Sequence[Entry]] = field(default_factory=dict)
    committed: Mapping[int, int] = field(default_factory=dict)


class Site(NamedTuple):
    """A damaged record: where it begins and the good ones go on, and what stands before it.

    `following` is the checksum that the file ends with by the header of the next one, None in
    the last file. `votes` are those that the log's hard states name.
    """

    buffer: bytes
    offset: int
    end: int
    sequence: int
    mark_key: bytes
    previous: bytes
    following: bytes | None
    last_index: int
    hard_state: HardState
    votes: Sequence[str | None]


def find_end(buffer: bytes, offset: int, mark: int) -> int:
    """Return where good records go on behind the bad one at `offset`; `mark` is a true mark."""
    claimed = offset + int.from_bytes(buffer[offset : offset + 4])
    if offset + records.RECORD_BYTES_MIN <= claimed <= mark and _leads_to(buffer, claimed, mark):
        return claimed
    for found in _HEADS.finditer(buffer, offset + records.RECORD_BYTES_MIN, mark):
        if _leads_to(buffer, found.start(), mark):
            return found.start()
    return mark


def _leads_to(buffer: bytes, start: int, mark: int) -> bool:
    offset, previous = start, buffer[start - CHECKSUM_BYTES : start]
    while offset < mark:
        try:
            record = records.parse_record(buffer, offset, previous)
        except BadRecord:
            return False
        offset, previous = offset + record.length, record.checksum
    if offset > mark:
        return False
    # The link into the mark itself: without it anything that ends there would do.
    try:
        records.parse_record(buffer, mark, previous)
    except BadRecord:
        return False
    return True


def is_framed_entry(site: Site) -> bool:
    """Whether the damage left the head of the next entry, whose length says where it ends."""
    length, _, kind, index = records.read_head(site.buffer, site.offset)
    return kind == Kind.ENTRY and index == site.last_index + 1 and site.offset + length == site.end


def restore(site: Site, mender: Mender) -> bytes | None:
    """Return the bytes of the record that was at the site's offset; None when none is proven."""
    for record in _candidates(site, mender):
        if _is_proven(site, record):
            return record
    return _first_of_run(site, mender)


def _first_of_run(site: Site, mender: Mender) -> bytes | None:
    """Return the first of several damaged records, which only the last of them proves.

    The checksum of the last continues those of all the others: with it, all are right.
    """
    tries = 0
    runs = [(site, record, record) for record in _likeliest(site, mender)]
    while runs and tries < _RUNS_MAX:
        tries += 1
        at, record, first = runs.pop()
        behind = _behind(at, record)
        if behind is None or behind.offset + records.RECORD_BYTES_MIN > site.end:
            continue
        next_ones = list(_likeliest(behind, mender))
        few = _candidates(behind, mender, _RUN_TRIES_MAX) if at is site else next_ones
        if any(_is_proven(behind, one) for one in few):
            return first
        runs += [(behind, one, first) for one in next_ones]
    return None


def _behind(site: Site, record: bytes) -> Site | None:
    """Where the next record begins if this one stood at the site; None if it can't have."""
    _, data_length, kind, index = records.read_head(record, 0)
    site = site._replace(offset=site.offset + len(record), previous=record[-CHECKSUM_BYTES:])
    if kind == Kind.ENTRY:
        return site._replace(last_index=index) if index == site.last_index + 1 else None
    if kind == Kind.HARD_STATE:
        data = record[records.HEAD_BYTES : records.HEAD_BYTES + data_length]
        try:
            return site._replace(hard_state=records.parse_hard_state(data))
        except BadRecord:
            # As it stands, with a checksum that fits: what stands there is damaged.
            return None
    return site


def _is_proven(site: Site, record: bytes) -> bool:
    end, checksum = site.offset + len(record), record[-CHECKSUM_BYTES:]
    if end > len(site.buffer):
        return False
    if site.buffer[end - CHECKSUM_BYTES : end] == checksum:
        return True
    if end == len(site.buffer):
        return checksum == site.following
    try:
        records.parse_record(site.buffer, end, checksum)
    except BadRecord:
        return False
    return True


def _candidates(site: Site, mender: Mender, tries_max: int = _TRIES_MAX) -> Iterator[bytes]:
    previous, last = site.previous, site.last_index
    yield from _likeliest(site, mender)
    yield from _with_one_bit(site)
    yield records.encode_record(Kind.NETWORK, last, mender.network, previous)
    for index in islice(range(site.hard_state.commit + 1, last + 1), tries_max):
        yield records.encode_record(Kind.TRUNCATION, index, b"", previous)
    for hard_state in islice(_hard_states(site), tries_max):
        yield records.encode_hard_state(hard_state, last, previous)


def _likeliest(site: Site, mender: Mender) -> Iterator[bytes]:
    """What may have stood there, the likeliest last; few, since each may have others behind it."""
    previous, last, old = site.previous, site.last_index, site.hard_state
    for commit in range(old.commit + 1, min(last, old.commit + _COMMITS_AHEAD) + 1):
        yield records.encode_hard_state(replace(old, commit=commit), last, previous)
    yield records.encode_mark(site.mark_key, site.sequence, site.offset, last, previous)
    for entry in mender.entries.get(last + 1, ()):
        yield records.encode_entry(entry, previous)
    yield from _with_checksum(site)


def _with_checksum(site: Site) -> Iterator[bytes]:
    """The record as it stands, if only its checksum is wrong."""
    buffer, offset = site.buffer, site.offset
    end = offset + int.from_bytes(buffer[offset : offset + 4])
    if offset + records.RECORD_BYTES_MIN <= end <= len(buffer):
        body = buffer[offset : end - CHECKSUM_BYTES]
        record = body + records.checksum_of(site.previous, body)
        if _is_record(record, site.previous):
            yield record


def _with_one_bit(site: Site) -> Iterator[bytes]:
    """A short record with one bit flipped back, if it is no entry."""
    length = site.end - site.offset
    if not records.RECORD_BYTES_MIN <= length <= _BIT_SEARCH_BYTES_MAX:
        return
    for changed in _bits_flipped(site.buffer[site.offset : site.end]):
        if changed[8] != Kind.ENTRY and _is_record(changed, site.previous):
            yield changed


def _is_record(data: bytes, previous: bytes) -> bool:
    try:
        return records.parse_record(data, 0, previous).length == len(data)
    except BadRecord:
        return False


def _bits_flipped(data: bytes) -> Iterator[bytes]:
    changed = bytearray(data)
    for bit in range(8 * len(data)):
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
        changed[bit // 8] ^= 1 << bit % 8


def _hard_states(site: Site) -> Iterator[HardState]:
    """What may follow the hard state before, the likeliest first."""
    old = site.hard_state
    names = list(dict.fromkeys((old.vote, None, *site.votes)))
    terms = range(old.term, old.term + _TERMS_AHEAD + 1)
    for term, vote, commit in product(terms, names, range(old.commit, site.last_index + 1)):
        yield HardState(term, vote, commit)


def restore_header(buffer: bytes, expected: FileHeader | None) -> bytes | None:
    """Return the right first bytes of a file; None when none are proven.

    `expected` is what the files around it say of it, None when there is only this one.
    """
    start = buffer[: records.FILE_HEADER_BYTES]
    if len(start) < records.FILE_HEADER_BYTES:
        return None
    for changed in _bits_flipped(start):
        try:
            records.parse_file_header(changed)
        except BadRecord:
            continue
        return changed
    if expected is None:
        return None
    for version in range(1, records.FORMAT_VERSION + 1):
        header = records.encode_file_header(expected._replace(version=version))
        checksum = header[-CHECKSUM_BYTES:]
        if start[-CHECKSUM_BYTES:] == checksum:
            return header
        try:
            records.parse_record(buffer, records.FILE_HEADER_BYTES, checksum)
        except BadRecord:
            continue
        return header
    return None
