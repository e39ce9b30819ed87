"""The OpenAPI 3.1 document, written from the table of operations and the very types that decode the requests."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from bidder_api.guard import IDENTIFIER_LENGTH_MAX, LENGTH_MAX
from bidder_api.operations import Operation
from bidder_api.problems import PROBLEM_TYPE, Problem
from ledger.notice import DATA as NOTICE_DATA

_REF = "#/components/schemas/{name}"
_END_OF_TEXT = "(?![\\s\\S])"  # Python's way to say "and nothing behind"; ECMA's `$` already means that
PROBLEM_STATUSES = (400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 415, 422, 428, 429, 503)


def openapi_document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """Return the document."""
    operations = list(operations)
    posted = {name: _posted(name, data) for name, data in NOTICE_DATA.items()}
    kinds: list[Any] = [Problem, *posted.values()]
    for operation in operations:
        kinds += [kind for kind in (operation.body, operation.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schema_of = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        entry = _describe(operation, schema_of)
        paths.setdefault(operation.path, {})[operation.method.lower()] = entry
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Endcap",
            "version": version,
            "description": "Open retail-media auction server. Times are RFC 3339 with offset, amounts whole millionths "
            "of the deployment's one currency. Errors are RFC 9457 problem+json with a stable `code`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "webhooks": {name: {"post": _describe_notice(name, schema_of[id(kind)])} for name, kind in posted.items()},
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A key, `ec_sk_…`."}},
            "responses": {"Problem": _problem_response(schema_of[id(Problem)])},
        },
    }
    cleaned: dict[str, Any] = _clean(document)
    return cleaned


def _posted(name: str, data: type[Struct]) -> type[Struct]:
    """Return the type of a notice's body."""
    title = "".join(word.capitalize() for word in re.split(r"[._]", name)) + "Notice"
    made = msgspec.defstruct(title, [("type", Literal[name]), ("timestamp", datetime), ("data", data)])
    made.__doc__ = f"Body of the notice `{name}`."
    return made


def _describe_notice(name: str, schema: Any) -> dict[str, Any]:
    headers = [
        {"name": header, "in": "header", "required": True, "schema": {"type": "string"}}
        for header in ("webhook-id", "webhook-timestamp", "webhook-signature")
    ]
    return {
        "operationId": f"notice_{name.replace('.', '_')}",
        "summary": f"Posted to your webhook: {name}",
        "description": "Signed as Standard Webhooks 1.0.0 says; docs/webhooks.md tells when it comes.",
        "tags": ["webhooks"],
        "parameters": headers,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"2XX": {"description": "Taken. Anything else is tried again."}},
    }


def _describe(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": _responses(operation, schema_of),
        "security": [{"key": []}] if operation.roles else [{}, {"key": []}],
    }
    if operation.roles:
        roles = ", ".join(sorted({*operation.roles, "admin"}))
        entry["description"] = f"Roles: {roles}."
        entry["x-roles"] = sorted({*operation.roles, "admin"})
    if operation.body is not None:
        entry["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[id(operation.body)]}},
        }
    return entry


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    described: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": LENGTH_MAX.get(name, IDENTIFIER_LENGTH_MAX),
            },
        }
        for name in operation.parameters
    ]
    if operation.query is not None:
        described += _query_parameters(operation.query)
    if operation.takes_idempotency_key:
        described.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Sending the call again with the same key answers as the first time and does nothing.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
            }
        )
    if operation.needs_if_match:
        described.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": True,
                "description": "The ETag of what is changed, as last read.",
                "schema": {"type": "string", "minLength": 1},
            }
        )
    return described


def _query_parameters(query: type[Struct]) -> list[dict[str, Any]]:
    (_,), components = msgspec.json.schema_components([query], ref_template=_REF)
    properties = components[query.__name__]["properties"]
    described = []
    for field in fields(query):
        schema = _inline(properties[field.encode_name], components)
        schema.pop("default", None)
        if "anyOf" in schema:  # null cannot be said in a query
            kinds = [kind for kind in schema["anyOf"] if kind != {"type": "null"}]
            schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if "enum" in schema:
            schema["enum"] = [value for value in schema["enum"] if value is not None]
        described.append({"name": field.encode_name, "in": "query", "required": field.required, "schema": schema})
    return described


def _inline(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return dict(components[schema["$ref"].rpartition("/")[2]])
    return dict(schema)


def _responses(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if operation.answer is not None:
        tables: dict[str, Any] = {media: {"schema": {"type": "string"}} for media in operation.table_types}
        success["content"] = {operation.answer_type: {"schema": schema_of[id(operation.answer)]}, **tables}
    responses: dict[str, Any] = {str(operation.status): success}
    if operation.also_status is not None:
        responses[str(operation.also_status)] = success
    for status in PROBLEM_STATUSES:
        responses[str(status)] = {"$ref": "#/components/responses/Problem"}
    return responses


def _problem_response(schema: Any) -> dict[str, Any]:
    return {"description": "Refused; nothing was done.", "content": {PROBLEM_TYPE: {"schema": schema}}}


def _clean(node: Any) -> Any:
    """Say patterns in ECMA's dialect, and leave out what JSON Schema readers stumble over."""
    if isinstance(node, dict):
        cleaned = {key: _clean(value) for key, value in node.items()}
        pattern = cleaned.get("pattern")
        if isinstance(pattern, str):
            pattern = pattern.replace(_END_OF_TEXT, "$")
            cleaned["pattern"] = re.sub(r"\$\)\$$", ")$", pattern)
        return cleaned
    return [_clean(value) for value in node] if isinstance(node, list) else node
