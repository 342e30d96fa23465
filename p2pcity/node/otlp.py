"""Spans to an OTLP/HTTP collector, by OpenTelemetry's SDK: the one module that knows it.

It is an extra (p2pcity[otel]) and is imported only when `telemetry.otlp_endpoint` is set. The
SDK's own thread exports; what the collector does not take is dropped and counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from p2pcity.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_logger = structlog.get_logger("p2pcity.node.otlp")

QUEUE_MAX: Final = 4096
"""Spans that wait for the collector; beyond, new ones are dropped."""
_BATCH_MAX: Final = 512
_DELAY_MS: Final = 1000
_EXPORT_S: Final = 5.0
_CLOSE_S: Final = 2.0
_PATH: Final = "/v1/traces"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time under a name, Unix us; `error` says why it ended badly."""

    name: str
    begin_us: int
    end_us: int
    attributes: Mapping[str, str | int]
    error: str = ""


class Otlp:
    """A tracer, its queue and its thread."""

    def __init__(self, endpoint: str, attributes: Mapping[str, str]) -> None:
        """Send to the collector whose base URL is `endpoint`; `attributes` are this node's.

        Raises ConfigError when the extra is not installed.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import DEFAULT_ON
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise ConfigError(
                f"telemetry.otlp_endpoint is set, and {error.name} is not installed",
                remedy="Install it (pip install 'p2pcity[otel]'), or leave the key out.",
            ) from None
        # What its exporter says at every try is said once, below.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._trace: Any = trace
        self._propagator = TraceContextTextMapPropagator()
        url = endpoint.rstrip("/") + _PATH
        self._exporter = _CountingExporter(OTLPSpanExporter(url, timeout=_EXPORT_S), url)
        self._processor = BatchSpanProcessor(
            self._exporter,  # type: ignore[arg-type]  # its methods; the base is not imported yet
            max_queue_size=QUEUE_MAX,
            schedule_delay_millis=_DELAY_MS,
            max_export_batch_size=_BATCH_MAX,
        )
        # All that the client does not want unsampled; `close` ends it, not the process's exit.
        provider = TracerProvider(DEFAULT_ON, Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("p2pcity")
        self._queued = 0
        self._refused = 0

    @property
    def exported(self) -> int:
        """How many spans the collector took."""
        return self._exporter.taken

    @property
    def dropped(self) -> int:
        """How many spans found the queue full, or a collector that did not take them."""
        return self._refused + self._exporter.failed

    def root(self, span: Span, traceparent: str | None) -> object:
        """Queue a request's own span, below the client's if it named one; the parent of others.

        None when it was not kept: not sampled by the client, or no room.
        """
        carrier = {} if traceparent is None else {"traceparent": traceparent}
        context = self._propagator.extract(carrier)
        return self._queue(span, context, self._trace.SpanKind.SERVER)

    def children(self, spans: Sequence[Span], parent: object) -> None:
        """Queue spans below `parent`, which `root` gave."""
        for span in spans:
            self._queue(span, parent, self._trace.SpanKind.INTERNAL)

    def _queue(self, span: Span, context: Any, kind: Any) -> object:
        if self._queued - self._exporter.done >= QUEUE_MAX:
            self._refused += 1
            return None
        made = self._tracer.start_span(
            span.name,
            context,
            kind,
            attributes=dict(span.attributes),
            start_time=span.begin_us * 1000,
        )
        if not made.get_span_context().trace_flags.sampled:
            return None
        if span.error:
            made.set_status(self._trace.Status(self._trace.StatusCode.ERROR, span.error))
        self._queued += 1
        made.end(end_time=span.end_us * 1000)
        return self._trace.set_span_in_context(made)

    async def close(self) -> None:
        """Send what waits; takes 2 s at most, whatever the collector does."""
        with trio.move_on_after(_CLOSE_S):
            # A thread that still waits for the collector then ends with the process.
            await trio.to_thread.run_sync(
                self._processor.shutdown,
                abandon_on_cancel=True,  # type: ignore[call-arg]  # the stubs are older than trio
            )


class _CountingExporter:
    """Counts what the exporter below does; called in the SDK's thread."""

    def __init__(self, below: SpanExporter, url: str) -> None:
        self._below = below
        self._url = url
        self._has_failed = False
        self.taken = self.failed = 0

    @property
    def done(self) -> int:
        return self.taken + self.failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._below.export(spans)
        if result.name == "SUCCESS":
            self.taken += len(spans)
        else:
            self.failed += len(spans)
        self._tell(has_failed=result.name != "SUCCESS")
        return result

    def _tell(self, *, has_failed: bool) -> None:
        if has_failed is not self._has_failed:
            self._has_failed = has_failed
            if has_failed:
                _logger.warning("spans_dropped", url=self._url, reason="the collector took none")
            else:
                _logger.info("spans_taken", url=self._url, dropped=self.failed)

    def shutdown(self) -> None:
        self._below.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._below.force_flush(timeout_millis)
