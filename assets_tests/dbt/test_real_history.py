"""On the real history the features meet their contract and the labels have the base rate known from data.md."""

from pathlib import Path

import pytest

from assets_tests.data.landing_world import Shop
from assets_tests.dbt.dbt_world import DbtWorld
from boucle.features.contract import apply_contract
from boucle_adapters.landing_zone import publish
from boucle_platform.defs.repurchase.landing import export_period, published_periods
from boucle_platform.defs.repurchase.schema import FEATURES

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """January to June 1997 landed; May and June built, so that the labels of 1 June are known."""
    home: Path = tmp_path_factory.mktemp("real")
    shop, world = Shop(home), DbtWorld(home)
    for key in published_periods()[:6]:
        publish(export_period("orders", key), shop.file(key))
        shop.land_file(key)
    world.build("1997-05", command=("run",))
    world.build("1997-06", command=("run",))
    return world


@pytest.mark.parametrize("as_of", ["1997-06-01", "1997-07-01"])
def test_every_real_feature_row_meets_the_contract(world, as_of):
    split = apply_contract(FEATURES, world.features(as_of))
    assert len(split.valid) == 23_570
    assert split.rejected.empty


def test_the_base_rate_of_june_is_the_known_one(world):
    labels = world.labels()
    june = labels[labels["as_of"] == "1997-06-01"]
    assert len(june) == 23_570
    assert june["label"].mean() == pytest.approx(0.099, abs=0.001)


def test_customers_with_one_order_have_no_gap(world):
    rows = world.features("1997-07-01")
    once = rows["freq"] == 1
    assert rows.loc[once, ["mean_gap", "rec_ratio"]].isna().all(axis=None)
    assert rows.loc[~once, ["mean_gap", "rec_ratio"]].notna().all(axis=None)
