"""The sockets that the HTTP surface listens on: opened with care, and taken away again."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pcity.api.config import ApiConfig, Tokens
from p2pcity.errors import ConfigError

BACKLOG: Final = 512
_PROBE_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A listening Unix socket; `close` removes its file unless somebody replaced it."""

    path: Path
    socket: socket.socket
    inode: int

    def close(self) -> None:
        """Close the socket and remove its file."""
        self.socket.close()
        with suppress(FileNotFoundError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


def open_unix(path: Path, mode: int) -> UnixSocket:
    """Listen on `path` with this file mode; a file left by a dead process is removed.

    Raises ConfigError when another process answers there, when something else than a socket
    lies there, or when the directory does not allow it.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        # Nobody can connect before `listen`, so there is no moment with a wider mode.
        path.chmod(mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return UnixSocket(path, listener, path.stat().st_ino)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on the Unix socket {path}: {error.strerror or error}",
            remedy="Let api.unix_socket be a path under 100 characters in a directory that "
            "exists and that the daemon may write to.",
        ) from error


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{path} is no socket, so it stays", remedy="Move it away, or set api.unix_socket."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            # The file of a process that is gone: nobody listens.
            with suppress(FileNotFoundError):
                path.unlink()
            return
        except FileNotFoundError:
            return
        except OSError:
            # Full or slow, but somebody is there.
            pass
    raise ConfigError(
        f"another process answers on {path}",
        remedy="Stop the other node, or set api.unix_socket to another path.",
    )


def open_tcp(bind: str) -> socket.socket:
    """Listen on `host:port` (`[::1]:4711` for IPv6); ConfigError when that cannot be."""
    host, port = parse_bind(bind)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"http.bind: {host!r} is no address of this host", remedy="Write an IP address."
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        remedy = {
            errno.EADDRINUSE: f"Stop what listens there (`ss -ltnp 'sport = {port}'`), or set "
            "http.bind to another port.",
            errno.EACCES: "Take a port above 1023.",
            errno.EADDRNOTAVAIL: "Write an address of this host.",
        }.get(error.errno or 0, "Check http.bind.")
        raise ConfigError(
            f"cannot listen on {bind}: {error.strerror or error}", remedy=remedy
        ) from error
    return listener


def parse_bind(bind: str) -> tuple[str, int]:
    """Return host and port of `host:port`; ConfigError for other text."""
    host, colon, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(
            f"http.bind is {bind!r}", remedy="Write host:port, such as 127.0.0.1:4711."
        )
    return host, int(port)


class TcpSecrets:
    """The tokens and the TLS of the TCP listener, which can be read anew while it listens."""

    def __init__(self) -> None:
        self.tokens = Tokens({})
        self.tls: ssl.SSLContext | None = None

    def load(self, config: ApiConfig) -> None:
        """Read all files of `config`; ConfigError when one is wrong, and nothing has changed."""
        tokens = Tokens({}) if config.tokens_file is None else Tokens.load(config.tokens_file)
        if config.is_read_by_token and not tokens:
            raise ConfigError(
                "reads need a token, and there is none", remedy="Set http.tokens_file."
            )
        self.tls = load_tls(config)
        self.tokens.become(tokens)


def load_tls(config: ApiConfig) -> ssl.SSLContext | None:
    """Return the TLS context of the configured files, None without; ConfigError when wrong."""
    if config.tls_certificate is None and config.tls_key is None:
        return None
    if config.tls_certificate is None or config.tls_key is None:
        raise ConfigError(
            "TLS needs both files", remedy="Set api.tls_certificate and api.tls_key, or neither."
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty passphrase, or OpenSSL would ask for one on the terminal.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot load {config.tls_certificate} and {config.tls_key}: {error}",
            remedy="Give PEM files that belong together and that the daemon may read.",
        ) from error
    return context
