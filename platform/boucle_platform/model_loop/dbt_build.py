"""One dbt build inside the run's own process, its results as Dagster events through dagster-dbt.

dagster-dbt starts a dbt process for each build: 7 s here, of which 5 s are imports and start-up. dbt's own programmatic
entry (`dbtRunner`) takes 2 s from the second build of a process on; selection and events stay dagster-dbt's (ADR 6).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from boucle.errors import BoucleError

# Unit tests need no data of the period: `make test` runs them.
BUILD = ("build", "--exclude-resource-type", "unit_test")
SILENT = ("--log-level", "none", "--log-level-file", "none", "--no-use-colors", "--no-write-json", "--no-version-check")
RESULTS = frozenset({"LogModelResult", "LogTestResult"})


class DbtBuildError(BoucleError):
    """dbt could not build the period's models, or a test of them failed; the next run builds them again."""


def stream_build(context: dg.AssetExecutionContext, *, parsed: Any, target: Path) -> Iterator[Any]:
    """Build what the context selects of the parsed project; yields materialisations and check results.

    Raises:
        DbtBuildError: With what dbt said of each node that failed, after the events of all others.
    """
    from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
    from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
    from dagster_dbt.dagster_dbt_translator import DagsterDbtTranslator

    params = get_updated_cli_invocation_params_for_context(context, {}, DagsterDbtTranslator())
    indirect = ("--indirect-selection", params.indirect_selection) if params.indirect_selection else ()
    events, error = run_dbt([*SILENT, *BUILD, *params.selection_args, *indirect], parsed)
    for raw in events:
        yield from DbtCoreCliEventMessage(raw, {}).to_default_asset_events(
            manifest=params.manifest,
            dagster_dbt_translator=params.dagster_dbt_translator,
            context=context,
            target_path=target,
        )
    if error:
        raise DbtBuildError(error)


def run_dbt(words: list[str], parsed: Any = None) -> tuple[list[dict[str, Any]], str]:
    """Run dbt, on the parsed project where there is one; its structured events, and what failed."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner
    from dbt_common.events.functions import msg_to_dict

    events: list[dict[str, Any]] = []

    def keep(event: Any) -> None:
        if event.info.name in RESULTS:
            events.append(msg_to_dict(event))

    try:
        result = dbtRunner(manifest=parsed, callbacks=[keep]).invoke(words)
    finally:
        # The adapter would keep the file open, and no other step could open it.
        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
    if result.success:
        return events, ""
    if result.exception is not None:
        return events, f"dbt stopped: {result.exception}"
    nodes: Any = result.result
    failed = [f"{item.node.name}: {item.message}" for item in nodes if item.status in {"error", "fail"}]
    return events, "dbt: " + "; ".join(failed)
