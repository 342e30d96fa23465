"""Bases of a ledger that never was, and peers that give them: honest, pruning and lying ones."""

import random
from dataclasses import dataclass, field
from typing import Any, Final

from p2pcity.wire import base as base_wire
from p2pcity.wire.base import NO_CHAIN, RECORD_BYTES, BaseHead, Mark
from p2pcity.wire.limits import BASE_INTERVAL_BLOCKS
from p2pcity.wire.sync import (
    Answer,
    BaseAnswer,
    BaseHeadAnswer,
    BaseHeadQuery,
    BaseQuery,
    BaseRecordsAnswer,
    BaseRecordsQuery,
    Request,
)
from tests.vectors_base import head, records_of

HEAD_PART_BYTES: Final = 100
"""So small that the heads here come in parts."""


class Ledger:
    """Some intervals of records, with the head of the base at the end of each."""

    def __init__(self, seed: int, intervals: int) -> None:
        rng = random.Random(seed)
        chain, marks, self.records = NO_CHAIN, b"", b""
        self.heads: list[bytes] = []
        for height in range(1, intervals * BASE_INTERVAL_BLOCKS + 1):
            own = records_of(height, rng.choice((0, 0, 0, 1, 3)), height)
            self.records += own
            chain = base_wire.next_chain(chain, own)
            if height % BASE_INTERVAL_BLOCKS == 0:
                count = len(self.records) // RECORD_BYTES
                marks += base_wire.encode_mark(Mark(chain, count))
                number = height // BASE_INTERVAL_BLOCKS
                made = head(number, marks=marks, hash=rng.randbytes(32))
                self.heads.append(base_wire.encode_head(made))

    def head(self, number: int) -> BaseHead:
        """The head of base `number`, from 1 on."""
        return base_wire.decode_head(self.heads[number - 1])

    def records_at(self, number: int) -> bytes:
        """All records of base `number`."""
        return self.records[: self.head(number).records * RECORD_BYTES]


@dataclass
class Holder:
    """A peer with base `number` on its disk (0: none), which knows the digests up to `reach`."""

    ledger: Ledger
    number: int
    reach: int
    asked: int = 0
    lies: set[str] = field(default_factory=set)
    head_part_bytes: int = HEAD_PART_BYTES

    def answer(self, question: Request) -> Answer:
        """Answer as `node.base_serving` does; what is in `lies` is wrong."""
        self.asked += 1
        match question:
            case BaseQuery(None):
                return self._offer()
            case BaseQuery(height):
                assert height is not None
                return BaseAnswer(height, self._digest(height), 0, 0, self._first())
            case BaseHeadQuery(height, offset):
                held = height == self.number * BASE_INTERVAL_BLOCKS and self.number
                data = self.ledger.heads[self.number - 1] if held else None
                if data is not None:
                    data = data[offset : offset + self.head_part_bytes]
                    if "head" in self.lies:
                        data = _flipped(data)
                    if "head-long" in self.lies:
                        data += bytes(1)
                    if "slow" in self.lies:
                        data = data[:1]
                return BaseHeadAnswer(height, offset, data)
            case BaseRecordsQuery(offset, count):
                if "slow" in self.lies:
                    count = min(count, 1)
                end = len(self.ledger.records_at(self.number)) if self.number else 0
                data = self.ledger.records[
                    offset * RECORD_BYTES : min(end, (offset + count) * RECORD_BYTES)
                ]
                if "records" in self.lies and data:
                    data = _flipped(data)
                return BaseRecordsAnswer(offset + ("offset" in self.lies), data)
        raise AssertionError(question)

    def _first(self) -> int:
        return self.ledger.head(self.number).index + 1 if self.number else 1

    def _digest(self, height: int) -> bytes | None:
        number = height // BASE_INTERVAL_BLOCKS
        if not 0 < number <= self.reach:
            return None
        found = base_wire.digest_head(self.ledger.heads[number - 1])
        return _flipped(found) if "digest" in self.lies else found

    def _offer(self) -> BaseAnswer:
        if self.number == 0:
            return BaseAnswer(0, None, 0, 0, 1)
        data = self.ledger.heads[self.number - 1]
        values: dict[str, Any] = {
            "height": self.number * BASE_INTERVAL_BLOCKS,
            "digest": self._digest(self.number * BASE_INTERVAL_BLOCKS),
            "size": len(data),
            "records": self.ledger.head(self.number).records,
            "first": self._first(),
        }
        if "size" in self.lies:
            values["size"] = 1 << 40
        if "count" in self.lies:
            values["records"] = 1 << 40
        if "height" in self.lies:
            values["height"] += 1000 * BASE_INTERVAL_BLOCKS
        return BaseAnswer(**values)


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]
