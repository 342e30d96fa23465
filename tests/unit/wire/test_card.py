"""Cards: made, read, and refused."""

import pytest

from p2pcity.errors import DecodeError
from p2pcity.wire import card
from tests.vectors_genesis import AUTHORS, NODES


def _make(**change: object) -> bytes:
    fields: dict[str, object] = {
        "member": "Roads",
        "name": "roads-1",
        "role": "orderer",
        "incarnation": bytes(16),
        "author": AUTHORS[0].public,
        "addresses": ["/ip4/192.0.2.1/tcp/4710"],
        **change,
    }
    return card.make(NODES[0], **fields)  # type: ignore[arg-type]  # wrong ones are the point


def test_a_card_comes_back() -> None:
    decoded = card.decode(_make())
    assert decoded.key == NODES[0].public
    assert decoded.addresses == ("/ip4/192.0.2.1/tcp/4710",)


@pytest.mark.parametrize(
    "change",
    [{"role": "king"}, {"member": ""}, {"author": bytes(31)}, {"addresses": ["nowhere"]}],
)
def test_make_refuses_wrong_fields(change: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        _make(**change)
