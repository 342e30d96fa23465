"""What a node remembers of a transaction, as its answer to a status question tells it.

Each moment is a map (cddl/sync.cddl): a stage, when that was by the node's own clock, and what
else belongs to it. A later release may add stages and fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from p2pcity.errors import DecodeError
from p2pcity.wire.fields import TIME_MS_MAX, read_array, read_map, read_text, read_uint

Stage = Literal[
    "received", "reoffered", "admitted", "gossiped", "forwarded", "refused", "proposed",
    "committed", "applied", "answered",
]  # fmt: skip
"""Those that this release notes, in the order of a transaction's way; others may be read."""
MOMENTS_MAX: Final = 32
"""Of one transaction on one node."""
TIME_US_MAX: Final = TIME_MS_MAX * 1000 + 999
_STAGE_BYTES_MAX: Final = 32
_OUTCOME_BYTES_MAX: Final = 64
_PEER_BYTES_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Moment:
    """One stage on a transaction's way through a node, at `time_us` of its clock (Unix us).

    `peer` is whom it came from or went to; `term` and `index` are Raft's, `height` is its
    block's; `outcome` is a word on how the stage ended. What does not belong to the stage is
    None, or empty.
    """

    stage: str
    time_us: int
    peer: str | None = None
    term: int | None = None
    index: int | None = None
    height: int | None = None
    outcome: str = ""


def listed(moments: Sequence[Moment]) -> list[object]:
    """Return `moments` as they stand in a message; at most `MOMENTS_MAX`."""
    return [_value(item) for item in moments]


def _value(item: Moment) -> dict[str, object]:
    value: dict[str, object] = {"stage": item.stage, "time_us": item.time_us}
    for name in ("peer", "term", "index", "height"):
        found = getattr(item, name)
        if found is not None:
            value[name] = found
    if item.outcome:
        value["outcome"] = item.outcome
    return value


def read_moments(value: object, name: str) -> tuple[Moment, ...]:
    """Return the moments in a decoded field; DecodeError."""
    return tuple(_read(item) for item in read_array(value, name, length_max=MOMENTS_MAX))


def _read(value: object) -> Moment:
    fields = read_map(value, "a moment")
    peer = None
    if "peer" in fields:
        peer = _read_word(fields["peer"], "a moment's peer", _PEER_BYTES_MAX, 1)
    term, index, height = (
        read_uint(fields[name], f"a moment's {name}") if name in fields else None
        for name in ("term", "index", "height")
    )
    return Moment(
        _read_word(fields.get("stage"), "a moment's stage", _STAGE_BYTES_MAX, 1),
        read_uint(fields.get("time_us"), "a moment's time", TIME_US_MAX),
        peer,
        term,
        index,
        height,
        _read_word(fields.get("outcome", ""), "a moment's outcome", _OUTCOME_BYTES_MAX, 0),
    )


def _read_word(value: object, name: str, bytes_max: int, bytes_min: int) -> str:
    text = read_text(value, name, bytes_max, bytes_min)
    if not text.isprintable():
        raise DecodeError(f"{name} has characters that do not print")
    return text
