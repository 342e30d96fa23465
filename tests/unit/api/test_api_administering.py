"""What a body of POST /v1/admin/... has to say, and what is answered when it does not."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from starlette.requests import Request
from starlette.responses import Response

from p2pcity.api import administering, problems
from p2pcity.api.config import ApiConfig
from p2pcity.api.dispatch import Context, Handler
from p2pcity.api.parameters import TIMEOUT_MS_MAX, Query
from p2pcity.api.problems import Problem
from p2pcity.api.service import ChangeOperation, ChangeWanted
from p2pcity.api.statistics import HttpStatistics
from p2pcity.errors import ChangeRefused, ConfigError, NotLeader, P2PCityError, Unavailable
from tests.memory_service import MemoryService

CARD = b"\x01\x02 a card"
CARD_TEXT = base64.b64encode(CARD).decode()
REMOVE = administering.change("remove")


def post(handler: Handler, body: object, service: MemoryService | None = None) -> dict[str, Any]:
    """The document that a handler answers with; `body` is JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request({"type": "http", "method": "POST", "headers": [], "query_string": b""})

    async def call() -> bytes:
        context = Context(
            service or MemoryService(),
            ApiConfig(),
            request,
            Query(request, frozenset()),
            "application/json",
            data,
            trio.Event(),
            trio.CapacityLimiter(1),
            HttpStatistics(),
        )
        answer = await handler(context)
        assert isinstance(answer, Response)
        return bytes(answer.body)

    document: dict[str, Any] = json.loads(trio.run(call))
    return document


def refusal(call: Callable[[], object]) -> tuple[int, str, str]:
    """Status, reason and detail of what a client is answered."""
    with pytest.raises((Problem, P2PCityError)) as caught:
        call()
    error = caught.value
    problem = problems.from_error(error) if isinstance(error, P2PCityError) else error
    assert isinstance(problem, Problem)
    assert problem.remedy, "a refusal says what to do"
    return problem.status, problem.reason, problem.detail


@pytest.mark.parametrize("operation", administering.OPERATIONS)
def test_everything_that_is_said_gets_to_the_node(
    operation: ChangeOperation,
) -> None:
    service = MemoryService()
    body = {
        "cards": [CARD_TEXT],
        "nodes": ["works/n1", "works/n2"],
        "force": ["works/n1"],
        "is_observer": True,
        "timeout_ms": 5,
    }
    wanted = ChangeWanted(
        operation, (CARD,), ("works/n1", "works/n2"), ("works/n1",), is_observer=True, timeout_ms=5
    )
    assert post(administering.change(operation), body, service) == {"is_in_effect": True}
    asked = {**body, "operation": operation}
    assert post(administering.post_what_if, asked, service) == {"verdict": "SAFE"}
    assert service.changes == [wanted, wanted]


def test_what_is_not_said_is_nothing_and_half_a_minute() -> None:
    service = MemoryService()
    post(REMOVE, {}, service)
    [wanted] = service.changes
    assert wanted == ChangeWanted("remove")
    assert wanted.timeout_ms == administering.CHANGE_TIMEOUT_MS


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"nodes":["n1"]', b"{'nodes': []}"]
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    assert refusal(lambda: post(REMOVE, body))[:2] == (400, "malformed")


@pytest.mark.parametrize("body", [[], ["n1"], "n1", 1, None, True])
def test_a_body_is_an_object(body: object) -> None:
    status, reason, detail = refusal(lambda: post(REMOVE, body))
    assert (status, reason) == (400, "malformed")
    assert "object" in detail


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"node": ["n1"]}, "node"),
        ({"nodes": ["n1"], "operation": "remove"}, "operation"),
        ({"nodes": "n1"}, "nodes"),
        ({"nodes": {"n1": 1}}, "nodes"),
        ({"nodes": None}, "nodes"),
        ({"nodes": [""]}, "nodes"),
        ({"nodes": [1]}, "nodes"),
        ({"nodes": [["n1"]]}, "nodes"),
        ({"nodes": ["n"] * (administering.ITEMS_MAX + 1)}, "nodes"),
        ({"force": True}, "force"),
        ({"force": "n1"}, "force"),
        ({"force": [None]}, "force"),
        ({"cards": CARD_TEXT}, "cards"),
        ({"cards": ["no base64!"]}, "cards"),
        ({"cards": [CARD_TEXT[:-1]]}, "cards"),
        ({"is_observer": 1}, "is_observer"),
        ({"is_observer": "yes"}, "is_observer"),
        ({"is_observer": None}, "is_observer"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": TIMEOUT_MS_MAX + 1}, "timeout_ms"),
        ({"timeout_ms": 1.5}, "timeout_ms"),
        ({"timeout_ms": True}, "timeout_ms"),
        ({"timeout_ms": "1"}, "timeout_ms"),
    ],
)
def test_a_field_that_does_not_fit_is_named(body: dict[str, object], named: str) -> None:
    service = MemoryService()
    status, reason, detail = refusal(lambda: post(REMOVE, body, service))
    assert (status, reason) == (400, "bad-parameter")
    assert named in detail
    assert not service.changes, "nothing that does not fit gets to the node"


@pytest.mark.parametrize("named", [None, "", "Remove", "transfer", 1, ["remove"], {"remove": 1}])
def test_what_if_needs_an_operation_that_exists(named: object) -> None:
    for body in ({"operation": named, "nodes": ["n1"]}, {"nodes": ["n1"]}):
        service = MemoryService()
        told = refusal(lambda: post(administering.post_what_if, body, service))  # noqa: B023
        assert told[:2] == (400, "bad-parameter")
        assert "remove" in told[2], "it says which there are"
        assert not service.changes


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ConfigError("'n9' is no node of this city", remedy="Name one."), 400, "bad-parameter"),
        (ChangeRefused("UNSAFE: no quorum", remedy="Start nodes first."), 409, "change-refused"),
        (NotLeader("this node does not lead", leader="12D3"), 503, "not-leader"),
        (Unavailable("the change is not in effect yet", remedy="Look."), 503, "unavailable"),
    ],
)
def test_what_the_node_refuses_is_told_with_its_reason(
    error: P2PCityError, status: int, reason: str
) -> None:
    service = MemoryService()
    service.error = error
    for handler, body in ((REMOVE, {}), (administering.post_what_if, {"operation": "remove"})):
        told = refusal(lambda: post(handler, body, service))  # noqa: B023
        assert told == (status, reason, str(error))
