"""Runs the HTTP surface in a thread of its own, so that plain clients can be tried on it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from p2pcity.api.config import ApiConfig
from p2pcity.api.server import serve
from p2pcity.api.statistics import HttpStatistics
from tests.memory_service import MemoryService

T = TypeVar("T")
TOKEN = "write-token-0123456789"
READ_TOKEN = "read-token-01234567890"
_DEADLINE_S = 60.0


class RunningServer:
    """A server with its service; `addresses` are those that `serve` started with."""

    def __init__(self, config: ApiConfig, service: MemoryService) -> None:
        self.config = config
        self.service = service
        self.statistics = HttpStatistics()
        self.addresses: tuple[str, ...] = ()
        self.error: BaseException | None = None
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def unix(self) -> str:
        """The path of the Unix socket."""
        return str(self.config.unix_socket)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def url(self) -> str:
        """The address over TCP."""
        return self.addresses[0]

    def start(self) -> None:
        """Start and wait until it listens."""
        self._thread.start()
        assert self._started.wait(_DEADLINE_S)
        if self.error is not None:
            raise self.error

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the server's thread."""
        return trio.from_thread.run_sync(function, trio_token=self._token)

    def stop(self) -> None:
        """Cancel the server and wait for its end."""
        if self._thread.is_alive():
            self.call(self._scope.cancel)
            self._thread.join(_DEADLINE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                start = partial(serve, self.config, self.service, statistics=self.statistics)
                self.addresses = await nursery.start(start)
                self._started.set()


@contextmanager
def running_server(directory: Path, **settings: object) -> Iterator[RunningServer]:
    """Run a server on a Unix socket in `directory` and on a TCP port."""
    tokens = directory / "tokens"
    tokens.write_text(f"write {TOKEN}\nread {READ_TOKEN}\n")
    values: dict[str, object] = {
        "unix_socket": directory / "api.sock",
        "bind": "127.0.0.1:0",
        "tokens_file": tokens,
        **settings,
    }
    config = ApiConfig(**values)  # type: ignore[arg-type]  # by name
    server = RunningServer(config, MemoryService())
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert server.error is None
