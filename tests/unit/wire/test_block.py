"""Blocks: the hash does not move when bodies go, and the halves on disk fit together."""

import pytest

from p2pcity.crypto import merkle
from p2pcity.errors import DecodeError
from p2pcity.wire import block
from p2pcity.wire.block import ITEM_HEAD_BYTES_MAX, OVERHEAD_BYTES_MAX
from tests.vectors_block import example
from tests.vectors_event import MINIMAL
from tests.vectors_transaction import make


def test_a_block_comes_back() -> None:
    made = example(change=b"\x01")
    assert block.decode(made.data) == made
    assert made.header.count == 3


def test_the_body_is_the_root_over_the_signed_parts() -> None:
    carried = make(MINIMAL)
    made = block.make(1, bytes(32), 5, [carried], 0, bytes(32), 1)
    assert made.header.body == merkle.root([merkle.leaf_hash(carried.transaction.data)])


def test_an_erased_body_leaves_the_hash() -> None:
    made = example()
    skeleton, bodies = block.split(made.data)
    erased = block.join(skeleton, [None, *bodies[1:]])
    assert erased != made.data
    assert block.decode(erased).hash == made.hash
    again, rest = block.split(erased)
    assert rest == bodies[1:]
    assert block.join(again, rest) == erased


@pytest.mark.parametrize("change", ["flip", "short", "fewer", "more"])
def test_join_refuses_other_bodies(change: str) -> None:
    skeleton, bodies = block.split(example().data)
    first = bodies[0]
    wrong = {
        "flip": [first[:-1] + bytes([first[-1] ^ 1]), *bodies[1:]],
        "short": [first[:-1], *bodies[1:]],
        "fewer": list(bodies[:-1]),
        "more": [*bodies, first],
    }[change]
    with pytest.raises(DecodeError):
        block.join(skeleton, wrong)


def test_the_overhead_is_an_upper_bound() -> None:
    carried = [make(MINIMAL, nonce=bytes([i]) * 16) for i in range(30)]
    made = block.make(2**63, bytes(32), 2**47, carried, 2**32, bytes(32), 2**16)
    items = sum(len(item.data) + ITEM_HEAD_BYTES_MAX for item in carried)
    assert len(made.data) <= items + OVERHEAD_BYTES_MAX


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 300])
@pytest.mark.parametrize("change", [None, b"", b"\xf6", b"\x00" * 400])
def test_a_change_is_found_without_reading_the_transactions(
    count: int, change: bytes | None
) -> None:
    carried = [make(MINIMAL)] * count
    made = block.make(2**40, bytes(32), 2**40, carried, 0, bytes(32), 1, change)
    assert block.peek_change(made.data) == change


def test_what_is_no_block_has_no_change() -> None:
    made = block.make(1, bytes(32), 5, [make(MINIMAL)] * 2, 0, bytes(32), 1, b"\xf6")
    assert block.peek_change(b"") is None
    for end in range(len(made.data)):
        assert block.peek_change(made.data[:end]) is None
    for at in range(0, 300, 3):
        for other in (0x00, 0x80, 0x98, 0x99, 0xF6, 0xFF):
            harmed = made.data[:at] + bytes([other]) + made.data[at + 1 :]
            assert block.peek_change(harmed) in (None, b"\xf6")


def test_a_block_with_a_change_is_as_large_as_said() -> None:
    made = block.make(2**63, bytes(32), 2**47, [], 2**32, bytes(32), 2**16, b"x" * 65_536)
    assert len(made.data) <= OVERHEAD_BYTES_MAX + 65_536
