"""The evaluation report that people read: one HTML string with everything in it."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boucle.contracts.evidence import Evidence
from boucle.contracts.facts import Interval
from boucle.contracts.verdict import GateMode, Verdict
from boucle.stats.intervals import log_loss_interval
from boucle.stats.metrics import ReliabilityBin, Vector, reliability_curve
from boucle.training.evaluate import Holdout, Scores
from boucle.training.report_template import TEMPLATE

SHOWN_RESAMPLES = 300
"""Bootstrap samples of the intervals that are shown; those that are judged have more."""
COLOURS = {"candidate": "#1f5fbf", "production": "#c2571a", "baseline": "#7b8794"}
_INK, _LINE = "#1c2430", "#dfe5ec"


@dataclass(frozen=True, kw_only=True)
class ReportCurves:
    """What the report draws, by whose scores they are: `candidate`, `production`, `baseline`."""

    reliability: Mapping[str, tuple[ReliabilityBin, ...]]
    scores: Mapping[str, Vector]
    log_loss: Mapping[str, Interval]
    importance: Mapping[str, float]


def report_curves(holdout: Holdout, scores: Scores, *, importance: Mapping[str, float], seed: int) -> ReportCurves:
    """The curves of one evaluation; scores that are no probabilities are left out."""
    labels = holdout.labels
    given = {"candidate": scores.candidate, "production": scores.production, "baseline": scores.baseline}
    usable = {
        name: values for name, values in given.items() if values is not None and ((values >= 0) & (values <= 1)).all()
    }
    return ReportCurves(
        reliability={name: reliability_curve(labels, values) for name, values in usable.items()},
        scores={name: values for name, values in usable.items() if name != "baseline"},
        log_loss={
            name: log_loss_interval(labels, values, holdout.entities, seed=seed, resamples=SHOWN_RESAMPLES)
            for name, values in usable.items()
        },
        importance=importance,
    )


def render_report(evidence: Evidence, curves: ReportCurves) -> str:
    """The report as HTML. The same evidence and curves give the same text; it loads nothing from anywhere."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    plots = [
        {"svg": Markup(_svg(_calibration(curves), "calibration")), "caption": "Calibration: on the line is right."},  # noqa: S704
        {"svg": Markup(_svg(_distribution(curves), "scores")), "caption": "How often which score is given."},  # noqa: S704
    ]
    if curves.importance:
        svg = Markup(_svg(_importance(curves.importance), "importance"))  # noqa: S704
        plots.append({"svg": svg, "caption": "Share of the log loss that shuffling a feature costs."})
    return environment.from_string(TEMPLATE).render(
        evidence=evidence,
        against=_against(evidence),
        summary=_summary(evidence),
        metrics=_metric_rows(evidence, curves),
        plots=plots,
        identity=_identity(evidence),
    )


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


def _metric_rows(evidence: Evidence, curves: ReportCurves) -> list[dict[str, Any]]:
    names = {"candidate": evidence.candidate, "production": evidence.production, "baseline": evidence.baseline}
    titles = {
        "candidate": f"candidate (version {evidence.version})",
        "production": f"production (version {evidence.production_version})",
        "baseline": "baseline (base rate of the training labels)",
    }
    return [
        {"name": titles[name], "metrics": metrics, "interval": _range(curves.log_loss.get(name))}
        for name, metrics in names.items()
        if metrics is not None
    ]


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.4f} … {interval.high:.4f}"


def _identity(evidence: Evidence) -> list[tuple[str, str]]:
    return [
        ("Release bundle", evidence.bundle_digest),
        ("Training and holdout rows", evidence.data_digest),
        ("Evidence", evidence.digest()),
        ("Dagster run", evidence.run_id),
        ("Judged at", evidence.created_at.isoformat(timespec="seconds")),
    ]


def _axes(title_x: str, title_y: str, *, height: float = 3.4, left: float = 0.16) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, height))
    # Fixed margins: letting matplotlib find them draws every figure twice.
    axes = figure.add_axes((left, 0.55 / height, 0.97 - left, 1 - 0.65 / height))
    axes.set_xlabel(title_x, color=_INK)
    axes.set_ylabel(title_y, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _calibration(curves: ReportCurves) -> Any:
    figure, axes = _axes("mean score", "positive rate")
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
    figure, axes = _axes("score", "share of rows")
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


def _importance(importance: Mapping[str, float]) -> Any:
    ordered = sorted(importance.items(), key=lambda item: (item[1], item[0]))[-15:]
    figure, axes = _axes("share", "", height=0.9 + 0.2 * len(ordered), left=0.4)
    axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=COLOURS["candidate"])
    axes.grid(visible=False, axis="y")
    return figure


def _svg(figure: Any, salt: str) -> str:
    """The figure as inline SVG; the salt keeps ids of several figures in one page apart, and the same in every run."""
    import matplotlib as mpl

    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "font.size": 9, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = target.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
