"""Keys, headers, origins, health and counters."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

import pytest

from tests.serve.conftest import Client, halves, picture_bytes

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def service() -> Iterator[Client]:
    from solov2.serve.app import create_app

    with Client(create_app(halves())) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"X-API-Key": "sécret".encode()}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X-API-Key": "secret"}, 200),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "bearer  secret"}, 200),
    ],
)
def test_the_key(make_client: Callable[..., Client], headers: dict[str, str], status: int) -> None:
    service = make_client(halves(), api_key="secret")
    answer = service.post("/v1/predict", content=picture_bytes(), headers=PNG | headers)
    assert answer.status_code == status
    if status == 401:
        assert "API key" in answer.json()["error"]
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for address in ("/v1/models", "/metrics"):
        assert service.get(address, headers=headers).status_code == status
    assert service.post("/predict/halves", json={}, headers=headers).status_code == status
    for address in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert service.get(address).status_code == 200


@pytest.mark.parametrize("address", ["/", "/docs", "/v1/models", "/nope", "/v1/predict", "/healthz"])
def test_every_answer_has_safe_headers(service: Client, address: str) -> None:
    headers = service.get(address).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' blob: data:;")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    assert "server" not in headers


def test_no_origin_unless_set(service: Client, make_client: Callable[..., Client]) -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert service.start("OPTIONS", "/v1/predict", headers=asked).result(60).status_code == 405
    open_one = make_client(halves(), origins=("https://a.example",), api_key="secret")
    answer = open_one.start("OPTIONS", "/v1/predict", headers=asked).result(60)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://a.example")
    for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
        answer = open_one.get("/v1/models", headers={"Origin": origin, "X-API-Key": "secret"})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_counters(make_client: Callable[..., Client]) -> None:
    service = make_client(halves())
    for content in (picture_bytes(), b"hello"):
        service.post("/v1/predict", content=content, headers=PNG)
    service.post("/predict/halves", json={"images": [base64.b64encode(picture_bytes()).decode()] * 2})
    service.post("/predict/nope", json={})
    service.get("/some/path/nobody/has/heard/of")
    lines = service.get("/metrics").text.splitlines()
    assert service.get("/metrics").headers["content-type"].startswith("text/plain")
    for line in (
        'solov2_requests_total{route="/v1/predict",status="200"} 1.0',
        'solov2_requests_total{route="/v1/predict",status="415"} 1.0',
        'solov2_requests_total{route="/predict/{name:path}",status="200"} 2.0',
        'solov2_requests_total{route="none",status="404"} 1.0',
        'solov2_hub_answers_total{status="000"} 1.0',
        'solov2_hub_answers_total{status="111"} 1.0',
        'solov2_pictures_total{model="halves"} 3.0',
        'solov2_stage_seconds_count{stage="decode"} 3.0',
        'solov2_stage_seconds_count{stage="queue"} 3.0',
        'solov2_stage_seconds_count{stage="predict"} 3.0',
        'solov2_stage_seconds_count{stage="encode"} 1.0',
        "solov2_batch_pictures_sum 3.0",
        "solov2_queue_pictures 0.0",
        "solov2_pictures_in_progress 0.0",
    ):
        assert line in lines


def test_a_failure_is_counted_as_one_and_has_safe_headers(make_client: Callable[..., Client]) -> None:
    def fail(count: int) -> None:
        raise RuntimeError("out of luck")

    service = make_client(halves(fail))
    answer = service.post("/v1/predict", content=picture_bytes(), headers=PNG)
    assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (500, "nosniff")
    assert 'solov2_requests_total{route="/v1/predict",status="500"} 1.0' in service.get("/metrics").text.splitlines()


def test_health(service: Client) -> None:
    assert [service.get(address).text for address in ("/healthz", "/readyz")] == ["ok\n", "ok\n"]
