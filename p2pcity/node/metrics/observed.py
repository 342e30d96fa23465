"""The parts of a node that its metrics read: what `assembly.Parts` has."""

from collections.abc import Callable
from typing import Protocol

from p2pcity.api.statistics import HttpStatistics
from p2pcity.ledger.data_directory import DataDirectory
from p2pcity.mempool.mempool import Mempool
from p2pcity.net.network import Network
from p2pcity.node.apply_loop import ApplyLoop
from p2pcity.node.config import Config
from p2pcity.node.gossiping import Gossiping
from p2pcity.node.identity import Identity
from p2pcity.node.intake import Intake
from p2pcity.node.membership import Membership
from p2pcity.node.opening import Stores
from p2pcity.node.ordering_loop import OrderingLoop
from p2pcity.node.outbox_loop import OutboxLoop
from p2pcity.node.pruning import Pruning
from p2pcity.node.status import Status
from p2pcity.node.telemetry import Telemetry
from p2pcity.node.waiting import Waiters


class Observed(Protocol):
    """A node's parts; nothing is changed through it."""

    config: Config
    identity: Identity
    now_ms: Callable[[], int]
    stores: Stores
    directory: DataDirectory
    mempool: Mempool
    intake: Intake
    outbox: OutboxLoop
    waiters: Waiters
    apply: ApplyLoop
    network: Network
    gossiping: Gossiping
    membership: Membership
    ordering: OrderingLoop
    pruning: Pruning
    status: Status
    http: HttpStatistics
    telemetry: Telemetry
