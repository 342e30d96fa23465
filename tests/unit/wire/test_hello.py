"""Hello: the parameters' digest is that of the published file."""

import tomllib
from pathlib import Path

from p2pcity.crypto.digest import digest
from p2pcity.wire import cbor, hello
from p2pcity.wire.hello import HelloAnswer


def test_the_digest_is_that_of_parameters_toml(repository: Path) -> None:
    values = tomllib.loads((repository / "protocol" / "parameters.toml").read_text("utf-8"))
    for name in ("protocol_version", "protocol_version_oldest", "rules_version"):
        del values[name]
    assert hello.parameters_digest() == digest("p2pcity/parameters/1", cbor.encode(values))


def test_answers_come_back() -> None:
    for answer in (HelloAnswer(True), HelloAnswer(False, "wrong-network", "another city")):
        assert HelloAnswer.decode(answer.encode()) == answer
