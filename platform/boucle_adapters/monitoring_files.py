"""What monitoring wrote of a model, in files; serving, the exporter of metrics and people read them.

Live performance is in `<data>/<model>/live_performance/<period>.json`, restatements beside it (`<period>.1.json`),
drift in `<data>/documents/<model>/drift_report/<period>.json`, the page for people in `<data>/<model>/monitoring.html`.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from boucle.contracts.ids import ModelName, ModelVersion, PeriodKey
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.performance import MonitoringHistory, PerformanceReport
from boucle.stats.performance_history import monitoring_history
from boucle_adapters.atomic_file import replace_bytes


class MonitoringFiles:
    """Reports by model and window. None of performance is written over."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def write(self, report: PerformanceReport) -> Path:
        """Keep a report; a reader sees a whole one."""
        number = f".{report.restatement}" if report.restatement else ""
        file = self._folder(report.model) / f"{report.period}{number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(file, report.model_dump_json(indent=1).encode())
        return file

    def statements(self, model: ModelName, period: str) -> tuple[PerformanceReport, ...]:
        """What was reported of one window, the first report first."""
        folder = self._folder(model)
        files = [*folder.glob(f"{period}.json"), *folder.glob(f"{period}.[0-9]*.json")]
        return tuple(self._read(sorted(files, key=_stated_by)))

    def newest(self, model: ModelName, *, last: int | None = None) -> tuple[PerformanceReport, ...]:
        """The newest report of each window, oldest window first; of the `last` windows where that is given."""
        newest: dict[str, Path] = {}
        for file in sorted(self._folder(model).glob("*.json"), key=_stated_by):
            newest[_stated_by(file)[0]] = file
        files = [newest[period] for period in sorted(newest)]
        return tuple(self._read(files if last is None else files[max(len(files) - last, 0) :]))

    def newest_about(self, model: ModelName, version: ModelVersion, *, since: datetime) -> PerformanceReport | None:
        """The newest report, if it is about this version as production and was made since a moment."""
        for report in self.newest(model, last=1):
            if report.production_version == version and report.created_at >= since:
                return report
        return None

    def drift(self, model: ModelName, period: str) -> DriftReport | None:
        """The drift report of one window; None where there is none that can be read."""
        file = self._data_dir / "documents" / model / "drift_report" / f"{period}.json"
        try:
            return DriftReport.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None

    def history(
        self, model: ModelName, *, last: int, drift: Mapping[PeriodKey, DriftReport] | None = None
    ) -> MonitoringHistory:
        """The newest report of each of the last windows with its drift, oldest first; `drift` before the files."""
        reports, fresh = self.newest(model, last=last), drift or {}
        found = [(report, fresh.get(report.period) or self.drift(model, report.period)) for report in reports]
        return monitoring_history(model, found)

    def page(self, model: ModelName) -> Path:
        """Where the page for people is; it need not be there."""
        return self._data_dir / model / "monitoring.html"

    def _folder(self, model: ModelName) -> Path:
        return self._data_dir / model / "live_performance"

    def _read(self, files: list[Path]) -> Iterator[PerformanceReport]:
        for file in files:
            try:
                yield _report(file, file.stat().st_mtime_ns)
            except (OSError, ValidationError):  # removed meanwhile, or of a release that this one does not know
                continue


@lru_cache(maxsize=512)
def _report(file: Path, modified_ns: int) -> PerformanceReport:  # noqa: ARG001 - names the content
    return PerformanceReport.model_validate_json(file.read_bytes())


def _stated_by(file: Path) -> tuple[str, int]:
    period, _, number = file.stem.partition(".")
    return period, int(number) if number.isdigit() else 0
