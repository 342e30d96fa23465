"""CDDL (protocol/cddl) held against bytes: those of the vectors, and messages on the way.

`check(data, file, rule)` judges one layer, `check_layers` what is signed inside as well. The
validator takes no `.cbor` inside an array, so byte strings that hold CBOR are opened here; and at
the root a choice of rules lets any array through, so the rule of the message's own kind is taken.
It also forgets the type in front of `.size` and `.ge`: each rule is tried without these as well.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pycddl

from p2pcity.wire import cbor

FOLDER = Path(__file__).resolve().parent.parent / "protocol" / "cddl"


_CONTROL = re.compile(r" \.(size|ge) (-?\d+|\(\d+\.\.\d+\))")


@cache
def _schemas(file: str, rule: str) -> tuple[pycddl.Schema, pycddl.Schema]:
    text = f"the-root = {rule}\n" + (FOLDER / f"{file}.cddl").read_text("utf-8")
    return pycddl.Schema(text), pycddl.Schema(_CONTROL.sub("", text))


def check(data: bytes, file: str, rule: str) -> None:
    """Raise ValueError or pycddl.ValidationError unless `data` is an instance of `rule`."""
    for schema in _schemas(file, rule):
        schema.validate_cbor(data)


def _check_signed(data: bytes, file: str, rule: str) -> None:
    check(data, file, rule)
    protected, _, payload, _ = _items(data[1:])
    check(protected, file, "protected")
    if file != "genesis":
        check(payload, file, "payload")


def _check_kind(data: bytes, file: str, key: str) -> None:
    message: Any = cbor.decode(data)
    check(data, file, str(message[key]))


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
        case "base":
            check(data, file, "head")
            head: Any = cbor.decode(data)
            check(head["city"], file, "city")
        case "change":
            check(data, file, "change")
        case "sync":
            _check_kind(data, file, "kind")
        case "raft":
            _check_kind(data, file, "type")
        case "gossip":
            check(data, file, "batch")
        case _:
            raise AssertionError(file)
