"""Heads that need no parser: what is taken for plain is what the parser says; what is not quite plain is not."""

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from boucle_serving.plain_head import PlainHead, plain_head

HEAD = b"POST /models/repurchase/predict HTTP/1.1\r\nHost: here\r\nContent-Length: 12\r\nX-Request-Id: a-1"


def test_a_plain_head_is_read():
    assert plain_head(HEAD) == PlainHead(
        "/models/repurchase/predict",
        12,
        [(b"host", b"here"), (b"content-length", b"12"), (b"x-request-id", b"a-1")],
        "a-1",
    )


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"POST", b"GET"),
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HEAD.replace(b"/predict", b"/predict?x=1"),
        HEAD.replace(b"/predict", b"/pre%64ict"),
        HEAD.replace(b"Content-Length: 12", b"Content-Length: +12"),
        HEAD.replace(b"Content-Length: 12", b"Content-Length: 99999999"),
        HEAD.replace(b"Content-Length: 12\r\n", b""),
        HEAD + b"\r\nContent-Length: 12",
        HEAD + b"\r\nTransfer-Encoding: chunked",
        HEAD + b"\r\nExpect: 100-continue",
        HEAD + b"\r\nConnection: close",
        HEAD + b"\r\nConnection: keep-alive, upgrade",
        HEAD + b"\r\nUpgrade: websocket",
        HEAD + b"\r\nContent-Encoding: gzip",
        HEAD + b"\r\n folded: value",
        HEAD + b"\r\nname : value",
        HEAD + b"\r\nname: val\nue: x",
        HEAD + b"\r\nname: val\rue",
        HEAD + b"\r\nname: \x00",
        HEAD + b"\r\nno colon",
        HEAD + b"\r\nHost: there",
        HEAD + b"\r\nname: " + b" " * 7_900 + b"\x80",
        b"",
    ],
)
def test_what_changes_how_a_body_is_read_or_is_not_quite_right_is_for_the_parser(head: bytes):
    assert plain_head(head) is None


def test_an_id_that_is_not_plain_is_none():
    found = plain_head(HEAD.replace(b"a-1", b"a 1"))
    assert found is not None
    assert found.request_id is None


class Parsed:
    """What the parser says of one request."""

    def __init__(self, head: bytes, length: int) -> None:
        self.url, self.headers, self.body, self.complete = b"", [], b"", False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(head + b"\r\n\r\n" + b"x" * length)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


names = st.sampled_from(
    [b"Host", b"Accept", b"X-Request-Id", b"Connection", b"Content-Type", b"Cookie", b"TE", b"expect"]
)
values = st.one_of(
    st.sampled_from(
        [b"keep-alive", b"close", b"100-continue", b"chunked", b"application/json", b"a-1", b"", b" padded "]
    ),
    st.binary(max_size=6),
)
lines: Any = st.tuples(names, st.sampled_from([b": ", b":", b" : ", b":\t"]), values).map(b"".join)


@given(
    lines=st.lists(lines, max_size=5),
    length=st.integers(0, 50),
    path=st.sampled_from([b"/predict", b"/a/../b", b"/p?q"]),
)
@example(lines=[b"Host: x"], length=0, path=b"/predict")
def test_what_is_plain_the_parser_reads_alike(lines: list[bytes], length: int, path: bytes):
    head = b"\r\n".join([b"POST " + path + b" HTTP/1.1", *lines, b"content-length: %d" % length])
    found = plain_head(head)
    if found is None:
        return
    parsed = Parsed(head, length)
    assert (parsed.url.decode(), parsed.headers) == (found.path, found.headers)
    assert (len(parsed.body), parsed.complete) == (found.content_length, True)
    assert parsed.parser.should_keep_alive()
