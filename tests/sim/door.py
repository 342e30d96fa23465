"""The way in: real admission and mempool, in the order in which a node's intake asks them."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress

from p2pcity.admission.admission import Admission, AdmissionConfig
from p2pcity.admission.verdict import Verdict, make_verdict
from p2pcity.crypto.digest import sha256
from p2pcity.errors import DecodeError, MempoolFull
from p2pcity.mempool.mempool import Mempool, MempoolConfig
from p2pcity.wire.transaction import Carried, decode_carried
from tests.sim.city import City
from tests.sim.views import Views


class CarelessMempool(Mempool):
    """A mempool that can be made to offer what no leader should order."""

    def __init__(self, config: MempoolConfig) -> None:
        super().__init__(config)
        self._extras: list[bytes] = []
        self._chosen_before: list[Carried] = []
        self._is_careless = False

    def be_careless(self, extras: Sequence[bytes]) -> None:
        """Let the next choice hold these as well, something twice, and something from before."""
        self._extras = list(extras)
        self._is_careless = True

    def select(
        self,
        bytes_max: int,
        exclude: AbstractSet[bytes] | Callable[[bytes], bool] = frozenset(),
    ) -> list[Carried]:
        """The real choice, and what a careless leader adds to it."""
        chosen = super().select(bytes_max, exclude)
        if not chosen:
            return chosen
        if self._is_careless:
            self._is_careless = False
            added = [chosen[0], *self._chosen_before[-2:]]
            for data in self._extras:
                with suppress(DecodeError):
                    added.append(decode_carried(data))
            return chosen + added
        self._chosen_before = chosen
        return chosen


class Door:
    """Admits transactions; what it accepts is in the mempool (`admission.StateView` too)."""

    def __init__(self, city: City, views: Views, mempool: MempoolConfig) -> None:
        self.mempool = CarelessMempool(mempool)
        self._admission = Admission(AdmissionConfig(), city.genesis.network)
        self._city = city
        self._views = views

    @property
    def head_time_ms(self) -> int:
        """The time of the newest applied block."""
        return self._views.tip.time_ms

    def author_types(self, key: bytes) -> tuple[str, ...] | None:
        """What the author may write, None for a stranger."""
        return self._views.state.author_types(key)

    def is_known(self, id: bytes) -> bool:
        """Whether the transaction waits here or is on the ledger."""
        return id in self.mempool or self._views.has_transaction(id)

    def admit(
        self, items: Sequence[bytes], peer: str | None, now_ms: int
    ) -> list[tuple[Verdict, Carried | None]]:
        """Judge `items`; the accepted ones are in the mempool afterwards."""
        return [self._admit_one(item, peer, now_ms) for item in items]

    def _admit_one(
        self, data: bytes, peer: str | None, now_ms: int
    ) -> tuple[Verdict, Carried | None]:
        digest = sha256(data)
        verdict = self._admission.screen(data, peer, now_ms, digest=digest)
        if verdict is not None:
            return verdict, self.mempool.by_digest(digest)
        examined = self._city.examine(data, digest)
        verdict = self._admission.decide(examined, digest, peer, self, now_ms)
        carried = examined if isinstance(examined, Carried) else None
        if verdict.is_accepted and carried is not None:
            try:
                self.mempool.add(carried, now_ms)
            except MempoolFull:
                self._admission.forget(carried)
                return make_verdict("queue-full", carried.transaction.id), carried
        return verdict, carried
