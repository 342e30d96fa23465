"""What clients bring: transactions they signed, and events that this node signs for them."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import trio

from p2pcity.api.service import Answer, EventInput, TransactionStatus, Wait
from p2pcity.crypto.keys import PrivateKey
from p2pcity.errors import DecodeError, MempoolFull, Unavailable
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.intake import Admitted, Intake
from p2pcity.node.moments import Moments
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.node.waiting import Settled, Waiters
from p2pcity.wire import event as event_wire
from p2pcity.wire import transaction as transaction_wire
from p2pcity.wire.limits import EVENTS_MAX, EXPIRES_AHEAD_MS_MAX, TRANSACTION_BYTES_MAX

_KNOWN = frozenset(("duplicate", "known"))
# Signature, payload and array heads of a transaction, beside its events.
_TRANSACTION_OVERHEAD_BYTES = 512
_READ_TIMEOUT_S = 2.0
# A quarter of an hour below the limit, so that a clock that is behind elsewhere accepts it.
_LIFETIME_MS = EXPIRES_AHEAD_MS_MAX - 15 * 60 * 1000


_Signed = tuple[transaction_wire.Carried, tuple[bytes, ...]]
"""A transaction that this node signed, and the names of its events."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The node's own author key, and where its salts, nonces and time come from."""

    key: PrivateKey
    network: bytes
    random_bytes: Callable[[int], bytes]
    now_ms: Callable[[], int]


class _LookUp:
    """The names that a request looks for on the ledger right now, and what was applied of them."""

    __slots__ = ("applied", "names")

    def __init__(self, names: Sequence[bytes]) -> None:
        self.names = frozenset(names)
        self.applied: dict[bytes, tuple[bytes, int]] = {}


class Submitting:
    """Admits, signs, waits and answers."""

    def __init__(
        self,
        *,
        intake: Intake,
        mempool: Mempool,
        outbox: OutboxLoop,
        waiters: Waiters,
        signer: Signer | None,
        status: Callable[[bytes], Awaitable[TransactionStatus]],
        find_events: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, bytes]]],
        wait_current: Callable[[float], Awaitable[None]],
        is_unsaid: Callable[[bytes], bool],
        expire_later: Callable[[Sequence[bytes]], None],
        moments: Moments,
    ) -> None:
        """Take the parts; `wait_current` returns once this node is at the newest commit.

        `is_unsaid` says whether the end of an id that expired here is not sure yet;
        `expire_later` has it said to the outbox once it is.
        """
        self._intake = intake
        self._mempool = mempool
        self._outbox = outbox
        self._waiters = waiters
        self._signer = signer
        self._status = status
        self._find_events = find_events
        self._wait_current = wait_current
        self._is_unsaid = is_unsaid
        self._expire_later = expire_later
        self._moments = moments
        self._pending_names: dict[bytes, tuple[bytes, int]] = {}
        self._names_by_id: dict[bytes, tuple[bytes, ...]] = {}
        self._admitting: dict[bytes, trio.Event] = {}
        self._look_ups: dict[_LookUp, None] = {}

    async def submit(
        self, carried: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Admit `carried` and wait as told (`api.service.Service.submit`)."""
        admitted = await self._admit(carried)
        answers = await self._finish(admitted, wait, timeout_ms)
        if wait != "none":
            for position, (item, answer) in enumerate(zip(admitted, answers, strict=True)):
                if answer.status == "pending" and not self._is_kept(answer.id):
                    answers[position] = await self._keep(item, carried[position])
        self._note_answered(answers)
        return answers

    def _note_answered(self, answers: Iterable[Answer]) -> None:
        by_status: dict[str, dict[bytes, None]] = {}
        for answer in answers:
            if answer.id is not None and answer.status != "rejected":
                by_status.setdefault(answer.status, {})[answer.id] = None
        for status, ids in by_status.items():
            self._moments.note("answered", ids, outcome=status)

    def _is_kept(self, id_: bytes | None) -> bool:
        """Whether a transaction that is pending is on its way here, or on this node's disk."""
        return id_ is not None and (id_ in self._mempool or self._outbox.is_pending(id_))

    async def _keep(self, admitted: Admitted, data: bytes) -> Answer:
        """Put on disk what expired here before anybody could say whether it was ordered.

        Whoever is told "pending" may go away, as with those that are in the mempool.
        """
        carried = admitted.carried
        if carried is None:
            [examined] = await self._intake.examine([data])
            assert not isinstance(examined, DecodeError), "it was admitted before"
            carried = examined
        id_ = carried.transaction.id
        await self._outbox.accept([carried])
        self._expire_later([id_])
        answer = await self._answer_known(id_)
        if answer.height is not None:
            # Applied before the outbox had it, so that nobody told the outbox.
            self._outbox.settle([id_], "committed")
        return answer

    async def _admit(self, carried: Sequence[bytes]) -> list[Admitted]:
        admitted = await self._intake.admit(carried, None)
        if admitted and all(item.verdict.reason == "queue-full" for item in admitted):
            raise MempoolFull("the mempool is full")
        return admitted

    async def _finish(
        self, admitted: Sequence[Admitted], wait: Wait, timeout_ms: int
    ) -> list[Answer]:
        pending = [
            item.carried
            for item in admitted
            if item.carried is not None
            and (item.is_accepted or item.verdict.reason in _KNOWN)
            and item.carried.transaction.id in self._mempool
        ]
        ends: dict[bytes, Settled] = {}
        if wait == "committed" and pending:
            group = self._waiters.open(item.transaction.id for item in pending)
            ends = await self._waiters.wait_settled(group, timeout_ms / 1000)
            pending = [item for item in pending if item.transaction.id in self._mempool]
        if wait != "none" and pending:
            # Whoever is told "pending" may go away: from here on this node's disk answers for it.
            await self._outbox.accept(pending)
        return [await self._answer(item, ends) for item in admitted]

    async def _answer(self, admitted: Admitted, ends: Mapping[bytes, Settled]) -> Answer:
        verdict = admitted.verdict
        id_ = verdict.id
        if id_ is None and admitted.carried is not None:
            id_ = admitted.carried.transaction.id
        if not admitted.is_accepted and verdict.reason not in _KNOWN:
            return Answer(id_, verdict.kind, "rejected", verdict.reason)
        assert id_ is not None, "what was admitted has an id"
        end = ends.get(id_)
        if end is not None:
            return Answer(id_, "accept", end.state, end.reason, end.height, end.leaf_index)
        return await self._answer_known(id_)

    async def _answer_known(self, id_: bytes) -> Answer:
        """The answer for a transaction that was admitted once."""
        if id_ in self._mempool:
            # Not applied yet: the views need not be asked, which is a turn of a thread for each
            # transaction of a sequence.
            return Answer(id_, "accept", "pending")
        status = await self._status(id_)
        if status.status == "unknown" and self._is_unsaid(id_):
            return Answer(id_, "accept", "pending")
        if status.status == "unknown":
            # Its time is over here; if this node is behind, it may be on the ledger all the same.
            try:
                await self._wait_current(_READ_TIMEOUT_S)
            except Unavailable:
                return Answer(id_, "accept", "pending")
            status = await self._status(id_)
        if status.status == "unknown":
            return Answer(id_, "accept", "expired", "expired")
        return Answer(id_, "accept", status.status, status.reason, status.height, status.leaf_index)

    async def submit_events(
        self, events: Sequence[EventInput], wait: Wait, timeout_ms: int
    ) -> Sequence[Answer]:
        """Sign `events` as this node's author and submit (`Service.submit_events`)."""
        signer = self._signer
        if signer is None:
            raise Unavailable(
                "this node signs for nobody",
                remedy="Set node.author_key on the node, or sign on your side "
                "and send to /v1/transactions.",
            )
        author = signer.key.public
        names = [event_wire.name_key(author, item.source, item.id) for item in events]
        known = await self._find_known(names)
        # Without a wait from here on: another request may sign meanwhile.
        fresh: dict[bytes, EventInput] = {}
        for name, item in zip(names, events, strict=True):
            if name not in known:
                fresh.setdefault(name, item)
        answers: dict[bytes, Answer] = {}
        if fresh:
            signed = _sign(signer, fresh)
            known.update(
                (name, (carried.transaction.id, position))
                for carried, held in signed
                for position, name in enumerate(held)
            )
            own = await self._finish(await self._admit_signed(signed), wait, timeout_ms)
            answers = {answer.id: answer for answer in own if answer.id is not None}
        missing = [id_ for id_, _ in known.values() if id_ not in answers]
        if missing:
            answers.update(await self._follow(dict.fromkeys(missing), wait, timeout_ms))
        self._note_answered(answers.values())
        return [_for_event(answers[known[name][0]], known[name][1]) for name in names]

    async def _admit_signed(self, signed: Sequence[_Signed]) -> list[Admitted]:
        """Admit what was signed just now; until that is done, requests for it wait."""
        ids = [carried.transaction.id for carried, _ in signed]
        done = trio.Event()
        # Remembered before the first wait, so that a retry meanwhile is not signed again.
        for carried, held in signed:
            self._remember(carried.transaction.id, held)
            self._admitting[carried.transaction.id] = done
        try:
            return await self._admit([carried.data for carried, _ in signed])
        finally:
            # However it ended: what did not get in must be signed anew when it comes again.
            self.forget([id_ for id_ in ids if id_ not in self._mempool])
            for id_ in ids:
                del self._admitting[id_]
            done.set()

    async def _find_known(self, names: Sequence[bytes]) -> dict[bytes, tuple[bytes, int | None]]:
        """The transaction of each name that stands on the ledger or is on its way there.

        What is applied while the ledger is read, just behind that read, is in neither place by
        now: it is noted meanwhile.
        """
        look_up = _LookUp(names)
        self._look_ups[look_up] = None
        try:
            found = await self._find_events(names)
        finally:
            del self._look_ups[look_up]
        known: dict[bytes, tuple[bytes, int | None]] = dict(look_up.applied)
        known.update((name, (id_, None)) for name, id_ in found.items())
        known.update(self._find_pending(names))
        return known

    def _find_pending(self, names: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        pending = self._pending_names
        return {name: pending[name] for name in names if name in pending}

    async def _follow(
        self, ids: Mapping[bytes, None], wait: Wait, timeout_ms: int
    ) -> dict[bytes, Answer]:
        """Answers for transactions that were submitted earlier."""
        admitted = []
        answers: dict[bytes, Answer] = {}
        for id_ in ids:
            admitting = self._admitting.get(id_)
            if admitting is not None:
                await admitting.wait()
            carried = self._mempool.get(id_)
            if carried is not None:
                admitted.append(Admitted(self._intake.known_verdict(id_), carried))
                continue
            answers[id_] = await self._answer_known(id_)
        for answer in await self._finish(admitted, wait, timeout_ms):
            assert answer.id is not None
            answers[answer.id] = answer
        return answers

    def _remember(self, id_: bytes, names: tuple[bytes, ...]) -> None:
        self._names_by_id[id_] = names
        for position, name in enumerate(names):
            self._pending_names[name] = (id_, position)

    def remember(self, carried: transaction_wire.Carried) -> None:
        """Note a transaction of this node's author that is on its way again after a restart."""
        author = carried.transaction.author
        if self._signer is None or author != self._signer.key.public:
            return
        names = tuple(
            event_wire.name_key(author, event.source, event.id)
            for event in carried.decoded_events()
            if event is not None
        )
        self._remember(carried.transaction.id, names)

    def applied(self, ids: Sequence[bytes]) -> None:
        """Drop the names of transactions that a block settled: the views answer for them now."""
        for id_ in ids:
            for position, name in enumerate(self._names_by_id.get(id_, ())):
                for look_up in self._look_ups:
                    if name in look_up.names:
                        look_up.applied[name] = (id_, position)
        self.forget(ids)

    def forget(self, ids: Sequence[bytes]) -> None:
        """Drop the names of transactions that are not on their way any more."""
        for id_ in ids:
            for name in self._names_by_id.pop(id_, ()):
                self._pending_names.pop(name, None)


def _sign(signer: Signer, fresh: Mapping[bytes, EventInput]) -> list[_Signed]:
    signed = []
    for group in _groups(fresh):
        events = [item.with_salt(signer.random_bytes(16)) for _, item in group]
        carried = transaction_wire.make(
            signer.key,
            signer.network,
            events,
            signer.now_ms() + _LIFETIME_MS,
            signer.random_bytes(16),
        )
        signed.append((carried, tuple(name for name, _ in group)))
    return signed


def _groups(fresh: Mapping[bytes, EventInput]) -> Iterator[list[tuple[bytes, EventInput]]]:
    """Cut events into transactions of at most 256 events and 64 KiB."""
    group: list[tuple[bytes, EventInput]] = []
    room = TRANSACTION_BYTES_MAX - _TRANSACTION_OVERHEAD_BYTES
    size = 0
    for name, item in fresh.items():
        length = len(event_wire.encode(item.with_salt(bytes(16)))) + 5
        if length > room:
            raise DecodeError("an event is too large for a transaction", reason="size")
        if group and (len(group) == EVENTS_MAX or size + length > room):
            yield group
            group, size = [], 0
        group.append((name, item))
        size += length
    if group:
        yield group


def _for_event(answer: Answer, position: int | None) -> Answer:
    return Answer(
        answer.id,
        answer.verdict,
        answer.status,
        answer.reason,
        answer.height,
        answer.leaf_index,
        position,
        answer.detail,
    )
