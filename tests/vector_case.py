"""One test vector (protocol/vectors/README.md has the format), and how a decoder is judged."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from p2pcity.errors import DecodeError


class Outcome(NamedTuple):
    """What the code says about a case's input."""

    expected: str
    reason: str | None = None
    intermediates: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """A vector; bytes are hex and times Unix milliseconds throughout."""

    area: str
    name: str
    spec: str
    comment: str
    input: Mapping[str, Any]
    expected: str = "accept"
    reason: str | None = None
    intermediates: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def collect(cases: Iterable[Case]) -> dict[str, dict[str, Any]]:
    """The files of `cases`: path below protocol/vectors, and what each holds."""
    files: dict[str, dict[str, Any]] = {}
    for case in cases:
        folder = "valid" if case.expected == "accept" else "invalid"
        path = f"{case.area}/{folder}/{case.name}.json"
        assert path not in files, path
        files[path] = {
            "id": f"{case.area}-{case.name}",
            "spec": case.spec,
            "comment": case.comment,
            "flags": list(case.flags),
            "input": dict(case.input),
            "intermediates": dict(case.intermediates),
            "expected": case.expected,
            "reason": case.reason,
        }
    return files


def compare(outcome: Outcome, case: Mapping[str, Any]) -> None:
    """Hold what the code said against what the vector says."""
    assert (outcome.expected, outcome.reason) == (case["expected"], case["reason"])
    if case["expected"] == "accept":
        assert dict(outcome.intermediates) == case["intermediates"]


def judge(decoder: Callable[[bytes], Mapping[str, Any]], data: bytes) -> Outcome:
    """Run `decoder`, which returns the intermediates, and turn a DecodeError into a rejection."""
    try:
        intermediates = decoder(data)
    except DecodeError as error:
        return Outcome("reject", error.reason)
    return Outcome("accept", None, intermediates)
