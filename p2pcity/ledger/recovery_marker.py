"""A recovery by hand, written so that a kill leaves the old state or the new one.

    marker (synced)  ->  entry and hard state in the segment log (synced)  ->  marker gone

The entry and the hard state that commits it are one write, which can be torn between the two:
then the log has the entry, and nobody would know that an operator ordered it. The marker names
it. Whoever opens the log next commits what the marker names, or drops the marker when the entry
is not there.
"""

import os
from pathlib import Path
from typing import Final

from p2pcity.crypto.digest import sha256
from p2pcity.errors import ConfigError, DecodeError
from p2pcity.ledger.segment_file import failed, sync_directory
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.wire import cbor
from p2pcity.wire.fields import read_array, read_bytes, read_text, read_uint
from p2pcity.wire.raft import Entry, HardState

_BYTES_MAX: Final = 4096


def write(path: Path, raft_log: SegmentLog, entry: Entry, hard_state: HardState) -> None:
    """Append `entry` and commit it with `hard_state`, both or neither; SyncFailedError.

    `path` is where the marker lies meanwhile.
    """
    assert hard_state.commit == entry.index, "the entry is committed by the hard state"
    beside = path.with_name(path.name + ".new")
    try:
        with beside.open("wb") as file:
            file.write(_marker(entry, hard_state))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise failed(path, "writing", error) from error
    sync_directory(path.parent)
    raft_log.save(hard_state, [entry], must_sync=True)
    _remove(path)


def finish(path: Path, raft_log: SegmentLog) -> bool:
    """Finish what was interrupted: whether a marker named an entry that is in the log.

    Raises ConfigError when the marker can't be read, SyncFailedError.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}", remedy="Let the node's user read it."
        ) from error
    index, digest, hard_state = _read(path, data)
    is_there = raft_log.last_index == index and sha256(_payload(raft_log, index)) == digest
    if is_there and raft_log.hard_state.commit < index:
        raft_log.save(hard_state, [], must_sync=True)
    _remove(path)
    return is_there


def _payload(raft_log: SegmentLog, index: int) -> bytes:
    return raft_log.entries(index, index + 1, 1)[0].payload


def _marker(entry: Entry, hard_state: HardState) -> bytes:
    assert hard_state.vote is not None, "who recovers votes for itself"
    body = cbor.encode([entry.index, sha256(entry.payload), hard_state.term, hard_state.vote])
    return cbor.encode([body, sha256(body)])


def _read(path: Path, data: bytes) -> tuple[int, bytes, HardState]:
    try:
        body, checksum = read_array(cbor.decode(data, size_max=_BYTES_MAX), "the marker", 2)
        body = read_bytes(body, "the body")
        if sha256(body) != checksum:
            raise DecodeError("the checksum is wrong")
        index, digest, term, vote = read_array(cbor.decode(body), "the body", 4)
        index = read_uint(index, "the index")
        hard_state = HardState(read_uint(term, "the term"), read_text(vote, "the vote"), index)
        return index, read_bytes(digest, "the digest", 32), hard_state
    except DecodeError as error:
        # It is moved into place whole and synced: this is damage, and no torn write.
        raise ConfigError(
            f"{path}, which says that `p2pcity raft recover` was interrupted, is damaged: {error}",
            remedy="Delete it, then run `p2pcity raft recover` again before anything else.",
        ) from error


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise failed(path, "removing", error) from error
    sync_directory(path.parent)
