"""protocol/registry.md against the code: every name of the one stands in the other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

from p2pcity.admission.rules import ACCEPTED, RULES
from p2pcity.net import frames
from p2pcity.net import hello as hello_exchange
from p2pcity.net.connections import LANES, REQUEST_PROTOCOLS
from p2pcity.ordering.apply import Outcome
from p2pcity.wire import change, hello, moment, raft, sync

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "p2pcity"
REGISTRY: Final = (ROOT / "protocol" / "registry.md").read_text("utf-8")
# Names that the registry keeps for later, and no code knows.
RESERVED: Final = {
    "/p2pcity/<net>/certificates/1",
    "application/p2pcity-checkpoint+cbor",
}


def _section(title: str) -> str:
    start = REGISTRY.index(f"\n## {title}\n")
    end = REGISTRY.find("\n## ", start + 1)
    return REGISTRY[start : end if end > 0 else None]


def _names(text: str) -> list[str]:
    """The names of a section: the first column of its table, or all of its running text."""
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    return rows or re.findall(r"`([^`]+)`", text)


def _calls(folder: Path) -> Iterator[tuple[Path, ast.Call, str]]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.id if isinstance(function, ast.Name) else ""
                name = function.attr if isinstance(function, ast.Attribute) else name
                yield path, node, name


def _texts(node: ast.AST | None) -> set[str]:
    """Every constant text in an expression (both sides of a condition)."""
    found = ast.walk(node) if node is not None else ()
    return {x.value for x in found if isinstance(x, ast.Constant) and isinstance(x.value, str)}


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((x.value for x in call.keywords if x.arg == name), None)


def _constants(pattern: str) -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update([node.value] if re.fullmatch(pattern, node.value) else [])
    return found


def test_reasons_of_admission() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| ([a-z]+) \|", _section("Reasons of admission"), re.MULTILINE
    )
    assert rows == [(ACCEPTED, "accept"), *((rule.reason, rule.kind) for rule in RULES)]


def test_reasons_of_decoders() -> None:
    known = {rule.reason for rule in RULES} | {"unknown-message"}
    assert known <= set(re.findall(r"`([^`]+)`", _section("Reasons of admission")))
    wrong, named = [], 0
    for path, call, name in _calls(PACKAGE):
        if name == "DecodeError" and "api" not in path.relative_to(PACKAGE).parts:
            reasons = _texts(_keyword(call, "reason"))
            named += len(reasons)
            wrong += [f"{path}:{call.lineno}: {x}" for x in reasons - known]
    assert not wrong
    assert named > 30


def test_outcomes_of_apply() -> None:
    assert set(_names(_section("Outcomes of apply"))) == set(get_args(Outcome))


def test_reasons_of_hello() -> None:
    judged = {
        hello.WRONG_NETWORK,
        hello.PROTOCOL_TOO_OLD,
        hello.PROTOCOL_TOO_NEW,
        hello.OTHER_PARAMETERS,
        hello.OLDER_EPOCH,
        hello.NEWER_EPOCH,
    }
    assert set(_names(_section("Reasons of hello"))) == judged | {hello_exchange.WRONG_KEY}


def _reasons_of_api(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        values: list[ast.expr | None] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("Problem", "ApiProblem"):
                values = [*node.args[1:2], _keyword(node, "reason")]
            elif node.func.id == "DecodeError":
                values = [_keyword(node, "reason")]
        elif isinstance(node, ast.Assign) and "reason" in ast.unparse(node.targets[0]):
            values = [node.value]
        for value in values:
            # A name or a call says a reason that somebody else gave.
            if isinstance(value, ast.IfExp):
                found |= _texts(value.body) | _texts(value.orelse)
            elif isinstance(value, ast.Constant):
                found |= _texts(value)
    return found


def test_reasons_of_the_http_surface() -> None:
    found = {reason for path in (PACKAGE / "api").glob("*.py") for reason in _reasons_of_api(path)}
    listed = set(_names(_section("Reasons of the HTTP surface")))
    assert listed == found - {ACCEPTED} - {rule.reason for rule in RULES}


def test_topics_and_protocol_ids() -> None:
    found: set[str] = {hello_exchange.PROTOCOL}
    for path in (PACKAGE / "net").glob("*.py"):
        text = path.read_text("utf-8")
        for name in re.findall(r'f"\{prefix\}/([a-z]+)/1"', text):
            found.add(f"/p2pcity/<net>/{name}/1")
    found |= {f"/p2pcity/<net>/{name}/1" for name in REQUEST_PROTOCOLS}
    assert set(_names(_section("Topics and protocol ids"))) - RESERVED == found
    gossip = (ROOT / "protocol" / "04-gossip.md").read_text("utf-8")
    ids = set(re.findall(r"^\| `(/p2pcity/[^`]+)` \|", gossip, re.MULTILINE))
    assert ids - RESERVED == found


def test_domains() -> None:
    assert set(_names(_section("Domains of digests"))) == _constants(r"p2pcity/[a-z-]+/\d+")


def test_content_types() -> None:
    listed = set(_names(_section("Content types"))) - RESERVED
    assert listed == _constants(r"application/p2pcity-[a-z-]+\+cbor")


def test_kinds_of_messages() -> None:
    section = _section("Kinds of messages")
    of_ordering, of_sync, lanes = section.strip().split("\n\n")[1:]
    assert _names(of_ordering) == list(raft._TYPES)
    written = re.findall(r'"kind": "([a-z-]+)"', Path(sync.__file__).read_text("utf-8"))
    assert set(_names(of_sync)) == set(written)
    assert tuple(_names(lanes)) == LANES


def test_stages_of_a_transaction() -> None:
    assert tuple(_names(_section("Stages of a transaction"))) == get_args(moment.Stage)


def test_kinds_of_changes() -> None:
    kinds, operations = _section("Changes of who orders").strip().split("\n\n")[1:]
    assert _names(kinds) == list(change._KINDS)
    assert tuple(_names(operations)) == get_args(change.Operation)


def test_kinds_of_frames() -> None:
    text = (ROOT / "protocol" / "04-gossip.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| ([a-z]+) \|", text, re.MULTILINE)
    assert rows == [
        (str(getattr(frames, name.upper())), name)
        for name in ("whole", "piece", "last", "ping", "pong", "lane")
    ]
    assert f"{frames.BODY_BYTES_MAX:,} bytes of a larger message" in text


def test_no_name_stands_twice() -> None:
    for title in re.findall(r"^## (.+)$", REGISTRY, re.MULTILINE):
        names = _names(_section(title))
        assert names, title
        tables = re.findall(r"^\| `([^`]+)` \|", _section(title), re.MULTILINE)
        assert len(tables) == len(set(tables)), title
