"""Ids of requests and predictions: 128 random bits from the system, as hexadecimal text."""

import os
from collections import deque

_AT_A_TIME = 256
"""A system call for each id costs more than making one."""
_ready: deque[str] = deque()


def new_id() -> str:
    """An id that nobody had before. Safe to call from any thread; a process made by `fork` would repeat ids."""
    try:
        return _ready.pop()
    except IndexError:
        text = os.urandom(16 * _AT_A_TIME).hex()
        ids = [text[place : place + 32] for place in range(0, len(text), 32)]
        _ready.extend(ids[1:])
        return ids[0]
