"""A second reading of changes (06), importing nothing of p2pcity: who is in the city, who votes."""

from typing import Any

from tests.second_reader import Bad, binary, decode, digest, encode, fields, items, need, text

KINDS = {
    "voters": ("kind", "steps"),
    "leave": ("kind",),
    "recover": ("kind", "key", "incarnation"),
}


def read_change(data: bytes) -> dict[str, Any]:
    """The change in `data`; Bad."""
    need(len(data) <= 65_536, "size")
    change = decode(data)
    need(isinstance(change, dict) and type(change.get("kind")) is str)
    need(change["kind"] in KINDS)
    fields(change, *KINDS[change["kind"]])
    if change["kind"] == "leave":
        return dict(change)
    if change["kind"] == "recover":
        binary(change["key"], 32)
        binary(change["incarnation"], 16)
        return dict(change)
    steps = items(change["steps"], 32)
    need(bool(steps))
    for step in steps:
        fields(step, "operation", "key", optional=("node",))
        binary(step["key"], 32)
        operation, is_new = step["operation"], "node" in step
        need(type(operation) is str)
        need(operation in ("voter", "remove", "learner", "observer"))
        need(operation == "learner" or is_new == (operation == "observer"))
        if is_new:
            _read_node(step["node"])
    need(len({step["key"] for step in steps}) == len(steps))
    return dict(change)


def _read_node(node: Any) -> None:
    fields(node, "member", "name", "incarnation", "addresses")
    for key in ("member", "name"):
        value = text(node[key], 128)
        need(value.isprintable() and value == value.strip(" "))
    binary(node["incarnation"], 16)
    for x in items(node["addresses"], 16):
        need(text(x, 512).startswith("/") and x.isprintable() and " " not in x)


class City:
    """The registry: by key [incarnation, name with its member, place, place before]."""

    def __init__(self, members: list[Any]) -> None:
        self.nodes: dict[bytes, list[Any]] = {}
        for member in members:
            for node in member["nodes"]:
                place = "voter" if node["role"] == "orderer" else "observer"
                named = member["name"], node["name"]
                self.nodes[node["key"]] = [node["incarnation"], named, place, None]
        self.is_joint = False
        self.epoch = 0

    @property
    def voters(self) -> str:
        """The digest of the voters, or of both sets."""
        incoming, outgoing = (
            sorted([key, x[0]] for key, x in self.nodes.items() if x[at] == "voter")
            for at in (2, 3)
        )
        value = [incoming, outgoing] if self.is_joint else incoming
        return digest("p2pcity/voters/1", encode(value)).hex()

    def change(self, data: bytes) -> bool:
        """Whether the change in `data` has an effect."""
        try:
            change = read_change(data)
        except Bad:
            return False
        if change["kind"] == "recover":
            return self._recover(change["key"], change["incarnation"])
        is_leave = change["kind"] == "leave"
        if self.is_joint != is_leave:
            return False
        nodes = {key: list(x) for key, x in self.nodes.items()}
        for step in change.get("steps", []):
            if not self._step(nodes, step["key"], step["operation"], step.get("node")):
                return False
        before = {key for key, x in self.nodes.items() if x[2] == "voter"}
        after = {key for key, x in nodes.items() if x[2] == "voter"}
        is_joint = not is_leave and before != after
        for key, x in nodes.items():
            x[3] = "voter" if is_joint and key in before else None
        kept = {key: x for key, x in nodes.items() if x[2] is not None or x[3] is not None}
        if not after or len({x[1] for x in kept.values()}) != len(kept):
            return False
        self.nodes, self.is_joint = kept, is_joint
        return True

    def _recover(self, key: bytes, incarnation: bytes) -> bool:
        known = self.nodes.get(key)
        if known is None or known[0] != incarnation:
            return False
        self.nodes = {key: [incarnation, known[1], "voter", None]}
        self.is_joint = False
        self.epoch += 1
        return True

    def _step(self, nodes: dict[bytes, list[Any]], key: bytes, operation: str, new: Any) -> bool:
        if new is not None:
            if key in nodes:
                return False
            nodes[key] = [new["incarnation"], (new["member"], new["name"]), operation, None]
            return True
        if key not in nodes or (operation != "remove" and nodes[key][2] == "observer"):
            return False
        nodes[key][2] = None if operation == "remove" else operation
        return True
