"""The end of a demo as a person reads it."""

from boucle_cli.demo.summary import Move, Summary
from boucle_cli.output import OUT, show_table


def show_summary(summary: Summary) -> None:
    """Months, decisions, figures, what is missing."""
    show_table(
        "Served months (rate of positives, mean proba, log loss in nats; static: the first model, never retrained)",
        [
            {
                "month": month.period,
                "version": month.version,
                "served": month.predictions,
                "rate": month.positive_rate,
                "proba": month.mean_loop,
                "static": month.mean_static,
                "loss": month.logloss_loop,
                "static ": month.logloss_static,
            }
            for month in summary.months
        ],
        empty="No month was served.",
    )
    rows = [
        *_moves("promoted", summary.promotions),
        *_moves("refused", summary.refusals),
        *_moves("rolled back", summary.rollbacks),
    ]
    show_table("Decisions", sorted(rows, key=lambda row: str(row["period"])), empty="No decision was made.")
    show_table("Figures", _figures(summary), empty="")
    for name in summary.missing():
        OUT.print(f"[red]missing[/red]: {name}")
    for name in summary.not_asked():
        OUT.print(f"not asked of {summary.periods} of {summary.published_periods} periods: {name}")
    for failure, count in summary.failures.items():
        OUT.print(f"[red]failed request[/red] × {count}: {failure}")
    OUT.print(f"Timeline: {summary.report}", soft_wrap=True)
    OUT.print("Go on with `make dev`: runs, graph and plots in the Dagster UI, versions in MLflow.")


def _moves(what: str, moves: list[Move]) -> list[dict[str, object]]:
    return [
        {
            "period": m.period,
            "what": what,
            "version": m.version,
            "served (s)": m.seconds_until_served,
            "why": m.reason,
        }
        for m in moves
    ]


def _figures(summary: Summary) -> list[dict[str, object]]:
    quarantine = summary.quarantine
    return [
        {"figure": "log loss, loop / static (nats)", "value": _pair(summary.logloss_loop, summary.logloss_static)},
        {
            "figure": "calibration error, loop / static",
            "value": _pair(summary.calibration_error_loop, summary.calibration_error_static),
        },
        {
            "figure": "predictions served / requests failed",
            "value": f"{summary.predictions_served} / {summary.requests_failed}",
        },
        {"figure": "rows in quarantine", "value": f"{quarantine.rows} {quarantine.reasons}" if quarantine else None},
        {"figure": "file refused whole", "value": quarantine.refused_whole if quarantine else None},
        {"figure": "peak memory (MiB)", "value": summary.peak_memory_mib},
        {"figure": "seconds, by stage", "value": summary.stage_seconds},
        {"figure": "seconds, in all", "value": summary.seconds},
    ]


def _pair(first: float | None, second: float | None) -> str:
    return "–" if first is None or second is None else f"{first:.4f} / {second:.4f}"
