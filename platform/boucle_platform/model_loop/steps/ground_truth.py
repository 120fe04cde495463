"""What became of the predictions: outcomes joined with what was answered, and restated when more is known (ADR 22)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import repeat
from pathlib import Path

import dagster as dg
import pandas as pd

from boucle.contracts.ids import PeriodKey
from boucle.contracts.outcomes import WindowOutcomes
from boucle.contracts.windows import Period, previous_period
from boucle.errors import NotEnoughDataError
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.knowledge import Knowledge
from boucle_platform.model_loop.steps.prediction_log import joined_up, no_predictions, read_rows
from boucle_platform.model_loop.steps.store import GROUND_TRUTH, data_dir, read_document, write_document, write_rows


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Outcomes that had to be known in one period, as they were known at its end, and where they are."""

    outcomes: WindowOutcomes
    file: str


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What one run made known: its own periods, and the earlier windows of which more is known now."""

    joined: dict[PeriodKey, Joined]
    restated: tuple[WindowOutcomes, ...]


def join_outcomes(home: Home, spec: LoopSpec, periods: Sequence[Period]) -> Truth:
    """Join predictions with their outcomes, each in the window in which it is due, or was asked where that is later.

    A period that was not reported before is stated as it was known at its end. Of an earlier one, or one that is run
    again, the statements stay as they are, and one more is written if what is known now differs from the newest.
    """
    windows = restatable(spec, periods)
    told = {window.key: statements(home, spec, window.key) for window in windows}
    until = max(map(_known_until, told.values(), repeat(periods[-1].end)))
    known = Knowledge.read(home, spec, windows, until=until, stated=lambda: outcomes(home, spec))
    joined, restated = {}, []
    for place, window in enumerate(windows):
        before = told[window.key]
        if not before and window not in periods:
            continue
        rows, found = known.of(place, _known_until(before, periods[-1].end) if before else window.end)
        newest = before[-1] if before else found
        if not before or newest.labels_digest != found.labels_digest:
            newest = _state(home, spec, rows, found, before)
            restated += [newest] if before else []
        if window in periods:
            joined[window.key] = Joined(outcomes=newest, file=str(_file(home, spec, newest, ".parquet")))
    return Truth(joined=joined, restated=tuple(restated))


def restatable(spec: LoopSpec, periods: Sequence[Period]) -> list[Period]:
    """The periods of a run, and before them the windows that it may restate."""
    windows, earliest = list(periods), periods[-1].end - timedelta(days=spec.outcomes.restate_days)
    while windows[0].start > earliest and not spec.starts(windows[0]):
        windows.insert(0, previous_period(windows[0], spec.cadence))
    return windows


def outcomes(home: Home, spec: LoopSpec, period: str | None = None) -> pd.DataFrame:
    """Predictions with their outcome as it is known now, of one period or of all."""
    return _rows(truth_files(home, spec, period))


def stated_rows(home: Home, spec: LoopSpec, statement: WindowOutcomes) -> pd.DataFrame:
    """Predictions with their outcome as one statement has them."""
    return _rows([_file(home, spec, statement, ".parquet")])


def truth_files(home: Home, spec: LoopSpec, period: str | None = None) -> tuple[Path, ...]:
    """Where the newest statement of each window, or of one, keeps its rows, oldest window first."""
    newest: dict[str, tuple[int, Path]] = {}
    for file in (data_dir(home, spec) / GROUND_TRUTH).glob(f"{period or ''}*.parquet"):
        name, restatement = _stated_by(file)
        if period in {None, name}:
            newest[name] = max(newest.get(name, (-1, file)), (restatement, file))
    return tuple(file for _, (_, file) in sorted(newest.items()))


def statements(home: Home, spec: LoopSpec, period: str) -> tuple[WindowOutcomes, ...]:
    """What was said of a window, the first statement first."""
    folder = data_dir(home, spec) / GROUND_TRUTH
    files = [*folder.glob(f"{period}.json"), *folder.glob(f"{period}.[0-9]*.json")]
    return tuple(read_document(file, WindowOutcomes) for file in sorted(files, key=_stated_by))


def newest_statement(home: Home, spec: LoopSpec, period: str) -> WindowOutcomes:
    """What was said of a window last.

    Raises:
        NotEnoughDataError: Nothing was said of it, or its documents are gone.
    """
    told = statements(home, spec, period)
    if not told:
        raise NotEnoughDataError(
            f"There is no ground truth of {spec.name} in {period}: {data_dir(home, spec) / GROUND_TRUTH / period}.json "
            "is not there. Run the period again from ground_truth on."
        )
    return told[-1]


def coverage_check(joined: Joined) -> dg.AssetCheckResult:
    """Missing outcomes warn: what is measured on the rest may be measured on the wrong ones."""
    found = joined.outcomes
    nothing = "no prediction was due in the period: nothing is known"
    said = [f"{found.known} of {found.due} due predictions have their outcome" if found.due else nothing]
    said += [f"{found.void} never get one"] if found.void else []
    said += [f"{found.unknown_feedback} prediction id(s) of feedback are in no log"] if found.unknown_feedback else []
    said += (
        [f"{found.too_late} outcome(s) came too late to be joined (`outcomes.restate_days`)"] if found.too_late else []
    )
    return dg.AssetCheckResult(
        check_name="coverage_complete",
        passed=found.due > 0 and found.known == found.due,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(said),
        metadata={"due": found.due, "coverage": found.coverage},
    )


def _known_until(before: tuple[WindowOutcomes, ...], end: datetime) -> datetime:
    """Up to when to look: a run of an old period must not know less than a later run said already."""
    return max(end, before[-1].known_at) if before else end


def _state(
    home: Home, spec: LoopSpec, rows: pd.DataFrame, found: WindowOutcomes, before: tuple[WindowOutcomes, ...]
) -> WindowOutcomes:
    """Write one more statement of a window; the rows first, for it is there once its document is."""
    stated = found
    if before:
        then = stated_rows(home, spec, before[0]).set_index("prediction_id")["label"]
        first, now = then.align(rows.set_index("prediction_id")["label"], join="inner")
        stated = found.model_copy(
            update={
                "restatement": before[-1].restatement + 1,
                "known_at": max(found.known_at, before[-1].known_at),
                "corrected": int((first != now).sum()),
                "unknown_feedback": before[0].unknown_feedback,
                "unknown_ids": before[0].unknown_ids,
                "too_late": before[0].too_late,
            }
        )
    write_rows(_file(home, spec, stated, ".parquet"), rows)
    write_document(_file(home, spec, stated, ".json"), stated)
    return stated


def _rows(files: Sequence[Path]) -> pd.DataFrame:
    none = no_predictions().assign(label=pd.Series(dtype="int64"))
    return joined_up([none, *(read_rows(file) for file in files)])


def _file(home: Home, spec: LoopSpec, statement: WindowOutcomes, kind: str) -> Path:
    number = f".{statement.restatement}" if statement.restatement else ""
    return data_dir(home, spec) / GROUND_TRUTH / f"{statement.period}{number}{kind}"


def _stated_by(file: Path) -> tuple[str, int]:
    """The period of a statement's file, and which restatement it is: `1997-05.2.parquet` is the second one."""
    period, _, number = file.stem.partition(".")
    return period, int(number or 0)
