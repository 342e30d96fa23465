"""Anti-entropy: each second a few peers, in turn, are asked for the admissions not seen here."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from p2pcity.errors import DecodeError, LocalError, RemoteError
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.node.intake import Intake
from p2pcity.sync.pending import PendingSync
from p2pcity.sync.turns import Turns
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.limits import SYNC_IDS_MAX
from p2pcity.wire.sync import (
    BaseQuestion,
    BlockAnswer,
    BlockQuery,
    EntriesAnswer,
    EntriesQuery,
    Fetch,
    Fetched,
    PendingAnswer,
    PendingQuery,
)

_FETCH_BYTES_MAX = 1024 * 1024
_DEADLINE_S = 5.0
PEERS_A_ROUND = 4
"""What one lacks four others have too, unless it is new: then the next round brings it."""
# Ignored for lack of room here, not for what they are: asked for again.
_NO_ROOM = frozenset(("peer-quota", "author-quota", "queue-full"))

_logger = structlog.get_logger("p2pcity.node.anti_entropy")


class AntiEntropy:
    """Asks peers for what this node lacks, and answers them."""

    def __init__(
        self,
        *,
        network: Network,
        mempool: Mempool,
        intake: Intake,
        is_known: Callable[[bytes], bool],
        block_bytes: Callable[[int], Awaitable[bytes | None]],
        entries: Callable[[EntriesQuery], Awaitable[EntriesAnswer]],
        bases: Callable[[BaseQuestion], Awaitable[sync_wire.Answer]],
        session: bytes,
        period_s: float = 1.0,
    ) -> None:
        self._network = network
        self._mempool = mempool
        self._intake = intake
        self._is_known = is_known
        self._block_bytes = block_bytes
        self._entries = entries
        self._bases = bases
        self._session = session
        self._period_s = period_s
        self._sync = PendingSync()
        self._asking: set[str] = set()
        self._turns = Turns()
        self.fetched_count = 0

    async def run(self) -> None:
        """Ask for as long as the node runs; one question a peer at a time."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._period_s)
                for peer in self._next():
                    self._asking.add(peer)
                    nursery.start_soon(self._ask, peer)

    def _next(self) -> list[str]:
        """Those whose turn it is."""
        peers = [info.peer for info in self._network.peers() if info.is_connected]
        return self._turns.take([peer for peer in peers if peer not in self._asking], PEERS_A_ROUND)

    async def _ask(self, peer: str) -> None:
        try:
            query = self._sync.query(peer)
            answer = await self._request(peer, sync_wire.encode(query))
            if not isinstance(answer, PendingAnswer):
                self._network.penalise(peer)
                return
            missing = self._sync.missing(peer, answer, self._is_known)
            if missing and not await self._fetch(peer, missing):
                self._sync.rewind(peer, query)
        except (RemoteError, LocalError) as error:
            # The cursor may have moved past ids that were not fetched: begin anew with them.
            self._sync.forget(peer)
            _logger.debug("anti_entropy_failed", peer=peer, reason=str(error))
        finally:
            self._asking.discard(peer)

    async def _request(self, peer: str, data: bytes) -> sync_wire.Answer:
        answer = await self._network.request(peer, "sync", data, _DEADLINE_S)
        return sync_wire.decode_answer(answer)

    async def _fetch(self, peer: str, ids: Sequence[bytes]) -> bool:
        """Fetch and admit; False when this node has no room for all of them now."""
        left = list(ids)
        while left:
            data = sync_wire.encode(Fetch(ids=tuple(left)))
            answer = await self._request(peer, data)
            if not isinstance(answer, Fetched):
                self._network.penalise(peer)
                return True
            admitted = await self._intake.admit(list(answer.carried), peer)
            self.fetched_count += len(admitted)
            if any(item.verdict.kind == "reject" for item in admitted):
                self._network.penalise(peer)
            if any(item.verdict.reason in _NO_ROOM for item in admitted):
                return False
            got = {item.verdict.id for item in admitted}
            rest = [id_ for id_ in left if id_ not in got]
            if len(rest) == len(left):
                # The peer has none of them any more: committed or expired meanwhile.
                return True
            left = rest
        return True

    def forget(self, peer: str) -> None:
        """Ask `peer` from its beginning the next time."""
        self._sync.forget(peer)
        self._turns.forget(peer)

    async def answer(self, data: bytes) -> bytes:
        """Answer one question of a peer; raises DecodeError for what is no question."""
        question = sync_wire.decode_request(data)
        if isinstance(question, PendingQuery):
            since = question.since if question.session == self._session else 0
            last, ids = self._mempool.since(since, min(question.limit, SYNC_IDS_MAX))
            return sync_wire.encode(PendingAnswer(session=self._session, last=last, ids=tuple(ids)))
        if isinstance(question, Fetch):
            return sync_wire.encode(Fetched(carried=tuple(self._collect(question.ids))))
        if isinstance(question, BlockQuery):
            block = await self._block_bytes(question.height)
            return sync_wire.encode(BlockAnswer(height=question.height, data=block))
        if isinstance(question, EntriesQuery):
            return sync_wire.encode(await self._entries(question))
        if isinstance(question, BaseQuestion):
            return sync_wire.encode(await self._bases(question))
        raise DecodeError("not a question of anti-entropy", reason="malformed")

    def _collect(self, ids: Sequence[bytes]) -> list[bytes]:
        found: list[bytes] = []
        size = 0
        for id_ in ids[:SYNC_IDS_MAX]:
            carried = self._mempool.get(id_)
            if carried is None:
                continue
            size += len(carried.data)
            if found and size > _FETCH_BYTES_MAX:
                break
            found.append(carried.data)
        return found
