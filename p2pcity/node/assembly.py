"""Puts the node's parts together: who tells whom, in one place."""

import random
import secrets
from collections.abc import Callable, Sequence

import structlog
import trio

from p2pcity.admission.admission import Admission
from p2pcity.api.statistics import HttpStatistics
from p2pcity.errors import DecodeError, LedgerError, Unavailable
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Handlers, Network
from p2pcity.node.administration import Administration
from p2pcity.node.anti_entropy import AntiEntropy
from p2pcity.node.apply_loop import ApplyLoop
from p2pcity.node.base_fetching import BaseFetching
from p2pcity.node.base_serving import BaseServing
from p2pcity.node.config import Config
from p2pcity.node.entry_serving import EntryServing
from p2pcity.node.expiring import Expiring
from p2pcity.node.feeding import FeedingLoop
from p2pcity.node.forwarding import Forwarding
from p2pcity.node.gossiping import Gossiping
from p2pcity.node.identity import Identity
from p2pcity.node.intake import Intake, RunInThread
from p2pcity.node.introduction import Introduction
from p2pcity.node.logs import RateLimit
from p2pcity.node.membership import Membership
from p2pcity.node.metrics.collector import Metrics
from p2pcity.node.moments import Moments
from p2pcity.node.opening import Stores
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.node.otlp import Otlp
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.node.peer_status import PeerStatus
from p2pcity.node.pruning import Pruning
from p2pcity.node.reading import Reading
from p2pcity.node.reads import Reads
from p2pcity.node.reoffering import Reoffering
from p2pcity.node.room_configs import (
    admission_config,
    mempool_config,
    net_config,
    raft_config,
    tick_ms,
)
from p2pcity.node.service import NodeService
from p2pcity.node.settling import Settling
from p2pcity.node.standing import Standing
from p2pcity.node.state_of_node import StateOfNode
from p2pcity.node.status import Status
from p2pcity.node.submitting import Signer, Submitting
from p2pcity.node.telemetry import Telemetry
from p2pcity.node.trace import Trace
from p2pcity.node.waiting import Waiters
from p2pcity.ordering.apply import AppliedBlock
from p2pcity.ordering.clocks import Verdict
from p2pcity.ordering.members import Members
from p2pcity.ordering.proposer import Parent
from p2pcity.wire.raft import Entry
from p2pcity.wire.transaction import Carried

_logger = structlog.get_logger("p2pcity.node")

_REOFFER_S = 1.0
_REJECT_LOG_PERIOD_S = 5.0


class Parts:
    """Every part of a running node, made in two steps: before and after the log is applied."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        stores: Stores,
        now_ms: Callable[[], int],
        *,
        make_network: Callable[..., Network] = Network,
        run_in_thread: RunInThread = trio.to_thread.run_sync,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        now_us: Callable[[], int] | None = None,
        otlp: Otlp | None = None,
    ) -> None:
        """Take what the node is made of: the network, the threads that verify, and chance.

        `now_us` is a finer reading of the clock of `now_ms`, for traces; `otlp` is where spans go.
        """
        self.config = config
        self.identity = identity
        self.stores = stores
        self.now_ms = now_ms
        self._network_maker = make_network
        self._run_in_thread = run_in_thread
        self._random_bytes = random_bytes
        self.moments = Moments(now_us or (lambda: now_ms() * 1000))
        self.telemetry = Telemetry(self.moments, otlp)
        self.directory = DataDirectory(config.node.data_dir)
        self.state = stores.views.state
        self.mempool = Mempool(mempool_config(config.mempool))
        self.view = StateOfNode(stores, self.state, self.mempool)
        self.waiters = Waiters()
        self.http = HttpStatistics()
        self.outbox = OutboxLoop(stores.outbox, stores.outbox_writer)
        self._reject_lines = RateLimit(_REJECT_LOG_PERIOD_S)
        self._is_joined = False
        self._damage: LedgerError | None = None
        self._is_damaged = trio.Event()
        self._make_intake()

    def join(self) -> None:
        """Make what takes part in the network; called once the views have caught up with the log.

        Raft starts behind what is applied here: it hands out every later entry exactly once.
        """
        identity, stores = self.identity, self.stores
        self.members = Members(stores.views.state, identity.key.public, stores.raft_log.incarnation)
        self.membership = Membership(
            members=self.members, identity=identity, peers=self.config.net.peers
        )
        self._make_network()
        self._make_ordering()
        self._make_transport_loops()
        self._make_service()
        self._is_joined = True

    def _make_intake(self) -> None:
        network = self.identity.genesis.network
        self.intake = Intake(
            admission=Admission(admission_config(self.config.admission), network),
            mempool=self.mempool,
            state=self.view,
            network=network,
            now_ms=self._corrected_ms,
            on_admitted=self._on_admitted,
            on_rejected=self._on_rejected,
            moments=self.moments,
            run_in_thread=self._run_in_thread,
        )
        self.apply = ApplyLoop(
            raft_log=self.stores.raft_log,
            views=self.stores.views,
            writer=self.stores.views_writer,
            mempool=self.mempool,
            intake=self.intake,
            on_applied=self._on_applied,
        )

    def _make_network(self) -> None:
        self.network = self._network_maker(
            net_config(self.config.net),
            self.identity.key,
            hello=lambda: self.introduction.hello(),
            allowed=self.membership.is_allowed,
            known_addresses=self.membership.addresses,
            handlers=Handlers(
                on_raft=self._on_raft,
                on_request=self._on_request,
                on_gossip=self._on_gossip,
                on_peer=self._on_peer,
            ),
        )

    def _make_ordering(self) -> None:
        raft, identity, stores = self.config.raft, self.identity, self.stores
        self.ordering = OrderingLoop(
            config=raft_config(raft, identity.peer_id),
            members=self.members,
            has_same_log=self.membership.has_same_log,
            promotion_ticks=round(raft.promotion_ms / tick_ms(raft)),
            tick_s=tick_ms(raft) / 1000,
            raft_log=stores.raft_log,
            writer=stores.log_writer,
            mempool=self.mempool,
            rules=identity.genesis.rules,
            tip=self._tip,
            applied_index=lambda: self.apply.applied_index,
            now_ms=self.now_ms,
            send=self.network.send,
            on_committed=self._on_committed,
            on_reads=lambda states, dropped: self.reads.answer(states, dropped),
            on_leader=lambda: self.forwarding.leader_changed(),
            on_members=self._on_members,
            on_message=lambda peer, message: self.standing.heard(peer, message),
            is_barred=lambda: self.standing.is_barred,
            rng=random.Random(self._random_bytes(8)),
            moments=self.moments,
        )
        self.standing: Standing = Standing(
            own_id=identity.peer_id,
            own_incarnation=stores.raft_log.incarnation,
            voters=lambda: self.members.voter_incarnations,
            raw_node=self.ordering.raw_node,
            path=self.directory.promises,
            writer=stores.outbox_writer,
        )
        self.introduction: Introduction = Introduction(
            network=identity.genesis.network,
            incarnation=stores.raft_log.incarnation,
            addresses=self.config.net.announce,
            members=self.members,
            raw_node=self.ordering.raw_node,
            standing=self.standing,
            apply=self.apply,
            mempool=self.mempool,
            tip=lambda: stores.views.tip,
            now_ms=self.now_ms,
            raft_log=stores.raft_log,
        )
        self.reads = Reads(
            self.ordering.raw_node,
            wake=self.ordering.wake,
            applied_index=lambda: self.apply.applied_index,
            retry_s=raft.times_ms[1] / 2000,
        )

    def _make_transport_loops(self) -> None:
        self.forwarding = Forwarding(
            network=self.network,
            mempool=self.mempool,
            intake=self.intake,
            leader=lambda: self.ordering.leader,
            own_id=self.identity.peer_id,
            reoffer_s=_REOFFER_S,
            moments=self.moments,
        )
        self.gossiping = Gossiping(
            network=self.network, mempool=self.mempool, intake=self.intake, moments=self.moments
        )
        log, thread = self.stores.raft_log, self.stores.reader_thread
        self.entry_serving = EntryServing(raft_log=log, thread=thread, on_damage=self._on_damage)
        self.feeding = FeedingLoop(
            network=self.network,
            ordering=self.ordering,
            raft_log=self.stores.raft_log,
            own_id=self.identity.peer_id,
            has_same_log=self.membership.has_same_log,
        )
        self.anti_entropy = AntiEntropy(
            network=self.network,
            mempool=self.mempool,
            intake=self.intake,
            is_known=self.view.is_known,
            block_bytes=lambda height: self.reading.block_bytes(height),
            entries=self.entry_serving.answer,
            bases=BaseServing(
                self.stores.bases, log, self.stores.reader.base_digest, thread, self._on_damage
            ).answer,
            session=self._random_bytes(16),
        )
        self.peer_status = PeerStatus(
            network=self.network,
            own=self.introduction.status_answer,
            now_ms=self.now_ms,
            clocks=self.ordering.clock_rule.clocks,
            is_voter=lambda peer: self.ordering.raw_node.configuration.is_voter(peer),
            on_answer=self.standing.said,
            moments=self.moments,
        )
        self.base_fetching = BaseFetching(
            network=self.network,
            network_id=self.identity.genesis.network,
            ordering=self.ordering,
            peer_status=self.peer_status,
            has_same_log=self.membership.has_same_log,
            stores=self.stores,
            directory=self.directory,
            free_bytes_min=self.config.ledger.disk_free_bytes_min,
            keeps_all=not self.config.ledger.keep_blocks,
        )

    def _make_service(self) -> None:
        identity, stores = self.identity, self.stores
        self.reading = Reading(
            genesis=identity.genesis,
            state=self.state,
            views=stores.views,
            reader=stores.reader,
            reader_thread=stores.reader_thread,
            outbox=stores.outbox,
            outbox_thread=stores.outbox_writer,
            mempool=self.mempool,
            reads=self.reads,
            is_in_outbox=self.outbox.is_pending,
            on_damage=self._on_damage,
        )
        self._make_submitting()
        self.pruning: Pruning = Pruning(
            keep_blocks=self.config.ledger.keep_blocks,
            bases=stores.bases,
            raft_log=stores.raft_log,
            log_writer=stores.log_writer,
            views=stores.views,
            views_writer=stores.views_writer,
            reader=stores.reader,
            reader_thread=stores.reader_thread,
        )
        self.status = Status(
            config=self.config,
            identity=identity,
            membership=self.membership,
            directory=self.directory,
            raft_log=stores.raft_log,
            views=stores.views,
            mempool=self.mempool,
            outbox=self.outbox,
            intake=self.intake,
            ordering=self.ordering,
            apply=self.apply,
            network=self.network,
            peer_status=self.peer_status,
            standing=self.standing,
            pruning=self.pruning,
            base_fetching=self.base_fetching,
            now_ms=self.now_ms,
        )
        self.service = NodeService(
            submitting=self.submitting,
            reading=self.reading,
            status=self.status,
            ordering=self.ordering,
            administration=Administration(
                ordering=self.ordering,
                members=self.members,
                membership=self.membership,
                now_ms=self.now_ms,
            ),
            trace=Trace(
                network=self.network,
                membership=self.membership,
                moments=self.moments,
                own_id=identity.peer_id,
                status=self.reading.status_of,
            ),
            telemetry=self.telemetry,
            metrics=Metrics(self).text,
            own_id=identity.peer_id,
            is_disk_low=self.status.is_disk_low,
        )

    def _make_submitting(self) -> None:
        identity, stores = self.identity, self.stores
        signer = None
        if identity.author is not None:
            signer = Signer(
                identity.author, identity.genesis.network, self._random_bytes, self._corrected_ms
            )
        self.submitting = Submitting(
            intake=self.intake,
            mempool=self.mempool,
            outbox=self.outbox,
            waiters=self.waiters,
            signer=signer,
            status=self.reading.status_of,
            find_events=self.reading.find_events,
            wait_current=self._wait_current,
            is_unsaid=lambda id_: self.expiring.is_unsaid(id_),
            expire_later=lambda ids: self.expiring.later(ids),
            moments=self.moments,
        )
        self.settling = Settling(
            mempool=self.mempool,
            waiters=self.waiters,
            outbox=self.outbox,
            submitting=self.submitting,
            moments=self.moments,
            telemetry=self.telemetry,
        )
        self.expiring = Expiring(
            mempool=self.mempool,
            wait_current=self._wait_current,
            waiters=self.waiters,
            outbox=self.outbox,
            forget=self.submitting.forget,
            now_ms=self._corrected_ms,
            is_time_known=self._is_time_known,
        )
        self.reoffering = Reoffering(
            outbox=stores.outbox,
            writer=stores.outbox_writer,
            loop=self.outbox,
            intake=self.intake,
            is_on_ledger=stores.probe.has_transaction,
            is_waiting=self.mempool.__contains__,
            remember=self.submitting.remember,
            on_expired=self.expiring.add,
        )

    # What one part tells the others.

    def _tip(self) -> Parent:
        tip = self.stores.views.tip
        return Parent(tip.height, tip.hash, tip.time_ms)

    def _corrected_ms(self) -> int:
        """The time that expiry is judged by, Unix ms: a wrong clock must not let all expire."""
        now_ms = self.now_ms()
        return self.ordering.clock_rule.corrected_ms(now_ms) if self._is_joined else now_ms

    def _is_time_known(self) -> bool:
        return self.ordering.clock_rule.verdict(self.now_ms()) is not Verdict.UNKNOWN

    async def _wait_current(self, timeout_s: float) -> None:
        """Wait until what is over by our clock, and not on the ledger here, can come nowhere."""
        if not self._is_time_known():
            raise Unavailable(
                "too few orderers' clocks agree with this node's",
                remedy="Set the clocks, or bring the orderers back that are down.",
            )
        await self.reads.wait_linearizable(timeout_s)

    def _on_admitted(self, carried: Sequence[Carried], peer: str | None) -> None:
        if peer is None:
            self.forwarding.offer(carried)
            self.gossiping.offer(carried)
        self.ordering.wake()

    def _on_rejected(self, reason: str, peer: str | None) -> None:
        is_due, held = self._reject_lines.allows(f"{peer} {reason}", trio.current_time())
        if is_due:
            _logger.warning("transaction_rejected", reason=reason, peer=peer, held_back=held)

    def _on_raft(self, peer: str, data: bytes) -> bool:
        # One on an older copy of its disk may have voted before, and not know it.
        return not self.standing.is_heard(peer) or self.ordering.receive(peer, data)

    async def _on_gossip(self, peer: str, data: bytes) -> bool:
        return await self.gossiping.receive(peer, data)

    async def _on_request(self, peer: str, protocol: str, data: bytes) -> bytes:
        if protocol == "forward":
            return await self.forwarding.answer(peer, data)
        if protocol == "status":
            return self.peer_status.answer(data)
        if protocol == "sync":
            return await self.anti_entropy.answer(data)
        raise DecodeError(f"nothing answers on {protocol}", reason="malformed")

    def _on_peer(self, peer: str, is_up: bool) -> None:
        if is_up:
            [info] = [info for info in self.network.peers() if info.peer == peer]
            self.membership.connected(peer, info.incarnation)
            if info.hello is not None:
                self.standing.connected(peer, info.hello)
                if info.hello.last_index is not None:
                    self.ordering.raw_node.report_log(peer, info.hello.last_index)
            return
        self.membership.disconnected(peer)
        self.standing.disconnected(peer)
        self.anti_entropy.forget(peer)
        self.peer_status.forget(peer)
        self.ordering.raw_node.report_unreachable(peer)
        self.ordering.wake()

    def _on_members(self) -> None:
        self.membership.changed()
        self.standing.changed()

    def _on_committed(self, entries: Sequence[Entry]) -> None:
        self.apply.committed(entries)

    def _on_applied(self, blocks: Sequence[AppliedBlock], index: int) -> None:
        if not self._is_joined:
            # The start: the log is applied, and there is nobody yet to be told.
            return
        self.settling.applied(blocks)
        if blocks:
            tip = blocks[-1].tip
            self.reading.applied(tip.height, tip.hash)
        self.ordering.raw_node.applied(index)
        self.ordering.proposer.applied(index)
        self.reads.applied()
        self.ordering.wake()

    def _on_damage(self, damage: LedgerError) -> None:
        self._damage = damage
        self._is_damaged.set()

    async def wait_damage(self) -> None:
        """Raise what is damaged once somebody's question met it; it got no answer."""
        await self._is_damaged.wait()
        assert self._damage is not None
        raise self._damage
