"""What the tests of /metrics share: the text of a real node, and Prometheus's own tool."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.memory_network import City

PROMTOOL: Final = shutil.which("promtool")
needs_promtool: Final = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is absent: apt-get install prometheus"
)
_NAME: Final = re.compile(r"\bp2pcity_[a-z0-9_]+")

Labels = tuple[tuple[str, str], ...]


def promtool(*arguments: str, text: str = "") -> tuple[int, str]:
    """Run promtool; its exit code and everything that it wrote."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """Every sample of a scrape by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of this name and these labels."""
    return samples(text)[name, tuple(sorted(labels.items()))]


def names(text: str) -> set[str]:
    """Every name that a query may use: the samples', also of families that have none yet."""
    found: set[str] = set()
    for family in text_string_to_metric_families(text):
        ends = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_count", "_sum"),
        }.get(family.type, ("",))
        found.update(family.name + end for end in ends)
    return found


def names_used(text: str) -> set[str]:
    """Every name of ours in a file of rules or a dashboard."""
    return set(_NAME.findall(text))


def labels_of(text: str) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """The family's and the sample's name, and the labels, of each sample."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield family.name, sample.name, sample.labels


def scrape_city_of_one(directory: Path) -> str:
    """What a node that orders alone says, with a few transactions on its ledger."""

    async def run() -> bytes:
        async with trio.open_nursery() as nursery:
            city = City(directory, nursery, orderers=1)
            await city.start()
            [node] = city.nodes
            for _ in range(3):
                await node.submit(city.carried())
            text = node.parts.service.metrics()
            await node.stop()
            return text

    return trio.run(run).decode()
