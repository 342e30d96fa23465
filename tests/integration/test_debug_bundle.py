"""`p2pcity debug bundle`, of a node that runs and of one that does not: no secret is in it."""

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.cli.testnet.making import change_settings
from tests.bad_input_city import clean_environment, command_line
from tests.integration.process_case import AUTHOR, Author, submit

pytestmark = pytest.mark.integration

TOKEN = "correct-horse-battery-staple"
OF_A_RUNNING_NODE = {
    "status.json", "peers.json", "raft.json", "mempool.json", "metrics.txt", "readyz.json",
    "process.txt",
}  # fmt: skip
ALWAYS = {"about.json", "config.json", "doctor.json", "files.json", "log.txt"}


def bundle(node: Path, file: Path) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        command_line("debug", "bundle", "--config", str(node), "-o", str(file), "--json"),
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def parts(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        found = {}
        for member in archive.getmembers():
            stream = archive.extractfile(member)
            assert stream is not None
            found[member.name.removeprefix("p2pcity-bundle/")] = stream.read()
    return found


def test_a_bundle_has_all_that_is_known_and_nothing_secret(tmp_path: Path) -> None:
    network = LocalNetwork.create(tmp_path / "net", nodes=1, orderers=1, authors=(AUTHOR,))
    [node] = network.nodes
    tokens = node.directory / "tokens"
    tokens.write_text(f"write {TOKEN}\n", encoding="ascii")
    tokens.chmod(0o600)
    change_settings(node.config_file, {"http.tokens_file": tokens})
    with network:
        network.start()
        network.wait_ready()
        carried = Author(network).sign(data="a citizen's secret")
        submit(network, node.name, carried.data, "committed")
        code, said, errors = bundle(node.directory, tmp_path / "running.tar.gz")
    assert (code, errors) == (0, "")
    found = parts(tmp_path / "running.tar.gz")
    assert set(found) == OF_A_RUNNING_NODE | ALWAYS
    assert said["missing"] == json.loads(found["about.json"])["missing"] == {}
    assert json.loads(found["status.json"])["ledger"]["events"] == 1
    assert json.loads(found["doctor.json"])["is_reached"] is True
    assert b"p2pcity_" in found["metrics.txt"]
    assert b'"event": "ready"' in found["log.txt"]
    assert json.loads(found["config.json"])["http.tokens_file"]["value"] == str(tokens)
    assert {"views.db", "lock"} <= {row["path"] for row in json.loads(found["files.json"])["files"]}
    assert b"Max open files" in found["process.txt"]
    secrets = [TOKEN.encode(), b"a citizen's secret"]
    for key in node.directory.glob("*.key"):
        secrets += [line for line in key.read_bytes().splitlines() if b"-" not in line]
    assert len(secrets) == 4
    for name, data in found.items():
        for secret in secrets:
            assert secret not in data, name
    assert (tmp_path / "running.tar.gz").stat().st_mode & 0o777 == 0o600

    # The node is stopped now; nothing that is there is overwritten.
    code, said, errors = bundle(node.directory, tmp_path / "stopped.tar.gz")
    assert (code, errors) == (0, "")
    assert set(parts(tmp_path / "stopped.tar.gz")) == ALWAYS
    assert set(said["missing"]) == OF_A_RUNNING_NODE
    assert "no node answers" in said["missing"]["status.json"]
    code, _, errors = bundle(node.directory, tmp_path / "stopped.tar.gz")
    assert code == 2
    assert "Name another file" in errors
