"""A promotion re-reads its evidence, whichever way it was launched: what Dagster lets through is refused here."""

import dagster as dg
import pytest

from assets_tests.scenarios import evidence
from boucle_platform.model_loop.evidence_check import doubts_about

REPORT = dg.AssetKey(["repurchase", "evaluation_report"])
GATES = ("quality_floor", "no_regression")
EVIDENCE = evidence(2, against=1)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialise(instance, *, results):
    """One materialisation of the report with these check results: {gate: (passed, severity, evidence digest)}."""

    @dg.asset(key=REPORT, check_specs=[dg.AssetCheckSpec(gate, asset=REPORT) for gate in results])
    def evaluation_report():
        return dg.MaterializeResult(
            check_results=[
                dg.AssetCheckResult(
                    check_name=gate, passed=passed, severity=severity, metadata={"evidence_digest": digest}
                )
                for gate, (passed, severity, digest) in results.items()
            ]
        )

    assert dg.materialize([evaluation_report], instance=instance).success


GOOD = (True, dg.AssetCheckSeverity.ERROR, EVIDENCE.digest())


def test_every_gate_passed_on_this_evidence_is_enough(instance):
    materialise(instance, results=dict.fromkeys(GATES, GOOD))
    assert doubts_about(instance, REPORT, GATES, EVIDENCE) == ()


def test_without_a_report_nothing_is_promoted(instance):
    assert "no materialisation of evaluation_report" in " ".join(doubts_about(instance, REPORT, GATES, EVIDENCE))


def test_a_check_that_was_not_selected_is_missing_evidence(instance):
    materialise(instance, results={"quality_floor": GOOD})
    assert "no_regression was never checked" in " ".join(doubts_about(instance, REPORT, GATES, EVIDENCE))


@pytest.mark.parametrize("severity", [dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN])
def test_a_failed_check_refuses_also_where_it_only_warns(instance, severity):
    materialise(instance, results={"quality_floor": GOOD, "no_regression": (False, severity, EVIDENCE.digest())})
    assert f"no_regression did not pass ({severity.value}" in " ".join(doubts_about(instance, REPORT, GATES, EVIDENCE))


def test_checks_of_an_earlier_materialisation_are_stale(instance):
    materialise(instance, results=dict.fromkeys(GATES, GOOD))
    materialise(instance, results={"quality_floor": GOOD})
    assert "no_regression was checked for another materialisation" in " ".join(
        doubts_about(instance, REPORT, GATES, EVIDENCE)
    )


def test_checks_on_other_evidence_than_the_document_refuse(instance):
    materialise(instance, results=dict.fromkeys(GATES, GOOD))
    tampered = EVIDENCE.model_copy(update={"holdout_rows": 1})
    assert "on other evidence" in " ".join(doubts_about(instance, REPORT, GATES, tampered))
