"""The registry's aliases follow the ledger: which ones differ, and putting them right."""

from boucle.contracts.ids import ModelName, ModelVersion, version_text
from boucle.operations.production import previous_version
from boucle.ports import ModelRegistry, StateStore

PRODUCTION = "production"
PREVIOUS = "previous"
CHALLENGER = "challenger"


def reconcile_aliases(state: StateStore, registry: ModelRegistry, model: ModelName) -> tuple[str, ...]:
    """Make the registry's aliases say what the ledger says; returns a sentence per alias that was wrong."""
    wanted = _wanted_aliases(state, model)
    mended = []
    for alias, version in wanted.items():
        found = registry.alias(model, alias)
        if found != version:
            registry.set_alias(model, alias, version)
            mended.append(
                f"alias '{alias}' of '{model}' was {version_text(found)}, is {version_text(version)} as the ledger says"
            )
    return tuple(mended)


def alias_differences(state: StateStore, registry: ModelRegistry, model: ModelName) -> tuple[str, ...]:
    """A sentence per alias that was moved or deleted behind the ledger's back; changes nothing."""
    wanted = _wanted_aliases(state, model)
    return tuple(
        f"alias '{alias}' points to {version_text(found)}, the ledger says {version_text(version)}"
        for alias, version in wanted.items()
        if (found := registry.alias(model, alias)) != version
    )


def _wanted_aliases(state: StateStore, model: ModelName) -> dict[str, ModelVersion | None]:
    plan = state.plan(model)
    rollout = plan.rollout if plan else None
    return {
        PRODUCTION: state.production(model),
        PREVIOUS: previous_version(state, model),
        CHALLENGER: rollout.challenger if rollout and rollout.is_open else None,
    }
