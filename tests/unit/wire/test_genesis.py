"""Genesis: who is in it, who signed it, and which event types a pattern covers."""

import pytest

from p2pcity.errors import DecodeError
from p2pcity.wire import genesis
from p2pcity.wire.genesis import digest_voters, is_type_allowed
from tests.vectors_genesis import AUTHORS, NODES, STRANGER, example


def test_it_lists_nodes_authors_and_orderers() -> None:
    made = example()
    assert [node.key for node in made.nodes] == [key.public for key in NODES]
    assert [author.key for author in made.authors] == [key.public for key in AUTHORS]
    assert [node.key for node in made.orderers] == [key.public for key in NODES[:3]]
    assert made.authors[0].member == "Roads"


def test_the_voters_digest_does_not_depend_on_the_order() -> None:
    pairs = [(node.key, node.incarnation) for node in example().orderers]
    assert digest_voters(pairs) == digest_voters(reversed(pairs)) == example().voters_digest


def test_signing_twice_with_a_key_gives_one_signature() -> None:
    once = genesis.sign(example(), NODES[0])
    assert genesis.sign(once, NODES[0]) == once
    both = genesis.sign(once, AUTHORS[0])
    assert both.signers == tuple(sorted((NODES[0].public, AUTHORS[0].public)))
    assert both.network == once.network
    assert genesis.decode(genesis.encode(both)) == both


def test_a_later_release_knows_the_genesis_of_an_earlier_one_and_not_the_other_way_round() -> None:
    earlier = example()
    with pytest.MonkeyPatch.context() as later:
        later.setattr(genesis, "PROTOCOL_VERSION", 3)
        later.setattr(genesis, "RULES_VERSION", 2)
        assert genesis.decode(genesis.encode(earlier)) == earlier
        made = genesis.make("one", 1, bytes(16), earlier.members)
        assert (earlier.rules, made.rules) == (1, 2)
    with pytest.raises(DecodeError, match="protocol 3 with rules 2 is not known") as caught:
        genesis.decode(genesis.encode(made))
    assert "Install the release" in caught.value.remedy


def test_a_stranger_cannot_sign() -> None:
    with pytest.raises(DecodeError):
        genesis.sign(example(), STRANGER)


@pytest.mark.parametrize(
    ("patterns", "event_type", "is_allowed"),
    [
        (("*",), "anything", True),
        (("city.permit.granted",), "city.permit.granted", True),
        (("city.permit.*",), "city.permit.granted", True),
        (("city.permit.*",), "city.permit", False),
        (("city.permit.*",), "city.permits.granted", False),
        (("city.permit",), "city.permit.granted", False),
        (("city.permit.*",), "city.permit.", True),
        (("city.permit.*",), "city.permit.*", True),
        # What an event's type says of itself has no power.
        (("city.permit",), "*", False),
        ((), "city.permit", False),
    ],
)
def test_type_patterns(patterns: tuple[str, ...], event_type: str, is_allowed: bool) -> None:
    assert is_type_allowed(patterns, event_type) is is_allowed
