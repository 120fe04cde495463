"""Which prediction gets which outcome, and what is said of those that have none."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from assets_tests.judging import day
from assets_tests.records import prediction
from boucle.contracts.feedback import FeedbackFields
from boucle.contracts.ids import ModelName
from boucle.contracts.windows import Period
from boucle.errors import DataContractError
from boucle.features.outcomes import OutcomeSettings, OutcomeSource
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.ground_truth import (
    Joined,
    Truth,
    coverage_check,
    join_outcomes,
    outcomes,
    stated_rows,
    statements,
)
from boucle_platform.model_loop.steps.prediction_log import collect_predictions

SPEC = catalogue.spec_of("repurchase")
ASKED = day("1997-05-20")
MAY, JUNE = SPEC.period("1997-05"), SPEC.period("1997-06")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Customers 4, 7, 9 have features of 1 May; on 31 May an order of 4 is known, and that 9 never has an outcome."""
    made = Home(Settings(home=str(tmp_path)))
    with made.warehouse.connect() as connection:
        connection.execute(
            f"create table {SPEC.labels} ({SPEC.entity} varchar, as_of timestamp, label integer, known_at timestamp)"
        )
        connection.execute(
            f"insert into {SPEC.labels} values ('4', '1997-05-01', 1, '1997-05-31'), "
            "('9', '1997-05-01', null, '1997-05-31')"
        )
    yield made
    made.log.close()
    made.feedback.close()


def ask(home: Home, number: int, *, entity: str, as_of: datetime, at: datetime = ASKED, **changes: Any) -> None:
    """An answer made of the features of 1 May."""
    home.log.append(prediction(number, at=at, entity_key=entity, as_of=as_of, **changes))


def joined(home: Home, period: Period = MAY) -> Joined:
    return truth(home, period).joined[period.key]


def truth(home: Home, *periods: Period) -> Truth:
    collect_predictions(home, SPEC, [MAY, JUNE])
    return join_outcomes(home, SPEC, periods)


def figures(found: Joined) -> tuple[int, int, int, float | None]:
    """Known, positives among them, due, coverage."""
    said = found.outcomes
    return said.known, said.positives, said.due, said.coverage


def tell(home: Home, number: int, outcome: float, *, received: str, model: str | None = None) -> None:
    """A caller says what became of a prediction."""
    at = day(received)
    home.feedback.append(
        FeedbackFields(
            schema_version=1,
            prediction_id=str(number),
            outcome=outcome,
            reward=None,
            at=at,
            received_at=at,
            model=None if model is None else ModelName(model),
            replica="one",
        )
    )


def correct(home: Home, entity: str, label: int | None) -> None:
    """A corrected file has landed, and the labels of the window were built again."""
    with home.warehouse.connect() as connection:
        connection.execute(f"update {SPEC.labels} set label = ? where {SPEC.entity} = ?", [label, entity])


def test_a_prediction_asked_between_two_feature_rows_gets_the_outcome_of_the_row_that_answered(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="4", as_of=day("1997-05-15"))
    found = joined(home)
    assert figures(found) == (2, 2, 2, 1.0)
    assert [f"{asked:%d %b}" for asked in outcomes(home, SPEC, "1997-05")["as_of"]] == ["01 May", "15 May"]
    assert coverage_check(found).passed


def test_of_features_that_the_caller_gave_nobody_knows_the_outcome(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), features_as_of=None)
    ask(home, 2, entity="4", as_of=day("1997-05-01"))
    found = joined(home)
    assert figures(found) == (1, 1, 1, 1.0)
    assert found.outcomes.without_moment == 1
    assert list(outcomes(home, SPEC, "1997-05")["prediction_id"]) == ["2"]


def test_where_all_features_were_given_no_outcome_is_due(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), features_as_of=None)
    assert joined(home).outcomes.due == 0


def test_a_due_prediction_without_outcome_is_counted_and_warned_about(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="7", as_of=day("1997-05-15"))
    found = joined(home)
    check = coverage_check(found)
    assert figures(found) == (1, 1, 2, 0.5)
    assert found.outcomes.pending == 1
    assert not check.passed
    assert check.severity.value == "WARN"
    assert check.description == "1 of 2 due predictions have their outcome"


def test_without_a_due_prediction_coverage_is_not_known_and_not_passed(home: Home):
    found = joined(home)
    assert found.outcomes.coverage is None
    assert not coverage_check(found).passed
    assert coverage_check(found).description == "no prediction was due in the period: nothing is known"


def test_labels_whose_keys_are_numbers_are_refused_with_what_to_do(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    with home.warehouse.connect() as connection:
        connection.execute(f"alter table {SPEC.labels} alter {SPEC.entity} type integer")
    said = rf"{SPEC.labels}.{SPEC.entity} are int32, for example [49];.*as varchar"
    with pytest.raises(DataContractError, match=said):
        joined(home)
    assert statements(home, SPEC, MAY.key) == ()


def test_a_prediction_that_never_gets_an_outcome_is_neither_due_nor_negative(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="9", as_of=day("1997-05-01"))
    found = joined(home)
    assert figures(found) == (1, 1, 1, 1.0)
    assert found.outcomes.void == 1
    assert set(outcomes(home, SPEC, "1997-05")["entity_key"]) == {"4"}
    assert coverage_check(found).passed
    assert coverage_check(found).description == "1 of 1 due predictions have their outcome; 1 never get one"


def test_a_question_about_a_moment_whose_outcome_is_known_gets_it_in_the_period_of_the_question(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), at=day("1997-06-05"))
    assert figures(joined(home, MAY)) == (0, 0, 0, None)
    assert figures(joined(home, JUNE)) == (1, 1, 1, 1.0)


@pytest.mark.parametrize(
    ("at", "period"), [("1997-05-01", MAY), ("1997-05-31", MAY), ("1997-06-01", JUNE), ("1997-06-30", JUNE)]
)
def test_each_prediction_gets_its_outcome_exactly_once(home: Home, at: str, period: Period):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), at=day(at))
    assert [joined(home, each).outcomes.known for each in (MAY, JUNE)] == [int(period == each) for each in (MAY, JUNE)]


def test_unlabelled_is_not_negative(home: Home):
    """Customer 7 has no row of labels and nobody said anything: pending, in no rate and in no metric."""
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="7", as_of=day("1997-05-01"))
    assert figures(joined(home)) == (1, 1, 2, 0.5)
    assert list(outcomes(home, SPEC, "1997-05")["label"]) == [1]


def test_an_outcome_that_a_caller_sends_is_joined_by_the_prediction_id(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-01"))
    ask(home, 2, entity="7", as_of=day("1997-05-15"), features_as_of=None)  # due 30 days after the moment asked about
    tell(home, 1, 0, received="1997-05-25")
    tell(home, 2, 1, received="1997-05-26")
    assert figures(joined(home, MAY)) == (1, 0, 1, 1.0)
    assert figures(joined(home, JUNE)) == (1, 1, 1, 1.0)
    assert joined(home, JUNE).outcomes.by_source == {"feedback": 1}


def test_an_early_outcome_waits_until_the_others_are_due_since_only_positives_come_early(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-15"), features_as_of=day("1997-05-15"))
    tell(home, 1, 1, received="1997-05-20")
    assert figures(joined(home, MAY)) == (0, 0, 0, None)
    assert figures(joined(home, JUNE)) == (1, 1, 1, 1.0)


def test_where_labels_and_feedback_disagree_the_first_declared_source_wins_and_it_is_told(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    tell(home, 1, 0, received="1997-05-25")
    found = joined(home).outcomes
    assert (found.positives, found.disagreeing, found.by_source) == (1, 1, {"labels": 1})


def test_feedback_wins_where_the_model_says_so(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    tell(home, 1, 0, received="1997-05-25")
    collect_predictions(home, SPEC, [MAY])
    sources = OutcomeSettings(sources=(OutcomeSource.FEEDBACK, OutcomeSource.LABELS))
    spec = SPEC.model_copy(update={"outcomes": sources})
    found = join_outcomes(home, spec, [MAY]).joined[MAY.key].outcomes
    assert (found.known, found.positives, found.by_source) == (1, 0, {"feedback": 1})


def test_what_testers_asked_with_an_arm_of_their_choice_counts_for_nobody(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"), pinned=True)
    ask(home, 2, entity="4", as_of=day("1997-05-01"))
    found = joined(home).outcomes
    assert (found.due, found.known, found.pinned) == (1, 1, 1)


def test_feedback_that_is_no_outcome_is_counted_and_not_joined(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-01"))
    tell(home, 1, 0.5, received="1997-05-25")
    found = joined(home).outcomes
    assert (found.known, found.pending, found.unusable) == (0, 1, 1)


def test_feedback_about_an_unknown_prediction_is_kept_and_reported(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    tell(home, 1, 1, received="1997-05-25")
    tell(home, 77, 1, received="1997-05-26")
    tell(home, 78, 1, received="1997-05-26", model="flight_delay")  # another model's, and its ground truth tells it
    found = joined(home)
    assert (found.outcomes.unknown_feedback, found.outcomes.unknown_ids) == (1, ("77",))
    assert "1 prediction id(s) of feedback are in no log" in str(coverage_check(found).description)


def test_a_late_outcome_makes_a_new_statement_and_leaves_the_first_one_as_it_was(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    ask(home, 2, entity="7", as_of=day("1997-05-01"))
    joined(home, MAY)
    tell(home, 2, 0, received="1997-06-10")
    assert [(found.period, found.late) for found in truth(home, JUNE).restated] == [("1997-05", 1)]
    first, second = statements(home, SPEC, "1997-05")
    assert (first.restatement, first.known_at, first.known, first.pending) == (0, MAY.end, 1, 1)
    assert (second.restatement, second.known_at, second.known, second.pending) == (1, JUNE.end, 2, 0)
    assert list(stated_rows(home, SPEC, first)["prediction_id"]) == ["1"]
    assert list(outcomes(home, SPEC, "1997-05")["label"]) == [1, 0]


def test_a_corrected_label_is_restated_and_counted(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    joined(home, MAY)
    correct(home, "4", 0)
    (found,) = truth(home, JUNE).restated
    assert (found.restatement, found.corrected, found.positives) == (1, 1, 0)
    assert [list(stated_rows(home, SPEC, said)["label"]) for said in statements(home, SPEC, "1997-05")] == [[1], [0]]


def test_a_period_that_is_run_again_states_nothing_new_unless_more_is_known(home: Home):
    ask(home, 1, entity="4", as_of=day("1997-05-01"))
    joined(home, MAY)
    assert truth(home, MAY).restated == ()
    assert truth(home, JUNE).restated == ()
    correct(home, "4", None)
    again = truth(home, MAY)
    assert [(found.restatement, found.known, found.void) for found in again.restated] == [(1, 0, 1)]
    assert again.joined[MAY.key].outcomes.restatement == 1
    assert len(statements(home, SPEC, "1997-05")) == 2


def test_a_period_that_is_run_again_knows_what_a_later_run_knew(home: Home):
    """A label and a message of June; May is run again after June, whose end is later than May's."""
    for number, entity in enumerate("467"):
        ask(home, number, entity=entity, as_of=day("1997-05-01"))
    joined(home, MAY)
    tell(home, 1, 0, received="1997-06-10")
    with home.warehouse.connect() as connection:
        connection.execute(f"insert into {SPEC.labels} values ('7', '1997-05-01', 1, '1997-06-12')")
    truth(home, JUNE)
    assert truth(home, MAY).restated == ()
    assert [(said.known, said.pending) for said in statements(home, SPEC, "1997-05")] == [(1, 2), (3, 0)]


def test_a_run_of_two_periods_states_each_as_it_was_known_at_its_own_end(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-01"))
    tell(home, 1, 1, received="1997-06-10")
    collect_predictions(home, SPEC, [MAY, JUNE])
    found = join_outcomes(home, SPEC, [MAY, JUNE])
    assert figures(found.joined[MAY.key]) == (0, 0, 1, 0.0)
    (restated,) = truth(home, JUNE).restated
    assert (restated.period, restated.known, restated.late) == ("1997-05", 1, 1)


def test_news_about_a_window_that_is_too_old_are_counted_and_not_joined(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-01"))
    joined(home, MAY)
    tell(home, 1, 1, received="1997-06-10")
    spec = SPEC.model_copy(update={"outcomes": OutcomeSettings(restate_days=0)})
    collect_predictions(home, spec, [JUNE])
    found = join_outcomes(home, spec, [JUNE])
    assert found.restated == ()
    assert (found.joined[JUNE.key].outcomes.too_late, found.joined[JUNE.key].outcomes.unknown_feedback) == (1, 0)
    assert "1 outcome(s) came too late to be joined" in str(coverage_check(found.joined[JUNE.key]).description)


def late_in_june(home: Home) -> int:
    """How many outcomes of June came too late, where no earlier window is restated."""
    spec = SPEC.model_copy(update={"outcomes": OutcomeSettings(restate_days=0)})
    collect_predictions(home, spec, [JUNE])
    return join_outcomes(home, spec, [JUNE]).joined[JUNE.key].outcomes.too_late


def test_an_outcome_that_was_due_before_it_was_asked_about_is_not_too_late_in_the_window_of_the_question(home: Home):
    """Due on 31 May, asked about on 5 June: June's, joined in June."""
    ask(home, 1, entity="7", as_of=day("1997-05-01"), at=day("1997-06-05"))
    tell(home, 1, 1, received="1997-06-10")
    assert late_in_june(home) == 0
    assert list(outcomes(home, SPEC, "1997-06")["label"]) == [1]


def test_an_outcome_that_is_due_at_the_very_end_of_a_window_is_of_that_window(home: Home):
    """Due on 1 June at 00:00, so May's, and May is restated no more."""
    ask(home, 1, entity="7", as_of=day("1997-05-02"), features_as_of=day("1997-05-02"))
    joined(home, MAY)
    tell(home, 1, 1, received="1997-06-10")
    assert late_in_june(home) == 1


def test_an_outcome_that_was_joined_and_is_sent_again_is_not_too_late(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-01"))
    tell(home, 1, 1, received="1997-05-25")
    assert figures(joined(home, MAY)) == (1, 1, 1, 1.0)
    tell(home, 1, 1, received="1997-06-10")
    assert late_in_june(home) == 0


def test_an_outcome_that_was_joined_and_is_contradicted_later_is_too_late(home: Home):
    ask(home, 1, entity="7", as_of=day("1997-05-01"))
    tell(home, 1, 1, received="1997-05-25")
    joined(home, MAY)
    tell(home, 1, 0, received="1997-06-10")
    assert late_in_june(home) == 1
