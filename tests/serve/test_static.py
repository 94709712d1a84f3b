"""Files for browsers, and the description of the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI

from solov2.serve.pages import page_files, page_routes
from tests.serve.conftest import Client, halves


@pytest.fixture(scope="module")
def service() -> Iterator[Client]:
    from solov2.serve.app import create_app

    with Client(create_app(halves())) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    page = tmp_path / "page"
    (page / "examples").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html><title>hé</title>", encoding="utf-8")
    (page / "app.js").write_text("'use strict'", encoding="utf-8")
    (page / "examples" / "a.jpg").write_bytes(b"\xff\xd8")
    (page / "notes.py").write_text("secret", encoding="utf-8")
    (tmp_path / "outside.html").write_text("secret", encoding="utf-8")
    return page


@pytest.fixture
def page(folder: Path) -> Iterator[Client]:
    from solov2.serve.app import create_app

    app = create_app(halves())
    bare = FastAPI(lifespan=app.router.lifespan_context)
    bare.state.service = app.state.service
    bare.include_router(page_routes(page_files(folder)))
    with Client(bare) as client:
        yield client


def test_types_and_content(page: Client) -> None:
    for address, media, content in (
        ("/", "text/html; charset=utf-8", "<!doctype html><title>hé</title>".encode()),
        ("/page/index.html", "text/html; charset=utf-8", "<!doctype html><title>hé</title>".encode()),
        ("/page/app.js", "text/javascript; charset=utf-8", b"'use strict'"),
        ("/page/examples/a.jpg", "image/jpeg", b"\xff\xd8"),
    ):
        answer = page.get(address)
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, media, content)
    assert page.start("HEAD", "/").result(60).content == b""


def test_what_is_not_there(page: Client) -> None:
    for name in ("notes.py", "nope.js", "", "examples", "examples/", "../outside.html", "..%2foutside.html", "a%00.js"):
        assert page.get(f"/page/{name}").status_code == 404


def test_caching(page: Client) -> None:
    first = page.get("/page/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    for known, status in ((first.headers["ETag"], 304), (f'"x", W/{first.headers["ETag"]}', 304), ('"x"', 200)):
        answer = page.get("/page/app.js", headers={"If-None-Match": known})
        assert (answer.status_code, answer.headers["ETag"]) == (status, first.headers["ETag"])
        assert (answer.content == b"") == (status == 304)


def test_without_a_page(tmp_path: Path) -> None:
    assert page_files(tmp_path) == {}
    assert page_files(tmp_path / "nowhere") == {}


class Links(HTMLParser):
    """Collects what a page loads, and which elements it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_the_description_is_a_page_of_our_own(service: Client) -> None:
    answer = service.get("/docs")
    links = Links()
    links.feed(answer.text)
    assert set(links.links) == {"page/icon.svg", "docs/style.css", "./", "openapi.json"}
    assert links.tags.isdisjoint({"script", "style", "iframe"})
    assert links.attributes.isdisjoint({"style", "onclick"})
    for word in ("/v1/predict", "/predict/{name}", "?threshold", "/readyz", "Retry-After", "&quot;instances&quot;"):
        assert word in answer.text
    style = service.get("/docs/style.css")
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert not re.search(r"url\(|@import", style.text)


def test_the_description_lists_every_route_once(service: Client) -> None:
    description = service.get("/openapi.json").json()
    assert sorted(description["paths"]) == [
        "/healthz",
        "/metrics",
        "/predict/{name}",
        "/readyz",
        "/v1/models",
        "/v1/predict",
    ]
    predict = description["paths"]["/v1/predict"]["post"]
    assert {*predict["responses"]} == {str(status) for status in (200, 400, 401, 404, 408, 413, 415, 422, 503, 504)}
    assert sorted(predict["requestBody"]["content"])[0] == "application/json"
    assert "example" in predict["responses"]["200"]["content"]["application/json"]
