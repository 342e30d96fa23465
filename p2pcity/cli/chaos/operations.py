"""What an operator does while clients write: a hand-over, and a new node in an orderer's place.

Generators, as the nemeses are; `lasts_s` is how long the operation may take.
"""

import base64
import json
import threading
import time
from collections.abc import Callable
from signal import SIGTERM
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.chaos.plan import Strike
from p2pcity.cli.chaos.site import ASK_S, Acting, Site, get, wait
from p2pcity.cli.testnet.local_node import LocalNode

_ASKED_S: Final = 5.0
_CHANGE_S: Final = 20.0
_GONE_S: Final = 10.0
_POLL_S: Final = 0.1


def transfer(site: Site, strike: Strike) -> Acting:
    """The leader is asked to hand over; that counts once somebody else leads."""
    before = site.victim(strike)
    if before is None:
        return 0
    is_asked = wait(lambda: _ask(site, before, "transfer", ASK_S) is not None, _ASKED_S)
    yield
    return int(is_asked and wait(lambda: site.leader() not in (None, before), _ASKED_S))


def replace(site: Site, strike: Strike) -> Acting:
    """A new node is started and takes an orderer's place; the old one is stopped and gone.

    Clients leave the old one first, and it has nothing left to be ordered when it is removed.
    """
    name = site.victim(strike)
    if name is None or not site.spares:
        return 0
    old, new = site.network.node(name), site.spares.popleft()
    done, ended = threading.Event(), threading.Event()
    with site.keeping([old.name, new.name]):
        site.shunned.update((old.name, new.name))
        new.start()
        site.network.nodes = (*site.network.nodes, new)
        site.watcher.watch(new)
        thread = threading.Thread(
            target=_replace, args=(site, old, new, done, ended), name="replace", daemon=True
        )
        thread.start()
        yield
        ended.set()
        thread.join(_CHANGE_S + 2 * ASK_S)
        site.shunned.discard(new.name)
        if not done.is_set():
            site.shunned.discard(old.name)
            return 0
        _take_away(site, old)
    return 1


def _replace(
    site: Site, old: LocalNode, new: LocalNode, done: threading.Event, ended: threading.Event
) -> None:
    """Ask whoever leads, step by step, until the new node votes and the old one is unknown."""
    while not ended.is_set() and not done.is_set():
        leader = site.leader()
        document = None if leader is None else get(site.network.node(leader), "/v1/raft")
        if leader is not None and document is not None and not document["is_joint"]:
            places = {row["member"]: row["place"] for row in document["nodes"]}
            votes = places.get(new.name) == "voter"
            if votes and old.name not in places:
                done.set()
            elif new.name not in places and _is_drained(old):
                card = base64.b64encode((new.directory / "node.card").read_bytes()).decode()
                _change(site, leader, "replace", {"nodes": [old.name], "cards": [card]})
            elif votes:
                # Leadership moved when only the first half was done.
                _change(site, leader, "remove", {"nodes": [old.name]})
        ended.wait(_POLL_S)


def _is_drained(node: LocalNode) -> bool:
    """Whether everything that a node took is ordered."""
    status = get(node, "/v1/status")
    return status is not None and not status["outbox"]["pending"]


def _take_away(site: Site, node: LocalNode) -> None:
    """Stop a node that is no part of the city any more."""
    site.explain(node.name, 0)
    node.send(SIGTERM)
    if not node.wait_gone(time.monotonic() + _GONE_S):
        site.findings.append(f"{node.name} did not end within {_GONE_S:.0f} s of SIGTERM")
        return
    site.network.nodes = tuple(x for x in site.network.nodes if x is not node)
    site.removed.append(node)


def _change(site: Site, leader: str, operation: str, body: dict[str, Any]) -> None:
    document = {**body, "force": [], "timeout_ms": int(_CHANGE_S * 1000)}
    _ask(site, leader, operation, _CHANGE_S + ASK_S, json.dumps(document).encode())


def _ask(site: Site, leader: str, operation: str, timeout_s: float, body: bytes = b"") -> Any:
    """Ask the leader for an operation; its answer, None when it refuses or does not answer."""
    with site.network.node(leader).client(timeout_s) as client:
        try:
            return client.post(f"/v1/admin/{operation}", body)
        except (Unreachable, ApiProblem):
            return None


ACTS: Final[dict[str, Callable[[Site, Strike], Acting]]] = {
    "transfer": transfer,
    "replace": replace,
}
