"""What production answers, beside what the version before it answers to the same rows: kept for the guard."""

from collections import Counter, OrderedDict
from collections.abc import Iterable

import numpy as np

from boucle.contracts.facts import OutputFacts
from boucle.contracts.prediction import PredictionFields
from boucle.stats.intervals import normal_interval
from boucle_serving.bundles import LoadedBundle

MOST_ROWS = 128
"""Different rows that are compared, the newest, or as many as must be: the version before scores them in one call."""


class Outputs:
    """The newest different rows that one version answered, each once: whoever asks the same again says nothing new."""

    def __init__(self, *, least: int) -> None:
        self._least, self._most = least, max(least, MOST_ROWS)
        self._rows: OrderedDict[bytes, tuple[tuple[float, ...], float]] = OrderedDict()
        self._is_new = False

    def add(self, records: Iterable[PredictionFields]) -> None:
        """Take what was answered."""
        for record in records:
            row = tuple(record["features"])
            key = np.asarray(row).tobytes()  # a missing value is NaN, which equals nothing
            self._rows[key] = (row, record["proba"])
            self._rows.move_to_end(key)
            self._is_new = True
        while len(self._rows) > self._most:
            self._rows.popitem(last=False)

    @property
    def has_more(self) -> bool:
        """Whether there are rows enough, and something came since `facts`."""
        return self._is_new and len(self._rows) >= self._least

    def facts(self, production: LoadedBundle, before: LoadedBundle, *, level: float) -> OutputFacts | None:
        """What both say to these rows; None where the version before cannot answer them: it needs other features.

        Args:
            production: Of whose contract the rows are.
            before: The version that stands by.
            level: Coverage of the interval of the shift.
        """
        self._is_new = False
        names = production.contract.feature_names
        try:
            rows = [before.in_order(row, names) for row, _ in self._rows.values()]
            said = np.array(before.scores(rows))
        except Exception:  # noqa: BLE001 - it needs other features, or fails: nothing to compare with
            return None
        if len(rows) < 2 or not np.isfinite(said).all():
            return None
        answers = np.array([answer for _, answer in self._rows.values()])
        return OutputFacts(
            rows=len(rows),
            commonest=Counter(answers.tolist()).most_common(1)[0][1],
            commonest_before=Counter(said.tolist()).most_common(1)[0][1],
            shift=normal_interval(answers - said, level=level),
            deviation=float(said.std()),
        )
