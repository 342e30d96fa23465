"""Bad input, over HTTP and on the command line: two tables, and a network that is unmoved by them.

Every case says which status, reason or exit code is due. Whatever goes wrong is told in one line
with a remedy and never with a traceback, and the ledger's head does not move.
"""

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.wire.transaction import join_carried, split_carried
from tests.bad_input_cases import HTTP_CASES, TRANSACTIONS, HttpCase
from tests.bad_input_city import (
    DEADLINE_S,
    City,
    CommandCase,
    Place,
    clean_environment,
    command_line,
)
from tests.bad_input_commands import COMMAND_CASES
from tests.bad_input_nodes import fill, small_disk
from tests.integration.process_case import wait_until

pytestmark = pytest.mark.integration

MIB = 1024 * 1024

CBOR = {"Content-Type": "application/cbor"}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    city = City(tmp_path_factory.mktemp("city"))
    try:
        city.start()
        yield city
    finally:
        city.stop()


@pytest.fixture(scope="module")
def before(city: City) -> tuple[str, list[int | None]]:
    """The head and the processes from before the bad input."""
    return city.wait_equal(), [node.pid for node in city.network.nodes]


def submit(client: Client, data: str = "") -> Any:
    """Submit an event that the node signs, and wait until it is committed."""
    event = {"specversion": "1.0", "type": "city.test", "source": "/s", "data": data}
    body = json.dumps(event | {"id": secrets.token_hex(8)}).encode()
    kind = "application/cloudevents+json"
    return client.post("/v1/events", body, kind, {"wait": "committed"})


def fill_the_log(client: Client) -> None:
    """Submit until the node refuses or is gone."""
    for _ in range(1_000):
        submit(client, "x" * 16_000)


def test_the_tables_are_long_and_name_each_case_once() -> None:
    names = [case.what for case in HTTP_CASES] + [case.what for case in COMMAND_CASES]
    assert len(names) >= 40
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", HTTP_CASES, ids=lambda case: case.what)
def test_over_http(city: City, before: tuple[str, list[int | None]], case: HttpCase) -> None:
    body = None if case.body is None else case.body(city)
    reply = city.request(case.method, case.path, body, case.headers, over_tcp=case.over_tcp)
    assert reply.headers["content-type"] == "application/problem+json", reply
    problem = reply.json()
    assert (reply.status, problem["reason"]) == (case.status, case.reason), problem
    assert problem["status"] == case.status
    assert problem["detail"], problem
    assert problem["remedy"], problem
    assert b"Traceback" not in reply.body
    assert reply.headers["p2pcity-head"] == before[0]


@pytest.mark.scenario("A14", tier="P", needs="root")
@pytest.mark.parametrize("case", COMMAND_CASES, ids=lambda case: case.what)
def test_on_the_command_line(city: City, tmp_path: Path, case: CommandCase) -> None:
    with ExitStack() as stack:
        command = case.arrange(Place(city, tmp_path, stack))
        done = subprocess.run(
            [*command.prefix, *command_line(*command.arguments)],
            env=clean_environment() | dict(command.environment),
            cwd=tmp_path,
            input=command.stdin,
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
    said = (done.stdout + done.stderr).decode()
    assert "Traceback" not in said, said
    assert done.returncode == case.exit_code, said
    # The daemon says it in its log (JSON) once it runs, all else in one line on standard error.
    line = said.splitlines()[-1]
    assert line.startswith(("p2pcity: ", "{")), said
    _, says, remedy = line.partition(case.says)
    assert says, said
    assert case.remedy in remedy, said


def test_the_true_transaction_is_accepted_after_a_garbled_copy(city: City) -> None:
    true = city.carried()
    cose_bytes, events = split_carried(true)
    garbled = join_carried(cose_bytes[:-1] + bytes((cose_bytes[-1] ^ 1,)), events)
    path = f"{TRANSACTIONS}?wait=committed"
    for _ in range(2):
        refused = city.request("POST", path, garbled, CBOR)
        assert (refused.status, refused.json()["reason"]) == (422, "signature")
    taken = city.request("POST", path, true, CBOR)
    assert (taken.status, taken.json()["status"]) == (200, "committed")
    # The copy is refused for what it is, also now that its id stands on the ledger.
    again = city.request("POST", path, garbled, CBOR)
    assert (again.status, again.json()["reason"]) == (422, "signature")


@pytest.mark.scenario("A10", tier="P", needs="root")
def test_a_disk_that_fills_up(city: City, tmp_path: Path) -> None:
    with ExitStack() as stack:
        place = Place(city, tmp_path, stack)
        own = place.new_node()
        disk = small_disk(place, "32m")
        shutil.move(own / "data", disk / "data")
        file = own / "p2pcity.toml"
        text = file.read_text(encoding="utf-8")
        text = text.replace("[node]\n", f'[node]\ndata_dir = "{disk / "data"}"\n', 1)
        file.write_text(f"{text}\n[ledger]\ndisk_free_bytes_min = {8 * MIB}\n", encoding="utf-8")
        network = stack.enter_context(LocalNetwork(own.parent))
        network.start()
        network.wait_ready()

        # Below the bound nothing more is taken, and it is said with a remedy; then there is room.
        ballast = fill(disk, 4 * MIB)
        with network.client("node1") as client, pytest.raises(ApiProblem) as refused:
            submit(client)
        assert (refused.value.status, refused.value.reason) == (503, "unavailable")
        assert "Free disk space" in refused.value.remedy
        assert refused.value.retry_after_s == 10
        with network.client("node1") as client:
            assert "disk" in client.get_json("/v1/status")["alarms"][0]
            ballast.unlink()
            assert submit(client)["status"] == "committed"
        network.stop()

        # Without the bound the disk ends the node, which says so; with room it goes on.
        file.write_text(f"{text}\n[ledger]\ndisk_free_bytes_min = 0\n", encoding="utf-8")
        network.start()
        network.wait_ready()
        ballast = fill(disk)
        node = network.nodes[0]
        with network.client("node1") as client, pytest.raises((ApiProblem, Unreachable)):
            fill_the_log(client)
        assert node.wait_gone(time.monotonic() + DEADLINE_S)
        [line] = [line for line in node.last_lines(50) if '"exit_code"' in line]
        assert node.exit_code == json.loads(line)["exit_code"] == 11, line
        assert "Make room" in json.loads(line)["remedy"], line
        ballast.unlink()
        network.start()
        network.wait_ready()
        with network.client("node1") as client:
            assert submit(client)["status"] == "committed"


def test_the_network_is_none_the_worse(city: City, before: tuple[str, list[int | None]]) -> None:
    assert [node.pid for node in city.network.nodes] == before[1]
    height = city.request("GET", "/livez").headers["p2pcity-height"]
    city.commit_good()
    city.wait_equal()
    assert int(city.request("GET", "/livez").headers["p2pcity-height"]) == int(height) + 1
    wait_until(lambda: city.request("GET", "/readyz").status == 200, "it is ready")
    for node in city.network.nodes:
        lines = node.last_lines(100_000)
        assert not [line for line in lines if "Traceback" in line or '"level": "error"' in line]
