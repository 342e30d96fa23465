"""What this node tells peers of itself: hello on every connection, and its status when asked."""

from collections.abc import Callable

from p2pcity import __version__
from p2pcity.ledger.segment_log import SegmentLog
from p2pcity.mempool.mempool import Mempool
from p2pcity.node.apply_loop import ApplyLoop
from p2pcity.node.standing import Standing
from p2pcity.ordering.apply import Tip
from p2pcity.ordering.members import Members
from p2pcity.raft.raw_node import RawNode
from p2pcity.wire.hello import Hello, parameters_digest
from p2pcity.wire.limits import PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST
from p2pcity.wire.sync import StatusAnswer


class Introduction:
    """Makes both anew each time; `tip` is the newest applied block, `now_ms` the wall clock."""

    def __init__(
        self,
        *,
        network: bytes,
        incarnation: bytes,
        addresses: tuple[str, ...],
        members: Members,
        raw_node: RawNode,
        standing: Standing,
        apply: ApplyLoop,
        mempool: Mempool,
        tip: Callable[[], Tip],
        now_ms: Callable[[], int],
        raft_log: SegmentLog,
    ) -> None:
        self._network = network
        self._incarnation = incarnation
        self._addresses = addresses
        self._members = members
        self._raw_node = raw_node
        self._standing = standing
        self._apply = apply
        self._mempool = mempool
        self._tip = tip
        self._now_ms = now_ms
        self._raft_log = raft_log

    def hello(self) -> Hello:
        """Who this node is, what it speaks, and where it stands."""
        return Hello(
            network=self._network,
            protocol=PROTOCOL_VERSION,
            protocol_oldest=PROTOCOL_VERSION_OLDEST,
            release=__version__,
            parameters=parameters_digest(),
            incarnation=self._incarnation,
            height=self._tip().height,
            addresses=self._addresses,
            time_ms=self._now_ms(),
            last_index=self._raw_node.last_index,
            term=self._raw_node.term,
            promises=self._standing.told(),
            epoch=self._members.state.epoch if self._members.is_own_log else None,
        )

    def status_answer(self) -> StatusAnswer:
        """How far this node is; as a leader, with what the voters acknowledged."""
        tip = self._tip()
        return StatusAnswer(
            height=tip.height,
            head=tip.hash,
            applied=self._apply.applied_index,
            commit=self._apply.target_index,
            term=self._raw_node.term,
            role=self._raw_node.role.value,
            release=__version__,
            time_ms=self._now_ms(),
            mempool=len(self._mempool),
            promises=self._standing.told() if self._raw_node.is_leader else (),
            sync_us=round(1000 * self._raft_log.statistics().sync_ms_quantile(0.99)),
        )
