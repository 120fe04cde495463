"""What can be exported exactly, and how an estimator that cannot is refused."""

from boucle.errors import ExportError

SUPPORTED = (
    "a scikit-learn Pipeline of 'passthrough', ColumnTransformer, SimpleImputer, StandardScaler, MinMaxScaler, "
    "OneHotEncoder and OrdinalEncoder steps, and a binary HistGradientBoostingClassifier, RandomForestClassifier, "
    "ExtraTreesClassifier, DecisionTreeClassifier or LogisticRegression"
)


def refuse(what: object, change: str) -> ExportError:
    """The error that names `what`, says what to change, and lists what is supported."""
    return ExportError(
        f"{type(what).__name__} cannot be exported exactly. {change} Supported is {SUPPORTED}. Nothing was exported."
    )


def check_width(what: object, width: int) -> None:
    """Raise an error where a fitted part expects another number of columns than reach it.

    Raises:
        ExportError: The numbers differ.
    """
    expected = getattr(what, "n_features_in_", width)
    if expected != width:
        raise ExportError(
            f"The estimator was fitted on {expected} columns, but {width} reach it. Fit it on the features of the "
            "contract, in their order. Nothing was exported."
        )
