"""Clients that write down what they asked and were told: writers, readers, watchers of streams.

Each is a thread with connections of its own; all end within the time of one answer once they
are told to. The history grows in memory, which bounds a run to some 1,000,000 operations, and in
a file.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final, Self

from p2pcity.api.client import ApiProblem, Client, Params, Reply, Unreachable
from p2pcity.cli.chaos.history import EventPlace, Kind, Operation, Outcome
from p2pcity.cli.testnet.local_network import LocalNetwork
from p2pcity.crypto.keys import SIGNATURE_BYTES, PrivateKey
from p2pcity.wire import transaction
from p2pcity.wire.event import Event
from p2pcity.wire.transaction import Carried

ANSWER_S: Final = 8.0
_WAIT_MS: Final = 4_000
_RETRIES: Final = 40
_RETRY_S: Final = 0.1
_LIFETIME_MS: Final = 6 * 3600 * 1000
_KNOWN_MAX: Final = 2_000
_PAGE: Final = 500
_STREAM_EVENTS_MAX: Final = 400
_SILENCE_S: Final = 3.0
_CBOR: Final = "application/cbor"
_SEQUENCE: Final = "application/cbor-seq"


class Recorder:
    """Takes the operations of all clients, in the order in which they ended."""

    def __init__(self, file: Path) -> None:
        self.operations: list[Operation] = []
        self.acknowledged = 0
        self.reads = {"linearizable": 0, "local": 0}
        self._told: set[str] = set()
        self._file = file.open("w", encoding="utf-8")
        self._changed = threading.Condition()

    def add(self, operations: Sequence[Operation]) -> None:
        """Keep operations, and write each as a line."""
        text = "".join(f"{operation.to_line()}\n" for operation in operations)
        with self._changed:
            self._file.write(text)
            self.operations += operations
            for operation in operations:
                self._count(operation)
            self._changed.notify_all()

    def _count(self, operation: Operation) -> None:
        if operation.outcome != "ok":
            return
        if operation.kind == "submit" and operation.status == "committed":
            if operation.id not in self._told:
                self.acknowledged += 1
            self._told.add(operation.id)
        elif operation.kind in ("read", "query"):
            self.reads["linearizable"] += 1
        elif operation.kind == "local":
            self.reads["local"] += 1

    def wait(self, acknowledged: int, reads: int, until_s: float) -> bool:
        """Wait until so many transactions in all are acknowledged, and reads of each kind done.

        False when that is not so at `until_s` of time.monotonic().
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self.acknowledged >= acknowledged and min(self.reads.values()) >= reads,
                max(0.0, until_s - time.monotonic()),
            )

    def close(self) -> None:
        """Close the file; nothing is added after that."""
        self._file.close()


class Clients:
    """All clients of a run: a context manager that starts and ends them."""

    def __init__(
        self,
        network: LocalNetwork,
        recorder: Recorder,
        *,
        author: PrivateKey,
        seed: int,
        batch: int,
        writers: int = 6,
        pause_s: float = 0.02,
        rate: float = 0.0,
        shunned: Collection[str] = (),
    ) -> None:
        """Make them; `author` signs what they write.

        The writers together send at most `rate` transactions a second; 0: as they are answered.
        `shunned` are nodes that all leave alone, and may change at any time.
        """
        self.network = network
        self.recorder = recorder
        self.author = author
        self.pace_s = writers / rate if rate else 0.0
        self._shunned = shunned
        self.batches = (1, 1, max(1, batch // 4), batch)
        self.readers = [Reader(self, f"{seed} stream {i}", 200 + i) for i in range(2)]
        self._stopping = threading.Event()
        self._failures: list[BaseException] = []
        self.known: deque[Carried] = deque(maxlen=_KNOWN_MAX)
        turns: list[tuple[Callable[[], None], float]] = []
        for number in range(writers):
            turns.append((Writer(self, f"{seed} writer {number}", number).turn, pause_s))
        for number in range(4):
            looker = Looker(self, f"{seed} looker {number}", 100 + number)
            turns.append((looker.query, 0.1) if number == 0 else (looker.read, 0.02))
        looker = Looker(self, f"{seed} looker", 150)
        turns.append((looker.look, 0.05))
        turns += [(reader.turn, 0.05) for reader in self.readers]
        self._threads = [
            threading.Thread(target=self._run, args=turn, name="client", daemon=True)
            for turn in turns
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[str]:
        """End all clients; what went wrong in one of them, a sentence each."""
        self._stopping.set()
        until_s = time.monotonic() + 2 * ANSWER_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.1, until_s - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in self._threads)
        said = [f"a client failed: {type(e).__name__}: {e}" for e in self._failures]
        return said + [f"{hanging} clients do not end"] * (hanging > 0)

    def choose(self, chance: random.Random) -> str:
        """The name of a node to ask."""
        names = [node.name for node in self.network.nodes]
        return chance.choice([name for name in names if name not in self._shunned] or names)

    @property
    def is_stopping(self) -> bool:
        """Whether the clients are to end."""
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Let a client wait, no longer than until the end."""
        self._stopping.wait(seconds)

    def _run(self, turn: Callable[[], None], pause_s: float) -> None:
        try:
            while not self._stopping.is_set():
                turn()
                self._stopping.wait(pause_s)
        except Exception as error:  # a thread's root: the run must hear of it
            self._failures.append(error)
            raise


class _Client:
    """What all kinds of client have: a choice of nodes, and a connection to each."""

    def __init__(self, clients: Clients, seed: str, process: int) -> None:
        self._clients = clients
        self._network = clients.network
        self._process = process
        self._random = random.Random(seed)
        self._connections: dict[str, Client] = {}

    def _choose(self) -> tuple[str, Client]:
        name = self._clients.choose(self._random)
        if name not in self._connections:
            self._connections[name] = self._network.client(name, ANSWER_S)
        return name, self._connections[name]

    def _operation(
        self, kind: Kind, node: str, called_ns: int, reply: Reply | None = None, **more: Any
    ) -> Operation:
        if reply is not None:
            more = {"head_height": reply.height, "head": reply.head, **more}
        return Operation(kind, self._process, node, called_ns, time.monotonic_ns(), **more)


class Writer(_Client):
    """Sends transactions, each until it is acknowledged, and now and then something odd."""

    def __init__(self, clients: Clients, seed: str, process: int) -> None:
        super().__init__(clients, seed, process)
        self._key = clients.author
        self._due_s = 0.0

    def turn(self) -> None:
        """Send one transaction or a few, once it is time for them."""
        self._clients.pause(max(0.0, self._due_s - time.monotonic()))
        begun_s = time.monotonic()
        # What was late by more than a moment is not made up for.
        self._due_s = max(self._due_s, begun_s - 1.0) + self._send_some() * self._clients.pace_s

    def _send_some(self) -> int:
        """Send one transaction or a few; how many."""
        dice = self._random.random()
        known = self._clients.known
        if dice < 0.04 and known:
            # Once more: the answer must be what it was.
            self._send_until_told([self._random.choice(known)], "submit")
        elif dice < 0.08 and known:
            # Its event stands on the ledger, or is about to: a duplicate, or the other one is.
            again = self._random.choice(known).decoded_events()[0]
            self._send_until_told([self._sign(again)], "submit")
        elif dice < 0.12:
            self._forge()
        elif dice < 0.2:
            self._send_until_told([self._sign()], "accept")
        else:
            count = self._random.choice(self._clients.batches)
            self._send_until_told([self._sign() for _ in range(count)], "submit")
            return count
        return 1

    def _sign(self, event: Event | None = None) -> Carried:
        if event is None:
            id_ = f"{self._process}-{self._random.getrandbits(96):024x}"
            event = Event(
                salt=os.urandom(16), id=id_, type="city.chaos", source="/chaos", data="x" * 120
            )
        expires_ms = time.time_ns() // 1_000_000 + _LIFETIME_MS
        return transaction.make(
            self._key, self._network.network_id, [event], expires_ms, os.urandom(16)
        )

    def _forge(self) -> None:
        """Send what is signed wrongly: it must be refused."""
        carried = self._sign()
        signature = carried.transaction.data[-SIGNATURE_BYTES:]
        garbled = bytes([signature[0] ^ 1]) + signature[1:]
        self._send([carried], [carried.data.replace(signature, garbled)], "forge")

    def _send_until_told(self, items: list[Carried], kind: Kind) -> None:
        self._clients.known.extend(items)
        for _ in range(_RETRIES):
            done = self._send(items, [item.data for item in items], kind)
            told = {o.id for o in done if o.outcome == "ok" and (kind, o.status) != _HALF}
            items = [item for item in items if item.id.hex() not in told]
            if not items or self._clients.is_stopping:
                return
            self._clients.pause(_RETRY_S)

    def _send(self, items: list[Carried], bodies: list[bytes], kind: Kind) -> list[Operation]:
        name, client = self._choose()
        wait = "accepted" if kind == "accept" else "committed"
        params: Params = {"wait": wait, "timeout_ms": _WAIT_MS}
        content_type = _CBOR if len(bodies) == 1 else _SEQUENCE
        called_ns = time.monotonic_ns()
        reply: Reply | None = None
        answers: list[Any] = [{}] * len(items)
        reason = ""
        try:
            reply = client.request(
                "POST",
                "/v1/transactions",
                params,
                body=b"".join(bodies),
                headers={"Content-Type": content_type},
            )
        except Unreachable:
            reason = "unreachable"
        except ApiProblem as problem:
            reason = problem.reason or str(problem.status)
            one = {"status": problem.members.get("transaction_status"), "reason": reason}
            answers = problem.members.get("answers") or [one] * len(items)
        else:
            document = reply.json()
            answers = document.get("answers", [document])
        done = [
            self._answered(kind, name, called_ns, reply, item, answer, reason)
            for item, answer in zip(items, answers, strict=True)
        ]
        self._clients.recorder.add(done)
        return done

    def _answered(
        self,
        kind: Kind,
        name: str,
        called_ns: int,
        reply: Reply | None,
        item: Carried,
        answer: dict[str, Any],
        reason: str,
    ) -> Operation:
        status = answer.get("status") or ""
        outcome: Outcome = "unknown"
        if reply is not None and status in ("committed", "pending", "duplicate"):
            outcome = "ok"
        elif status == "rejected":
            outcome = "fail"
        return self._operation(
            kind,
            name,
            called_ns,
            reply,
            outcome=outcome,
            id=item.id.hex(),
            names=tuple(event.id for event in item.decoded_events() if event is not None),
            status=status,
            reason=answer.get("reason") or reason,
            height=answer.get("height"),
            leaf_index=answer.get("leaf_index"),
        )


# A client that wanted `committed` and was told `pending` asks again.
_HALF: Final = ("submit", "pending")


class Looker(_Client):
    """Reads: transactions and pages of events linearizably, and what a node itself has."""

    _after = ""

    def read(self) -> None:
        """Ask for the status of a transaction that was sent lately."""
        known = self._clients.known
        if not known:
            return
        at = self._random.randrange(max(0, len(known) - 60), len(known))
        id_ = known[min(at, len(known) - 1)].id.hex()
        self._ask("read", f"/v1/transactions/{id_}", {}, id=id_)

    def query(self) -> None:
        """Ask for the events after the last page, to the end."""
        params: Params = {"limit": _PAGE, "cursor": self._after or None}
        done = self._ask("query", "/v1/events", params, after=self._after)
        # One page in three is asked for again, by another node most likely.
        if done.outcome == "ok" and done.events and self._random.random() < 0.67:
            self._after = done.events[-1][0]

    def look(self) -> None:
        """Look at a node's own head."""
        self._ask("local", "/v1/blocks/latest", {})

    def _ask(self, kind: Kind, path: str, params: Params, **more: Any) -> Operation:
        name, client = self._choose()
        called_ns = time.monotonic_ns()
        try:
            reply = client.get(path, params)
        except (Unreachable, ApiProblem) as error:
            reason = getattr(error, "reason", "") or "unreachable"
            done = self._operation(kind, name, called_ns, reason=reason, **more)
        else:
            document = reply.json()
            if kind == "read":
                for field in ("status", "height", "leaf_index"):
                    more[field] = document[field]
            elif kind == "query":
                more["events"] = tuple(_place(event) for event in document["events"])
                more["is_end"] = document["next"] is None
            done = self._operation(kind, name, called_ns, reply, outcome="ok", **more)
        self._clients.recorder.add([done])
        return done


class Reader(_Client):
    """Follows the stream of events from the first block on; leaves and resumes elsewhere."""

    _after = ""
    count = 0
    resumed = 0

    def turn(self) -> None:
        """Follow one connection for a while."""
        self._follow(self._random.randrange(1, _STREAM_EVENTS_MAX), until_s=None)

    def finish(self, count: int, until_s: float) -> bool:
        """Follow until `count` events in all have come; False when they do not until then."""
        while self.count < count and time.monotonic() < until_s:
            self._follow(count - self.count, until_s)
        return self.count == count

    def _follow(self, events_max: int, until_s: float | None) -> None:
        name = self._clients.choose(self._random)
        got: list[EventPlace] = []
        called_ns = time.monotonic_ns()
        leave_s = until_s or time.monotonic() + self._random.uniform(0.5, 4.0)
        with self._network.client(name, ANSWER_S) as client:
            stream = client.stream(
                {"from": 0},
                last_event_id=self._after or None,
                reconnect_tries=0,
                wait=self._clients.pause,
                silence_s=_SILENCE_S,
            )
            try:
                for event in stream:
                    got.append(_place(event.document))
                    if len(got) >= events_max or time.monotonic() >= leave_s:
                        break
                    if until_s is None and self._clients.is_stopping:
                        break
            except (Unreachable, ApiProblem):
                # Cut off, refused, or silent for too long: what came has come.
                self._clients.pause(0.1)
            finally:
                stream.close()
        done = self._operation(
            "stream", name, called_ns, outcome="ok", after=self._after, events=tuple(got)
        )
        self.resumed += bool(self._after and got)
        self.count += len(got)
        self._after = got[-1][0] if got else self._after
        self._clients.recorder.add([done])


def _place(event: Any) -> EventPlace:
    return event["p2pcitycursor"], event["p2pcitytransaction"]
