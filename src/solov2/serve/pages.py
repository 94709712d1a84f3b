"""What browsers and operators get: the page, the description of the API, health and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from solov2.serve.docs_page import STYLE, docs_html
from solov2.serve.refusals import busy
from solov2.serve.schemas import Refusal
from solov2.serve.service import Service

PAGE = Path(__file__).parent / "page"
FRONT = "index.html"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
}
"""What is sent; other files in the folder are not. Not asked of the system, whose table may be changed."""

CACHING = "no-cache"
"""Kept by browsers and asked for each time: a new version of the package shows at once, an old one costs 304."""


@dataclass(frozen=True)
class StaticFile:
    """A file of the page, held in memory.

    Attributes:
        content: its bytes.
        media: its content type.
        tag: changes with the content.
    """

    content: bytes
    media: str
    tag: str

    def answer(self, request: Request) -> Response:
        """The file, or 304 if the browser has it."""
        headers = {"ETag": self.tag, "Cache-Control": CACHING}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.tag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media, headers=headers)


def static_file(content: bytes, media: str) -> StaticFile:
    """A file from its content."""
    return StaticFile(content, media, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def page_files(folder: Path = PAGE) -> Mapping[str, StaticFile]:
    """The files below a folder by their address; no other address leads to any file."""
    return {
        path.relative_to(folder).as_posix(): static_file(path.read_bytes(), TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in TYPES and path.is_file()
    }


def page_routes(files: Mapping[str, StaticFile]) -> APIRouter:
    """The page at ``/`` and its files below ``/page``."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    @router.head("/")
    async def front(request: Request) -> Response:
        if FRONT in files:
            return files[FRONT].answer(request)
        return PlainTextResponse("solov2: this installation has no page; the API is described at /docs\n")

    @router.get("/page/{name:path}")
    @router.head("/page/{name:path}")
    async def page(request: Request, name: str) -> Response:
        if name not in files:
            return JSONResponse({"error": "the page has no such file"}, 404)
        return files[name].answer(request)

    @router.get("/gradio/{name:path}")
    async def gradio() -> Response:
        return RedirectResponse("/")

    return router


def docs_routes() -> APIRouter:
    """A description of the API at ``/docs``, without scripts and from this service alone."""
    router = APIRouter(include_in_schema=False)
    style = static_file(STYLE.encode(), TYPES[".css"])

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        return HTMLResponse(docs_html(request.app.openapi()), headers={"Cache-Control": CACHING})

    @router.get("/docs/style.css")
    async def docs_style(request: Request) -> Response:
        return style.answer(request)

    return router


def health_routes(service: Service) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive?", response_class=PlainTextResponse)
    async def healthz() -> str:
        return "ok\n"

    @router.get(
        "/readyz",
        summary="Does it take requests?",
        response_class=PlainTextResponse,
        responses={503: {"model": Refusal, "description": "It is being stopped."}},
    )
    async def readyz() -> str:
        if not service.ready:
            raise busy("the service is being stopped")
        return "ok\n"

    @router.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
