"""What is refused is told in one form, with a stable code and the place that is wrong."""

from typing import Any

import msgspec
import pytest

from affinity.audience import Audience
from affinity.errors import AudienceRefused
from auction.campaign import BidDraft, CampaignDraft
from bidder_api.errors import NotFound
from bidder_api.problems import pointer_of, problem_of


def problem(kind: Any, body: bytes) -> tuple[str, str | None]:
    try:
        msgspec.json.decode(body, type=kind)
    except Exception as failure:
        found = problem_of(failure)
        assert found is not None
        assert found.status == 400
        return found.code, found.pointer
    raise AssertionError("it was taken")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        (b"", "body_malformed", ""),
        (b"{", "body_malformed", ""),
        (b"[]", "field_wrong_type", ""),
        (b"{}", "field_missing", "/name"),
        (b'{"name":"c","colour":1}', "field_unknown", "/colour"),
        (b'{"name":"c","a/b~c":1}', "field_unknown", "/a~1b~0c"),
        (b'{"name":7}', "field_wrong_type", "/name"),
        (b'{"name":"c","daily_budget_micros":-1}', "field_out_of_range", "/daily_budget_micros"),
        (b'{"name":"c","daily_budget_micros":1000000000001}', "field_out_of_range", "/daily_budget_micros"),
        (b'{"name":"c","daily_budget_micros":NaN}', "body_malformed", ""),
        (b'{"name":"c","daily_budget_micros":Infinity}', "body_malformed", ""),
        (b'{"name":"c","daily_budget_micros":1.5}', "field_wrong_type", "/daily_budget_micros"),
        (b'{"name":"\\u0000"}', "field_out_of_range", "/name"),
        (b'{"name":"c\\n"}', "field_out_of_range", "/name"),
        (b'{"name":"c","flight_starts_at":"tomorrow"}', "field_invalid", "/flight_starts_at"),
        (b'{"name":"c","flight_starts_at":"2026-01-01T00:00:00"}', "field_out_of_range", "/flight_starts_at"),
        (b'{"name":"c","status":"archived"}', "field_invalid", "/status"),
        (b'{"name":"\xff"}', "body_not_utf8", ""),
    ],
)
def test_a_bad_campaign_is_named_by_code_and_pointer(body: bytes, code: str, pointer: str) -> None:
    assert problem(CampaignDraft, body) == (code, pointer)


def test_a_body_nested_without_end_is_refused() -> None:
    assert problem(Audience, b'{"not":' * 100_000)[0] == "body_too_deep"


def test_a_pointer_leads_into_lists_and_stops_at_a_mapping_whose_key_is_not_told() -> None:
    body = b'{"campaign_id":"c","product_ids":["a",""],"bid_micros":1}'
    assert problem(BidDraft, body) == ("field_out_of_range", "/product_ids/1")
    body = b'{"campaign_id":"c","product_ids":["a"],"bid_micros":1,"placement_multipliers":{"top":11}}'
    assert problem(BidDraft, body) == ("field_out_of_range", "/placement_multipliers")
    assert pointer_of("$") == ""


def test_a_refusal_of_any_package_becomes_a_problem() -> None:
    found = problem_of(AudienceRefused("says nothing", "/audience", code="audience_empty"))
    assert found is not None
    assert (found.status, found.code, found.pointer, found.detail) == (
        422,
        "audience_empty",
        "/audience",
        "says nothing",
    )
    unknown = problem_of(NotFound("campaign", "cmp_1"))
    assert unknown is not None
    assert (unknown.status, unknown.code) == (404, "campaign_unknown")


def test_what_is_no_refusal_is_not_dressed_up_as_one() -> None:
    assert problem_of(KeyError("x")) is None
    assert problem_of(ValueError("x")) is None
