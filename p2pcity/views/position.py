"""Where an event stands in the ledger, as one integer that sorts in ledger order.

`height << 26 | transaction << 8 | event`: 256 events in a transaction, 2^18 items in a block
(a block of 1 MiB cannot hold more), heights up to 2^37. It is the primary key of events and
transactions, so reading in ledger order needs no index.
"""

import re
from typing import Final, NamedTuple

from p2pcity.errors import DecodeError
from p2pcity.wire.base import EVENT_BITS, HEIGHT_MAX, HEIGHT_SHIFT, TRANSACTION_BITS

_EVENT_MASK: Final = (1 << EVENT_BITS) - 1
_TRANSACTION_MASK: Final = (1 << TRANSACTION_BITS) - 1

_match = re.compile(r"(0|[1-9][0-9]{0,11})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,2})").fullmatch


class Position(NamedTuple):
    """Height, position of the transaction in its block, position of the event in it (0-based)."""

    height: int
    transaction: int
    event: int

    @property
    def number(self) -> int:
        """The position as one integer."""
        return self.height << HEIGHT_SHIFT | self.transaction << EVENT_BITS | self.event

    @classmethod
    def from_number(cls, number: int) -> "Position":
        """Return the position that `number` stands for."""
        return cls(
            number >> HEIGHT_SHIFT,
            number >> EVENT_BITS & _TRANSACTION_MASK,
            number & _EVENT_MASK,
        )

    @classmethod
    def before(cls, height: int) -> "Position":
        """Return the last position below `height`: reading after it begins with that block."""
        if not 0 <= height <= HEIGHT_MAX:
            raise DecodeError(f"{height} is not a height")
        return cls.from_number(max(0, (height << HEIGHT_SHIFT) - 1))

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position of a cursor `height.transaction.event`; DecodeError otherwise."""
        match = _match(text)
        if match is not None:
            position = cls(*(int(part) for part in match.groups()))
            if (
                position.height <= HEIGHT_MAX
                and position.transaction <= _TRANSACTION_MASK
                and position.event <= _EVENT_MASK
            ):
                return position
        raise DecodeError(
            f"{text[:40]!r} is not a cursor",
            remedy="Give back a cursor as it came: height.transaction.event.",
        )

    def __str__(self) -> str:
        return f"{self.height}.{self.transaction}.{self.event}"


BEGINNING: Final = Position(0, 0, 0)
"""Before all events: height 0, the genesis, has none."""
