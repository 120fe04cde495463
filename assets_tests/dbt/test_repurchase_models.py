"""dbt's features and labels are those of a slow and obvious program, and no order from the future changes them."""

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime

import pandas as pd
import pytest

from assets_tests.data.landing_world import Order, Shop
from assets_tests.dbt.dbt_world import DbtWorld, slow_features, slow_labels
from boucle.features.contract import feature_specs
from boucle.features.digest import content_digest
from boucle_platform.defs.repurchase.schema import FEATURES

# Seven starts of dbt; a busy machine takes ten seconds for each.
pytestmark = pytest.mark.timeout(600)

FEATURE_NAMES = [spec.name for spec in feature_specs(FEATURES)]
LAST_DAY = {"1997-02": 28, "1997-03": 31, "1997-04": 30}


def random_orders(key: str, seed: int) -> list[Order]:
    """120 different orders of 150 customers, some on one day, among them on the first and last day of the month."""
    chance = random.Random(seed)
    days = [1, LAST_DAY[key], *(chance.randint(1, LAST_DAY[key]) for _ in range(118))]
    return sorted(
        {
            (f"{chance.randint(1, 150):05d}", f"{key}-{day:02d}", str(chance.randint(1, 9)), f"{n}.{n % 100:02d}")
            for n, day in enumerate(days)
        }
    )


@dataclass
class Story:
    """February and March built as they came; April landed, March built again, then April; then February corrected on
    3 May, and April built again: with what its rows can know, and with all that is known."""

    world: DbtWorld
    orders: dict[str, list[Order]]
    first_build: str
    march_as_it_came: str
    march_again: str
    march_labels: pd.DataFrame
    both_at_once: tuple[str, str]
    april: pd.DataFrame
    april_again: pd.DataFrame
    april_restated: pd.DataFrame
    corrected: list[Order]

    def all_orders(self) -> list[Order]:
        return [order for month in self.orders.values() for order in month]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    home = tmp_path_factory.mktemp("story")
    shop, world = Shop(home), DbtWorld(home)
    orders = {key: random_orders(key, seed) for seed, key in enumerate(LAST_DAY)}
    shop.land(orders["1997-02"], key="1997-02")
    first_build = world.build("1997-02")
    shop.land(orders["1997-03"], key="1997-03")
    world.build("1997-03", command=("run",))
    march_as_it_came, march_labels = world.digest("1997-04-01"), world.labels()
    shop.land(orders["1997-04"], key="1997-04")
    world.build("1997-03")
    march_again = world.digest("1997-04-01")
    world.build("1997-04", command=("run",))
    april = world.features("1997-05-01")
    world.build("1997-03", through="1997-04", command=("run",))
    both_at_once = (world.digest("1997-04-01"), world.digest("1997-05-01"))
    corrected = [("00777", "1997-02-03", "1", "5.00"), *orders["1997-02"]]
    shop.land(corrected, key="1997-02", now=datetime(1997, 5, 3, tzinfo=UTC))
    world.build("1997-04", command=("run",))
    april_again = world.features("1997-05-01")
    world.build("1997-04", command=("run",), known_at="")
    return Story(
        world=world,
        orders=orders,
        first_build=first_build,
        march_as_it_came=march_as_it_came,
        march_again=march_again,
        march_labels=march_labels,
        both_at_once=both_at_once,
        april=april,
        april_again=april_again,
        april_restated=world.features("1997-05-01", restated=True),
        corrected=corrected,
    )


def assert_same(found: pd.DataFrame, expected: dict[str, dict[str, float | None]]) -> None:
    assert list(found["user_id"]) == sorted(expected)
    slow = pd.DataFrame([expected[user] for user in sorted(expected)], dtype="float64")
    pd.testing.assert_frame_equal(found[FEATURE_NAMES].astype("float64"), slow[FEATURE_NAMES], rtol=1e-12)


def test_a_build_runs_every_test_and_unit_test_and_all_pass(story):
    assert "ERROR=0" in story.first_build
    for name in (
        "an_order_on_the_as_of_day_does_not_count",
        "a_label_exists_only_once_its_horizon_has_passed",
        "a_correction_that_landed_after_known_at_does_not_count",
        "no_feature_from_the_future",
        "no_immature_label",
    ):
        assert any(name in line and "PASS" in line for line in story.first_build.splitlines()), name


@pytest.mark.parametrize("as_of", ["1997-03-01", "1997-04-01"])
def test_sql_features_equal_the_slow_program(story, as_of):
    expected = slow_features(story.all_orders(), date.fromisoformat(as_of))
    assert_same(story.world.features(as_of), expected)


def test_features_come_in_the_order_of_the_contract(story):
    assert list(story.april.columns) == ["user_id", "as_of", "event_time", "available_at", *FEATURE_NAMES]


def test_building_a_period_again_after_later_orders_landed_changes_no_row(story):
    assert story.march_again == story.march_as_it_came


def test_labels_equal_the_slow_program_once_they_are_mature(story):
    # as_of 1 March + 30 days = 31 March, known in March's build; 1 April + 30 days = 1 May, known in April's.
    labels = story.world.labels()
    for as_of in (date(1997, 3, 1), date(1997, 4, 1)):
        found = labels[labels["as_of"] == pd.Timestamp(as_of)]
        expected = slow_labels(story.all_orders(), as_of, 30)
        assert dict(zip(found["user_id"], found["label"], strict=True)) == expected
        assert 0 < sum(expected.values()) < len(expected)
    assert labels["as_of"].max() == pd.Timestamp("1997-04-01")


def test_no_label_appears_before_its_horizon_has_passed(story):
    assert set(story.march_labels["as_of"]) == {pd.Timestamp("1997-03-01")}


def test_a_build_of_two_months_makes_the_rows_that_two_builds_make(story):
    assert story.both_at_once == (story.march_as_it_came, content_digest(story.april, ["user_id", "as_of"]))


def test_a_correction_that_landed_after_as_of_changes_no_row_of_it(story):
    assert "00777" not in set(story.april["user_id"])
    pd.testing.assert_frame_equal(story.april_again, story.april)


def test_a_restated_row_knows_the_correction_and_says_from_when_on(story):
    corrected = story.corrected + story.orders["1997-03"] + story.orders["1997-04"]
    assert_same(story.april_restated, slow_features(corrected, date(1997, 5, 1)))
    rows = story.april_restated.set_index("user_id")
    assert rows.loc["00777", "available_at"] == pd.Timestamp("1997-05-03")
    assert (story.april["available_at"] <= story.april["as_of"]).all()


def test_restated_rows_leave_the_others_as_they_are(story):
    pd.testing.assert_frame_equal(story.world.features("1997-05-01"), story.april)
    assert story.world.digest("1997-04-01") == story.march_as_it_came


def test_a_build_without_a_window_stops_and_says_which_variable_to_set(tmp_path):
    shop, world = Shop(tmp_path), DbtWorld(tmp_path)
    shop.land()
    done = world.dbt("run", "--select", "+repurchase_features", window={})
    assert done.returncode != 0
    assert "Set BOUCLE_PERIOD_START or pass --vars" in done.stdout
