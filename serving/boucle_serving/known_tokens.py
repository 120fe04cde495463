"""The tokens of the home in memory: who asks is never a question to the disk."""

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from boucle.errors import ConfigurationError
from boucle_adapters.tokens import MAX_TOKEN_LENGTH, Bearer, Tokens, TokenStore
from boucle_serving.problems import TokensUnknownError

_LOGGER = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
"""A token that was made or revoked is known or refused a second later, with time left to read the file."""
_LATE_SECONDS = 5.0


class KnownTokens:
    """Reads the file of tokens twice a second, in a thread of its own, and says whose a token is without it.

    While the disk does not answer, those that were read last stay in force; a file that is no file of tokens lets
    nobody in.
    """

    def __init__(self, store: TokenStore, *, needed: bool, timer: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._needed = needed
        self._timer = timer
        self._known: tuple[Tokens, dict[bytes, Bearer]] | None = None
        self._tried_since: float | None = None
        self._failure = ""
        self.looked = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll_forever, name="boucle-tokens", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether those who need a token can be let in."""
        return self._known is not None or not self._needed

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; one that waits for the disk is left behind."""
        self._stop.set()
        self._thread.join(timeout=5)

    def poll(self) -> None:
        """Read the file once."""
        if self._tried_since is None:
            self._tried_since = self._timer()
        try:
            self._known = (self._store.read(), {})
        except ConfigurationError as error:
            self._known = None
            self._note(error)
        except OSError as error:
            self._note(error)
        else:
            self._tried_since = None
            self._note(None)

    def bearer(self, token: str) -> Bearer | None:
        """Whose token this is; None if nobody knows it.

        Remembered are the digests of known tokens only: what strangers send is kept nowhere.

        Raises:
            TokensUnknownError: The file was not read yet, or is no file of tokens.
        """
        if self._known is None:
            raise TokensUnknownError("Tokens cannot be looked up now; the log of this replica says why.")
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        tokens, found = self._known
        digest = hashlib.sha256(token.encode()).digest()
        bearer = found.get(digest)
        if bearer is None and (bearer := tokens.bearer(token)) is not None:
            found[digest] = bearer
        return bearer

    def problems(self) -> Sequence[str]:
        """What is wrong with the file of tokens, in a sentence."""
        if not self.ready:
            return ("Tokens are required, and none could be read: nobody is let in. The replica's log says why.",)
        since = self._tried_since
        if since is None or self._timer() - since < _LATE_SECONDS:
            return ()
        return ("The file of tokens cannot be read; those that were read last stay in force.",)

    def _poll_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll()
            except Exception:
                _LOGGER.exception("reading the file of tokens failed; those that were read last stay in force")
            self.looked.set()
            self._stop.wait(_POLL_SECONDS)

    def _note(self, error: Exception | None) -> None:
        failure = "" if error is None else f"{type(error).__name__}: {error}"
        if failure != self._failure:  # it is tried again twice a second
            _LOGGER.warning("file of tokens: %s", failure or "read again")
        self._failure = failure
