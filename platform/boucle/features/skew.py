"""Training/serving skew: are the features that an answer was made of those that training reads?"""

from collections.abc import Sequence

import pandas as pd

ROW = ("entity_key", "features_as_of")
"""What names a feature row, served or kept."""


def differing_values(served: pd.DataFrame, kept: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Per served row and feature, whether the value is another than that of the kept row of the same name.

    Two missing values are equal. A row or a column that was not kept differs from everything.

    Args:
        served: Features of answers: `ROW` and `names`, in any order; a row may occur many times.
        kept: Features that training reads: `ROW`, unique, and `names`.
        names: The features to compare.

    Returns:
        Shape [len(served), len(names)], booleans, with the index of `served`.
    """
    columns = [name for name in names if name in kept.columns]
    asked = kept.loc[kept["entity_key"].isin(served["entity_key"]), [*ROW, *columns]]
    found = served[list(ROW)].merge(asked, on=list(ROW), how="left", validate="many_to_one", indicator=True)
    values, expected = served[list(names)].reset_index(drop=True), found.reindex(columns=list(names))
    same = (values == expected) | (values.isna() & expected.isna())
    same.loc[:, [name for name in names if name not in columns]] = False
    same.loc[found["_merge"] != "both"] = False
    return ~same.set_index(served.index)
