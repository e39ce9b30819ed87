"""The OpenAPI document says what the server does: it validates, and calls made from it hold what it promises."""

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bidder_api.table import OPERATIONS
from tests.bidder_api.world import World

EXAMPLE_COUNT = int(os.environ.get("OPENAPI_EXAMPLES", "4"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
GOOD = [(operation.name, GenerationMode.POSITIVE) for operation in OPERATIONS]
BAD = [
    (operation.name, GenerationMode.NEGATIVE)
    for operation in OPERATIONS
    if operation.body is not None or operation.query is not None
]


def test_the_document_is_valid_and_names_every_operation_once(world: World) -> None:
    document = world.client.get("/openapi.json").json()
    validate(document)
    names = [entry["operationId"] for path in document["paths"].values() for entry in path.values()]
    assert len(names) == len(set(names)) == len(world.operations)


def test_it_is_readable_without_a_network(world: World) -> None:
    page = world.client.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "LICENSE"):
        assert world.client.get(f"/docs/{name}").status_code == 200
    assert world.client.get("/docs/../settings.py").status_code == 404


@pytest.fixture(scope="module")
def described(shared_world: World) -> dict[str, Any]:
    """Every operation as the document describes it, by name."""
    shared_world.call("PUT", "/v1/products/p1", {"advertiser_ids": ["acme"], "product_type": "A"}, role="merchant")
    shared_world.call("PUT", "/v1/placements/0", {"page_types": ["home"], "slot_count": 2}, role="merchant")
    shared_world.publish()
    schema = schemathesis.openapi.from_dict(shared_world.client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.definition.raw["operationId"]: operation for operation in found}


@pytest.mark.parametrize(("name", "mode"), GOOD + BAD, ids=lambda value: getattr(value, "value", value))
def test_calls_made_from_the_document_get_what_it_promises(
    name: str, mode: GenerationMode, shared_world: World, described: dict[str, Any]
) -> None:
    @given(case=described[name].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLE_COUNT, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None
    )
    def call(case: Any) -> None:
        case.validate_response(send(case, shared_world), checks=CHECKS)

    call()


def send(case: Any, world: World) -> Response:
    """Make a call over the world's own client; a key the case brings along stands."""
    asked = case.as_transport_kwargs(base_url="http://endcap.test", headers=world.headers("admin"))
    body = {"json": asked["json"]} if "json" in asked else {"content": asked.get("data") or b""}
    headers = {name: str(value).encode("utf-8", "replace") for name, value in asked["headers"].items()}
    answer = world.client.request(
        asked["method"], asked["url"], params=asked.get("params"), headers=headers, follow_redirects=False, **body
    )
    return Response.from_httpx(answer, verify=False)
