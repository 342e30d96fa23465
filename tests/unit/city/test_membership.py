"""Who may say what."""

from p2pcity.city.membership import State
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
