"""A model survives its export exactly, or is refused with what to change."""

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from assets_tests.shop import NAMES, fitted, shop
from boucle.contracts.bundle import ONNX_INPUT, ONNX_OUTPUT
from boucle.contracts.facts import LatencyFacts
from boucle.contracts.verdict import Verdict
from boucle.errors import ExportError
from boucle.policy.candidate import bundle_equals_estimator
from boucle.training import export
from boucle.training.export import export_onnx
from boucle.training.fit import fit, predict
from boucle.training.parity import measure_latency, onnx_model, parity, probe_rows
from boucle.training.trees import describe, thresholds

WIDTH = len(NAMES)


def small(**changes) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        **{"max_iter": 5, "min_samples_leaf": 50, "early_stopping": False, "random_state": 1} | changes
    )


def learnt(estimator):
    return estimator.fit(shop().features, shop().labels)


def test_the_export_answers_as_the_estimator_on_and_one_ulp_around_every_threshold():
    facts = parity(fitted(), export_onnx(fitted(), feature_count=WIDTH), shop().holdout.features)
    limits = sum(len(found) for found in thresholds(describe(fitted(), WIDTH)).values())
    assert facts.probes == 3 * limits + 10 * WIDTH + 1
    assert facts.rows == 4_000 + facts.probes
    assert facts.max_difference < 1e-14
    assert bundle_equals_estimator(facts).verdict is Verdict.PASSED


def test_an_export_with_narrowed_thresholds_is_caught(monkeypatch):
    add_node = export._Arrays._add_node

    def narrowed(self, feature, split, **sides):
        add_node(self, feature, float(np.float32(split)), **sides)

    monkeypatch.setattr(export._Arrays, "_add_node", narrowed)
    facts = parity(fitted(), export_onnx(fitted(), feature_count=WIDTH), shop().holdout.features)
    assert bundle_equals_estimator(facts).verdict is Verdict.FAILED


def test_an_export_that_sends_missing_values_the_other_way_is_caught(monkeypatch):
    add_node = export._Arrays._add_node

    def reversed_missing(self, feature, split, *, missing, left, right):
        add_node(self, feature, split, missing=not missing, left=left, right=right)

    monkeypatch.setattr(export._Arrays, "_add_node", reversed_missing)
    facts = parity(fitted(), export_onnx(fitted(), feature_count=WIDTH), shop().holdout.features)
    assert bundle_equals_estimator(facts).verdict is Verdict.FAILED


def test_probes_change_one_value_of_a_real_row_and_end_with_a_row_that_misses_everything():
    rows = shop().holdout.features[:5]
    probes = probe_rows(fitted(), rows)
    changed = [
        (~((probe == rows[i % 5]) | (np.isnan(probe) & np.isnan(rows[i % 5])))).sum() for i, probe in enumerate(probes)
    ]
    assert max(changed[:-1]) <= 1
    assert np.isnan(probes[-1]).all()


def test_exporting_twice_gives_the_same_bytes():
    assert export_onnx(fitted(), feature_count=WIDTH) == export_onnx(fitted(), feature_count=WIDTH)


def test_the_graph_of_plain_boosting_keeps_its_names_and_order_so_that_digests_of_bundles_stay():
    graph = onnx.load_from_string(export_onnx(fitted(), feature_count=WIDTH)).graph
    assert graph.name == "boosted_trees"
    assert [constant.name for constant in graph.initializer] == ["baseline", "second_axis"]
    assert [(node.op_type, list(node.input), list(node.output)) for node in graph.node] == [
        ("TreeEnsemble", [ONNX_INPUT], ["sums"]),
        ("Add", ["sums", "baseline"], ["logits"]),
        ("Sigmoid", ["logits"], ["probabilities"]),
        ("Squeeze", ["probabilities", "second_axis"], [ONNX_OUTPUT]),
    ]


def test_fitting_twice_with_one_seed_gives_the_same_bytes():
    from boucle_platform.defs.repurchase.estimator import build

    again = fit(build, shop().features, shop().labels, seed=7).estimator
    assert export_onnx(again, feature_count=WIDTH) == export_onnx(fitted(), feature_count=WIDTH)


def test_the_model_has_the_input_and_output_that_a_bundle_promises():
    session = onnxruntime.InferenceSession(export_onnx(fitted(), feature_count=WIDTH))
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (ONNX_INPUT, "tensor(double)", ["rows", WIDTH])
    assert (answered.name, answered.type, answered.shape) == (ONNX_OUTPUT, "tensor(double)", ["rows"])


def test_a_tree_that_is_a_single_leaf_is_exported():
    stump = learnt(small(max_iter=3, min_samples_leaf=4_000))
    facts = parity(stump, export_onnx(stump, feature_count=WIDTH), shop().holdout.features)
    assert facts.max_difference < 1e-14


def test_columns_that_a_column_transformer_drops_and_reorders_are_followed():
    columns = ColumnTransformer([("last", "passthrough", [3, 1]), ("out", "drop", [0]), ("first", "passthrough", [2])])
    pipeline = learnt(Pipeline([("nothing", "passthrough"), ("columns", columns), ("boosting", small())]))
    model = export_onnx(pipeline, feature_count=WIDTH)
    assert [column.source for column in describe(pipeline, WIDTH).columns] == [3, 1, 2]
    assert parity(pipeline, model, shop().holdout.features).max_difference < 1e-14


def behind(*steps) -> Pipeline:
    return Pipeline([*((f"step{number}", step) for number, step in enumerate(steps)), ("boosting", small())])


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (SVC(), "SVC cannot be exported exactly. Use a HistGradientBoostingClassifier"),
        (GradientBoostingClassifier(n_estimators=1), "^GradientBoostingClassifier cannot.*Use a Hist"),
        (behind(PCA()), "PCA cannot.*Remove the step"),
        (behind(ColumnTransformer([("short", PCA(), [0, 1])])), "PCA cannot.*the part 'short'"),
        (behind(ColumnTransformer([("in", Pipeline([("p", PCA())]), [0, 1])])), "PCA cannot.*the part 'in'"),
        (behind(FunctionTransformer(np.abs)), "FunctionTransformer cannot.*Remove the step"),
        (
            behind(ColumnTransformer([("all", "passthrough", [0, 1])], transformer_weights={"all": 2})),
            "ColumnTransformer cannot.*remove them, or scale",
        ),
        (behind(SimpleImputer(missing_values=0.0)), "SimpleImputer cannot.*It replaces 0.0"),
        (behind(MinMaxScaler(clip=True)), "MinMaxScaler cannot.*set clip=False"),
        (behind(OneHotEncoder(sparse_output=False)), "OneHotEncoder cannot.*set handle_unknown='ignore'"),
        (behind(OrdinalEncoder()), "OrdinalEncoder cannot.*set handle_unknown='use_encoded_value'"),
        (
            behind(OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=4)),
            "OneHotEncoder cannot.*remove min_frequency and max_categories",
        ),
        (
            behind(OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)),
            "OneHotEncoder cannot.*leave dtype at float64",
        ),
    ],
)
def test_what_cannot_be_exported_exactly_is_refused_with_what_to_change(estimator, words: str):
    rows = np.round(np.nan_to_num(shop().features[:500]))
    with pytest.raises(ExportError, match=words):
        export_onnx(estimator.fit(rows, shop().labels[:500]), feature_count=WIDTH)


def test_scaling_a_sparse_matrix_is_refused_because_scikit_learn_rounds_it_otherwise():
    rows = np.nan_to_num(shop().features)
    codes = ColumnTransformer(
        [("code", OneHotEncoder(handle_unknown="ignore"), [1])], remainder="passthrough", sparse_threshold=1
    )
    forest = RandomForestClassifier(2, max_depth=2, random_state=1)
    estimator = Pipeline([("codes", codes), ("scale", StandardScaler(with_mean=False)), ("forest", forest)])
    with pytest.raises(ExportError, match=r"StandardScaler cannot.*set sparse_threshold=0"):
        export_onnx(estimator.fit(rows, shop().labels), feature_count=WIDTH)


def test_an_estimator_that_was_not_fitted_is_refused():
    with pytest.raises(ExportError, match="not fitted"):
        export_onnx(small(), feature_count=WIDTH)


def test_labels_other_than_zero_and_one_are_refused():
    estimator = small().fit(shop().features, shop().labels + 1)
    with pytest.raises(ExportError, match=r"classes are .*fit it on labels 0 and 1"):
        export_onnx(estimator, feature_count=WIDTH)


def test_a_model_of_other_columns_than_the_contract_is_refused():
    with pytest.raises(ExportError, match="fitted on 4 columns, but 5 reach it"):
        export_onnx(fitted(), feature_count=5)


def test_one_row_is_answered_like_many():
    answer = onnx_model(export_onnx(fitted(), feature_count=WIDTH))
    rows = shop().holdout.features[:50]
    singly = np.array([answer(row[None, :])[0] for row in rows])
    assert singly == pytest.approx(predict(fitted(), rows), abs=1e-14)


def timed(seconds: list[float]) -> LatencyFacts:
    """Two rounds of two rows each, after no warm-up, whose times are those given."""
    ticks = iter([tick for length in seconds for tick in (0.0, length)])
    rows = shop().holdout.features[:2]
    model = export_onnx(fitted(), feature_count=WIDTH)
    return measure_latency(model, rows, timer=lambda: next(ticks), warm_up=0, rounds=2)


def test_latency_is_what_the_clock_says_of_each_request_after_the_warm_up():
    ticks = iter(np.arange(0, 1_000) * 0.002)
    facts = measure_latency(
        export_onnx(fitted(), feature_count=WIDTH), shop().holdout.features[:100], timer=lambda: float(next(ticks))
    )
    assert facts.requests == 100
    assert (facts.median_ms, facts.p99_ms) == (pytest.approx(2.0), pytest.approx(2.0))


def test_a_pause_of_the_machine_in_one_round_is_not_the_models():
    assert timed([0.002, 5.0, 3.0, 0.002]).p99_ms == pytest.approx(2.0)


def test_a_row_that_is_slow_in_each_round_is_the_models():
    facts = timed([0.002, 0.009, 0.002, 0.008])
    assert facts.p99_ms == pytest.approx(8.0, rel=0.01)
    assert facts.median_ms == pytest.approx(5.0)
