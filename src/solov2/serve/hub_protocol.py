"""PaddleHub's protocol: ``POST /predict/NAME`` with base64 pictures in JSON, arrays in base64 back.

Every answer is an envelope ``{"msg", "results", "status"}`` under HTTP 200, also for what cannot be done; where
PaddleHub's server fails with a page of HTML, here is the envelope, too. Of one picture ``results`` is an object,
of several a list. Arrays are little-endian and row by row.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from solov2.errors import Solov2Error
from solov2.serve.bodies import is_json, media_type, parse_json, received
from solov2.serve.hub_arrays import answer_length, answer_parts, raw_size
from solov2.serve.models import ServedModel
from solov2.serve.overlays import folder_below, save_overlay
from solov2.serve.pictures import decode_base64
from solov2.serve.refusals import RefusedError, too_large, unusable
from solov2.serve.service import Service

logger = logging.getLogger(__name__)

START = "/predict/"
"""Of every address in this protocol."""

DONE, WRONG, NO_MODULE, NO_JSON = "000", "101", "111", "112"
DEFAULT_THRESHOLD = 0.5
"""PaddleHub's own; it filters the results, as its documentation says."""

KEYS = ("images", "threshold", "visualization", "save_dir")
OUT_OF_DATE = (
    "This usage is out of date, please use 'application/json' as content-type and post to the predict address: "
    'a JSON object such as {"images": ["<base64 of a picture file>"]}'
)
REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {"type": "array", "items": {"type": "string", "format": "byte"}, "minItems": 1},
                    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": DEFAULT_THRESHOLD},
                    "visualization": {"type": "boolean", "default": False},
                    "save_dir": {"type": "string", "description": "a folder below the operator's"},
                },
            },
            "example": {"images": ["<base64 of a JPEG or PNG file>"], "threshold": DEFAULT_THRESHOLD},
        }
    },
}
ENVELOPE = {
    "type": "object",
    "required": ["msg", "results", "status"],
    "properties": {
        "msg": {"type": "string"},
        "results": {"description": "segm, label and score in base64; a list of such for several pictures"},
        "status": {"enum": [DONE, WRONG, NO_MODULE, NO_JSON]},
    },
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An envelope, whose status is 000 (done), 101 (wrong), 111 (no such model) or 112 (no JSON).",
        "content": {"application/json": {"schema": ENVELOPE}},
    }
}


@dataclass(frozen=True)
class HubRequest:
    """A request that was understood.

    Attributes:
        images: bytes of picture files.
        threshold: least score, 0..1.
        folder: where to draw the pictures to; None: nowhere.
    """

    images: list[bytes]
    threshold: float
    folder: Path | None


def routes(service: Service) -> APIRouter:
    """The route ``/predict/NAME``."""
    router = APIRouter(tags=["PaddleHub"])

    @router.post(
        f"{START}{{name:path}}",
        summary="PaddleHub's protocol",
        response_model=None,
        responses=ANSWERS,
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(request: Request, name: str) -> Response:
        try:
            return await _predict(service, request, name)
        except RefusedError as error:
            return _refuse(service, WRONG, str(error), error.headers)
        except Solov2Error as error:
            return _refuse(service, WRONG, str(error))
        except ClientDisconnect:
            raise
        except Exception as error:  # PaddleHub's clients expect an envelope, whatever happens
            logger.exception("%s: failed", request.url.path)
            return _refuse(service, WRONG, f"this should not have happened ({type(error).__name__})")

    return router


async def _predict(service: Service, request: Request, name: str) -> Response:
    service.check_room()
    async with received(request, service.limits, service.bodies) as body:
        model = service.models.get(name)
        if model is None:
            return no_module(service, name)
        if not is_json(media_type(request)):
            return _refuse(service, NO_JSON, OUT_OF_DATE)
        try:
            values = await service.off_loop(lambda: parse_json(body))
        except RefusedError as error:
            return _refuse(service, NO_JSON, f"{OUT_OF_DATE}; {error}")
        asked = await service.off_loop(lambda: _understand(service, model, values))
        found = await service.predict(request, model, asked.images)
    shown = [each.above(asked.threshold) for each in found]
    size = sum(map(raw_size, shown))
    if size > service.limits.answer_bytes:
        raise too_large(
            f"the masks have {size} bytes, at most {service.limits.answer_bytes} are sent: raise the threshold, send "
            "smaller pictures, or use /v1/predict, whose masks are compressed"
        )
    if asked.folder is not None:
        for each, instances in zip(found, shown, strict=True):
            await service.off_loop(partial(save_overlay, asked.folder, each.picture, instances))
    service.metrics.envelopes.labels(DONE).inc()
    return StreamingResponse(
        answer_parts(shown),
        media_type="application/json",
        headers={"Content-Length": str(answer_length(shown))},
    )


def no_module(service: Service, name: str) -> Response:
    """The answer where no model has this name, which may hold what no route matches, such as the end of a line."""
    return _refuse(service, NO_MODULE, f"Module {name[:80]} is not available.")


def _refuse(service: Service, status: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    service.metrics.envelopes.labels(status).inc()
    text = json.dumps({"msg": " ".join(message.split()), "results": "", "status": status}, separators=(",", ":"))
    return Response(f"{text}\n", media_type="application/json", headers=headers)


def _understand(service: Service, model: ServedModel, values: Mapping[str, Any]) -> HubRequest:
    """Looks at every value of a request.

    Raises:
        RefusedError: about the first one that is not as it should be.
    """
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise unusable(f"unknown keyword {unknown[0][:80]!r}; expected {', '.join(KEYS)}")
    values = {**service.defaults.get(model.name, {}), **values}
    threshold = values.get("threshold", DEFAULT_THRESHOLD)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise unusable(f"threshold is {_short(threshold)}; expected a number in 0..1")
    return HubRequest(list(_images(service, values)), float(threshold), _folder(service, values))


def _images(service: Service, values: Mapping[str, Any]) -> Iterator[bytes]:
    images = values.get("images")
    if not isinstance(images, list) or not images:
        what = "missing" if "images" not in values else _short(images)
        raise unusable(f"images is {what}; expected a list of picture files in base64")
    if len(images) > service.limits.images:
        raise too_large(f"images has {len(images)} pictures; at most {service.limits.images} are taken at once")
    for number, text in enumerate(images):
        if not isinstance(text, str):
            raise unusable(f"images[{number}] is {_short(text)}; expected a picture file in base64")
        yield decode_base64(text, f"images[{number}]")


def _folder(service: Service, values: Mapping[str, Any]) -> Path | None:
    draw, wish = values.get("visualization", False), values.get("save_dir", "")
    if not isinstance(draw, bool):
        raise unusable(f"visualization is {_short(draw)}; expected true or false")
    if not isinstance(wish, str):
        raise unusable(f"save_dir is {_short(wish)}; expected the name of a folder")
    root = service.options.save_dir
    if draw and root is None:
        raise unusable(
            "visualization is true, but this service keeps no pictures; its operator allows it by --save_dir"
        )
    return folder_below(root, wish) if draw and root is not None else None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
