"""From landing to online features: thin assets over the steps."""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from boucle.contracts.verdict import worst
from boucle.contracts.windows import previous_period
from boucle.errors import LandingError
from boucle.features.arrivals import landing_stamp
from boucle.features.freshness import Freshness
from boucle.features.knowledge import BuildWindow
from boucle.features.raw_source import ACCEPTED
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import dbt_project, presentation
from boucle_platform.model_loop.dbt_build import stream_build
from boucle_platform.model_loop.keys import FRESH, key_of
from boucle_platform.model_loop.loaded import STAMP, loaded_periods
from boucle_platform.model_loop.model_assets import asset_arguments, by_period, periods_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import features, landing
from boucle_platform.model_loop.steps.quarantine import quarantine_counts
from boucle_platform.resources.home import HomeResource

# A gate that does not pass is on record, with its number, before the step fails: then nothing is materialised.
AssetEvents = Iterator[dg.AssetCheckResult | dg.MaterializeResult]

LANDING_GATES = {ACCEPTED: "The file was not refused: few rows set aside, and about as many as in other periods."}
FEATURE_GATES = {
    features.CONTRACT: "Few rows break the data contract of the model; those that do are in quarantine.",
    features.NO_FUTURE: "No feature of an as_of comes from an event after it, or from one that was known later.",
    features.MISSING: "No feature is missing in more rows than its contract allows.",
}
ONLINE_GATES = {features.ONLINE_EQUALS_OFFLINE: "Looked up online, sampled rows are those of the feature snapshot."}


def data_assets(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetsDefinition]:
    """The model's assets from landing to online features, by period."""
    return [
        *([_landing(spec, partitions)] if spec.has_history else []),
        *(_raw(spec, source, partitions) for source in spec.sources),
        _dbt(spec, partitions),
        _validated_features(spec, partitions),
        _quarantine(spec, partitions),
        _online_features(spec, partitions),
    ]


def _landing(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(**asset_arguments(spec, "landing", "csv"), **by_period(spec, partitions))
    def landing_file(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Lands a period's files of the real history, as the source systems would; the clock moves to its end."""
        for period in periods_of(context, spec):
            fed = landing.feed(home.connect(), spec, period.key)
            metadata = {"dagster/row_count": fed["rows"], "files": "\n".join(fed["files"]), "now": fed["now"]}
            context.add_asset_metadata(metadata, partition_key=period.key)
        return dg.MaterializeResult()

    return landing_file


def _raw(spec: LoopSpec, source: str, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    freshness = spec.sources[source].freshness

    @dg.asset(
        **asset_arguments(spec, f"raw_{source}", "duckdb", checks=LANDING_GATES),
        **by_period(spec, partitions),
        deps=[key_of(spec, "landing")] if spec.has_history else [],
        pool="warehouse",
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(days=freshness.fail_days), warn_window=timedelta(days=freshness.warn_days)
        ),
    )
    def raw(context: dg.AssetExecutionContext, home: HomeResource) -> AssetEvents:
        """The landed file, typed, with knowledge time and source; other content landed later adds a version."""
        ports, periods = home.connect(), periods_of(context, spec)
        stamp = loaded_periods(context.instance, spec).stamps.get(previous_period(periods[0], spec.cadence).key, "")
        loaded = {}
        for period in periods:
            try:
                loaded[period.key] = landing.load(ports, spec, source, period)
            except LandingError as error:
                yield presentation.check_result(landing.refused(spec, source, error))
                raise
            stamp = landing_stamp(stamp, landing.content(ports, spec, period, loaded[period.key].receipt))
            context.add_asset_metadata(_landed(loaded[period.key], stamp), partition_key=period.key)
        yield dg.MaterializeResult(
            value={key: found.receipt for key, found in loaded.items()},
            # A file that may be missing and is missing warns; one that was refused ended the step above.
            check_results=[
                presentation.check_result(
                    worst([found.gate for found in loaded.values()]), blocking=spec.sources[source].required
                )
            ],
        )

    return raw


def _landed(loaded: landing.Loaded, stamp: str) -> dict[str, Any]:
    receipt = loaded.receipt
    if receipt is None:
        return {"dagster/row_count": 0, "source_file": "none has landed", STAMP: stamp}
    return {
        "dagster/row_count": receipt.rows,
        "quarantined": receipt.quarantined,
        "landing_version": receipt.version,
        "changed": receipt.changed,
        "landed_at": receipt.landed_at.isoformat(),
        "source_file": dg.MetadataValue.path(receipt.source_file),
        "content_digest": receipt.content_digest,
        STAMP: stamp,
        "reasons": presentation.table(loaded.reasons),
    }


def freshness_checks(spec: LoopSpec) -> list[dg.AssetChecksDefinition]:
    """Checks that can be run at any time: they look at the landing zone and the model's clock."""
    return [_data_is_fresh(spec, source) for source in spec.sources]


def _data_is_fresh(spec: LoopSpec, source: str) -> dg.AssetChecksDefinition:
    policy = spec.sources[source].freshness

    @dg.asset_check(asset=key_of(spec, f"raw_{source}"), name=FRESH)
    def data_is_fresh(home: HomeResource) -> dg.AssetCheckResult:
        """The source delivered in time; late is a warning, overdue an error, nothing landed never a pass."""
        reading = landing.freshness(home.connect(), spec, source)
        return dg.AssetCheckResult(
            passed=reading.freshness is Freshness.FRESH,
            severity=dg.AssetCheckSeverity.ERROR
            if reading.freshness is Freshness.OVERDUE
            else dg.AssetCheckSeverity.WARN,
            description=reading.sentence,
            metadata={
                "freshness": str(reading.freshness),
                "age_days": "none landed" if reading.age_days is None else reading.age_days,
                "warn_days": policy.warn_days,
                "fail_days": policy.fail_days,
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

        def get_code_version(self, dbt_resource_props: Mapping[str, Any]) -> str:
            """The model's SQL and the macros."""
            return dbt_project.sql_version(settings, dbt_resource_props.get("raw_code", ""))

    settings = Settings()

    @dbt_assets(
        manifest=dbt_project.manifest(settings),
        select=f"fqn:boucle_features.{spec.model}",
        name=f"{spec.model}_dbt",
        **by_period(spec, partitions),
        dagster_dbt_translator=Translator(),
        pool="warehouse",
    )
    def dbt(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Any]:
        """Point-in-time features and matured labels; every dbt test is an asset check."""
        ports = home.connect()
        *earlier, last = landing.windows(ports, spec, periods_of(context, spec))

        def build(window: BuildWindow) -> Iterator[Any]:
            os.environ.update(dbt_project.window_environment(window, horizon_days=spec.horizon_days))
            parsed, target = dbt_project.parsed_project(settings), dbt_project.target_path(settings)
            return stream_build(context, parsed=parsed, target=target)

        with ports.warehouse.lock():
            for window in earlier:
                deque(build(window), maxlen=0)
            yield from build(last)

    return dbt


def _validated_features(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "validated_features", "pandera", "parquet", checks=FEATURE_GATES),
        **by_period(spec, partitions),
        deps=[key_of(spec, spec.features)],
        pool="warehouse",
    )
    def validated_features(context: dg.AssetExecutionContext, home: HomeResource) -> AssetEvents:
        """The period's features that keep the contract, as an immutable snapshot; the others in quarantine."""
        ports, found = home.connect(), {}
        for period in periods_of(context, spec):
            try:
                found[period.key] = features.validate(ports, spec, period)
            except features.FeaturesRefusedError as error:
                yield from map(presentation.check_result, error.gates)
                raise
            context.add_asset_metadata(_validated(found[period.key]), partition_key=period.key)
        yield dg.MaterializeResult(
            value={key: validated.snapshot for key, validated in found.items()},
            check_results=[
                presentation.check_result(worst(gates))
                for gates in zip(*(validated.gates for validated in found.values()), strict=True)
            ],
        )

    return validated_features


def _validated(validated: features.Validated) -> dict[str, Any]:
    snapshot, restated = validated.snapshot, validated.restated
    return {
        "dagster/row_count": snapshot.rows,
        "quarantined": snapshot.quarantined,
        "content_digest": snapshot.content_digest,
        "restated_digest": "nothing landed later" if restated is None else restated.content_digest,
        "as_of": snapshot.as_of.isoformat(),
        "file": dg.MetadataValue.path(snapshot.file),
        "profile": presentation.table(validated.profile),
    }


def _quarantine(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "quarantine", "parquet"),
        **by_period(spec, partitions),
        deps=[*(key_of(spec, raw) for raw in spec.raws), key_of(spec, "validated_features")],
    )
    def quarantine(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """The rows of the period that were set aside, raw ones and features, counted by the rule that they broke."""
        for period in periods_of(context, spec):
            counts = quarantine_counts(home.connect(), spec, period.key)
            metadata = {
                "dagster/row_count": sum(count["rows"] for count in counts),
                "by_rule": presentation.table(counts),
                "show": f"boucle quarantine show {period.key} {spec.model}",
            }
            context.add_asset_metadata(metadata, partition_key=period.key)
        return dg.MaterializeResult()

    return quarantine


def _online_features(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "online_features", "numpy", checks=ONLINE_GATES),
        **by_period(spec, partitions),
        deps=[key_of(spec, "validated_features")],
    )
    def online_features(context: dg.AssetExecutionContext, home: HomeResource) -> AssetEvents:
        """The newest feature rows for look-up by (entity, as_of), put in place in one step."""
        try:
            manifest, gate = features.publish_online(home.connect(), spec, periods_of(context, spec)[-1])
        except features.FeaturesRefusedError as error:
            yield from map(presentation.check_result, error.gates)
            raise
        yield dg.MaterializeResult(
            value=dict.fromkeys(context.partition_keys, manifest),
            metadata={
                "dagster/row_count": manifest.rows,
                "entities": manifest.entities,
                "watermark": manifest.watermark.isoformat(),
                "content_digest": manifest.content_digest,
            },
            check_results=[presentation.check_result(gate)],
        )

    return online_features
