"""Alert rules and dashboards: what they name exists, what they say can be acted on, and each rule is tested."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from assets_tests.watched_home import exposed, watched_home
from boucle_adapters.settings import Settings
from boucle_serving.metrics import ServingMetrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "platform" / "deploy" / "prometheus"
GRAFANA = ROOT / "platform" / "deploy" / "grafana"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES: list[dict[str, Any]] = [
    rule for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
NAME = re.compile(r"\b(?:\w+:)?(?:boucle|process)_[\w:]+")
PLOTS = {"timeseries", "stat", "table"}


def promtool(*words: str, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool", path=str(Path(sys.executable).parent)) or shutil.which("promtool")
    assert found, "promtool is not here: `make promtool` sees to it"
    return subprocess.run([found, *words], cwd=folder, capture_output=True, text=True, timeout=150, check=False)


def named_in(expression: str) -> set[str]:
    """Metrics of ours; what stands in quotes is a value."""
    return set(NAME.findall(re.sub(r'"[^"]*"', "", expression)))


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(file.stem, panel) for file in DASHBOARDS for panel in json.loads(file.read_text())["panels"]]


def names_of(exposition: str) -> set[str]:
    """Every sample name that an exposition declares, with those of its histograms."""
    declared = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE))
    parts = {f"{name}_{part}" for name, kind in declared.items() if kind == "histogram" for part in _PARTS}
    return set(declared) | parts


_PARTS = ("bucket", "sum", "count")


@pytest.fixture(scope="module")
def exist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), state_url="")
    watched_home(settings)
    process = CollectorRegistry()
    ProcessCollector(registry=process)
    texts = (ServingMetrics().text().decode(), exposed(settings), generate_latest(process).decode())
    return set.union(*map(names_of, texts)) | RECORDED


def test_prometheus_accepts_the_configurations_and_the_rules():
    checked = promtool("check", "config", "prometheus.yml", "local.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # Also lints, such as two rules that say the same.
    checked = promtool("check", "rules", *[str(file) for file in RULE_FILES])
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_rule_fires_when_it_should_and_not_before():
    tested = promtool("test", "rules", *[str(file) for file in TESTS])
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_rule_whose_limit_is_moved_turns_its_test_red(tmp_path):
    copy = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, copy)
    file = copy / "rules" / "serving.yml"
    file.write_text(file.read_text().replace("14.4 * 0.001", "144 * 0.001"))
    tested = promtool("test", "rules", "tests/serving.yml", folder=copy)
    assert tested.returncode != 0
    assert "BoucleErrorBudgetBurnsFast" in tested.stdout + tested.stderr


def test_each_alert_fires_in_a_test():
    fired = {
        case["alertname"]
        for file in TESTS
        for world in yaml.safe_load(file.read_text())["tests"]
        for case in world["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert {rule["alert"] for rule in ALERTS} == fired


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_urgent_it_is_and_what_to_do(rule: dict[str, Any]):
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_what_a_rule_names_exists(rule: dict[str, Any], exist: set[str]):
    assert named_in(rule["expr"]) <= exist


def test_a_name_that_nobody_exposes_is_found(exist: set[str]):
    assert not named_in('sum(rate(boucle_request_total{code="boucle_x"}[5m]))') <= exist
    assert named_in('up{job="boucle-serving"} == 0') == set()


@pytest.mark.parametrize(("dashboard", "panel"), panels(), ids=lambda v: v if isinstance(v, str) else v["title"])
def test_a_panel_asks_for_what_exists_and_says_what_it_is_in_which_unit(
    dashboard: str, panel: dict[str, Any], exist: set[str]
):
    assert panel["type"] in PLOTS
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert named_in(target["expr"]) <= exist
        assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_provisioned(file: Path):
    dashboard = json.loads(file.read_text())
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["uid"] == f"boucle-{file.stem}"
    assert "id" not in dashboard  # Grafana gives it; one from elsewhere would collide
    variables = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "model": "query"}
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert max(x for x, _ in cells) < 24
    assert len(set(cells)) == len(cells), "panels lie on each other"


def test_grafana_is_told_where_the_dashboards_are_and_whom_to_ask():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "boucle.yml").read_text())["providers"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    assert (source["type"], source["url"]) == ("prometheus", "$PROMETHEUS_URL")
