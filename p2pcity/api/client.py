"""The client of the HTTP surface that the command line uses: the standard library alone.

It speaks over a Unix socket (a path, or `unix:PATH`) or to `http://HOST:PORT` and `https://...`.
One connection is kept and opened anew when the node closed it. Not safe between threads.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit

from p2pcity.errors import ConfigError, P2PCityError

TIMEOUT_S: Final = 75.0
"""Longer than any wait that the surface grants (60 s)."""
CONNECT_TIMEOUT_S: Final = 5.0
STREAM_SILENCE_S: Final = 60.0
"""Four times what a node keeps silent on a stream."""
_LINE_BYTES_MAX: Final = 4 * 1024 * 1024
_RECONNECT_S: Final = 1.0

Params = Mapping[str, str | int | None]


class Unreachable(P2PCityError):
    """Nobody answers at the node's address."""

    exit_code = 4


class ApiProblem(P2PCityError):
    """The node answered with a problem document (RFC 9457).

    `members` is the whole document; `retry_after_s` is None without a Retry-After.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        remedy: str = "",
        retry_after_s: int | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or f"HTTP {status}", remedy=remedy)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.members: Mapping[str, Any] = members or {}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `height` and `head` (hex) are the node's, `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def height(self) -> int:
        """The height of the node's last applied block."""
        value = self.headers.get("p2pcity-height", "0")
        return int(value) if value.isdecimal() else 0

    @property
    def head(self) -> str:
        """The hash of that block, in hex."""
        return self.headers.get("p2pcity-head", "")

    def json(self) -> Any:
        """Return the body as JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ApiProblem(
                self.status, "bad-answer", "the answer is no JSON", remedy=_NOT_A_NODE
            ) from error


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of the stream; `name` is `message`, or `tombstone` for an erased event."""

    cursor: str
    name: str
    document: Mapping[str, Any]


_NOT_A_NODE: Final = "Check that the address is a p2pcity node's."


class Client:
    """One node's surface. A context manager; `close` may be followed by further requests."""

    def __init__(
        self,
        address: str | Path,
        *,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        ca_file: Path | None = None,
    ) -> None:
        """Take the address; nothing is opened yet. ConfigError when it cannot be one.

        `ca_file` is a PEM file of the authorities to trust instead of the system's.
        """
        self.address = str(address)
        self._token = token
        self._timeout_s = timeout_s
        self._connect = _connector(self.address, ca_file)
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get_json(self, path: str, params: Params | None = None) -> Any:
        """Return the JSON at `path`; raises Unreachable or ApiProblem."""
        return self.request("GET", path, params).json()

    def get(self, path: str, params: Params | None = None, accept: str = "*/*") -> Reply:
        """Return what is at `path`, such as bytes with `accept` application/cbor."""
        return self.request("GET", path, params, headers={"Accept": accept})

    def post(
        self,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        params: Params | None = None,
    ) -> Any:
        """Send `body` and return the JSON of the answer; raises Unreachable or ApiProblem."""
        headers = {"Content-Type": content_type} if body else {}
        return self.request("POST", path, params, body=body, headers=headers).json()

    def request(
        self,
        method: Literal["GET", "POST"],
        path: str,
        params: Params | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and return the answer, if it is a success.

        A connection that the node had closed meanwhile is opened anew, once: every request of
        the surface may be sent twice. Raises Unreachable or ApiProblem.
        """
        sent = {**self._headers(), **(headers or {})}
        is_kept = self._connection is not None
        while True:
            try:
                if self._connection is None:
                    self._connection = self._open()
                self._connection.request(method, _target(path, params), body, sent)
                answer = self._connection.getresponse()
                reply = Reply(
                    answer.status,
                    {name.lower(): value for name, value in answer.getheaders()},
                    answer.read(),
                )
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if is_kept and not isinstance(error, TimeoutError):
                    is_kept = False
                    continue
                raise self._unreachable(error) from error
            _raise_problem(reply)
            return reply

    def stream(
        self,
        params: Params | None = None,
        *,
        last_event_id: str | None = None,
        reconnect_tries: int = 10,
        wait: Callable[[float], None] = time.sleep,
        silence_s: float = STREAM_SILENCE_S,
    ) -> Generator[StreamEvent, None, None]:
        """Yield events as they are committed, for ever; resumes where it was when cut off.

        `params` are the stream's (`from`, `type`, ...). Raises Unreachable when the node stays
        away for `reconnect_tries` tries in a row, ApiProblem when it refuses. A connection on
        which nothing comes for `silence_s` is given up; the node says something every 15 s.
        """
        tries = 0
        cursor = last_event_id
        while True:
            try:
                for event in self._stream_once(params, cursor, silence_s):
                    tries = 0
                    cursor = event.cursor
                    if event.name:
                        yield event
                tries += 1
                if tries > reconnect_tries:
                    raise self._unreachable(ConnectionError("the stream ends again and again"))
            except (OSError, http.client.HTTPException) as error:
                tries += 1
                if tries > reconnect_tries:
                    raise self._unreachable(error) from error
            except ApiProblem as problem:
                tries += 1
                if problem.status != 503 or tries > reconnect_tries:
                    raise
            wait(_RECONNECT_S)

    def _stream_once(
        self, params: Params | None, cursor: str | None, silence_s: float
    ) -> Iterator[StreamEvent]:
        """Yield what one connection brings; an empty name means that only the cursor moved."""
        headers = {**self._headers(), "Accept": "text/event-stream"}
        if cursor is not None:
            headers["Last-Event-ID"] = cursor
        connection = self._open()
        try:
            if connection.sock is not None:
                connection.sock.settimeout(silence_s)
            connection.request("GET", _target("/v1/stream", params), headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                names = {name.lower(): value for name, value in answer.getheaders()}
                _raise_problem(Reply(answer.status, names, answer.read()))
            yield from _read_events(answer, cursor or "")
        finally:
            connection.close()

    def _open(self) -> http.client.HTTPConnection:
        connection = self._connect()
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(self._timeout_s)
        return connection

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, TimeoutError):
            return Unreachable(
                f"the node at {self.address} does not answer in time",
                remedy="Look at its log; it may be overloaded or stuck.",
            )
        if isinstance(error, PermissionError):
            return Unreachable(
                f"you may not connect to {self.address}",
                remedy="Join the group that owns the socket (p2pcity), or use sudo.",
            )
        return Unreachable(
            f"no node answers at {self.address} ({str(error) or type(error).__name__})",
            remedy="Start it with `p2pcity run`, or name another one.",
        )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            self.sock = None
            raise


def _connector(address: str, ca_file: Path | None) -> Callable[[], http.client.HTTPConnection]:
    if address.startswith(("http://", "https://")):
        parts = urlsplit(address)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.path not in ("", "/") or parts.query:
            raise ConfigError(
                f"{address} is no node's address", remedy="Write http://HOST:PORT or a path."
            )
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_file)
            return lambda: http.client.HTTPSConnection(
                host, port or 4711, timeout=CONNECT_TIMEOUT_S, context=context
            )
        return lambda: http.client.HTTPConnection(host, port or 4711, timeout=CONNECT_TIMEOUT_S)
    if "://" in address:
        raise ConfigError(
            f"{address} is no node's address", remedy="Write http://HOST:PORT or a path."
        )
    path = address.removeprefix("unix:")
    return lambda: _UnixConnection(path)


def _target(path: str, params: Params | None) -> str:
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _raise_problem(reply: Reply) -> None:
    """Raise ApiProblem unless the answer is a success."""
    if 200 <= reply.status < 300:
        return
    try:
        document = json.loads(reply.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    retry_after = reply.headers.get("retry-after", "")
    raise ApiProblem(
        reply.status,
        str(document.get("reason", "")),
        str(document.get("detail", "")),
        remedy=str(document.get("remedy", "")) or ("" if document else _NOT_A_NODE),
        retry_after_s=int(retry_after) if retry_after.isdecimal() else None,
        members=document,
    )


def _read_events(answer: http.client.HTTPResponse, cursor: str) -> Iterator[StreamEvent]:
    """Parse server-sent events (WHATWG HTML section 9.2.6), as far as the surface uses them."""
    name, data = "", b""
    while True:
        line = answer.readline(_LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            # Cut off in the middle: what is half here comes again after the resumption.
            return
        line = line.rstrip(b"\r\n")
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                yield StreamEvent(cursor, name or "message", json.loads(data))
            elif cursor:
                yield StreamEvent(cursor, "", {})
            name, data = "", b""
        elif field == b"id":
            cursor = value.decode()
        elif field == b"event":
            name = value.decode()
        elif field == b"data":
            data += value
