"""From served predictions to drift: thin assets over the steps."""

from typing import Any

import dagster as dg

from boucle_platform.model_loop import presentation
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.model_assets import ONE_PERIOD_A_RUN, asset_arguments
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import monitoring, skew
from boucle_platform.resources.home import HomeResource

NO_GAP = "Every replica's segments of the prediction log are there, without a gap in their numbers."
NO_SKEW = "Every prediction was made of the very features that training reads for its entity and moment."
COVERED = "Every prediction whose outcome had to become known in the period has it."
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
        # The log grows while the period lasts, so it is read when the period is over: when its file has landed.
        deps=[key_of(spec, spec.raw)],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
    )
    def prediction_log(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Predictions served in the period, once per prediction id, as an immutable snapshot."""
        ports, period = home.connect(), spec.period(context.partition_key)
        collected = monitoring.collect_predictions(ports, spec, period)
        skewed = skew.training_serving_skew(ports, spec, period)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": collected.rows,
                "by_version": presentation.table(collected.by_version),
                "file": dg.MetadataValue.path(collected.file),
                "skewed_features": presentation.table(skewed.by_feature),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="no_gap_in_segments",
                    passed=not collected.gaps,
                    description="; ".join(collected.gaps) or f"{collected.rows} records, no segment is missing",
                ),
                presentation.check_result(skewed.gate, blocking=False),
            ],
        )

    return prediction_log


def _ground_truth(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    key = key_of(spec, "ground_truth")

    @dg.asset(
        **asset_arguments(spec, "ground_truth", "duckdb")
        | {"check_specs": [dg.AssetCheckSpec("coverage_complete", asset=key, description=COVERED)]},
        deps=[key_of(spec, "prediction_log"), key_of(spec, spec.labels)],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
        pool="warehouse",
    )
    def ground_truth(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Predictions whose outcome became known in the period, with the outcome."""
        joined = monitoring.join_outcomes(home.connect(), spec, spec.period(context.partition_key))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": joined.rows,
                "positives": joined.positives,
                "label_coverage": joined.coverage,
                "file": dg.MetadataValue.path(joined.file),
            },
            check_results=[monitoring.coverage_check(joined)],
        )

    return ground_truth


def _live_performance(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "live_performance", "json"),
        deps=[key_of(spec, "ground_truth")],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
    )
    def live_performance(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Realised log loss and calibration of each version on the outcomes of the period."""
        ports = home.connect()
        performance = monitoring.live_performance(ports, spec, spec.period(context.partition_key))
        history = monitoring.performance_history(ports, spec)
        metadata = {"versions": presentation.table([item.model_dump(mode="json") for item in performance])}
        if history:
            metadata["log_loss_plot"] = presentation.line_plot(
                "Realised log loss",
                {"log loss (nats)": ([p for p, _ in history], [x for _, x in history])},
                ylabel="nats",
            )
        return dg.MaterializeResult(metadata=metadata)

    return live_performance


def _drift_report(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    key = key_of(spec, "drift_report")

    @dg.asset(
        **asset_arguments(spec, "drift_report", "evidently")
        | {"check_specs": [dg.AssetCheckSpec("drift_within_limits", asset=key, description=NO_DRIFT)]},
        deps=[key_of(spec, "prediction_log"), key_of(spec, "ground_truth"), key_of(spec, "validated_features")],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
    )
    def drift_report(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """What the production version saw and answered in the period, against its reference window."""
        report, html = monitoring.drift(home.connect(), spec, spec.period(context.partition_key))
        metadata: dict[str, Any] = {
            "gates": presentation.gate_table(report.gates),
            "predictions": report.predictions,
            "labelled": report.labelled,
            "production_version": report.production_version or "none",
        }
        if report.feature_psi:
            metadata["feature_psi_plot"] = presentation.bar_plot(
                "Drift of each feature", report.feature_psi, xlabel="PSI"
            )
        if html is not None:
            metadata["evidently_report"] = dg.MetadataValue.path(str(html))
        return dg.MaterializeResult(value=report, metadata=metadata, check_results=[monitoring.drift_check(report)])

    return drift_report
