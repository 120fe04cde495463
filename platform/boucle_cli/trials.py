"""The verbs about rollouts: try a version, look at what is under way, end it."""

from typing import Annotated, Any

import typer

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.look import ArmEstimate, RolloutLook
from boucle.contracts.shadow_report import ShadowFigures, ShadowReport
from boucle.contracts.traffic_plan import Strategy
from boucle.contracts.verdict import Gate, GateMode
from boucle.errors import BundleError, RegistryError
from boucle.operations.aliases import reconcile_aliases
from boucle_cli.context import Json, Model, Reason, acting_user, find_spec, open_home
from boucle_cli.decisions import Version
from boucle_cli.output import FAILED, OUT, errors_for_people, show_json, show_table


def try_version(
    version: Version,
    model: Model,
    *,
    strategy: Annotated[Strategy, typer.Option(help="shadow, ab, bandit or interleaving.")],
    reason: Reason,
    as_json: Json = False,
) -> None:
    """Try a version that is not promoted beside production; its win asks for a promotion, and no more."""
    from boucle.operations import traffic

    with errors_for_people():
        home, spec = open_home(), find_spec(model)
        registered = home.registry.version(spec.name, ModelVersion(version))
        bundle = registered.tags.get("bundle_digest")
        if not bundle:
            raise BundleError(f"Version {version} of '{model}' has no release bundle, so it cannot answer.")
        row, plan = traffic.try_version(
            home.state,
            spec.name,
            challenger=registered.version,
            bundle=bundle,
            strategy=strategy,
            policy=spec.traffic,
            actor=home.actor(acting_user(), spec.name),
            reason=reason,
        )
        aliases = reconcile_aliases(home.state, home.registry, spec.name)
    done = {"decision": row.decision_id, "revision": plan.revision, "said": row.decision.reason, "aliases": aliases}
    if as_json:
        show_json(done)
    else:
        OUT.print(f"Decision {row.decision_id}: {row.decision.reason}.", markup=False, highlight=False)
        OUT.print(f"`boucle rollout {model}` looks at it; the sensor {model}_rollout does at every tick.", markup=False)


def rollout(
    model: Model,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Also how the scores of both versions differ, by slice.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Look at the open rollout once: judge it, go a step further, hold or abort, as the sensor does at every tick."""
    from boucle_platform.model_loop.steps.rollout import look, shadow_report_of

    with errors_for_people():
        home, spec = open_home(), find_spec(model)
        found = look(home, spec, who=acting_user())
        last = found or home.looks.newest(ModelName(model))
        compared = shadow_report_of(home, spec) if shadow else None
    if as_json:
        documents = {"look": last, "shadow": compared}
        shown = {name: None if one is None else one.model_dump(mode="json") for name, one in documents.items()}
        show_json({"open": found is not None, **shown})
        return
    if found is None:
        OUT.print(f"No rollout of '{model}' is open.")
    if last is not None:
        show_look(last)
    if shadow:
        show_table("scores of both versions", _shadow_rows(compared), empty="Nothing was shadowed yet.")


def abort(model: Model, *, reason: Reason, as_json: Json = False) -> None:
    """End the open rollout: its challenger answers nobody any more. A canary's promotion is taken back."""
    from boucle_adapters import rolling_back

    with errors_for_people():
        home = open_home()
        done = rolling_back.abort(
            home.state,
            ModelName(model),
            reason=reason,
            actor=home.actor(acting_user(), ModelName(model)),
            replica_timeout_seconds=home.settings.replica_timeout_seconds,
        )
        try:
            aliases: Any = rolling_back.follow_in_registry(home.registry, home.state, done.decision)
        except RegistryError as error:
            aliases = (f"The registry did not follow ({error}); `boucle doctor --fix` puts its aliases right.",)
    found = {**done.as_json(), "aliases": list(aliases)}
    if as_json:
        show_json(found)
    else:
        OUT.print(f"Version {found['to']} of '{model}' answers everybody: {found['replicas']}.")
    if found["behind"]:
        raise typer.Exit(FAILED)


def show_look(look: RolloutLook) -> None:
    """Tables of arms and metrics, and what follows."""
    rollout = look.rollout
    place = f"{rollout.phase}, step {rollout.step + 1}" if rollout.phase == "canary" else str(rollout.phase)
    show_table(
        f"{look.model}: {look.strategy} of version {rollout.challenger} against {rollout.production} ({place})",
        [arm.model_dump(mode="json") for arm in look.arms],
        empty="",
    )
    rows = [
        {
            "metric": gate.name,
            "verdict": gate.verdict.value if gate.mode is GateMode.BLOCK else "not yet",
            "n": gate.sample_size,
            "asks for": look.needed.get(gate.name, ""),
            "measured": _measured(gate),
        }
        for gate in look.gates
    ]
    show_table("metrics", rows, empty="Nothing is measured yet.")
    if look.estimates:
        show_table("reward of each arm if it answered everybody", [_estimate(one) for one in look.estimates], empty="")
    OUT.print(look.said, markup=False, highlight=False, soft_wrap=True)


def _estimate(one: ArmEstimate) -> dict[str, object]:
    def shown(estimate: float, low: float | None, high: float | None) -> str:
        return f"{estimate:.4f}" + ("" if low is None or high is None else f" [{low:.4f}, {high:.4f}]")

    return {
        "version": one.version,
        "decisions": one.decisions,
        "IPS": shown(one.ips, one.ips_low, one.ips_high),
        "SNIPS": shown(one.snips, one.snips_low, one.snips_high),
    }


def _measured(gate: Gate) -> str:
    """`0.014 [0.002, 0.03], at most 0.05 ratio`."""
    found = "nothing" if gate.measured is None else f"{gate.measured:.3g}"
    interval = "" if gate.low is None or gate.high is None else f" [{gate.low:.3g}, {gate.high:.3g}]"
    return f"{found}{interval}, {gate.bound} {gate.limit:.3g} {gate.unit}"


def _shadow_rows(report: ShadowReport | None) -> list[dict[str, object]]:
    if report is None or not report.figures.requests:
        return []
    rows = [{"slice": "all", **_figures(report.figures)}]
    return rows + [
        {"slice": f"{one.feature} {_between(one.low, one.high)}", **_figures(one.figures)} for one in report.slices
    ]


def _between(low: float | None, high: float | None) -> str:
    return "missing" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _figures(figures: ShadowFigures) -> dict[str, object]:
    known = figures.shift is not None and figures.shift_low is not None and figures.shift_high is not None
    shift = f"{figures.shift:.3f} [{figures.shift_low:.3f}, {figures.shift_high:.3f}]" if known else "not known"
    return {
        "pairs": figures.pairs,
        "errors": figures.failed,
        "too late": figures.stalled,
        "disagree": "" if figures.disagreement is None else f"{figures.disagreement:.1%}",
        "shift, standard deviations": shift,
    }
