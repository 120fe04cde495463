"""`boucle check --select`: the gates, or the data without a training; what was not run is still named."""

from types import SimpleNamespace
from typing import Any

import pytest

from boucle_cli.check import CheckOutcome, _jobs, _selected
from boucle_cli.context import Select
from boucle_platform.definitions import defs_of
from boucle_platform.model_loop.catalogue import spec_of

SPEC = spec_of("repurchase")


@pytest.fixture(scope="module")
def runner() -> Any:
    """As much of a runner as a selection looks at."""
    return SimpleNamespace(definitions=defs_of(SPEC))


def outcome(asset: str, check: str, *, blocking: bool = True) -> CheckOutcome:
    return CheckOutcome(asset=f"repurchase/{asset}", check=check, passed=None, blocking=blocking, description="")


# A gate that warned in this run is a gate all the same; its outcome alone does not say so.
GATE = outcome("evaluation_report", "no_regression", blocking=False)
DATA_GATE = outcome("validated_features", "contract")
FRESH = outcome("raw_orders", "data_is_fresh", blocking=False)


@pytest.mark.parametrize(
    ("select", "kept"),
    [(Select.ALL, [GATE, DATA_GATE, FRESH]), (Select.GATES, [GATE, DATA_GATE]), (Select.DATA, [DATA_GATE, FRESH])],
)
def test_a_selection_keeps_what_was_asked_for(runner: Any, select: Select, kept: list[CheckOutcome]):
    assert _selected([GATE, DATA_GATE, FRESH], runner, SPEC, select) == kept


@pytest.mark.parametrize(("select", "trained"), [(Select.ALL, True), (Select.GATES, True), (Select.DATA, False)])
def test_for_the_data_nothing_is_trained(select: Select, trained: bool):
    jobs = [job for job, _ in _jobs(SPEC, select)]
    assert ("repurchase_retrain" in jobs) is trained
    assert "repurchase_period" in jobs
