"""`endcap merchandising`: from orders, visits and stock as they are reported, to a report and to rules that use it."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from affinity.signals import Signals
from affinity.store import next_change_seq, put_signals, read_availability
from bidder_api.cli import endcap
from bidder_api.deployment import RETAILER_ID, opened
from bidder_api.merchandising_words import print_report
from bidder_api.settings import read_settings
from ledger.command import OrderLine, OrderRecord, ReportedOrder
from ledger.ordering import keep_orders
from tests.affinity.trades import at, compared, product, read_trade, weeks_of
from tests.bidder_api.world import RETAILER, World

MONDAY = datetime(2026, 8, 3, 12, tzinfo=UTC)  # of the first of sixteen weeks
LAST_DAY = "2026-11-22"
SHOES, HATS = "Shoes > Running", "Hats"


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import os

    for name in list(os.environ):
        if name.startswith("ENDCAP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*words: str, status: int = 0) -> Result:
    done = CliRunner().invoke(endcap, list(words))
    assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
    return done


def report(*words: str) -> dict[str, Any]:
    """Return the report, its lines by category."""
    made = json.loads(run("merchandising", "report", "--to", LAST_DAY, "--format", "json", *words).stdout)
    return made | {"by_name": {line["category_id"]: line for line in made["categories"]}}


@pytest.fixture
def shop(tmp_path: Path, data_dir: Path) -> Path:
    """A shop of sixteen weeks: 30 orders of shoes and 30 of hats a week; in the last four, shoes half sold out.

    Each week 60 visits look at each. In the last four, half the looks at shoes come after they were sold out on the
    Thursday; 15 orders of shoes are left. Orders are reported from the ninth week on; before, navigation tells.
    """
    products = [("run", SHOES, "Running shoe"), ("hat", HATS, "[bold]Hat")]
    feed = [{"id": one, "title": title, "price": "10.00 EUR", "product_type": path} for one, path, title in products]
    (tmp_path / "feed.jsonl").write_text("\n".join(map(json.dumps, feed)))
    events, orders = [], []
    for week in range(16):
        for number in range(60):
            at = MONDAY + timedelta(days=7 * week + 5 * (number % 2))
            for name in ("run", "hat"):
                is_sold_out = name == "run" and week >= 12 and number % 2
                visitor = f"{name}-{week}-{number}"
                events.append({"visitor_id": visitor, "action": "view_item", "product_id": name, "occurred_at": at})
                if number % 4 < 2 and not is_sold_out:
                    bought = {"visitor_id": visitor, "action": "purchase", "product_id": name}
                    events.append({**bought, "price_micros": 10_000_000, "occurred_at": at + timedelta(minutes=5)})
                    if week >= 8:
                        line = OrderLine(product_id=name, quantity=1, unit_price_micros=10_000_000)
                        orders.append(ReportedOrder(order_id=visitor, occurred_at=at, lines=[line]))
    (tmp_path / "navigation.jsonl").write_text("\n".join(json.dumps(one, default=str) for one in events))
    run("catalog", "import", str(tmp_path / "feed.jsonl"))
    run("navigation", "import", str(tmp_path / "navigation.jsonl"))
    store_order = ReportedOrder(
        order_id="store", occurred_at=MONDAY + timedelta(days=85), channel="store",
        lines=[OrderLine(product_id="hat", quantity=500, unit_price_micros=1)],
    )  # fmt: skip
    back = ReportedOrder(
        order_id=orders[0].order_id, occurred_at=MONDAY + timedelta(days=86),
        lines=[OrderLine(product_id="run", quantity=-1, unit_price_micros=10_000_000)],
    )  # fmt: skip
    records = [OrderRecord(order, None, None) for order in [*orders, store_order, back]]
    with opened(read_settings(data_dir=data_dir).server) as (database, _):
        results = database.transact(lambda connection: keep_orders(connection, RETAILER_ID, records, 0))
        assert {one.result for one in results} == {"accepted"}
        database.transact(lambda connection: _sell_out(connection))
    return data_dir


def _sell_out(connection: Any) -> None:
    """Note that shoes were sold out from the Thursday to the end of each of the last four weeks."""
    from affinity.store import availability_changes

    connection.execute(availability_changes.delete())
    changes = [(0, True)]
    for week in range(12, 16):
        monday = MONDAY + timedelta(days=7 * week)
        changes += [(int((monday + timedelta(days=day)).timestamp() * 1000), day == 6.4) for day in (3, 6.4)]
    connection.execute(
        availability_changes.insert(),
        [
            {"retailer_id": RETAILER_ID, "product_id": "run", "from_ms": from_ms, "is_available": is_available}
            for from_ms, is_available in changes
        ],
    )


@pytest.mark.usefixtures("shop")
def test_a_sold_out_category_under_performs_and_the_cause_is_named() -> None:
    made = report()
    shoes, hats = made["by_name"][SHOES], made["by_name"][HATS]
    assert shoes["trend"] == "falling"
    assert shoes["cause"] == "availability"
    assert (shoes["history"]["orders"], shoes["period"]["orders"]) == (120, 60)
    assert (shoes["history"]["availability"], shoes["period"]["availability"]) == (1.0, 0.5)
    assert (shoes["history"]["conversion"], shoes["period"]["conversion"]) == (0.5, 0.5)
    assert shoes["parts"]["availability"] == shoes["change_micros"] == -600_000_000
    assert "found the product in stock 100.0% → 50.0%" in shoes["sentence"]
    assert (hats["change_micros"], hats["cause"]) == (0, None)
    assert hats["trend"] == "rising"  # it holds where the shop loses a quarter
    assert hats["orders_against_history"]["ratio"] == 1.0
    assert made["by_name"][""]["basis"] == "visits"
    assert any("2026-09-28" in note and "reported orders from then on" in note for note in made["notes"])
    assert shoes["period"]["return_rate"] == 1 / 60


@pytest.mark.usefixtures("shop")
def test_the_channel_says_whose_orders_count() -> None:
    assert report()["by_name"][HATS]["period"]["orders"] == 120
    every = report("--channel", "all")["by_name"][HATS]
    assert (every["period"]["orders"], every["basis"]) == (121, "orders")
    refused = run("merchandising", "report", "--to", LAST_DAY, "--channel", "store", status=1).output
    assert "nothing was sold in the history of the period" in refused


@pytest.mark.usefixtures("shop")
def test_the_terminal_gets_tables_and_a_sentence_for_each_finding() -> None:
    output = run("merchandising", "report", "--to", LAST_DAY).output
    assert output.startswith("2026-10-26 to 2026-11-22, compared with 2026-08-03 to 2026-10-25; money in EUR")
    assert "1 over-performing category" in output
    assert "Hats: orders even on its history (may be chance), share of the shop's orders up 33% (p = " in output
    assert "2 under-performing categories" in output
    assert re.search(r"Shoes > Running +-50% \* +-33% \* +600\.00 +-600\.00 +\+0\.00 +\+0\.00 +-600\.00", output)
    assert "Shoes > Running: orders down 50% on its history (p = " in output
    assert "[bold]Hat" in output  # a title is no markup
    assert "Returns: 0.6% of the units sold" in output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_narrow_terminal_the_cause_stands_for_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weeks = weeks_of(4, 12)
    counts = [(week, row, 90 if row == 0 and week < 4 else 30) for week in range(16) for row in range(9)]
    orders = [
        ((week, row, n), at(17 - 7 * week), f"p{row}", 1, 10) for week, row, count in counts for n in range(count)
    ]
    products = [product(f"p{row}", f"Garden > Chairs of many kinds > Kind {row}") for row in range(9)]
    made, lines = compared(read_trade(weeks, products, orders), weeks)
    assert lines["Garden > Chairs of many kinds > Kind 0"].trend == "rising"
    shown = {}
    for width in (90, 180):
        monkeypatch.setenv("COLUMNS", str(width))
        out = Terminal()
        print_report(made, {}, "UTC", "table", "categories", 10, out)
        shown[width] = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
        assert max(map(len, shown[width].splitlines())) <= width
    assert re.search(r"orders +of shop +change +cause", shown[90])
    assert re.search(r"traffic +conversion +basket +price +mix", shown[180])


@pytest.mark.usefixtures("shop")
def test_csv_holds_each_of_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    run("merchandising", "report", "--to", LAST_DAY, "--format", "csv", "--output", str(path))
    rows = {row["category_id"]: row for row in csv.DictReader(io.StringIO(path.read_text()))}
    assert set(rows) == {"", "Shoes", SHOES, HATS}
    parts = [int(value) for name, value in rows[SHOES].items() if name.endswith("_part_micros") and value]
    assert sum(parts) == int(rows[SHOES]["change_micros"]) == -600_000_000
    words = ("merchandising", "report", "--to", LAST_DAY, "--format", "csv", "--table")
    sellers = list(csv.DictReader(io.StringIO(run(*words, "best-sellers").stdout)))
    best = next(row for row in sellers if not row["category_id"] and row["units_rank"] == "1")
    assert (best["product_id"], best["units"], best["title"]) == ("hat", "120", "[bold]Hat")
    assert run(*words, "cross-sell").stdout == "product_id,other_product_id,orders,other_orders,together,lift,p_value\n"


class Page(HTMLParser):
    """What a page asks for from elsewhere, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.text = ""
        self.bars = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.bars += tag == "rect"
        self.asked += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "action")]
        self.asked += [tag] if tag in ("script", "link", "iframe", "img") else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.usefixtures("shop")
def test_the_page_opens_without_a_network(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    run("merchandising", "report", "--to", LAST_DAY, "--format", "html", "--output", str(path))
    raw = path.read_text()
    page = Page()
    page.feed(raw)
    assert page.asked == []
    assert "url(" not in raw
    assert "@import" not in raw
    assert "2 under-performing categories" in page.text
    assert "Shoes > Running: -600.00 EUR" in page.text
    assert page.bars == 4 * 8  # the shop and three findings, eight factors each


def test_a_period_that_cannot_be_is_refused_in_a_sentence(data_dir: Path) -> None:
    assert "--to must be a day such as" in run("merchandising", "report", "--to", "soon", status=2).output
    nothing = run("merchandising", "report", status=1).output
    assert "no orders and no purchases are known" in nothing
    assert "Traceback" not in nothing
    assert run("merchandising", "compute", status=1).output == nothing


@pytest.mark.usefixtures("shop")
def test_a_period_without_sales_is_told_the_last_sale_known() -> None:
    refused = run("merchandising", "report", "--to", "2027-06-30", status=1).output
    assert "the last sale known is of 2026-11-21" in refused
    refused = run("merchandising", "report", "--to", LAST_DAY, "--against", "year", status=1).output
    assert "nothing was sold in the history of the period" in refused


def test_what_is_computed_is_kept_for_rules(shop: Path) -> None:
    output = run("merchandising", "compute", "--to", LAST_DAY).output
    assert output == "2 best-sellers; categories: 1 rising, 0 steady, 2 falling.\n"
    from affinity.store import read_signals

    with opened(read_settings(data_dir=shop).server) as (database, deployment):
        signals = database.read(lambda connection: read_signals(connection, deployment.retailer_id))
    assert signals.best_sellers == ["hat", "run"]
    assert signals.category_trends == {"Hats": "rising", "Shoes": "falling", SHOES: "falling"}


# --- rules ---------------------------------------------------------------------------------------------------------

PAGE = {"page": {"type": "home"}, "placements": [{"placement_id": "shelf"}], "mode": "merchandised"}


@pytest.fixture
def ruled(world: World) -> World:
    for name, path in (("run", SHOES), ("trail", SHOES), ("hat", HATS)):
        product = {"title": name, "price_micros": 1, "product_type": path}
        assert world.call("PUT", f"/v1/products/{name}", product, role="merchant").status_code == 201
    world.call("PUT", "/v1/placements/shelf", {"page_types": ["home"], "slot_count": 3}, role="merchant")
    return world


def keep(world: World, best_sellers: list[str], trends: dict[str, Any]) -> None:
    signals = Signals(
        computed_at_ms=0, from_ms=0, until_ms=0, best_sellers=best_sellers, category_trends=trends
    )  # fmt: skip
    world.database.transact(
        lambda connection: put_signals(connection, RETAILER, signals, next_change_seq(connection, RETAILER))
    )


def shown(world: World) -> list[str]:
    world.publish()
    answer = world.call("POST", "/v1/fills", PAGE, role="retailer").json()
    return sorted(fill["product_id"] for fill in answer["placements"][0]["fills"])


def exclude(world: World, target: dict[str, Any], status: int = 201) -> Any:
    body = {"name": "Not these", "effect": {"exclude": True}, "target": target, "stage": "live"}
    made = world.call("POST", "/v1/rules", body, role="merchant")
    assert made.status_code == status, made.text
    return made.json()


def test_a_rule_on_best_sellers_follows_what_is_computed(ruled: World) -> None:
    exclude(ruled, {"field": "is_best_seller", "equals": True})
    assert shown(ruled) == ["hat", "run", "trail"]  # nothing was computed yet
    keep(ruled, ["run"], {})
    assert shown(ruled) == ["hat", "trail"]
    keep(ruled, ["hat", "gone"], {})
    assert shown(ruled) == ["run", "trail"]


def test_a_rule_on_trends_follows_categories_and_those_above(ruled: World) -> None:
    exclude(ruled, {"field": "category_trend", "one_of": ["falling"]})
    keep(ruled, [], {"Shoes": "falling", "Hats": "rising"})
    assert shown(ruled) == ["hat"]
    ruled.call("PUT", "/v1/products/run", {"title": "run", "product_type": HATS}, role="merchant")
    assert shown(ruled) == ["hat", "run"]
    keep(ruled, [], {"Shoes": "steady"})
    assert shown(ruled) == ["hat", "run", "trail"]


def test_a_preview_and_a_virtual_attribute_ask_for_signals_too(ruled: World) -> None:
    keep(ruled, ["run"], {})
    ruled.publish()
    draft = {"name": "No", "effect": {"exclude": True}, "target": {"field": "is_best_seller", "equals": True}}
    page = ruled.call("POST", "/v1/rules/preview", {**PAGE, "rules": [draft]}, role="merchant").json()["after"][0]
    assert sorted(tile["product_id"] for tile in page["tiles"]) == ["hat", "trail"]
    case = {"target": {"field": "is_best_seller", "equals": True}, "value": "top"}
    attribute = {"name": "badge", "derived": {"cases": [case]}}
    seen = ruled.call("POST", "/v1/virtual-attributes/preview", attribute, role="merchant").json()["products"]
    assert {one["product_id"]: one["value"] for one in seen} == {"hat": None, "run": "top", "trail": None}
    assert ruled.call("POST", "/v1/virtual-attributes", attribute, role="merchant").status_code == 201
    exclude(ruled, {"field": "badge", "equals": "top"})
    assert shown(ruled) == ["hat", "trail"]
    keep(ruled, ["hat"], {})
    assert shown(ruled) == ["run", "trail"]


def test_a_pinned_best_seller_that_a_rule_keeps_out_is_told(ruled: World) -> None:
    keep(ruled, ["run"], {})
    pin = {"name": "Pin", "effect": {"pin": {"product_id": "run", "slot_position": 1}}, "stage": "live"}
    assert ruled.call("POST", "/v1/rules", pin, role="merchant").status_code == 201
    [warning] = exclude(ruled, {"field": "is_best_seller", "equals": True})["warnings"]
    assert warning["code"] == "pin_kept_out"
    ruled.publish()
    told = ruled.call("POST", "/v1/rules/preview", PAGE, role="merchant").json()["conflicts"]
    assert [one["code"] for one in told] == ["pin_kept_out"]


@pytest.mark.parametrize(
    ("target", "code", "pointer"),
    [
        ({"field": "category_trend", "equals": "up"}, "value_unknown", "/target/equals"),
        ({"field": "category_trend", "one_of": ["rising", "UP"]}, "value_unknown", "/target/one_of/1"),
        ({"field": "is_best_seller", "equals": 1}, "value_unknown", "/target/equals"),
        ({"field": "is_best_seller", "at_least": 1}, "field_type_differs", "/target/at_least"),
        ({"field": "best_seller", "equals": True}, "field_unknown", "/target/field"),
    ],
)
def test_what_no_product_can_be_is_refused_when_saved(
    ruled: World, target: dict[str, Any], code: str, pointer: str
) -> None:
    problem = exclude(ruled, target, status=422)
    assert (problem["code"], problem["pointer"]) == (code, pointer)


def test_stock_as_it_is_reported_is_kept_over_time(ruled: World) -> None:
    def kept() -> list[tuple[str, int, bool]]:
        found = ruled.read(lambda connection: list(read_availability(connection, RETAILER)))
        return [(one, at_ms - started, now) for one, at_ms, now in found if one == "run"]

    started = ruled.clock.now_ms
    ruled.clock.now_ms += 1_000
    sold_out = {"changes": [{"product_id": "run", "stock": 0}, {"product_id": "nobody", "stock": 0}]}
    assert ruled.call("POST", "/v1/products:batch", sold_out, role="merchant").status_code == 200
    ruled.clock.now_ms += 1_000
    dearer = {"changes": [{"product_id": "run", "price_micros": 5}]}
    assert ruled.call("POST", "/v1/products:batch", dearer, role="merchant").status_code == 200
    ruled.clock.now_ms += 1_000
    ruled.call("PUT", "/v1/products/run", {"title": "run", "stock": 3}, role="merchant")
    assert kept() == [("run", 0, True), ("run", 1_000, False), ("run", 3_000, True)]
