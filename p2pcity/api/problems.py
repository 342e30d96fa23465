"""Every error answer: a problem document (RFC 9457) with a stable `reason` and a `remedy`.

| raised | status | reason |
|---|---|---|
| `Problem` | its own | its own |
| DecodeError | 413 for `size`, else 400 | the error's |
| MempoolFull | 429 and Retry-After | `queue-full` |
| NotLeader, ProposalDropped, Unavailable, other LocalError | 503 and Retry-After | \
`not-leader`, `overloaded`, `unavailable` |
| Pruned | 410 | `pruned`, with `first_height` |
| ChangeRefused | 409 | `change-refused` |
| ConfigError (of an argument) | 400 | `bad-parameter` |
| RemoteError (a peer failed) | 503 and Retry-After | `unavailable` |
| LedgerError | 503 | `ledger`: the node is about to stop |
| anything else | 500 | `internal`: a bug, logged with its traceback |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from p2pcity.errors import (
    ChangeRefused,
    ConfigError,
    DecodeError,
    LedgerError,
    MempoolFull,
    NotLeader,
    P2PCityError,
    ProposalDropped,
    Pruned,
    Unavailable,
)

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:p2pcity:problem:"
RETRY_AFTER_MS: Final = 1000
_FORMS: Final = "Correct what is named; protocol/ and /openapi.json have the forms."


class Problem(Exception):
    """An answer that is an error; raised in handlers and turned into a response at one place.

    `reason` is stable, `detail` is for people, `remedy` says what to do. `members` are further
    members of the document (RFC 9457 section 3.2), `headers` further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        remedy: str = "",
        members: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.remedy = remedy
        self.members = dict(members or {})
        self.headers = dict(headers or {})
        if retry_after_ms is not None:
            self.headers["Retry-After"] = str(max(1, -(-retry_after_ms // 1000)))


def to_response(problem: Problem) -> Response:
    """Return the problem as an `application/problem+json` answer."""
    document: dict[str, object] = {
        "type": TYPE_PREFIX + problem.reason,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "reason": problem.reason,
        "remedy": problem.remedy,
        **problem.members,
    }
    body = json.dumps(document, separators=(",", ":")).encode()
    return Response(body, problem.status, problem.headers, CONTENT_TYPE)


def from_error(error: P2PCityError) -> Problem:
    """Return the problem that says what went wrong; see the table above."""
    text = str(error) or type(error).__name__
    match error:
        case DecodeError(reason=reason):
            status = 413 if reason == "size" else 400
            return Problem(status, reason, text, remedy=error.remedy or _FORMS)
        case ConfigError():
            return Problem(400, "bad-parameter", text, remedy=error.remedy)
        case MempoolFull(retry_after_ms=wait_ms):
            return Problem(429, "queue-full", text, remedy=error.remedy, retry_after_ms=wait_ms)
        case LedgerError():
            return Problem(503, "ledger", text, remedy=error.remedy)
        case NotLeader(leader=leader):
            return Problem(
                503,
                "not-leader",
                text,
                remedy=error.remedy,
                members={"leader": leader},
                retry_after_ms=RETRY_AFTER_MS,
            )
        case Pruned(first_height=height):
            return Problem(
                410, "pruned", text, remedy=error.remedy, members={"first_height": height}
            )
        case ChangeRefused():
            return Problem(409, "change-refused", text, remedy=error.remedy)
        case Unavailable(retry_after_ms=wait_ms):
            remedy = error.remedy or "Send again after the time in Retry-After."
            return Problem(503, "unavailable", text, remedy=remedy, retry_after_ms=wait_ms)
    reason = "overloaded" if isinstance(error, ProposalDropped) else "unavailable"
    remedy = error.remedy or "Send again after the time in Retry-After."
    return Problem(503, reason, text, remedy=remedy, retry_after_ms=RETRY_AFTER_MS)


def bad_parameter(name: str, detail: str, remedy: str = "") -> Problem:
    """Return the 400 for a parameter of the path or the query that cannot be read."""
    return Problem(
        400,
        "bad-parameter",
        f"{name}: {detail}",
        remedy=remedy or "Read /openapi.json for the parameters and their forms.",
        members={"parameter": name},
    )


def internal_error() -> Problem:
    """Return the 500 for a bug; the log of the node has the rest."""
    return Problem(
        500,
        "internal",
        "the node met a bug while it answered",
        remedy="Look into the node's log and report the traceback.",
    )
