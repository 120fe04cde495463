"""Every supported step and model survives its export exactly, and an export that errs on purpose is caught."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from boucle.contracts.facts import ParityFacts
from boucle.contracts.verdict import Verdict
from boucle.errors import ExportError
from boucle.policy.candidate import bundle_equals_estimator
from boucle.training import columns_graph, trees
from boucle.training.export import export_onnx
from boucle.training.parity import onnx_model, parity, probe_rows
from boucle.training.trees import describe, thresholds

CITY, AGE, PLAN, USD = range(4)
WIDTH = 4
HUGE = (-np.inf, -np.finfo(np.float64).max, -1e300, 1e300, np.finfo(np.float64).max, np.inf)


@cache
def market() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2,000 rows to learn from, their labels, and 1,000 others: codes from -3 to 36, of which 10 % are missing and some
    of the others unknown; ages; codes that are no whole numbers; amounts, of which 20 % are missing."""
    rng = np.random.default_rng(3)
    rows = 3_000
    city = rng.integers(0, 40, rows)
    plan = rng.choice([0, 1, 2.5, 7], rows)
    age = np.round(rng.normal(40, 12, rows), 1)
    usd = rng.gamma(2, 20, rows)
    logit = rng.normal(size=40)[city] + 0.03 * (age - 40) + (plan == 2.5) - usd / 60
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    features = np.column_stack([np.where(rng.random(rows) < 0.1, np.nan, city - 3.0), age, plan, usd])
    features[rng.random(rows) < 0.2, USD] = np.nan
    others = features[2_000:].copy()
    others[:60, CITY] = np.tile([99, -20, 0.5, 1e9], 15)
    others[60:90, PLAN] = 3
    return features[:2_000], labels[:2_000], others


def learnt(estimator, *, complete: bool = False):
    features, labels, _ = market()
    return estimator.fit(np.nan_to_num(features, nan=5) if complete else features, labels)


def judged(estimator, *, complete: bool = False) -> ParityFacts:
    rows = np.nan_to_num(market()[2], nan=5) if complete else market()[2]
    return parity(estimator, export_onnx(estimator, feature_count=WIDTH), rows)


def boosting(**changes) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        **{"max_iter": 10, "min_samples_leaf": 10, "early_stopping": False, "random_state": 1} | changes
    )


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(10, min_samples_leaf=10, random_state=1)


def one_hot(**changes) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore"} | changes)


def ordinal(**changes) -> OrdinalEncoder:
    return OrdinalEncoder(**{"handle_unknown": "use_encoded_value", "unknown_value": -1} | changes)


def prepared(codes, amounts, **changes) -> ColumnTransformer:
    return ColumnTransformer([("codes", codes, [CITY, PLAN]), ("amounts", amounts, [USD, AGE])], **changes)


def filled(*steps, **changes) -> Pipeline:
    return make_pipeline(SimpleImputer(**changes), *steps)


KINDS = {
    "boosting by categories": boosting(categorical_features=[CITY, PLAN]),
    "boosting by categories alone": make_pipeline(
        ColumnTransformer([("codes", "passthrough", [PLAN, CITY])]), boosting(categorical_features=[0, 1])
    ),
    "boosting by reordered categories": make_pipeline(
        ColumnTransformer([("codes", ordinal(unknown_value=np.nan), [CITY])], remainder="passthrough"),
        boosting(categorical_features=[0, 2]),
    ),
    "boosting by filled categories": filled(
        boosting(categorical_features=[CITY, PLAN]), strategy="constant", fill_value=500
    ),
    "boosting behind scales": make_pipeline(MinMaxScaler(), StandardScaler(), boosting()),
    "boosting behind codes": make_pipeline(prepared(ordinal(unknown_value=np.nan), "passthrough"), boosting()),
    "boosting behind scaled indicators": make_pipeline(
        prepared(one_hot(drop="if_binary"), filled(add_indicator=True), sparse_threshold=0),
        StandardScaler(),
        boosting(),
    ),
    "forest": forest(),
    "extra trees": ExtraTreesClassifier(10, min_samples_leaf=10, random_state=1),
    "tree": DecisionTreeClassifier(max_depth=6, random_state=1),
    "forest behind filled scales": filled(StandardScaler(), forest()),
    "forest behind sparse indicators": make_pipeline(prepared(one_hot(), filled(), sparse_threshold=1), forest()),
    "forest behind codes": make_pipeline(
        prepared(ordinal(unknown_value=-5, encoded_missing_value=-9), "drop", remainder="drop"), forest()
    ),
    "regression": make_pipeline(
        prepared(one_hot(), filled(StandardScaler(), add_indicator=True)), LogisticRegression(max_iter=1_000)
    ),
    "regression behind filled codes": make_pipeline(
        prepared(
            filled(one_hot(drop="first"), strategy="most_frequent"), filled(MinMaxScaler((-1, 1)), strategy="median")
        ),
        LogisticRegression(max_iter=1_000),
    ),
    "regression behind codes": make_pipeline(
        prepared(ordinal(encoded_missing_value=-2), filled()), LogisticRegression(max_iter=5_000)
    ),
    "pipeline in a pipeline": make_pipeline(filled(StandardScaler()), make_pipeline("passthrough", boosting())),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_export_answers_as_the_estimator_on_rows_and_probes(kind: str):
    facts = judged(learnt(KINDS[kind]))
    assert facts.max_difference < 1e-14
    assert bundle_equals_estimator(facts).verdict is Verdict.PASSED


@pytest.mark.parametrize("kind", KINDS)
def test_exporting_twice_gives_the_same_bytes(kind: str):
    estimator = learnt(KINDS[kind])
    assert export_onnx(estimator, feature_count=WIDTH) == export_onnx(estimator, feature_count=WIDTH)


def test_a_split_by_categories_knows_as_many_as_scikit_learn_takes_with_any_number_as_a_code():
    rng = np.random.default_rng(1)
    codes = np.unique(np.concatenate([rng.normal(size=252) * 1e6, [-0.0, -1e300, 1e300]]))
    chosen = rng.integers(0, len(codes), 6_000)
    features = np.column_stack([codes[chosen], rng.normal(size=6_000)])
    labels = (rng.random(6_000) < rng.random(len(codes))[chosen]).astype(float)
    estimator = boosting(categorical_features=[0], min_samples_leaf=2).fit(features, labels)
    assert len(codes) == 255
    assert parity(estimator, export_onnx(estimator, feature_count=2), features).max_difference < 1e-14


def test_trees_that_split_by_no_category_and_no_number_are_exported():
    estimator = make_pipeline(
        ColumnTransformer([("codes", "passthrough", [PLAN])]),
        boosting(categorical_features=[0], min_samples_leaf=2_000),
    )
    assert judged(learnt(estimator)).max_difference < 1e-14


def test_a_column_that_no_row_had_when_fitting_is_dropped_as_scikit_learn_drops_it():
    features, labels, others = market()
    empty = np.column_stack([np.full(len(features), np.nan), features])
    estimator = filled(LogisticRegression(max_iter=5_000))
    with pytest.warns(UserWarning, match="Skipping features without any observed values"):
        fitted = estimator.fit(empty, labels)
    rows = np.column_stack([others[:, USD], others])
    assert [column.source for column in describe(fitted, 5).columns] == [1, 2, 3, 4]
    assert parity(fitted, export_onnx(fitted, feature_count=5), rows).max_difference < 1e-14


def test_one_row_is_answered_like_many():
    estimator = learnt(KINDS["regression"])
    answer, rows = onnx_model(export_onnx(estimator, feature_count=WIDTH)), market()[2][:50]
    singly = np.array([answer(row[None, :])[0] for row in rows])
    assert singly == pytest.approx(estimator.predict_proba(rows)[:, 1], abs=1e-14)


def test_probes_leave_out_only_what_scikit_learn_refuses():
    everything, numbers = learnt(boosting()), learnt(LogisticRegression(max_iter=5_000), complete=True)
    rows = np.nan_to_num(market()[2], nan=5)
    limits = sum(len(found) for found in thresholds(describe(everything, WIDTH)).values())
    assert len(probe_rows(everything, rows)) == 3 * limits + 10 * WIDTH + 1
    assert len(probe_rows(numbers, rows)) == (10 - 3) * WIDTH  # NaN and both infinities, and the row of NaN

    probes = probe_rows(learnt(forest()), rows)
    assert np.isnan(probes[-1]).all()
    assert not np.isin(probes, HUGE).any()  # infinite in single precision
    assert np.isnan(probes[:-1]).any(axis=0).all()


def test_probes_of_categories_sit_on_beside_between_and_beyond_them():
    probes = probe_rows(learnt(boosting(categorical_features=[PLAN])), market()[2])
    codes = (-1.0, 0.0, 1.0, 2.5, 7.0, 8.0)
    around = [value for code in codes for value in (np.nextafter(code, -np.inf), code, np.nextafter(code, np.inf))]
    assert np.isin(around, probes[:, PLAN]).all()


def test_an_export_that_sends_missing_categories_the_other_way_is_caught(monkeypatch):
    split_table = trees._split_table

    def reversed_missing(categories, *, missing_left, **sides):
        return split_table(categories, missing_left=not missing_left, **sides)

    monkeypatch.setattr(trees, "_split_table", reversed_missing)
    assert bundle_equals_estimator(judged(learnt(KINDS["boosting by categories"]))).verdict is Verdict.FAILED


def test_an_export_that_takes_unknown_categories_for_a_known_one_is_caught(monkeypatch):
    split_table = trees._split_table

    def first_for_unknown(*args, **sides):
        table = split_table(*args, **sides)
        return replace(table, unknown=table.values[0])

    monkeypatch.setattr(trees, "_split_table", first_for_unknown)
    assert bundle_equals_estimator(judged(learnt(KINDS["boosting by categories"]))).verdict is Verdict.FAILED


def stump() -> DecisionTreeClassifier:
    """One split at 1.5, which single precision holds: the number after it in double precision rounds to it."""
    return DecisionTreeClassifier(max_depth=1).fit([[1.0], [2.0]], [0, 1])


def test_a_forest_rounds_before_it_compares():
    rows = np.array([[1.5], [np.nextafter(1.5, 2)], [np.nextafter(np.float32(1.5), np.float32(2))]])
    assert onnx_model(export_onnx(stump(), feature_count=1))(rows) == pytest.approx([0, 0, 1])


@pytest.mark.parametrize("estimator", [stump, lambda: learnt(forest())])
def test_an_export_of_trees_that_does_not_round_is_caught(monkeypatch, estimator):
    fitted = estimator()
    rows = np.array([[1.0], [2.0]]) if fitted.n_features_in_ == 1 else market()[2]
    monkeypatch.setattr(columns_graph, "_single", lambda graph, values, prefix: values)
    facts = parity(fitted, export_onnx(fitted, feature_count=rows.shape[1]), rows)
    assert bundle_equals_estimator(facts).verdict is Verdict.FAILED


def test_a_forest_of_other_columns_than_reach_it_is_refused():
    with pytest.raises(ExportError, match="fitted on 4 columns, but 6 reach it"):
        export_onnx(learnt(forest()), feature_count=6)
    with pytest.raises(ExportError, match="fitted on 4 columns, but 3 reach it"):
        export_onnx(learnt(KINDS["regression"]), feature_count=3)


def test_an_unfitted_pipeline_is_refused():
    with pytest.raises(ExportError, match=r"LogisticRegression cannot.*not fitted"):
        export_onnx(make_pipeline(StandardScaler(), LogisticRegression()), feature_count=WIDTH)
