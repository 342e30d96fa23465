"""A small OTLP/HTTP collector: it keeps the spans that it is sent, and may hold its answer back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

DEADLINE_S: Final = 30.0


@dataclass
class Receiver:
    """What came, newest last, each span with its node's name; `gate` holds answers back."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    is_called: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for resource_spans in request.resource_spans:
                resource = resource_spans.resource.attributes
                attributes = {item.key: item.value.string_value for item in resource}
                assert attributes["service.name"] == "p2pcity"
                for scope_spans in resource_spans.scope_spans:
                    self.spans += [(attributes["p2pcity.node"], span) for span in scope_spans.spans]
            self._changed.notify_all()

    def wait(self, trace: str, names: list[str]) -> list[Span]:
        """The spans of a trace (hex) once all `names` are there, oldest first."""

        def found() -> list[Span]:
            return [span for _, span in self.spans if span.trace_id.hex() == trace]

        with self._changed:
            is_so = self._changed.wait_for(
                lambda: sorted(span.name for span in found()) == sorted(names), DEADLINE_S
            )
            assert is_so, (names, [span.name for span in found()])
            return sorted(found(), key=lambda span: (span.end_time_unix_nano, span.name))


@contextmanager
def receiving(*, holds: bool = False) -> Iterator[Receiver]:
    """Listen on a free port of this machine; with `holds`, answer nobody until the end."""
    receiver = Receiver()
    if not holds:
        receiver.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.is_called.set()
            receiver.gate.wait(DEADLINE_S)
            receiver.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield receiver
    finally:
        receiver.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)
