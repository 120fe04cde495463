"""Profiles of periods: made once, kept with every revision, and all that a drift report reads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets_tests.bundles import promote
from assets_tests.judging import live
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.profile import PeriodOutcomes, PeriodProfile
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.drift import measure_drift
from boucle_platform.model_loop.steps.monitoring import drift_history
from boucle_platform.model_loop.steps.profiles import (
    ANSWERS,
    OUTCOMES,
    facts_of,
    profile_answers,
    profile_outcomes,
    revisions,
)
from boucle_platform.model_loop.steps.store import data_dir, document_file, version_dir, write_document, write_rows

SPEC = catalogue.spec_of("repurchase")
APRIL, MAY = SPEC.period("1997-04"), SPEC.period("1997-05")
ONE = ModelVersion(1)
REFERENCE = live().reference


def answered(rows: int, *, version: int = 1, feature: float = 1.5) -> pd.DataFrame:
    """Answers by a version that knows two features, the first of which is the same in all rows."""
    features = [np.array([feature, place % 4]) for place in range(rows)]
    frame = pd.DataFrame({"entity_key": [str(n) for n in range(rows)], "model_version": version, "proba": 0.25})
    return frame.assign(features=features)


@pytest.fixture
def home(tmp_path: Path):
    home = Home(Settings(home=str(tmp_path)))
    promote(home.state, version=1, digest=Digest("1" * 64))
    write_document(version_dir(home, SPEC, ONE) / "reference.json", REFERENCE)
    yield home
    home.state.close()


def served(home: Home, period, rows: pd.DataFrame) -> Path:
    return write_rows(data_dir(home, SPEC) / "predictions" / f"{period.key}.parquet", rows)


def known(home: Home, period, rows: pd.DataFrame) -> Path:
    return write_rows(data_dir(home, SPEC) / "ground_truth" / f"{period.key}.parquet", rows.assign(label=1))


def test_a_profile_is_made_once(home: Home):
    served(home, MAY, answered(100))
    first, again = profile_answers(home, SPEC, MAY), profile_answers(home, SPEC, MAY)
    assert first == again
    assert [file.name for file in revisions(home, SPEC, MAY, ANSWERS, ONE)] == ["version-1.revision-1.json"]
    assert first[0].features["recency"].histogram.counts == (0, 0, 100, 0, 0)


def test_a_correction_makes_a_new_revision_and_the_old_one_stays_readable(home: Home):
    served(home, MAY, answered(100))
    (before,) = profile_answers(home, SPEC, MAY)
    served(home, MAY, answered(120))
    (after,) = profile_answers(home, SPEC, MAY)
    assert (before.revision, before.rows, after.revision, after.rows) == (1, 100, 2, 120)
    kept = [PeriodProfile.model_validate_json(file.read_text()) for file in revisions(home, SPEC, MAY, ANSWERS, ONE)]
    assert kept == [before, after]
    assert facts_of(home, SPEC, [MAY], REFERENCE).predictions == 120


def test_outcomes_that_are_corrected_make_a_new_revision_too(home: Home):
    known(home, MAY, answered(10))
    (before,) = profile_outcomes(home, SPEC, MAY)
    known(home, MAY, answered(11))
    (after,) = profile_outcomes(home, SPEC, MAY)
    assert (before.known.rows, after.known.rows, after.revision) == (10, 11, 2)
    kept = [PeriodOutcomes.model_validate_json(file.read_text()) for file in revisions(home, SPEC, MAY, OUTCOMES, ONE)]
    assert kept == [before, after]


def test_every_version_has_its_own_profile_unless_nobody_knows_its_bins(home: Home):
    write_document(
        version_dir(home, SPEC, ModelVersion(2)) / "reference.json",
        REFERENCE.model_copy(update={"version": ModelVersion(2)}),
    )
    served(home, MAY, pd.concat([answered(10), answered(20, version=2), answered(30, version=3)]))
    assert {made.version: made.rows for made in profile_answers(home, SPEC, MAY)} == {1: 10, 2: 20}


def test_what_testers_asked_for_does_not_count(home: Home):
    served(home, MAY, pd.concat([answered(10).assign(pinned=False), answered(5).assign(pinned=True)]))
    assert [made.rows for made in profile_answers(home, SPEC, MAY)] == [10]


def test_a_report_reads_no_row_of_periods_that_have_their_profiles(home: Home):
    files = [served(home, APRIL, answered(300)), served(home, MAY, answered(200)), known(home, MAY, answered(50))]
    for period in (APRIL, MAY):
        profile_answers(home, SPEC, period)
        profile_outcomes(home, SPEC, period)
    for file in files:
        file.unlink()
    report, _ = measure_drift(home, SPEC, [APRIL, MAY], draw=False)
    assert (report.predictions, report.labelled) == (500, 50)
    assert (report.window_start, report.window_end) == (APRIL.start, MAY.end)
    gates = {gate.name: gate for gate in report.gates}
    assert gates["input_frozen"].verdict == "failed"
    assert [column.column for column in report.columns] == ["scores", "recency", "freq"]


def test_periods_that_an_earlier_release_collected_are_profiled_when_they_are_needed(home: Home):
    served(home, MAY, answered(40))
    known(home, MAY, answered(30))
    facts = facts_of(home, SPEC, [APRIL, MAY], REFERENCE)
    assert (facts.predictions, facts.outcomes.rows) == (40, 30)
    assert revisions(home, SPEC, MAY, ANSWERS, ONE)


def test_a_reference_on_other_bins_has_the_period_profiled_again(home: Home):
    served(home, MAY, answered(40))
    profile_answers(home, SPEC, MAY)
    other = REFERENCE.model_copy(update={"rows": 2_000})
    write_document(version_dir(home, SPEC, ONE) / "reference.json", other)
    assert facts_of(home, SPEC, [MAY], other).predictions == 40
    assert len(revisions(home, SPEC, MAY, ANSWERS, ONE)) == 2


def test_a_window_without_answers_has_no_verdict(home: Home):
    report, page = measure_drift(home, SPEC, [MAY], draw=True)
    assert (report.predictions, report.labelled, page) == (0, 0, None)
    assert {gate.verdict for gate in report.gates} == {"inconclusive"}
    assert report.feature_psi == {}


def test_a_log_of_another_bundle_is_refused(home: Home):
    rows = answered(10)
    served(home, MAY, rows.assign(features=[np.zeros(3) for _ in range(10)]))
    with pytest.raises(
        ValueError, match=r"holds 3 features a row, the reference of the version has 2 \(recency, freq\)"
    ):
        profile_answers(home, SPEC, MAY)


def test_history_is_what_gates_measured_and_windows_without_answers_are_no_zeros(home: Home):
    served(home, APRIL, answered(300))
    report, _ = measure_drift(home, SPEC, [APRIL], draw=False)
    write_document(document_file(home, SPEC, "drift_report", APRIL.key), report)
    empty, _ = measure_drift(home, SPEC, [MAY], draw=False)
    history = drift_history(home, SPEC, [empty])
    assert {name: list(found) for name, found in history.items()} == {
        "score_drift": ["1997-04"],
        "feature_drift": ["1997-04"],
    }


def test_a_report_of_another_window_that_cannot_be_read_is_no_part_of_the_history(home: Home):
    file = document_file(home, SPEC, "drift_report", APRIL.key)
    file.parent.mkdir(parents=True)
    file.write_text("{")
    served(home, MAY, answered(300))
    report, _ = measure_drift(home, SPEC, [MAY], draw=False)
    assert list(drift_history(home, SPEC, [report])["score_drift"]) == ["1997-05"]


def test_rows_of_one_entity_are_worth_one_and_rows_about_nobody_named_one_each(home: Home):
    again = pd.concat([answered(50)] * 4, ignore_index=True)
    served(home, APRIL, again)
    served(home, MAY, again.assign(entity_key=None))
    worth = [profile_answers(home, SPEC, period)[0].features["freq"].design_effect for period in (APRIL, MAY)]
    assert worth == pytest.approx([4, 1])


def test_outcomes_of_rows_about_nobody_named_are_of_one_entity_each(home: Home):
    known(home, APRIL, answered(30).assign(entity_key=None))
    some = answered(30)
    known(
        home, MAY, some.assign(entity_key=[*some["entity_key"][:20].where(some.index[:20] % 2 == 0, "0"), *[None] * 10])
    )
    found = [profile_outcomes(home, SPEC, period)[0].known for period in (APRIL, MAY)]
    assert [(one.entities, one.sizes_squared) for one in found] == [(30, 30.0), (20, 11.0**2 + 19)]
