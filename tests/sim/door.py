"""The way in: real admission and mempool, in the order in which a node's intake asks them."""

from collections.abc import Sequence

from p2pcity.admission.admission import Admission, AdmissionConfig
from p2pcity.admission.verdict import Verdict, make_verdict
from p2pcity.crypto.digest import sha256
from p2pcity.errors import MempoolFull
from p2pcity.mempool.mempool import Mempool, MempoolConfig
from p2pcity.wire.transaction import Carried
from tests.sim.city import City
from tests.sim.views import Views


class Door:
    """Admits transactions; what it accepts is in the mempool (`admission.StateView` too)."""

    def __init__(self, city: City, views: Views, mempool: MempoolConfig) -> None:
        self.mempool = Mempool(mempool)
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
