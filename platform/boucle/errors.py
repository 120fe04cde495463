"""Every error that boucle raises on purpose: each says what is wrong, with which value, and what to do."""


class BoucleError(Exception):
    """The family: catch it at a boundary (HTTP, CLI, a Dagster run) and show its text without a traceback."""


class ConfigurationError(BoucleError):
    """A setting or a `defs.yaml` has a value that boucle cannot work with."""


class LandingError(BoucleError):
    """A landing file was refused whole; the period stays as it was."""


class DataContractError(BoucleError):
    """Too many rows of a period break the data contract; the last good snapshot stays."""


class NotEnoughDataError(BoucleError):
    """There is not enough mature data to do what was asked. No data is never a pass."""


class BundleError(BoucleError):
    """A release bundle is missing, torn or not what its digest says; it was not loaded."""


class ArchiveError(BoucleError):
    """An archive of a version is torn, changed, or of something that this environment cannot take; nothing changed."""


class ExportError(BoucleError):
    """An estimator cannot be exported exactly; the candidate was not registered."""


class EvaluationError(BoucleError):
    """Candidate, production and holdout do not make a fair comparison. Nothing was measured."""


class PromotionRefusedError(BoucleError):
    """The evidence for a promotion is missing, stale or not passed; production is unchanged."""


class ApprovalError(BoucleError):
    """A request, an approval or a refusal that the policy does not allow; nothing was recorded."""


class ConflictError(BoucleError):
    """Somebody else decided first: compare-and-set found another state than expected; nothing changed."""


class PinnedError(ConflictError):
    """A person keeps the version that is in production where it is; nothing changed."""


class LedgerError(BoucleError):
    """The chain of decisions is broken: a row was edited, deleted, reordered or cut off."""


class RegistryError(BoucleError):
    """The model registry does not hold what was asked for."""


class StateStoreError(BoucleError):
    """The state store cannot be read or has not been set up."""


class NotSetUpError(StateStoreError):
    """There is no state store yet, or it has the tables of an earlier release: setting it up mends that."""


class ServiceError(BoucleError):
    """A process that boucle started beside itself did not come up, or ended while it was needed."""


class FeatureLookupError(BoucleError):
    """No feature row answers for this entity and moment."""


class UnknownEntityError(FeatureLookupError):
    """The online snapshot knows nothing of this entity."""


class AsOfError(FeatureLookupError):
    """The entity is known, but not at this `as_of`: before its first row, too old, or beyond the watermark."""


class NoProductionModelError(BoucleError):
    """No version is in production yet, so nothing can answer."""
