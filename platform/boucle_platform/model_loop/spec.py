"""What a `defs.yaml` says of one model: typed, with defaults that are safe."""

import hashlib
from datetime import datetime
from enum import IntEnum
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.ids import ModelName
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.windows import Cadence, Period, period_asking, period_at, period_of, previous_period
from boucle.errors import ConfigurationError
from boucle.features.outcomes import OutcomeSettings
from boucle.features.raw_source import RawSource
from boucle.policy.limits import PromotionPolicy
from boucle.policy.monitoring import MonitoringPolicy
from boucle.policy.performance import PerformancePolicy
from boucle.policy.retraining import RetrainingPolicy
from boucle.policy.trials import TrafficPolicy

if TYPE_CHECKING:
    import pandas as pd


class History(Protocol):
    """A history that is shipped with a model and stands for its source systems."""

    def published_periods(self) -> tuple[str, ...]:
        """Keys of the periods that the source systems can publish, oldest first."""

    def export_period(self, source: str, period_key: str) -> "pd.DataFrame | None":
        """What one source writes for one period, as text; None where it delivers nothing."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureSettings(_Section):
    """When the feature rows of a period are refused whole."""

    max_rejected_share: float = Field(default=0.05, ge=0, le=1, description="ratio of rows set aside")


class OnlineSettings(_Section):
    """What serving may look up."""

    max_age_days: float = Field(default=31, gt=0, description="oldest feature row that may answer, counted from as_of")
    retention_days: float = Field(default=95, gt=0, description="rows kept, counted from the watermark")


class TrainingSettings(_Section):
    """What a training run needs."""

    seed: int = 7
    holdout_periods: int = Field(default=1, ge=1, description="newest mature as_of that no model learns from")
    min_rows: int = Field(default=2_000, ge=1, description="training rows")
    min_positives: int = Field(default=100, ge=1, description="positive training labels")
    max_run_minutes: float = Field(default=60, gt=0, description="wall time after which a retrain run is stopped")


class Level(IntEnum):
    """What starts a retraining. Each level has what those below it have; a person may always ask."""

    MANUAL = 0
    SCHEDULED = 1
    STATEFUL = 2
    EVENT = 3


class LoopSpec(_Section):
    """One model's loop. `module` is the package with its modules `schema`, `estimator` and perhaps `landing`."""

    model: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    module: str
    owners: list[str]
    entity: str
    target: str = Field(description="what proba is the probability of")
    cadence: Cadence = Cadence.MONTHLY
    first_period: str
    last_period: str = Field(default="", description="where the source's history ends; empty: it goes on")
    horizon_days: int = Field(ge=1, description="a label is known this long after its as_of")
    level: Level = Field(
        default=Level.EVENT, description="0: retraining by hand; 1: by cron; 2: also warm; 3: by drift, labels, alerts"
    )
    retrain_cron: str = Field(default="", description="when levels 1 and 2 retrain, in UTC; at level 3 beside events")
    periods_per_run: int = Field(default=1, ge=1, description="landed periods that one run loads, where several wait")
    check_periods: int = Field(
        default=4, ge=1, description="periods of the sample on which `boucle check` runs the loop"
    )
    contract: FeatureSettings = FeatureSettings()
    online: OnlineSettings = OnlineSettings()
    training: TrainingSettings = TrainingSettings()
    outcomes: OutcomeSettings = OutcomeSettings()
    promotion: PromotionPolicy = PromotionPolicy()
    monitoring: MonitoringPolicy = MonitoringPolicy()
    performance: PerformancePolicy = PerformancePolicy()
    retraining: RetrainingPolicy = RetrainingPolicy()
    service: ServiceObjectives = ServiceObjectives()
    traffic: TrafficPolicy = TrafficPolicy()

    @model_validator(mode="after")
    def _cron_fits_the_level(self) -> Self:
        if self.level is Level.MANUAL and self.retrain_cron:
            raise ValueError(f"retrain_cron is '{self.retrain_cron}', but level 0 retrains by hand only: name a level.")
        if self.level in {Level.SCHEDULED, Level.STATEFUL} and not self.retrain_cron:
            raise ValueError(f"level {self.level} retrains by the calendar: say when, as in retrain_cron: '0 6 1 * *'.")
        return self

    @property
    def is_warm(self) -> bool:
        """Whether a training set begins with the rows of the one before."""
        return self.level >= Level.STATEFUL

    @property
    def name(self) -> ModelName:
        """The model's name."""
        return ModelName(self.model)

    @cached_property
    def code_version(self) -> str:
        """Digest of the model's own modules and of its `defs.yaml`: what marks its assets as stale when it changes."""
        folder = Path(str(self.hook("estimator").__file__)).parent
        content = b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix in {".py", ".yaml"})
        return hashlib.sha256(content).hexdigest()[:12]

    @property
    def raws(self) -> tuple[str, ...]:
        """The raw assets, one per source."""
        return tuple(f"raw_{source}" for source in self.sources)

    @cached_property
    def sources(self) -> dict[str, RawSource]:
        """What the model reads, by name, in the order of its schema module.

        Raises:
            ConfigurationError: It declares none, or one of another model.
        """
        declared: tuple[RawSource, ...] = self.hook("schema").SOURCES
        strange = [source.name for source in declared if source.model != self.model]
        if strange or not declared:
            raise ConfigurationError(
                f"{self.module}.schema.SOURCES must hold at least one source, each with model='{self.model}'"
                f"{'; not so: ' + ', '.join(strange) if strange else ''}."
            )
        return {source.name: source for source in declared}

    @property
    def features(self) -> str:
        """The dbt model with the features."""
        return f"{self.model}_features"

    @property
    def labels(self) -> str:
        """The dbt model with the matured labels."""
        return f"{self.model}_labels"

    def period(self, key: str) -> Period:
        """The period of a partition key."""
        return period_of(key, self.cadence)

    def asking(self, as_of: datetime) -> Period:
        """The period whose features have this `as_of`."""
        return period_asking(as_of, self.cadence)

    def is_period(self, key: str) -> bool:
        """Whether this is the key of a period: anything may lie in the landing zone."""
        try:
            self.period(key)
        except ConfigurationError:
            return False
        return True

    def starts(self, period: Period) -> bool:
        """Whether history starts with this period."""
        return period == period_at(self.period(self.first_period).start, self.cadence)

    def judged_with(self, period: Period) -> list[Period]:
        """The periods of the window that is judged with this one, oldest first: days hold too little by themselves."""
        parts = [period]
        while len(parts) < self.monitoring.window_periods and not self.starts(parts[0]):
            parts.insert(0, previous_period(parts[0], self.cadence))
        return parts

    def source(self, name: str) -> RawSource:
        """The contract of one source. Raises ConfigurationError when the model has none of this name."""
        if name not in self.sources:
            raise ConfigurationError(f"'{self.model}' has no source '{name}'; it has {', '.join(self.sources)}.")
        return self.sources[name]

    @property
    def has_history(self) -> bool:
        """Whether a history is shipped with the model: a module `landing` that stands for its source systems."""
        return find_spec(f"{self.module}.landing") is not None

    @cached_property
    def history(self) -> History:
        """The stand-in for the source systems.

        Raises:
            ConfigurationError: The model has none: only its real sources land files.
        """
        if not self.has_history:
            raise ConfigurationError(
                f"No history is shipped with '{self.model}' (no module {self.module}.landing): its source systems land "
                f"their files in <home>/landing/{self.model}/<source>/<period>.csv."
            )
        return cast("History", import_module(f"{self.module}.landing"))

    def hook(self, name: Literal["schema", "estimator"]) -> ModuleType:
        """One of the model's own modules."""
        return import_module(f"{self.module}.{name}")
