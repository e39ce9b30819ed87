"""The one place that turns what went wrong into RFC 9457 problem+json.

Any exception with `code`, `status`, `retryable` and `pointer` is a refusal of one of the packages; msgspec's and
Unicode's errors are the caller's bad bytes. Anything else is our own broken promise, and not for this module.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct
from starlette.responses import Response

RETRY_AFTER_S = 1
PROBLEM_TYPE = "application/problem+json"


class Problem(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Body of every answer that is not a success.

    Attributes:
        type: `about:blank`: the code below is the stable name.
        title: the status in words.
        status: the HTTP status again.
        code: stable word for programs.
        detail: the rule, and what came instead.
        pointer: JSON pointer to the offending part of the body (`""` is the whole body).
        parameter: name of the offending path or query parameter or header.
        retryable: whether the same request may succeed later, unchanged.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None
    retryable: bool = False


_encoder = msgspec.json.Encoder()
_AT = re.compile(r" - at `(?:key` in `)?(?P<path>\$[^`]*)`$", re.DOTALL)
_FIELD = re.compile(r"field `(?P<name>[^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")


def problem_of(failure: Exception) -> Problem | None:
    """Return what to tell the caller, None where the failure is ours and not a refusal."""
    if isinstance(failure, msgspec.ValidationError):
        return _of_validation(failure)
    if isinstance(failure, msgspec.MsgspecError):
        return make_problem(400, "body_malformed", str(failure), pointer="")
    if isinstance(failure, UnicodeDecodeError):
        return make_problem(400, "body_not_utf8", f"text must be UTF-8, byte {failure.start} is not", pointer="")
    if isinstance(failure, RecursionError):
        return make_problem(400, "body_too_deep", "the body is nested too deeply", pointer="")
    code = getattr(failure, "code", None)
    if not isinstance(code, str) or not hasattr(failure, "retryable"):
        return None
    return make_problem(
        int(getattr(failure, "status", 400)),
        code,
        str(failure),
        pointer=getattr(failure, "pointer", None),
        parameter=getattr(failure, "parameter", None),
        retryable=bool(failure.retryable),
    )


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that carries the problem."""
    answer_headers = {"Cache-Control": "no-store", **(headers or {})}
    if problem.status in (429, 503) and not any(name.lower() == "retry-after" for name in answer_headers):
        answer_headers["Retry-After"] = str(RETRY_AFTER_S)
    return Response(
        _encoder.encode(problem), status_code=problem.status, media_type=PROBLEM_TYPE, headers=answer_headers
    )


def response_to(failure: Exception) -> Response | None:
    """Return the answer to a refusal, None where the failure is ours."""
    problem = problem_of(failure)
    if problem is None:
        return None
    headers: Mapping[str, str] = getattr(failure, "headers", None) or {}
    return problem_response(problem, headers)


def plain_problem(status: int, code: str, detail: str, **more: Any) -> Response:
    """Return a problem that no exception carries."""
    return problem_response(make_problem(status, code, detail, **more))


def pointer_of(path: str) -> str:
    """Turn msgspec's `$.a[0].b` into the JSON pointer `/a/0/b`.

    Below a mapping msgspec says `[...]` and not which key, so the pointer ends at the mapping.

    >>> pointer_of("$.events[3].visitor_id")
    '/events/3/visitor_id'
    """
    steps: list[str] = []
    for step in _STEP.finditer(path):
        if step["index"] == "...":
            break
        steps.append(step["index"] or escape(step["name"]))
    return "".join(["/" + step for step in steps])


def escape(name: str) -> str:
    """Escape one step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _of_validation(failure: msgspec.ValidationError) -> Problem:
    said = str(failure)
    at = _AT.search(said)
    pointer = pointer_of(at["path"]) if at else ""
    rule = said[: at.start()] if at else said
    field = _FIELD.search(rule)
    if rule.startswith("Object contains unknown field") and field:
        return make_problem(400, "field_unknown", rule, pointer=f"{pointer}/{escape(field['name'])}")
    if rule.startswith("Object missing required field") and field:
        return make_problem(400, "field_missing", rule, pointer=f"{pointer}/{escape(field['name'])}")
    if ", got " in rule:
        return make_problem(400, "field_wrong_type", rule, pointer=pointer)
    if rule.startswith("Expected "):
        return make_problem(400, "field_out_of_range", rule, pointer=pointer)
    return make_problem(400, "field_invalid", rule, pointer=pointer)


def make_problem(status: int, code: str, detail: str, **more: Any) -> Problem:
    """Return a problem."""
    return Problem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail, **more)
