"""What the HTTP surface is told by the operator, and the tokens that open it over TCP."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from p2pcity.errors import ConfigError

Right = Literal["read", "write"]

TOKEN_LENGTH_MIN: Final = 16


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Where the surface listens and what it allows; each default is what `p2pcity run` uses.

    `unix_socket` has full rights, its mode decides who. `bind` is `host:port` for TCP,
    None for none (`[::1]:4711` for IPv6, port 0 for any). Writes over TCP need a token of
    `tokens_file`, reads too when `is_read_by_token`. `tls_certificate` and `tls_key` are PEM
    files. `connections_max` bounds the TCP connections and `unix_connections_max` those of the
    socket: beyond it, accepting pauses.
    """

    unix_socket: Path | None = None
    unix_socket_mode: int = 0o660
    bind: str | None = None
    tokens_file: Path | None = None
    is_read_by_token: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    body_timeout_s: float = 10.0
    header_timeout_s: float = 5.0
    send_timeout_s: float = 30.0
    grace_s: float = 1.5
    connections_max: int = 640
    unix_connections_max: int = 256
    streams_max: int = 128
    keep_alive_interval_s: float = 15.0


class Tokens:
    """The bearer tokens (RFC 6750) and their rights.

    The file has one token a line, `read TOKEN` or `write TOKEN`, what follows is a comment; a
    line that starts with # is one too. A write token reads as well.
    """

    def __init__(self, rights: dict[bytes, Right]) -> None:
        self._rights = rights

    @classmethod
    def load(cls, path: Path) -> Tokens:
        """Read the tokens; ConfigError when the file or a line of it is wrong."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the tokens in {path}: {error}",
                remedy="Let http.tokens_file name a UTF-8 file that the daemon may read.",
            ) from error
        rights: dict[bytes, Right] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] not in ("read", "write") or len(words) < 2:
                raise ConfigError(
                    f"{path}, line {number} is neither `read TOKEN` nor `write TOKEN`",
                    remedy="Write the right, a blank and the token.",
                )
            if len(words[1]) < TOKEN_LENGTH_MIN:
                raise ConfigError(
                    f"{path}, line {number}: the token is shorter than {TOKEN_LENGTH_MIN}",
                    remedy="Make one with `openssl rand -hex 32`.",
                )
            rights[_digest(words[1])] = "write" if words[0] == "write" else "read"
        return cls(rights)

    def right_of(self, token: str) -> Right | None:
        """Return what the token allows, None for a wrong one; takes the same time for all."""
        wanted = _digest(token)
        found: Right | None = None
        for digest, right in self._rights.items():
            if hmac.compare_digest(digest, wanted):
                found = right
        return found

    def become(self, other: Tokens) -> None:
        """Take over the tokens of `other`; what is asked from now on is held against them."""
        self._rights = other._rights

    def __bool__(self) -> bool:
        return bool(self._rights)


def _digest(token: str) -> bytes:
    # Equal lengths for the comparison; a token is random, so a plain hash hides it well enough.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
