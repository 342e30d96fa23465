"""Schemathesis tries every operation by the surface's own OpenAPI document.

`P2PCITY_API_URL` names a node to try instead of the service in memory; `P2PCITY_API_TOKEN` is a
token of it that may write.
"""

import json
import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from p2pcity.api.client import Client
from p2pcity.api.dispatch import Operation
from p2pcity.api.openapi import document
from p2pcity.api.routes import OPERATIONS
from tests.api_server import TOKEN, running_server

pytestmark = pytest.mark.integration

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 25
# A stream goes on for ever; test_api_client.py follows it.
TRIED = [item for item in OPERATIONS if item.path != "/v1/stream"]


@schemathesis.serializer("application/cbor", "application/cbor-seq")
def _as_bytes(_: schemathesis.SerializationContext, value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


# Any 4xx refuses: a batch above `maxItems` is rarely drawn, and gets 413, which is no default.
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}
)
SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(document(OPERATIONS))), config=CONFIG)


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The node to try: swap it by the environment."""
    url = os.environ.get("P2PCITY_API_URL")
    if url:
        yield url
        return
    with running_server(tmp_path_factory.mktemp("api")) as server:
        yield server.url


def test_the_document_is_served(base_url: str) -> None:
    with Client(base_url) as client:
        assert client.get_json("/openapi.json") == SCHEMA.raw_schema


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(item, mode, id=f"{item.name}-{mode.value}")
        for item in TRIED
        for mode in GenerationMode
        # Without parameters and body there is nothing to get wrong.
        if mode is GenerationMode.POSITIVE or item.parameters or item.bodies
    ],
)
def test_the_surface_keeps_its_own_document(
    base_url: str, operation: Operation, mode: GenerationMode
) -> None:
    token = os.environ.get("P2PCITY_API_TOKEN", TOKEN)
    headers = {"Authorization": f"Bearer {token}"}
    checks = CHECKS if mode is GenerationMode.POSITIVE else [*CHECKS, negative_data_rejection]

    @given(SCHEMA[operation.path][operation.method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def try_cases(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=base_url, checks=checks, headers=headers)

    try_cases()
