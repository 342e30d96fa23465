"""The way to the collector: bounded, never waited for, ended in time."""

import sys

import pytest
import trio

from p2pcity.errors import ConfigError
from p2pcity.node import otlp as otlp_module
from p2pcity.node.otlp import Otlp, Span
from tests.otlp_receiver import DEADLINE_S, receiving

NODE = {"service.name": "p2pcity", "p2pcity.node": "n1"}


async def test_what_has_no_room_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_module, "QUEUE_MAX", 8)
    monkeypatch.setattr(otlp_module, "_BATCH_MAX", 8)
    with receiving(holds=True) as receiver:
        otlp = Otlp(receiver.url, NODE)
        spans = [Span(f"s{number}", 1, 2, {"number": number}) for number in range(20)]
        kept = [otlp.root(span, None) for span in spans]
        assert [parent is not None for parent in kept] == [True] * 8 + [False] * 12
        assert (otlp.exported, otlp.dropped) == (0, 12)
        assert await trio.to_thread.run_sync(receiver.is_called.wait, DEADLINE_S)
        receiver.gate.set()
        await otlp.close()
        assert (otlp.exported, otlp.dropped) == (8, 12)
        assert [span.name for _, span in receiver.spans] == [f"s{number}" for number in range(8)]


async def test_the_end_does_not_wait_for_a_collector_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp_module, "_CLOSE_S", 0.05)
    with receiving(holds=True) as receiver:
        otlp = Otlp(receiver.url, NODE)
        assert otlp.root(Span("s", 1, 2, {}), None) is not None
        await otlp.close()
        assert otlp.exported == 0


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01", "x" * 10_000, None])
async def test_a_header_that_names_no_trace_begins_one(header: str | None) -> None:
    with receiving() as receiver:
        otlp = Otlp(receiver.url, NODE)
        parent = otlp.root(Span("s", 1_000_000, 2_000_000, {}, "Unavailable"), header)
        otlp.children([Span("child", 1_000_000, 1_500_000, {})], parent)
        await otlp.close()
    [root, child] = [span for _, span in receiver.spans]
    assert root.parent_span_id == b""
    assert child.parent_span_id == root.span_id
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (10**9, 2 * 10**9)
    assert root.status.message == "Unavailable"


def test_without_the_extra_there_is_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint is set") as caught:
        Otlp("http://127.0.0.1:4318", NODE)
    assert "p2pcity[otel]" in caught.value.remedy
