"""The dbt project is parsed once for all homes of the same code, and again when what it was parsed from changes."""

import json
import shutil
from pathlib import Path

import pytest

from boucle.errors import ConfigurationError
from boucle_adapters.environment import PROJECT_DIR
from boucle_adapters.settings import Settings
from boucle_platform.model_loop.dbt_project import manifest, parse_path, parsed_project

MODEL = Path("dbt_features/models/repurchase/staging/stg_orders.sql")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, to change, and whatever is made from it."""
    folder = tmp_path_factory.mktemp("parsed")
    unneeded = shutil.ignore_patterns("target", "logs")
    shutil.copytree(PROJECT_DIR / "dbt_features", folder / "code" / "dbt_features", ignore=unneeded)
    return folder


def home(folder: Path, name: str) -> Settings:
    """Settings of a home of this code, all with one place for what was parsed."""
    return Settings(home=folder / name, project_dir=folder / "code", dbt_parse_dir=folder / "parsed")


def test_a_second_home_parses_nothing_and_writes_nothing(folder: Path):
    first = manifest(home(folder, "first"))
    (folder / "parsed" / "boucle.lock").unlink()
    made = {file: file.stat().st_mtime_ns for file in (folder / "parsed").iterdir()}
    assert manifest(home(folder, "second")) == first
    assert {file: file.stat().st_mtime_ns for file in (folder / "parsed").iterdir()} == made
    assert not (folder / "second").exists()


def test_without_such_a_place_it_is_in_the_home():
    assert parse_path(Settings(home=Path("/a/home"), dbt_parse_dir=None)) == Path("/a/home/dbt/target")


@pytest.mark.parametrize("changed", ["the SQL", "dbt"])
def test_it_is_parsed_again_when_something_changed(folder: Path, changed: str):
    file, stamp = manifest(home(folder, "first")), folder / "parsed" / "boucle_sources"
    sql = folder / "code" / MODEL
    if changed == "the SQL":
        sql.write_text(sql.read_text() + "-- one more line\n")
    else:
        stamp.write_text(stamp.read_text().replace(" 1.", " 0.", 1))
    before = file.stat().st_mtime_ns
    assert manifest(home(folder, "second")).stat().st_mtime_ns > before
    node = "model.boucle_features.stg_orders"
    assert json.loads(file.read_text())["nodes"][node]["raw_code"] == sql.read_text().strip()
    assert parsed_project(home(folder, "second")).nodes[node].raw_code == sql.read_text().strip()


def test_a_project_that_dbt_cannot_parse_is_named_each_time(folder: Path):
    (folder / "code" / MODEL).write_text("select {{ nothing that is known")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"dbt cannot parse .*dbt_features"):
            manifest(home(folder, "first"))
