"""A plugin for `warm_nodes`: a node of a later release, which speaks no older protocol."""

from p2pcity.node import introduction


def install() -> None:
    """Set the versions of this process."""
    introduction.PROTOCOL_VERSION = 2  # type: ignore[attr-defined]  # this process's own
    introduction.PROTOCOL_VERSION_OLDEST = 2  # type: ignore[attr-defined]  # likewise
