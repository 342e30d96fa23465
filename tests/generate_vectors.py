"""Writes protocol/vectors from fixed seeds: `python -m tests.generate_vectors [--check]`.

Every module `tests/vectors_<area>.py` has `cases()`, the files below protocol/vectors and what
each holds, made from fixed keys, nonces and times (Ed25519 is deterministic), and
`check(case)`, which lets the code judge one of them. Files come out the same byte for byte each
time; `--check` writes nothing and says what differs.
"""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tests.vector_parts import compact

VECTORS = Path(__file__).resolve().parent.parent / "protocol" / "vectors"


def modules() -> Iterator[ModuleType]:
    """All vector modules, by name."""
    for path in sorted(Path(__file__).parent.glob("vectors_*.py")):
        yield importlib.import_module(f"tests.{path.stem}")


def all_files() -> dict[str, str]:
    """The text of every file of every area, by path below protocol/vectors."""
    files: dict[str, str] = {}
    for module in modules():
        for path, case in module.cases().items():
            assert path not in files, path
            files[path] = json.dumps(compact(case), indent=2) + "\n"
    return files


def differences() -> list[str]:
    """What the tree has otherwise than the generator: missing, changed and left-over files."""
    wanted = all_files()
    found = {
        path.relative_to(VECTORS).as_posix(): path.read_text("utf-8")
        for path in VECTORS.rglob("*.json")
    }
    lines = [f"missing: {path}" for path in wanted if path not in found]
    lines += [f"left over: {path}" for path in found if path not in wanted]
    lines += [
        f"changed: {path}" for path in wanted if found.get(path, wanted[path]) != wanted[path]
    ]
    return sorted(lines)


def main(arguments: list[str]) -> int:
    """Write the vectors, or check them; the exit code."""
    if arguments == ["--check"]:
        wrong = differences()
        sys.stdout.writelines(f"{line}\n" for line in wrong)
        return 1 if wrong else 0
    wanted = all_files()
    for path in VECTORS.rglob("*.json"):
        if path.relative_to(VECTORS).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = VECTORS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    sys.stdout.write(f"{len(wanted)} vectors\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
