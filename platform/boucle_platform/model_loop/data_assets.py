"""From landing to online features: thin assets over the steps."""

import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from boucle.contracts.windows import previous_period
from boucle.errors import LandingError
from boucle.features.arrivals import landing_stamp
from boucle.features.raw_source import ACCEPTED
from boucle.policy.freshness import Freshness
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import dbt_project, presentation
from boucle_platform.model_loop.dbt_build import stream_build
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.loaded import STAMP, loaded_periods
from boucle_platform.model_loop.model_assets import ONE_PERIOD_A_RUN, asset_arguments
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import features, landing
from boucle_platform.resources.home import HomeResource

# A gate that does not pass is on record, with its number, before the step fails: then nothing is materialised.
AssetEvents = Iterator[dg.AssetCheckResult | dg.MaterializeResult]

LANDING_GATES = {ACCEPTED: "The file was not refused: few rows set aside, and about as many as in other periods."}
FEATURE_GATES = {
    features.CONTRACT: "Few rows break the data contract of the model; those that do are in quarantine.",
    features.NO_FUTURE: "No feature of an as_of comes from an event at or after it.",
}
ONLINE_GATES = {features.ONLINE_EQUALS_OFFLINE: "Looked up online, sampled rows are those of the feature snapshot."}


def data_assets(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """The model's assets from landing to online features, by period."""
    return [
        _landing(spec, partitions),
        _raw(spec, partitions),
        _dbt(spec, partitions),
        _validated_features(spec, partitions),
        _online_features(spec, partitions),
    ]


def _landing(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(**asset_arguments(spec, "landing", "csv"), partitions_def=partitions, backfill_policy=ONE_PERIOD_A_RUN)
    def landing_file(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Lands one period's file of the real history, as the source system would; the clock moves to its end."""
        fed = landing.feed(home.connect(), spec, context.partition_key)
        return dg.MaterializeResult(
            metadata={"dagster/row_count": fed["rows"], "file": dg.MetadataValue.path(fed["file"]), "now": fed["now"]}
        )

    return landing_file


def _raw(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, spec.raw, "duckdb", checks=LANDING_GATES),
        deps=[key_of(spec, "landing")],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
        pool="warehouse",
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(days=spec.freshness.fail_days), warn_window=timedelta(days=spec.freshness.warn_days)
        ),
    )
    def raw(context: dg.AssetExecutionContext, home: HomeResource) -> AssetEvents:
        """The landed file, typed, with knowledge time and source; other content landed later adds a version."""
        period = spec.period(context.partition_key)
        before = loaded_periods(context.instance, spec).stamps.get(previous_period(period, spec.cadence).key, "")
        try:
            loaded = landing.load(home.connect(), spec, period)
        except LandingError as error:
            yield presentation.check_result(landing.refused(spec, error))
            raise
        receipt = loaded.receipt
        yield dg.MaterializeResult(
            value=receipt,
            metadata={
                "dagster/row_count": receipt.rows,
                "quarantined": receipt.quarantined,
                "landing_version": receipt.version,
                "changed": receipt.changed,
                "available_at": receipt.available_at.isoformat(),
                "source_file": dg.MetadataValue.path(receipt.source_file),
                "content_digest": receipt.content_digest,
                STAMP: landing_stamp(before, receipt.file_digest),
                "reasons": presentation.table(loaded.reasons),
            },
            check_results=[presentation.check_result(loaded.gate)],
        )

    return raw


def data_is_fresh(spec: LoopSpec) -> dg.AssetChecksDefinition:
    """A check that can be run at any time: it looks at the landing zone and the home's clock."""

    @dg.asset_check(asset=key_of(spec, spec.raw), name="data_is_fresh")
    def data_is_fresh(home: HomeResource) -> dg.AssetCheckResult:
        """The source delivered in time; late is a warning, overdue an error, nothing landed never a pass."""
        reading = landing.freshness(home.connect(), spec)
        return dg.AssetCheckResult(
            passed=reading.freshness is Freshness.FRESH,
            severity=dg.AssetCheckSeverity.ERROR
            if reading.freshness is Freshness.OVERDUE
            else dg.AssetCheckSeverity.WARN,
            description=reading.sentence,
            metadata={
                "freshness": str(reading.freshness),
                "age_days": "none landed" if reading.age_days is None else reading.age_days,
                "warn_days": spec.freshness.warn_days,
                "fail_days": spec.freshness.fail_days,
            },
        )

    return data_is_fresh


def _dbt(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    from dagster_dbt import DagsterDbtTranslator, dbt_assets

    class Translator(DagsterDbtTranslator):
        """dbt models as assets of this model."""

        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            """`<model>/<dbt model>`; the source `raw.orders` is the asset `raw_orders`."""
            name = dbt_resource_props["name"]
            return key_of(spec, f"raw_{name}" if dbt_resource_props["resource_type"] == "source" else name)

        def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:  # noqa: ARG002
            """The model's group."""
            return spec.model

        def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:  # noqa: ARG002
            """The model's owners."""
            return spec.owners

    settings = Settings()

    @dbt_assets(
        manifest=dbt_project.manifest(settings),
        select=f"fqn:boucle_features.{spec.model}",
        name=f"{spec.model}_dbt",
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
        dagster_dbt_translator=Translator(),
        pool="warehouse",
    )
    def dbt(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Any]:
        """Point-in-time features and matured labels of one period; every dbt test is an asset check."""
        period = spec.period(context.partition_key)
        os.environ.update(
            BOUCLE_PERIOD_START=period.start.date().isoformat(),
            BOUCLE_PERIOD_END=period.end.date().isoformat(),
            BOUCLE_HORIZON_DAYS=str(spec.horizon_days),
        )
        with home.connect().warehouse.lock():
            yield from stream_build(context, target=dbt_project.target_path(settings))

    return dbt


def _validated_features(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "validated_features", "pandera", "parquet", checks=FEATURE_GATES),
        deps=[key_of(spec, spec.features)],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
        pool="warehouse",
    )
    def validated_features(context: dg.AssetExecutionContext, home: HomeResource) -> AssetEvents:
        """The period's features that keep the contract, as an immutable snapshot; the others in quarantine."""
        try:
            validated = features.validate(home.connect(), spec, spec.period(context.partition_key))
        except features.FeaturesRefusedError as error:
            yield from map(presentation.check_result, error.gates)
            raise
        snapshot = validated.snapshot
        yield dg.MaterializeResult(
            value=snapshot,
            metadata={
                "dagster/row_count": snapshot.rows,
                "quarantined": snapshot.quarantined,
                "content_digest": snapshot.content_digest,
                "as_of": snapshot.as_of.isoformat(),
                "file": dg.MetadataValue.path(snapshot.file),
                "profile": presentation.table(validated.profile),
            },
            check_results=[presentation.check_result(gate) for gate in validated.gates],
        )

    return validated_features


def _online_features(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "online_features", "numpy", checks=ONLINE_GATES),
        deps=[key_of(spec, "validated_features")],
        partitions_def=partitions,
        backfill_policy=ONE_PERIOD_A_RUN,
    )
    def online_features(context: dg.AssetExecutionContext, home: HomeResource) -> AssetEvents:
        """The newest feature rows for look-up by (entity, as_of), put in place in one step."""
        try:
            manifest, gate = features.publish_online(home.connect(), spec, spec.period(context.partition_key))
        except features.FeaturesRefusedError as error:
            yield from map(presentation.check_result, error.gates)
            raise
        yield dg.MaterializeResult(
            value=manifest,
            metadata={
                "dagster/row_count": manifest.rows,
                "entities": manifest.entities,
                "watermark": manifest.watermark.isoformat(),
                "content_digest": manifest.content_digest,
            },
            check_results=[presentation.check_result(gate)],
        )

    return online_features
