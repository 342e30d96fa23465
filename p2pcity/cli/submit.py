"""`p2pcity submit`: events from a file, standard input or flags, signed by the node or already."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any, Final

import click

from p2pcity.cli import exit_codes
from p2pcity.cli.node_address import node_option, open_client, token_option
from p2pcity.cli.output import json_option, print_json, print_table
from p2pcity.errors import ConfigError, Unavailable

EVENTS_AT_ONCE: Final = 1000
_WAIT: Final = ("committed", "accepted", "none")


@click.command()
@click.option(
    "-f",
    "file",
    metavar="FILE|-",
    help="CloudEvents JSON (an object, an array, or one a line), or a signed transaction (CBOR).",
)
@click.option("--type", "type_", help="The event's type.")
@click.option("--data", help="The event's data, as JSON.")
@click.option("--source", help="The event's source [default: /cli].")
@click.option("--subject", help="The event's subject.")
@click.option("--id", "id_", help="The event's id [default: a new one]; the same id is sent once.")
@click.option("--wait", type=click.Choice(_WAIT), default="committed", show_default=True)
@click.option("--timeout-ms", type=click.IntRange(1, 60_000), default=10_000, show_default=True)
@node_option
@token_option
@json_option
def submit(
    file: str | None,
    type_: str | None,
    data: str | None,
    source: str | None,
    subject: str | None,
    id_: str | None,
    wait: str,
    timeout_ms: int,
    node_address: str | None,
    token_file: Path | None,
    is_json: bool,
) -> int:
    """Send events to a node.

    The node signs CloudEvents with its own author key. Exit code 0 only when all were taken.
    """
    if (file is None) == (type_ is None):
        raise ConfigError(
            "submit takes either -f FILE or --type",
            remedy="Use -f - for standard input, or --type T --data JSON for one event.",
        )
    if file is not None:
        requests = _read_requests(file)
    else:
        event = {
            "specversion": "1.0",
            "id": id_ or str(uuid.uuid4()),
            "type": type_,
            "source": source or "/cli",
            **({"subject": subject} if subject else {}),
            **({"data": _parse_json(data, "--data")} if data is not None else {}),
        }
        requests = [("/v1/events", _EVENT, json.dumps(event).encode())]
    answers: list[dict[str, Any]] = []
    with open_client(node_address, token_file) as client:
        from p2pcity.api.client import ApiProblem

        for path, kind, body in requests:
            params: dict[str, str | int | None] = {"wait": wait, "timeout_ms": timeout_ms}
            try:
                document = client.post(path, body, kind, params)
            except ApiProblem as problem:
                if "answers" not in problem.members:
                    raise
                document = dict(problem.members)
            answers.extend(document.get("answers", [document]))
    _print(answers, is_json)
    refused = [item for item in answers if item["status"] in ("rejected", "expired")]
    if not refused and wait == "committed" and any(a["status"] == "pending" for a in answers):
        raise Unavailable(
            f"not yet committed after {timeout_ms} ms; it is still on its way",
            remedy="Ask with `p2pcity ledger transaction ID`, or look at `p2pcity status`.",
        )
    return exit_codes.FAILED if refused else 0


_EVENT: Final = "application/cloudevents+json"
_BATCH: Final = "application/cloudevents-batch+json"


def _read_requests(file: str) -> list[tuple[str, str, bytes]]:
    """Return (path, content type, body) of each request that the file's content takes."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", remedy="Name a file with -f.") from None
    if not data.strip():
        raise ConfigError(f"{file} is empty", remedy="Give CloudEvents JSON or a transaction.")
    if data[0] == 0x82:  # a CBOR array of two: a carried transaction, or a sequence of them
        from p2pcity.api.sequence import split

        kind = "application/cbor" if len(split(data)) == 1 else "application/cbor-seq"
        return [("/v1/transactions", kind, data)]
    events = _read_events(data, file)
    return [
        ("/v1/events", _BATCH, json.dumps(events[start : start + EVENTS_AT_ONCE]).encode())
        for start in range(0, len(events), EVENTS_AT_ONCE)
    ]


def _read_events(data: bytes, file: str) -> list[Any]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8", remedy="Give JSON in UTF-8.") from None
    try:
        document = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        return [_parse_json(line, f"{file}, record {n}") for n, line in enumerate(lines, 1)]
    return document if isinstance(document, list) else [document]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{where} is no JSON: {error}",
            remedy="A text needs its quotes: --data '\"text\"'."
            if where.startswith("--")
            else "One CloudEvent in JSON, a list of them, or one a line.",
        ) from None


def _print(answers: list[dict[str, Any]], is_json: bool) -> None:
    if is_json:
        print_json("submit", {"answers": answers})
        return
    rows = [
        (item["id"], item["status"], item["height"], item["leaf_index"], item["reason"])
        for item in answers
    ]
    print_table(["TRANSACTION", "STATUS", "HEIGHT", "LEAF", "REASON"], rows)
