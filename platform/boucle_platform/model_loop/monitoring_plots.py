"""The plots of a model's monitoring page, over its windows."""

from collections.abc import Sequence
from datetime import datetime
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

from boucle.contracts.performance import Metric, MonitoredWindow, MonitoringHistory, PerformanceReport
from boucle.contracts.trigger import Trigger, TriggerOutcome
from boucle.stats.performance_history import Line, all_errors, estimated_by_version, realised_by_version

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f5fbf", "#c2571a", "#2b8a3e", "#7048e8", "#b3261e", "#0b7285", "#a8620a", "#5d6b7c")
NAMES = {
    Metric.LOG_LOSS: "Log loss (nats)",
    Metric.BRIER: "Brier score",
    Metric.AUC: "AUC",
    Metric.CALIBRATION: "Mean score − positive rate",
}
TICKS = 8
_WIDTH, _HEIGHT = 9.2, 2.9
_MOST_USED = 5
_CAPTIONS = {
    "loss": "Log loss by version, less is better: realised with its interval, dashed with crosses as estimated without "
    "labels. Triangles are retraining triggers, filled where they fired.",
    "calibration": "Calibration by version: above 0 it promises too much. Dashed as the recalibrated scores expect.",
    "auc": "AUC by version: 0.5 is chance. Dashed as estimated without labels.",
    "estimates": "Estimates of the log loss as they were made, with their intervals, against what came of the same "
    "predictions. On the line is right.",
    "coverage": "Predictions by what is known of their outcome, in the window in which it was due.",
    "drift": f"How much of its limit each drift gate uses: beyond 1 it is broken, {_MOST_USED} is that or more. "
    "Hollow where the data is not sure.",
}


def monitoring_plots(history: MonitoringHistory, triggers: Sequence[tuple[datetime, Trigger]]) -> list[dict[str, Any]]:
    """The plots as inline SVG with their captions; none of what was never measured."""
    from markupsafe import Markup

    from boucle.training.figures import inline_svg

    windows = list(dropwhile(_is_empty, history.windows))
    reports = [window.performance for window in windows]
    periods = [str(report.period) for report in reports]
    if not periods:
        return []
    drawn = {
        "loss": _metric(periods, reports, Metric.LOG_LOSS, triggers),
        "calibration": _metric(periods, reports, Metric.CALIBRATION, ()),
        "auc": _metric(periods, reports, Metric.AUC, ()),
        "estimates": _against_estimate(reports),
        "coverage": _coverage(periods, reports),
        "drift": _drift(periods, windows),
    }
    return [
        {"svg": Markup(inline_svg(figure, name)), "caption": _CAPTIONS[name], "small": name == "estimates"}  # noqa: S704
        for name, figure in drawn.items()
        if figure is not None
    ]


def _is_empty(window: MonitoredWindow) -> bool:
    """Whether nobody asked anything in the window, and no outcome was due: the time before the first version."""
    return not (window.performance.outcomes.due or window.performance.estimated)


def _metric(
    periods: list[str],
    reports: Sequence[PerformanceReport],
    metric: Metric,
    triggers: Sequence[tuple[datetime, Trigger]],
) -> Any:
    realised, estimated = realised_by_version(reports, metric), estimated_by_version(reports, metric)
    versions = sorted({*realised, *estimated})
    if not versions:
        return None
    figure, axes = _over(periods, NAMES[metric])
    for version in versions:
        colour = COLOURS[(version - 1) % len(COLOURS)]
        _line(axes, periods, realised.get(version, []), colour, f"version {version}", dashed=False)
        _line(axes, periods, estimated.get(version, []), colour, "", dashed=True)
    if metric is Metric.CALIBRATION:
        axes.axhline(0, color="#9aa5b1", linewidth=1)
    _mark(axes, periods, triggers)
    axes.legend(
        frameon=False, ncols=min(len(versions), 6), loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2
    )
    return figure


def _line(axes: "Axes", periods: list[str], line: Line, colour: str, label: str, *, dashed: bool) -> None:
    if not line:
        return
    # A window in which nothing was measured breaks the line: what lies between its neighbours is not known.
    known = {periods.index(period): (one.estimate, one.low, one.high) for period, one in line}
    xs = range(min(known), max(known) + 1)
    values, low, high = zip(*(known.get(x, (float("nan"),) * 3) for x in xs), strict=True)
    if dashed:
        axes.plot(xs, values, color=colour, linestyle=(0, (4, 3)), linewidth=1.1, marker="x", markersize=4)
        return
    axes.plot(xs, values, color=colour, linewidth=1.7, marker="o", markersize=3.5, label=label)
    axes.fill_between(xs, low, high, color=colour, alpha=0.14, linewidth=0)
    axes.vlines(xs, low, high, color=colour, alpha=0.3, linewidth=1)  # a single window has no band


def _mark(axes: "Axes", periods: list[str], triggers: Sequence[tuple[datetime, Trigger]]) -> None:
    bottom = axes.get_ylim()[0]
    for _, trigger in triggers:
        if str(trigger.period) in periods:
            fired = trigger.outcome is TriggerOutcome.FIRED
            place = periods.index(str(trigger.period))
            face = "#b3261e" if fired else "white"
            axes.plot(place, bottom, marker="^", markersize=7, color="#b3261e", markerfacecolor=face, clip_on=False)


def _against_estimate(reports: Sequence[PerformanceReport]) -> Any:
    from boucle.training.figures import axes_of

    errors = [error for error in all_errors(reports) if error.metric is Metric.LOG_LOSS]
    if not errors:
        return None
    figure, axes = axes_of("estimated log loss (nats)", "realised", height=3.2)
    for error in errors:
        colour = COLOURS[(error.version - 1) % len(COLOURS)]
        axes.plot(
            [error.estimated.low, error.estimated.high], [error.realised] * 2, color=colour, alpha=0.35, linewidth=1
        )
        axes.plot(error.estimated.estimate, error.realised, marker="o", markersize=4, color=colour)
    values = [value for error in errors for value in (error.estimated.low, error.estimated.high, error.realised)]
    ends = min(values), max(values)
    axes.plot(ends, ends, color="#9aa5b1", linestyle="--", linewidth=1)
    return figure


def _coverage(periods: list[str], reports: Sequence[PerformanceReport]) -> Any:
    figure, axes = _over(periods, "predictions")
    kinds = (("known", "#1f5fbf"), ("late", "#74a4e8"), ("pending", "#e0a458"), ("void", "#c3ccd6"))
    bottom = [0] * len(reports)
    for name, colour in kinds:
        counts = [_count(report, name) for report in reports]
        if any(counts) or name == "known":
            axes.bar(range(len(periods)), counts, bottom=bottom, color=colour, width=0.7, label=name)
        bottom = [below + count for below, count in zip(bottom, counts, strict=True)]
    _legend(axes)
    return figure


def _count(report: PerformanceReport, kind: str) -> int:
    found = report.outcomes
    counts = {"known": found.known - found.late, "late": found.late, "pending": found.pending, "void": found.void}
    return counts[kind]


def _drift(periods: list[str], windows: Sequence[MonitoredWindow]) -> Any:
    """How much of its limit each drift gate uses, so that gates of different units share an axis."""
    lines: dict[str, list[tuple[int, float, str]]] = {}
    for place, window in enumerate(windows):
        for gate in window.drift.gates if window.drift else ():
            if (used := gate.used()) is not None:
                lines.setdefault(gate.name, []).append((place, min(used, _MOST_USED), gate.verdict.value))
    if not lines:
        return None
    figure, axes = _over(periods, "used of the limit")
    axes.axhline(1, color="#b3261e", linewidth=1, linestyle="--")
    for number, (name, line) in enumerate(sorted(lines.items())):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot([x for x, _, _ in line], [y for _, y, _ in line], color=colour, linewidth=1.5, label=name)
        for x, y, verdict in line:
            face = "white" if verdict == "inconclusive" else colour
            axes.plot(x, y, marker="o", markersize=4.5, color=colour, markerfacecolor=face)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _legend(axes)
    return figure


def _over(periods: list[str], title: str) -> tuple[Any, Any]:
    """Axes over the windows, a label for some of them."""
    from boucle.training.figures import axes_of

    figure, axes = axes_of("", title, width=_WIDTH, height=_HEIGHT, left=0.085)
    shown = range(0, len(periods), max(1, -(-len(periods) // TICKS)))
    axes.set_xticks(list(shown), [periods[place] for place in shown])
    axes.set_xlim(-0.5, len(periods) - 0.5)
    axes.set_position((0.085, 0.1, 0.885, 0.78))
    return figure, axes


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, ncols=6, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
