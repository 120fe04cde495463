"""`boucle check`: the asset checks, on a small sample, with the code at hand, in a home that is thrown away."""

import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from boucle_adapters.settings import Settings, own_environment
from boucle_cli.context import Select
from boucle_platform.model_loop.automation import period_job_name, retrain_job_name
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import newest_evidence

if TYPE_CHECKING:
    from boucle_platform.instance import Runner

COLUMNS = ("asset", "check", "passed", "blocking", "description")
CELLS = ("asset", "check", "result", "description")


@dataclass(frozen=True, kw_only=True)
class CheckOutcome:
    """One asset check of the graph; `passed` is None when no run came to it."""

    asset: str
    check: str
    passed: bool | None
    blocking: bool
    description: str

    @property
    def blocks(self) -> bool:
        """Whether this outcome must turn a build red: a blocking check that did not pass, whether it ran or not."""
        return self.blocking and not self.passed

    @property
    def result(self) -> str:
        """What a person should know at a glance; what blocks is in capitals."""
        if self.passed is None:
            return "NOT RUN" if self.blocking else "not run"
        return "passed" if self.passed else "FAILED" if self.blocking else "warns"

    def row(self) -> dict[str, object]:
        """As a row of a narrow table: without the model, and without what the other columns say."""
        found = self.description.removeprefix(f"{self.check}: ").removeprefix(f"{self.result} ")
        return {"check": f"{self.asset.rpartition('/')[2]}\n  {self.check}", "result": self.result, "found": found}


@dataclass(kw_only=True)
class CheckReport:
    """What every check said, the runs that ended red with their error, and the evaluation report: summary and page."""

    model: str
    outcomes: list[CheckOutcome] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    evaluation: str = ""
    page: str = ""

    @property
    def judged(self) -> int:
        """Checks that were evaluated."""
        return sum(outcome.passed is not None for outcome in self.outcomes)

    @property
    def passed(self) -> bool:
        """Whether something was checked, nothing that blocks failed or is missing, and every run ended well."""
        return self.judged > 0 and not self.errors and not any(outcome.blocks for outcome in self.outcomes)

    def verdict(self) -> str:
        """One sentence, and one for each run that ended red."""
        blocking = sum(outcome.blocks for outcome in self.outcomes)
        if not self.judged:
            first = f"There was nothing to check for '{self.model}'."
        elif self.passed:
            first = f"{self.judged} of {len(self.outcomes)} checks were run; every blocking one passed."
        else:
            first = f"{self.judged} of {len(self.outcomes)} checks were run; {blocking} blocking ones did not pass."
        return " ".join([first, *self.errors])

    def as_json(self) -> dict[str, object]:
        """For programs."""
        checks = [{name: getattr(outcome, name) for name in COLUMNS} for outcome in self.outcomes]
        return {"model": self.model, "passed": self.passed, "errors": self.errors, "checks": checks}


def run_checks(
    spec: LoopSpec, *, select: Select = Select.ALL, progress: Callable[[str], None] = lambda _: None
) -> CheckReport:
    """Land the first periods, run the loop once on it, and return what the selected checks of the graph said.

    Args:
        spec: The model, as it is to be judged.
        select: Which checks.
        progress: Told what happens next.
    """
    with tempfile.TemporaryDirectory(prefix="boucle-check-") as folder, own_environment():
        return _loop_once(spec, Settings(home=Path(folder)), select, progress)


def write_reports(report: CheckReport, *, junit: str = "", summaries: Sequence[str] = (), html: str = "") -> None:
    """Write the report as files; an empty name is no file.

    Args:
        report: What was found.
        junit: A JUnit XML file.
        summaries: Files that get the Markdown appended, such as GitHub's `$GITHUB_STEP_SUMMARY`.
        html: The page of the evaluation report; not written where nothing was evaluated.
    """
    if junit:
        write_junit(Path(junit), report)
    for summary in filter(None, summaries):
        with _folder_of(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(report))
    if html and report.page:
        _folder_of(html).write_text(report.page, encoding="utf-8")


def write_junit(file: Path, report: CheckReport) -> None:
    """One test case per check: failed blocking ones are failures, failed others are output, those not run are skipped.

    A run that ended red is an error, and so is having had nothing to check.
    """
    problems = report.errors if report.judged else [*report.errors, report.verdict()]
    suite = ET.Element(
        "testsuite",
        name=f"asset checks of {report.model}",
        tests=str(len(report.outcomes) + len(problems)),
        failures=str(sum(outcome.blocks and outcome.passed is False for outcome in report.outcomes)),
        errors=str(len(problems)),
        skipped=str(sum(outcome.passed is None for outcome in report.outcomes)),
    )
    for outcome in report.outcomes:
        case = ET.SubElement(suite, "testcase", classname=outcome.asset, name=outcome.check)
        if outcome.passed is None:
            ET.SubElement(case, "skipped", message=outcome.description)
        elif outcome.blocks:
            ET.SubElement(case, "failure", message=outcome.description)
        elif not outcome.passed:
            ET.SubElement(case, "system-out").text = outcome.description
    for problem in problems:
        case = ET.SubElement(suite, "testcase", classname=report.model, name="run")
        ET.SubElement(case, "error", message=problem)
    ET.ElementTree(suite).write(_folder_of(file), encoding="utf-8", xml_declaration=True)


def markdown(report: CheckReport) -> str:
    """The report as GitHub shows it."""
    lines = [f"### Asset checks of {report.model}", "", report.verdict().replace("\n", " "), ""]
    if report.outcomes:
        lines += [f"| {' | '.join(CELLS)} |", f"|{' --- |' * len(CELLS)}"]
        lines += [f"| {' | '.join(_cell(getattr(outcome, name)) for name in CELLS)} |" for outcome in report.outcomes]
    return "\n".join([*lines, "", report.evaluation, ""])


def _folder_of(name: str | Path) -> Path:
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _loop_once(spec: LoopSpec, settings: Settings, select: Select, progress: Callable[[str], None]) -> CheckReport:
    from boucle_platform.instance import Runner
    from boucle_platform.model_loop.steps.landing import feed

    progress("loading definitions")
    runner, report = Runner(settings, spec), CheckReport(model=spec.model)
    try:
        for job, periods in _jobs(spec, select):
            named = " to ".join(dict.fromkeys((*periods[:1], *periods[-1:])))
            progress(f"{job} {named}".strip())
            for period in periods:
                feed(runner.home, spec, period)
            done = runner.run(job, partition=periods[0] if periods else None, through=periods[-1] if periods else None)
            _record(report, runner, done.run_id)
            if not done.succeeded:
                report.errors.append(f"{job}{f' of {named}' if named else ''} ended red: {done.error}")
                break
        _add_those_not_run(report, runner, spec)
        report.outcomes = _selected(report.outcomes, runner, spec, select)
        if (evidence := newest_evidence(runner.home, spec)) is not None:
            report.evaluation = runner.home.evidence.file(evidence, ".md").read_text(encoding="utf-8")
            report.page = runner.home.evidence.file(evidence).read_text(encoding="utf-8")
    finally:
        runner.home.state.close()
        runner.instance.dispose()
    return report


def _jobs(spec: LoopSpec, select: Select) -> Sequence[tuple[str, Sequence[str]]]:
    # All rows of a few periods: sampling entities as well would save 2 of 45 CPU seconds and miss limits (`min_rows`).
    periods = spec.history.published_periods()[: spec.check_periods]
    if not periods:
        return []
    runs = [periods[first : first + spec.periods_per_run] for first in range(0, len(periods), spec.periods_per_run)]
    retrain = [] if select is Select.DATA else [(retrain_job_name(spec), ())]
    return [*((period_job_name(spec), run) for run in runs), *retrain]


def _record(report: CheckReport, runner: "Runner", run_id: str) -> None:
    """Add what the run's checks said; a later period's answer replaces an earlier one, which let its run go on."""
    found = {(outcome.asset, outcome.check): outcome for outcome in report.outcomes}
    for entry in runner.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        if entry.dagster_event is None:
            continue
        evaluation = entry.dagster_event.asset_check_evaluation_data
        asset = evaluation.asset_key.to_user_string()
        found[asset, evaluation.check_name] = CheckOutcome(
            asset=asset,
            check=evaluation.check_name,
            passed=evaluation.passed,
            # As Dagster does it: a check blocks when its spec says so and it failed with ERROR. `blocking` is copied
            # from the spec, and None only in an evaluation without one.
            blocking=bool(evaluation.blocking) and evaluation.severity is dg.AssetCheckSeverity.ERROR,
            description=evaluation.description or _of_dbt(evaluation),
        )
    report.outcomes = list(found.values())


def _add_those_not_run(report: CheckReport, runner: "Runner", spec: LoopSpec) -> None:
    """The other checks of the graph: what was not looked at did not pass."""
    graph = runner.definitions.resolve_asset_graph()
    known = {(outcome.asset, outcome.check) for outcome in report.outcomes}
    group = key_of(spec, "").path[0]
    for key in sorted(graph.asset_check_keys, key=lambda key: key.to_user_string()):
        asset = key.asset_key.to_user_string()
        if key.asset_key.path[0] == group and (asset, key.name) not in known:
            report.outcomes.append(
                CheckOutcome(
                    asset=asset,
                    check=key.name,
                    passed=None,
                    blocking=graph.get_check_spec(key).blocking,
                    description="no run of the sample came to it",
                )
            )


def _selected(outcomes: Sequence[CheckOutcome], runner: "Runner", spec: LoopSpec, select: Select) -> list[CheckOutcome]:
    """Of all checks of the graph, those asked for. A gate is what is declared so, whatever its outcome says."""
    if select is Select.ALL:
        return list(outcomes)
    graph = runner.definitions.resolve_asset_graph()
    if select is Select.GATES:
        keys = {key for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
        wanted = {(key.asset_key.to_user_string(), key.name) for key in keys}
        return [outcome for outcome in outcomes if (outcome.asset, outcome.check) in wanted]
    job = runner.definitions.resolve_job_def(period_job_name(spec))
    built = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    return [outcome for outcome in outcomes if outcome.asset in built]


def _of_dbt(evaluation: dg.AssetCheckEvaluation) -> str:
    """dbt's tests say nothing in words, but count the rows that break them."""
    status, failed = (evaluation.metadata.get(name) for name in ("status", "dagster_dbt/failed_row_count"))
    words = [f"dbt: {status.value}"] if status else []
    return ", ".join([*words, *([f"{failed.value} rows"] if failed else [])])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
