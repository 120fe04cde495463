"""How an evaluation measures: what wrong answers cost, and into which slices rows fall."""

from pydantic import Field

from boucle.contracts.document import Document


class CostMatrix(Document):
    """What a wrong answer costs, in one unit; a right one costs nothing."""

    false_positive: float = Field(gt=0, description="acting where nothing would have happened")
    false_negative: float = Field(gt=0, description="not acting where it happened")
    unit: str = Field(min_length=1, description="what both are counted in, such as EUR")

    @property
    def threshold(self) -> float:
        """The probability from which acting costs less (Elkan 2001, equation 2).

        >>> CostMatrix(false_positive=1, false_negative=4, unit="EUR").threshold
        0.2
        """
        return self.false_positive / (self.false_positive + self.false_negative)


class Slicing(Document):
    """Features by whose values rows are looked at apart: each of few values, else quarters; missing is a slice too."""

    by: tuple[str, ...] = Field(default=(), description="names of features; empty: all of them")
    min_rows: int = Field(default=500, ge=30, description="rows; a smaller slice is counted, not judged")
