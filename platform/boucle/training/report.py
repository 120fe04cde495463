"""The evaluation report that people read: one HTML string with everything in it."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.facts import Interval, SlicesFacts
from boucle.contracts.verdict import Gate, GateMode, Verdict
from boucle.stats.intervals import log_loss_interval
from boucle.stats.metrics import ReliabilityBin, Vector, reliability_curve
from boucle.training.evaluate import Holdout, Scores
from boucle.training.figures import axes_of, inline_svg
from boucle.training.parity import Answer
from boucle.training.report_template import TEMPLATE

SHOWN_SLICES, SHOWN_EFFECTS = 12, 4
EFFECT_ROWS, EFFECT_POINTS = 500, 20
SHOWN_RESAMPLES = 300
"""Bootstrap samples of the intervals that are shown; those that are judged have more."""
COLOURS = {"candidate": "#1f5fbf", "production": "#c2571a", "baseline": "#7b8794"}


@dataclass(frozen=True, kw_only=True)
class ReportCurves:
    """What the report draws, by whose scores they are: `candidate`, `production`, `baseline`.

    `roc` are false and true positive rates, `precision_recall` recalls and precisions, both by falling threshold.
    `effects` are values of a feature and the candidate's mean score with all rows set to each, most important first.
    """

    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    scores: Mapping[str, Vector]
    log_loss: Mapping[str, Interval]
    roc: Mapping[str, tuple[Vector, Vector]]
    precision_recall: Mapping[str, tuple[Vector, Vector]]
    importance: Mapping[str, float]
    effects: Mapping[str, tuple[Vector, Vector]]


def report_curves(
    holdout: Holdout, scores: Scores, *, answer: Answer, importance: Mapping[str, float], seed: int
) -> ReportCurves:
    """The curves of one evaluation; scores that are no probabilities are left out. `answer` is the candidate."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    labels = holdout.labels
    given = {"candidate": scores.candidate, "production": scores.production, "baseline": scores.baseline}
    usable = {
        name: values for name, values in given.items() if values is not None and ((values >= 0) & (values <= 1)).all()
    }
    return ReportCurves(
        reliability={name: reliability_curve(labels, values) for name, values in usable.items()},
        scores=(models := {name: values for name, values in usable.items() if name != "baseline"}),
        roc={name: _thinned(*roc_curve(labels, values)[:2]) for name, values in models.items()},
        precision_recall={
            name: _thinned(*precision_recall_curve(labels, values)[1::-1]) for name, values in models.items()
        },
        log_loss={
            name: log_loss_interval(labels, values, holdout.entities, seed=seed, resamples=SHOWN_RESAMPLES)
            for name, values in usable.items()
        },
        importance=importance,
        effects=_effects(answer, holdout, importance, seed=seed),
    )


def render_report(evidence: Evidence, curves: ReportCurves, slices: SlicesFacts, made: Candidate) -> str:
    """The report as HTML. The same arguments give the same text; it loads nothing from anywhere."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    drawn = [
        (_calibration(curves), "calibration", "Calibration: on the line is right."),
        (_distribution(curves), "scores", "How often which score is given."),
        (_roc(curves), "roc", "ROC: above the diagonal is better than chance."),
        (_precision_recall(curves), "pr", "Precision and recall; the line is the positive rate."),
    ]
    if curves.importance:
        drawn.append(
            (_importance(curves.importance), "importance", "Share of the log loss that shuffling a feature costs.")
        )
    for number, (name, effect) in enumerate(curves.effects.items()):
        caption = f"Mean score with {name} set so in every row (partial dependence)."
        drawn.append((_effect(name, effect), f"effect{number}", caption))
    plots = [{"svg": Markup(inline_svg(figure, salt)), "caption": caption} for figure, salt, caption in drawn]  # noqa: S704
    return environment.from_string(TEMPLATE).render(
        evidence=evidence,
        against=_against(evidence),
        summary=_summary(evidence),
        metrics=_metric_rows(evidence, curves.log_loss),
        plots=plots,
        slices=sorted(slices.judged, key=lambda found: found.gain.estimate)[:SHOWN_SLICES],
        slice_count=len(slices.judged),
        slice_level=slices.level,
        identity=_identity(evidence, made),
    )


def markdown_summary(evidence: Evidence, slices: SlicesFacts) -> str:
    """The report in a few lines of Markdown, for a pull request."""
    rows = [
        f"| {row['name']} | {row['metrics'].log_loss:.4f} | {row['metrics'].auc:.4f} | {row['metrics'].brier:.4f} | "
        f"{row['metrics'].calibration_error:+.4f} |"
        for row in _metric_rows(evidence, {})
    ]
    gates = [f"| {gate.name} | {_said(gate)} | {_cell(_measured(gate))} |" for gate in evidence.gates]
    worst = min(slices.judged, key=lambda found: found.gain.estimate, default=None)
    lines = [
        f"### {evidence.model}, version {evidence.version}: {evidence.verdict}",
        "",
        f"{_against(evidence)} {evidence.holdout_rows:,} holdout rows. {_summary(evidence)}",
        "",
        "| scores of | log loss | AUC | Brier | mean score - positive rate |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "" if worst is None else f"Worst slice: {worst.name}, {worst.gain.estimate:+.4f} nats.",
        "",
        "<details><summary>Gates</summary>",
        "",
        "| gate | verdict | measured |",
        "|---|---|---|",
        *gates,
        "",
        "</details>",
        "",
        ", ".join(
            f"{name} `{digest[:12]}`"
            for name, digest in (
                ("Evidence", evidence.digest()),
                ("data", evidence.data_digest),
                ("bundle", evidence.bundle_digest),
            )
        ),
        "",
    ]
    return "\n".join(lines)


def _measured(gate: Gate) -> str:
    """The sentence of a gate without its name and verdict, which have columns of their own."""
    return gate.sentence().partition(": ")[2].removeprefix(f"{gate.verdict} ")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _said(gate: Gate) -> str:
    """The verdict in bold where it needs a person, and what a loose gate is."""
    word = gate.verdict.value if gate.verdict is Verdict.PASSED else f"**{gate.verdict}**"
    return word if gate.mode is GateMode.BLOCK else f"{word} ({gate.mode})"


def _thinned(x: Vector, y: Vector, points: int = 300) -> tuple[Vector, Vector]:
    """So many points of a curve, the first and the last among them: a page is read, not computed with."""
    place = np.unique(np.linspace(0, len(x) - 1, min(points, len(x))).astype(int))
    return np.asarray(x)[place], np.asarray(y)[place]


def _effects(
    answer: Answer, holdout: Holdout, importance: Mapping[str, float], *, seed: int
) -> dict[str, tuple[Vector, Vector]]:
    """Partial dependence (Friedman 2001) of the most important features on at most `EFFECT_ROWS` seeded rows."""
    rng, names = np.random.default_rng(seed), list(holdout.feature_names)
    rows = holdout.features[rng.permutation(len(holdout.features))[:EFFECT_ROWS]]
    found = {}
    for name in sorted(importance, key=lambda name: -importance[name])[:SHOWN_EFFECTS]:
        column = names.index(name)
        present = holdout.features[:, column][np.isfinite(holdout.features[:, column])]
        if len(present) == 0:
            continue
        grid = np.unique(np.quantile(present, np.linspace(0.02, 0.98, EFFECT_POINTS)))
        asked = np.repeat(rows[None, :, :], len(grid), axis=0)
        asked[:, :, column] = grid[:, None]
        scores = answer(asked.reshape(-1, rows.shape[1])).reshape(len(grid), len(rows))
        if np.isfinite(scores).all():
            found[name] = (grid, scores.mean(axis=1))
    return found


def _against(evidence: Evidence) -> str:
    if evidence.production_version is None:
        return "Compared with the base rate: no version is in production yet."
    return f"Compared with production, version {evidence.production_version}."


def _summary(evidence: Evidence) -> str:
    loose = [gate.name for gate in evidence.gates if gate.mode is not GateMode.BLOCK]
    blocking = [gate for gate in evidence.gates if gate.mode is GateMode.BLOCK]
    open_gates = [gate.name for gate in blocking if gate.verdict is not Verdict.PASSED]
    said = f" Blocking nothing: {', '.join(loose)}." if loose else ""
    if not open_gates:
        return f"All {len(blocking)} blocking gates passed.{said}" if blocking else f"No gate was measured.{said}"
    return f"Not passed: {', '.join(open_gates)}. Production stays as it is.{said}"


def _metric_rows(evidence: Evidence, intervals: Mapping[str, Interval]) -> list[dict[str, Any]]:
    names = {"candidate": evidence.candidate, "production": evidence.production, "baseline": evidence.baseline}
    titles = {
        "candidate": f"candidate (version {evidence.version})",
        "production": f"production (version {evidence.production_version})",
        "baseline": "baseline (base rate of the training labels)",
    }
    return [
        {"name": titles[name], "metrics": metrics, "interval": _range(intervals.get(name))}
        for name, metrics in names.items()
        if metrics is not None
    ]


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.4f} … {interval.high:.4f}"


def _identity(evidence: Evidence, made: Candidate) -> list[tuple[str, str]]:
    return [
        ("Release bundle", evidence.bundle_digest),
        *([("Made in", made.imported_from), ("Learnt from rows", made.data_digest)] if made.imported_from else []),
        ("Training and holdout rows", evidence.data_digest),
        ("Installed packages", made.environment_digest),
        ("Code", made.git_commit),
        ("Seed", str(made.seed)),
        ("MLflow run", made.mlflow_run_id),
        ("Evidence", evidence.digest()),
        ("Dagster run", evidence.run_id),
        ("Judged at", evidence.created_at.isoformat(timespec="seconds")),
    ]


def _calibration(curves: ReportCurves) -> Any:
    figure, axes = axes_of("mean score", "positive rate")
    points = [value for bins in curves.reliability.values() for b in bins for value in (b.mean_score, b.positive_rate)]
    top = 1.05 * max(points, default=1.0) or 1.0
    axes.plot([0, top], [0, top], color="#9aa5b1", linestyle="--", linewidth=1)
    for name, bins in curves.reliability.items():
        axes.plot(
            [b.mean_score for b in bins],
            [b.positive_rate for b in bins],
            marker="o",
            markersize=4,
            linewidth=1.6,
            color=COLOURS[name],
            label=name,
        )
    if curves.reliability:
        axes.legend(frameon=False)
    return figure


def _distribution(curves: ReportCurves) -> Any:
    figure, axes = axes_of("score", "share of rows")
    everything = np.concatenate([np.zeros(1), *curves.scores.values()])
    edges = np.linspace(0, max(float(np.quantile(everything, 0.995)), 1e-6), 41)
    for name, values in curves.scores.items():
        weights = np.full(len(values), 1 / len(values))
        axes.hist(
            np.minimum(values, edges[-1]),
            bins=edges,
            weights=weights,
            histtype="stepfilled",
            alpha=0.35,
            color=COLOURS[name],
            label=name,
        )
    if curves.scores:
        axes.legend(frameon=False)
    return figure


def _roc(curves: ReportCurves) -> Any:
    figure, axes = axes_of("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color="#9aa5b1", linestyle="--", linewidth=1)
    _lines(axes, curves.roc)
    return figure


def _precision_recall(curves: ReportCurves) -> Any:
    figure, axes = axes_of("recall", "precision")
    for _, precision in curves.precision_recall.values():
        axes.axhline(precision[0], color="#9aa5b1", linestyle="--", linewidth=1)
    _lines(axes, curves.precision_recall)
    return figure


def _lines(axes: Any, curves: Mapping[str, tuple[Vector, Vector]]) -> None:
    for name, (x, y) in curves.items():
        axes.plot(x, y, linewidth=1.6, color=COLOURS[name], label=name)
    if curves:
        axes.legend(frameon=False)


def _effect(name: str, effect: tuple[Vector, Vector]) -> Any:
    figure, axes = axes_of(name, "mean score", height=2.6)
    axes.plot(*effect, linewidth=1.6, color=COLOURS["candidate"], marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    return figure


def _importance(importance: Mapping[str, float]) -> Any:
    ordered = sorted(importance.items(), key=lambda item: (item[1], item[0]))[-15:]
    figure, axes = axes_of("share", "", height=0.9 + 0.2 * len(ordered), left=0.4)
    axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=COLOURS["candidate"])
    axes.grid(visible=False, axis="y")
    return figure
