"""For every test: the marker of its folder; and no property has a time limit of its own (machines are busy)."""

from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent

settings.register_profile("boucle", deadline=None)
settings.load_profile("boucle")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest -m unit` is what `make test-unit` runs: a level is a folder, and its marker cannot be forgotten."""
    for item in items:
        item.add_marker(item.path.relative_to(ROOT).parts[0])
