"""The CDDL files against the vectors: what is valid in prose and code is valid there too.

The other way round does not hold (CDDL can't say "deterministic"), but shapes are refused.
"""

import json
from pathlib import Path

import pytest

from tests.cddl import FOLDER, check, check_layers
from tests.generate_vectors import VECTORS
from tests.vector_parts import expand

AREAS = (
    "event",
    "transaction",
    "admission",
    "genesis",
    "gossip",
    "hello",
    "sync",
    "raft",
    "block",
    "change",
    "apply",
    "base",
)
# What CDDL says of itself; every other rule of these areas is prose.
REFUSED = (
    "event/invalid/id-missing.json",
    "event/invalid/place-one-number.json",
    "transaction/invalid/network-31.json",
    "transaction/invalid/unknown-field.json",
    "transaction/invalid/content-type.json",
    "genesis/invalid/role-unknown.json",
    "genesis/invalid/card-unknown-field.json",
    "hello/invalid/incarnation-17.json",
    "hello/invalid/time-missing.json",
    "block/invalid/parent-31.json",
    "block/invalid/unknown-field.json",
    "sync/invalid/session-15.json",
    "sync/invalid/forward-verdict.json",
    "raft/invalid/vote-without-term.json",
    "raft/invalid/append-entry-bare.json",
    "block/invalid/change-integer.json",
    "block/invalid/item-text.json",
    "transaction/invalid/event-short.json",
    "sync/invalid/forward-id.json",
    "gossip/invalid/text-item.json",
    "event/invalid/id-integer.json",
    "event/invalid/place-float.json",
    "genesis/invalid/node-key-31.json",
    "genesis/invalid/types-257.json",
    "change/invalid/kind-unknown.json",
    "change/invalid/key-31.json",
    "change/invalid/operation-unknown.json",
    "change/invalid/step-array.json",
    "change/invalid/node-unknown-field.json",
    "base/invalid/head-unknown-field.json",
    "base/invalid/head-city-missing.json",
    "base/invalid/head-height-0.json",
)


def _check(path: Path) -> None:
    vector = expand(json.loads(path.read_text("utf-8")))
    area = path.parent.parent.name
    if area == "apply":
        for item in vector["input"]["blocks"]:
            check_layers(bytes.fromhex(item), "block")
        return
    what = vector["input"].get("what", area)
    data = bytes.fromhex(vector["input"]["data"])
    if what == "chain":
        return  # records, no CBOR
    if what == "head":
        check_layers(data, "base")
    elif area == "event":
        check(data, "event", "event")
    elif area == "admission":
        check_layers(data, "transaction")
    elif what.startswith("forward"):
        check(data, "forward", "answer" if what == "forward-answer" else "request")
    else:
        check_layers(data, what if area == "genesis" else area)


@pytest.mark.parametrize("area", AREAS)
def test_valid_vectors_are_instances(area: str) -> None:
    paths = sorted((VECTORS / area / "valid").glob("*.json"))
    assert paths
    for path in paths:
        _check(path)


@pytest.mark.parametrize("path", REFUSED)
def test_wrong_shapes_are_not(path: str) -> None:
    with pytest.raises(Exception, match="validating"):
        _check(VECTORS / path)


def test_every_file_is_read() -> None:
    read = {*AREAS, "card", "forward"} - {"admission", "apply"}
    assert {path.stem for path in FOLDER.glob("*.cddl")} == read
