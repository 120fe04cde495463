"""For every test: the marker of its folder, one parsed dbt project; and no property has a time limit of its own."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent

settings.register_profile("boucle", deadline=None)  # machines are busy
settings.load_profile("boucle")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest -m unit` is what `make test-unit` runs: a level is a folder, and its marker cannot be forgotten."""
    for item in items:
        item.add_marker(item.path.relative_to(ROOT).parts[0])


def shared_by_workers(factory: pytest.TempPathFactory, name: str) -> Path:
    """A path that is the same in every worker of this session."""
    own = factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name


@pytest.fixture(scope="session", autouse=True)
def _dbt_is_parsed_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each new home would parse the project for itself otherwise, for seconds."""
    os.environ.setdefault("BOUCLE_DBT_PARSE_DIR", str(shared_by_workers(tmp_path_factory, "dbt-parsed")))
