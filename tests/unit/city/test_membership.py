"""Who may say what."""

import pytest

from p2pcity.city.membership import State, is_allowed
from tests.chain_case import AUTHOR, CLERK, STRANGER, make_genesis


def test_the_state_starts_with_the_authors_of_the_genesis() -> None:
    state = State.from_genesis(make_genesis())
    assert state.author_types(AUTHOR.public) == ("*",)
    assert state.author_types(CLERK.public) == ("permit.*",)
    assert state.author_types(STRANGER.public) is None
    author = state.author(CLERK.public)
    assert author is not None
    assert (author.name, author.member) == ("permits", "works")
    assert state.author(STRANGER.public) is None


@pytest.mark.parametrize(
    ("types", "event_type", "expected"),
    [
        (("*",), "anything", True),
        (("permit.granted",), "permit.granted", True),
        (("permit.granted",), "permit.granted.late", False),
        (("permit.granted",), "permit", False),
        (("permit.*",), "permit.granted", True),
        (("permit.*",), "permit.granted.late", True),
        (("permit.*",), "permit", False),
        (("permit.*",), "permit.", False),
        (("permit.*",), "permits.granted", False),
        (("alarm", "permit.*"), "permit.granted", True),
        ((), "permit.granted", False),
        # What an event's type says of itself has no power.
        (("permit.granted",), "*", False),
        (("permit.*",), "permit.*", True),
    ],
)
def test_patterns(types: tuple[str, ...], event_type: str, expected: bool) -> None:
    assert is_allowed(types, event_type) is expected
