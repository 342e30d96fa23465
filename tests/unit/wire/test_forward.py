"""Forwarding: transactions and verdicts come back."""

from p2pcity.wire import forward
from p2pcity.wire.forward import ForwardResult


def test_requests_and_answers_come_back() -> None:
    assert forward.decode_forward(forward.encode_forward([b"a", b"b"])) == [b"a", b"b"]
    results = [
        ForwardResult(bytes(32), "accept", "accepted"),
        ForwardResult(None, "reject", "size"),
    ]
    assert forward.decode_answer(forward.encode_answer(results)) == results
