"""A second reading of hello (04), importing nothing of p2pcity."""

from typing import Any

from tests.second_reader import Signed, binary, decode, fields, items, need, number, text

KIND = "application/p2pcity-hello+cbor"
TIME_MAX = 253_402_300_799_999


def addresses(value: Any) -> None:
    for x in items(value, 16):
        need(text(x, 512).startswith("/") and x.isprintable() and " " not in x)


def read_promises(value: Any) -> list[list[Any]]:
    """What a node says that voters promised."""
    found = []
    for item in items(value, 64):
        need(len(items(item)) == 4)
        peer, incarnation, index, term = item
        found.append(
            [text(peer, 128, 1), binary(incarnation, 16).hex(), number(index), number(term)]
        )
    return found


def judge_hello(given: dict[str, Any]) -> dict[str, Any]:
    data = bytes.fromhex(given["data"])
    need(len(data) <= 16 * 1024, "size")
    signed = Signed(data, KIND)
    names = ("network", "protocol", "protocol_oldest", "release", "parameters", "incarnation")
    hello = fields(decode(signed.payload), *names, "height", "addresses", "time", open_=True)
    network, parameters = binary(hello["network"], 32), binary(hello["parameters"], 32)
    newest = number(hello["protocol"])
    oldest = number(hello["protocol_oldest"], 0, newest)
    need(text(hello["release"], 64, 0).isprintable())
    binary(hello["incarnation"], 16)
    addresses(hello["addresses"])
    number(hello["time"], 0, TIME_MAX)
    height = number(hello["height"])
    log = [number(hello[key]) if key in hello else None for key in ("last_index", "term", "epoch")]
    promises = read_promises(hello.get("promises", []))
    need(signed.is_valid, "signature")
    mine = given["mine"]
    epochs = mine["epoch"], log[2]
    refusals = (
        ("wrong-network", network.hex() != mine["network"]),
        ("protocol-too-old", newest < mine["protocol_oldest"]),
        ("protocol-too-new", oldest > mine["protocol"]),
        ("other-parameters", parameters.hex() != mine["parameters"]),
        ("older-epoch", None not in epochs and log[2] < epochs[0]),
        ("newer-epoch", None not in epochs and log[2] > epochs[0]),
    )
    return {
        "to_be_signed": signed.to_be_signed.hex(),
        "key": signed.kid.hex(),
        "height": height,
        "last_index": log[0],
        "term": log[1],
        "promises": promises,
        "refused": next((reason for reason, is_so in refusals if is_so), None),
    }
