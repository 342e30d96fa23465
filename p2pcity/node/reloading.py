"""SIGHUP: the settings are read anew, and what can change while the node runs is taken over.

All or nothing: where a file is wrong, the node goes on with what it has and says what is wrong.
What needs a restart is named in the log, and stays as it is until then.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import structlog

from p2pcity.errors import ConfigError
from p2pcity.node import logs
from p2pcity.node.config import KEYS, Config, section_types
from p2pcity.node.membership import Membership
from p2pcity.node.surface import Surface

RELOADED: Final = frozenset({"logs.level", "net.peers", "http.tokens_file"})
# Other files for TLS can be taken; whether there is TLS at all can't be changed under a port.
_TLS: Final = frozenset({"http.tls_certificate_file", "http.tls_key_file"})

_logger = structlog.get_logger("p2pcity.node.reloading")


class Settings:
    """The settings in force, and where to read them anew."""

    def __init__(self, config: Config, reread: Callable[[], Config] | None = None) -> None:
        """Take what is in force, and what gives it anew: nothing else without `reread`."""
        self.config = config
        self.reread = reread or (lambda: config)


def reload(settings: Settings, membership: Membership, surface: Surface) -> None:
    """Take over what can change while the node runs; what is wrong is said, and changes nothing.

    The files that settings name are read anew also where the settings stayed the same.
    """
    try:
        wanted = settings.reread()
        taken, waiting = divide(settings.config, wanted)
        merged = merge(settings.config, wanted, taken)
        surface.reload(merged)
    except ConfigError as error:
        _logger.error("reload_refused", reason=str(error), remedy=error.remedy)
        return
    membership.configure(merged.net.peers)
    logs.set_level(merged.logs.level)
    settings.config = merged
    _logger.info("reloaded", changed=sorted(taken))
    if waiting:
        _logger.warning(
            "reload_needs_restart",
            settings=sorted(waiting),
            remedy="restart the node when it suits: these stay as they were until then",
        )


def divide(old: Config, new: Config) -> tuple[frozenset[str], frozenset[str]]:
    """Return the settings that differ and can be taken over at once, and those that can not."""
    differing = {path for path in KEYS if _value(old, path) != _value(new, path)}
    can_change = set(RELOADED)
    if (old.http.tls_key_file is None) == (new.http.tls_key_file is None):
        can_change |= _TLS
    return frozenset(differing & can_change), frozenset(differing - can_change)


def merge(old: Config, new: Config, taken: frozenset[str]) -> Config:
    """Return `old` with the settings in `taken` as `new` has them."""
    sections: dict[str, Any] = {}
    for section in section_types():
        names = [KEYS[path].name for path in taken if KEYS[path].section == section]
        changes = {name: getattr(getattr(new, section), name) for name in names}
        sections[section] = replace(getattr(old, section), **changes)
    return Config(**sections)


def _value(config: Config, path: str) -> object:
    return getattr(getattr(config, KEYS[path].section), KEYS[path].name)


def has_hangups_of_a_terminal() -> bool:
    """Whether SIGHUP means that the terminal is gone, which ends the node as it always did."""
    return os.isatty(sys.stdout.fileno())


@contextmanager
def ignoring_hangups() -> Iterator[None]:
    """Let a SIGHUP that comes while the node starts be without effect, not its end."""
    if has_hangups_of_a_terminal():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
