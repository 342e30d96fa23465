"""Every vector of protocol/vectors, skipping none, against the code; and the generator."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.generate_vectors import VECTORS, differences, modules
from tests.vector_parts import compact, expand

CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    path: module.check for module in modules() for path in module.cases()
}
FILE_BYTES_MAX = 24 * 1024
PATHS = sorted(path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*.json"))


def _read(path: str) -> dict[str, Any]:
    vector: dict[str, Any] = expand(json.loads((VECTORS / path).read_text("utf-8")))
    return vector


@cache
def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PATHS)
def test_vector(path: str) -> None:
    CHECKS[path](_read(path))


def test_every_vector_names_a_section_of_the_prose() -> None:
    wrong = []
    for path in PATHS:
        document, _, anchor = _read(path)["spec"].partition("#")
        if anchor not in _anchors(VECTORS.parent / document):
            wrong.append(f"{path}: {document}#{anchor}")
    assert not wrong, "\n".join(wrong)


def test_the_generator_gives_the_same_bytes() -> None:
    assert differences() == []


def test_files_can_be_read_by_a_person() -> None:
    sizes = {path: (VECTORS / path).stat().st_size for path in PATHS}
    assert not {path: size for path, size in sizes.items() if size > FILE_BYTES_MAX}


def test_parts_are_the_same_bytes_again() -> None:
    rest = bytes(range(256)).hex()
    texts = ("00" * 70_000, rest * 40, "81" * 5000 + rest, rest + "582000" * 9999 + rest, "00" * 9)
    for text in texts:
        assert expand(compact({"a": [text]})) == {"a": [text]}
    assert compact("00" * 5000) == {"parts": [{"repeat": "00", "count": 5000}]}
    # The unit is the shortest, and what stands around it stays as it is.
    assert compact("abcd" * 5000 + "ef") == {"parts": [{"repeat": "abcd", "count": 5000}, "ef"]}


def test_ids_are_unique() -> None:
    ids = [_read(path)["id"] for path in PATHS]
    assert len(ids) == len(set(ids))


def test_every_area_has_valid_and_invalid_cases() -> None:
    folders = {tuple(path.split("/")[:2]) for path in PATHS}
    areas = {area for area, _ in folders}
    assert areas
    assert folders == {(area, kind) for area in areas for kind in ("valid", "invalid")}
