"""The service as an ASGI application: routes, and one form for everything that goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from solov2.serve import hub_protocol, v1
from solov2.serve.access import CLIENT_GONE, HEADERS, Access
from solov2.serve.models import Models
from solov2.serve.options import ServeOptions
from solov2.serve.pages import docs_routes, health_routes, page_files, page_routes
from solov2.serve.refusals import RefusedError
from solov2.serve.service import Service
from solov2.version import __version__

DESCRIPTION = "SOLOv2 instance segmentation: every object of a picture as a mask with a class and a score."


def create_app(models: Models, options: ServeOptions | None = None) -> FastAPI:
    """The application; its queue runs from now until the application is shut down.

    Args:
        models: loaded, as :func:`~solov2.serve.models.load_models` gives them.
        options: limits, key, origins; the models named in them are not looked at.

    Returns:
        An ASGI application; ``app.state.service`` is its :class:`~solov2.serve.service.Service`.
    """
    options = options or ServeOptions()
    service = Service(models, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="solov2",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    routers = (v1.routes(service), hub_protocol.routes(service), health_routes(service), docs_routes())
    for router in (*routers, page_routes(page_files())):
        app.include_router(router)
    _add_refusals(app, service)
    # The last one added is the outermost.
    app.add_middleware(
        Access,
        api_key=options.api_key,
        count=lambda route, status: service.metrics.requests.labels(route, str(status)).inc(),
    )
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", "X-API-Key"),
            expose_headers=("Retry-After",),
        )
    return app


def _add_refusals(app: FastAPI, service: Service) -> None:
    """Every answer that is no result is ``{"error": "one line"}``."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return _line(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == HTTPStatus.NOT_FOUND and path.startswith(hub_protocol.START):
            return hub_protocol.no_module(service, path.removeprefix(hub_protocol.START))
        return _line(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        given = str(first.get("input"))[:60]
        return _line(HTTPStatus.UNPROCESSABLE_ENTITY, f"{where} is {given!r}: {first['msg']}")

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        words = f"this should not have happened ({type(error).__name__})"
        return _line(HTTPStatus.INTERNAL_SERVER_ERROR, words, HEADERS)  # outside of the layer that adds them


def _line(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(message.split())}, int(status), headers)
