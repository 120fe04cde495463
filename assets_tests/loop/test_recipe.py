"""The recipe for a new model, followed to the letter in a copy of the project: its loop runs and its model answers."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

pytestmark = [pytest.mark.loop, pytest.mark.nightly, pytest.mark.timeout(800)]
ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "platform" / "docs" / "recipes" / "add-a-model.md"
BLOCK = re.compile(r"^\*\*`(?P<file>[^`]+)`\*\*\n\n```\w+\n(?P<content>.*?)^```$", re.DOTALL | re.MULTILINE)
MONTHS = [f"2024-{month:02}" for month in range(1, 8)]
FOLDERS = ("platform/boucle_platform/defs/pump_failure/", "dbt_features/models/pump_failure/")

# Lands nothing itself: it does what the two sensors of a running home do. The second one judges one report a tick.
LOOP = """
from boucle_adapters.settings import Settings
from boucle_platform.instance import Runner

runner = Runner(Settings())
for sensor, job in (("pump_failure_landing", "pump_failure_period"), ("pump_failure_drift", "pump_failure_retrain")):
    for _ in range(8):
        with runner.tick(sensor) as requests:
            for request in requests:
                outcome = runner.run_requested(job, request)
                assert outcome.succeeded, outcome.error
"""
ANSWER = """
from datetime import datetime, UTC
from boucle_adapters.settings import Settings
from boucle_serving.app import create_app
from boucle_serving.main import parts_of
from fastapi.testclient import TestClient

with TestClient(create_app(parts_of(Settings(), "http://test"))) as http:
    for _ in range(200):
        answer = http.post("/models/pump_failure/predict", json={"pump_id": "P0001", "as_of": "2024-08-01"})
        if answer.status_code == 200:
            break
print(answer.text)
"""


@dataclass(frozen=True)
class Copy:
    """A copy of the project with the recipe's files, and a home."""

    root: Path
    written: tuple[str, ...]

    def process(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Python on the copy's own code."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("BOUCLE_", "DAGSTER_"))
        }
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.root,
            env=environment
            | {
                "PYTHONPATH": f"{self.root / 'platform'}{os.pathsep}{self.root / 'serving'}",
                "BOUCLE_HOME": str(self.root / "home"),
                "COLUMNS": "200",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, *words: str) -> str:
        """What it prints; it has to end well."""
        done = self.process(*words)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def boucle(self, *words: str) -> str:
        """A verb."""
        return self.run("-c", "from boucle_cli.main import app; app()", *words)


def readings(month: str) -> str:
    """A month of a thousand pumps; one that shakes fails more often, and one reading has no sense."""
    first, chance = date.fromisoformat(f"{month}-01"), random.Random(month)
    lines = ["pump_id,read_on,vibration,failures"]
    for pump in range(1_000):
        shakes = (pump * 37) % 100
        day = first
        while day.month == first.month:
            vibration = "" if chance.random() < 0.05 else str(1_000 + 40 * shakes + chance.randrange(300))
            lines.append(f"P{pump:04},{day},{vibration},{int(chance.random() < (shakes / 100) ** 4 / 12)}")
            day += timedelta(days=1)
    lines.append(f"P9999,{first},-5,0")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    root = tmp_path_factory.mktemp("recipe") / "project"
    for folder in ("platform", "serving", "dbt_features"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "target", ".boucle"))
    for name in ("pyproject.toml", "workspace.yaml"):
        shutil.copy(ROOT / name, root / name)
    found = {block["file"]: block["content"] for block in BLOCK.finditer(RECIPE.read_text())}
    for name, content in found.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    landing = root / "home" / "landing" / "pump_failure" / "readings"
    landing.mkdir(parents=True)
    for month in MONTHS:
        (landing / f"{month}.csv").write_text(readings(month))
    made = Copy(root, tuple(found))
    made.run("-c", LOOP)
    return made


def test_the_recipe_writes_into_two_folders_and_nowhere_else(copy: Copy):
    assert len(copy.written) >= 9
    assert all(name.startswith(FOLDERS) for name in copy.written)
    assert not any((ROOT / name).exists() for name in copy.written)


def test_the_loop_of_the_new_model_ran_from_landed_files_to_production(copy: Copy):
    status = json.loads(copy.boucle("status", "pump_failure", "--json"))
    assert (status["production"], status["aliases"]) == (1, "as the ledger says")
    kinds = [row["kind"] for row in json.loads(copy.boucle("history", "pump_failure", "--json"))]
    assert "promote" in kinds
    assert "reject" not in kinds


def test_rows_that_break_its_contract_are_in_quarantine(copy: Copy):
    rows = json.loads(copy.boucle("quarantine", "count", "pump_failure", "--json"))
    assert [(row["source"], row["period"], row["rows"], row["reason"]) for row in rows] == [
        ("readings", month, 1, "vibration: not 0 to 50000") for month in MONTHS
    ]


def test_the_new_model_answers(copy: Copy):
    answer = json.loads(copy.run("-c", ANSWER).splitlines()[-1])
    assert (answer["pump_id"], answer["model"], answer["model_version"]) == ("P0001", "pump_failure", 1)
    assert 0 < answer["proba"] < 1


def test_without_a_shipped_history_feeding_says_where_files_go(copy: Copy):
    done = copy.process("-c", "from boucle_cli.main import app; app()", "feed", "pump_failure")
    assert done.returncode == 1
    assert "<home>/landing/pump_failure/<source>/<period>.csv" in done.stderr
    assert "Traceback" not in done.stderr
