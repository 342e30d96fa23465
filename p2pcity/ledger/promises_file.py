"""The file with what voters promised (`ordering.promises`), so that it survives this node.

An aid and no promise of this node's own: when it is missing or damaged, this node knows less of
others and is as right as before. It is written beside and moved into place, and never synced: no
disk has to wait for it, and what a power failure leaves of it has a checksum. A file in another
format than this one, an array of the promises' bytes and their checksum, counts as damaged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import read_array, read_bytes
from p2pcity.wire.promise import Promise, listed, read_promises

_BYTES_MAX: Final = 64 * 1024


def read(path: Path) -> tuple[Promise, ...]:
    """Return what the file says, nothing when there is none; DecodeError when it is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise DecodeError(f"{path} can't be read: {error.strerror}") from error
    outer = read_array(cbor.decode(data, size_max=_BYTES_MAX), "the file", 2)
    body = read_bytes(outer[0], "the promises")
    if read_bytes(outer[1], "the checksum") != sha256(body):
        raise DecodeError("the checksum is wrong")
    return read_promises(cbor.decode(body), "the promises")


def write(path: Path, promises: Sequence[Promise]) -> None:
    """Replace the file, or leave it as it is: OSError."""
    body = cbor.encode(listed(promises))
    data = cbor.encode([body, sha256(body)])
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(data)
    beside.replace(path)
