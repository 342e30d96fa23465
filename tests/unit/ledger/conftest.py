"""A chain made by hand and the views on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pcity.ledger.views_reader import ViewsReader
from p2pcity.ledger.views_store import ViewsStore
from tests.chain_case import Chain
from tests.views_case import open_store


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "views.db"


@pytest.fixture
def store(chain: Chain, path: Path) -> Iterator[ViewsStore]:
    store = open_store(chain, path)
    yield store
    store.close()


@pytest.fixture
def reader(store: ViewsStore) -> Iterator[ViewsReader]:
    reader = store.open_reader()
    yield reader
    reader.close()
