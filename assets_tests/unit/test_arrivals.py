"""Which landed periods are loaded next."""

from boucle.contracts.ids import Digest, PeriodKey
from boucle.features.arrivals import Arrival, arrivals, content_of_files, landing_stamp

APRIL, MAY, JUNE = (PeriodKey(key) for key in ("1997-04", "1997-05", "1997-06"))
ONE, TWO, THREE, OTHER = (Digest(digit * 64) for digit in "1239")
LANDED = {APRIL: ONE, MAY: TWO, JUNE: THREE}


def stamps(*digests: Digest) -> list[str]:
    """The stamp of each of a row of periods."""
    made = [""]
    for digest in digests:
        made.append(landing_stamp(made[-1], digest))
    return made[1:]


LOADED = dict(zip(LANDED, stamps(*LANDED.values()), strict=True))


def due(landed, loaded, **options) -> list[PeriodKey]:
    return [arrival.period for arrival in arrivals(landed, loaded, **options)]


def test_nothing_landed_nothing_to_load():
    assert arrivals({}, {}) == ()


def test_what_has_landed_is_due_oldest_first_each_with_the_stamp_it_will_have():
    assert due(LANDED, {}) == [APRIL, MAY, JUNE]
    assert {arrival.period: arrival.stamp for arrival in arrivals(LANDED, {})} == LOADED
    assert due(LANDED, {APRIL: LOADED[APRIL]}) == [MAY, JUNE]


def test_what_is_loaded_is_not_loaded_again():
    assert due(LANDED, LOADED) == []


def test_a_corrected_file_brings_its_period_and_every_later_one():
    corrected = arrivals(LANDED | {MAY: OTHER}, LOADED)
    assert corrected == (
        Arrival(period=MAY, stamp=stamps(ONE, OTHER)[-1]),
        Arrival(period=JUNE, stamp=stamps(ONE, OTHER, THREE)[-1]),
    )


def test_a_correction_is_carried_only_into_periods_that_requests_may_ask_for():
    assert due(LANDED | {APRIL: OTHER}, LOADED, restated={JUNE}) == [APRIL, JUNE]
    assert due(LANDED | {APRIL: OTHER}, LOADED, restated=set()) == [APRIL]


def test_a_period_whose_own_file_was_corrected_is_due_however_old_it_is():
    assert due(LANDED | {APRIL: OTHER}, LOADED, restated=set()) == [APRIL]


def test_a_period_that_was_loaded_before_an_earlier_one_was_corrected_is_loaded_again():
    corrected = stamps(OTHER, TWO, THREE)
    loaded = {APRIL: corrected[0], MAY: LOADED[MAY], JUNE: LOADED[JUNE]}
    assert arrivals(LANDED | {APRIL: OTHER}, loaded)[0] == Arrival(period=MAY, stamp=corrected[1])


def test_content_that_comes_back_has_its_first_stamp_again():
    loaded = LOADED | {JUNE: stamps(ONE, TWO, OTHER)[2]}
    assert arrivals(LANDED, loaded) == (Arrival(period=JUNE, stamp=LOADED[JUNE]),)


def test_a_loaded_period_of_which_something_is_missing_is_loaded_again():
    assert due(LANDED, LOADED, unfinished={MAY}) == [MAY]


def test_a_file_that_was_taken_away_after_loading_changes_nothing():
    assert due({MAY: TWO, JUNE: THREE}, LOADED) == []
    assert due({MAY: TWO, JUNE: THREE}, LOADED, unfinished={APRIL}) == []


def test_a_period_that_was_loaded_without_a_stamp_is_loaded_again():
    assert due({APRIL: ONE}, {APRIL: ""}) == [APRIL]


def test_the_content_of_a_period_is_that_of_all_its_files():
    both = content_of_files({"flights": ONE, "weather": TWO})
    assert both == content_of_files({"weather": TWO, "flights": ONE})
    assert len({both, content_of_files({"flights": ONE}), content_of_files({"flights": TWO, "weather": ONE})}) == 3
