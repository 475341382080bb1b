"""What every test has. Nothing of torch is imported here: the process that hands out the tests needs none of it."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import shapes

if TYPE_CHECKING:
    from tests.golden import Golden

shapes.install()
settings.register_profile("thorough", deadline=None)  # pytest --hypothesis-profile=thorough


gc.set_threshold(20_000, 20, 20)  # the modules imported here are half a million objects, and each pass looks at all


def pytest_collection_finish() -> None:
    """Spare the imported modules the passes of the garbage collector: they stay to the end."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # two test processes on two cores


@pytest.fixture(autouse=True)
def _counted_anew() -> None:
    shapes.calls.clear()


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Leave the shapes of arguments unchecked: for tests of many small calls, whose shapes others check."""
    with shapes.shapes_unchecked():
        yield


@pytest.fixture
def mechanisms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register mechanisms that only tests know."""
    from tests.mechanisms import register

    register(monkeypatch)


@pytest.fixture(scope="session")
def golden() -> "Golden":
    from tests.golden import Golden

    return Golden()
