"""The real history is what data.md says, and all of it lands within the limits."""

import pandas as pd
import pytest

from assets_tests.data.landing_world import Shop, month
from boucle.errors import ConfigurationError
from boucle.features.raw_source import check_volume
from boucle_adapters.landing_zone import publish
from boucle_platform.defs.repurchase import landing
from boucle_platform.defs.repurchase.schema import ORDERS

PERIODS = landing.published_periods()


@pytest.fixture(scope="module")
def history():
    return pd.concat([landing.export_period("orders", key) for key in PERIODS], ignore_index=True)


def test_the_history_has_eighteen_months():
    assert (len(PERIODS), PERIODS[0], PERIODS[-1]) == (18, "1997-01", "1998-06")


def test_the_history_has_the_known_counts(history):
    assert len(history) == 69_659
    assert history["customer_id"].nunique() == 23_570
    assert history.duplicated().sum() == 255
    assert (history["amount_usd"] == "0.00").sum() == 80
    assert history.duplicated(["customer_id", "order_date"]).sum() == 2_068


def test_no_customer_is_new_after_march_1997(history):
    assert history.groupby("customer_id")["order_date"].min().max() <= "1997-03-31"


def test_customer_ids_keep_their_leading_zeros(history):
    assert history["customer_id"].str.len().eq(5).all()


def test_every_month_is_within_the_volume_limits(history):
    counts = history["order_date"].str[:7].value_counts().sort_index().tolist()
    ratios = [check_volume(count, counts[:n], ORDERS.limits, file="real") for n, count in enumerate(counts)]
    assert min(ratio for ratio in ratios if ratio is not None) == pytest.approx(0.287, abs=0.001)


@pytest.mark.parametrize("key", ["1997-03", "1997-10"])
def test_a_real_month_lands_with_only_its_duplicates_set_aside(tmp_path, key):
    rows = landing.export_period("orders", key)
    shop = Shop(tmp_path)
    publish(rows, shop.file(key))
    receipt, rejected = shop.land_file(key)
    assert receipt.quarantined == rows.duplicated().sum()
    assert set(rejected["reason"]) == {"duplicate row"}
    assert receipt.rows + receipt.quarantined == len(rows)
    assert receipt.landed_at == month(key).end


def test_a_month_outside_the_history_is_named():
    with pytest.raises(ConfigurationError, match="no period '1999-01'; it goes from 1997-01 to 1998-06"):
        landing.export_period("orders", "1999-01")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    def absent(name: str) -> None:
        raise landing.PackageNotFoundError(name)

    monkeypatch.setattr(landing, "distribution", absent)
    landing._history.cache_clear()
    with pytest.raises(ConfigurationError, match=r"extra \[examples\]"):
        landing.published_periods()
