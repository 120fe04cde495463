"""From training set to traffic: thin assets over the steps."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import dagster as dg

from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.windows import Period
from boucle.errors import RegistryError
from boucle.operations import promotion, traffic
from boucle.operations.actor import Actor
from boucle.operations.aliases import alias_differences
from boucle.policy.candidate import CANDIDATE_MEANINGS, TRAINING_MEANINGS
from boucle.policy.evaluation import MEANINGS, blocking_gates, judged_gates
from boucle.policy.promotion import PromotionOutcome, refusal_of
from boucle_adapters.home import Home
from boucle_adapters.replicas import wait_until_served
from boucle_platform.model_loop import presentation
from boucle_platform.model_loop.evidence_check import doubts_about
from boucle_platform.model_loop.keys import ACTOR_TAG, key_of
from boucle_platform.model_loop.retrying import retried
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import evaluation, training
from boucle_platform.model_loop.steps.risk import risk_of
from boucle_platform.resources.home import HomeResource


def mlflow_key(spec: LoopSpec) -> str:
    """The resource key of the model's MLflow run."""
    return f"mlflow_{spec.model}"


def model_assets(spec: LoopSpec) -> list[dg.AssetsDefinition]:
    """The model's assets from training set to traffic plan."""
    return [_training_set(spec), _candidate_model(spec), _evaluation_report(spec), _production_alias(spec), _plan(spec)]


def model_checks(spec: LoopSpec) -> list[dg.AssetChecksDefinition]:
    """Checks that can be run on their own, at any time."""
    return [_alias_equals_ledger(spec), _traffic_equals_ledger(spec), _replicas_serve_the_plan(spec)]


def by_period(spec: LoopSpec, partitions: dg.PartitionsDefinition[str]) -> dict[str, Any]:
    """What assets by period share; a backfill runs so many at a time, each run after the one before."""
    return {
        "partitions_def": partitions,
        "backfill_policy": dg.BackfillPolicy.multi_run(max_partitions_per_run=spec.periods_per_run),
    }


def periods_of(context: dg.AssetExecutionContext, spec: LoopSpec) -> tuple[Period, ...]:
    """The periods of this run, oldest first."""
    return tuple(spec.period(key) for key in sorted(context.partition_keys))


def asset_arguments(
    spec: LoopSpec, name: str, *kinds: str, checks: Mapping[str, str] | None = None, loose: Collection[str] = ()
) -> dict[str, Any]:
    """What every asset of a model says of itself; `checks`, name to meaning, are blocking but for the `loose` ones."""
    key = key_of(spec, name)
    return {
        # Without it, Dagster takes a MaterializeResult for one that carries no document.
        "dagster_type": dg.Any,
        "key": key,
        "group_name": spec.model,
        "owners": spec.owners,
        "kinds": set(kinds),
        "code_version": spec.code_version,
        "check_specs": [
            dg.AssetCheckSpec(check, asset=key, description=meaning, blocking=check not in loose)
            for check, meaning in (checks or {}).items()
        ],
    }


def _training_set(spec: LoopSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "training_set", "parquet", checks=TRAINING_MEANINGS),
        deps=[key_of(spec, "validated_features"), key_of(spec, spec.labels)],
        pool="warehouse",
    )
    def training_set(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Rows with mature labels, split by time: every training label was known before the holdout begins."""
        with retried(context):
            manifest = training.assemble(home.connect(), spec)
        return dg.MaterializeResult(
            value=manifest,
            metadata={
                "dagster/row_count": manifest.train_rows + manifest.holdout_rows,
                "split": presentation.table(training.split_table(manifest)),
                "data_digest": manifest.content_digest,
                "watermark": manifest.watermark.isoformat(),
                "periods taken from the last training set": manifest.reused_periods,
                "file": dg.MetadataValue.path(manifest.file),
            },
            check_results=[presentation.check_result(gate) for gate in manifest.gates],
        )

    return training_set


def _candidate_model(spec: LoopSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "candidate_model", "scikitlearn", "mlflow", "onnx", checks=CANDIDATE_MEANINGS),
        ins={"training_set": dg.AssetIn(key_of(spec, "training_set"))},
        required_resource_keys={"home", mlflow_key(spec)},
    )
    def candidate_model(context: dg.AssetExecutionContext, training_set: TrainingManifest) -> dg.MaterializeResult:
        """A fitted estimator, exported as a release bundle and registered as a version."""
        tracking = getattr(context.resources, mlflow_key(spec))
        try:
            made = training.make_candidate(context.resources.home.connect(), spec, training_set, context.run.run_id)
        except BaseException:
            tracking.end_run("FAILED")
            raise
        candidate = made.candidate
        refusal = refusal_of(candidate.gates)
        tracking.end_run("FAILED" if refusal else "FINISHED")
        if refusal:
            ports = context.resources.home.connect()
            promotion.reject(
                ports.state,
                ports.registry,
                subject=candidate,
                reason=refusal,
                policy=spec.promotion.mode,
                actor=actor(context, ports, spec),
            )
        return dg.MaterializeResult(
            value=candidate,
            metadata={
                "version": candidate.version,
                "new_version": candidate.created,
                "bundle_digest": candidate.bundle_digest,
                "data_digest": candidate.data_digest,
                "mlflow_run_id": candidate.mlflow_run_id,
                "git_commit": candidate.git_commit,
                "fit_cpu_seconds": candidate.fit_cpu_seconds,
                "importance_plot": presentation.bar_plot(
                    "Permutation importance on the holdout", made.reference.importance, xlabel="share of the sum"
                ),
            },
            check_results=[presentation.check_result(gate) for gate in candidate.gates],
        )

    return candidate_model


def _evaluation_report(spec: LoopSpec) -> dg.AssetsDefinition:
    judged = judged_gates(spec.promotion)

    @dg.asset(
        **asset_arguments(
            spec,
            "evaluation_report",
            "html",
            checks={name: MEANINGS[name] for name in judged},
            loose=set(judged) - set(blocking_gates(spec.promotion)),
        ),
        ins={
            "training_set": dg.AssetIn(key_of(spec, "training_set")),
            "candidate_model": dg.AssetIn(key_of(spec, "candidate_model")),
        },
    )
    def evaluation_report(
        context: dg.AssetExecutionContext,
        home: HomeResource,
        training_set: TrainingManifest,
        candidate_model: Candidate,
    ) -> dg.MaterializeResult:
        """Candidate, production and baseline on the same mature holdout; a candidate that does not pass is rejected."""
        ports = home.connect()
        with retried(context):
            report = evaluation.evaluate(ports, spec, training_set, candidate_model, context.run.run_id)
        evidence = report.evidence
        risk, now = risk_of(ports, spec, evidence), ports.clock(spec.name).now()
        decided, _ = promotion.judge(ports.state, evidence, spec.promotion, at=now, risk=risk)
        if decided.outcome is PromotionOutcome.REJECT:
            promotion.reject(
                ports.state,
                ports.registry,
                subject=evidence,
                reason=decided.reason,
                policy=spec.promotion.asked(risk).name,
                actor=actor(context, ports, spec),
            )
        return dg.MaterializeResult(
            value=evidence,
            metadata={
                "version": evidence.version,
                "verdict": evidence.verdict.value,
                "decision": decided.reason,
                "evidence_digest": evidence.digest(),
                "gates": presentation.gate_table(evidence.gates),
                "metrics": presentation.table(evaluation.metric_table(evidence)),
                "calibration_plot": presentation.line_plot(
                    "Calibration on the holdout",
                    report.calibration,
                    xlabel="mean score",
                    ylabel="observed rate",
                    diagonal=True,
                ),
                "report": dg.MetadataValue.path(str(report.file)),
            },
            check_results=[
                presentation.check_result(gate, evidence_digest=evidence.digest())
                for gate in evidence.gates
                if gate.name in judged
            ],
        )

    return evaluation_report


def _production_alias(spec: LoopSpec) -> dg.AssetsDefinition:
    @dg.asset(
        **asset_arguments(spec, "production_alias", "mlflow"),
        ins={"evaluation_report": dg.AssetIn(key_of(spec, "evaluation_report"))},
        # Nothing moves, and nothing after it runs, while a person is waited for.
        output_required=False,
    )
    def production_alias(
        context: dg.AssetExecutionContext, home: HomeResource, evaluation_report: Evidence
    ) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
        """Moves the production alias, if every gate of exactly this evaluation report passed and people agree."""
        ports = home.connect()
        done = promotion.promote(
            ports.state,
            ports.registry,
            evidence=evaluation_report,
            policy=spec.promotion,
            actor=actor(context, ports, spec),
            risk=risk_of(ports, spec, evaluation_report),
            doubts=doubts_about(
                context.instance, key_of(spec, "evaluation_report"), blocking_gates(spec.promotion), evaluation_report
            ),
        )
        if isinstance(done, promotion.Waiting):
            version, verb = evaluation_report.version, "promote" if done.request is None else "approve"
            what_to_do = f"boucle {verb} {version} {spec.model} --reason …"
            context.log.warning(f"Version {version} waits for a person: {done.reason} {what_to_do}")
            yield dg.AssetObservation(
                asset_key=key_of(spec, "production_alias"),
                metadata={"waits": version, "reason": done.reason, "what to do": what_to_do},
            )
            return
        row = done.decision
        yield dg.MaterializeResult(
            metadata={
                "production": row.decision.to_version or 0,
                "previous": row.decision.from_version or "none",
                "decision": row.decision_id,
                "reason": row.decision.reason,
                "ledger_head": row.row_hash,
                "aliases put right": "; ".join(done.repaired) or "none was wrong",
            }
        )

    return production_alias


def _plan(spec: LoopSpec) -> dg.AssetsDefinition:
    @dg.asset(**asset_arguments(spec, "traffic_plan", "json"), deps=[key_of(spec, "production_alias")])
    def traffic_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        """Brings the production version into traffic: at once, or as a canary that is judged at each step."""
        ports = home.connect()
        who = actor(context, ports, spec)
        with retried(context):
            plan = traffic.start_traffic(
                ports.state, spec.name, policy=spec.traffic, actor=who, objectives=spec.service
            )
        followed = wait_until_served(
            ports.state,
            spec.name,
            plan.revision,
            timeout_seconds=10,
            replica_timeout_seconds=ports.settings.replica_timeout_seconds,
        )
        if followed.complete:
            traffic.note_served(ports.state, plan, seconds=followed.seconds, actor=actor(context, ports, spec))
        return dg.MaterializeResult(
            value=plan,
            metadata={
                "revision": plan.revision,
                "arms": presentation.table([arm.model_dump(mode="json") for arm in plan.arms]),
                "replicas": followed.sentence(),
            },
        )

    return traffic_plan


def _alias_equals_ledger(spec: LoopSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=key_of(spec, "production_alias"), name="alias_equals_ledger")
    def alias_equals_ledger(home: HomeResource) -> dg.AssetCheckResult:
        """The registry's aliases are where the ledger put them; moved or deleted ones are named."""
        ports = home.connect()
        try:
            wrong = alias_differences(ports.state, ports.registry, spec.name)
        except RegistryError as error:
            return dg.AssetCheckResult(passed=False, description=f"not known: {error}")
        advice = f" `boucle doctor --fix` puts them back ({spec.model})."
        return dg.AssetCheckResult(
            passed=not wrong,
            description=("; ".join(wrong) + "." + advice) if wrong else "aliases and ledger agree",
            metadata={"production": ports.state.production(spec.name) or "none"},
        )

    return alias_equals_ledger


def _traffic_equals_ledger(spec: LoopSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=key_of(spec, "traffic_plan"), name="traffic_equals_ledger")
    def traffic_equals_ledger(home: HomeResource) -> dg.AssetCheckResult:
        """The traffic plan gives the requests to the version that the ledger calls production."""
        ports = home.connect()
        wrong = traffic.traffic_difference(ports.state, spec.name)
        advice = f"{wrong}. Materialise traffic_plan, or `boucle doctor --fix` ({spec.model})."
        return dg.AssetCheckResult(
            passed=not wrong,
            description=advice if wrong else "traffic plan and ledger agree",
            metadata={"production": ports.state.production(spec.name) or "none"},
        )

    return traffic_equals_ledger


def _replicas_serve_the_plan(spec: LoopSpec) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=key_of(spec, "traffic_plan"), name="live_replicas_serve_the_plan")
    def live_replicas_serve_the_plan(home: HomeResource) -> dg.AssetCheckResult:
        """Every live replica serves the current revision; no live replica is a warning, never a pass."""
        ports = home.connect()
        plan = ports.state.plan(spec.name)
        followed = wait_until_served(
            ports.state,
            spec.name,
            plan.revision if plan else 1,
            timeout_seconds=2,
            replica_timeout_seconds=ports.settings.replica_timeout_seconds,
        )
        return dg.AssetCheckResult(
            passed=followed.complete,
            severity=dg.AssetCheckSeverity.ERROR if followed.behind else dg.AssetCheckSeverity.WARN,
            description=followed.sentence(),
            metadata={"revision": followed.revision, "served": len(followed.served), "behind": len(followed.behind)},
        )

    return live_replicas_serve_the_plan


def actor(context: dg.AssetExecutionContext, home: Home, spec: LoopSpec) -> Actor:
    """Who launched this run: the sensor's name, the person the launcher named, or Dagster."""
    tags = context.run.tags
    name = tags.get(ACTOR_TAG) or tags.get("user") or "dagster"
    sensor = tags.get("dagster/sensor_name")
    return home.actor(f"sensor:{sensor}" if sensor else name, spec.name, run_id=context.run.run_id)
