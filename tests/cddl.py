"""CDDL (protocol/cddl) held against bytes: those of the vectors, and messages on the way.

`check(data, file, rule)` judges one layer, `check_layers` what is signed inside as well. The
validator takes no `.cbor` inside an array, so byte strings that hold CBOR are opened here.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pycddl

from p2pcity.wire import cbor

FOLDER = Path(__file__).resolve().parent.parent / "protocol" / "cddl"


@cache
def _schema(file: str, rule: str) -> pycddl.Schema:
    text = (FOLDER / f"{file}.cddl").read_text("utf-8")
    return pycddl.Schema(f"the-root = {rule}\n{text}")


def check(data: bytes, file: str, rule: str) -> None:
    """Raise ValueError or pycddl.ValidationError unless `data` is an instance of `rule`."""
    _schema(file, rule).validate_cbor(data)


def _check_signed(data: bytes, file: str, rule: str) -> None:
    check(data, file, rule)
    protected, _, payload, _ = _items(data[1:])
    check(protected, file, "protected")
    if file != "genesis":
        check(payload, file, "payload")


def _items(data: bytes) -> list[Any]:
    items: Any = cbor.decode(data)
    return list(items)


def check_layers(data: bytes, file: str) -> None:
    """Judge a whole message of `file`, with everything that is inside byte strings."""
    match file:
        case "transaction":
            check(data, file, "carried")
            signed, events = _items(data)
            _check_signed(signed, file, "cose-sign1")
            for event in events:
                if len(event) != 32:
                    check(event, "event", "event")
        case "genesis":
            check(data, file, "genesis")
            body, signatures = _items(data)
            check(body, file, "body")
            for signature in signatures:
                _check_signed(signature, file, "cose-sign1")
        case "card" | "hello":
            _check_signed(data, file, file)
        case "block":
            check(data, file, "block")
            check(_items(data)[0], file, "header")
        case "sync":
            message: Any = cbor.decode(data)
            check(data, file, str(message["kind"]))
        case "gossip":
            check(data, file, "batch")
        case _:
            raise AssertionError(file)
