"""A version trained in one home goes to another: as one file, judged there, promoted there, answering the same."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from assets_tests.faults.loop_home import SPEC, LoopHome, client, copied, opened, register
from boucle.contracts.ids import ModelVersion
from boucle.contracts.verdict import Verdict
from boucle.errors import ConflictError
from boucle.policy.limits import GateLimit
from boucle_adapters.home import Home
from boucle_adapters.model_archive import unpack
from boucle_adapters.settings import Settings
from boucle_cli import people
from boucle_cli.main import app
from boucle_platform.model_loop.steps.performance_reference import reference_of
from boucle_platform.model_loop.steps.store import read_reference
from boucle_platform.transfer import Imported, export_version, import_archive
from boucle_serving.app import create_app
from boucle_serving.main import parts_of

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
HERE = ModelVersion(2)
ASKED = [{"user_id": f"{number:05d}", "as_of": "1997-05-01T00:00:00Z"} for number in range(4, 44)]


def strict() -> Any:
    """The shipped model where a gate asks for what no model has."""
    gates = SPEC.promotion.gates.model_copy(update={"auc_floor": GateLimit(limit=0.99, unit="ratio")})
    return SPEC.model_copy(update={"promotion": SPEC.promotion.model_copy(update={"gates": gates})})


@pytest.fixture(scope="module")
def staging(in_production: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where version 1 was trained and promoted."""
    return copied(in_production, tmp_path_factory.mktemp("staging") / "home")


@pytest.fixture(scope="module")
def archive(staging: Path) -> bytes:
    """Version 1 of staging, as it leaves."""
    return exported(staging)


def exported(home: Path) -> bytes:
    there = Home(Settings(home=home, environment="staging"))
    try:
        return export_version(there, SPEC, ModelVersion(1))[1]
    finally:
        there.state.close()


def brought(loop: LoopHome, archive: bytes, spec: Any = SPEC) -> Imported:
    return import_archive(loop.runner, spec, unpack(archive), who="user:ada")


def answers(settings: Settings) -> list[float]:
    """What callers are answered."""
    with TestClient(create_app(parts_of(settings, "http://test"))) as http:
        said = http.post(f"/models/{SPEC.model}/predict/batch", json={"rows": ASKED}).json()
    return [row["proba"] for row in said["rows"]]


def verb(loop: LoopHome, *words: str) -> Result:
    """A verb in this process: it must not load the loop again."""
    return CliRunner().invoke(app, list(words), env={"BOUCLE_HOME": str(loop.path), "COLUMNS": "200"})


def test_a_version_of_staging_is_judged_here_and_promoted_by_a_person_and_answers_the_same(
    staging: Path, archive: bytes, four_months: Path, tmp_path: Path
):
    assert exported(staging) == archive
    home = copied(four_months, tmp_path / "prod")
    with opened(home, strict()) as loop:
        client(loop.home).create_registered_model(SPEC.model)
        register(loop)  # so that the numbers of here are not those of there
        refused = brought(loop, archive, strict())
        assert (refused.version, refused.created, refused.passed) == (HERE, True, False)
        assert refused.evidence is not None
        assert [gate.name for gate in refused.evidence.gates if gate.verdict is Verdict.FAILED] == ["auc_floor"]
        assert "auc_floor: failed" in refused.said
        assert loop.kinds() == [("reject", None)]
    with opened(home) as loop:
        again = brought(loop, archive)
        assert (again.version, again.created, again.passed) == (HERE, False, True)
        assert len(loop.home.registry.versions(SPEC.name)) == 2
        assert (loop.home.state.production(SPEC.name), loop.alias()) == (None, None)

        people.ask(loop.home, SPEC, HERE, reason="passed in staging", who="user:ada", run=run_of(loop))
        assert (loop.home.state.production(SPEC.name), loop.alias()) == (HERE, HERE)
        assert answers(loop.runner.settings) == answers(Settings(home=staging))

        there = unpack(archive)
        tags = loop.home.registry.version(SPEC.name, HERE).tags
        assert (tags["imported_from"], tags["imported_by"]) == ("version 1 of staging", "user:ada")
        assert tags["bundle_digest"] == there.manifest.bundle_digest
        assert tags["imported_evidence_digest"] == there.evidence.digest()
        assert read_reference(loop.home, SPEC, HERE).version == HERE
        assert reference_of(loop.home, SPEC, HERE, there.manifest.bundle_digest) is not None

        finished = brought(loop, archive)
        assert (finished.version, finished.created, finished.evidence, finished.passed) == (HERE, False, None, True)
        told = json.loads(verb(loop, "explain", "2", "--json").stdout)
        assert (told["in_production"], told["imported"]["from"]) == (True, "version 1 of staging")
        assert told["imported"]["evidence_digest"] != told["evidence_digest"]
        report = verb(loop, "report", "2")
        assert report.stdout.strip() == told["report"]
        assert "What was measured of version 1 of staging" in report.stderr


def run_of(loop: LoopHome) -> people.Run:
    return lambda job, tags: loop.runner.run(job, tags=tags)


def test_where_there_is_no_holdout_yet_a_version_is_registered_and_not_judged(
    archive: bytes, three_months: Path, tmp_path: Path
):
    with opened(copied(three_months, tmp_path / "prod")) as loop:
        found = brought(loop, archive)
        assert (found.version, found.created, found.evidence, found.passed) == (1, True, None, False)
        assert "land further periods" in found.said
        assert (loop.kinds(), loop.home.state.production(SPEC.name)) == ([], None)
        told = verb(loop, "report", "1")
        assert told.exit_code == 1
        assert "was never evaluated here" in " ".join(told.stderr.split())
        assert "What was measured of version 1 of staging" in " ".join(told.stderr.split())


def test_a_damaged_archive_registers_nothing(archive: bytes, copy_of, four_months: Path, tmp_path: Path):
    loop, file = copy_of(four_months), tmp_path / "v1.tar"
    file.write_bytes(archive[:-1])
    told = verb(loop, "import", str(file))
    assert told.exit_code == 1
    assert "Nothing was registered." in " ".join(told.stderr.split())
    assert (loop.home.registry.versions(SPEC.name), list(loop.path.glob("bundles/*"))) == ([], [])
    assert verb(loop, "import", str(tmp_path / "no.tar")).exit_code == 1


def test_a_version_that_comes_back_to_where_it_was_made_is_the_one_that_is_there(archive: bytes, staging: Path):
    with opened(staging) as loop:
        found = brought(loop, archive)
        assert (found.version, found.created, found.made_here) == (1, False, True)
        assert loop.home.evidence.imported(SPEC.name, ModelVersion(1)) is None
        assert len(loop.home.registry.versions(SPEC.name)) == 1


def test_nothing_comes_in_while_a_run_is_training(archive: bytes, copy_of, four_months: Path):
    loop = copy_of(four_months)
    loop.runner.instance.create_run_for_job(
        loop.runner.definitions.resolve_job_def("repurchase_retrain"), status=dg.DagsterRunStatus.STARTED
    )
    with pytest.raises(ConflictError, match="is training or promoting 'repurchase' already"):
        brought(loop, archive)
    assert loop.home.registry.versions(SPEC.name) == []
