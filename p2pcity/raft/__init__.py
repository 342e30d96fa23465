"""The consensus core: Raft without clocks, sockets or disks."""

from p2pcity.raft.changes import Operation, Step, enter_joint, leave_joint, simple
from p2pcity.raft.config import RaftConfig
from p2pcity.raft.configuration import Configuration
from p2pcity.raft.log_storage import LogStorage
from p2pcity.raft.progress import ProgressState
from p2pcity.raft.raft import Role
from p2pcity.raft.raw_node import RawNode
from p2pcity.raft.reads import ReadState
from p2pcity.raft.ready import Ready
from p2pcity.raft.status import PeerStatus, RaftStatus

__all__ = [
    "Configuration",
    "LogStorage",
    "Operation",
    "PeerStatus",
    "ProgressState",
    "RaftConfig",
    "RaftStatus",
    "RawNode",
    "ReadState",
    "Ready",
    "Role",
    "Step",
    "enter_joint",
    "leave_joint",
    "simple",
]
