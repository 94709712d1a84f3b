"""Request bodies: read within limits of size and time, and taken apart with care."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from solov2.serve.options import Limits
from solov2.serve.refusals import Budget, RefusedError, bad, too_large

MAX_JSON_PARTS = 10_000
"""Lists, objects and values of a JSON text; a picture is one text, and a text of commas costs 30 times its size."""

MAX_FORM_FIELDS = 16

DRAINED_BYTES = 256 << 20
"""Of a body that is too large are read and thrown away, so that its sender gets to read why."""


@asynccontextmanager
async def received(request: Request, limits: Limits, budget: Budget) -> AsyncIterator[bytes]:
    """A request's body, which counts against a budget as long as it is held.

    Raises:
        RefusedError: 413 if it is too large, 408 if it comes too slowly, 503 if the budget is used up, 400 if its
            length is no number.
    """
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit()):
        raise bad(f"Content-Length is {announced[:40]!r}; expected a number of bytes")
    chunks: list[bytes] = []
    held = 0
    large = int(announced[:20]) > limits.body_bytes
    stream = request.stream()
    try:
        try:
            async with asyncio.timeout(limits.body_s):
                while not large and (chunk := await anext(stream, None)) is not None:
                    budget.take(len(chunk))
                    held += len(chunk)
                    chunks.append(chunk)
                    large = held > limits.body_bytes
                if large:
                    chunks.clear()
                    budget.give(held)
                    held = 0
                    await _drain(stream)
        except TimeoutError:
            if not large:
                raise RefusedError(
                    HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {limits.body_s:g} s; send it faster"
                ) from None
        if large:
            raise too_large(f"the body has more than {limits.body_bytes} bytes; scale the picture down first")
        body = b"".join(chunks)
        chunks.clear()
        yield body
    finally:
        budget.give(held)


async def _drain(stream: AsyncIterator[bytes]) -> None:
    drained = 0
    with contextlib.suppress(ClientDisconnect):
        async for chunk in stream:
            drained += len(chunk)
            if drained > DRAINED_BYTES:
                break


def media_type(request: Request) -> str:
    """The content type without its parameters, in small letters; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    """Whether a content type says JSON."""
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        RefusedError: 400 if it is none.
    """
    if sum(map(body.count, (b"[", b"{", b",", b":"))) > MAX_JSON_PARTS:
        raise bad(f"the JSON has more than {MAX_JSON_PARTS} values; expected an object with few")
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise bad("the JSON is not UTF-8; expected an object in UTF-8") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise bad(f"the body is no JSON ({reason}); expected an object") from None
    if not isinstance(value, dict):
        raise bad(f"the JSON is {_kind(value)}; expected an object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def form_file(headers: Headers, body: bytes, field: str) -> bytes:
    """The bytes of the only file in a multipart body.

    Of a large body this takes most of a second: it is work for another thread than the event loop's.

    Raises:
        RefusedError: 400 if the body is damaged, or has no such file or several.
    """
    return asyncio.run(_form_file(headers, body, field))


async def _form_file(headers: Headers, body: bytes, field: str) -> bytes:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, whole(), max_files=MAX_FORM_FIELDS, max_fields=MAX_FORM_FIELDS)
    parser.spool_max_size = len(body) + 1  # nobody's picture goes to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise bad(f"the multipart body cannot be read ({error.message}); send the picture as field {field!r}") from None
    except Exception as error:  # python-multipart has several of its own, and header parsing others
        raise bad(
            f"the multipart body cannot be read ({type(error).__name__}); send the picture as field {field!r}"
        ) from None
    try:
        values = form.getlist(field)
        if len(values) != 1:
            raise bad(f"{len(values)} fields are called {field!r}; expected one, a picture file")
        value = values[0]
        if isinstance(value, UploadFile):
            return await value.read()
        raise bad(f"the field {field!r} is a text; expected a picture file, with a file name")
    finally:
        await form.close()
