"""`boucle exporter`: what the platform did and what it watches, for Prometheus."""

import signal
from threading import Event

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from boucle.errors import ConfigurationError
from boucle_adapters.exposition import ReadAtScrape
from boucle_adapters.logs import configure_logs
from boucle_adapters.platform_metrics import PlatformSources
from boucle_adapters.settings import Settings
from boucle_cli.output import OUT
from boucle_cli.services import ENDING


def registry_of(settings: Settings) -> CollectorRegistry:
    """Everything that is exported of a home, read when it is asked for."""
    registry = CollectorRegistry()
    registry.register(ReadAtScrape(PlatformSources(settings=settings)))
    ProcessCollector(registry=registry)
    return registry


def export(settings: Settings, *, host: str, port: int) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    configure_logs(settings)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry_of(settings))
    except OSError as error:
        raise ConfigurationError(
            f"Cannot answer on {host}:{port} ({error.strerror}). Choose another --host or --port; port 0 takes any "
            "free one. Nothing was started."
        ) from error
    end = Event()
    for number in ENDING:
        signal.signal(number, lambda *_: end.set())
    OUT.print(f"http://{host}:{server.server_port}/metrics", highlight=False, soft_wrap=True)
    end.wait()
    server.shutdown()
    server.server_close()
    thread.join()
