"""Opens a raft_log that may be damaged, and fetches what is missing from the other nodes.

A log with holes is opened before anything else of the node exists: there is no Raft that could
vote by it, no apply and no HTTP. Only the network runs, to ask the others for the missing entries
and to give them the good ones: when all nodes are damaged, each at another place, they mend each
other. What nobody keeps any more is not needed behind a base: then one is fetched. Such a node also
says which bases it knows, since others may need one that a majority names.
"""

from collections.abc import Callable, Set
from typing import Final

import structlog
import trio

from p2pcity import __version__
from p2pcity.city.membership import State
from p2pcity.crypto import keys
from p2pcity.errors import CorruptionError, LocalError, P2PCityError, RemoteError, Unavailable
from p2pcity.ledger import views_store
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.ledger.segment_succession import supersede
from p2pcity.net.config import NetConfig
from p2pcity.net.network import Handlers, Network
from p2pcity.node.base_fetch import BaseComplete
from p2pcity.node.base_instead import BaseInstead
from p2pcity.node.base_serving import BaseServing
from p2pcity.node.config import Config
from p2pcity.node.entry_serving import EntryServing
from p2pcity.node.identity import Identity
from p2pcity.node.log_files import LogFiles
from p2pcity.sync.repair import Repair
from p2pcity.wire import sync as sync_wire
from p2pcity.wire.hello import Hello, parameters_digest
from p2pcity.wire.limits import PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST
from p2pcity.wire.sync import BaseQuestion, EntriesAnswer, EntriesQuery

_DEADLINE_S: Final = 10.0
_ROUND_S: Final = 0.5
_ROUND_S_MAX: Final = 30.0
"""So long the slowest is waited for before what came is tried."""
_SAID_EVERY_S: Final = 10.0

_REMEDY: Final = (
    "Start the other nodes; if none of them has these entries, or nothing has come of it after a "
    "minute with all of them, let this node join again under a new incarnation: `p2pcity init`."
)
# It may be the only one that has its old blocks: who may lose them is for its operator to say.
_REMEDY_OF_ARCHIVE: Final = (
    "Start the other nodes. If none of them has these entries, put a copy of the data directory "
    "back, or let it go on without its older blocks: set ledger.keep_blocks."
)

_logger = structlog.get_logger("p2pcity.node.log_repair")


async def refuse_holes(log: SegmentLog, files: LogFiles) -> SegmentLog:
    """Close a log with holes and raise CorruptionError: nobody can help."""
    await files.writer.run(log.close)
    first = log.holes[0][0]
    raise CorruptionError(
        f"the raft_log in {files.directory} is corrupt at index {first}: {log.gaps[0]}",
        index=first,
        remedy="No other node is known that has the entry: restore the data directory from a copy "
        "of its newest state.",
    )


class LogRepair:
    """A node that is not there yet: it fetches the missing entries of its log, and serves."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        *,
        now_ms: Callable[[], int],
        make_network: Callable[..., Network] = Network,
    ) -> None:
        self._config = config
        self._identity = identity
        self._now_ms = now_ms
        self._make_network = make_network
        self._serving: EntryServing | None = None
        self._base_serving: BaseServing | None = None
        self._incarnation = b""
        self._voters: list[frozenset[str]] = []
        self._incarnations: dict[str, bytes] = {}

    async def run(self, log: SegmentLog, files: LogFiles) -> SegmentLog:
        """Return the log without holes, once others gave what is missing; the old one is closed.

        Raises CorruptionError when there are no others, and BaseComplete (in a group) when a base
        has to take the place of what nobody keeps.
        """
        for gap in log.gaps:
            _logger.warning("log_damaged", reason=gap, holes=list(log.holes))
        addresses = await self._known_addresses(files)
        if not addresses:
            return await refuse_holes(log, files)
        self._incarnation = log.incarnation
        network = self._make_network(
            NetConfig(
                listen=self._config.net.listen,
                has_mdns=self._config.net.mdns,
                connections_max=self._config.net.connections_max,
                silence_s=self._config.net.silence_ms / 1000,
            ),
            self._identity.key,
            hello=self._hello,
            allowed=addresses.__contains__,
            known_addresses=addresses,
            handlers=Handlers(
                on_raft=lambda peer, data: True,
                on_request=self._answer,
                on_gossip=self._ignore_gossip,
                on_peer=lambda peer, is_up: None,
            ),
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            log = await self._mend(network, log, files)
            nursery.cancel_scope.cancel()
        _logger.info("log_whole", index=log.last_index)
        return log

    async def _known_addresses(self, files: LogFiles) -> dict[str, list[str]]:
        """Where the others are, by peer id: today's nodes as far as the views know, else the first.

        `net.peers` are asked in any case.
        """
        views, genesis = DataDirectory(files.directory.parent).views, self._identity.genesis
        state = State.from_genesis(genesis)
        try:
            state = await files.writer.run(views_store.read_city, views, genesis)
        except P2PCityError as error:
            # Missing or damaged as well: they are made anew from the log, once it is whole.
            _logger.warning("city_not_known", reason=str(error), nodes="those of the genesis")
        self._voters = [
            frozenset(map(keys.peer_id, chosen))
            for chosen in (state.sets.voters, state.sets.voters_outgoing)
            if chosen
        ]
        self._incarnations = {
            keys.peer_id(node.key): node.incarnation for node in state.nodes.values()
        }
        addresses = {
            keys.peer_id(node.key): list(node.addresses)
            for node in state.nodes.values()
            if node.key != self._identity.key.public
        }
        for address in self._config.net.peers:
            addresses.setdefault(address.rpartition("/p2p/")[2], []).append(address)
        return addresses

    async def _mend(self, network: Network, log: SegmentLog, files: LogFiles) -> SegmentLog:
        repair, said_s = Repair(log.holes), trio.current_time()
        came_s, instead = said_s, self._base_instead(network, files)
        while log.holes:
            serving = self._serve(log, files)
            tried = repair.entries, dict(repair.committed)
            repair.begin_round()
            with trio.move_on_after(_ROUND_S_MAX):
                await self._ask_all(network, repair)
            if (repair.entries, repair.committed) != tried:
                serving.close()
                self._serving, holes = None, log.holes
                await files.writer.run(log.close)
                log = await files.open(repair)
                if log.holes != holes:
                    repair = Repair(log.holes, repair.committed)
                    came_s = trio.current_time()
                    continue
                # It mended nothing: whoever gives that again and again keeps nobody from the rest.
                serving = self._serve(log, files)
            if repair.is_full:
                repair = Repair(log.holes, repair.committed)
            entries = repair.successors(self._is_quorum)
            is_superseded = bool(entries) and await files.writer.run(supersede, log, entries)
            if is_superseded:
                _logger.warning(
                    "log_superseded",
                    index=entries[0].index,
                    term=entries[0].term,
                    reason="what stood there is lost and was never committed: a quorum of the "
                    "others has this entry in its place",
                )
                break
            is_archive = not (self._config.ledger.keep_blocks or files.bases.base.height)
            if not is_archive:
                try:
                    await instead.look(log, repair, trio.current_time() - came_s)
                except BaseComplete:
                    serving.close()
                    await files.writer.run(log.close)
                    raise
            if trio.current_time() - said_s >= _SAID_EVERY_S:
                said_s = trio.current_time()
                _logger.warning(
                    "log_repair_waits",
                    holes=list(log.holes),
                    connected=[info.peer for info in network.peers() if info.is_connected],
                    remedy=_REMEDY_OF_ARCHIVE if is_archive else _REMEDY,
                )
            await trio.sleep(_ROUND_S)
        return log

    def _serve(self, log: SegmentLog, files: LogFiles) -> EntryServing:
        """Give the others what is good of the log, and of the base."""
        views = DataDirectory(files.directory.parent).views

        def digest_at(height: int) -> bytes | None:
            try:
                return views_store.read_base_digest(views, self._identity.genesis, height)
            except P2PCityError as error:
                _logger.debug("base_not_known", height=height, reason=str(error))
                return None

        self._serving = EntryServing(
            raft_log=log, thread=files.writer, on_damage=lambda damage: None
        )
        self._base_serving = BaseServing(
            files.bases, log, digest_at, files.writer, lambda damage: None
        )
        return self._serving

    def _base_instead(self, network: Network, files: LogFiles) -> BaseInstead:
        return BaseInstead(
            network,
            files,
            voters=self._voters,
            incarnations=self._incarnations,
            free_bytes_min=self._config.ledger.disk_free_bytes_min,
        )

    def _is_quorum(self, peers: Set[str]) -> bool:
        """Whether these others are a majority of the voters, in a joint state of both sets."""
        return all(2 * len(peers & voters) > len(voters) for voters in self._voters)

    async def _ask_all(self, network: Network, repair: Repair) -> None:
        async with trio.open_nursery() as nursery:
            for info in network.peers():
                if info.is_connected:
                    nursery.start_soon(self._ask, network, info.peer, repair)

    async def _ask(self, network: Network, peer: str, repair: Repair) -> None:
        while (question := repair.question(peer)) is not None:
            try:
                data = await network.request(peer, "sync", sync_wire.encode(question), _DEADLINE_S)
                answer = sync_wire.decode_answer(data)
            except (RemoteError, LocalError) as error:
                _logger.debug("entries_refused", peer=peer, reason=str(error))
                return
            is_fitting = isinstance(answer, EntriesAnswer) and repair.take(peer, question, answer)
            if not is_fitting:
                network.penalise(peer)
                return

    async def _answer(self, peer: str, protocol: str, data: bytes) -> bytes:
        if protocol == "sync" and self._serving is not None:
            question = sync_wire.decode_request(data)
            if isinstance(question, EntriesQuery):
                return sync_wire.encode(await self._serving.answer(question))
            if isinstance(question, BaseQuestion) and self._base_serving is not None:
                return sync_wire.encode(await self._base_serving.answer(question))
        raise Unavailable("this node mends its raft_log and answers nothing else")

    async def _ignore_gossip(self, peer: str, data: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    def _hello(self) -> Hello:
        return Hello(
            network=self._identity.genesis.network,
            protocol=PROTOCOL_VERSION,
            protocol_oldest=PROTOCOL_VERSION_OLDEST,
            release=__version__,
            parameters=parameters_digest(),
            incarnation=self._incarnation,
            height=0,
            addresses=self._config.net.announce,
            time_ms=self._now_ms(),
        )
