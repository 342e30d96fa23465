"""A base instead of the entries of a damaged log that nobody keeps any more.

Where the base ends above the last hole, nothing that was lost is needed: the next start moves it
into place, and the log goes on behind it with all that stands there, its term and its vote.
"""

from collections.abc import Collection, Mapping, Sequence

import structlog

from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.net.network import Network
from p2pcity.node.base_fetch import STILL_S, BaseFetch, is_lost
from p2pcity.node.log_files import LogFiles
from p2pcity.sync.repair import Repair
from p2pcity.wire.base import BaseHead

_logger = structlog.get_logger("p2pcity.node.base_instead")


class BaseInstead:
    """Finds out, round by round, whether a log can be mended by a base alone; and fetches one.

    `voters` are the voter sets that are known here, `incarnations` those of all nodes.
    """

    def __init__(
        self,
        network: Network,
        files: LogFiles,
        *,
        voters: Sequence[Collection[str]],
        incarnations: Mapping[str, bytes],
        free_bytes_min: int,
    ) -> None:
        self._network = network
        self._bases = files.bases
        self._incarnations = incarnations
        self._log: SegmentLog | None = None
        self._repair = Repair([])
        self._too_low = 0
        self._fetch = BaseFetch(
            network=network,
            network_id=files.network,
            voters=lambda: voters,
            has_same_log=self._has_same_log,
            ahead=lambda index: self._repair.ahead(index),
            is_needed=self._is_needed,
            bases=files.bases,
            thread=files.writer,
            directory=DataDirectory(files.directory.parent),
            free_bytes_min=free_bytes_min,
        )

    async def look(self, log: SegmentLog, repair: Repair, still_s: float) -> None:
        """Look once, after a round in which nobody gave anything; raises BaseComplete.

        Nothing came for `still_s` seconds. Where term and vote may be lost too, a base does not
        bring them back: then nothing is fetched.
        """
        lacking = log.holes[0][0]
        if not log.is_vote_known or still_s < STILL_S:
            return
        if not is_lost(repair.first_kept(), lacking, still_s):
            return
        self._log, self._repair = log, repair
        above = max(self._bases.base.height, self._too_low)
        await self._fetch.fetch(await self._fetch.ask_round(above), lacking)

    def _has_same_log(self, peer: str) -> bool:
        known = self._incarnations.get(peer)
        return any(x.peer == peer and x.incarnation == known for x in self._network.peers())

    def _is_needed(self, head: BaseHead) -> bool:
        """Whether the log is whole behind this base; else a later one is waited for."""
        assert self._log is not None, "its holes are looked at"
        if is_whole_behind(self._log, head.index):
            return True
        self._too_low = head.height
        _logger.warning(
            "base_too_low",
            height=head.height,
            index=head.index,
            holes=list(self._log.holes),
            reason="the log lacks entries above it: a later base is waited for",
        )
        return False


def is_whole_behind(log: SegmentLog, index: int) -> bool:
    """Whether a log with holes is a whole one behind a base that ends at `index`.

    What stands behind the last hole is judged by the entry where the base ends, so that one may be
    lost only where nothing stands behind it.
    """
    last = max(high for _, high in log.holes)
    return index > last or index == last >= log.last_index
