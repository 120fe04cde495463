"""The limit: an ASGI app that reads the request and gives an answer of the size of boucle's, on the same server."""

import sys
from typing import Any

import uvicorn

_ANSWER = (
    b'{"entity":"00004","as_of":"2026-01-01","proba":0.12345678901234567,"prediction_id":'
    b'"0b5c8a3e8b0d4a0f9f3e2c1d5a6b7c8d","model":"benchmark","model_version":1}'
)
_HEAD: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())],
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer anything."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    await send(_HEAD)
    await send({"type": "http.response.body", "body": _ANSWER})


if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    uvicorn.run("bare:app", port=port, workers=workers, access_log=False, log_level="warning", lifespan="off")
