"""What a voter is known to have promised, as hello and answers to status tell it.

`[peer id, incarnation, index, term]` each (cddl/hello.cddl, cddl/sync.cddl): the voter
acknowledged every entry up to `index`, which are committed, and spoke in `term`. So its disk
must hold these entries, and that term or a later one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.wire.fields import read_array, read_bytes, read_text, read_uint
from p2pcity.wire.genesis import INCARNATION_BYTES

PROMISES_MAX: Final = 64
_PEER_BYTES_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Promise:
    """One voter, under the incarnation that promised; zeros where nothing is known."""

    peer: str
    incarnation: bytes
    index: int = 0
    term: int = 0


def listed(promises: Sequence[Promise]) -> list[object]:
    """Return `promises` as they stand in a message; at most `PROMISES_MAX`."""
    return [[item.peer, item.incarnation, item.index, item.term] for item in promises]


def read_promises(value: object, name: str) -> tuple[Promise, ...]:
    """Return the promises in a decoded field, none for an absent one; DecodeError."""
    if value is None:
        return ()
    found = []
    for item in read_array(value, name, length_max=PROMISES_MAX):
        peer, incarnation, index, term = read_array(item, "a promise", 4)
        found.append(
            Promise(
                read_text(peer, "the promise's peer", _PEER_BYTES_MAX, 1),
                read_bytes(incarnation, "the promise's incarnation", INCARNATION_BYTES),
                read_uint(index, "the promise's index"),
                read_uint(term, "the promise's term"),
            )
        )
    return tuple(found)
