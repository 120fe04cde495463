"""Messages to where people are: webhooks, chats, mail, as apprise knows their URLs."""

import logging

import apprise

from boucle.errors import ConfigurationError
from boucle.policy.notices import Notice, Urgency

_TYPES = {
    Urgency.INFO: apprise.NotifyType.INFO,
    Urgency.WARNING: apprise.NotifyType.WARNING,
    Urgency.FAILURE: apprise.NotifyType.FAILURE,
}


class Notifier:
    """One destination. `name` says which one without its secrets.

    Args:
        url: As apprise reads it: `json://host/path`, `slack://…`, `mailto://…`.

    Raises:
        ConfigurationError: It is none that apprise knows.
    """

    def __init__(self, url: str) -> None:
        # It logs whole URLs of wrong ones: what is in them is a secret.
        logging.getLogger("apprise").setLevel(logging.CRITICAL)
        found = apprise.Apprise.instantiate(url)
        if found is None:
            scheme = url.partition("://")[0][:20]
            raise ConfigurationError(
                f"BOUCLE_ALERT_URLS: one of its URLs ({scheme}://…) is none that apprise knows, like "
                "json://host:port/path. Several are separated by blanks. Nobody was told anything."
            )
        self._destination = found
        self.name = str(found.url(privacy=True)).partition("?")[0]  # type: ignore[no-untyped-call]

    def send(self, notice: Notice) -> bool:
        """Whether it took the message; waits a few seconds at most."""
        return bool(self._destination.notify(body=notice.text, title=notice.title, notify_type=_TYPES[notice.urgency]))
