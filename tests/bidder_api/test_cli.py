"""The `endcap` command: what a person types, what it answers, and with which status it ends."""

import json
import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from affinity.clicks import ClickCounters, write_memory
from affinity.navigation_log import NavigationLog
from affinity.settings import Settings
from affinity.store import read_segment_entries
from auction.placement import PlacementDraft
from auction.store import put_placement
from bidder_api.access import parse_key
from bidder_api.cli import endcap
from bidder_api.database import open_database
from bidder_api.deployment import RETAILER_ID, opened
from bidder_api.placements import fill_in
from bidder_api.settings import master_secret, read_settings
from bidder_api.store import list_changes, list_keys
from bidder_api.tasks import pseudonymizer_of
from ledger.audit import VIEWS
from ledger.store import insert_order
from tests.ledger.test_sales import COOKIE, clicked, sell
from tests.ledger.world import World as LedgerWorld

DAY = 86_400_000
HEAVY = ("numpy", "numba", "sqlalchemy", "starlette", "msgspec", "rich.progress")


@pytest.fixture(autouse=True)
def no_settings_of_the_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("ENDCAP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path / "data"))


def run(*words: str, status: int = 0, **more: Any) -> Result:
    """Run the command in this process."""
    done = CliRunner().invoke(endcap, list(words), **more)
    assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
    return done


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['endcap', '--help']\n"
        "from bidder_api.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "serve" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        [], ["serve"], ["demo"], ["db"], ["db", "upgrade"], ["db", "downgrade"], ["keys"], ["keys", "create"],
        ["keys", "list"], ["keys", "revoke"], ["catalog", "import"], ["navigation", "import"], ["profiles", "import"],
        ["profiles", "compute"],
        ["weather", "import"],
        ["affinity", "train"], ["affinity", "evaluate"], ["affinity", "rank"], ["affinity", "report"],
        ["auction", "solve"], ["auction", "report"], ["merchandising", "report"], ["merchandising", "compute"],
        ["ledger", "verify"], ["ledger", "export"], ["ledger", "checkpoint"],
        ["ledger", "inspect"], ["ledger", "close"],
        ["ledger", "sales"], ["ledger", "commission"], ["ledger", "commission", "agree"],
        ["ledger", "commission", "end"], ["ledger", "commission", "list"], ["ledger", "commission", "post"],
        ["ledger", "receipt"], ["ledger", "verify-receipt"], ["sim", "run"], ["sim", "replay"],
        ["settings"],
    ],
)  # fmt: skip
def test_every_command_explains_itself(words: list[str]) -> None:
    assert "Usage: " in run(*words, "--help").output


def test_a_key_is_the_last_word_and_is_in_the_change_log(tmp_path: Path) -> None:
    output = run("keys", "create", "--role", "advertiser", "--advertiser-id", "acme").output
    key = output.split()[-1]
    parsed = parse_key(key)
    assert parsed is not None
    database = open_database(f"sqlite:///{tmp_path}/data/endcap.db")
    record = database.read(lambda connection: list_keys(connection, RETAILER_ID, None, None))[0]
    assert (record.key_id, record.role, record.advertiser_ids) == (parsed[0], "advertiser", ["acme"])
    change = database.read(lambda connection: list_changes(connection, RETAILER_ID, 0, 10))[0]
    assert (change.action, change.kind, change.key_id) == ("create", "key", "command")
    assert parsed[1] not in str(change)
    database.close()
    assert parsed[0] in run("keys", "list").output
    assert key not in run("keys", "list").output
    run("keys", "revoke", parsed[0])
    assert "there is no key" in run("keys", "revoke", "key_x", status=1).output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--role", "king"], "'king' is not one of"),
        (["--role", "advertiser"], "speaks for one advertiser"),
        (["--role", "merchant", "--advertiser-id", "acme"], "speaks for no advertiser"),
        (["--role", "site", "--origin", "shop"], "origin"),
    ],
)
def test_a_key_that_cannot_be_is_refused_in_a_sentence(words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(endcap, ["keys", "create", *words])
    assert done.exit_code in (1, 2)
    assert sentence in done.output
    assert "Traceback" not in done.output


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_PROT", "1")
    monkeypatch.setenv("ENDCAP_PORT", "many")
    output = run("settings", status=1).output
    assert "ENDCAP_PROT is not a setting (did you mean ENDCAP_PORT?)" in output
    assert "ENDCAP_PORT: " in output


def test_settings_lists_each_with_its_sentence() -> None:
    lines = [json.loads(line) for line in run("settings", "--json").output.splitlines()]
    assert {"ENDCAP_PORT", "ENDCAP_HOLDOUT_PPM", "ENDCAP_INVALID_TRAFFIC"} <= {line["variable"] for line in lines}
    assert all(line["sentence"] for line in lines)
    generated = run("settings", "--generate", "ENDCAP_SECRET_KEY").output.strip()
    assert len(bytes.fromhex(generated)) == 32


def test_more_than_one_worker_is_refused_with_the_reason() -> None:
    assert "PostgreSQL and with a shared visitor store" in run("serve", "--workers", "2", status=2).output


def test_weather_is_imported_line_by_line(tmp_path: Path) -> None:
    from auction.store import read_source

    def weather_known() -> Any:
        database = open_database(f"sqlite:///{tmp_path}/data/endcap.db")
        known = database.read(
            lambda connection: read_source(connection, RETAILER_ID, currency="EUR", time_zone="UTC").weather
        )
        database.close()
        return sorted((hour.region, hour.weather, hour.temperature_c) for hour in known)

    (tmp_path / "weather.csv").write_text(
        "region,from,weather,temperature_c\nfr-75,2099-01-01T00:00:00Z,rain,7\nfr-13,soon,sun,\n"
        "fr-13,2099-01-01T00:00:00+01:00,sun,\nfr-13,2001-01-01T00:00:00Z,old,\n"
    )
    output = run("weather", "import", str(tmp_path / "weather.csv"), status=1).output
    assert f"{tmp_path}/weather.csv:3: " in output
    assert "3 imported, 1 refused." in output
    assert weather_known() == [("fr-13", "sun", None), ("fr-75", "rain", 7.0)], "what is long past is forgotten"
    again = '{"region":"fr-75","from":"2099-01-01T00:00:00Z","weather":"snow"}'
    (tmp_path / "weather.jsonl").write_text(again)
    run("weather", "import", str(tmp_path / "weather.jsonl"))
    assert weather_known() == [("fr-13", "sun", None), ("fr-75", "snow", None)]


def test_the_database_goes_up_and_down(tmp_path: Path) -> None:
    assert "EUR, UTC" in run("db", "upgrade").output
    run("db", "downgrade", "--revision", "base", "--yes")
    assert "EUR, UTC" in run("db", "upgrade").output


def test_what_was_fixed_with_the_database_cannot_be_set_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_CURRENCY", "CHF")
    assert "CHF, UTC" in run("db", "upgrade").output
    monkeypatch.setenv("ENDCAP_CURRENCY", "USD")
    assert "was made with CHF for good" in run("db", "upgrade", status=1).output


@pytest.mark.postgres
def test_a_postgresql_database_is_neither_migrated_nor_given_secrets_unasked(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_DATABASE_URL", postgres_url)
    assert "ENDCAP_SECRET_KEY must be set on PostgreSQL" in run("serve", status=1).output
    monkeypatch.setenv("ENDCAP_SECRET_KEY", "5e" * 32)
    monkeypatch.setenv("ENDCAP_BEACON_KEYS", run("settings", "--generate", "ENDCAP_BEACON_KEYS").output.strip())
    assert "run endcap db upgrade" in run("serve", status=1).output
    run("db", "upgrade")
    assert run("keys", "create", "--role", "admin").output.split()[-1].startswith("ec_sk_")


def test_a_file_with_bad_lines_imports_the_good_ones_and_names_the_bad(tmp_path: Path) -> None:
    feed = tmp_path / "feed.tsv"
    feed.write_text("id\ttitle\tprice\tadvertiser_ids\np1\tShoe\t89.99 EUR\tacme\np2\tHat\tmuch\tacme\n")
    output = run("catalog", "import", str(feed), status=1).output
    assert f"{feed}:3: " in output
    assert "1 imported, 1 refused." in output
    events = tmp_path / "events.jsonl"
    good = {"visitor_id": "v", "action": "view_item", "product_id": "p1", "occurred_at": "2026-01-01T10:00:00Z"}
    events.write_text(f"{json.dumps(good)}\nnothing\n")
    assert f"{events}:2: " in run("navigation", "import", str(events), status=1).output
    profiles = tmp_path / "profiles.jsonl"
    profiles.write_text('{"visitor_id":"v","segments":["vip"]}\n')
    assert "1 imported, 0 refused." in run("profiles", "import", str(profiles)).output
    assert b'"v"' not in b"".join(path.read_bytes() for path in (tmp_path / "data" / "navigation").iterdir())


def moment_text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def order_rows(connection: Any, retailer_id: str, order_id: str, customer: bytes, at_ms: int) -> None:
    order = {"retailer_id": retailer_id, "order_id": order_id, "part": 0}
    who = {"visitor": None, "customer": customer, "channel": "store", "digest": order_id}
    who |= {"store_id": None, "traffic_source": None}
    insert_order(
        connection,
        {**order, **who, "occurred_at_ms": at_ms, "recorded_at_ms": at_ms},
        [{**order, "line": 1, "product_id": "p1", "quantity": 2, "unit_price_micros": 10}],
    )


def test_customers_are_computed_from_navigation_and_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ms = time.time_ns() // 1_000_000
    feed = tmp_path / "feed.tsv"
    feed.write_text("id\ttitle\tprice\tadvertiser_ids\np1\tShoe\t89.99 EUR\tacme\n")
    run("catalog", "import", str(feed))
    events = tmp_path / "events.jsonl"
    old = {"visitor_id": "v", "action": "purchase", "product_id": "p1", "occurred_at": moment_text(now_ms - 100 * DAY)}
    events.write_text(json.dumps(old) + "\n" + json.dumps(old | {"visitor_id": "w", "action": "view_item"}) + "\n")
    run("navigation", "import", str(events))
    settings = read_settings()
    hide = pseudonymizer_of(master_secret(settings.server)).of
    with opened(settings.server) as (database, deployment):
        for order_id, customer in (("o1", "w"), ("o2", "nobody")):
            database.transact(
                lambda c, one=order_id, who=customer: order_rows(
                    c, deployment.retailer_id, one, hide(who), now_ms - DAY
                )
            )
    output = run("profiles", "compute").output
    assert "2 customers computed, 0 entries into segments recorded." in output
    assert "lifecycle:lapsing: 1\nlifecycle:new: 1" in output
    assert "1 lines of orders left out" in output
    monkeypatch.setattr("bidder_api.tasks._now_ms", lambda: now_ms + 100 * DAY)
    output = run("profiles", "compute").output
    assert "lifecycle:lapsing: 1\nlifecycle:lost: 1" in output
    assert "2 entries" in output
    with opened(settings.server) as (database, deployment):
        entries = database.read(lambda c: read_segment_entries(c, deployment.retailer_id))
        assert {(one.pseudonym, one.segment_id, one.from_segment_id) for one in entries if one.from_segment_id} == {
            (hide("v"), "lifecycle:lost", "lifecycle:lapsing"),
            (hide("w"), "lifecycle:lapsing", "lifecycle:new"),
        }
    assert "0 entries" in run("profiles", "compute").output


def test_who_is_erased_while_customers_are_computed_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from affinity import customers, store

    events = tmp_path / "events.jsonl"
    bought = {"visitor_id": "v", "action": "purchase", "occurred_at": "2026-01-01T10:00:00Z"}
    events.write_text(json.dumps(bought) + "\n")
    run("navigation", "import", str(events))
    settings = read_settings()
    pseudonym = pseudonymizer_of(master_secret(settings.server)).of("v")
    log = NavigationLog(settings.server.data_dir / "navigation", 1_000)
    real = customers.compute_customers
    erased = []

    def erase_then_compute(*given: Any) -> Any:
        with opened(settings.server) as (database, deployment):
            if not erased:
                erased.append(log.erase([pseudonym]))
                database.transact(lambda c: store.delete_visitor(c, deployment.retailer_id, [pseudonym]))
        return real(*given)

    monkeypatch.setattr(customers, "compute_customers", erase_then_compute)
    assert "0 customers computed" in run("profiles", "compute").output
    assert erased == [1]
    with opened(settings.server) as (database, deployment):
        assert database.read(lambda c: store.read_computed_profiles(c, deployment.retailer_id)) == []


def test_ranking_without_a_model_says_what_to_do() -> None:
    assert "run endcap affinity train" in run("affinity", "rank", status=1, input="{}\n").output


def test_the_report_on_clicks_says_how_predictions_hold_and_what_to_set(tmp_path: Path) -> None:
    assert "no showing or click was counted yet" in run("affinity", "report", status=1).output
    run("db", "upgrade")
    database = open_database(f"sqlite:///{tmp_path}/data/endcap.db")
    top = fill_in("top", PlacementDraft(page_types=["home"], slot_count=3, attention_permille=[1000, 900, 800]), 1)
    database.transact(lambda connection: put_placement(connection, RETAILER_ID, top))
    database.close()
    counters = ClickCounters(Settings())
    for number in range(30_000):
        slot, product_id = number % 2, f"p{number % 7}"
        counters.note_shown("top", product_id, slot + 1, 100_000, 100_000 // (1 + slot))
        if number % 20 in (0, 10, 1):
            counters.note_click("top", product_id, slot + 1, 100_000 // (1 + slot))
    counters.note_shown("gone", "p1", 1, 100_000, 100_000)
    path = tmp_path / "data" / "clicks.msgpack"
    write_memory(counters.memory(), path)
    (said,) = json.loads(run("affinity", "report", "--format", "json").output)["placements"]
    assert said["placement_id"] == "top"
    assert said["calibration"]["is_sound"] is False, "twice the clicks that were predicted in slot 1"
    first, second, third = said["slots"]
    assert first["estimate_permille"] == 1000
    assert second["low_permille"] < 500 < second["high_permille"]
    assert third["estimate_permille"] is None
    assert said["proposed_attention_permille"] == [1000, second["estimate_permille"], second["estimate_permille"]]
    table = run("affinity", "report").output
    assert f"proposed: {said['proposed_attention_permille']}" in table
    assert "clicks/expected" in table
    path.write_bytes(b"x")
    assert "cannot be read" in run("affinity", "report", status=1).output


def test_a_page_is_solved_from_standard_input_and_a_bad_line_is_named() -> None:
    page = {
        "pricing": ["critical"], "allocation": "greedy", "slots": [{"eligible": None}], "profiles": {"click": [1.0]},
        "ads": [{"id": "a", "brand": "A", "type": "click", "bid": 2, "weight": 0.5, "value": 0, "floor": 0.25}],
    }  # fmt: skip
    answer = json.loads(run("auction", "solve", input=json.dumps(page) + "\n").output)
    assert (answer["fills"], answer["critical"]) == (["a"], {"a": 0.25})
    bad = ["nothing", json.dumps(page | {"brand_cap": -1}), json.dumps(page)[:-1] + ', "score_floor": NaN}']
    lines = [*bad, json.dumps(page | {"allocation": "exact"})]
    done = run("auction", "solve", input="\n".join(lines) + "\n", status=2)
    for number, rule in enumerate(
        ("JSON is malformed", "brand_cap must be at least 0, was -1", "JSON is malformed"), 1
    ):
        assert f"line {number}: {rule}" in done.stderr
    assert json.loads(done.stdout) == answer | {"allocation_used": "exact"}, "the good lines are answered all the same"


def test_the_real_command_answers_page_by_page_as_its_function_does() -> None:
    from auction.solve import solve_page
    from tests.auction.test_solve import encode, random_page

    chance = random.Random(7)
    pages = [random_page(chance) | {"allocation": chance.choice(["greedy", "exact"])} for _ in range(200)]
    lines = b"".join(encode(page) + b"\n" for page in pages)
    command = [sys.executable, "-m", "bidder_api", "auction", "solve"]
    done = subprocess.run(command, input=lines, capture_output=True, check=True)
    assert done.stdout == b"".join(encode(solve_page(json.loads(encode(page)))) + b"\n" for page in pages)


def test_months_are_closed_and_their_traffic_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must be on" in run("ledger", "inspect", "2026-01", status=2).output
    assert "period_open" in run("ledger", "close", "2126-01", "--stage", "soft", status=1).output
    assert run("ledger", "close", "2026-01", "--stage", "soft").output == "2026-01 is soft.\n"
    assert "2026-01 is sealed. digest " in run("ledger", "close", "2026-01", "--stage", "sealed").output
    monkeypatch.setenv("ENDCAP_INVALID_TRAFFIC", "on")
    assert "Nothing was found" in run("ledger", "inspect", "2026-02").output
    assert "period_sealed" in run("ledger", "inspect", "2026-01", status=1).output
    assert "must be a month" in run("ledger", "inspect", "2026-13", status=2).output


def test_the_books_are_verified_exported_and_signed(tmp_path: Path) -> None:
    run("keys", "create", "--role", "admin")
    assert "The books are as they were written" in run("ledger", "verify").output
    checkpoint = tmp_path / "checkpoint.json"
    run("ledger", "checkpoint", "--output", str(checkpoint))
    assert "the checkpoint of batch 1 is contained" in run("ledger", "verify", "--checkpoint", str(checkpoint)).output
    missing = run("ledger", "receipt", "never", "--checkpoint", str(checkpoint), status=1).output
    assert "there is no event 'never' (unknown_event)" in missing
    assert run("ledger", "export").output.startswith("seq,transaction_id,")
    run("ledger", "export", "--format", "hledger", "--output", str(tmp_path / "journal"))
    database = open_database(f"sqlite:///{tmp_path}/data/endcap.db")
    database.transact(lambda connection: connection.exec_driver_sql("UPDATE change_log SET role = 'site'"))
    database.close()
    assert "touched: change" in run("ledger", "verify", status=1).output


@pytest.mark.parametrize(
    ("kind", "first"),
    [("csv", b"seq,"), ("parquet", b"PAR1"), ("xlsx", b"PK"), ("hledger", b""), ("fec", b"JournalCode")],
)
def test_the_books_are_exported_in_every_format(
    tmp_path: Path, kind: str, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("db", "upgrade")
    path = tmp_path / f"books.{kind}"
    run("ledger", "export", "--format", kind, "--output", str(path))
    whole = path.read_bytes()
    assert whole.startswith(first)
    assert run("ledger", "export", "--format", kind).stdout_bytes.startswith(first)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    for name in ("write_csv", "write_parquet", "write_xlsx", "_entries"):
        monkeypatch.setattr(f"ledger.export.{name}", fail)
    assert "No space left" in run("ledger", "export", "--format", kind, "--output", str(path), status=1).output
    assert path.read_bytes() == whole
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == [path.name]


def test_every_view_can_be_exported() -> None:
    (views,) = (option.type for option in endcap.commands["ledger"].commands["export"].params if option.name == "views")
    assert set(views.choices) == set(VIEWS)


def test_what_cannot_be_exported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("ledger", "export", "--format", "fec", "--view", "audit_event", status=2).output
    assert "--view is for csv, parquet and xlsx" in said
    said = run("ledger", "export", "--view", "audit_event", "--view", "audit_entry", status=2).output
    assert "csv holds one view" in said
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = run("ledger", "export", "--format", "parquet", status=1).output
    assert "pip install 'endcap[export]'" in said


def test_commission_is_agreed_posted_and_proved(tmp_path: Path) -> None:
    agree = ("ledger", "commission", "agree", "acme", "--rate-bps", "833", "--from", "2026-01-01")
    agreed = json.loads(run(*agree).stdout)
    assert (agreed["commission_agreement_id"], agreed["rate_bps"]) == ("cag_1", 833)
    assert "agreement_overlaps" in run(*agree[:-1], "2026-02-01", status=1).output
    with opened(read_settings().server) as (database, _):
        now_ms = time.time_ns() // 1_000_000
        world = LedgerWorld(database)
        world.clock.at_ms = now_ms - 20 * DAY
        world.fund("acme", 10**9)
        clicked(world, advertiser_id="acme", product_id="p1")
        sell(world, "o1", world.clock() + 1, ("p1", 3, 10_000_003), visitor=COOKIE)
    assert run("ledger", "commission", "post").stdout == (
        "1 lines charged, 2499001 micros; 0 with goods that came back, 0 micros given back.\n"
    )
    assert run("ledger", "commission", "post").stdout.startswith("0 lines charged")
    checkpoint, receipt = tmp_path / "checkpoint.json", tmp_path / "receipt.json"
    run("ledger", "checkpoint", "--output", str(checkpoint))
    run("ledger", "receipt", "--order", "o1", "--checkpoint", str(checkpoint), "--output", str(receipt))
    proven = run("ledger", "verify-receipt", str(receipt), "--checkpoint", str(checkpoint)).stdout
    assert "line 1: 3 pieces, 30.000009 in all" in proven
    assert "Agreement cag_1 with acme: 833 basis points." in proven
    assert "+2.499001  commission" in proven
    receipt.write_text(receipt.read_text().replace("2499001", "2499000"))
    refused = run("ledger", "verify-receipt", str(receipt), "--checkpoint", str(checkpoint), status=1).output
    assert "receipt_invalid" in refused
    assert "give an EVENT_ID" in run("ledger", "receipt", status=2).output
    assert json.loads(run("ledger", "commission", "end", "cag_1", "--at", "2099-01-01").stdout)["ends_at"] is not None
    assert [json.loads(line)["advertiser_id"] for line in run("ledger", "commission", "list").stdout.splitlines()] == [
        "acme"
    ]
    assert "The books are as they were written" in run("ledger", "verify").output


class TestAuctionReport:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        from tests.auction.servers import Served
        from tests.auction.worlds import bid, placement, request, source

        bids = [bid("bid_1", ["p1"], 3_000_000, "cmp_a"), bid("bid_2", ["p2"], 2_000_000, "cmp_b")]
        folder = tmp_path / "data" / "receipts"
        served = Served(source(bids=bids, placements=[placement(slot_count=1)]), folder)
        for _ in range(3):
            served.fill(request())
            served.clock.now_ms += 86_400_000
        served.server.receipts.write()
        return folder

    def test_as_a_table_json_and_csv(self, data_dir: Path) -> None:
        table = run("auction", "report").stdout
        for word in (
            "3 auctions; money in EUR",
            "placement",
            "top",
            "advertiser",
            "adv_a",
            "100.0%",
            "a loser has none",
        ):
            assert word in table
        told = json.loads(run("auction", "report", "--format", "json").stdout)
        assert told["receipt_count"] == 3
        (top,) = told["placements"]
        assert (top["name"], top["auctions"], top["fills"], top["sponsored_share"]) == ("top", 3, 3, 1.0)
        assert top["price_over_bid"] == pytest.approx(2 / 3, abs=1e-5)
        assert [line["name"] for line in told["advertisers"]] == ["adv_a", "adv_b"]
        head, *rows = run("auction", "report", "--format", "csv").stdout.splitlines()
        assert head.startswith("kind,name,auctions,slots,fills,")
        assert [row.split(",")[:3] for row in rows] == [
            ["placement", "top", "3"],
            ["advertiser", "adv_a", "3"],
            ["advertiser", "adv_b", "3"],
        ]

    def test_of_some_days(self, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def count(*words: str) -> int:
            told = json.loads(run("auction", "report", "--format", "json", *words).stdout)
            return int(told["receipt_count"])

        # The first was held on 2026-09-21 at 14:13:20 UTC, the others a day later each.
        assert count("--from", "2026-09-22") == 2
        assert count("--to", "2026-09-21") == 1
        assert count("--from", "2026-09-22", "--to", "2026-09-22") == 1
        assert count("--to", "2026-09-21T16:13:21+02:00") == 1
        monkeypatch.setenv("ENDCAP_TIME_ZONE", "Pacific/Kiritimati")  # 14 hours ahead
        assert count("--from", "2026-09-22") == 3

    def test_what_cannot_be_read_is_said_aside(self, data_dir: Path) -> None:
        (segment,) = data_dir.glob("*.receipts")
        segment.write_bytes(segment.read_bytes()[:-1])
        done = run("auction", "report", "--format", "json")
        assert json.loads(done.stdout)["receipt_count"] == 2
        assert f"{segment.name} is torn at byte" in done.stderr

    @pytest.mark.parametrize(
        ("words", "status", "sentence"),
        [
            (["--from", "2027-01-01"], 1, "no receipt of that time is here"),
            (["--from", "yesterday"], 2, "--from must be a day such as"),
            (["--to", "2026-09-21T10:00:00"], 2, "--to must be a day such as"),
            (["--from", "2026-09-22", "--to", "2026-09-21"], 2, "--from must be before --to"),
            (["--format", "xml"], 2, "xml"),
            (["--data-dir", "nowhere"], 1, "there are no receipts"),
        ],
    )
    def test_what_is_refused(self, data_dir: Path, words: list[str], status: int, sentence: str) -> None:
        assert sentence in run("auction", "report", *words, status=status).output.replace("\n", " ")
