"""A plugin for `warm_nodes`: a node of another release, which differs in one thing."""

from typing import Any, Final

from p2pcity.node import introduction
from p2pcity.ordering import apply
from p2pcity.ordering.proposer import Proposer
from p2pcity.wire import limits

RULES: Final = limits.RULES_VERSION + 1


def install(what: str = "protocol") -> None:
    """Let this process speak only a later protocol, have other limits, or know later rules.

    A leader that `raises` proposes under them, though nobody asked whether all know them.
    """
    if what == "protocol":
        introduction.PROTOCOL_VERSION = 2  # type: ignore[attr-defined]  # this process's own
        introduction.PROTOCOL_VERSION_OLDEST = 2  # type: ignore[attr-defined]  # likewise
    elif what == "limits":
        limits.EVENTS_MAX = 255  # type: ignore[misc]  # likewise
    else:
        assert what in ("rules", "raises")
        limits.RULES_VERSION = RULES  # type: ignore[misc]  # likewise
        apply.RULES_VERSION = RULES  # type: ignore[attr-defined]  # likewise
    if what == "raises":
        make = Proposer.__init__

        def make_raising(self: Proposer, *arguments: Any, **named: Any) -> None:
            make(self, *arguments, **named | {"rules": RULES})

        Proposer.__init__ = make_raising  # type: ignore[method-assign]  # likewise
