"""`p2pcity doctor`: the cause, and the command that mends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import (
    config_option,
    load_config,
    node_option,
    open_client,
    token_option,
)
from p2pcity.cli.output import json_option, print_json
from p2pcity.errors import ConfigError

if TYPE_CHECKING:
    from p2pcity.cli.doctor.findings import Finding
    from p2pcity.cli.doctor.local import Local

_BETWEEN_S: Final = 1.0
"""Between two looks at what should move."""


@click.command()
@config_option
@node_option
@token_option
@json_option
def doctor(
    config_file: Path | None, node_address: str | None, token_file: Path | None, is_json: bool
) -> int:
    """Say what is wrong with a node, and the command or setting that mends it.

    Looks at the node from its own machine, by its configuration, files, disk and ports, and asks
    the node if it runs; with --node alone it only asks. It works when the daemon is down. Exit
    code 0: nothing is wrong (warnings may be there); 3: something is; 4: the node can't be reached.
    """
    found, is_reached = examine(config_file, node_address, token_file)
    document = findings_document(found, is_reached)
    if is_json:
        print_json("doctor", document)
    else:
        _print(found)
    if not is_reached:
        return exit_codes.UNREACHABLE
    return exit_codes.DEGRADED if document["errors"] else 0


def findings_document(found: list[Finding], is_reached: bool) -> dict[str, Any]:
    """Return what was found, for JSON."""
    rows = [
        {
            "check": finding.check,
            "severity": finding.severity,
            "cause": finding.cause,
            "remedy": finding.remedy,
        }
        for finding in found
    ]
    errors = sum(finding.severity == "error" for finding in found)
    return {"is_reached": is_reached, "errors": errors, "findings": rows}


def _print(found: list[Finding]) -> None:
    for finding in found:
        colour = "red" if finding.severity == "error" else "yellow"
        click.secho(f"{finding.severity.upper():<7}  {finding.check}: {finding.cause}", fg=colour)
        print(f"  mend:  {finding.remedy}")
    print("nothing is wrong" if not found else f"{len(found)} findings")


def examine(
    config_file: Path | None, node_address: str | None, token_file: Path | None
) -> tuple[list[Finding], bool]:
    """Look at the node from here, ask it, and say what was found and whether it answered."""
    from p2pcity.api.client import ApiProblem, Unreachable
    from p2pcity.cli.doctor.findings import Finding
    from p2pcity.cli.doctor.local import Local, of_error

    found: list[Finding] = []
    local: Local | None = None
    # A node that was only named by --node may be on another machine.
    if node_address is None or config_file is not None:
        try:
            local = Local(load_config(config_file))
        except ConfigError as error:
            return [of_error("configuration", error)], False
        local.look()
        found += local.found
        node_address = node_address or str(local.config.http.socket)
    try:
        found += _ask(node_address, token_file, local, found)
    except Unreachable as error:
        # A stopped node; why it can't start was found above, if anything was.
        is_running = local is not None and local.is_running
        what = "does not answer, though its process runs" if is_running else "does not run"
        remedy = (
            "Look at its log; a restart helps if it hangs: `systemctl restart p2pcity`."
            if is_running
            else "Mend what else is said here, then start it: `systemctl start p2pcity`, or "
            "`p2pcity run`. Its log says why it ended."
        )
        found.append(Finding("daemon", "error", f"the node {what} ({error})", remedy))
        return found, False
    except ApiProblem as problem:
        is_token = problem.status in (401, 403)
        found.append(
            Finding(
                "token" if is_token else "daemon",
                "error",
                f"the node refuses to answer: {problem}",
                problem.remedy or "Give --token-file with a token of its http.tokens_file.",
            )
        )
        return found, is_token
    return found, True


def _ask(
    node_address: str | None, token_file: Path | None, local: Local | None, before: list[Finding]
) -> Iterator[Finding]:
    """Ask the node, twice for what should move. Raises Unreachable, ApiProblem."""
    from p2pcity.cli.doctor import findings
    from p2pcity.cli.doctor.local import reach, reach_node
    from p2pcity.node.descriptors import limit_of

    with open_client(node_address, token_file) as client:
        first = client.get_json("/v1/status")
        peers, raft = client.get_json("/v1/peers"), client.get_json("/v1/raft")
        time.sleep(_BETWEEN_S)
        status = client.get_json("/v1/status")
    found: list[Finding] = [
        *findings.of_quorum(raft),
        *findings.of_identity(status, raft),
        *findings.of_peers(peers),
        *findings.of_status(status),
        *findings.of_progress(first, status),
    ]
    if local is not None:
        limit = limit_of(status["node"]["pid"])
        if limit is not None:
            found += findings.of_descriptors(status["process"]["descriptors"], limit)
        found += reach(_addresses(local, peers), _connected(peers))
    else:
        found += reach_node(status["node"].get("addresses", ()))
    found += findings.of_alarms(status, [*before, *found])
    yield from dict.fromkeys(found)


def _connected(peers: dict[str, Any]) -> dict[str, str]:
    return {
        row["name"] or row["peer"]: row["direction"]
        for row in peers["peers"]
        if row["is_connected"]
    }


def _addresses(local: Local, peers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Where other nodes should be: by the genesis, by net.peers and by what they announced."""
    from p2pcity.crypto.keys import peer_id

    names = {row["peer"]: row["name"] or row["peer"] for row in peers["peers"]}
    if local.genesis is not None:
        for node in local.genesis.nodes:
            peer = peer_id(node.key)
            if peer in names:
                yield from ((names[peer], address) for address in node.addresses)
    for address in local.config.net.peers:
        plain, _, peer = address.rpartition("/p2p/")
        yield names.get(peer, peer), plain
    for row in peers["peers"]:
        yield from ((names[row["peer"]], address) for address in row.get("addresses", ()))
