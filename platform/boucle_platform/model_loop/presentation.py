"""Values as a person meets them in the Dagster UI: check results, tables, plots."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from boucle.contracts.verdict import Bound, Gate, GateMode, Verdict
from boucle.stats.performance_history import Line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGN = {Bound.AT_MOST: "≤", Bound.AT_LEAST: "≥"}
INK, ACCENT, GREY = "#1f2933", "#0b7285", "#9aa5b1"


def check_result(
    gate: Gate, *, evidence_digest: str = "", key: dg.AssetKey | None = None, blocking: bool = True
) -> dg.AssetCheckResult:
    """A gate as an asset check: inconclusive does not pass (where nothing is blocked, it warns).

    A gate that only warns, or is switched off, warns and says so.
    """
    metadata: dict[str, Any] = {
        "verdict": str(gate.verdict),
        "limit": f"{gate.bound} {gate.limit:g}",
        "unit": gate.unit,
        "sample_size": gate.sample_size,
    }
    if gate.measured is not None:
        metadata["measured"] = gate.measured
    if gate.low is not None and gate.high is not None:
        metadata["interval"] = f"[{gate.low:.6g}, {gate.high:.6g}]"
    if evidence_digest:
        metadata["evidence_digest"] = evidence_digest
    if gate.mode is not GateMode.BLOCK:
        metadata["mode"] = str(gate.mode)
    return dg.AssetCheckResult(
        check_name=gate.name,
        asset_key=key,
        passed=gate.verdict is Verdict.PASSED,
        severity=dg.AssetCheckSeverity.ERROR
        if gate.mode is GateMode.BLOCK and (blocking or gate.verdict is Verdict.FAILED)
        else dg.AssetCheckSeverity.WARN,
        description=gate.sentence(),
        metadata=metadata,
    )


def table(rows: Sequence[Mapping[str, object]]) -> dg.MetadataValue:
    """Rows as a Markdown table; numbers with four significant digits."""
    if not rows:
        return dg.MetadataValue.md("*nothing*")
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def gate_table(gates: Sequence[Gate]) -> dg.MetadataValue:
    """Gates with measured value, limit, n and verdict; what else they say is in the description of their checks."""
    return table(
        [
            {
                "gate": gate.name,
                "verdict": _verdict(gate),
                "measured": gate.measured,
                # On one line: Dagster's column is narrow, and hides what does not fit.
                "limit": f"{SIGN[gate.bound]} {gate.limit:g} {gate.unit}".replace(" ", "\u00a0"),
                "n": gate.sample_size,
            }
            for gate in gates
        ]
    )


def _verdict(gate: Gate) -> str:
    """The verdict, and what it does not block."""
    if gate.mode is GateMode.OFF:
        return "switched off"
    return gate.verdict.value if gate.mode is GateMode.BLOCK else f"{gate.verdict.value}, only warns"


def line_plot(
    title: str,
    series: Mapping[str, tuple[Sequence[Any], Sequence[float]]],
    *,
    ylabel: str,
    xlabel: str = "",
    diagonal: bool = False,
) -> dg.MetadataValue:
    """Lines over a common axis, as an inline picture."""
    figure, axis = _figure(title, ylabel)
    for colour, (name, (xs, ys)) in zip((ACCENT, "#c92a2a", "#e67700", INK), series.items(), strict=False):
        axis.plot(xs, ys, marker="o", markersize=3, color=colour, label=name)
    if diagonal:
        top = max(max(list(xs) + list(ys)) for xs, ys in series.values())
        axis.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle="--", label="perfect")
    longest = max((xs for xs, _ in series.values()), key=len)
    if longest and isinstance(longest[0], str):
        # Keys of days are long: of many, some are named.
        axis.set_xticks(range(0, len(longest), max(1, len(longest) // 6)))
    axis.set_xlabel(xlabel)
    axis.legend(frameon=False)
    return _picture(figure, title)


def band_plot(title: str, lines: Mapping[str, Line], *, ylabel: str) -> dg.MetadataValue:
    """Lines over the same periods, each with its interval as a band, as an inline picture."""
    figure, axis = _figure(title, ylabel)
    periods = sorted({period for line in lines.values() for period, _ in line})
    place = {period: number for number, period in enumerate(periods)}
    for colour, (name, line) in zip((ACCENT, "#c2571a", "#e67700", INK), lines.items(), strict=False):
        xs = [place[period] for period, _ in line]
        axis.fill_between(xs, [one.low for _, one in line], [one.high for _, one in line], color=colour, alpha=0.15)
        axis.plot(xs, [one.estimate for _, one in line], marker="o", markersize=3, color=colour, label=name)
    shown = range(0, len(periods), max(1, len(periods) // 6))
    axis.set_xticks(list(shown), [periods[number] for number in shown])
    axis.legend(frameon=False)
    return _picture(figure, title)


def bar_plot(title: str, values: Mapping[str, float], *, xlabel: str) -> dg.MetadataValue:
    """One horizontal bar per name, the largest on top."""
    figure, axis = _figure(title, "")
    ordered = sorted(values.items(), key=lambda item: item[1])
    axis.barh([name for name, _ in ordered], [value for _, value in ordered], color=ACCENT)
    axis.set_xlabel(xlabel)
    return _picture(figure, title)


def _figure(title: str, ylabel: str) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=90)
    # Fixed margins: letting matplotlib find them draws every picture twice, a second of each retraining.
    axis = figure.add_axes((0.14, 0.15, 0.83, 0.74))
    axis.set_title(title, loc="left", fontsize=11, color=INK)
    axis.set_ylabel(ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _picture(figure: "Figure", title: str) -> dg.MetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
