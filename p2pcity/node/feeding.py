"""Fetches committed entries from other voters while the leader calls this node far behind."""

from collections.abc import Callable
from typing import Final

import structlog
import trio

from p2pcity.errors import DecodeError, LocalError, RemoteError
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.net.network import Network
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.sync.feeding import Feeding
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.limits import BLOCK_BYTES_MAX
from p2pcity.wire.sync import EntriesAnswer, EntriesQuery

_PERIOD_S: Final = 0.25
_DEADLINE_S: Final = 10.0
# Entries that are taken and not yet on disk: beyond, nothing more is asked for.
_UNSAVED_MAX: Final = 1_024
_UNSAVED_BYTES_MAX: Final = 4 * BLOCK_BYTES_MAX
_SAVED_POLL_S: Final = 0.005

_logger = structlog.get_logger("p2pcity.node.feeding")


class FeedingLoop:
    """Asks the other voters, one answer at a time, and hands what fits to Raft."""

    def __init__(
        self,
        *,
        network: Network,
        ordering: OrderingLoop,
        raft_log: SegmentLog,
        own_id: str,
        has_same_log: Callable[[str], bool],
    ) -> None:
        self._network = network
        self._ordering = ordering
        self._raft_log = raft_log
        self._own_id = own_id
        self._has_same_log = has_same_log
        self._feeding = Feeding()
        self.fetched_count = 0

    async def run(self) -> None:
        """Fetch whenever the leader says so, for as long as the node runs."""
        raw_node, said = self._ordering.raw_node, -1
        while True:
            await trio.sleep(_PERIOD_S)
            if not raw_node.sync_target:
                continue
            before, begin = self.fetched_count, raw_node.commit
            if begin != said:
                # Once: nobody may have them any more, and a base comes instead.
                said = begin
                _logger.info("fetching_entries", index=begin + 1, target=raw_node.sync_target)
            while raw_node.sync_target and await self._fetch():
                pass
            if self.fetched_count > before:
                _logger.info(
                    "entries_fetched", count=self.fetched_count - before, index=raw_node.commit
                )

    def _sources(self) -> list[str]:
        """The voters but the leader, who has enough to do, and this node."""
        raw_node = self._ordering.raw_node
        configuration = raw_node.configuration
        return [
            info.peer
            for info in self._network.peers()
            if info.is_connected
            and configuration.is_voter(info.peer)
            and info.peer not in (raw_node.leader, self._own_id)
            and self._has_same_log(info.peer)
        ]

    async def _fetch(self) -> bool:
        """Fetch once; False when nobody is left to ask, or this node can't take anything now."""
        raw_node, now_s = self._ordering.raw_node, trio.current_time()
        peer = self._feeding.choose(self._sources(), now_s)
        if peer is None:
            return False
        question = EntriesQuery(raw_node.commit + 1)
        try:
            data = await self._network.request(
                peer, "sync", sync_wire.encode(question), _DEADLINE_S
            )
            answer = sync_wire.decode_answer(data)
            if not isinstance(answer, EntriesAnswer):
                raise DecodeError("an answer to another question")
            answer = self._feeding.check(question, answer)
        except DecodeError as error:
            self._network.penalise(peer)
            self._feeding.failed(peer, now_s, is_wrong=True)
            _logger.warning("entries_wrong", peer=peer, reason=str(error))
            return True
        except (RemoteError, LocalError) as error:
            self._feeding.failed(peer, now_s, is_wrong=False)
            _logger.debug("entries_refused", peer=peer, reason=str(error))
            return True
        if raw_node.adopt(answer.term, answer.entries):
            self.fetched_count += len(answer.entries)
            self._ordering.wake()
            await self._wait_saved()
        else:
            # It has nothing newer, or knows a term that this node has not heard of yet.
            self._feeding.failed(peer, now_s, is_wrong=False)
        return True

    async def _wait_saved(self) -> None:
        # Polled: the disk is as fast as the network, and both are at work meanwhile.
        while self._is_disk_behind():  # noqa: ASYNC110
            await trio.sleep(_SAVED_POLL_S)

    def _is_disk_behind(self) -> bool:
        raw_node = self._ordering.raw_node
        return (
            raw_node.last_index - self._raft_log.last_index > _UNSAVED_MAX
            or raw_node.unsaved_bytes > _UNSAVED_BYTES_MAX
        )
