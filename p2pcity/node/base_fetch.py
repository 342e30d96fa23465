"""Asks the others for a base and fetches it: verified piece by piece, and what is verified stays.

Whether one is needed is decided elsewhere: by a node that runs (`node.base_fetching`), and by one
whose log has to be mended first (`node.log_repair`). What was fetched survives restarts
(`ledger.base_incoming`). A complete base ends with `BaseComplete`: the node begins again in the
same process, and its start moves the base into place before it opens the log.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from p2pcity.errors import DecodeError, LocalError, P2PCityError, RemoteError, Unavailable
from p2pcity.ledger.base_incoming import Incoming
from p2pcity.ledger.base_store import Bases
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.writer import WriterThread
from p2pcity.net.network import Network
from p2pcity.sync.bases import Agreed, Agreement, HeadFetch, IntervalFetch
from p2pcity.sync.sources import Sources
from p2pcity.wire import base as base_wire
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.base import RECORD_BYTES, BaseHead
from p2pcity.wire.sync import (
    Answer,
    BaseAnswer,
    BaseHeadAnswer,
    BaseQuery,
    BaseRecordsAnswer,
    Request,
)

STILL_S: Final = 2.0
"""So long nothing may have come before anybody is asked for a base."""
PATIENCE_S: Final = 60.0
"""So long one who says that it keeps the entries is believed, though none of them comes."""
_DEADLINE_S: Final = 10.0
_SAID_EVERY_S: Final = 30.0

_logger = structlog.get_logger("p2pcity.node.base_fetch")


class BaseComplete(P2PCityError):
    """A base is on the disk that has to be moved into place: the node begins again."""


def is_lost(first_kept: int | None, index: int, still_s: float) -> bool:
    """Whether nobody gives the entry at `index` any more.

    `first_kept` is the oldest one that any of those keeps who had it (None: nobody answered);
    nothing has come for `still_s` seconds.
    """
    return first_kept is not None and (first_kept > index or still_s >= PATIENCE_S)


class BaseFetch:
    """The asking and the fetching; who is asked, and which base would do, is handed in.

    `voters` are the voter sets that this node knows (two in a joint state), `has_same_log` says
    whether a peer said hello with the incarnation that is known of it, `ahead` who says that more
    is committed than up to an index, and `is_needed` whether a base with this head would help.
    """

    def __init__(
        self,
        *,
        network: Network,
        network_id: bytes,
        voters: Callable[[], Sequence[Collection[str]]],
        has_same_log: Callable[[str], bool],
        ahead: Callable[[int], Collection[str]],
        is_needed: Callable[[BaseHead], bool],
        bases: Bases,
        thread: WriterThread,
        directory: DataDirectory,
        free_bytes_min: int,
    ) -> None:
        self._network = network
        self._network_id = network_id
        self._voters = voters
        self._has_same_log = has_same_log
        self._ahead = ahead
        self._is_needed = is_needed
        self._bases = bases
        self._thread = thread
        self._directory = directory
        self._free_bytes_min = free_bytes_min
        self._sources = Sources()
        self._said_s = -_SAID_EVERY_S
        self.fetched_records = 0

    def connected(self, among: Collection[str] | None = None) -> list[str]:
        """Return the connected peers with the log that is known of them, all or those `among`."""
        return [
            info.peer
            for info in self._network.peers()
            if info.is_connected
            and self._has_same_log(info.peer)
            and (among is None or info.peer in among)
        ]

    def all_voters(self) -> set[str]:
        """Return the voters of both sets."""
        return {peer for voters in self._voters() for peer in voters}

    async def ask_round(self, above: int) -> Agreement:
        """Ask everybody what it offers, and the voters what they name, above a height."""
        agreement = Agreement(self._voters(), above)
        async with trio.open_nursery() as nursery:
            for peer in self.connected():
                nursery.start_soon(self._ask_offer, peer, agreement)
        questions = agreement.questions()
        async with trio.open_nursery() as nursery:
            for peer in self.connected(self.all_voters()):
                nursery.start_soon(self._ask_names, peer, questions, agreement)
        return agreement

    async def fetch(self, agreement: Agreement, lacking: int) -> None:
        """Fetch the base that is agreed on, since nobody keeps the entry `lacking` any more.

        Returns when it can't be had now, or does not help: try again later. Raises BaseComplete.
        """
        agreed = agreement.agreed()
        if agreed is None:
            self._say(
                "base_not_agreed",
                reason=f"nobody keeps entry {lacking}, and no majority of the voters known "
                "here names one base",
                remedy="Start more of the orderers that this node knows, or a node that keeps all "
                "blocks (ledger.keep_blocks 0).",
            )
            return
        _logger.info("fetching_base", height=agreed.height, holders=sorted(agreed.holders))
        try:
            incoming = await self._thread.run(
                Incoming, self._directory.base / "incoming", self._bases.stored
            )
            try:
                await self._complete(incoming, agreed)
            finally:
                with trio.CancelScope(shield=True):
                    await self._thread.run(incoming.close)
        except Unavailable as error:
            # The disk has no room, or nobody has it now: the next look tries again.
            self._say("base_not_fetched", reason=str(error), remedy=error.remedy)

    def _say(self, event: str, **values: object) -> None:
        now_s = trio.current_time()
        if now_s - self._said_s >= _SAID_EVERY_S:
            self._said_s = now_s
            _logger.warning(event, **values)

    async def _complete(self, incoming: Incoming, agreed: Agreed) -> None:
        if incoming.digest != agreed.digest:
            data = await self._fetch(partial(HeadFetch, agreed, self._network_id), agreed.holders)
            if data is None or not self._is_needed(base_wire.decode_head(data)):
                return
            await self._thread.run(incoming.begin, data)
        head = incoming.head
        assert head is not None, "it was begun"
        if not self._is_needed(head):
            return
        self._check_room(head, incoming.count)
        while not incoming.is_complete:
            number = incoming.intervals
            interval = IntervalFetch(head, number)
            if interval.is_empty:
                records: bytes | None = interval.finish()
            else:
                records = await self._fetch(partial(_interval, head, number), agreed.sources)
            if records is None:
                return
            await self._thread.run(incoming.add, records)
            self.fetched_records += len(records) // RECORD_BYTES
        if await self._is_outrun(head) or not self._is_needed(head):
            return
        await self._thread.run(incoming.finish)
        raise BaseComplete(f"the base at height {head.height} is complete")

    def _check_room(self, head: BaseHead, count: int) -> None:
        wanted = (head.records - count) * RECORD_BYTES + self._free_bytes_min
        free = self._directory.free_bytes()
        if wanted > free:
            raise Unavailable(
                f"the base at height {head.height} needs {wanted} bytes, {free} are free",
                remedy="Make room on the disk of node.data_dir.",
            )

    async def _is_outrun(self, head: BaseHead) -> bool:
        """Whether everybody pruned on meanwhile: then what is new is fetched first."""
        agreement = await self.ask_round(head.height)
        first = agreement.first_kept(self._ahead(head.index))
        return first is not None and first > head.index + 1 and agreement.agreed() is not None

    async def _ask_offer(self, peer: str, agreement: Agreement) -> None:
        answer = await self._ask(peer, BaseQuery())
        if isinstance(answer, BaseAnswer):
            try:
                agreement.offered(peer, answer)
            except DecodeError as error:
                self._blame(peer, error)

    async def _ask_names(
        self, peer: str, questions: Collection[BaseQuery], agreement: Agreement
    ) -> None:
        for question in questions:
            answer = await self._ask(peer, question)
            if not isinstance(answer, BaseAnswer):
                return
            try:
                agreement.named(peer, question, answer)
            except DecodeError as error:
                self._blame(peer, error)
                return

    async def _fetch(
        self, begin: Callable[[str], HeadFetch | IntervalFetch], sources: Collection[str]
    ) -> bytes | None:
        """Fetch a head or an interval from one of `sources`; None when nobody has it now."""
        while True:
            connected = self.connected(sources)
            peer = self._sources.choose(connected, trio.current_time())
            if peer is None:
                return None
            # Another peer begins anew: nobody is blamed for somebody else's part.
            fetch, data = begin(peer), None
            try:
                while data is None:
                    question = fetch.question()
                    answer = await self._ask(peer, question)
                    if not isinstance(answer, BaseHeadAnswer | BaseRecordsAnswer):
                        raise Unavailable("no answer")
                    data = fetch.take(question, answer)
                return data
            except DecodeError as error:
                self._blame(peer, error)
            except Unavailable as error:
                self._sources.failed(peer, trio.current_time(), is_wrong=False)
                _logger.debug("base_refused", peer=peer, reason=str(error))

    async def _ask(self, peer: str, question: Request) -> Answer | None:
        """Return the answer; None when there is none, or it can't be read."""
        try:
            data = await self._network.request(
                peer, "sync", sync_wire.encode(question), _DEADLINE_S
            )
            return sync_wire.decode_answer(data)
        except DecodeError as error:
            self._blame(peer, error)
        except (RemoteError, LocalError) as error:
            _logger.debug("base_refused", peer=peer, reason=str(error))
        return None

    def _blame(self, peer: str, error: DecodeError) -> None:
        self._network.penalise(peer)
        self._sources.failed(peer, trio.current_time(), is_wrong=True)
        _logger.warning("base_wrong", peer=peer, reason=str(error))


def _interval(head: BaseHead, number: int, _peer: str) -> IntervalFetch:
    """The fetch of an interval, the same from whomever it comes."""
    return IntervalFetch(head, number)
