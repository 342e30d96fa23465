"""The one door for transactions (protocol/03-admission.md).

Three stages, so that the middle one can run in worker threads: `screen` (bytes alone, before
anything is decoded), `wire.transaction.examine` (pure: everything that no state can change)
and `decide` (what depends on state). `admit` is all three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from p2pcity.admission.quota import Quotas
from p2pcity.admission.rules import ACCEPTED, KIND_BY_REASON
from p2pcity.admission.seen import Seen
from p2pcity.admission.verdict import Verdict, make_verdict
from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError
from p2pcity.wire.genesis import is_type_allowed
from p2pcity.wire.limits import CLOCK_AHEAD_MS_MAX, EXPIRES_AHEAD_MS_MAX, TRANSACTION_BYTES_MAX
from p2pcity.wire.transaction import Carried, examine


class StateView(Protocol):
    """What admission asks of the ledger and the mempool."""

    @property
    def head_time_ms(self) -> int:
        """The time of the newest applied block, Unix ms."""

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        """Return the event types that the author may write, None for an unknown author."""

    def is_known(self, id: bytes) -> bool:
        """Whether a transaction with this id is on the ledger or waits in the mempool."""


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    """Quotas and bounds; transactions a second unless the name says otherwise.

    A rejected transaction costs its peer `peer_reject_cost` tokens in all, since it cost this
    node a signature check: who sends rubbish is heard less and less.
    """

    peer_per_second: int = 4_000
    peer_burst: int = 8_000
    peer_reject_cost: int = 50
    author_per_second: int = 5_000
    author_burst: int = 10_000
    peers_max: int = 1_024
    authors_max: int = 16_384
    accepted_max: int = 131_072
    rejected_max: int = 16_384


class Admission:
    """Judges transactions; belongs to one thread, but `examine` may run in any."""

    def __init__(self, config: AdmissionConfig, network: bytes) -> None:
        self._config = config
        self._network = network
        self._seen = Seen(config.accepted_max, config.rejected_max)
        self._peers = Quotas(config.peer_per_second, config.peer_burst, config.peers_max)
        self._authors = Quotas(config.author_per_second, config.author_burst, config.authors_max)

    def screen(
        self, data: bytes, peer: str | None, now_ms: int, *, digest: bytes | None = None
    ) -> Verdict | None:
        """Judge by the bytes alone: size, seen before, the peer's quota; None to go on.

        `peer` is None for this node's own clients, who have no peer quota. `digest` is the
        SHA-256 of `data` when the caller has it. Bytes over the peer's quota are not
        remembered: they may come again later, or from another peer.
        """
        if len(data) > TRANSACTION_BYTES_MAX:
            return self._blame(make_verdict("size"), peer, now_ms)
        verdict = self._seen.verdict(digest or sha256(data))
        if verdict is not None:
            return self._blame(verdict, peer, now_ms)
        if peer is not None and not self._peers.take(peer, now_ms):
            return make_verdict("peer-quota")
        return None

    def decide(
        self,
        examined: Carried | DecodeError,
        data_digest: bytes,
        peer: str | None,
        state: StateView,
        now_ms: int,
        *,
        has_room: Callable[[Carried], bool] | None = None,
    ) -> Verdict:
        """Judge what `examine` returned or raised, against the state; remember what is final.

        `now_ms` is the wall clock, Unix ms. An accepted transaction counts as seen from here
        on: a caller that then finds no room for it calls `forget`.
        """
        if isinstance(examined, DecodeError):
            reason = examined.reason
            # A reason outside the table would be a bug of ours, not the peer's doing.
            assert KIND_BY_REASON[reason] == "reject", reason
            self._seen.reject(data_digest, reason)
            return self._blame(make_verdict(reason), peer, now_ms)
        id = examined.transaction.id
        reason = self._judge_state(examined, state, now_ms, has_room)
        if reason == ACCEPTED:
            self._seen.accept(data_digest, id)
            return Verdict("accept", ACCEPTED, id)
        return make_verdict(reason, id)

    def admit(
        self,
        data: bytes,
        peer: str | None,
        state: StateView,
        now_ms: int,
        *,
        has_room: Callable[[Carried], bool] | None = None,
    ) -> tuple[Verdict, Carried | None]:
        """Judge `data` in all three stages; the decoded transaction comes with an accept."""
        # Oversize bytes are refused before anything is spent on them, a hash included.
        digest = sha256(data) if len(data) <= TRANSACTION_BYTES_MAX else b""
        verdict = self.screen(data, peer, now_ms, digest=digest)
        if verdict is not None:
            return verdict, None
        examined: Carried | DecodeError
        try:
            examined = examine(data, self._network)
        except DecodeError as error:
            examined = error
        verdict = self.decide(examined, digest, peer, state, now_ms, has_room=has_room)
        if verdict.is_accepted and isinstance(examined, Carried):
            return verdict, examined
        return verdict, None

    def note_applied(self, carried: Carried) -> None:
        """Remember a transaction that a block brought: its copies need no second look."""
        if not self._seen.has_id(carried.transaction.id):
            self._seen.accept(carried.digest, carried.transaction.id)

    def forget(self, carried: Carried) -> None:
        """Take an accept back: the transaction found no room and may come again."""
        self._seen.forget(carried.transaction.id)

    def _judge_state(
        self,
        carried: Carried,
        state: StateView,
        now_ms: int,
        has_room: Callable[[Carried], bool] | None,
    ) -> str:
        """Return the reason of the first rule that is broken, `accepted` when none is."""
        transaction = carried.transaction
        if self._seen.has_id(transaction.id):
            return "duplicate"
        if state.is_known(transaction.id):
            return "known"
        if transaction.expires_ms <= now_ms:
            return "expired"
        if transaction.expires_ms > now_ms + EXPIRES_AHEAD_MS_MAX + CLOCK_AHEAD_MS_MAX:
            return "expires-too-far"
        types = state.author_types(transaction.author)
        if types is None:
            return "author-unknown"
        wanted = {item.type for item in carried.decoded_events() if item is not None}
        if not all(is_type_allowed(types, item) for item in wanted):
            return "type-not-allowed"
        if not self._authors.take(transaction.author, now_ms):
            return "author-quota"
        if has_room is not None and not has_room(carried):
            return "queue-full"
        return ACCEPTED

    def _blame(self, verdict: Verdict, peer: str | None, now_ms: int) -> Verdict:
        if peer is not None and verdict.kind == "reject":
            self._peers.charge(peer, now_ms, self._config.peer_reject_cost)
        return verdict
