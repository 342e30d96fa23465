"""The house rules that a machine can keep: rooms, purity, sizes, names, docstrings, dead code."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "p2pcity"

_ORDERABLE: Final = {"errors", "crypto", "wire"}
_PURE_RULES: Final = {"admission", "mempool", "raft", "sync", "city"}
_DISK_AND_NET: Final = {"ledger", "net", "views", "api"}

# Data flows right, imports point left: what each room may import from the others.
ROOMS: Final[dict[str, set[str]]] = {
    "errors": set(),
    "crypto": {"errors"},
    "wire": {"errors", "crypto"},
    "admission": _ORDERABLE,
    "mempool": _ORDERABLE,
    "raft": _ORDERABLE,
    "sync": _ORDERABLE,
    "city": _ORDERABLE,
    "ordering": _ORDERABLE | _PURE_RULES,
    "views": _ORDERABLE | {"city", "ordering"},
    "ledger": _ORDERABLE | {"city", "ordering", "raft", "views"},
    "net": _ORDERABLE | {"sync"},
    "api": _ORDERABLE,
    "node": _ORDERABLE | _PURE_RULES | _DISK_AND_NET | {"ordering"},
    "cli": _ORDERABLE | _PURE_RULES | _DISK_AND_NET | {"ordering", "node"},
    "__init__": set(),
    "__main__": {"cli"},
}

# Each of these libraries is known to one room only (cryptography: keys and nothing else).
LIBRARY_ROOM: Final[dict[str, set[str]]] = {
    "cbor2": {"wire"},
    "nacl": {"crypto"},
    "cryptography": {"crypto"},
    "sqlite3": {"ledger"},
    "libp2p": {"net"},
    "multiaddr": {"net"},
    "starlette": {"api"},
    "hypercorn": {"api"},
    "prometheus_client": {"node"},
    "opentelemetry": {"node"},
    "click": {"cli"},
    "rich": {"cli"},
}

PURE: Final = {"crypto", "wire", "ordering"} | _PURE_RULES
IMPURE_MODULES: Final = {
    "asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "secrets",
    "select", "shutil", "signal", "socket", "sqlite3", "structlog", "subprocess", "sys",
    "tempfile", "threading", "time", "trio", "urllib", "uuid",
}  # fmt: skip

MODULE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70
COLUMNS_MAX: Final = 100
BANNED_NAMES: Final = re.compile(r"(^|_)(utils?|helpers?|commons?|managers?|misc)(_|$)")
# Entry points that nothing imports: console scripts, `-m`, and what is loaded by name.
LOADED_BY_NAME: Final = {"p2pcity", "p2pcity.__main__"}
GENERATED: Final = ("_pb2.py",)


def _modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if not p.name.endswith(GENERATED))


def _python_files() -> list[Path]:
    places = ("p2pcity", "tests", "protocol", "testnet")
    found = (p for place in places for p in (ROOT / place).rglob("*.py"))
    return sorted(p for p in found if "node_modules" not in p.parts)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, also those inside functions."""
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = _name(path).split(".")
                if path.name != "__init__.py":
                    package = package[:-1]
                base = package[: len(package) - node.level + 1]
                prefix = ".".join([*base, node.module] if node.module else base)
            else:
                prefix = node.module or ""
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def _say(wrong: list[str]) -> None:
    assert not wrong, "\n" + "\n".join(wrong)


def _at(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def test_every_module_is_in_a_room() -> None:
    _say([f"{p}: no such room" for p in _modules() if _room(p) not in ROOMS])


def test_the_table_has_no_cycle() -> None:
    seen: set[str] = set()
    for room, allowed in ROOMS.items():
        if room.startswith("__"):
            continue
        assert allowed <= seen, f"{room} imports what stands to its right: {allowed - seen}"
        seen.add(room)


def test_imports_point_left() -> None:
    wrong = []
    for path in _modules():
        room = _room(path)
        for line, name in _imports(path):
            parts = name.split(".")
            if parts[0] != "p2pcity" or len(parts) < 2:
                continue
            other = parts[1]
            if other in ROOMS and other != room and other not in ROOMS.get(room, set()):
                wrong.append(_at(path, line, f"{room} must not import {other}"))
    _say(wrong)


def test_each_library_has_one_room() -> None:
    wrong = []
    for path in _modules():
        for line, name in _imports(path):
            rooms = LIBRARY_ROOM.get(name.split(".")[0])
            if rooms is not None and _room(path) not in rooms:
                wrong.append(_at(path, line, f"only {sorted(rooms)} may import {name}"))
    _say(wrong)


def test_the_extra_has_one_module() -> None:
    """What is not installed everywhere is imported where it is asked for, and nowhere else."""
    found = {
        _name(path)
        for path in _modules()
        for _, name in _imports(path)
        if name.split(".")[0] == "opentelemetry"
    }
    assert found == {"p2pcity.node.otlp"}
    path = PACKAGE / "node" / "otlp.py"
    at_once = [node for node in _parse(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "opentelemetry" not in " ".join(map(ast.unparse, at_once))


def test_left_rooms_are_pure() -> None:
    wrong = []
    for path in _modules():
        if _room(path) not in PURE:
            continue
        for line, name in _imports(path):
            if name.split(".")[0] in IMPURE_MODULES:
                wrong.append(_at(path, line, f"{_room(path)} is pure and must not import {name}"))
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                wrong.append(_at(path, node.lineno, f"{_room(path)} is pure: nothing async"))
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"open", "input", "print"}
            ):
                wrong.append(_at(path, node.lineno, f"{_room(path)} is pure: no {node.func.id}()"))
    _say(wrong)


def test_pure_rooms_take_randomness_from_outside() -> None:
    """`random.Random` may be named as a type; the module's own generator may not be used.

    Only crypto makes keys, and does it with its library's generator.
    """
    wrong = []
    for path in _modules():
        if _room(path) not in PURE:
            continue
        for node in ast.walk(_parse(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "random"
                and node.attr != "Random"
            ):
                wrong.append(_at(path, node.lineno, f"random.{node.attr} is not handed in"))
    _say(wrong)


def test_sizes() -> None:
    wrong = []
    for path in _python_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > MODULE_LINES_MAX:
            wrong.append(_at(path, 1, f"{len(lines)} lines; {MODULE_LINES_MAX} is a wall"))
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                wrong.append(_at(path, number, f"{len(line)} columns"))
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    wrong.append(_at(path, node.lineno, f"{node.name} has {length} lines"))
    _say(wrong)


def test_names() -> None:
    wrong = []
    for path in _python_files():
        for part in path.relative_to(ROOT).with_suffix("").parts:
            if BANNED_NAMES.search(part.lower()):
                wrong.append(_at(path, 1, f"{part} says nothing"))
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.ClassDef) and re.search(r"(Manager|Helper|Utils?)$", node.name):
                wrong.append(_at(path, node.lineno, f"{node.name} says nothing"))
    _say(wrong)


def _undocumented(path: Path) -> Iterator[tuple[int, str]]:
    module = _parse(path)
    if not ast.get_docstring(module):
        yield 1, "the module"
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _undocumented_in(node)


def _undocumented_in(
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, prefix: str = ""
) -> Iterator[tuple[int, str]]:
    if node.name.startswith("_"):
        return
    if not ast.get_docstring(node) and not any(
        isinstance(d, ast.Name) and d.id in {"overload", "override"} for d in node.decorator_list
    ):
        yield node.lineno, prefix + node.name
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _undocumented_in(child, f"{prefix}{node.name}.")


def test_public_things_have_docstrings() -> None:
    _say(
        [_at(p, n, f"{what} has no docstring") for p in _modules() for n, what in _undocumented(p)]
    )


def test_broad_except_is_explained() -> None:
    """One `except Exception` at a task's root, each with its reason in a comment on the line."""
    wrong = []
    for path in _modules():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(_parse(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = (
                {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                if node.type
                else {"BaseException"}
            )
            if names & {"Exception", "BaseException"} and "#" not in lines[node.lineno - 1]:
                wrong.append(_at(path, node.lineno, "a broad except without its reason"))
    _say(wrong)


def test_type_ignores_have_a_code_and_a_reason() -> None:
    wrong = []
    for path in _python_files():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "type: ignore" in line and not re.search(r"type: ignore\[[\w, -]+\]\s+# \S", line):
                wrong.append(_at(path, number, "type: ignore without a code and a reason"))
    _say(wrong)


def test_no_empty_modules() -> None:
    _say([_at(p, 1, "empty") for p in _modules() if not _parse(p).body])


def test_no_dead_modules() -> None:
    """Every module is imported by another one, or named in a string (what the CLI loads lazily)."""
    alive = set(LOADED_BY_NAME)
    for path in _modules():
        for _, name in _imports(path):
            alive.update((name, name.rpartition(".")[0]))
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.Constant) and str(node.value).startswith("p2pcity."):
                alive.add(str(node.value).partition(":")[0])
    packages = {name.rpartition(".")[0] for name in alive}
    dead = [p for p in _modules() if _name(p) not in alive | packages]
    _say([_at(p, 1, "nothing imports it") for p in dead])


def test_no_dead_private_functions() -> None:
    wrong = []
    for path in _modules():
        words = Counter(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        for node in _parse(path).body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and node.name.startswith("_")
                and not node.name.endswith("__")  # a module's __getattr__ is Python's to call
                and words[node.name] == 1
            ):
                wrong.append(_at(path, node.lineno, f"{node.name} is never used"))
    _say(wrong)


def test_no_sleeping_tests() -> None:
    wrong = []
    for path in sorted((ROOT / "tests" / "unit").rglob("*.py")):
        for node in ast.walk(_parse(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "sleep"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "time"
            ):
                wrong.append(_at(path, node.lineno, "a unit test sleeps"))
    _say(wrong)


def test_test_files_have_unique_names() -> None:
    names = Counter(p.name for p in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
def test_no_loose_ends(word: str) -> None:
    wrong = []
    for path in _modules():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(rf"\b{word}\b", line):
                wrong.append(_at(path, number, f"{word}: open an issue instead"))
    _say(wrong)
