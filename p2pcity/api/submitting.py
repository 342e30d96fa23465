"""The two ways in: signed transactions, and events that the node signs itself.

How answers become HTTP (`status` and `reason` are in the answers, see `service.Answer`):

| what was sent | what became of it | HTTP |
|---|---|---|
| one | committed | 200, the answer |
| one | pending (also when `wait=committed` timed out) | 202, the answer |
| one | duplicate: its events stand on the ledger already | 200, the answer |
| one | rejected as `malformed` or `event-malformed` | 400, a problem |
| one | rejected as `size` | 413, a problem |
| one | rejected as `queue-full` or `...quota` | 429, a problem, Retry-After |
| one | rejected for another reason, or expired | 422, a problem |
| many | all committed or duplicate | 200, `answers` |
| many | at least one taken (committed, duplicate, pending) | 202, `answers` |
| many | none taken, at least one for lack of room | 429, a problem with `answers`, Retry-After |
| many | none taken | 422, a problem with `answers` |
| a body that cannot be cut into transactions or read as events | nothing was taken | 400 or 413 |

The problem of one answer has its `id`, `verdict` and `transaction_status` as members. The same
transaction or event again gets the same answer, or by now a better one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import trio
from starlette.responses import Response

from p2pcity.api import cloudevents, json_mapping, sequence
from p2pcity.api.dispatch import Context
from p2pcity.api.problems import RETRY_AFTER_MS, Problem
from p2pcity.api.service import Answer, EventInput

CBOR: Final = "application/cbor"
CBOR_SEQUENCE: Final = "application/cbor-seq"
JSON: Final = "application/json"

# Larger bodies are read in a worker thread, so that heartbeats are not late.
_INLINE_BYTES_MAX: Final = 64 * 1024

_T = TypeVar("_T")
_FINAL: Final = ("committed", "duplicate")
_TAKEN: Final = ("committed", "duplicate", "pending")


async def post_transactions(context: Context) -> Response:
    """Handle `POST /v1/transactions`."""
    wait, timeout_ms = context.query.wait()
    if context.content_type == CBOR:
        answers = await context.service.submit([context.body], wait, timeout_ms)
        return answer_one(answers[0])
    carried = sequence.split(context.body)
    return answer_many(await context.service.submit(carried, wait, timeout_ms))


async def post_events(context: Context) -> Response:
    """Handle `POST /v1/events`."""
    wait, timeout_ms = context.query.wait()
    if context.content_type == cloudevents.BATCHED:
        events = await _read(cloudevents.read_batch, context.body)
        return answer_many(await context.service.submit_events(events, wait, timeout_ms))
    if context.content_type == cloudevents.STRUCTURED:
        event = await _read(cloudevents.read_structured, context.body)
    else:
        event = _read_binary(context)
    return answer_one((await context.service.submit_events([event], wait, timeout_ms))[0])


def answer_one(answer: Answer) -> Response:
    """Return the answer for the one that was sent; raises Problem when it was not taken."""
    if answer.status in _TAKEN:
        status = 200 if answer.status in _FINAL else 202
        return Response(json_mapping.dump(json_mapping.answer(answer)), status, media_type=JSON)
    reason = answer.reason or answer.status
    is_full = _is_full(answer)
    if is_full:
        status = 429
    else:
        status = {"malformed": 400, "event-malformed": 400, "size": 413}.get(reason, 422)
    raise Problem(
        status,
        reason,
        answer.detail or f"the transaction was not taken: {reason}",
        remedy=_remedy(reason, is_full),
        members={
            "id": None if answer.id is None else answer.id.hex(),
            "verdict": answer.verdict,
            "transaction_status": answer.status,
        },
        retry_after_ms=RETRY_AFTER_MS if is_full else None,
    )


def answer_many(answers: Sequence[Answer]) -> Response:
    """Return the answers, in the order of what was sent; raises Problem when none was taken."""
    documents = [json_mapping.answer(answer) for answer in answers]
    has_full = any(_is_full(answer) for answer in answers)
    if any(answer.status in _TAKEN for answer in answers):
        is_done = all(answer.status in _FINAL for answer in answers)
        headers = {"Retry-After": "1"} if has_full else None
        body = json_mapping.dump({"answers": documents})
        return Response(body, 200 if is_done else 202, headers, JSON)
    raise Problem(
        429 if has_full else 422,
        "queue-full" if has_full else "none-taken",
        f"none of {len(answers)} was taken",
        remedy=_remedy("none-taken", has_full),
        members={"answers": documents},
        retry_after_ms=RETRY_AFTER_MS if has_full else None,
    )


def _read_binary(context: Context) -> EventInput:
    request = context.request
    return cloudevents.read_binary(
        request.headers.raw, request.headers.get("content-type"), context.body
    )


async def _read(read: Callable[[bytes], _T], body: bytes) -> _T:
    if len(body) <= _INLINE_BYTES_MAX:
        return read(body)
    return await trio.to_thread.run_sync(read, body)


def _is_full(answer: Answer) -> bool:
    return answer.status == "rejected" and (
        answer.reason == "queue-full" or answer.reason.endswith("quota")
    )


def _remedy(reason: str, is_full: bool) -> str:
    if is_full:
        return "Send again after the time in Retry-After."
    return {
        "expired": "Sign it again with a later expiry.",
        "none-taken": "Read the reason in each of `answers`.",
        "network": "Sign for the network id that /v1/status shows.",
    }.get(reason, "Read protocol/registry.md for the reason.")
