"""A home in which the real loop runs: built once, copied for each fault, looked at afterwards."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets_tests import warm
from boucle.contracts.data import TrainingManifest
from boucle.contracts.decision import DecisionKind
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelVersion, PeriodKey
from boucle.contracts.ledger import verify_chain
from boucle.contracts.online import OnlineManifest
from boucle.features.digest import content_digest
from boucle.operations import promotion, traffic
from boucle.operations.aliases import alias_differences
from boucle.policy.trials import TrafficPolicy
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.instance import Runner, RunOutcome
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.landing import feed
from boucle_platform.model_loop.steps.store import document_file, read_document, read_drift_report

SPEC = catalogue.spec_of("repurchase")
LAND, PERIOD, RETRAIN, CHECKS = "repurchase_land", "repurchase_period", "repurchase_retrain", "repurchase_checks"
JUDGED, MOVED = ("training_set", "candidate_model", "evaluation_report"), ("production_alias", "traffic_plan")
"""The two halves of the retraining job."""
LOADED, NEWEST = ("1997-01", "1997-02", "1997-03"), "1997-04"


@dataclass(frozen=True)
class LoopHome:
    """One home with its runner, in this process."""

    runner: Runner

    @property
    def home(self) -> Home:
        """Its ports."""
        return self.runner.home

    @property
    def path(self) -> Path:
        """Its directory."""
        return self.runner.settings.home_dir

    def land(self, period: str) -> None:
        """Land a month of the real history."""
        feed(self.home, SPEC, period)

    def run(self, job: str, *, partition: str | None = None, only: tuple[str, ...] = ()) -> RunOutcome:
        """Run a job, or some of its assets by name."""
        return self.runner.run(job, partition=partition, only=[(SPEC.model, name) for name in only])

    def done(self, job: str, *, partition: str | None = None, only: tuple[str, ...] = ()) -> None:
        """As `run`; it has to end well."""
        outcome = self.run(job, partition=partition, only=only)
        assert outcome.succeeded, outcome.error

    def kinds(self) -> list[tuple[str, ModelVersion | None]]:
        """Every decision: what, and which version is production after it."""
        return [(str(row.decision.kind), row.decision.to_version) for row in self.home.state.decisions(SPEC.name)]

    def raw(self, period: str = NEWEST) -> tuple[list[int], list[str]]:
        """Rows and digest of each version of one landed period."""
        rows = self.home.warehouse.query("select * from raw.orders where period = ? order by version", [period])
        columns = list(SPEC.source("orders").column_names)
        versions = [part for _, part in rows.groupby("version")]
        return [len(part) for part in versions], [content_digest(part[columns], columns) for part in versions]

    def period_result(self, period: str = NEWEST) -> dict[str, Any]:
        """What the period job leaves, without the moments at which it was made."""
        store, as_of = SnapshotStore(self.path), SPEC.period(period).end.replace(tzinfo=None)
        built = {
            name: self.home.warehouse.query(f"select * from {name} where {moment} = ?", [as_of])
            for name, moment in ((SPEC.features, "as_of"), (SPEC.labels, "known_at"))
        }
        snapshot = store.current(SPEC.name, PeriodKey(period))
        online = self.path / "online" / SPEC.model
        drift = read_drift_report(self.home, SPEC, period)
        return {
            "raw": self.raw(period),
            "features": content_digest(built[SPEC.features], ["user_id", "as_of"]),
            "labels": len(built[SPEC.labels]),
            "snapshot": snapshot and (snapshot.content_digest, snapshot.rows, len(store.read(snapshot))),
            "set aside": len(store.read_quarantine(SPEC.name, "orders", PeriodKey(period))),
            "online": (online / "CURRENT").read_text(),
            "online document": read_document(
                document_file(self.home, SPEC, "online_features", period), OnlineManifest
            ).digest(),
            "drift": (drift.predictions, drift.labelled, drift.gates, drift.mature_periods),
            "performance": [
                report.model_dump(exclude={"created_at"})
                for report in self.home.monitoring.statements(SPEC.name, period)
            ],
        }

    def retrain_result(self) -> dict[str, Any]:
        """What the retrain job leaves, without the moments at which it was made."""
        manifest = read_document(document_file(self.home, SPEC, "training_set"), TrainingManifest)
        evidence = read_document(document_file(self.home, SPEC, "evaluation_report"), Evidence)
        decisions, plan = self.home.state.decisions(SPEC.name), self.home.state.plan(SPEC.name)
        verify_chain(self.home.state.decisions())
        versions = self.home.registry.versions(SPEC.name)
        return {
            "training set": (manifest.content_digest, manifest.train_rows, manifest.holdout_rows),
            "versions": [v.version for v in versions],
            "bundle": [v.tags["bundle_digest"] for v in versions],
            "status": [v.tags["validation_status"] for v in versions],
            "parameters logged": [len(self.parameters(v.run_id)) > 0 for v in versions],
            "evidence": (evidence.version, evidence.candidate, evidence.verdict),
            "decisions": self.kinds(),
            "decided on": [row.decision.bundle_digest for row in decisions],
            "promotions": sum(row.decision.kind is DecisionKind.PROMOTE for row in decisions),
            "aliases": (alias_differences(self.home.state, self.home.registry, SPEC.name), self.alias()),
            "plan": plan and (plan.revision, [(arm.version, arm.weight, arm.bundle_digest) for arm in plan.arms]),
            "whole bundle": [self.home.bundles.fetch(v.tags["bundle_digest"]).name for v in versions],
        }

    def alias(self, name: str = "production") -> ModelVersion | None:
        """Where the registry's alias points."""
        return self.home.registry.alias(SPEC.name, name)

    def parameters(self, run_id: str) -> dict[str, str]:
        """What the MLflow run says was tried."""
        from mlflow import MlflowClient

        return dict(MlflowClient(tracking_uri=self.home.registry.tracking_uri).get_run(run_id).data.params)


def boucle(loop: LoopHome, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A verb on the home, in a process of its own."""
    return warm.boucle(*words, environment={**os.environ, "BOUCLE_HOME": str(loop.path), **environment})


def client(home: Home) -> Any:
    """MLflow's own client, to do what boucle would not."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=home.registry.tracking_uri)


def register(loop: LoopHome) -> int:
    """One more version."""
    return int(client(loop.home).create_model_version(SPEC.model, str(loop.path / "bundles")).version)


def promote_second(loop: LoopHome, *, policy: TrafficPolicy = SPEC.traffic) -> None:
    """Version 2, with the evidence and the bundle of version 1, is production and gets requests as the policy says."""
    second = read_document(document_file(loop.home, SPEC, "evaluation_report"), Evidence).model_copy(
        update={"version": 2, "production_version": 1}
    )
    assert register(loop) == 2
    actor = loop.home.actor("test", SPEC.name)
    promotion.promote(loop.home.state, loop.home.registry, evidence=second, policy=SPEC.promotion, actor=actor)
    traffic.start_traffic(loop.home.state, SPEC.name, policy=policy, actor=actor)


def check_named(loop: LoopHome, name: str) -> dg.AssetCheckEvaluation:
    """What the job of checks says now."""
    run_id = loop.run(CHECKS).run_id
    found = loop.runner.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [entry.dagster_event.asset_check_evaluation_data for entry in found if entry.dagster_event]
    return next(item for item in evaluations if item.check_name == name)


@contextmanager
def opened(path: Path, spec: LoopSpec | None = None) -> Iterator[LoopHome]:
    """Open a home in this process, perhaps with a model declared otherwise; the environment is put back afterwards."""
    before = dict(os.environ)
    runner = Runner(Settings(home=path), spec)
    try:
        yield LoopHome(runner)
    finally:
        if "home" in vars(runner) and "state" in vars(runner.home):
            runner.home.state.close()
        runner.instance.dispose()
        os.environ.clear()
        os.environ.update(before)


def copied(source: Path, target: Path) -> Path:
    """A home of its own, with everything that `source` holds."""
    shutil.copytree(source, target, symlinks=True)
    return target
