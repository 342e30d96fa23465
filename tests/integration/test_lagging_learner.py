"""A learner that lags is to vote, and the leader dies: refused or completed, a quorum stays."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from signal import Signals

import pytest

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.testnet.local_network import LocalNetwork
from tests.integration.members_case import CHANGE_S, change, join, leading, p2pcity, wait_place
from tests.integration.process_case import (
    Load,
    ask,
    freeze,
    log_lines,
    running_network,
    thaw,
    verify,
    wait_serving,
    wait_until,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.scenario("D5", tier="P"),
]
LEARNER = "node4"
# More than a leader counts as "caught up".
_MISSED = 60


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_lagging_learner_is_to_vote_while_the_leader_dies(
    tmp_path: Path, is_forced: bool
) -> None:
    with running_network(tmp_path) as network:
        first = [node.name for node in network.nodes]
        with Load(network, clients=2, targets=first) as load:
            load.wait_more(20)
            join(network, LEARNER)
            # It stands still, so it is not promoted by itself, and misses what comes.
            freeze(network, LEARNER)
            load.wait_more(_MISSED)
            leader = leading(network)
            code, output = p2pcity(network.node(leader), "raft", "promote", LEARNER)
            assert (code, "UNSAFE" in output) == (5, True), output
            load.wait_more(20)
            assert _raft(network, leader)["voters"] == 3

            load.targets = others_of(first, leader)
            asked = _asked(network, leader, is_forced=is_forced)
            if is_forced:
                # It is ordered, and it may be in effect: the leader dies at some step of it.
                wait_until(lambda: _is_proposed(network, leader), "the change is on its way")
            network.kill(leader, Signals.SIGKILL)
            asked.join(CHANGE_S)
            assert not asked.is_alive(), "who asked hears that there is no answer"
            if not is_forced:
                # It was refused: two voters of three are there, and need nobody else.
                load.wait_more(20)
            # With it there are three of four, whether it votes by now or not.
            thaw(network, LEARNER)
            load.wait_more(20)
            left = [*load.targets, LEARNER]
            wait_until(lambda: _is_settled(network, left), "no state is joint", deadline_s=CHANGE_S)
            network.node(leader).start()
            wait_serving(network, leader)
            if _place(network, left[0], LEARNER) != "voter":
                change(network, "promote", LEARNER)
            wait_place(network, LEARNER, "voter", *first, LEARNER)
            load.wait_more(20)
        verify(network, load.acknowledged.values())


def others_of(names: list[str], without: str) -> list[str]:
    return [name for name in names if name != without]


def _asked(network: LocalNetwork, leader: str, *, is_forced: bool) -> threading.Thread:
    """Ask the leader to promote, by its socket; it may die before it answers."""
    body = json.dumps({"nodes": [LEARNER], "force": [LEARNER] if is_forced else []}).encode()

    def ask_leader() -> None:
        with network.client(leader) as client, suppress(ApiProblem, Unreachable):
            client.post("/v1/admin/promote", body)

    thread = threading.Thread(target=ask_leader, daemon=True)
    thread.start()
    return thread


def _raft(network: LocalNetwork, name: str) -> dict[str, object]:
    document: dict[str, object] | None = ask(network, name, "/v1/raft")
    assert document is not None, f"{name} answers"
    return document


def _is_proposed(network: LocalNetwork, name: str) -> bool:
    lines = [line for line in log_lines(network, name) if line["event"] == "change_proposed"]
    # The first one added it.
    return len(lines) >= 2


def _place(network: LocalNetwork, seen_by: str, name: str) -> str:
    rows = ask(network, seen_by, "/v1/raft")["nodes"]
    return next(str(row["place"]) for row in rows if row["member"] == name)


def _is_settled(network: LocalNetwork, names: list[str]) -> bool:
    documents = [ask(network, name, "/v1/raft") for name in names]
    return all(document is not None and not document["is_joint"] for document in documents)
