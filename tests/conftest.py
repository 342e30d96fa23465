"""What every test may ask for: third parties' vectors and real data, when they are at hand."""

import gc
import os
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from p2pcity.cli.testnet.making import PORTS_VARIABLE, port_range
from tests.recording import Recorder

ROOT = Path(__file__).resolve().parent.parent
_FIRST = ("sim", "virtual", "integration")
"""Directories whose files take minutes: begun last, one of them would run on alone at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Write results of long tests down when asked to; show tracebacks as plain text.

    structlog's own choice draws every local variable in frames: seconds of a busy event loop.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )
    if os.environ.get("TESTS_RECORD"):
        config.pluginmanager.register(Recorder(), "recorder")
    # A busy machine may hold any example up.
    settings.register_profile(
        "busy", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("busy")
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        # One worker's new network would draw the port of another's node that is down just then.
        own = share(port_range(), int(worker["workerid"][2:]), worker["workercount"])
        os.environ[PORTS_VARIABLE] = f"{own[0]}-{own[-1]}"


def share(ports: range, worker: int, workers: int) -> range:
    """Return the ports of one of so many test workers."""
    size = len(ports) // workers
    return ports[worker * size : (worker + 1) * size]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long; xdist's own order, by their tests, ends with them."""

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        return _FIRST.index(room) if room in _FIRST else len(_FIRST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay until the end: the collector need not walk over them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _outside(variable: str, default: str) -> Path:
    given = os.environ.get(variable)
    path = Path(given) if given else ROOT.parent / "shared" / default
    if not path.is_dir():
        pytest.skip(f"{path} is absent; set {variable} to the directory that has it")
    return path


@pytest.fixture(scope="session")
def shared_vectors() -> Path:
    """Third parties' vectors (Wycheproof, RFC 8949, COSE...): not part of the project."""
    return _outside("TESTS_VECTORS", "vectors")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real input for acceptance runs (NYC 311): not part of the project."""
    return _outside("TESTS_DATA", "data")


@pytest.fixture
def repository() -> Path:
    """The root of the source tree."""
    return ROOT
