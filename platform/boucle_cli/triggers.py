"""`boucle triggers`: every time it was asked whether to retrain, what decided, and what came of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from boucle.contracts.trigger import Gain, Trigger, TriggerAnswer, TriggerOutcome
from boucle.policy.retraining import RetrainingPolicy, budget_sentence, budget_used
from boucle_cli.context import Json, Model, find_spec, open_home
from boucle_cli.output import OUT, errors_for_people, show_json, show_table

Row = tuple[datetime, Trigger]


def triggers(
    model: Model,
    fired: Annotated[bool, typer.Option("--fired", help="Only those that asked for a training run.")] = False,
    last: Annotated[int, typer.Option(min=1, help="So many of the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Every evaluation of the retraining policy: fired or not, by which rule, expected and real gain, budget left."""
    with errors_for_people():
        home, spec = open_home(), find_spec(model)
        rows = [row for row in home.state.triggers(spec.name) if not fired or row[1].outcome is TriggerOutcome.FIRED]
        answers, now = home.state.answers(spec.name), home.clock(spec.name).now()
        used = budget_used(spec.retraining, home.state.triggers(spec.name), answers, at=now)
        home.state.close()
    shown = rows[-last:]
    if as_json:
        show_json({"budget": used.model_dump(mode="json"), "triggers": [_record(row, answers) for row in shown]})
        return
    show_table(f"triggers of {model}", [_line(row, answers) for row in shown], empty=f"Nothing asked yet ({model}).")
    OUT.print("Gain: expected, on the holdout, realised so far; in 1/1000 nats a row, above 0 is better, – unknown.")
    OUT.print(f"{_policy(spec.retraining)}; {budget_sentence(used)}.")


def _policy(policy: RetrainingPolicy) -> str:
    return f"Drift in {policy.failed_windows} of {policy.of_windows} windows fires"


def _record(row: Row, answers: Mapping[str, TriggerAnswer]) -> dict[str, Any]:
    at, trigger = row
    answer = answers.get(trigger.run_key)
    became = None if answer is None else {**answer.model_dump(mode="json"), "helped": answer.helped}
    return {"at": at.isoformat(), **trigger.model_dump(mode="json"), "answer": became}


def _line(row: Row, answers: Mapping[str, TriggerAnswer]) -> dict[str, object]:
    at, trigger = row
    answer = answers.get(trigger.run_key)
    return {
        "at": f"{at:%Y-%m-%d}",
        "window": trigger.period,
        "asked by": f"{trigger.cause}\n{trigger.outcome}",
        "gain": f"{_milli(trigger.expected_gain)} {_milli(answer.holdout_gain if answer else None)} "
        f"{_milli(answer.realised_gain if answer else None)}",
        "why, and what came of it": trigger.reason if answer is None else f"{trigger.reason}\n{_became(answer)}",
    }


def _milli(gain: Gain | None) -> str:
    return "–" if gain is None else f"{1000 * gain.nats:+.2f}"


def _became(answer: TriggerAnswer) -> str:
    """`(version 3 promoted, it helped)`."""
    version = f"version {answer.version} " if answer.version else ""
    helped = {True: ", it helped", False: ", it did not help", None: ""}[answer.helped]
    undecided = "" if answer.version else f": {answer.reason}"
    return f"({version}{answer.kind}{helped}{undecided})"


def last_trigger(rows: Sequence[Row], answers: Mapping[str, TriggerAnswer]) -> str | None:
    """The newest evaluation in a sentence, and what came of the newest one that fired."""
    if not rows:
        return None
    newest = rows[-1][1]
    fired = [trigger for _, trigger in rows if trigger.run_key in answers]
    became = f"; the last one that fired ({fired[-1].period}): {_became(answers[fired[-1].run_key])}" if fired else ""
    return f"{newest.period} {newest.outcome}: {newest.reason}{became}"
