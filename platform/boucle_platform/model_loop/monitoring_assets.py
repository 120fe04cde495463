"""From served predictions to drift: thin assets over the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from boucle.contracts.monitoring import ColumnDrift, DriftReport, DriftStatistic, StatisticName
from boucle.contracts.outcomes import WindowOutcomes
from boucle.contracts.verdict import Gate, worst
from boucle_platform.model_loop import presentation
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.model_assets import asset_arguments, by_period, periods_of
from boucle_platform.model_loop.performance_metadata import history_metadata, performance_metadata
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import ground_truth as truth
from boucle_platform.model_loop.steps import monitoring, performance, profiles, skew
from boucle_platform.model_loop.steps.monitoring_page import write_monitoring_page
from boucle_platform.model_loop.steps.prediction_log import collect_predictions
from boucle_platform.resources.home import HomeResource

NO_GAP = "Every replica's segments of the prediction log are there, and those that were closed are as they were then."
NO_SKEW = "Every prediction was made of the very features that training reads for its entity and moment."
COVERED = "Every prediction whose outcome had to become known in the period has it."
TOLERATED = "Log loss and calibration of production on mature labels are within the limits of `monitoring`."
NO_DRIFT = "Calibration, scores, features and log loss of the period are as on the holdout of the production version."


def monitoring_assets(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """The model's assets from prediction log to drift report, by period."""
    return [
        _prediction_log(spec, partitions),
        _ground_truth(spec, partitions),
        _live_performance(spec, partitions),
        _drift_report(spec, partitions),
    ]


def _prediction_log(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    key = key_of(spec, "prediction_log")

    @dg.asset(
        **asset_arguments(spec, "prediction_log", "parquet")
        | {
            "check_specs": [
                dg.AssetCheckSpec("no_gap_in_segments", asset=key, description=NO_GAP),
                dg.AssetCheckSpec(skew.NAME, asset=key, description=NO_SKEW),
            ]
        },
        **by_period(spec, partitions),
        # The log grows while the period lasts, so it is read when the period is over: when its file has landed.
        deps=[key_of(spec, raw) for raw in spec.raws],
    )
    def prediction_log(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Predictions served in the period, once per prediction id, as an immutable snapshot."""
        ports, periods = home.connect(), periods_of(context, spec)
        collected = collect_predictions(ports, spec, periods)
        for period in periods:
            profiles.profile_answers(ports, spec, period)
        skewed = {period.key: skew.training_serving_skew(ports, spec, period) for period in periods}
        for key, found in collected.items():
            metadata = {
                "dagster/row_count": found.rows,
                "by_version": presentation.table(found.by_version),
                "file": dg.MetadataValue.path(found.file),
                "skewed_features": presentation.table(skewed[key].by_feature),
            }
            context.add_asset_metadata(metadata, partition_key=key)
        last = collected[periods[-1].key]
        return dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    check_name="no_gap_in_segments",
                    passed=not last.gaps,
                    description="; ".join(last.gaps) or f"{last.rows} records, no segment is missing or changed",
                ),
                presentation.check_result(worst([found.gate for found in skewed.values()]), blocking=False),
            ],
        )

    return prediction_log


def _ground_truth(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    key = key_of(spec, "ground_truth")

    @dg.asset(
        **asset_arguments(spec, "ground_truth", "duckdb")
        | {"check_specs": [dg.AssetCheckSpec("coverage_complete", asset=key, description=COVERED)]},
        **by_period(spec, partitions),
        deps=[key_of(spec, "prediction_log"), key_of(spec, spec.labels)],
        pool="warehouse",
    )
    def ground_truth(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Predictions whose outcome was due in the period, with the outcome; earlier periods of which more is known."""
        ports, periods, checks = home.connect(), periods_of(context, spec), []
        made = truth.join_outcomes(ports, spec, periods)
        for period in periods:
            joined = made.joined[period.key]
            context.add_asset_metadata(_outcome_metadata(joined), partition_key=period.key)
            checks.append(truth.coverage_check(joined))
        for window in (*periods, *(spec.period(found.period) for found in made.restated)):
            profiles.profile_outcomes(ports, spec, window)
        failed = [check for check in checks if not check.passed]
        restated = [_restatement(found) for found in made.restated]
        return dg.MaterializeResult(
            check_results=[(failed or checks)[-1]], metadata={"restated": presentation.table(restated)}
        )

    return ground_truth


def _live_performance(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    key = key_of(spec, "live_performance")

    @dg.asset(
        **asset_arguments(spec, "live_performance", "json")
        | {"check_specs": [dg.AssetCheckSpec(performance.CHECK, asset=key, description=TOLERATED)]},
        **by_period(spec, partitions),
        deps=[key_of(spec, "ground_truth"), key_of(spec, "prediction_log")],
    )
    def live_performance(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Realised performance of each version, arm and slice; estimated where labels are not mature (CBPE)."""
        ports, periods = home.connect(), periods_of(context, spec)
        made = performance.live_performance(ports, spec, periods)
        for period in periods:
            context.add_asset_metadata(performance_metadata(made.reports[period.key]), partition_key=period.key)
        history = ports.monitoring.newest(spec.name)
        return dg.MaterializeResult(
            metadata=history_metadata(history) | {"restated": ", ".join(one.period for one in made.restated) or "none"},
            check_results=[performance.tolerance_check([made.reports[period.key] for period in periods])],
        )

    return live_performance


def _drift_report(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    key = key_of(spec, "drift_report")

    @dg.asset(
        **asset_arguments(spec, "drift_report", "evidently")
        | {"check_specs": [dg.AssetCheckSpec("drift_within_limits", asset=key, description=NO_DRIFT)]},
        **by_period(spec, partitions),
        deps=[key_of(spec, "prediction_log"), key_of(spec, "ground_truth"), key_of(spec, "validated_features")],
    )
    def drift_report(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """What the production version saw and answered in the period, against its reference window."""
        ports, periods, reports = home.connect(), periods_of(context, spec), {}
        for period in periods:
            # Drawing takes a second: of several periods the last one gets a page, for it is the one that is looked at.
            report, page = monitoring.drift(ports, spec, period, draw=period is periods[-1])
            context.add_asset_metadata(_drift_metadata(report, page), partition_key=period.key)
            reports[period.key] = report
        history = monitoring.drift_history(ports, spec, list(reports.values()))
        page_of_all = dg.MetadataValue.path(str(write_monitoring_page(ports, spec, reports)))
        context.add_asset_metadata(
            {**_history_plots(history), "monitoring_page": page_of_all}, partition_key=periods[-1].key
        )
        return dg.MaterializeResult(value=reports, check_results=[monitoring.drift_check(list(reports.values()))])

    return drift_report


def _outcome_metadata(joined: truth.Joined) -> dict[str, Any]:
    found = joined.outcomes
    counts = found.model_dump(exclude={"schema_version", "model", "period", "known_at", "by_source", "unknown_ids"})
    return {
        "dagster/row_count": found.known,
        "positives": found.positives,
        "label_coverage": found.coverage,
        "without_outcome": found.void,
        "outcomes": presentation.table([{"what": name, "predictions": value} for name, value in counts.items()]),
        "by_source": presentation.table([{"source": name, "known": n} for name, n in found.by_source.items()]),
        "known_at": found.known_at.isoformat(),
        "unknown_ids": ", ".join(found.unknown_ids) or "none",
        "file": dg.MetadataValue.path(joined.file),
    }


def _restatement(found: WindowOutcomes) -> dict[str, object]:
    """One line of what is known of an earlier window now, and was not when it was reported."""
    return {
        "period": found.period,
        "restatement": found.restatement,
        "known_at": f"{found.known_at:%Y-%m-%d}",
        "known": found.known,
        "late": found.late,
        "corrected": found.corrected,
        "pending": found.pending,
    }


def _drift_metadata(report: DriftReport, page: Path | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "gates": presentation.gate_table(report.gates),
        "predictions": report.predictions,
        "labelled": report.labelled,
        "production_version": report.production_version or "none",
    }
    if page is not None:
        metadata["evidently_report"] = dg.MetadataValue.path(str(page))
    if report.columns:
        metadata["columns"] = presentation.table(_column_rows(report.columns))
    if page is not None and report.feature_psi:
        plot = presentation.bar_plot("Drift of each feature", report.feature_psi, xlabel="PSI")
        metadata["feature_psi_plot"] = plot
    return metadata


def _column_rows(columns: Sequence[ColumnDrift]) -> list[dict[str, object]]:
    """A row a column: its importance, each statistic (with the limit that it exceeds) and the verdict."""
    return [
        {
            "column": column.column,
            "importance": column.importance,
            **{name.value: _marked(column.statistic(name)) for name in StatisticName},
            "drift": column.verdict.value,
        }
        for column in columns
    ]


def _marked(statistic: DriftStatistic | None) -> str | None:
    if statistic is None:
        return None
    return f"{statistic.value:.3g} > {statistic.limit:.2g}" if statistic.is_beyond else f"{statistic.value:.3g}"


def _history_plots(history: Mapping[str, Mapping[str, Gate]]) -> dict[str, Any]:
    """Measured value and limit over time of each gate that measured something."""
    titles = {"score_drift": "Drift of the scores", "feature_drift": "Drift of the features, weighted by importance"}
    return {
        f"{name}_plot": presentation.line_plot(
            titles[name],
            {
                "PSI beyond chance": (list(gates), [gate.measured or 0.0 for gate in gates.values()]),
                "limit": (list(gates), [gate.limit for gate in gates.values()]),
            },
            ylabel="PSI",
        )
        for name, gates in history.items()
        if gates
    }
