"""Forwarding: accepted transactions straight to the leader, and its verdicts back.

The request is a CBOR array of carried transactions; the answer an array with, for each of
them in order, `[id or null, verdict, reason]` (protocol/04-gossip.md, cddl/forward.cddl).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pcity.errors import DecodeError
from p2pcity.wire import cbor
from p2pcity.wire.fields import read_array, read_byte_strings, read_bytes, read_text
from p2pcity.wire.limits import BLOCK_BYTES_MAX, TRANSACTION_BYTES_MAX

FORWARD_BYTES_MAX: Final = BLOCK_BYTES_MAX
FORWARD_ITEMS_MAX: Final = 4096
VERDICTS: Final = ("accept", "ignore", "reject")


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """The leader's verdict on one transaction; `id` is None when it could not be read."""

    id: bytes | None
    verdict: str
    reason: str


def encode_forward(items: list[bytes]) -> bytes:
    """Return the request that carries `items` (at least one, 1 MiB in all)."""
    assert 0 < len(items) <= FORWARD_ITEMS_MAX
    data = cbor.encode(list(items))
    assert len(data) <= FORWARD_BYTES_MAX
    return data


def decode_forward(data: bytes) -> list[bytes]:
    """Return the carried transactions of a request; DecodeError (`size` or `malformed`)."""
    if len(data) > FORWARD_BYTES_MAX:
        raise DecodeError(f"the request has {len(data)} bytes", reason="size")
    items = read_byte_strings(cbor.decode(data), "the transactions", FORWARD_ITEMS_MAX)
    if not items:
        raise DecodeError("a request carries at least one transaction")
    if any(len(item) > TRANSACTION_BYTES_MAX for item in items):
        raise DecodeError("a transaction of the request is too large", reason="size")
    return items


def encode_answer(results: Sequence[ForwardResult]) -> bytes:
    """Return the answer's bytes: one result for each transaction, in order."""
    return cbor.encode([[item.id, item.verdict, item.reason] for item in results])


def decode_answer(data: bytes) -> list[ForwardResult]:
    """Return the results of an answer; DecodeError (`size` or `malformed`)."""
    if len(data) > FORWARD_BYTES_MAX:
        raise DecodeError(f"the answer has {len(data)} bytes", reason="size")
    items = read_array(cbor.decode(data), "the answer", length_max=FORWARD_ITEMS_MAX)
    return [_read_result(item) for item in items]


def _read_result(value: object) -> ForwardResult:
    id, verdict, reason = read_array(value, "a result", 3)
    if verdict not in VERDICTS:
        raise DecodeError("a verdict is none of accept, ignore and reject")
    return ForwardResult(
        None if id is None else read_bytes(id, "a result's id", 32),
        str(verdict),
        read_text(reason, "a result's reason", 64),
    )
