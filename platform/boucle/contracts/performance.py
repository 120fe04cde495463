"""Documents of performance: how the live versions did."""

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelVersion


class WindowPerformance(Document):
    """One version's realised performance on the predictions whose labels matured in one period."""

    version: ModelVersion
    predictions: int
    positives: int
    mean_score: float
    positive_rate: float
    log_loss: float
