"""protocol/00-conventions.md names vectors for its rules; each of these names must be there."""

import fnmatch
import re
from pathlib import Path

_NAME = re.compile(r"`((?:(cbor|cose|merkle|crypto)/(?:in)?valid/)?[a-z0-9*]+(?:-[a-z0-9*]+)*)`")


def test_every_vector_that_the_prose_names_is_there(repository: Path) -> None:
    root = repository / "protocol/vectors"
    there = [path.relative_to(root).as_posix() for path in root.rglob("*.json")]
    named = 0
    prose = (repository / "protocol/00-conventions.md").read_text("utf-8")
    for paragraph in re.split(r"\n\n|\n(?=[|\-0-9])", prose):
        folder = ""
        for name, area in _NAME.findall(paragraph):
            # The first name in a row gives the folder, the others follow without it.
            folder = name.rpartition("/")[0] if area else folder
            if folder:
                named += 1
                wanted = f"{folder}/{name.rpartition('/')[2]}.json"
                assert fnmatch.filter(there, wanted), wanted
    assert named > 40
