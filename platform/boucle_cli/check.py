"""`boucle check`: the asset checks, on a small sample, with the code at hand, in a home that is thrown away."""

import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from boucle.errors import NotEnoughDataError
from boucle_adapters.settings import Settings
from boucle_platform.model_loop.spec import LoopSpec

SAMPLE_PERIODS = 4


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """One asset check of the sample."""

    asset: str
    check: str
    passed: bool
    blocking: bool
    description: str

    @property
    def blocks(self) -> bool:
        """Whether this outcome must turn a build red."""
        return self.blocking and not self.passed

    def row(self) -> dict[str, object]:
        """As a table row."""
        return {
            "asset": self.asset,
            "check": self.check,
            "passed": "yes" if self.passed else "NO",
            "blocking": "yes" if self.blocking else "no",
            "description": self.description,
        }


def run_checks(spec: LoopSpec, *, junit: str = "") -> list[CheckOutcome]:
    """Land the first periods, run the loop once on them, and return what every asset check said.

    Raises:
        NotEnoughDataError: A run ended without a failed check, so that there is nothing to judge by.
    """
    with tempfile.TemporaryDirectory(prefix="boucle-check-") as folder:
        outcomes = _loop_once(spec, Settings(home=Path(folder)))
    if junit:
        write_junit(Path(junit), outcomes)
    return outcomes


def write_junit(file: Path, outcomes: list[CheckOutcome]) -> None:
    """One test case per check; a failed blocking check is a failure, another failed one is reported as output."""
    failures = [outcome for outcome in outcomes if outcome.blocks]
    suite = ET.Element("testsuite", name="asset checks", tests=str(len(outcomes)), failures=str(len(failures)))
    for outcome in outcomes:
        case = ET.SubElement(suite, "testcase", classname=outcome.asset, name=outcome.check)
        if outcome.blocks:
            ET.SubElement(case, "failure", message=outcome.description)
        elif not outcome.passed:
            ET.SubElement(case, "system-out").text = outcome.description
    file.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)


def _loop_once(spec: LoopSpec, settings: Settings) -> list[CheckOutcome]:
    from boucle_platform.instance import Runner
    from boucle_platform.model_loop.steps.landing import feed

    runner = Runner(settings)
    outcomes: dict[tuple[str, str], CheckOutcome] = {}
    for key in spec.hook("landing").published_periods()[:SAMPLE_PERIODS]:
        feed(runner.home, spec, key)
        done = runner.run(f"{spec.model}_period", partition=key)
        outcomes |= _outcomes(runner, done.run_id)
        if not done.succeeded:
            return _decided(outcomes, done.error)
    done = runner.run(f"{spec.model}_retrain")
    outcomes |= _outcomes(runner, done.run_id)
    return list(outcomes.values()) if done.succeeded else _decided(outcomes, done.error)


def _decided(outcomes: dict[tuple[str, str], CheckOutcome], error: str) -> list[CheckOutcome]:
    if not any(outcome.blocks for outcome in outcomes.values()):
        raise NotEnoughDataError(f"A run of the sample failed before a check could: {error}")
    return list(outcomes.values())


def _outcomes(runner: "Runner", run_id: str) -> dict[tuple[str, str], CheckOutcome]:  # type: ignore[name-defined]  # noqa: F821
    found = {}
    for entry in runner.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        evaluation = entry.dagster_event.asset_check_evaluation_data
        found[evaluation.asset_key.to_user_string(), evaluation.check_name] = CheckOutcome(
            asset=evaluation.asset_key.to_user_string(),
            check=evaluation.check_name,
            passed=evaluation.passed,
            blocking=evaluation.blocking is not False and evaluation.severity is dg.AssetCheckSeverity.ERROR,
            description=evaluation.description or "",
        )
    return found
