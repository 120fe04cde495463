"""The asset graph is what the architecture says: one line of text per asset, so that a change is seen in review."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets_tests.assets.graph_text import GOLDEN, definitions, graph_text

ROOT = Path(__file__).resolve().parents[2]
REGENERATE = (
    "The asset graph changed. If that was meant, write it anew and commit the file:\n"
    "    BOUCLE_HOME=$(mktemp -d) .venv/bin/python -m assets_tests.assets.graph_text\n"
    "Then say in the changelog what a user of these assets will notice."
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.Definitions]:
    """The code location over an empty home."""
    with pytest.MonkeyPatch.context() as patch:
        before = dict(os.environ)
        patch.setenv("BOUCLE_HOME", str(tmp_path_factory.mktemp("graph")))
        yield definitions()
        for name in set(os.environ) - set(before):
            patch.delenv(name)


@pytest.fixture(scope="module")
def specs(found: dg.Definitions) -> list[dg.AssetSpec]:
    return [spec for asset in found.assets or () if isinstance(asset, dg.AssetsDefinition) for spec in asset.specs]


def test_the_graph_is_the_one_on_record(found: dg.Definitions):
    now = graph_text(found)
    if now != GOLDEN.read_text():
        pytest.fail(f"{REGENERATE}\n\nNow:\n{now}")


def own_keys(found: dg.Definitions) -> list[dg.AssetKey]:
    """The assets of the default model."""
    return [key for key in found.resolve_asset_graph().get_all_asset_keys() if key.path[0] == "repurchase"]


def test_every_asset_says_who_owns_it_what_it_is_and_which_code_makes_it(specs: list[dg.AssetSpec]):
    assert len(specs) > 30
    silent = [
        spec.key.to_user_string()
        for spec in specs
        if not (spec.owners and spec.kinds and spec.description and spec.group_name and spec.code_version)
    ]
    assert silent == []


def test_no_asset_has_more_than_three_kinds(specs: list[dg.AssetSpec]):
    assert [spec.key.to_user_string() for spec in specs if len(spec.kinds) > 3] == []


def test_every_step_that_opens_the_warehouse_is_in_its_pool(found: dg.Definitions):
    graph = found.resolve_asset_graph()
    opens = {"raw_orders", "stg_orders", "int_customer_days", "repurchase_features", "repurchase_labels"}
    opens |= {"validated_features", "ground_truth", "training_set"}
    in_pool = {key.path[-1] for key in own_keys(found) if "warehouse" in (graph.get(key).pools or ())}
    assert in_pool == opens


def test_every_gate_of_a_candidate_blocks(found: dg.Definitions):
    from boucle.policy.evaluation import MEANINGS

    graph = found.resolve_asset_graph()
    report = dg.AssetKey(["repurchase", "evaluation_report"])
    blocking = {check.name for check in graph.get(report).check_keys if graph.get_check_spec(check).blocking}
    assert blocking == set(MEANINGS) - {"expected_cost"}


def test_the_jobs_hold_the_assets_that_their_names_promise(found: dg.Definitions):
    def assets(job: str) -> set[str]:
        return {key.path[-1] for key in found.resolve_job_def(job).asset_layer.executable_asset_keys}

    assert assets("repurchase_land") == {"landing"}
    retrain = {"training_set", "candidate_model", "evaluation_report", "production_alias", "traffic_plan"}
    assert assets("repurchase_retrain") == retrain
    everything = {key.path[-1] for key in own_keys(found)}
    assert assets("repurchase_period") == everything - retrain - {"landing"}


def test_the_job_of_checks_runs_no_asset(found: dg.Definitions):
    layer = found.resolve_job_def("repurchase_checks").asset_layer
    assert {key.name for key in layer.asset_graph.asset_check_keys} >= {"alias_equals_ledger"}
    assert {node.name for node in found.resolve_job_def("repurchase_checks").nodes} == {
        "repurchase__production_alias_alias_equals_ledger",
        "repurchase__traffic_plan_traffic_equals_ledger",
        "repurchase__traffic_plan_live_replicas_serve_the_plan",
        "repurchase__raw_orders_data_is_fresh",
    }


@pytest.mark.parametrize(
    ("sensor", "job"),
    [
        ("repurchase_landing", "repurchase_period"),
        ("repurchase_drift", "repurchase_retrain"),
        ("repurchase_rollout", "repurchase_checks"),
    ],
)
def test_each_sensor_requests_its_job(found: dg.Definitions, sensor: str, job: str):
    assert found.resolve_sensor_def(sensor).job_name == job
