"""GA4's names: read as its protocol sends them and its export writes them, one event of ours for each item."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from affinity.errors import EventInFuture, EventRefused
from affinity.ga4 import ReadBatch, read_batch, read_event
from affinity.importer import import_navigation
from affinity.navigation import Action, Consent, NavigationEvent
from affinity.navigation_log import NavigationLog
from affinity.pseudonym import Pseudonymizer
from affinity.settings import Settings
from affinity.visitors import Recorded, VisitorStore

NOW_MS = 1_700_000_000_000
MICROS = NOW_MS * 1000
AT = datetime.fromtimestamp(NOW_MS / 1000, UTC)
HIDE = Pseudonymizer(b"k" * 32)


def read(*events: dict[str, Any], **batch: Any) -> ReadBatch:
    return read_batch(msgspec.json.encode({"events": events, **batch}), "EUR")


def said(event: NavigationEvent) -> dict[str, Any]:
    """Return what an event says beside who, when and under which id."""
    told = msgspec.to_builtins(event)
    return {name: value for name, value in told.items() if name not in ("visitor_id", "occurred_at", "event_id")}


def test_the_measurement_protocol_names_are_read() -> None:
    items = [
        {"item_id": "p1", "item_name": "Shoe", "item_brand": "B", "price": 89.99, "quantity": 2, "index": 0},
        {"item_id": "p2", "price": 0.1, "discount": 3},
    ]
    batch = read(
        {"name": "page_view", "params": {"page_location": "https://shop.example/"}},
        {"name": "add_to_cart", "params": {"currency": "EUR", "value": 190.08, "items": items}},
        {"name": "search", "params": {"search_term": "trail"}},
        client_id="1234.5678",
        timestamp_micros=MICROS,
        non_personalized_ads=False,
    )
    assert batch.ignored_count == 1
    assert batch.places == [1, 1, 2]
    assert [said(event) for event in batch.batch.events] == [
        {"action": "add_to_cart", "product_id": "p1", "quantity": 2, "price_micros": 89_990_000},
        {"action": "add_to_cart", "product_id": "p2", "quantity": 1, "price_micros": 100_000},
        {"action": "search", "query": "trail"},
    ]
    assert {(event.visitor_id, event.occurred_at) for event in batch.batch.events} == {("1234.5678", AT)}


def test_the_exports_names_are_read() -> None:
    line = {
        "event_date": "20231114",
        "event_timestamp": str(MICROS),
        "event_name": "purchase",
        "user_pseudo_id": "1234.5678",
        "user_id": None,
        "event_params": [{"key": "currency", "value": {"string_value": "EUR", "int_value": None}}, {"key": "x"}],
        "ecommerce": {"transaction_id": "T1", "purchase_revenue": 20.5},
        "traffic_source": {"name": "(direct)", "medium": "(none)", "source": "newsletter"},
        "items": [
            {"item_id": "p1", "price": 10.25, "quantity": "2", "item_category": "Shoes"},
            {"item_id": "(not set)", "item_category": "Shoes", "item_category2": "Running"},
        ],
    }  # fmt: skip
    events = read_event(msgspec.json.encode(line), "EUR")
    assert events is not None
    source = {"action": "purchase", "traffic_source": "newsletter"}
    assert [said(event) for event in events] == [
        source | {"product_id": "p1", "quantity": 2, "price_micros": 10_250_000},
        source | {"category_id": "Shoes > Running", "quantity": 1},
    ]
    assert read_event(msgspec.json.encode(line | {"event_name": "session_start"}), "EUR") is None
    searched = {
        "event_name": "view_search_results",
        "event_timestamp": MICROS,
        "user_pseudo_id": "v",
        "event_params": [{"key": "search_term", "value": {"string_value": "x" * 600}}],
    }
    (search,) = read_event(msgspec.json.encode(searched)) or []
    assert (search.action, search.query) == (Action.SEARCH, "x" * 512)


def test_our_own_names_take_items_too() -> None:
    event = {"visitor_id": "v", "action": "view_item", "occurred_at": AT.isoformat(), "event_id": "e"}
    batch = read(event | {"items": [{"item_id": "p1"}, {"item_id": "p1"}]}, event, consent={"personalised": True})
    assert [(one.product_id, one.event_id) for one in batch.batch.events] == [
        ("p1", "e#0"),
        ("p1", "e#1"),
        (None, "e"),
    ]
    assert batch.batch.consent == Consent(personalised=True)


def test_a_price_is_exact_and_one_in_another_currency_is_not_known() -> None:
    def price(text: str, **more: Any) -> int | None:
        params = b'{"items":[{"item_id":"p","price":%b}],"currency":"%b"}' % (
            text.encode(),
            more.get("currency", "EUR").encode(),
        )
        raw = b'{"events":[{"name":"view_item","params":%b}],"client_id":"v","timestamp_micros":%d}' % (params, MICROS)
        return read_batch(raw, "EUR").batch.events[0].price_micros

    assert [price(text) for text in ("0.1", "0.3", "1e2", '"19.99"', "0", "1000000", "4.35")] == [
        100_000,
        300_000,
        100_000_000,
        19_990_000,
        0,
        10**12,
        4_350_000,
    ]
    assert price("5", currency="USD") is None
    for bad in ("-1", "1000001", "1e999999", '"NaN"', '"Infinity"'):
        with pytest.raises(EventRefused) as refused:
            price(bad)
        assert refused.value.pointer == "/events/0/items"


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ({"ad_user_data": "GRANTED", "ad_personalization": "GRANTED"}, Consent(personalised=True)),
        ({"ad_personalization": "DENIED"}, Consent(personalised=False)),
        ({"ad_user_data": "DENIED"}, None),
        ({"personalised": False}, Consent(personalised=False)),
        ("COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA", "COtybn4PA_zT4KjACBENAPCIAEBAAECAAIAAAAAAAAAA"),
    ],
)
def test_consent_may_come_as_ga4_says_it(consent: Any, expected: Any) -> None:
    event = {"name": "view_item", "params": {"items": [{"item_id": "p"}]}}
    assert read(event, client_id="v", timestamp_micros=MICROS, consent=consent).batch.consent == expected


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({"event_timestamp": MICROS, "user_pseudo_id": "v"}, "/events/1/event_name"),
        ({"event_name": "view_item", "event_timestamp": MICROS}, "/events/1/visitor_id"),
        ({"event_name": "view_item", "user_pseudo_id": "v"}, "/events/1/occurred_at"),
    ],
)
def test_an_event_must_say_who_what_and_when(event: dict[str, Any], pointer: str) -> None:
    good = {"event_name": "view_item", "event_timestamp": MICROS, "user_pseudo_id": "v"}
    with pytest.raises(EventRefused) as refused:
        read(good, event)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    "events",
    [
        [{"visitor_id": "v", "action": "teleport", "occurred_at": AT.isoformat()}],  # ours: none is left out silently
        [{"visitor_id": "v", "action": "teleport", "occurred_at": AT.isoformat(), "items": []}],
        [{"visitor_id": "v", "action": "search", "occurred_at": AT.isoformat(), "query": "x" * 10_000}],
        [{"name": "search", "client_id": "v", "timestamp_micros": MICROS, "params": {"search_term": "x" * 10_000}}],
        [{"visitor_id": "v", "action": "search", "occurred_at": AT.isoformat(), "colour": 'a "items": b'}],
        [{"name": "view_item", "client_id": "v" * 65, "timestamp_micros": MICROS}],
        [{"name": "view_item", "client_id": "v", "timestamp_micros": 10**17}],
        [{"name": "view_item", "client_id": "v", "timestamp_micros": MICROS, "params": {"items": [{}] * 201}}],
        [{"name": "view_item", "client_id": "v", "timestamp_micros": MICROS}] * 501,
    ],
    ids=["unknown action", "with items", "query", "search_term", "unknown field", "id", "time", "items", "events"],
)
def test_what_breaks_a_rule_is_refused_whole(events: list[dict[str, Any]]) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.events"):
        read(*events)


def test_a_batch_may_not_become_too_many() -> None:
    event = {"name": "view_item_list", "params": {"items": [{"item_id": "p"}] * 200}}
    assert len(read(*[event] * 25, client_id="v", timestamp_micros=MICROS).batch.events) == 5_000
    with pytest.raises(EventRefused) as refused:
        read(*[event] * 26, client_id="v", timestamp_micros=MICROS)
    assert (refused.value.code, refused.value.pointer) == ("too_many_items", "/events/25")


def test_what_is_sent_again_is_known(tmp_path: Path) -> None:
    visitors = VisitorStore(Settings(), HIDE, NavigationLog(tmp_path, 10**6))

    def send(*events: dict[str, Any]) -> Recorded:
        given = read(*events, client_id="v")
        return visitors.post(given.batch, NOW_MS, places=given.places)

    items = [{"item_id": "p1"}, {"item_id": "p2"}, {"item_id": "p1"}]
    seen = {"name": "view_item", "timestamp_micros": MICROS, "params": {"items": items}}
    bought = {"name": "purchase", "timestamp_micros": MICROS, "params": {"transaction_id": "T1", "items": items}}
    assert send(seen, bought) == Recorded(6, 0)
    assert send(seen, seen | {"timestamp_micros": MICROS + 1}) == Recorded(3, 3)
    later = bought | {"timestamp_micros": MICROS + 60_000_000}  # a confirmation page that is loaded again
    assert send(later) == Recorded(0, 3)
    assert send({**later, "params": {"transaction_id": "T1", "items": items[::-1]}}) == Recorded(0, 3)
    assert send({**later, "params": {"transaction_id": "T2", "items": items}}) == Recorded(3, 0)
    again = VisitorStore(Settings(), HIDE, NavigationLog(tmp_path, 10**6))
    assert again.load(NOW_MS) == 12
    given = read(seen, bought, client_id="v")
    assert again.post(given.batch, NOW_MS) == Recorded(0, 6)


def test_a_refusal_points_at_the_event_that_was_sent() -> None:
    visitors = VisitorStore(Settings(), HIDE)
    event = {"name": "view_item", "timestamp_micros": MICROS, "params": {"items": [{"item_id": "p"}] * 3}}
    given = read({"name": "scroll"}, event, event | {"timestamp_micros": MICROS + 301_000_000}, client_id="v")
    with pytest.raises(EventInFuture) as refused:
        visitors.post(given.batch, NOW_MS, places=given.places)
    assert refused.value.pointer == "/events/2/occurred_at"


def test_an_export_is_imported_and_what_is_no_shopping_is_left_out(tmp_path: Path) -> None:
    def line(name: str, micros: int = MICROS, **more: Any) -> bytes:
        return msgspec.json.encode({"event_name": name, "event_timestamp": micros, "user_pseudo_id": "v", **more})

    path = tmp_path / "export.jsonl"
    two = [{"item_id": "p1"}, {"item_id": "p2"}]
    rows = [
        line("session_start"),
        line("view_item", items=two),
        line("view_item", MICROS * 2),
        line("purchase", items=two),
    ]
    path.write_bytes(b"\n".join([*rows, b'{"event_name":"view_item","event_timestamp":1}']))
    log = NavigationLog(tmp_path / "log", 10**6)
    done = import_navigation(path, log, NOW_MS, lambda *_: None, HIDE, "x", "EUR")
    assert (done.good_count, done.ignored_count) == (2, 1)
    assert [number for number, _ in done.bad_lines] == [3, 5]
    assert len(log.lines_of([HIDE.of("v")])) == 4
