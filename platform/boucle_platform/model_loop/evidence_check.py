"""What Dagster's blocking checks do not cover: a promotion launched alone, with checks deselected, stale or in WARN.

A blocking check gates only within one run. So production_alias reads every required check again, from the event log,
for exactly the materialisation it is about.
"""

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from boucle.contracts.evidence import Evidence
from boucle.errors import PromotionRefusedError


def require_evidence(
    instance: dg.DagsterInstance, report: dg.AssetKey, gates: tuple[str, ...], evidence: Evidence
) -> None:
    """Raise unless each gate was checked for the latest materialisation of the report, passed, on this evidence.

    Raises:
        PromotionRefusedError: A check is missing, failed, in WARN, of another materialisation or of other evidence.
    """
    latest = instance.fetch_materializations(report, limit=1).records
    if not latest:
        raise PromotionRefusedError("There is no evaluation report: materialise evaluation_report first.")
    keys = [dg.AssetCheckKey(report, gate) for gate in gates]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    problems = [
        f"{key.name} {problem}"
        for key in keys
        if (problem := _problem(records.get(key), latest[0].storage_id, evidence.digest()))
    ]
    if problems:
        raise PromotionRefusedError(
            f"Version {evidence.version} of '{evidence.model}' was not promoted: {'; '.join(problems)}. "
            "Materialise evaluation_report with all its checks, then production_alias. Production is unchanged."
        )


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
