"""A model as benchmarks of serving need it: every form of it, two versions in a home, features of 100,000 entities."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from serving_apps.make_estimator import data, fitted  # type: ignore[import-not-found]

from boucle.contracts.bundle import MODEL_FILE, BundleContract, FeatureSpec, OutputSpec
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.traffic_plan import Arm, NewPlan, Role, Strategy, TrafficPlan
from boucle.training.bundle import bundle_digest, bundle_files
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.online_store import publish_snapshot
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

MODEL, ENTITIES, ASKED = ModelName("benchmark"), 100_000, 500
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
APPS = Path(__file__).parent / "serving_apps"


class World:
    """The model in every form, the features, and the answers that are right."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home", default_model=MODEL, log_sync_seconds=1.0)
        self.estimator = fitted()
        self.rows, _ = data()
        self.values = self.rows.to_numpy(dtype=np.float64)
        complete = np.flatnonzero(~np.isnan(self.values).any(axis=1))[
            :ASKED
        ]  # not every peer's JSON knows a missing value
        self.asked = self.rows.iloc[complete]
        self.expected = self.estimator.predict_proba(self.asked)[:, 1]
        self.entities = [f"{place:06d}" for place in complete]
        subprocess.run([sys.executable, str(APPS / "make_estimator.py"), str(folder)], check=True)
        self.bundles = DirectoryBundleStore(self.settings.bundles_dir)
        self.digests = [self._bundle("first"), self._bundle("second")]
        shutil.copy(self.bundles.fetch(self.digests[0]) / MODEL_FILE, folder / MODEL_FILE)
        keys = [f"{number:06d}" for number in range(ENTITIES)]
        publish_snapshot(
            self.settings.online_dir / MODEL,
            entity_keys=keys * 2,
            as_of=[MOMENT - timedelta(days=30)] * ENTITIES + [MOMENT] * ENTITIES,
            features=np.tile(self.values, (2 * ENTITIES // len(self.values), 1)),
            feature_names=list(self.rows.columns),
            watermark=MOMENT,
            source_digests=[],
        )
        self.state = SqlStateStore.create(self.settings.state_store_url)
        self.version = 0

    def promote(self, weight: int) -> None:
        """The other version becomes production with this weight; the one before has the rest."""
        before, self.version = self.version, self.version + 1
        arms = [(self.version, weight, Role.PRODUCTION)]
        if before:
            arms.append((before, 100 - weight, Role.STANDBY))
        self.state.record_with_plan(
            NewDecision(
                kind=DecisionKind.PROMOTE,
                model=MODEL,
                at=MOMENT,
                actor="benchmark",
                reason="benchmark",
                from_version=ModelVersion(before) if before else None,
                to_version=ModelVersion(self.version),
                bundle_digest=self.digests[self.version % 2],
            ),
            expected_production=ModelVersion(before) if before else None,
            plan=NewPlan(
                strategy=Strategy.DIRECT,
                arms=tuple(
                    Arm(version=ModelVersion(version), bundle_digest=self.digests[version % 2], weight=share, role=role)
                    for version, share, role in arms
                ),
            ),
        )

    def try_out(self, digest: Digest | None = None, *, weight: float, shadow_share: float = 0.0) -> TrafficPlan:
        """A bundle, by default the other one, is on trial beside production; the same entities are drawn each time."""
        production = ModelVersion(self.version)
        challenger = ModelVersion(self.version + 1)
        digest = digest or self.digests[challenger % 2]
        rollout = Rollout(
            model=MODEL,
            challenger=challenger,
            production=production,
            phase=Phase.CANARY if weight else Phase.SHADOW,
            weight=weight,
            began_at=MOMENT,
            phase_began_at=MOMENT,
        )
        plan = NewPlan(
            strategy=Strategy.CANARY if weight else Strategy.SHADOW,
            arms=(
                self._production(100 - weight),
                Arm(version=challenger, bundle_digest=digest, weight=weight, role=Role.CHALLENGER),
            ),
            rollout=rollout,
            shadow_share=shadow_share,
        )
        return self._record(DecisionKind.ROLLOUT, challenger, plan)

    def end_trial(self) -> TrafficPlan:
        """Production is the only arm."""
        plan = NewPlan(strategy=Strategy.DIRECT, arms=(self._production(100),))
        return self._record(DecisionKind.ABORT, ModelVersion(self.version + 1), plan)

    def environment(self) -> dict[str, str]:
        """Of a replica."""
        return {
            "BOUCLE_HOME": str(self.settings.home_dir),
            "BOUCLE_DEFAULT_MODEL": MODEL,
            "BOUCLE_REPLICA": "benchmark",
        }

    def _production(self, weight: float) -> Arm:
        return Arm(
            version=ModelVersion(self.version),
            bundle_digest=self.digests[self.version % 2],
            weight=weight,
            role=Role.PRODUCTION,
        )

    def _record(self, kind: DecisionKind, subject: ModelVersion, plan: NewPlan) -> TrafficPlan:
        """A decision that leaves production where it is, and its plan."""
        production = ModelVersion(self.version)
        decision = NewDecision(
            kind=kind,
            model=MODEL,
            at=MOMENT,
            actor="benchmark",
            reason="benchmark",
            from_version=production,
            to_version=production,
            subject_version=subject,
        )
        return self.state.record_with_plan(decision, expected_production=production, plan=plan)[1]

    def _bundle(self, text: str) -> Digest:
        """The same model twice: the descriptions differ, and so the digests."""
        contract = BundleContract(
            model=MODEL,
            entity="entity",
            features=tuple(FeatureSpec(name=name, dtype="float64", nullable=True) for name in self.rows.columns),
            output=OutputSpec(description=text),
            max_feature_age_days=45,
        )
        files = bundle_files(
            self.estimator, contract, rows=self.values[:1000], entities=[str(number) for number in range(1000)]
        )
        directory = self.folder / text
        directory.mkdir()
        for name, content in files.items():
            (directory / name).write_bytes(content)
        self.bundles.put(directory, MODEL)
        return bundle_digest(files)
