"""A version made again from its record: equal to the byte, and what is not the same any more is named."""

import json
from pathlib import Path

import pytest

from assets_tests.faults.loop_home import RETRAIN, SPEC, LoopHome, boucle
from boucle.contracts.ids import ModelVersion
from boucle_platform import reproduction
from boucle_platform.reproduction import Reproduction, reproduce

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
FIRST = ModelVersion(1)


@pytest.fixture
def loop(copy_of, in_production: Path) -> LoopHome:
    return copy_of(in_production)


def differing(found: Reproduction) -> dict[str, str]:
    return {part.part: part.difference for part in found.parts if not part.equal}


def files(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.is_file() and "dbt" not in file.parts}


def test_the_same_code_and_packages_make_the_same_bundle_and_touch_nothing(loop: LoopHome):
    before = files(loop.path)
    told = boucle(loop, "reproduce", "1", "--json")
    found = json.loads(told.stdout)
    assert (told.returncode, found["identical"], found["reproduced"]) == (0, True, True), told.stderr
    assert [part["part"] for part in found["parts"]] == ["environment", "code", "features", "training rows", "bundle"]
    assert all(part["equal"] for part in found["parts"])
    assert found["largest_difference"] == 0
    assert files(loop.path) - before == set()
    assert boucle(loop, "reproduce", "9").returncode == 1


def test_another_package_and_another_file_are_named_and_predictions_decide(loop: LoopHome, monkeypatch):
    packages, sources = reproduction.installed_packages(), reproduction.source_files(SPEC_PROJECT)
    monkeypatch.setattr(reproduction, "environment_digest", lambda: "e" * 64)
    monkeypatch.setattr(reproduction, "installed_packages", lambda: packages | {"scikit-learn": "99.0"})
    edited = next(name for name in sources if name.endswith("repurchase/estimator.py"))
    monkeypatch.setattr(
        reproduction, "source_files", lambda _: sources | {edited: "f" * 64, "platform/new.py": "0" * 64}
    )
    code = reproduction.code_version(SPEC_PROJECT)
    monkeypatch.setattr(reproduction, "code_version", lambda _: type(code)(code.commit, code.author, True, "f" * 64))
    found = reproduce(loop.home, SPEC, FIRST)
    assert found.identical
    assert set(differing(found)) == {"environment", "code"}
    assert f"packages: scikit-learn {packages['scikit-learn']} → 99.0" in differing(found)["environment"]
    assert (
        f"{edited} {sources[edited][:12]} → ffffffffffff, platform/new.py none → 000000000000"
        in (differing(found)["code"])
    )
    assert "in spite of other environment and code" in found.verdict()


def test_rows_that_were_edited_since_are_named_by_their_period(loop: LoopHome):
    with loop.home.warehouse.connect() as connection:
        connection.execute("update raw.orders set amount_usd = amount_usd + 1 where period = '1997-03'")
    found = reproduce(loop.home, SPEC, FIRST)
    assert (found.reproduced, found.identical, found.largest_difference) == (False, False, None)
    assert "1997-03" in differing(found)["features"]
    assert "training rows" in differing(found)
    assert found.verdict().startswith("Not reproduced: version 1 of 'repurchase' could not be made again")


def test_an_estimator_that_was_changed_predicts_otherwise(loop: LoopHome, monkeypatch):
    hook = SPEC.hook("estimator")
    monkeypatch.setitem(hook.PARAMETERS, "max_iter", 40)
    found = reproduce(loop.home, SPEC, FIRST)
    assert set(differing(found)) == {"bundle"}
    assert differing(found)["bundle"] == "files: model.onnx, warmup.json"
    assert found.largest_difference > 0.001
    assert found.verdict().startswith("Not reproduced: predictions differ by up to 0.")


def test_a_retraining_that_changes_nothing_makes_no_version_and_says_so(loop: LoopHome):
    loop.done(RETRAIN)
    assert len(loop.home.registry.versions(SPEC.name)) == 1
    kinds = [kind for kind, _ in loop.kinds()]
    assert kinds.count("promote") == 1
    told = boucle(loop, "retrain", "--reason", "once more")
    assert told.returncode == 0, told.stderr
    assert "version 1 came out again, from the same rows, code, packages and seed" in " ".join(told.stdout.split())


SPEC_PROJECT = Path(__file__).resolve().parents[2]
