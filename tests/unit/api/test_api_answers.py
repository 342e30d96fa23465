import json
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pcity.api import problems, submitting
from p2pcity.api.config import Tokens
from p2pcity.api.problems import Problem
from p2pcity.api.routes import OPERATIONS
from p2pcity.api.service import Answer
from p2pcity.errors import (
    ConfigError,
    CorruptionError,
    DecodeError,
    MempoolFull,
    NotLeader,
    P2PCityError,
    ProposalDropped,
    Pruned,
    RemoteError,
    Unavailable,
)

ID = bytes(32)
COMMITTED = Answer(ID, "accept", "committed", height=3, leaf_index=9)
PENDING = Answer(ID, "accept", "pending")
DUPLICATE = Answer(ID, "accept", "duplicate")


def refused(reason: str) -> Answer:
    return Answer(ID, "ignore", "rejected", reason)


def status_of(answer: Callable[[], object]) -> tuple[int, str]:
    try:
        response = answer()
    except Problem as problem:
        return problem.status, problem.reason
    return response.status_code, ""  # type: ignore[attr-defined]  # a Starlette response


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (COMMITTED, (200, "")),
        (DUPLICATE, (200, "")),
        (PENDING, (202, "")),
        (Answer(None, "reject", "rejected", "malformed"), (400, "malformed")),
        (refused("event-malformed"), (400, "event-malformed")),
        (refused("size"), (413, "size")),
        (refused("queue-full"), (429, "queue-full")),
        (refused("author-quota"), (429, "author-quota")),
        (refused("signature"), (422, "signature")),
        (Answer(ID, "accept", "expired"), (422, "expired")),
    ],
)
def test_the_table_for_one(answer: Answer, expected: tuple[int, str]) -> None:
    assert status_of(lambda: submitting.answer_one(answer)) == expected


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([COMMITTED, DUPLICATE], (200, "")),
        ([COMMITTED, PENDING], (202, "")),
        ([COMMITTED, refused("root")], (202, "")),
        ([refused("root"), refused("root")], (422, "none-taken")),
        ([refused("root"), refused("queue-full")], (429, "queue-full")),
    ],
)
def test_the_table_for_many(answers: list[Answer], expected: tuple[int, str]) -> None:
    assert status_of(lambda: submitting.answer_many(answers)) == expected


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DecodeError("x"), 400, "malformed"),
        (DecodeError("x", reason="size"), 413, "size"),
        (MempoolFull("x", retry_after_ms=1500), 429, "queue-full"),
        (NotLeader("x", leader="p"), 503, "not-leader"),
        (ProposalDropped("x"), 503, "overloaded"),
        (Unavailable("x"), 503, "unavailable"),
        (RemoteError("x"), 503, "unavailable"),
        (ConfigError("x"), 400, "bad-parameter"),
        (CorruptionError("x"), 503, "ledger"),
        (Pruned("x", first_height=257), 410, "pruned"),
    ],
)
def test_errors_become_problems(error: P2PCityError, status: int, reason: str) -> None:
    problem = problems.from_error(error)
    assert (problem.status, problem.reason) == (status, reason)
    assert ("Retry-After" in problem.headers) == (status in (429, 503) and reason != "ledger")
    if isinstance(error, MempoolFull):
        assert problem.headers["Retry-After"] == "2"
    if isinstance(error, Pruned):
        assert problem.members == {"first_height": 257}


def test_a_problem_is_an_rfc_9457_document() -> None:
    response = problems.to_response(Problem(404, "gone", "x", remedy="y", members={"z": 1}))
    assert json.loads(bytes(response.body)) == {
        "type": "urn:p2pcity:problem:gone",
        "title": "Not Found",
        "status": 404,
        "detail": "x",
        "reason": "gone",
        "remedy": "y",
        "z": 1,
    }


def test_tokens_are_read_with_their_rights(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who\n\nwrite {'w' * 16} the importer\nread {'r' * 16}\n")
    tokens = Tokens.load(path)
    assert tokens.right_of("w" * 16) == "write"
    assert tokens.right_of("r" * 16) == "read"
    assert tokens.right_of("x" * 16) is None
    assert tokens.right_of("") is None
    for wrong in ("admin " + "x" * 16, "write", "write short"):
        path.write_text(wrong)
        with pytest.raises(ConfigError):
            Tokens.load(path)
    with pytest.raises(ConfigError):
        Tokens.load(tmp_path / "absent")


def test_operations_are_told_apart() -> None:
    assert len({item.name for item in OPERATIONS}) == len(OPERATIONS)
    assert len({(item.method, item.path) for item in OPERATIONS}) == len(OPERATIONS)
    for item in OPERATIONS:
        in_path = {f"{{{p.name}}}" for p in item.parameters if p.place == "path"}
        assert all(name in item.path for name in in_path)
        # Names asked for are too many for a URL: the one POST that only reads.
        is_changing = item.method == "POST" and item.name != "knownEvents"
        assert is_changing == (item.right in ("write", "local"))
