"""What a command printed with --json, held against the schema that the release carries."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import jsonschema_rs

from p2pcity.api.schemas import SCHEMAS
from p2pcity.cli.schema import NAMES, text_of

SHOWN_ELSEWHERE: Final = {
    "bench": "test_bench.py",
    "demo": "test_demo.py",
    "raft-recover": "test_recover.py",
    "testnet-chaos": "test_chaos_run.py",
    "testnet-chaos-check": "test_chaos_run.py",
    "testnet-scenario": "test_scenario_files.py",
}
"""Names whose documents other tests make, and check here."""
_LINE: Final = "StoredEvent"


def check(document: Mapping[str, Any]) -> str:
    """Check a document against the schema that it names; the file's name.

    A line of query or tail names none: it is the API's event.
    """
    if "schema" not in document:
        _of_a_line().validate(document)
        return _LINE
    project, name, number = document["schema"].split("/")
    assert (project, number) == ("p2pcity", "1")
    [file] = [file for file in NAMES if name in _names(file)]
    _validator(file).validate(document)
    return file


def _names(file: str) -> list[str]:
    """The documents that one file describes: changes of the orderers have one shape."""
    member = json.loads(text_of(file))["properties"]["schema"]
    return [name.split("/")[1] for name in member.get("enum") or [member["const"]]]


@cache
def _validator(file: str) -> jsonschema_rs.Draft202012Validator:
    schema = json.loads(text_of(file))
    jsonschema_rs.meta.validate(schema)
    return jsonschema_rs.Draft202012Validator(schema)


@cache
def _of_a_line() -> jsonschema_rs.Draft202012Validator:
    root = {"$ref": f"#/components/schemas/{_LINE}", "components": {"schemas": dict(SCHEMAS)}}
    return jsonschema_rs.Draft202012Validator(root)
