"""The OpenAPI document says what the server does: it validates, and calls made from it hold what it promises."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from bidder_api.database import Database
from bidder_api.table import OPERATIONS
from tests.bidder_api.world import World, world_over

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


def test_the_document_is_valid_and_names_every_operation_once(world: World) -> None:
    document = world.client.get("/openapi.json").json()
    validate(document)
    names = [entry["operationId"] for path in document["paths"].values() for entry in path.values()]
    assert len(names) == len(set(names)) == len(world.operations)


def test_it_is_readable_without_a_network(world: World) -> None:
    page = world.client.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace('http-equiv="', "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "LICENSE"):
        assert world.client.get(f"/docs/{name}").status_code == 200
    assert world.client.get("/docs/../settings.py").status_code == 404


@pytest.fixture(scope="module")
def schema_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from tests.conftest import migrated

    database: Database = migrated(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/endcap.db")
    with world_over(database) as made:
        made.call("PUT", "/v1/products/p1", {"advertiser_ids": ["acme"], "product_type": "A"}, role="merchant")
        yield made
    database.close()


def operations_of(world: World) -> dict[str, Any]:
    schema = schemathesis.openapi.from_asgi("/openapi.json", world.client.app)
    found = [result.ok() for result in schema.get_all_operations()]
    return {operation.definition.raw["operationId"]: operation for operation in found}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_calls_made_from_the_document_get_what_it_promises(
    name: str, mode: GenerationMode, schema_world: World
) -> None:
    operation = operations_of(schema_world)[name]
    headers = schema_world.headers("admin")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=8, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None)
    def call(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    call()
