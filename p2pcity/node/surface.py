"""The HTTP surface as a part of the node: what it is told, and when it ends."""

from typing import Any

import trio

from p2pcity.api.config import ApiConfig
from p2pcity.api.listeners import TcpSecrets
from p2pcity.api.server import serve
from p2pcity.api.service import Service
from p2pcity.api.statistics import HttpStatistics
from p2pcity.node.config import Config

# trio.TaskStatus[None]; the stubs that come with libp2p are older than trio and lack it.
TaskStatus = Any


class Surface:
    """The HTTP surface, which ends before the rest of the node does.

    Whoever waits for a commit hears of it while this node still follows: the new leader commits
    what was brought here, in the time that the surface gives open connections.
    """

    def __init__(self, config: Config, service: Service, statistics: HttpStatistics) -> None:
        """Serve `service` by `config`; what is answered is counted in `statistics`."""
        self._service = service
        self._statistics = statistics
        self._config = _api_config(config)
        self._secrets = TcpSecrets()
        self._scope = trio.CancelScope()
        self._ended: trio.Event | None = None

    async def run(self, *, task_status: TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; `task_status` is told when clients can connect."""
        self._ended = ended = trio.Event()
        try:
            with self._scope:
                await serve(
                    self._config,
                    self._service,
                    statistics=self._statistics,
                    secrets=self._secrets,
                    task_status=task_status,
                )
        finally:
            ended.set()

    def reload(self, config: Config) -> None:
        """Read tokens and TLS anew, for connections from now on; ConfigError changes nothing."""
        if config.http.bind:
            self._secrets.load(_api_config(config))

    async def stop(self) -> None:
        """Accept nothing more; returns once the open connections have ended."""
        if self._ended is not None:
            self._scope.cancel()
            await self._ended.wait()


def _api_config(config: Config) -> ApiConfig:
    http = config.http
    return ApiConfig(
        unix_socket=http.socket,
        unix_socket_mode=int(http.socket_mode, 8),
        bind=http.bind or None,
        tokens_file=http.tokens_file,
        is_read_by_token=http.read_by_token,
        tls_certificate=http.tls_certificate_file,
        tls_key=http.tls_key_file,
        connections_max=http.connections_max,
    )
