"""What the verbs do, as plain values; `main` shows them."""

from itertools import chain
from typing import Any

from boucle.contracts.evidence import Candidate
from boucle.contracts.feedback import FEEDBACK_STREAM
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.errors import ConfigurationError, ConflictError, LedgerError, RegistryError, StateStoreError
from boucle.operations import traffic
from boucle.operations.aliases import alias_differences, reconcile_aliases
from boucle.operations.production import previous_version
from boucle.policy.pins import pin_in_force, pinned_by
from boucle_adapters.feedback import prediction_ids, read_feedback
from boucle_adapters.home import Home
from boucle_adapters.rank_facts import ranked_ids
from boucle_adapters.segment_log import Segments
from boucle_cli.surroundings import finding, surroundings
from boucle_cli.triggers import last_trigger
from boucle_platform.instance import Runner, end_dead_runs
from boucle_platform.model_loop import dbt_project
from boucle_platform.model_loop.automation import refuse_second_retraining, retrain_job_name
from boucle_platform.model_loop.keys import ACTOR_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import document_file, read_document

ALIASES, TRAFFIC = "aliases equal ledger", "traffic equals ledger"
REPAIRED = (ALIASES, TRAFFIC)
"""The findings that `repair` puts right."""
_IDS_SHOWN = 5


def train_again(runner: "Runner", spec: LoopSpec, *, reason: str, who: str) -> dict[str, Any]:
    """Run the retrain job; what came of it, in a sentence.

    Raises:
        ConflictError: A run is training or promoting the model already.
    """
    end_dead_runs(runner.instance)
    refuse_second_retraining(runner.instance, spec)
    outcome = runner.run(retrain_job_name(spec), tags={ACTOR_TAG: who, "boucle/trigger": reason})
    production = runner.home.state.production(spec.name)
    return {
        "run_id": outcome.run_id,
        "succeeded": outcome.succeeded,
        "error": outcome.error,
        "said": _what_came_out(runner.home, spec, production) if outcome.succeeded else "",
        "production": production,
    }


def _what_came_out(home: Home, spec: LoopSpec, production: ModelVersion | None) -> str:
    made = read_document(document_file(home, spec, "candidate_model"), Candidate)
    if not made.created:
        return (
            f"version {made.version} came out again, from the same rows, code, packages and seed: no version was "
            "registered, and nothing new was decided"
        )
    if made.version == production:
        return f"version {made.version} passed its gates and is in production"
    return f"version {made.version} passed its gates and waits for a person: boucle explain {made.version} {spec.model}"


def model_status(home: Home, spec: LoopSpec) -> dict[str, Any]:
    """What is in production, in traffic, in the registry; what landed and drifted last."""
    from boucle_platform.model_loop.steps.landing import freshness

    fresh = {source: freshness(home, spec, source).sentence for source in spec.sources}

    plan = home.state.plan(spec.name)
    pin = pin_in_force(home.state.decisions(spec.name))
    live = home.state.replicas(max_age_seconds=home.settings.replica_timeout_seconds)
    return {
        "now": home.clock(spec.name).now().isoformat(timespec="seconds"),
        "production": home.state.production(spec.name),
        "previous": previous_version(home.state, spec.name),
        "pinned": pinned_by(pin) if pin else "no",
        "traffic": None
        if plan is None
        else f"revision {plan.revision}: "
        + ", ".join(f"v{arm.version} {arm.weight:g} % {arm.role}" for arm in plan.arms),
        "rollout": _rollout(home, plan),
        "replicas": ", ".join(f"{name} (revision {found.get(spec.name, 0)})" for name, found in live.items())
        or "none live",
        **_registry_status(home, spec.name),
        "data": "; ".join(f"{source}: {sentence}" for source, sentence in fresh.items()),
        "last trigger": last_trigger(home.state.triggers(spec.name), home.state.answers(spec.name)),
    }


def _rollout(home: Home, plan: TrafficPlan | None) -> str:
    """Where the open rollout is, and what the newest look at it said."""
    if plan is None or plan.rollout is None or not plan.rollout.is_open:
        return "none is open"
    look, rollout = home.looks.newest(plan.model), plan.rollout
    where = f"{plan.strategy} of version {rollout.challenger}, {rollout.phase} at {rollout.weight:g} %"
    seen = look is not None and look.rollout.rollout_id == rollout.rollout_id
    return f"{where}: {look.said}" if look and seen else f"{where}: nobody has looked yet (boucle rollout {plan.model})"


def _registry_status(home: Home, model: ModelName) -> dict[str, Any]:
    """What the registry says; a registry that is away is told, and hides nothing of the rest."""
    try:
        wrong = alias_differences(home.state, home.registry, model)
        return {"versions": len(home.registry.versions(model)), "aliases": "; ".join(wrong) or "as the ledger says"}
    except RegistryError as error:
        return {"versions": None, "aliases": f"not known: {error}"}


def diagnose(home: Home, spec: LoopSpec, *, only: str) -> list[dict[str, Any]]:
    """One finding per thing that can be wrong."""
    findings = [finding("dbt project parses", lambda: str(dbt_project.manifest(home.settings)))]
    if only == "dbt":
        return findings
    findings += surroundings(home.settings)
    findings.append(finding("ledger is whole", lambda: _verified(home, spec.name)))
    findings.append(finding(ALIASES, lambda: _aliases(home, spec)))
    findings.append(finding(TRAFFIC, lambda: _traffic(home, spec)))
    findings.append(finding("prediction log is whole", lambda: _log(home.log, spec.name, "prediction log")))
    findings.append(finding("rank log is whole", lambda: _log(home.ranks, spec.name, "rank log")))
    findings.append(finding("feedback log is whole", lambda: _feedback(home)))
    findings.append(finding("dagster.yaml is this release's", lambda: _dagster_yaml(home)))
    return findings


def repair(home: Home, spec: LoopSpec, *, who: str) -> tuple[str, ...]:
    """Put the aliases where the ledger says and its version into traffic; returns what was changed.

    Raises:
        LedgerError: The ledger itself is damaged, so nothing is put where it says.
    """
    _verified(home, spec.name)
    mended = []
    if wrong := traffic.traffic_difference(home.state, spec.name):
        plan = traffic.start_traffic(
            home.state, spec.name, policy=spec.traffic, actor=home.actor(who, spec.name), objectives=spec.service
        )
        mended.append(f"{wrong}: revision {plan.revision} gives them to version {plan.production.version} (by {who})")
    moved = reconcile_aliases(home.state, home.registry, spec.name)
    return (*mended, *(f"{sentence} (put back by {who})" for sentence in moved))


def _verified(home: Home, model: ModelName) -> str:
    """Walk the chain; then look whether the heads that the registry keeps are in it, because a cut tail is a chain."""
    home.state.verify()
    rows = home.state.decisions()
    plan = home.state.plan(model)
    if plan is not None and plan.decision_id > len(rows):
        raise LedgerError(
            f"The traffic plan of '{model}' follows decision {plan.decision_id}, but the ledger ends with {len(rows)}: "
            "rows at the end were deleted. Restore the state store from its backup. Nothing was changed."
        )
    known = {str(row.row_hash) for row in rows}
    for registered in home.registry.versions(model):
        head = registered.tags.get("ledger_head", "")
        if head and head not in known:
            raise LedgerError(
                f"The registry says of version {registered.version} of '{model}' that the ledger ended with "
                f"{head[:12]}… once; no row has that hash: rows at the end were deleted. Restore the state store from "
                "its backup. Nothing was changed."
            )
    return f"{len(rows)} decisions, chain unbroken"


def _traffic(home: Home, spec: LoopSpec) -> str:
    wrong = traffic.traffic_difference(home.state, spec.name)
    if wrong:
        raise ConflictError(f"{wrong}. `boucle doctor --fix` brings it into traffic.")
    return "as the ledger says"


def _aliases(home: Home, spec: LoopSpec) -> str:
    wrong = alias_differences(home.state, home.registry, spec.name)
    if wrong:
        raise RegistryError("; ".join(wrong) + ". `boucle doctor --fix` puts them back.")
    return "as the ledger says"


def _log(log: Segments[Any, Any], stream: str, name: str) -> str:
    if gaps := log.segment_gaps(stream):
        raise StateStoreError(
            f"Segments of the {name} are missing: {', '.join(gaps)}. Their predictions get no outcome; restore "
            f"{log.root} from its backup."
        )
    if changed := log.changed_segments(stream):
        raise StateStoreError(
            f"Segments of the {name} were changed after they were closed: {', '.join(changed)}. Restore them "
            f"from the backup of {log.root}."
        )
    torn = log.torn_lines(stream)
    return f"no segment is missing, {torn} torn lines" if torn else "no segment is missing"


def _feedback(home: Home) -> str:
    """Feedback about an id that no log knows is kept, and no fault of the log: it is only told here."""
    whole = _log(home.feedback, FEEDBACK_STREAM, "feedback log")
    known = chain(prediction_ids(home.log, home.log.streams()), ranked_ids(home.ranks, home.ranks.streams()))
    unknown = sorted(read_feedback(home.feedback, known=known).unknown)
    if not unknown:
        return whole
    shown = ", ".join(unknown[:_IDS_SHOWN]) + (", …" if len(unknown) > _IDS_SHOWN else "")
    return f"{whole}; {len(unknown)} prediction id(s) of the feedback are in no prediction or rank log: {shown}"


def _dagster_yaml(home: Home) -> str:
    """A file that differs may be meant so, but without the pool and the queue's limits the loop is not safe."""
    from boucle_platform.instance import dagster_yaml

    file = home.settings.dagster_home / "dagster.yaml"
    if not file.exists():
        return "not written yet"
    if file.read_bytes() != dagster_yaml(home.settings).encode():
        raise ConfigurationError(
            f"{file} is not what this release writes: an earlier one or a person wrote it, and it is kept. Move it "
            "away, and the next start writes a new one; or carry your changes over."
        )
    return "as written"
