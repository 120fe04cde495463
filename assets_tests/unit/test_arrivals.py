"""Which landed period is loaded next."""

from boucle.contracts.ids import Digest, PeriodKey
from boucle.features.arrivals import landing_stamp, next_arrival

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


def requested(landed, loaded, **options) -> PeriodKey | None:
    arrival = next_arrival(landed, loaded, **options)
    return arrival and arrival.period


def test_nothing_landed_nothing_to_load():
    assert next_arrival({}, {}) is None


def test_the_oldest_period_comes_first():
    assert requested(LANDED, {}) == APRIL
    assert requested(LANDED, {APRIL: LOADED[APRIL]}) == MAY


def test_what_is_loaded_is_not_loaded_again():
    assert next_arrival(LANDED, LOADED) is None


def test_a_corrected_file_brings_its_period_and_then_every_later_one_in_order():
    landed, loaded, order = LANDED | {MAY: OTHER}, dict(LOADED), []
    while arrival := next_arrival(landed, loaded):
        order.append(arrival.period)
        loaded[arrival.period] = arrival.stamp
    assert order == [MAY, JUNE]


def test_a_period_that_was_loaded_before_an_earlier_one_was_corrected_is_loaded_again():
    corrected = stamps(OTHER, TWO, THREE)
    loaded = {APRIL: corrected[0], MAY: LOADED[MAY], JUNE: LOADED[JUNE]}
    assert next_arrival(LANDED | {APRIL: OTHER}, loaded).stamp == corrected[1]


def test_content_that_comes_back_has_its_first_stamp_again():
    assert next_arrival(LANDED, LOADED | {JUNE: stamps(ONE, TWO, OTHER)[2]}).stamp == LOADED[JUNE]


def test_a_loaded_period_of_which_something_is_missing_is_loaded_again():
    assert requested(LANDED, LOADED, unfinished={MAY}) == MAY


def test_a_file_that_was_taken_away_after_loading_changes_nothing():
    assert next_arrival({MAY: TWO, JUNE: THREE}, LOADED) is None
    assert next_arrival({MAY: TWO, JUNE: THREE}, LOADED, unfinished={APRIL}) is None


def test_a_period_that_was_loaded_without_a_stamp_is_loaded_again():
    assert requested({APRIL: ONE}, {APRIL: ""}) == APRIL
