"""The description is true: requests made from it, good and bad, get answers that it lists, in the form it says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.conftest import halves

REQUESTS = 15
"""Of each route, good and bad ones each."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Using `httpx`")
def test_requests_made_from_the_description() -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis import GenerationMode, checks

    from solov2.serve.app import create_app

    app = create_app(halves())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    wanted = checks.CHECKS.get_by_names(
        ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
    )
    bounds = settings(
        max_examples=REQUESTS,
        derandomize=True,  # the same requests each time
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    statuses: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        nothing_to_break = not (operation.body or operation.query)
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and nothing_to_break:
                continue

            @bounds
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                response = case.call()
                statuses.setdefault(case.operation.label, set()).add(response.status_code)
                case.validate_response(response, checks=wanted)

            check()
    app.state.service.close()
    assert statuses.keys() >= {"POST /v1/predict", "POST /predict/{name}", "GET /v1/models"}
    assert {415, 422} <= statuses["POST /v1/predict"]
    assert statuses["POST /predict/{name}"] == {200}
