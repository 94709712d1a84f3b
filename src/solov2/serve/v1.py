"""The service's own protocol: a picture in, instances out, with HTTP's own words for everything that goes wrong."""

from __future__ import annotations

from http import HTTPStatus
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from solov2.serve.answers import as_id_map, as_json, as_overlay
from solov2.serve.bodies import form_file, is_json, media_type, parse_json, received
from solov2.serve.models import ServedModel
from solov2.serve.pictures import decode_base64
from solov2.serve.refusals import RefusedError, bad, unusable
from solov2.serve.schemas import ModelCard, ModelList, Prediction, Refusal
from solov2.serve.service import Found, Service

FIELD = "image"
"""Of a multipart or JSON body: the picture."""

QUERY_KEYS = ("model", "threshold", "max_instances", "output")
Output = Literal["rle", "polygon", "png", "overlay"]
_BINARY = {"type": "string", "format": "binary"}

REQUEST_BODY = {
    "required": True,
    "description": "The picture: JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF.",
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {FIELD: _BINARY}, "required": [FIELD]},
        },
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {FIELD: {"type": "string", "format": "byte", "description": "the file in base64"}},
                "required": [FIELD],
                "additionalProperties": False,
            },
            "example": {
                FIELD: "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
            },
        },
    },
}

REASONS = {
    400: "The request cannot be understood.",
    401: "The API key is missing or wrong.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body or the picture is too large.",
    415: "The body is of another kind, or no picture.",
    422: "A value is not allowed, or the picture is damaged.",
    503: "Too many pictures are waiting; Retry-After says when to try again.",
    504: "There was no result in time.",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": reason} for status, reason in REASONS.items()
}

EXAMPLE = {
    "model": "solov2",
    "image": {"width": 298, "height": 448},
    "threshold": 0.3,
    "instances": [
        {
            "category": "dog",
            "category_id": 18,
            "score": 0.69,
            "box": [21.0, 36.0, 270.0, 440.0],
            "area": 61324,
            "segmentation": {"size": [448, 298], "counts": "ne`12n=0O2N1..."},
        }
    ],
    "timing": {"decode_ms": 2.1, "queue_ms": 0.2, "predict_ms": 96.4, "encode_ms": 0.5, "total_ms": 99.6},
}


def routes(service: Service) -> APIRouter:
    """The routes below ``/v1``."""
    router = APIRouter(prefix="/v1", tags=["v1"])

    @router.post(
        "/predict",
        summary="Find the objects in a picture",
        response_model=None,
        responses={
            200: {
                "model": Prediction,
                "description": "JSON, or a PNG where output is png or overlay.",
                "content": {"application/json": {"example": EXAMPLE}, "image/png": {"schema": _BINARY}},
            },
            **REFUSALS,
        },
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="one of /v1/models; default: the first")] = None,
        threshold: Annotated[
            float | None, Query(ge=0, le=1, description="least score; default: the model's own")
        ] = None,
        max_instances: Annotated[int | None, Query(ge=1, description="answer only the best ones")] = None,
        output: Annotated[
            Output, Query(description="masks as COCO RLE or polygons in JSON; or a PNG: an id map, or an overlay")
        ] = "rle",
    ) -> Response:
        service.check_room()
        async with received(request, service.limits, service.bodies) as body:
            start = monotonic()
            chosen = _choose(service, request, model)
            data = await _picture(service, request, body)
            (found,) = await service.predict(request, chosen, [data])
        least = chosen.predictor.score_threshold if threshold is None else threshold
        return await _respond(service, found, chosen.name, least, max_instances, output, start)

    @router.get("/models", summary="The models that are loaded", responses={401: REFUSALS[401]})
    async def models() -> ModelList:
        return ModelList(models=[_card(model, model is service.models.default) for model in service.models.values()])

    return router


def _choose(service: Service, request: Request, name: str | None) -> ServedModel:
    unknown = sorted(set(request.query_params) - set(QUERY_KEYS))
    if unknown:
        raise unusable(f"unknown query parameter {unknown[0][:80]!r}; expected {', '.join(QUERY_KEYS)}")
    if name is None:
        return service.models.default
    model = service.models.get(name)
    if model is None:
        raise RefusedError(
            HTTPStatus.NOT_FOUND, f"no model is called {name[:80]!r}; there is {', '.join(service.models)}"
        )
    return model


async def _picture(service: Service, request: Request, body: bytes) -> bytes:
    media = media_type(request)
    if media == "multipart/form-data":
        return await service.off_loop(lambda: form_file(request.headers, body, FIELD))
    if is_json(media):
        return await service.off_loop(lambda: _from_json(body))
    if not body:
        raise bad("the body is empty; expected a picture file")
    if media.startswith("image/") or media == "application/octet-stream":
        return body
    raise RefusedError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"Content-Type is {media[:80]!r}; expected multipart/form-data, image/*, application/octet-stream or "
        "application/json",
    )


def _from_json(body: bytes) -> bytes:
    values = parse_json(body)
    others = sorted(set(values) - {FIELD})
    if others:
        raise unusable(f"unknown key {others[0][:80]!r}; expected {FIELD!r} alone: settings belong into the address")
    if not isinstance(values.get(FIELD), str):
        raise unusable(f"{FIELD!r} is missing or no text; expected the bytes of a picture file in base64")
    return decode_base64(values[FIELD], FIELD)


async def _respond(
    service: Service, found: Found, model: str, threshold: float, most: int | None, output: Output, start: float
) -> Response:
    begin = monotonic()
    shown = found.above(threshold)[:most]
    if output == "png":
        content = await service.off_loop(lambda: as_id_map(shown))
    elif output == "overlay":
        content = await service.off_loop(lambda: as_overlay(found.picture, shown))
    else:
        polygons = output == "polygon"
        content = await service.off_loop(lambda: as_json(found, shown, model, threshold, start, polygons=polygons))
    end = monotonic()
    service.metrics.stage("encode", end - begin)
    service.metrics.stage("total", end - start)
    return Response(content, media_type="image/png" if output in ("png", "overlay") else "application/json")


def _card(model: ServedModel, default: bool) -> ModelCard:
    return ModelCard(
        name=model.name,
        default=default,
        categories=[category.name for category in model.predictor.categories],
        threshold=model.predictor.score_threshold,
        licence=model.licence,
        runtime=model.runtime,
        device=model.device,
    )
