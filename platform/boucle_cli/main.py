"""The command `boucle`: thin verbs over the other packages."""

import os
from typing import Annotated

import typer

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.errors import BoucleError, ConfigurationError
from boucle_adapters.settings import Settings, quiet_environment
from boucle_cli import decisions, monitoring, quarantine, transfers, trials, triggers
from boucle_cli.context import Json, Model, Port, Reason, Select, acting_user, find_spec, open_home, open_runner
from boucle_cli.output import ERR, FAILED, OUT, errors_for_people, show_json, show_table

app = typer.Typer(
    name="boucle",
    help="Closed-loop delivery for machine-learning models. State lives in $BOUCLE_HOME (default .boucle).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(quarantine.app, name="quarantine")
for verb in (
    decisions.promote,
    decisions.approve,
    decisions.reject,
    decisions.pin,
    decisions.unpin,
    decisions.explain,
    decisions.report,
    decisions.reproduce,
    decisions.history,
    trials.rollout,
    trials.abort,
    monitoring.monitoring,
    triggers.triggers,
):
    app.command()(verb)
app.command("export-audit")(decisions.export_audit)
app.command("export")(transfers.export_version)
app.command("import")(transfers.import_version)
app.command("try")(trials.try_version)


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="Whose history; the default model's by default.")] = "",
    requests: Annotated[int, typer.Option(min=1, help="Requests per served month.")] = 2000,
    until: Annotated[str, typer.Option(help="Last month to replay, for example 1997-09; all by default.")] = "",
    strategy: Annotated[
        str, typer.Option(help="canary, shadow, ab, bandit or interleaving: play this one instead of the whole loop.")
    ] = "",
    target: Annotated[
        str, typer.Option(help="embedded; compose: the stack of `docker compose up`; stack: from a container of it.")
    ] = "embedded",
    api: Annotated[str, typer.Option(help="With --target stack: where requests go; the proxy by default.")] = "",
    as_json: Json = False,
) -> None:
    """Replay a real history through the whole loop: land, train, gate, serve, drift, retrain, refuse, roll back.

    With --strategy: only until two versions are there, then good and bad challengers on their way into traffic.
    With --target compose: by the sensors, runs and replicas of the stack.
    """
    from boucle_cli.demo.run import run_demo

    with errors_for_people():
        settings = Settings()
        name = find_spec(model or settings.default_model).model
        if target != "embedded":
            from boucle_cli.demo.in_stack import Options, demo_in_stack

            options = Options(model=name, requests=requests, until=until, as_json=as_json)
            raise typer.Exit(demo_in_stack(settings, target, api, options))
        if strategy:
            from boucle_cli.demo.strategies import played

            if not played(settings, name, strategy, as_json=as_json):
                raise typer.Exit(FAILED)
            return
        summary = run_demo(settings, name, requests_per_month=requests, until=until, as_json=as_json)
    if not summary.complete:
        raise typer.Exit(FAILED)


@app.command()
def dev(
    dagster: Port = 3000, mlflow: Port = 5000, api: Port = 8000, metrics: Port = 9108, as_json: Json = False
) -> None:
    """Start Dagster UI and daemon, MLflow UI, the API and the exporter; one Ctrl-C ends all.

    A taken port is replaced, 0 is any.
    """
    from boucle_cli.dev import Ports
    from boucle_cli.dev import dev as start

    with errors_for_people():
        start(Settings(), Ports(dagster=dagster, mlflow=mlflow, api=api, metrics=metrics), as_json=as_json)


@app.command()
def exporter(
    host: Annotated[str, typer.Option(help="Where to answer; $BOUCLE_HOST, else 127.0.0.1, by default.")] = "",
    port: Port = 9108,
) -> None:
    """Answer `GET /metrics` with what the platform did and what it watches, read from this home at each scrape."""
    from boucle_cli.exporter import export

    with errors_for_people():
        settings = Settings()
        export(settings, host=host or settings.host, port=port)


@app.command()
def start(service: Annotated[str, typer.Argument(help="code, webserver, daemon or mlflow.")]) -> None:
    """Become one service of the stack of compose.yaml; the API is `python -m boucle_serving.main`."""
    from boucle_cli.stack import StackService
    from boucle_cli.stack import start as become

    with errors_for_people():
        if service not in list(StackService):
            raise ConfigurationError(f"There is no service '{service}'; there are {', '.join(StackService)}.")
        become(Settings(), StackService(service))


@app.command()
def feed(
    model: Model,
    period: Annotated[str, typer.Option(help="The period to land; the next one by default.")] = "",
    as_json: Json = False,
) -> None:
    """Land the next period's file of the real history and move this home's clock to its publication."""
    from boucle_platform.model_loop.steps.landing import feed as land

    with errors_for_people():
        fed = land(open_home(), find_spec(model), period)
    if as_json:
        show_json(fed)
    else:
        files = ", ".join(fed["files"])
        OUT.print(f"Landed {fed['rows']} rows of {fed['period']} as {files}; for {model} it is {fed['now']}.")


@app.command()
def retrain(model: Model, *, reason: Reason, as_json: Json = False) -> None:
    """Run training set to traffic now, whatever drift says; the gates decide as always."""
    from boucle_cli.verbs import train_again

    with errors_for_people():
        done = train_again(open_runner(), find_spec(model), reason=reason, who=acting_user())
    if as_json:
        show_json(done)
    else:
        OUT.print(f"Run {done['run_id']}: {done['error'] or done['said']}", markup=False, highlight=False)
        OUT.print(f"In production: {done['production'] or 'nothing yet'}.")
    if not done["succeeded"]:
        raise typer.Exit(FAILED)


@app.command()
def rollback(
    model: Model,
    *,
    reason: Reason,
    to: Annotated[
        int | None, typer.Option(min=1, help="An earlier promoted version; the one before by default.")
    ] = None,
    leaving: Annotated[
        int | None,
        typer.Option("--from", min=1, help="The version that is wrong; if another is in production, nothing moves."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the previous version back in traffic and registry; done when every live replica answers with it."""
    from boucle_cli.rolling_back import roll_back

    with errors_for_people():
        done = roll_back(
            open_home(),
            ModelName(model),
            reason=reason,
            who=acting_user(),
            to=ModelVersion(to) if to else None,
            leaving=ModelVersion(leaving) if leaving else None,
        )
    if as_json:
        show_json(done)
    else:
        OUT.print(f"'{model}' is back from version {done['from']} to {done['to']}: {done['replicas']}.")
        for sentence in done["aliases"]:
            OUT.print(sentence)
    if done["behind"]:
        raise typer.Exit(FAILED)


@app.command()
def token(
    actor: Annotated[str, typer.Argument(help="Whose it is: user:ada, as the ledger names people; service:shop.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            help="approver, operator (rolls back, pins), caller (predicts), tester (chooses an arm), viewer (looks)."
        ),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Forget every token of this actor instead.")] = False,
    as_json: Json = False,
) -> None:
    """Make a bearer token for decisions or predictions over HTTP. It is shown once; the home keeps its digest."""
    from boucle_adapters.settings import Settings
    from boucle_adapters.tokens import TokenStore, roles_of

    with errors_for_people():
        tokens = TokenStore(Settings().tokens_file)
        if revoke:
            done: dict[str, object] = {"actor": actor, "revoked": tokens.revoke(actor)}
            said = f"{done['revoked']} token(s) of {actor} are forgotten."
        else:
            said = tokens.add(actor, roles_of(actor, role or []))
            done = {"actor": actor, "roles": role, "token": said}
    if as_json:
        show_json(done)
    else:
        typer.echo(said)


@app.command()
def status(model: Model, as_json: Json = False) -> None:
    """What is in production, in traffic, in the registry; what landed last and what drift said."""
    from boucle_cli.verbs import model_status

    with errors_for_people():
        found = model_status(open_home(), find_spec(model))
    if as_json:
        show_json(found)
    else:
        show_table(f"{model}", [{"": key, "value": value} for key, value in found.items()], empty="nothing")


@app.command()
def check(
    model: Model,
    select: Annotated[
        Select, typer.Option(help="gates: the blocking ones; data: those of the data, and nothing is trained.")
    ] = Select.ALL,
    junit: Annotated[str, typer.Option(help="Also write a JUnit XML file here.")] = "",
    markdown: Annotated[str, typer.Option(help="Also append the table, and the model report, to this file.")] = "",
    html: Annotated[str, typer.Option(help="Also write the page of the evaluation report here.")] = "",
    as_json: Json = False,
) -> None:
    """Materialise a small sample with the code at hand, run its asset checks, exit 1 when a blocking one failed.

    Inside GitHub Actions ($GITHUB_STEP_SUMMARY) the table is added to the job's summary as well.
    """
    from contextlib import redirect_stdout
    from sys import stderr

    from boucle_cli.check import run_checks, write_reports

    # A library that prints must not end up inside the JSON value.
    with errors_for_people(), redirect_stdout(stderr), ERR.status("starting …") as status:
        report = run_checks(find_spec(model), select=select, progress=lambda what: status.update(f"{what} …"))
        summaries = [os.environ.get("GITHUB_STEP_SUMMARY", ""), markdown]
        write_reports(report, junit=junit, summaries=summaries, html=html)
    if as_json:
        show_json(report.as_json())
    else:
        show_table("asset checks", [outcome.row() for outcome in report.outcomes], empty="No check is declared.")
        OUT.print(report.verdict(), markup=False, highlight=False)
    if not report.passed:
        raise typer.Exit(FAILED)


@app.command()
def doctor(
    model: Model,
    fix: Annotated[
        bool, typer.Option("--fix", help="Put aliases and traffic where the ledger says, after confirmation.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm without asking.")] = False,
    only: Annotated[
        str, typer.Option(help="settings: only whether they can be read; dbt: only whether the project parses.")
    ] = "",
    expect: Annotated[str, typer.Option(help="The environment that this must be: dev, staging or prod.")] = "",
    as_json: Json = False,
) -> None:
    """What is wrong with this home, and how to mend it."""
    from boucle_cli.surroundings import environment

    with errors_for_people():
        found = environment(Settings(), expected=expect)
    if only == "settings":  # the stack's first service: it loads neither Dagster nor dbt
        OUT.print(f"environment: {found}", markup=False, highlight=False, soft_wrap=True)
        return
    from boucle_cli.verbs import REPAIRED, diagnose, repair

    with errors_for_people():
        findings = diagnose(open_home(), find_spec(model), only=only)
        broken = any(not finding["ok"] and finding["check"] in REPAIRED for finding in findings)
        if fix and broken and (yes or typer.confirm("Put aliases and traffic where the ledger says?", err=True)):
            for sentence in repair(open_home(), find_spec(model), who=acting_user()):
                ERR.print(sentence, markup=False, highlight=False)
            findings = diagnose(open_home(), find_spec(model), only=only)
    if as_json:
        show_json(findings)
    else:
        show_table("doctor", findings, empty="nothing to check")
    if any(not finding["ok"] for finding in findings):
        raise typer.Exit(FAILED)


def main() -> None:
    """Entry point."""
    quiet_environment()
    try:
        app()
    except BoucleError as error:
        ERR.print(f"{type(error).__name__}: {error}", markup=False, highlight=False)
        raise SystemExit(FAILED) from error
