"""The verbs about decisions: ask, approve, refuse, explain, and the ledger that holds them."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from boucle.contracts.decision import MOVES, Decision, DecisionKind
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.errors import ConfigurationError, NotEnoughDataError
from boucle.ports import StateStore
from boucle_cli.context import Json, Model, Reason, acting_user, find_spec, open_home, open_runner
from boucle_cli.output import ERR, FAILED, OUT, errors_for_people, show_json, show_table

Version = Annotated[int, typer.Argument(min=1, help="The version, as the registry counts.")]
Url = Annotated[str, typer.Option(help="Say it to the API at this address instead, with the token in $BOUCLE_TOKEN.")]
Digest = Annotated[str, typer.Option(help="With --url: only on the evaluation report with this digest.")]


def promote(version: Version, model: Model, *, reason: Reason, as_json: Json = False) -> None:
    """Ask that a version becomes production; where asking is enough, carry it out. Its gates decide as always."""
    _decide("promote", version, model, reason, as_json=as_json)


def approve(
    version: Version, model: Model, *, reason: Reason, url: Url = "", evidence: Digest = "", as_json: Json = False
) -> None:
    """Approve a version that waits for it, and carry the promotion out; with --url, the platform there does."""
    if url or evidence:
        _say("approve", url, model, version, reason, evidence, as_json=as_json)
    else:
        _decide("approve", version, model, reason, as_json=as_json)


def reject(
    version: Version, model: Model, *, reason: Reason, url: Url = "", evidence: Digest = "", as_json: Json = False
) -> None:
    """Refuse a version: nothing automatic promotes it after that."""
    if url or evidence:
        _say("reject", url, model, version, reason, evidence, as_json=as_json)
    else:
        _decide("reject", version, model, reason, as_json=as_json)


def pin(model: Model, *, reason: Reason, as_json: Json = False) -> None:
    """Keep the version that is in production there: nothing automatic promotes over it or rolls it back."""
    from boucle.operations import pins

    with errors_for_people():
        home = open_home()
        row = pins.pin(home.state, ModelName(model), reason=reason, actor=home.actor(acting_user(), ModelName(model)))
    _say_pinned(
        row, f"version {row.decision.to_version} of '{model}' is pinned by {row.decision.actor}", as_json=as_json
    )


def unpin(model: Model, *, reason: Reason, as_json: Json = False) -> None:
    """Let gates, guard and canary move production again."""
    from boucle.operations import pins

    with errors_for_people():
        home = open_home()
        row = pins.unpin(home.state, ModelName(model), reason=reason, actor=home.actor(acting_user(), ModelName(model)))
    _say_pinned(row, f"version {row.decision.to_version} of '{model}' may move again", as_json=as_json)


def explain(version: Version, model: Model, as_json: Json = False) -> None:
    """Why a version is or is not in production: its gates, the policy, the people, every decision in order."""
    from boucle_cli.people import explanation

    with errors_for_people():
        found = explanation(open_home(), find_spec(model), ModelVersion(version))
    if as_json:
        show_json({**found, "decisions": [_record(row) for row in found["decisions"]]})
        return
    OUT.print(found["answer"], markup=False, highlight=False, soft_wrap=True)
    show_table("gates", found["gates"], empty="It was never evaluated: no gate was measured.")
    OUT.print(f"Policy {found['policy']}: {found['people']}.", markup=False, highlight=False, soft_wrap=True)
    if found["risk"]:
        show_table("risk, the highest term counts", found["risk"], empty="")
    if found["report"]:
        OUT.print(f"Report: {found['report']}", markup=False, highlight=False, soft_wrap=True)
    if came := found["imported"]:
        code = came["git_commit"] or "that nobody knows"
        OUT.print(f"Imported: it is {came['from']}, made by the code {code}.", markup=False, soft_wrap=True)
        show_table(f"what was measured there ({came['verdict']}); it decides nothing here", came["gates"], empty="")
    show_table("decisions about it", [_line(row) for row in found["decisions"]], empty="No decision is about it yet.")


def report(
    version: Version,
    model: Model,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Its summary in Markdown instead, as CI posts it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Where the evaluation report of a version is: one HTML file that loads nothing from anywhere."""
    from boucle_cli.people import imported_row

    with errors_for_people():
        home, spec = open_home(), find_spec(model)
        evidence = home.evidence.newest(spec.name, ModelVersion(version))
        came = home.evidence.imported(spec.name, ModelVersion(version))
        there = f"What was measured of {came.manifest.origin}: {came.file}" if came else ""
        if evidence is None:
            raise NotEnoughDataError(
                f"Version {version} of '{model}' was never evaluated here, so there is no report of it. {there}".strip()
            )
        summary = home.evidence.file(evidence, ".md")
        text = summary.read_text(encoding="utf-8") if summary.exists() else ""
    file = str(home.evidence.file(evidence))
    if as_json:
        own = {"file": file, "evidence_digest": evidence.digest(), "verdict": evidence.verdict, "markdown": text}
        show_json({**own, "imported": imported_row(came) if came else None})
    else:
        if there:  # not on standard output, which is the file's name or the summary and nothing else
            ERR.print(there, markup=False, highlight=False, soft_wrap=True)
        typer.echo(text if markdown else file)


def reproduce(version: Version, model: Model, as_json: Json = False) -> None:
    """Make a version again from its record, in a place that is thrown away: equal, or what differs is named."""
    from boucle_platform.reproduction import reproduce as make_again

    with errors_for_people():
        spec, home = find_spec(model), open_home()
        if as_json:
            found = make_again(home, spec, ModelVersion(version))
        else:
            with ERR.status("reading the record", spinner="line") as status:
                found = make_again(home, spec, ModelVersion(version), progress=lambda said: status.update(f"{said} …"))
    if as_json:
        show_json({**asdict(found), "identical": found.identical, "reproduced": found.reproduced})
    else:
        rows = [
            {
                "part": part.part,
                "": "equal" if part.equal else "DIFFERS",
                "on record": part.recorded,
                "made again": part.found,
            }
            for part in found.parts
        ]
        show_table(f"version {version} of {model}, made again", rows, empty="")
        for part in found.parts:
            if part.difference:
                OUT.print(f"{part.part}: {part.difference}", markup=False, highlight=False, soft_wrap=True)
        OUT.print(found.verdict(), markup=False, highlight=False, soft_wrap=True)
    if not found.reproduced:
        raise typer.Exit(FAILED)


def history(
    model: Model,
    at: Annotated[
        str, typer.Option(help="What was in production at this moment, ISO 8601, UTC by default, and why.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Every decision about a model: who moved what, when, why; the chain is verified on the way."""
    with errors_for_people():
        state = open_home().state
        if at:
            _show_at(state, model, _moment(at), as_json=as_json)
        else:
            _show_all(state.decisions(ModelName(model)), model, as_json=as_json)
        # Last, because the rows of a damaged ledger are what a person needs to see.
        state.verify()


def export_audit(
    to: Annotated[Path | None, typer.Option(help="Write here instead of standard output.")] = None,
    verify: Annotated[Path | None, typer.Option(help="Compare the ledger with this earlier export instead.")] = None,
) -> None:
    """Every decision about every model as JSON Lines, chain verified; the last line holds their number and the head."""
    from boucle_cli.audit import check_export, export_lines

    with errors_for_people():
        rows = open_home().state.decisions()
        if verify is not None:
            OUT.print(check_export(verify, rows), markup=False, highlight=False)
            return
        text = "\n".join(export_lines(rows)) + "\n"
        if to is None:
            typer.echo(text, nl=False)
            return
        _write(to, text)
        OUT.print(f"{len(rows)} decisions, chain unbroken: {to}", markup=False, highlight=False)


def _decide(verb: str, version: int, model: str, reason: str, *, as_json: bool) -> None:
    from boucle_cli import people

    with errors_for_people():
        deed = {"promote": people.ask, "approve": people.approve, "reject": people.refuse}[verb]
        done = deed(open_home(), find_spec(model), ModelVersion(version), reason=reason, who=acting_user(), run=_run)
    if as_json:
        show_json(done)
    else:
        OUT.print(done["said"], markup=False, highlight=False)
        OUT.print(f"In production: {done['production'] or 'nothing yet'}.")
    if done["failed"]:
        raise typer.Exit(FAILED)


def _say_pinned(row: Decision, said: str, *, as_json: bool) -> None:
    if as_json:
        show_json(_record(row))
    else:
        OUT.print(f"Decision {row.decision_id}: {said}.", markup=False, highlight=False)


def _say(verb: str, url: str, model: str, version: int, reason: str, evidence: str, *, as_json: bool) -> None:
    from boucle_cli.remote import say

    with errors_for_people():
        body = {"version": version, "reason": reason, **({"evidence_digest": evidence} if evidence else {})}
        done = say(url, verb, model, body, token=os.environ.get("BOUCLE_TOKEN", ""))
    if as_json:
        show_json(done)
    else:
        said = f"Decision {done['decision']}: {done['kind']}, version {done['version']}, by {done['actor']}."
        OUT.print(said, markup=False, highlight=False)
        OUT.print(f"In production: {done['production'] or 'nothing yet'}.")


def _run(job: str, tags: dict[str, str]) -> Any:
    from boucle_platform.instance import end_dead_runs

    runner = open_runner()
    end_dead_runs(runner.instance)
    return runner.run(job, tags=tags)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"--at must be an ISO 8601 date or date-time, not '{text}'.") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _show_all(rows: Sequence[Decision], model: str, *, as_json: bool) -> None:
    if not rows:
        find_spec(model)  # a name that is nobody's is an error, not an empty history
    if as_json:
        show_json([_record(row) for row in rows])
    else:
        show_table(f"decisions of {model}", [_line(row) for row in rows], empty=f"No decision about '{model}' yet.")


def _show_at(state: StateStore, model: str, moment: datetime, *, as_json: bool) -> None:
    """The move that was in force, and production after it."""
    move = state.move_at(ModelName(model), moment)
    if move is None:
        find_spec(model)
    if as_json:
        show_json(None if move is None else _record(move))
    elif move is None:
        OUT.print(f"Nothing of '{model}' was in production at {moment:%Y-%m-%d %H:%M} UTC.")
    else:
        OUT.print(f"At {moment:%Y-%m-%d %H:%M} UTC version {move.decision.to_version} of '{model}' was in production.")
        show_table("by this decision", [_line(move)], empty="")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error}.") from error


def _line(row: Decision) -> dict[str, object]:
    decision, seconds = row.decision, row.decision.seconds
    version = decision.subject_version or (decision.to_version if decision.kind in MOVES else None)
    what = decision.kind.value if version is None else f"{decision.kind} {version}"
    why = decision.reason
    if seconds is not None:
        waited = decision.kind is DecisionKind.APPROVE
        why = f"{why}, after {seconds / 3600:.1f} h of waiting" if waited else f"{why}, after {seconds:.2f} s"
    return {
        "#": row.decision_id,
        "at": f"{decision.at:%Y-%m-%d %H:%M}",
        "decision": what,
        "why, by whom": f"{why}\n({decision.actor})",
    }


def _record(row: Decision) -> dict[str, object]:
    decision = row.decision
    return {
        "#": row.decision_id,
        "at": decision.at.strftime("%Y-%m-%d %H:%M"),
        "kind": decision.kind.value,
        "version": decision.subject_version or decision.to_version,
        "production": decision.to_version,
        "actor": decision.actor,
        "reason": decision.reason,
        "seconds": decision.seconds,
    }
