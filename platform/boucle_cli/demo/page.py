"""One HTML page of a replay: the timeline as plots, the decisions as a table. It needs no network."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from boucle.contracts.decision import Decision, DecisionKind
from boucle_cli.demo.summary import Move, Summary
from boucle_platform.model_loop.spec import LoopSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOP, STATIC, TRUTH = "#0b7285", "#c92a2a", "#495057"


def write_page(file: Path, spec: LoopSpec, summary: Summary, decisions: Sequence[Decision]) -> Path:
    """Render the page; returns its file."""
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(TEMPLATE)
    plots = [_plot(summary, title, ylabel, draw) for title, ylabel, draw in PLOTS] if summary.months else []
    shown = [row for row in decisions if row.decision.kind is not DecisionKind.SERVED]
    file.write_text(template.render(spec=spec, summary=summary, plots=plots, decisions=shown), encoding="utf-8")
    return file


def _log_loss(axis: "Axes", summary: Summary) -> None:
    periods = [month.period for month in summary.months]
    axis.plot(
        periods,
        [m.logloss_static for m in summary.months],
        color=STATIC,
        marker="o",
        ms=4,
        label="first model, never retrained",
    )
    axis.plot(periods, [m.logloss_loop for m in summary.months], color=LOOP, marker="o", ms=4, label="the loop")


def _calibration(axis: "Axes", summary: Summary) -> None:
    periods = [month.period for month in summary.months]
    axis.plot(periods, [m.positive_rate for m in summary.months], color=TRUTH, lw=2.5, label="what happened")
    axis.plot(periods, [m.mean_static for m in summary.months], color=STATIC, marker="o", ms=4, label="first model")
    axis.plot(periods, [m.mean_loop for m in summary.months], color=LOOP, marker="o", ms=4, label="the loop")


def _versions(axis: "Axes", summary: Summary) -> None:
    moves = [*summary.promotions, *summary.refusals]
    # Days belong to the month that they end: one place a month on the axis.
    periods = sorted({month.period for month in summary.months} | {_month(move) for move in moves})
    place = {period: number for number, period in enumerate(periods)}
    served = [(place[month.period], month.version) for month in summary.months]
    axis.step(*zip(*served, strict=True), where="mid", color=LOOP, label="version that answered")
    for found, colour, marker, label in (
        (summary.promotions, LOOP, "^", "promoted when the month had ended"),
        (summary.refusals, STATIC, "x", "refused"),
    ):
        places = [place[_month(move)] for move in found]
        axis.scatter(places, [m.version for m in found], color=colour, marker=marker, s=60, zorder=3, label=label)
    axis.set_xticks(range(len(periods)), periods)


def _month(move: Move) -> str:
    return move.period[: len("1997-01")]


PLOTS: tuple[tuple[str, str, Callable[["Axes", Summary], None]], ...] = (
    ("Log loss of what was served", "nats (less is better)", _log_loss),
    ("Mean answer against what happened", "probability", _calibration),
    ("Versions", "version", _versions),
)


def _plot(summary: Summary, title: str, ylabel: str, draw: "Callable[[Axes, Summary], None]") -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.4), dpi=110, layout="constrained")
    axis = figure.subplots()
    draw(axis, summary)
    axis.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axis.set_ylabel(ylabel)
    axis.tick_params(axis="x", rotation=45)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    axis.legend(frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>boucle: the loop, replayed</title>
<style>
 body{font:16px/1.5 system-ui,sans-serif;color:#1f2933;background:#f7f9fa;margin:0}
 main{max-width:1080px;margin:0 auto;padding:2rem 1.2rem;overflow-wrap:anywhere}
 h1{margin:0 0 .2rem} .lead{color:#52606d;margin:0 0 1.5rem}
 .cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:.8rem;margin:1rem 0}
 .card{background:#fff;border:1px solid #e4e7eb;border-radius:8px;padding:.8rem 1rem}
 .card b{display:block;font-size:1.35rem} .card span{color:#52606d;font-size:.86rem}
 figure{background:#fff;border:1px solid #e4e7eb;border-radius:8px;margin:0 0 1rem;padding:.6rem} img{width:100%}
 .wide{overflow-x:auto} table{border-collapse:collapse;width:100%;background:#fff;font-size:.9rem}
 th,td{text-align:left;padding:.45rem .6rem;border-bottom:1px solid #e4e7eb;vertical-align:top}
 .promote{color:#087f5b}.reject{color:#c92a2a}.rollback{color:#e67700}.retrain{color:#52606d}
</style></head><body><main>
<h1>The loop, replayed</h1>
<p class="lead">{{ spec.model }}: {{ spec.description }}</p>
<p class="lead">{{ summary.periods }} {{ spec.cadence }} periods of real data; {{ summary.predictions_served }} predictions
 answered over HTTP, {{ summary.requests_failed }} requests failed; {{ summary.seconds }} s.</p>
<div class="cards">
 <div class="card"><b>{{ "%.4f"|format(summary.logloss_loop) if summary.logloss_loop is not none else "–" }}</b>
  <span>log loss of the loop, nats (never retrained: {{ "%.4f"|format(summary.logloss_static) if summary.logloss_static is not none else "–" }})</span></div>
 <div class="card"><b>{{ "%.4f"|format(summary.calibration_error_loop) if summary.calibration_error_loop is not none else "–" }}</b>
  <span>calibration error of the loop (never retrained: {{ "%.4f"|format(summary.calibration_error_static) if summary.calibration_error_static is not none else "–" }})</span></div>
 <div class="card"><b>{{ summary.promotions|length }} / {{ summary.refusals|length }}</b><span>candidates promoted / refused</span></div>
 <div class="card"><b>{{ summary.rollbacks[0].seconds_until_served if summary.rollbacks else "–" }} s</b><span>from rollback until every replica answered with the old version</span></div>
</div>
{% for plot in plots %}<figure><img alt="" src="data:image/png;base64,{{ plot }}"></figure>{% endfor %}
{% if summary.quarantine %}<h2>What did not get in</h2>
<p>{{ summary.quarantine.rows }} broken rows were set aside
 ({% for reason, count in summary.quarantine.reasons.items() %}{{ count }} × {{ reason }}{{ ", " if not loop.last }}{% endfor %}).
 A file was refused whole: {{ summary.quarantine.refused_whole }}</p>{% endif %}
<h2>Decisions</h2>
<div class="wide"><table><thead><tr><th>#</th><th>at</th><th>what</th><th>version</th><th>by</th><th>why</th></tr></thead><tbody>
{% for row in decisions %}<tr><td>{{ row.decision_id }}</td><td>{{ row.decision.at.strftime("%Y-%m-%d") }}</td>
 <td class="{{ row.decision.kind }}">{{ row.decision.kind }}</td>
 <td>{{ row.decision.subject_version or row.decision.to_version or "–" }}</td><td>{{ row.decision.actor }}</td>
 <td>{{ row.decision.reason }}</td></tr>{% endfor %}
</tbody></table></div>
</main></body></html>
"""
