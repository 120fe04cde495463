"""What retraining is worth on the real history of `repurchase`: by hand, monthly, and on events, side by side.

    python benchmarks/levels.py [--requests 2000] [--also failed_windows=1,of_windows=1 …] [--json]

level 0   the first model, trained as soon as its labels are mature, and then nobody
level 1   a retraining each month, as the schedule asks: new labels and budget decide
level 3   a retraining where the drift report of the month asks for it, by the policy of `defs.yaml`

Each level has a home of its own and the same requests: each month as many customers, drawn by the model's seed, about
the moment at which the month is published. All of it is done by the steps of the loop: prediction log, outcomes, drift
report, trigger, training set, candidate, gates (with the serving trial), promotion. Left out are Dagster and HTTP: the
release bundle answers in this process. The features are built once, for all levels, and come to each month by month.

Log loss and calibration are those of the answers, against labels that became known after them. The gain of a level is
its log loss below that of level 0; `share_of_monthly_gain` is the gain of level 3 over that of level 1. A calibration
gap is mean score - rate, in probability: of all answers, and the mean of its absolute values by month. `--also` plays
level 3 again with another policy.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table

from boucle.contracts.bundle import MODEL_FILE
from boucle.contracts.prediction import PredictionFields
from boucle.contracts.trigger import TriggerCause, TriggerOutcome
from boucle.contracts.verdict import Verdict
from boucle.contracts.windows import Period
from boucle.operations import promotion
from boucle.operations.production import promoted_bundles
from boucle.policy.retraining import RetrainingPolicy, report_run_key
from boucle.stats.intervals import clustered_interval
from boucle.stats.metrics import calibration_error, log_loss, log_loss_rows
from boucle.training.fit import feature_matrix
from boucle.training.parity import onnx_model
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings, quiet_environment
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.instance import Runner
from boucle_platform.model_loop.automation import period_job_name
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.spec import Level, LoopSpec
from boucle_platform.model_loop.steps import evaluation, landing, monitoring, profiles, training
from boucle_platform.model_loop.steps.features import feature_names
from boucle_platform.model_loop.steps.ground_truth import join_outcomes, outcomes
from boucle_platform.model_loop.steps.prediction_log import collect_predictions
from boucle_platform.model_loop.steps.retraining import facts_about, judge
from boucle_platform.model_loop.steps.store import document_file, write_document

MODEL = "repurchase"
MONTHLY = "0 6 1 * *"
ERR = Console(stderr=True)


@dataclass
class World:
    """One level: its home, and what was asked and trained in it."""

    name: str
    home: Home
    spec: LoopSpec
    trained: list[str] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def month(self, period: Period, data: Home, requests: int) -> None:
        """A month is published: what was asked in it is judged, perhaps a model trained, and the next one asked."""
        self._arrive(period, data)
        collect_predictions(self.home, self.spec, [period])
        profiles.profile_answers(self.home, self.spec, period)
        join_outcomes(self.home, self.spec, [period])
        profiles.profile_outcomes(self.home, self.spec, period)
        report, _ = monitoring.drift(self.home, self.spec, period, draw=False)
        write_document(document_file(self.home, self.spec, "drift_report", period.key), report)
        facts = facts_about(self.home, self.spec, report, cause=self._cause())
        trigger = judge(self.home, self.spec, facts, run_key=report_run_key(report), actor=self.name)
        expect(trigger is not None, "each report is judged once")
        by_hand = self.spec.level is Level.MANUAL and self.trained
        if trigger is not None and trigger.outcome is TriggerOutcome.FIRED and not by_hand:
            self._train(period)
        if self.home.state.production(self.spec.name) is not None:
            self._serve(period, requests)

    def answers(self) -> pd.DataFrame:
        """All answers whose label is known by now."""
        rows = outcomes(self.home, self.spec)
        return rows.drop_duplicates("prediction_id").sort_values(["features_as_of", "entity_key"], ignore_index=True)

    def _cause(self) -> TriggerCause:
        return TriggerCause.DRIFT if self.spec.level is Level.EVENT else TriggerCause.SCHEDULE

    def _arrive(self, period: Period, data: Home) -> None:
        """The features of the month, as a link: snapshots never change."""
        features = Path("data", MODEL, "validated_features", period.key)
        link = self.home.settings.home_dir / features
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(data.settings.home_dir / features)
        self.home.clock(self.spec.name).set(period.end)

    def _train(self, period: Period) -> None:
        import mlflow

        home, spec, actor = self.home, self.spec, self.home.actor(f"benchmark:{self.name}", self.spec.name)
        manifest = training.assemble(home, spec)
        home.registry.ensure_experiment(spec.model)
        mlflow.set_tracking_uri(home.registry.tracking_uri)
        mlflow.set_experiment(spec.model)
        with mlflow.start_run():
            candidate = training.make_candidate(home, spec, manifest, period.key).candidate
        self.trained.append(period.key)
        self.cpu_seconds += candidate.fit_cpu_seconds or 0.0
        evidence = evaluation.evaluate(home, spec, manifest, candidate, period.key).evidence
        if evidence.verdict is Verdict.PASSED:
            promotion.promote(home.state, home.registry, evidence=evidence, policy=spec.promotion, actor=actor)
            self.promoted.append(period.key)
            return
        failed = [gate.figures() for gate in evidence.gates if gate.verdict is not Verdict.PASSED]
        promotion.reject(
            home.state, home.registry, subject=evidence, reason="; ".join(failed), policy="benchmark", actor=actor
        )

    def _serve(self, period: Period, requests: int) -> None:
        """The bundle in production answers for the same customers as in every other level."""
        name, production = self.spec.name, self.home.state.production(self.spec.name)
        digest = promoted_bundles(self.home.state, name)[production] if production else None
        expect(digest is not None, "a version is in production")
        if production is None or digest is None:
            return
        store = SnapshotStore(self.home.settings.home_dir)
        rows = store.read(next(m for m in store.in_force(name) if m.period == period.key))
        drawn = Random(f"{self.spec.training.seed}/{period.key}")
        keys = sorted(rows[self.spec.entity])
        chosen = set(drawn.sample(keys, min(requests, len(keys))))
        rows = rows[rows[self.spec.entity].isin(chosen)]
        features = feature_matrix(rows, feature_names(self.spec))
        scores = onnx_model((self.home.bundles.fetch(digest) / MODEL_FILE).read_bytes())(features)
        records: list[PredictionFields] = [
            {
                "schema_version": 1,
                "prediction_id": f"{period.key}/{key}",
                "request_id": f"{period.key}/{key}",
                "at": period.end,
                "model": name,
                "entity_key": key,
                "as_of": period.end,
                "features_as_of": period.end,
                "model_version": production,
                "bundle_digest": digest,
                "plan_revision": 1,
                "assigned_role": "production",
                "answering_role": "production",
                "propensity": 1.0,
                "proba": float(score),
                "features": row.tolist(),
                "latency_ms": 0.0,
                "replica": self.name,
                "fallback": None,
                "pinned": False,
            }
            for key, row, score in zip(rows[self.spec.entity], features, scores, strict=True)
        ]
        self.home.log.append(*records)


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2_000, help="customers asked about each month")
    parser.add_argument("--also", nargs="*", default=[], help="other policies of level 3: name=value,name=value")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("BOUCLE_", "DAGSTER_"))]:
        del os.environ[name]
    quiet_environment()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="boucle-levels-", ignore_cleanup_errors=True) as folder:
        data = prepare(Path(folder) / "data")
        worlds = [world_of(Path(folder), data, name, spec) for name, spec in specs(arguments.also).items()]
        spec = spec_of(MODEL)
        for key in track(spec.history.published_periods(), description="months", console=ERR):
            for world in worlds:
                world.month(spec.period(key), data, arguments.requests)
        figures = {world.name: figures_of(world, worlds[0]) for world in worlds}
        compared = against_monthly(figures)
        for world in worlds:
            world.home.state.close()
    report(figures, compared, seconds=time.monotonic() - started, as_json=arguments.json)


def specs(also: Sequence[str]) -> dict[str, LoopSpec]:
    """The levels to play, by name; the first is what the others are compared with."""
    shipped = spec_of(MODEL)
    played = {
        "level 0": shipped.model_copy(update={"level": Level.MANUAL}),
        "level 1": shipped.model_copy(update={"level": Level.SCHEDULED, "retrain_cron": MONTHLY}),
        "level 3": shipped.model_copy(update={"level": Level.EVENT}),
    }
    for words in also:
        changes = dict(part.split("=") for part in words.split(","))
        policy = RetrainingPolicy.model_validate({**shipped.retraining.model_dump(), **changes})
        played[f"level 3, {words}"] = shipped.model_copy(update={"level": Level.EVENT, "retraining": policy})
    return played


def prepare(home: Path) -> Home:
    """A home with the features and labels of the whole history."""
    runner, spec = Runner(Settings(home=home)), spec_of(MODEL)
    periods = spec.history.published_periods()
    for key in track(periods, description="landing", console=ERR):
        landing.feed(runner.home, spec, key)
    made = ("raw_orders", "stg_orders", "int_customer_days", spec.features, spec.labels, "validated_features")
    done = runner.run(
        period_job_name(spec), partition=periods[0], through=periods[-1], only=[(MODEL, name) for name in made]
    )
    expect(done.succeeded, f"features: {done.error}")
    runner.instance.dispose()
    return runner.home


def world_of(folder: Path, data: Home, name: str, spec: LoopSpec) -> World:
    """A home that reads the labels of the prepared one, and keeps all else to itself."""
    home = Home(Settings(home=folder / name.replace(" ", "_").replace(",", "_").replace("=", "_")))
    home.settings.home_dir.mkdir(parents=True)
    home.settings.warehouse_file.symlink_to(data.settings.warehouse_file)
    return World(name=name, home=home, spec=spec)


def figures_of(world: World, manual: World) -> dict[str, Any]:
    """How often a level trained, and how its answers did; its gain over level 0 with an interval by customer."""
    rows, before = world.answers(), manual.answers()
    expect(list(rows["prediction_id"]) == list(before["prediction_id"]), "every level was asked the same")
    labels, scores, by_hand = (frame.to_numpy(np.float64) for frame in (rows["label"], rows["proba"], before["proba"]))
    by_month = rows.groupby("features_as_of")[["proba", "label"]].mean()
    gain = clustered_interval(
        log_loss_rows(labels, by_hand) - log_loss_rows(labels, scores), rows["entity_key"].to_numpy(), level=0.95
    )
    return {
        "trainings": len(world.trained),
        "retrainings": len(world.trained[1:]),
        "promotions": len(world.promoted),
        "trained_in": world.trained,
        "fit_cpu_seconds": round(world.cpu_seconds, 1),
        "answers": len(rows),
        "log_loss": log_loss(labels, scores),
        "calibration_gap": calibration_error(labels, scores),
        "mean_monthly_gap": float((by_month["proba"] - by_month["label"]).abs().mean()),
        "gain_nats": gain.estimate,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }


def against_monthly(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Level 3 over level 1: share of the gain, and of the retrainings."""
    monthly, events = figures["level 1"], figures["level 3"]
    return {
        "share_of_monthly_gain": events["gain_nats"] / monthly["gain_nats"],
        "share_of_monthly_retrainings": events["retrainings"] / monthly["retrainings"],
    }


def report(
    figures: Mapping[str, Mapping[str, Any]], compared: Mapping[str, float], *, seconds: float, as_json: bool
) -> None:
    """One line a level, as a table or as JSON."""
    if as_json:
        print(json.dumps({**compared, "levels": figures, "seconds": round(seconds, 1)}, indent=1))
        return
    console = Console()
    table = Table(title="repurchase, 1997-01 to 1998-06, answers with known labels", title_justify="left")
    for column in ("", "retrainings", "promoted", "log loss", "gain, 1/1000 nats", "gap", "mean monthly gap"):
        table.add_column(column)
    for name, found in figures.items():
        low, high = 1000 * found["gain_low"], 1000 * found["gain_high"]
        gain = f"{1000 * found['gain_nats']:+.2f} [{low:+.2f}, {high:+.2f}]"
        numbers = (f"{found['log_loss']:.5f}", gain, f"{found['calibration_gap']:+.4f}")
        counts = (str(found["retrainings"]), str(found["promotions"]))
        table.add_row(name, *counts, *numbers, f"{found['mean_monthly_gap']:.4f}")
    console.print(table)
    console.print(
        f"Level 3 gets {compared['share_of_monthly_gain']:.0%} of the gain of level 1 with "
        f"{compared['share_of_monthly_retrainings']:.0%} of its retrainings ({seconds:.0f} s)."
    )


def expect(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Stop when the replay did not do what it is measured for."""
    if not condition:
        raise SystemExit(f"The benchmark is void: {what}.")


if __name__ == "__main__":
    main()
