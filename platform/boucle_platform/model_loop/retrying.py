"""Steps that ask an outside service again when it is away; what is wrong for good fails at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from boucle.errors import RegistryError, StateStoreError

RETRIES = 3
FIRST_WAIT_SECONDS = 2.0


@contextmanager
def retried(context: dg.AssetExecutionContext) -> Iterator[None]:
    """The step begins again after 2, 4 and 8 seconds while registry, state store, disk or network give no answer.

    Everything else, a refusal or too little data, is an answer and is not asked for twice.

    Raises:
        RetryRequested: A service is away; after the last time the run fails with the error that the service gave.
    """
    try:
        yield
    except (RegistryError, StateStoreError, OSError) as error:
        wait = FIRST_WAIT_SECONDS * 2**context.retry_number
        context.log.warning(f"{error} Again in {wait:g} s.")
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from error
