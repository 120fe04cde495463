"""Whether this replica can answer, and what is missing when it cannot."""

from collections.abc import Sequence
from typing import Any, Protocol

from boucle.contracts.traffic_plan import Role
from boucle.errors import FeatureLookupError
from boucle_serving.known_tokens import KnownTokens
from boucle_serving.plan_watch import PlanWatch
from boucle_serving.predictor import Predictor, ServedModel

_NOTHING_PLANNED = (
    "No model is in production yet. Materialise `production_alias` and `traffic_plan`, or run `boucle retrain`; this "
    "replica picks the first plan up by itself."
)


class Watched(Protocol):
    """Something of a replica that may not be as it should be."""

    def problems(self) -> Sequence[str]:
        """What is wrong with it, a sentence each; it stops nothing from answering."""


class Readiness:
    """Reads what the watcher and the predictor hold; asks nobody else."""

    def __init__(
        self, predictor: Predictor, watch: PlanWatch, tokens: KnownTokens, others: Sequence[Watched], replica: str
    ) -> None:
        self._tokens = tokens
        self._others = (*others, tokens)
        self._predictor = predictor
        self._watch = watch
        self._replica = replica

    def document(self) -> dict[str, Any]:
        """Ready when at least one model answers those who may ask: a broken one takes no other out of rotation."""
        problems = [*self._watch.problems(), *(problem for one in self._others for problem in one.problems())]
        models = {name: self._model(served) for name, served in self._predictor.served.items()}
        ready = self._tokens.ready and any(model["snapshot_watermark"] is not None for model in models.values())
        missing = [] if ready else problems or [_NOTHING_PLANNED]
        if not ready and not self._watch.wanted and self._watch.plans_known:
            missing = [*problems, _NOTHING_PLANNED] if problems else missing
        return {
            "status": "ready" if ready else "not ready",
            "replica": self._replica,
            "missing": missing,
            "problems": problems,
            "models": models,
        }

    def for_strangers(self) -> dict[str, Any]:
        """As `document`, but how many things are missing or wrong, and nothing of what they are."""
        document = self.document()
        told = {name: _counted(document[name]) for name in ("missing", "problems")}
        return {"status": document["status"], "replica": self._replica, **told, "models": {}}

    def _model(self, served: ServedModel) -> dict[str, Any]:
        plan = served.plan
        wanted = self._watch.wanted.get(plan.model)
        standby = [arm.version for arm in plan.arms if arm.role is Role.STANDBY and arm.bundle_digest in served.bundles]
        return {
            "version": plan.production.version,
            "plan_revision": plan.revision,
            "wanted_revision": wanted.revision if wanted else None,
            "warm_standby_versions": standby,
            "snapshot_watermark": self._watermark(served),
        }

    def _watermark(self, served: ServedModel) -> str | None:
        online = self._watch.online.get(served.plan.model)
        try:
            return online.snapshot.manifest.watermark.isoformat() if online else None
        except FeatureLookupError:
            return None


def _counted(sentences: Sequence[str]) -> list[str]:
    return [f"{len(sentences)} sentence(s), for who may look: ask with a token of any role."] if sentences else []
