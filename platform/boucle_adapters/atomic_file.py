"""Files put in place by rename: a reader sees the whole new content or the whole old one."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def put_in_place(file: Path) -> Iterator[Path]:
    """Give a draft beside `file` to write to, and rename it to `file` when the block ends well; else remove it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def replace_bytes(file: Path, content: bytes) -> None:
    """Make `content` the whole content of `file`."""
    with put_in_place(file) as draft:
        draft.write_bytes(content)
