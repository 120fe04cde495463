"""Everything that is known of the outcomes of a row of windows, from every source, read once for all of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boucle.contracts.document import canonical_json
from boucle.contracts.feedback import FEEDBACK_STREAM, FeedbackRecord
from boucle.contracts.ids import Digest
from boucle.contracts.outcomes import WindowOutcomes
from boucle.contracts.windows import Period
from boucle.features.contract import keys_are_text
from boucle.features.outcomes import OutcomeSource, Resolved, Said, resolve, windows_of
from boucle_adapters.feedback import by_arrival, prediction_ids
from boucle_adapters.home import Home
from boucle_adapters.rank_facts import ranked_ids
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.prediction_log import naive, served_between

_IDS_KEPT = 20


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Predictions of a row of windows, and what each source says of them.

    `place` is the window of each row of `predictions`, -1 where it is another one; `labels` speaks of the same rows,
    `feedback` are the messages in the order in which they came, `unknown` those about no prediction that there is,
    `too_late` those that say anything new about predictions of earlier windows, which are not restated any more.
    """

    spec: LoopSpec
    windows: Sequence[Period]
    predictions: pd.DataFrame
    place: NDArray[np.intp]
    labels: Said
    feedback: Sequence[FeedbackRecord]
    unknown: Sequence[FeedbackRecord]
    too_late: Sequence[FeedbackRecord]

    @classmethod
    def read(
        cls,
        home: Home,
        spec: LoopSpec,
        windows: Sequence[Period],
        *,
        until: datetime,
        stated: Callable[[], pd.DataFrame],
    ) -> Self:
        """All that was known at a moment, their end or later, of these windows, which follow each other.

        `stated` has the labels of all windows as they were stated last; it is asked if need be.
        """
        horizon, end = timedelta(days=spec.horizon_days), naive(windows[-1].end)
        rows = served_between(home, spec, naive(windows[0].start) - horizon, end)
        asked = OutcomeSource.FEEDBACK in spec.outcomes.sources
        heard = _feedback(home, rows, windows[0].start, until) if asked else []
        due = rows["features_as_of"].fillna(rows["as_of"]) + horizon
        # As `windows_of` places them: by when it is due, or by when it was asked if that was later.
        is_current = (due > naive(windows[0].start)) | (rows["at"] >= naive(windows[0].start))
        strange = [one for one in heard if one.received_at <= windows[-1].end and one.model in {None, spec.name}]
        unknown, old = _strange(home, spec, frozenset(rows["prediction_id"][is_current]), strange)
        return cls(
            spec=spec,
            windows=windows,
            predictions=rows,
            place=windows_of(
                [np.datetime64(naive(window.start)) for window in windows],
                [np.datetime64(naive(window.end)) for window in windows],
                due=due,
                at=rows["at"],
            ),
            labels=_labels(home, spec, rows, naive(until)),
            feedback=heard,
            unknown=unknown,
            too_late=_news(old, stated) if old else [],
        )

    def of(self, place: int, until: datetime) -> tuple[pd.DataFrame, WindowOutcomes]:
        """The rows of one window that have an outcome at a moment, and what is then known of all of them."""
        window, asked = self.windows[place], np.flatnonzero(self.place == place)
        is_pinned = self.predictions["pinned"].to_numpy(dtype=np.bool_)[asked]
        members = asked[~is_pinned]
        rows = self.predictions.iloc[members].reset_index(drop=True)
        heard, unusable = _heard(self.feedback, rows, until)
        said = {
            OutcomeSource.LABELS: self.labels.of(members).until(np.datetime64(naive(until))),
            OutcomeSource.FEEDBACK: heard,
        }
        found = resolve([said[source] for source in self.spec.outcomes.sources])
        known = _known(self.spec, rows, found)
        unknown, too_late = (_named(messages, window) for messages in (self.unknown, self.too_late))
        stated = WindowOutcomes(
            model=self.spec.name,
            period=window.key,
            restatement=0,
            known_at=until,
            **_counts(rows, found, known, naive(window.end)),
            pinned=int(is_pinned.sum()),
            corrected=0,
            disagreeing=found.disagreeing,
            unusable=unusable,
            by_source={str(name): int(n) for name, n in known["source"].value_counts().sort_index().items()},
            unknown_feedback=len(unknown),
            unknown_ids=tuple(unknown[:_IDS_KEPT]),
            too_late=len(too_late),
            labels_digest=_digest(rows, found),
        )
        return known, stated


def _known(spec: LoopSpec, rows: pd.DataFrame, found: Resolved) -> pd.DataFrame:
    is_known = ~np.isnan(found.label)
    return rows[is_known].assign(
        label=found.label[is_known].astype("int64"),
        known_at=found.known_at[is_known],
        source=pd.Series([spec.outcomes.sources[one].value for one in found.source[is_known]], dtype="str").to_numpy(),
    )


def _counts(rows: pd.DataFrame, found: Resolved, known: pd.DataFrame, end: datetime) -> dict[str, int]:
    silent = found.source < 0
    void = int((~silent & np.isnan(found.label)).sum())
    without_moment = int((silent & rows["features_as_of"].isna().to_numpy()).sum())
    due = len(rows) - void - without_moment
    return {
        "due": due,
        "known": len(known),
        "positives": int(known["label"].sum()),
        "pending": due - len(known),
        "late": int((known["known_at"] > end).sum()),
        "void": void,
        "without_moment": without_moment,
    }


def _labels(home: Home, spec: LoopSpec, rows: pd.DataFrame, end: datetime) -> Said:
    """What the table of labels says, by (entity, moment of the features).

    Raises:
        DataContractError: Its entity keys are no text.
    """
    labels = home.warehouse.query(
        f"select {spec.entity} as entity_key, as_of as features_as_of, cast(label as double) as label, known_at "  # noqa: S608 - our own names
        f"from {spec.labels} where as_of >= ? and known_at <= ?",
        [end if rows["features_as_of"].isna().all() else rows["features_as_of"].min(), end],
    )
    keys_are_text(labels["entity_key"], column=f"{spec.labels}.{spec.entity}")
    labels["features_as_of"] = labels["features_as_of"].astype("datetime64[us]")
    keys = ["entity_key", "features_as_of"]
    found = rows[keys].merge(labels, on=keys, how="left", validate="many_to_one")
    spoke = found["known_at"].notna().to_numpy()
    return Said(
        spoke=spoke,
        label=found["label"].to_numpy(dtype=np.float64),
        known_at=found["known_at"].to_numpy(dtype="datetime64[us]"),
    )


def _feedback(home: Home, rows: pd.DataFrame, start: datetime, end: datetime) -> list[FeedbackRecord]:
    """The messages about outcomes in `[start, end]`, or since the first of these predictions if that was earlier."""
    first = pd.Timestamp(naive(start)) if rows.empty else min(pd.Timestamp(naive(start)), rows["at"].min())
    said = by_arrival(
        home.feedback.read(FEEDBACK_STREAM, first.tz_localize("UTC").to_pydatetime(), end + timedelta(microseconds=1))
    )
    return [record for record in said if record.outcome is not None]


def _heard(feedback: Sequence[FeedbackRecord], rows: pd.DataFrame, until: datetime) -> tuple[Said, int]:
    """What callers said up to a moment, the last message of each prediction; and how many are neither 0 nor 1."""
    last = {record.prediction_id: record for record in feedback if record.received_at <= until}
    records = [last.get(name) for name in rows["prediction_id"]]
    outcome = np.array([np.nan if one is None else float(one.outcome or 0.0) for one in records], dtype=np.float64)
    usable = np.isin(outcome, (0.0, 1.0))
    moments = [np.datetime64("NaT") if one is None else np.datetime64(naive(one.received_at)) for one in records]
    said = Said(
        spoke=usable,
        label=np.where(usable, outcome, np.nan),
        known_at=np.array(moments, dtype="datetime64[us]"),
    )
    return said, int((~usable & ~np.isnan(outcome)).sum())


def _strange(
    home: Home, spec: LoopSpec, current: frozenset[str], feedback: Sequence[FeedbackRecord]
) -> tuple[list[FeedbackRecord], list[FeedbackRecord]]:
    """The messages, which name this model or none, about no prediction of these windows or later.

    Those about a prediction that is in no log, and those about one of this model's that is too old. The logs are read
    if need be.
    """
    strange = [one for one in feedback if one.prediction_id not in current]
    names = {one.prediction_id for one in strange}
    if not names:
        return [], []
    ours = names.intersection(prediction_ids(home.log, [spec.name]))
    others = [name for name in home.log.streams() if name != spec.name]
    logged = chain(prediction_ids(home.log, others), ranked_ids(home.ranks, home.ranks.streams()))
    nowhere = names.difference(ours, logged)
    return (
        [one for one in strange if one.prediction_id in nowhere],
        [one for one in strange if one.prediction_id in ours],
    )


def _news(messages: Sequence[FeedbackRecord], stated: Callable[[], pd.DataFrame]) -> list[FeedbackRecord]:
    """The messages that say something else than what was stated last: one that is sent again was joined in time."""
    rows = stated()
    labels = dict(zip(rows["prediction_id"], rows["label"], strict=True))
    return [one for one in messages if labels.get(one.prediction_id) != one.outcome]


def _named(messages: Sequence[FeedbackRecord], window: Period) -> list[str]:
    """The predictions that messages of a window name."""
    return sorted({one.prediction_id for one in messages if window.start < one.received_at <= window.end})


def _digest(rows: pd.DataFrame, found: Resolved) -> Digest:
    """Of which predictions there are and what is known of each: equal for equal knowledge."""
    pairs = zip(found.source.tolist(), found.label.tolist(), strict=True)
    said = ["?" if source < 0 else "-" if np.isnan(label) else str(int(label)) for source, label in pairs]
    content = canonical_json(sorted(zip(rows["prediction_id"].tolist(), said, strict=True)))
    return Digest(hashlib.sha256(content).hexdigest())
