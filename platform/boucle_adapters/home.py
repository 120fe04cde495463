"""Everything one home holds, opened when first used: the one place where ports meet adapters on the platform's side."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from boucle.contracts.ids import ModelName
from boucle.errors import NotSetUpError
from boucle.operations.actor import Actor
from boucle.policy.approval import PERSON
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.clock import HomeClock
from boucle_adapters.code_version import code_version
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.look_files import LookFiles
from boucle_adapters.mlflow_registry import MlflowRegistry
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.rank_log import RankSegments
from boucle_adapters.record_store import RecordStore
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

if TYPE_CHECKING:
    from boucle_adapters.duckdb_warehouse import DuckDBWarehouse


@dataclass(frozen=True)
class Home:
    """The ports of one `$BOUCLE_HOME`."""

    settings: Settings

    def clock(self, model: ModelName) -> HomeClock:
        """The time of one model."""
        return HomeClock(self.settings.clock_file(model))

    @cached_property
    def state(self) -> SqlStateStore:
        """Ledger, plans, replicas, triggers; set up when it is not there yet."""
        try:
            return SqlStateStore.open(self.settings.state_store_url)
        except NotSetUpError:
            return SqlStateStore.create(self.settings.state_store_url)

    @cached_property
    def registry(self) -> MlflowRegistry:
        """Versions and aliases."""
        return MlflowRegistry(self.settings.tracking_uri, self.settings.home_dir / "mlflow_artifacts")

    @cached_property
    def bundles(self) -> DirectoryBundleStore:
        """Release bundles."""
        return DirectoryBundleStore(self.settings.bundles_dir)

    @cached_property
    def warehouse(self) -> "DuckDBWarehouse":
        """The DuckDB file."""
        # It brings pandas, a second of start-up that verbs about decisions need not pay.
        from boucle_adapters.duckdb_warehouse import DuckDBWarehouse

        return DuckDBWarehouse(self.settings.warehouse_file)

    @cached_property
    def evidence(self) -> EvidenceFiles:
        """Evaluation reports."""
        return EvidenceFiles(self.settings.data_dir)

    @cached_property
    def looks(self) -> LookFiles:
        """The newest look at each model's rollout."""
        return LookFiles(self.settings.data_dir)

    @cached_property
    def monitoring(self) -> MonitoringFiles:
        """Reports of live performance and drift, and the page of both."""
        return MonitoringFiles(self.settings.data_dir)

    @cached_property
    def records(self) -> RecordStore:
        """Packages and source files by their digest."""
        return RecordStore(self.settings.data_dir / "records")

    @cached_property
    def log(self) -> SegmentLog:
        """The prediction log of all replicas."""
        return SegmentLog(self.settings.log_dir)

    @cached_property
    def feedback(self) -> FeedbackSegments:
        """What became of predictions, from all replicas."""
        return FeedbackSegments(self.settings.feedback_dir)

    @cached_property
    def shadows(self) -> ShadowSegments:
        """What shadows of all replicas would have answered."""
        return ShadowSegments(self.settings.shadow_dir)

    @cached_property
    def ranks(self) -> RankSegments:
        """Lists that all replicas ranked."""
        return RankSegments(self.settings.rank_dir)

    def actor(self, name: str, model: ModelName, *, run_id: str = "") -> Actor:
        """Who acts on a model now, from the code at hand."""
        code = code_version(self.settings.project_dir)
        return Actor(
            name=name,
            at=self.clock(model).now(),
            git_commit=code.label,
            dagster_run_id=run_id,
            commit_author=f"{PERSON}{code.author}" if code.author else "",
        )
