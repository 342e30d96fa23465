"""The engine and the image, once a session."""

from collections.abc import Iterator

import pytest

from tests.compose import rig


@pytest.fixture(scope="session", autouse=True)
def image() -> Iterator[None]:
    """An engine that has the image of this tree."""
    if rig.WHY_NOT:
        yield
        return
    with rig.engine():
        print(f"the image: {rig.build_image():.0f} s without its base")
        yield
