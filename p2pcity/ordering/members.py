"""What a change on the ledger does to the city: who is a node, who votes, who follows.

The arithmetic of voters is the core's (`raft.changes`); here it meets the registry of nodes.
All of it is a function of the state before and the change, so every node computes the same
(protocol/06-block.md, "Changes").
"""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from p2pcity.city.membership import State, VoterSets
from p2pcity.crypto import keys
from p2pcity.errors import ChangeRefused, DecodeError
from p2pcity.raft import changes
from p2pcity.raft.configuration import Configuration
from p2pcity.wire import block as block_wire
from p2pcity.wire import change as change_wire
from p2pcity.wire.change import Change, LeaveJoint, NewNode, Recover, Step
from p2pcity.wire.genesis import GenesisNode, Role
from p2pcity.wire.raft import (
    AppendAnswer,
    Entry,
    HeartbeatAnswer,
    Message,
    NodeId,
    ReadRequest,
    VoteAnswer,
)

_SAID_BY_FOLLOWERS: Final = (VoteAnswer, AppendAnswer, HeartbeatAnswer, ReadRequest)


class Members:
    """The city as far as it is in effect in Raft: at the newest entry that was handed to apply.

    A registry that knows this node under another incarnation means somebody else: a log that is
    gone. That voter gets a name that nobody answers to, and this node is no member.
    """

    def __init__(self, state: State, own_key: bytes, incarnation: bytes) -> None:
        self.state = state
        self.incarnation = incarnation
        self._own_key = own_key

    @property
    def is_own_log(self) -> bool:
        """Whether the registry knows this node with the log that it has."""
        known = self.state.nodes.get(self._own_key)
        return known is not None and known.incarnation == self.incarnation

    @property
    def configuration(self) -> Configuration:
        """Who votes and who follows, as this node's Raft is to be told."""
        found = configuration(self.state)
        known = self.state.nodes.get(self._own_key)
        if known is None or known.incarnation == self.incarnation:
            return found
        own = keys.peer_id(self._own_key)
        lost = f"{own}/{known.incarnation.hex()}"

        def renamed(peers: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
            return tuple(lost if peer == own else peer for peer in peers)

        return Configuration(
            voters=renamed(found.voters),
            learners=renamed(found.learners),
            voters_outgoing=renamed(found.voters_outgoing),
            learners_next=renamed(found.learners_next),
            observers=renamed(found.observers),
        )

    @property
    def voter_incarnations(self) -> dict[NodeId, bytes]:
        """The incarnation of each voter, outgoing ones included, as the registry has it."""
        sets = self.state.sets
        voters = (*sets.voters, *sets.voters_outgoing)
        return {keys.peer_id(key): self.state.nodes[key].incarnation for key in voters}

    def take(self, entry: Entry) -> bool:
        """Put the change of a committed entry into effect; whether there was one that fits."""
        change = block_wire.peek_change(entry.payload) if entry.payload else None
        if change is None:
            return False
        try:
            self.state = apply_bytes(self.state, change)
        except ChangeRefused:
            return False
        return True


def is_heard(message: Message, *, has_same_log: bool) -> bool:
    """Whether Raft may be told what a peer says that has the registry's log, or another one.

    What a leader or a candidate says stands whatever this node's registry knows of it: it may
    lag, and no node leads or campaigns under an incarnation that its own does not have.
    """
    return has_same_log or not isinstance(message, _SAID_BY_FOLLOWERS)


def configuration(state: State) -> Configuration:
    """Return the voters and followers of `state` as Raft names them: by peer id."""
    sets = state.sets
    return Configuration(
        voters=_peers(sets.voters),
        learners=_peers(sets.learners),
        voters_outgoing=_peers(sets.voters_outgoing),
        learners_next=_peers(sets.learners_next),
        observers=_peers(sets.observers),
    )


def apply_change(state: State, change: Change) -> State:
    """Return the city after `change`; ChangeRefused, with the reason, when it does not fit."""
    before = configuration(state)
    if isinstance(change, LeaveJoint):
        return _with(state, changes.leave_joint(before), dict(state.nodes))
    if isinstance(change, Recover):
        return _recovered(state, change)
    nodes = dict(state.nodes)
    for step in change.steps:
        nodes[step.key] = _stepped(state, step)
    steps = [
        changes.Step(changes.Operation(step.operation), keys.peer_id(step.key))
        for step in change.steps
    ]
    after = changes.enter_joint(before, steps)
    if set(after.voters) == set(before.voters):
        # Nobody else votes afterwards: two quorums that are one and the same need no joint state.
        after = changes.simple(before, steps)
    changed = _with(state, after, nodes)
    names = [(node.member, node.name) for node in changed.nodes.values()]
    if len(set(names)) != len(names):
        raise ChangeRefused(
            "a node of this name is in the member already",
            remedy="Give the new node another name (p2pcity init --name), or remove the old one "
            "first.",
        )
    return changed


def _recovered(state: State, change: Recover) -> State:
    """Return the city that one node begins anew, whoever voted before."""
    known = state.nodes.get(change.key)
    if known is None or known.incarnation != change.incarnation:
        raise ChangeRefused(
            f"{keys.peer_id(change.key)} is no node of this city with this log",
            remedy="Recover on a node that the city knows.",
        )
    nodes = MappingProxyType({change.key: replace(known, role="orderer")})
    return State(state.authors, nodes, VoterSets(voters=(change.key,)), state.epoch + 1)


def apply_bytes(state: State, data: bytes) -> State:
    """Do `apply_change` with a change's bytes; ChangeRefused when they are no change."""
    try:
        change = change_wire.decode(data)
    except DecodeError as error:
        raise ChangeRefused(f"it is no change: {error}") from None
    return apply_change(state, change)


def _stepped(state: State, step: Step) -> GenesisNode:
    known = state.nodes.get(step.key)
    if step.node is None:
        if known is None:
            raise ChangeRefused(
                f"{keys.peer_id(step.key)} is no node of this city",
                remedy="Add it first, with its card.",
            )
        if step.operation == "remove":
            return known
        role: Role = "orderer" if step.operation == "voter" else "observer"
        return replace(known, role=role)
    if known is not None:
        raise ChangeRefused(
            f"{keys.peer_id(step.key)} is a node of this city already",
            remedy="Remove it first; its new log is somebody else to the others.",
        )
    role = "observer" if step.operation == "observer" else "orderer"
    return _new(step.key, step.node, role)


def _new(key: bytes, node: NewNode, role: Role) -> GenesisNode:
    return GenesisNode(key, node.incarnation, role, node.addresses, node.member, node.name)


def _with(state: State, after: Configuration, nodes: dict[bytes, GenesisNode]) -> State:
    """Return `state` with these sets; whoever is in none of them is forgotten."""
    sets = VoterSets(
        voters=_keys(after.voters),
        learners=_keys(after.learners),
        voters_outgoing=_keys(after.voters_outgoing),
        learners_next=_keys(after.learners_next),
        observers=_keys(after.observers),
    )
    members = set(_keys(after.members))
    kept = {key: node for key, node in nodes.items() if key in members}
    return State(state.authors, MappingProxyType(kept), sets, state.epoch)


def _peers(node_keys: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(keys.peer_id(key) for key in node_keys)


def _keys(peers: Sequence[NodeId]) -> tuple[bytes, ...]:
    return tuple(keys.public_key(peer) for peer in peers)
