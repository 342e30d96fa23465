"""The node, as sending asks it: one connection a thread, answers as they are in the documents."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from p2pcity.api.client import ApiProblem, Client, Unreachable
from p2pcity.cli import exit_codes
from p2pcity.errors import ConfigError, Unavailable
from p2pcity.wire import cbor

WAIT_MS: Final = 20_000
_BUSY: Final = (429, 503)


class Away(Unavailable):
    """The node can't be reached now; after the patience this is the command's end."""

    exit_code = exit_codes.UNREACHABLE


class NodeLedger:
    """Asks one node over its HTTP surface; safe between threads."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._local = threading.local()

    def network(self) -> bytes:
        """Return the id of the node's network; Unreachable when nobody answers."""
        status = self._client().get_json("/v1/status")
        return bytes.fromhex(status["network"]["id"])

    def known(self, names: Sequence[bytes]) -> Sequence[bool]:
        """Ask `POST /v1/events/known`: which of these names stand on the ledger?"""
        reply = self._ask("/v1/events/known", cbor.encode(list(names)), "application/cbor", {})
        answer = cbor.decode(reply)
        if not isinstance(answer, list) or len(answer) != len(names):
            raise ConfigError("the node's answer is not understood", remedy="Is it a p2pcity node?")
        return [item is True for item in answer]

    def submit(self, carried: Sequence[bytes]) -> Sequence[Mapping[str, Any]]:
        """Send a CBOR sequence and wait for the commit; one answer a transaction."""
        params = {"wait": "committed", "timeout_ms": str(WAIT_MS)}
        try:
            reply = self._client().request(
                "POST",
                "/v1/transactions",
                params,
                body=b"".join(carried),
                headers={"Content-Type": "application/cbor-seq"},
            )
            document = reply.json()
        except ApiProblem as problem:
            if "answers" not in problem.members:
                raise self._translated(problem) from problem
            document = problem.members
        except Unreachable as error:
            raise Away(str(error), remedy=error.remedy) from error
        answers = document["answers"]
        assert isinstance(answers, list)
        return answers

    def _ask(self, path: str, body: bytes, kind: str, params: Mapping[str, str]) -> bytes:
        headers = {"Content-Type": kind, "Accept": "application/cbor"}
        try:
            return self._client().request("POST", path, params, body=body, headers=headers).body
        except ApiProblem as problem:
            raise self._translated(problem) from problem
        except Unreachable as error:
            raise Away(str(error), remedy=error.remedy) from error

    @staticmethod
    def _translated(problem: ApiProblem) -> Exception:
        if problem.status in _BUSY:
            wait_ms = 1000 * (problem.retry_after_s or 1)
            return Unavailable(str(problem), retry_after_ms=wait_ms, remedy=problem.remedy)
        return problem

    def _client(self) -> Client:
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._connect()
        return client
