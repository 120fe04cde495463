"""`python -m boucle_serving.main`: one serving replica, configured by `BOUCLE_*` variables."""

import gc
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from boucle.contracts.ids import ModelName
from boucle.errors import BoucleError, ConfigurationError
from boucle_adapters.atomic_file import replace_bytes
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.clock import HomeClock
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.logs import configure_logs
from boucle_adapters.look_files import LookFiles
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.rank_log import RankSegments
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore
from boucle_adapters.tokens import TokenStore
from boucle_serving.admission import Limits
from boucle_serving.app import Parts, create_app
from boucle_serving.predict_protocol import PredictProtocol
from boucle_serving.worker_metrics import Workers, announced_address
from boucle_serving.workers import GRACE_SECONDS, Supervisor, end_with_parent

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep an idle connection (60 s): else they send a request into one that is being closed."""


def parts_of(settings: Settings, address: str) -> Parts:
    """The parts of a replica of this home."""
    return Parts(
        open_state=lambda: SqlStateStore.open(settings.state_store_url),
        open_online=lambda model: OnlineStore(settings.online_dir / model),
        bundles=DirectoryBundleStore(settings.bundles_dir),
        log=SegmentLog(
            settings.log_dir,
            segment_bytes=settings.log_segment_bytes,
            segment_seconds=settings.log_segment_seconds,
            sync_each=settings.log_sync_seconds == 0,
        ),
        feedback=FeedbackSegments(
            settings.feedback_dir,
            segment_bytes=settings.log_segment_bytes,
            segment_seconds=settings.log_segment_seconds,
            sync_each=True,  # a prediction could be asked again; an outcome that was told is told once
        ),
        shadows=ShadowSegments(
            settings.shadow_dir,
            segment_bytes=settings.log_segment_bytes,
            segment_seconds=settings.log_segment_seconds,
        ),
        ranks=RankSegments(
            settings.rank_dir,
            segment_bytes=settings.log_segment_bytes,
            segment_seconds=settings.log_segment_seconds,
            sync_each=settings.log_sync_seconds == 0,
        ),
        log_sync_seconds=settings.log_sync_seconds,
        serve_unlogged=settings.when_log_fails == "serve",
        trial_seconds=settings.trial_seconds,
        slow_seconds=settings.slow_seconds,
        open_clock=lambda model: HomeClock(settings.clock_file(model), look_seconds=settings.plan_poll_seconds),
        replica=settings.replica,
        address=address,
        default_model=ModelName(settings.default_model),
        plan_poll_seconds=settings.plan_poll_seconds,
        tokens=TokenStore(settings.tokens_file),
        evidence=EvidenceFiles(settings.data_dir),
        looks=LookFiles(settings.data_dir),
        monitoring=MonitoringFiles(settings.data_dir),
        limits=Limits(
            require_key=settings.require_api_key,
            requests_per_second=settings.requests_per_second,
            concurrent_requests=settings.concurrent_requests,
            body_seconds=settings.body_seconds,
        ),
        replica_timeout_seconds=settings.replica_timeout_seconds,
        replica_guard=settings.replica_guard,
    )


def announcement_file(settings: Settings) -> Path:
    """Where a running replica says its address and process id; it is there only while the replica answers."""
    return settings.home_dir / f"serving-{settings.replica}.json"


def server_config(app: FastAPI) -> uvicorn.Config:
    """How an app of `create_app` is served."""
    return uvicorn.Config(
        app,
        http=PredictProtocol,
        access_log=False,
        server_header=False,
        log_config=None,  # its lines go where ours go
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


class _Server(uvicorn.Server):
    """Says where it answers once it does; calls `ended` when the last request is answered."""

    def __init__(self, config: uvicorn.Config, file: Path, text: str, ended: Callable[[], None]) -> None:
        super().__init__(config)
        self._file = file
        self._text = text
        self._ended = ended

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _announce(self._file, self._text)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._file.unlink(missing_ok=True)
        await super().shutdown(sockets)
        self._ended()


def serve(settings: Settings) -> None:
    """Answer until SIGTERM or Ctrl-C; requests under way are finished first.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    configure_logs(settings, replica=settings.replica)
    bound = _bind(settings)
    address = _address(bound, settings.advertised_host)
    file, text = announcement_file(settings), _announcement(address)
    if settings.workers > 1:
        bound.listen()
        Supervisor(settings, bound, announcement_file).run(
            announce=lambda: _announce(file, text), withdraw=lambda: file.unlink(missing_ok=True)
        )
        return
    sockets = [bound]
    if settings.shared_socket is not None:
        sockets.append(socket.socket(fileno=settings.shared_socket))
        end_with_parent()
    workers = _siblings(settings, sockets[-1]) if len(sockets) > 1 else None
    app = create_app(replace(parts_of(settings, address), workers=workers))
    ended = _traced(app, settings)
    config = server_config(app)
    gc.collect()
    gc.freeze()  # what was imported stays: looking at it again and again would hold up requests
    with suppress(KeyboardInterrupt):  # uvicorn has shut down already and raises the signal again
        _Server(config, file, text, ended).run(sockets=sockets)


def _traced(app: FastAPI, settings: Settings) -> Callable[[], None]:
    """Trace requests where somebody wants them; returns what ends that."""
    if not settings.traces_wanted:
        return lambda: None
    from boucle_serving.tracing import trace_app  # noqa: PLC0415 - an extra, and half a second of imports

    return trace_app(app, settings)


def _siblings(settings: Settings, shared: socket.socket) -> Workers:
    """All the workers of this one's supervisor, this one included."""
    group = settings.replica.rpartition(".")[0]

    def addresses() -> dict[str, str]:
        found = {}
        for file in sorted(settings.home_dir.glob(f"serving-{group}.*.json")):
            with suppress(FileNotFoundError):  # it ends, or is being replaced
                found[file.stem.removeprefix("serving-")] = announced_address(file.read_text())
        return found

    return Workers(port=shared.getsockname()[1], addresses=addresses)


def _announcement(address: str) -> str:
    return json.dumps({"address": address, "pid": os.getpid()})


def _announce(file: Path, text: str) -> None:
    replace_bytes(file, text.encode())
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _address(bound: socket.socket, advertised_host: str) -> str:
    """Where the platform reaches this replica; bound to every address, it must be told by which name."""
    host, port = bound.getsockname()[:2]
    host = advertised_host or host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"Cannot answer on {settings.host}:{settings.port} ({error.strerror}). Set BOUCLE_HOST and BOUCLE_PORT to "
            "a free address; port 0 takes any free port."
        ) from error
    return bound


def main() -> int:
    """Run a replica; the exit code is 1 when it could not start."""
    try:
        serve(Settings())
    except BoucleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
