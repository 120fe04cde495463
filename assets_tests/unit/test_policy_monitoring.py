"""Drift gates: they fail when the data shows drift that matters, and only then."""

import numpy as np
import pytest

from assets_tests.judging import MOVED, SAME, column, known, live
from boucle.contracts.facts import LiveFacts
from boucle.contracts.monitoring import StatisticName
from boucle.contracts.profile import ColumnProfile, ReferenceProfile
from boucle.contracts.verdict import Gate, Verdict
from boucle.features.profiles import profile_columns, profile_like, profile_reference
from boucle.policy.columns import column_drifts, feature_psi
from boucle.policy.monitoring import GATE_SHARES, MonitoringPolicy, drift_gates, score_drift
from boucle.stats.calibration import build_calibration
from boucle.stats.drift import psi
from boucle.training.evaluate import Holdout, reference_profile

POLICY = MonitoringPolicy()
CALM = dict.fromkeys(GATE_SHARES, Verdict.PASSED)
FEW = column(0, 2, 8, 30, 159)
NO_CHANCE = "It may be chance"


def gates(policy: MonitoringPolicy = POLICY, **changes) -> dict[str, Gate]:
    return {gate.name: gate for gate in drift_gates(policy, live(**changes))}


def verdicts(policy: MonitoringPolicy = POLICY, **changes) -> dict[str, Verdict]:
    return {name: gate.verdict for name, gate in gates(policy, **changes).items()}


def with_feature(values: list[float]) -> dict[str, ColumnProfile]:
    return {"recency": profile_like(values, SAME), "freq": SAME}


def test_a_window_like_the_reference_is_within_limits():
    assert verdicts() == CALM


def test_what_a_window_without_drift_may_cost_is_spent_once():
    assert sum(GATE_SHARES.values()) == pytest.approx(1)
    assert POLICY.false_alarms("calibration_drift") == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("score_drift", {"scores": MOVED}),
        ("feature_drift", {"features": {"recency": MOVED, "freq": MOVED}}),
        ("calibration_drift", {"outcomes": known(gap=0.05)}),
        ("calibration_drift", {"outcomes": known(gap=-0.05)}),
        ("log_loss_drift", {"outcomes": known(positives_scored=0.02)}),
    ],
)
def test_each_gate_fails_on_its_own_drift_and_the_others_do_not_mind(name: str, changes: dict):
    found = verdicts(**changes)
    assert found.pop(name) is Verdict.FAILED
    assert Verdict.FAILED not in found.values()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # Off by 0.0083, with 500 labels: 0.006 to the limit is nothing against 2.8 standard errors of 0.012.
        ("calibration_drift", {"outcomes": known(500, gap=0.0083)}),
        ("log_loss_drift", {"outcomes": known(500, positives_scored=0.05)}),
    ],
)
def test_a_gap_that_may_be_chance_is_inconclusive(name: str, changes: dict):
    assert verdicts(**changes)[name] is Verdict.INCONCLUSIVE


def test_a_reference_of_an_earlier_release_is_compared_by_what_it_knows():
    facts = live(outcomes=known(positives_scored=0.02))
    without = {"details": {}, "score_details": None, "outcomes": None}
    older = live(reference=facts.reference.model_copy(update=without), outcomes=facts.outcomes)
    assert {gate.name: gate.verdict for gate in drift_gates(POLICY, older)} == CALM | {"log_loss_drift": Verdict.FAILED}


def test_a_column_that_does_not_matter_may_drift_alone():
    policy = MonitoringPolicy(max_feature_psi=1.0)
    # PSI of MOVED is about 1.8: with a quarter of the importance it counts 0.45.
    assert psi(SAME, MOVED) == pytest.approx(1.8, abs=0.3)
    assert verdicts(policy, features={"recency": SAME, "freq": MOVED})["feature_drift"] is Verdict.PASSED
    assert verdicts(policy, features={"recency": MOVED, "freq": SAME})["feature_drift"] is Verdict.FAILED


def test_drift_that_is_large_and_may_be_chance_is_inconclusive():
    # 20 rows a bin, 4 more or less in each: a PSI of 0.04 that one window in five has without drift.
    small = column(0, 44, 56, 44, 56)
    gate = gates(features={"recency": small, "freq": small}, predictions=200)["feature_drift"]
    assert gate.verdict is not Verdict.FAILED
    moved = column(0, 35, 65, 35, 65)
    gate = gates(features={"recency": moved, "freq": SAME}, predictions=200)["feature_drift"]
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert NO_CHANCE in gate.detail


def test_drift_that_is_sure_and_small_passes():
    many = column(0, 25_500, 24_500, 25_500, 24_500)
    gate = score_drift(POLICY, live(scores=many, predictions=100_000))
    assert gate.verdict is Verdict.PASSED


def test_the_limits_hold_between_sure_and_large():
    facts = live(scores=MOVED)
    measured = score_drift(POLICY, facts).measured
    assert measured is not None
    assert score_drift(MonitoringPolicy(max_score_psi=measured), facts).verdict is Verdict.PASSED
    assert score_drift(MonitoringPolicy(max_score_psi=measured * 0.999), facts).verdict is Verdict.FAILED


def test_nothing_served_and_nothing_labelled_is_inconclusive_everywhere():
    empty = profile_like([], SAME)
    found = drift_gates(
        POLICY, live(predictions=0, scores=empty, features={"recency": empty, "freq": empty}, outcomes=None)
    )
    assert {gate.verdict for gate in found} == {Verdict.INCONCLUSIVE}
    assert {gate.measured for gate in found} == {None}


def test_a_window_of_few_predictions_says_nothing_about_distributions():
    found = verdicts(predictions=199, scores=FEW, features={"recency": FEW, "freq": FEW})
    assert {found[name] for name in ("score_drift", "feature_drift", "input_frozen", "input_missing")} == {
        Verdict.INCONCLUSIVE
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"min_labels": 4_001},
        {"min_positives": 321},
    ],
)
def test_few_labels_say_nothing_about_calibration(changes: dict):
    # 4,000 labels, 320 of them positive.
    found = verdicts(MonitoringPolicy(**changes), outcomes=known(gap=0.05, positives_scored=0.02))
    assert found["calibration_drift"] is found["log_loss_drift"] is Verdict.INCONCLUSIVE


def test_exactly_as_many_labels_and_positives_as_asked_are_enough():
    policy = MonitoringPolicy(min_labels=4_000, min_positives=320)
    assert verdicts(policy, outcomes=known(gap=0.05))["calibration_drift"] is Verdict.FAILED


def test_a_single_labelled_entity_has_no_interval():
    assert verdicts(outcomes=known(1))["calibration_drift"] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([2.5] * 1_000, id="constant"),
        pytest.param([2.5] * 984 + [0.1, 1.1, 2.1, 3.1] * 4, id="repeats but for a few"),
        pytest.param([float("nan")] * 500 + [2.5] * 500, id="constant where it is there"),
    ],
)
def test_a_feature_that_is_frozen_is_found_whatever_it_matters(values: list[float]):
    found = gates(MonitoringPolicy(max_feature_psi=100, max_missing_rise=0.9), features=with_feature(values))
    assert found["input_frozen"].verdict is Verdict.FAILED
    assert "recency" in found["input_frozen"].detail


def test_a_frozen_feature_is_found_against_a_reference_of_an_earlier_release():
    older = live().reference.model_copy(update={"details": {}})
    found = gates(reference=older, features=with_feature([2.5] * 1_000))["input_frozen"]
    assert (found.verdict, found.measured) == (Verdict.FAILED, 0.0)


def test_a_feature_that_comes_to_life_as_a_constant_is_frozen():
    never = profile_like([float("nan")] * 1_000, SAME)
    reference = live().reference.model_copy(
        update={"features": {"recency": never.histogram, "freq": SAME.histogram}, "details": {"freq": SAME.details}}
    )
    assert verdicts(reference=reference, features=with_feature([2.5] * 1_000))["input_frozen"] is Verdict.FAILED


def test_a_feature_that_was_constant_already_is_not_asked():
    constant = profile_like([2.5] * 1_000, SAME)
    reference = live().reference.model_copy(
        update={
            "features": {"recency": constant.histogram, "freq": constant.histogram},
            "details": {"recency": constant.details, "freq": constant.details},
        }
    )
    found = gates(reference=reference, features={"recency": constant, "freq": constant})["input_frozen"]
    assert (found.verdict, found.measured) == (Verdict.INCONCLUSIVE, None)


def test_a_value_that_half_of_the_rows_have_is_drift_and_not_frozen():
    values = [2.5] * 500 + list(np.linspace(0, 4, 500, endpoint=False))
    found = verdicts(features=with_feature(values))
    assert found["input_frozen"] is Verdict.PASSED
    assert found["feature_drift"] is Verdict.FAILED


def test_a_flag_that_is_seldom_set_may_be_unset_for_a_while():
    flag = profile_like([0.5] * 950 + [1.5] * 50, SAME)
    facts = live()
    details = {"recency": flag.details, "freq": SAME.details}
    features = {"recency": flag.histogram, "freq": SAME.histogram}
    reference = facts.reference.model_copy(update={"details": details, "features": features})
    unset = profile_like([0.5] * 1_000, SAME)
    assert verdicts(reference=reference, features={"recency": unset, "freq": SAME})["input_frozen"] is Verdict.PASSED


def test_a_flag_that_may_be_unset_by_chance_does_not_hide_a_feature_that_is_frozen():
    """Of 40 rows a flag of 11 % is unset in all of 1 % of windows; the other feature cannot stand still."""
    flag = profile_like([0.5] * 890 + [1.5] * 110, SAME)
    reference = live().reference.model_copy(
        update={
            "details": {"recency": flag.details, "freq": SAME.details},
            "features": {"recency": flag.histogram, "freq": SAME.histogram},
        }
    )
    features = {"recency": profile_like([0.5] * 40, SAME), "freq": profile_like([2.5] * 40, SAME)}
    found = gates(MonitoringPolicy(min_predictions=40), reference=reference, features=features)["input_frozen"]
    assert (found.verdict, found.detail[:4]) == (Verdict.FAILED, "freq")


def test_few_rows_of_a_flag_that_stand_still_may_be_chance():
    flag = profile_like([0.5] * 850 + [1.5] * 150, SAME)
    facts = live()
    reference = facts.reference.model_copy(
        update={
            "details": {"recency": flag.details, "freq": SAME.details},
            "features": {"recency": flag.histogram, "freq": SAME.histogram},
        }
    )
    # 0.85 ** 20 = 0.04
    few = profile_like([0.5] * 20, SAME)
    found = gates(
        MonitoringPolicy(min_predictions=20),
        reference=reference,
        features={"recency": few, "freq": SAME},
        predictions=20,
    )
    assert found["input_frozen"].verdict is Verdict.INCONCLUSIVE
    assert NO_CHANCE in found["input_frozen"].detail


def test_a_feature_that_goes_missing_is_found_whatever_it_matters():
    gone = profile_like([float("nan")] * 400 + list(np.linspace(0, 4, 600, endpoint=False)), SAME)
    found = gates(features={"recency": SAME, "freq": gone})["input_missing"]
    assert found.verdict is Verdict.FAILED
    assert found.measured == pytest.approx(0.4)
    assert "freq" in found.detail


def test_a_feature_that_is_missing_a_little_more_often_passes():
    gone = profile_like([float("nan")] * 100 + list(np.linspace(0, 4, 900, endpoint=False)), SAME)
    assert verdicts(features={"recency": SAME, "freq": gone})["input_missing"] is Verdict.PASSED


def test_the_report_shows_every_statistic_of_every_column_the_scores_first():
    columns = column_drifts(POLICY, live(features={"recency": SAME, "freq": MOVED}))
    assert [(found.column, found.importance, found.verdict) for found in columns] == [
        ("scores", None, Verdict.PASSED),
        ("recency", 0.75, Verdict.PASSED),
        ("freq", 0.25, Verdict.FAILED),
    ]
    assert {statistic.name for statistic in columns[0].statistics} == set(StatisticName)
    assert feature_psi(columns) == {"recency": 0.0, "freq": psi(SAME, MOVED)}
    for statistic in columns[2].statistics:
        assert statistic.is_beyond
        assert (statistic.reference_n, statistic.current_n) == (1_000, 1_000)


def test_categories_have_no_distance_along_an_axis():
    names = profile_reference([0.0, 1.0] * 500, 10, (0.0, 1.0))
    facts = live(features={"recency": names, "freq": SAME})
    reference = facts.reference.model_copy(
        update={
            "features": {"recency": names.histogram, "freq": SAME.histogram},
            "details": {"recency": names.details, "freq": SAME.details},
        }
    )
    columns = column_drifts(POLICY, live(reference=reference, features=facts.features))
    assert {statistic.name for statistic in columns[1].statistics} == {
        StatisticName.PSI,
        StatisticName.JENSEN_SHANNON,
        StatisticName.CHI_SQUARE,
    }
    assert columns[1].statistic(StatisticName.WASSERSTEIN) is None


def test_the_report_calls_no_column_of_a_small_window_drifted():
    columns = column_drifts(POLICY, live(scores=FEW, features={"recency": FEW, "freq": FEW}, predictions=199))
    assert {found.verdict for found in columns} == {Verdict.INCONCLUSIVE}


def made(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Six features with one common cause, calibrated scores of the first, and labels."""
    x = 0.7 * rng.normal(size=(n, 1)) + 0.7 * rng.normal(size=(n, 6))
    scores = 1 / (1 + np.exp(2.4 - 0.5 * x[:, 0]))
    labels = (rng.random(n) < scores).astype(float)
    return {"scores": scores, "labels": labels} | {f"x{place}": x[:, place] for place in range(6)}


def test_windows_without_drift_fail_no_gate_however_their_features_depend_on_each_other():
    rng, failed, windows = np.random.default_rng(3), 0, 0
    # Without an effect that drift must have, only the level is left: of 160 windows about 2 may fail, and 9 do never.
    policy = MonitoringPolicy(max_feature_psi=1e-9, max_score_psi=1e-9, max_calibration_gap=1e-9)
    for _ in range(10):
        facts = live(reference=reference_of(made(rng, 4_000)))
        for n in (200, 1_000) * 8:
            failed += any(gate.verdict is Verdict.FAILED for gate in drift_gates(policy, window(facts, made(rng, n))))
            windows += 1
    assert (windows, failed) == (160, pytest.approx(4, abs=4))


def reference_of(rows: dict[str, np.ndarray]) -> ReferenceProfile:
    holdout = Holdout(
        features=np.column_stack([rows[name] for name in rows if name.startswith("x")]),
        feature_names=[name for name in rows if name.startswith("x")],
        labels=rows["labels"],
        entities=np.arange(len(rows["labels"])),
    )
    reference = live().reference
    return reference_profile(
        holdout,
        rows["scores"],
        model=reference.model,
        version=reference.version,
        window=(reference.window_start, reference.window_end),
        importance=dict.fromkeys(holdout.feature_names, 1 / 6),
    )


def window(facts: LiveFacts, rows: dict[str, np.ndarray]) -> LiveFacts:
    profile = facts.reference
    return LiveFacts(
        reference=profile,
        predictions=len(rows["scores"]),
        scores=profile_like(rows["scores"], profile.score_column),
        features=profile_columns(rows, profile.columns),
        outcomes=build_calibration(
            rows["labels"], rows["scores"], np.arange(len(rows["labels"])), profile.scores.edges
        ),
    )
