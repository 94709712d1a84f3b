"""What happens to every request: its key is looked at, its answer gets safe headers, its end is counted."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEYED = ("/predict", "/v1", "/metrics")
"""Beginnings of the addresses that need the key; the page, its description and the health checks do not."""

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
CLIENT_GONE = 499
"""What is counted where nobody was there any more to be answered."""


class Access:
    """The outermost layer of the service.

    Args:
        app: the layer below.
        api_key: what clients have to send as ``X-API-Key``, or as ``Authorization: Bearer``; empty: nothing.
        count: is told the route's pattern and the status of every request.
    """

    def __init__(self, app: ASGIApp, api_key: str, count: Callable[[str, int], object]) -> None:
        self._app = app
        self._key = _digest(api_key) if api_key else b""
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if self._refuses(scope):
                refusal = {"error": "the API key is missing or wrong; send it as X-API-Key, or Authorization: Bearer"}
                await JSONResponse(refusal, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        except Exception:
            # Its answer is made further out.
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            raise
        finally:
            route = scope.get("route")
            self._count(getattr(route, "path", "none"), int(status))

    def _refuses(self, scope: Scope) -> bool:
        path = scope["path"]
        if not self._key or not any(path == start or path.startswith(f"{start}/") for start in KEYED):
            return False
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        return not hmac.compare_digest(_digest(given), self._key)


def _digest(key: str) -> bytes:
    # Keys of all lengths take the same time to compare.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
