"""Does the exported model answer as the estimator does? On real rows, and where exports go wrong.

A random sample hides a narrowed threshold. So the probes sit on, and one unit in the last place around, every
threshold and category, and on missing and huge values.
"""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import warnings
from collections.abc import Callable

import numpy as np

from boucle.contracts.bundle import ONNX_INPUT, ONNX_OUTPUT
from boucle.contracts.facts import LatencyFacts, ParityFacts
from boucle.stats.metrics import Vector
from boucle.training.fit import Classifier, Matrix, predict
from boucle.training.trees import describe, thresholds

Answer = Callable[[Matrix], Vector]

_HUGE = (-np.inf, -np.finfo(np.float64).max, -1e300, -0.0, 0.0, 5e-324, 1e300, np.finfo(np.float64).max, np.inf)


def onnx_model(model: bytes) -> Answer:
    """The exported model as a function from rows to probabilities, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def answer(rows: Matrix) -> Vector:
        return np.asarray(session.run([ONNX_OUTPUT], {ONNX_INPUT: rows})[0], dtype=np.float64)

    return answer


def probe_rows(estimator: Classifier, rows: Matrix) -> Matrix:
    """Made-up rows, each a real one with one value changed; the last one misses everything.

    Missing and huge values are left out where scikit-learn raises an error for them: there is no answer to compare.

    Raises:
        ExportError: The estimator is of a kind whose thresholds are not known.
    """
    limits = thresholds(describe(estimator, rows.shape[1]))
    changes: list[tuple[int, float]] = []
    for column in range(rows.shape[1]):
        for threshold in limits.get(column, np.empty(0)):
            below, above = np.nextafter(threshold, -np.inf), np.nextafter(threshold, np.inf)
            changes += [(column, float(value)) for value in (below, threshold, above)]
        changes += [(column, value) for value in _accepted(estimator, rows[0], column, (np.nan, *_HUGE))]
    probes: Matrix = rows[np.arange(len(changes) + 1) % len(rows)].copy()
    probes[np.arange(len(changes)), [column for column, _ in changes]] = [value for _, value in changes]
    probes[-1] = np.nan
    return probes if _accepts(estimator, probes[-1:]) else probes[:-1]


def parity(estimator: Classifier, model: bytes, rows: Matrix) -> ParityFacts:
    """Compare the estimator with its export on `rows` and on the probes made from them."""
    probes = probe_rows(estimator, rows)
    both = np.vstack([rows, probes])
    difference = np.abs(_predict_quietly(estimator, both) - onnx_model(model)(both))
    return ParityFacts(max_difference=float(difference.max()), rows=len(both), probes=len(probes))


def _accepted(estimator: Classifier, row: Vector, column: int, values: tuple[float, ...]) -> list[float]:
    """The values for which the estimator has an answer, where they stand in `column` of the row.

    Asked, not deduced, because it depends on every step: imputers, scalers, encoders and LogisticRegression raise an
    error on infinity, the last one on NaN as well, forests on what is infinite in single precision, or sparse and NaN.
    """
    changed = np.tile(row, (len(values), 1))
    changed[:, column] = values
    if _accepts(estimator, changed):
        return list(values)
    return [value for value, made_up in zip(values, changed, strict=True) if _accepts(estimator, made_up[None, :])]


def _accepts(estimator: Classifier, rows: Matrix) -> bool:
    try:
        _predict_quietly(estimator, rows)
    except ValueError:  # what scikit-learn's validation of inputs raises
        return False
    return True


def _predict_quietly(estimator: Classifier, rows: Matrix) -> Vector:
    """Without the warnings about overflow and unknown categories, which the probes ask for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predict(estimator, rows)


def measure_latency(
    model: bytes, rows: Matrix, *, timer: Callable[[], float], warm_up: int = 20, rounds: int = 3
) -> LatencyFacts:
    """Times of single-row requests, one for each of `rows`, after `warm_up` that do not count.

    All rows are asked in each of `rounds`, and the shortest time of each row counts: what else the machine does can
    only add to a time, and does not repeat itself for the same row; what the model needs for a row, it needs each time.

    Args:
        timer: A monotonic clock in seconds, such as `time.perf_counter`.
    """
    answer = onnx_model(model)
    for row in rows[:warm_up]:
        answer(row[None, :])
    seconds = np.empty((rounds, len(rows)))
    for one_round in seconds:
        for number, row in enumerate(rows):
            started = timer()
            answer(row[None, :])
            one_round[number] = timer() - started
    shortest = seconds.min(axis=0)
    median, p99 = np.quantile(shortest, [0.5, 0.99]) * 1_000
    return LatencyFacts(requests=len(shortest), median_ms=float(median), p99_ms=float(p99))
