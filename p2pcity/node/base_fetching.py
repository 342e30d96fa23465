"""Has a running node fetch a base when nobody keeps the entries any more that it lacks.

The base is fetched beside the running node (`node.base_fetch`), which begins again with it. Its own
blocks below the base go then: one that is to keep all, and has all from the first on, waits for its
operator instead.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import structlog
import trio

from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.net.network import Network
from p2pcity.node.base_fetch import STILL_S, BaseFetch, is_lost
from p2pcity.node.opening import Stores
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.node.peer_status import PeerStatus
from p2pcity.wire.base import BaseHead

_PERIOD_S: Final = 1.0
_CAUSE: Final = "nobody keeps the blocks any more that come after those of this node"
# It may be the only one that has its old blocks: who may lose them is for its operator to say.
_REMEDY: Final = (
    "Start a node that keeps all blocks; or let this one go on without its own: set "
    "ledger.keep_blocks and start it again."
)

_logger = structlog.get_logger("p2pcity.node.base_fetching")


class BaseFetching:
    """Watches whether this node can still be fed, and fetches a base when it can't."""

    def __init__(
        self,
        *,
        network: Network,
        network_id: bytes,
        ordering: OrderingLoop,
        peer_status: PeerStatus,
        has_same_log: Callable[[str], bool],
        stores: Stores,
        directory: DataDirectory,
        free_bytes_min: int,
        keeps_all: bool,
    ) -> None:
        self._keeps_all = keeps_all
        self._bases = stores.bases
        self.alarm = ""
        self._ordering = ordering
        self._raw_node = ordering.raw_node
        self._peer_status = peer_status
        self._views = stores.views
        self._fetch = BaseFetch(
            network=network,
            network_id=network_id,
            voters=self._voters,
            has_same_log=has_same_log,
            ahead=self._ahead,
            is_needed=self._is_needed,
            bases=stores.bases,
            thread=stores.reader_thread,
            directory=directory,
            free_bytes_min=free_bytes_min,
        )

    @property
    def fetched_records(self) -> int:
        """How many records of bases came."""
        return self._fetch.fetched_records

    async def run(self) -> None:
        """Watch for as long as the node runs; raises BaseComplete."""
        commit, moved_s = self._raw_node.commit, trio.current_time()
        while True:
            await trio.sleep(_PERIOD_S)
            still_s = trio.current_time() - moved_s
            if self._raw_node.commit != commit:
                commit, moved_s = self._raw_node.commit, trio.current_time()
                self.alarm = ""
            elif still_s >= STILL_S and not self._raw_node.is_leader and self._ahead(commit):
                await self._look(still_s)

    def _ahead(self, index: int) -> set[str]:
        """The voters that say that more is committed than up to `index`."""
        voters = self._fetch.connected(self._fetch.all_voters())
        answers = {peer: self._peer_status.of(peer) for peer in voters}
        return {peer for peer, x in answers.items() if x is not None and x.commit > index}

    def _voters(self) -> Sequence[Collection[str]]:
        configuration = self._raw_node.configuration
        return [configuration.voters, configuration.voters_outgoing]

    async def _look(self, still_s: float) -> None:
        """Ask who keeps what; fetch the base that is agreed on when nobody can feed this node."""
        agreement = await self._fetch.ask_round(self._views.height)
        commit = self._raw_node.commit
        first = agreement.first_kept(self._ahead(commit))
        if not (self._keeps_all and self._views.height and not self._bases.base.height):
            if is_lost(first, commit + 1, still_s):
                await self._fetch.fetch(agreement, commit + 1)
            return
        # Not by patience: what is slow to come is not gone.
        is_gone = first is not None and first > commit + 1
        if is_gone and not self.alarm:
            _logger.warning("base_waits", reason=_CAUSE, remedy=_REMEDY)
        self.alarm = f"{_CAUSE}: {_REMEDY}" if is_gone else ""

    def _is_needed(self, head: BaseHead) -> bool:
        """Whether the log lacks what the base would bring; else all up to there is committed."""
        if not self._raw_node.learn_commit(head.index, head.term):
            return True
        _logger.info("base_not_needed", height=head.height, index=head.index)
        self._ordering.wake()
        return False
