"""What Dagster's blocking checks do not cover: a promotion launched alone, with checks deselected, stale or in WARN.

A blocking check gates only within one run. So production_alias reads every required check again, from the event log,
for exactly the materialisation it is about.
"""

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from boucle.contracts.evidence import Evidence


def doubts_about(
    instance: dg.DagsterInstance, report: dg.AssetKey, gates: tuple[str, ...], evidence: Evidence
) -> tuple[str, ...]:
    """A sentence per gate that was not checked for the latest materialisation of the report, passed, on this evidence.

    Empty only when every check is there, passed (a failed one that only warns did not), and about exactly this report.
    """
    latest = instance.fetch_materializations(report, limit=1).records
    if not latest:
        return ("there is no materialisation of evaluation_report: materialise it first",)
    keys = [dg.AssetCheckKey(report, gate) for gate in gates]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found = [
        f"{key.name} {problem}"
        for key in keys
        if (problem := _problem(records.get(key), latest[0].storage_id, evidence.digest()))
    ]
    return (*found, "materialise evaluation_report with all its checks, then production_alias") if found else ()


def _problem(record: AssetCheckExecutionRecord | None, materialisation: int, evidence_digest: str) -> str:
    """What is wrong with one check as evidence; empty when nothing is."""
    evaluation = record.evaluation if record else None
    if evaluation is None:
        return "was never checked"
    target = evaluation.target_materialization_data
    if target is None or target.storage_id != materialisation:
        return "was checked for another materialisation of the report"
    if not evaluation.passed:
        return f"did not pass ({evaluation.severity.value}): {evaluation.description}"
    found = evaluation.metadata.get("evidence_digest")
    if found is None or found.value != evidence_digest:
        return "was checked on other evidence than the report at hand"
    return ""
