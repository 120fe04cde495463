"""What the engine reads of a model: its sources, its history, and the code version that marks assets as stale."""

import itertools
from pathlib import Path

import pytest

from boucle.errors import ConfigurationError
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.dbt_project import sql_version
from boucle_platform.model_loop.spec import LoopSpec

NUMBERS = itertools.count()
SCHEMA = """
from boucle.contracts.ids import ModelName
from boucle.features.raw_source import RawSource
import pandera.pandas as pa

THINGS = pa.DataFrameSchema({"a": pa.Column(str)})
SOURCES = (RawSource(model=ModelName("toy"), name="things", schema=lambda _: THINGS),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own: an imported module is never imported again."""
    monkeypatch.syspath_prepend(tmp_path)
    made = tmp_path / f"toy_{next(NUMBERS)}"
    made.mkdir()
    (made / "__init__.py").touch()
    (made / "estimator.py").touch()
    (made / "schema.py").write_text(SCHEMA)
    return made


def spec_in(folder: Path, **changes: object) -> LoopSpec:
    known = {
        "model": "toy",
        "description": "d",
        "module": folder.name,
        "owners": ["team:toys"],
        "entity": "thing",
        "target": "t",
        "first_period": "2024-01",
        "horizon_days": 30,
    }
    return LoopSpec.model_validate(known | changes)


@pytest.mark.parametrize("name", ["schema.py", "estimator.py", "defs.yaml"])
def test_a_change_of_a_models_own_files_marks_its_assets_as_stale(folder: Path, name: str):
    before = spec_in(folder).code_version
    assert spec_in(folder).code_version == before
    (folder / name).write_text((folder / name).read_text() + "\n# changed" if (folder / name).exists() else "# new")
    assert spec_in(folder).code_version != before


@pytest.mark.parametrize("name", ["models/toy/toy_features.sql", "macros/landed.sql"])
def test_a_change_of_sql_or_of_a_macro_marks_the_assets_of_dbt_as_stale(tmp_path: Path, name: str):
    def version() -> str:
        return sql_version(Settings(project_dir=tmp_path), (project / "models/toy/toy_features.sql").read_text())

    project = tmp_path / "dbt_features"
    for file in ("models/toy/toy_features.sql", "macros/landed.sql"):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text("select 1")
    before = version()
    assert version() == before
    (project / name).write_text("select 2")
    assert version() != before


def test_a_model_without_a_landing_module_has_no_history_and_says_where_files_go(folder: Path):
    spec = spec_in(folder)
    assert not spec.has_history
    with pytest.raises(ConfigurationError, match=r"<home>/landing/toy/<source>/<period>\.csv"):
        spec.history  # noqa: B018 - asking is the point


def test_a_source_of_another_model_is_refused(folder: Path):
    with pytest.raises(ConfigurationError, match="each with model='other'; not so: things"):
        spec_in(folder, model="other").sources  # noqa: B018 - asking is the point


def test_an_unknown_source_is_named_with_those_that_there_are(folder: Path):
    with pytest.raises(ConfigurationError, match="'toy' has no source 'stuff'; it has things"):
        spec_in(folder).source("stuff")


def test_the_shipped_models_are_found():
    assert {name: tuple(spec.sources) for name, spec in catalogue.specs().items()} == {
        "flight_delay": ("flights", "weather", "planes"),
        "repurchase": ("orders",),
    }
