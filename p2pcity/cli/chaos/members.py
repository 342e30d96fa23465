"""A nemesis that changes who votes, while other faults strike."""

import json
import threading
from typing import Final

from p2pcity.api.client import ApiProblem, Unreachable
from p2pcity.cli.chaos.plan import Strike
from p2pcity.cli.chaos.site import ASK_S, Acting, Site, get

_CHANGE_S: Final = 2.0
_POLL_S: Final = 0.05


def members(site: Site, strike: Strike) -> Acting:
    """A voter, perhaps the leader, is demoted; it is promoted again after a while."""
    voters = [node.name for node in site.network.nodes if node.role == "orderer"]
    name = site.victim(strike, voters)
    if name is None:
        return 0
    # It may take effect even when nobody says so in time.
    site.demoted.add(name)
    struck, ended = threading.Event(), threading.Event()

    def demote() -> None:
        while not ended.is_set() and not struck.is_set():
            if _change(site, "demote", name):
                struck.set()
            ended.wait(_POLL_S)

    # Other faults begin and end while it is asked for.
    thread = threading.Thread(target=demote, name="members", daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(2 * _CHANGE_S + ASK_S)
    promote(site, name)
    return int(struck.is_set())


def promote(site: Site, name: str) -> bool:
    """Let a demoted node vote again; whether it surely does. It is to be asked again if not.

    One that was replaced meanwhile has nothing to wait for.
    """
    leader = site.leader()
    document = None if leader is None else get(site.network.node(leader), "/v1/raft")
    if document is None or document["is_joint"]:
        return False
    places = {row["member"]: row["place"] for row in document["nodes"]}
    # An answer may have been lost that said that it is done.
    is_done = places.get(name, "voter") == "voter" or _change(site, "promote", name)
    if is_done:
        site.demoted.discard(name)
    return is_done


def _change(site: Site, operation: str, name: str) -> bool:
    """Ask whoever leads for a change; whether it is in effect."""
    leader = site.leader()
    if leader is None:
        return False
    # A city of three tolerates nothing with two voters: an operator would have to force it too.
    body = {"nodes": [name], "force": [name], "timeout_ms": int(_CHANGE_S * 1000)}
    with site.network.node(leader).client(_CHANGE_S + ASK_S) as client:
        try:
            client.post(f"/v1/admin/{operation}", json.dumps(body).encode())
        except (Unreachable, ApiProblem):
            return False
    return True
