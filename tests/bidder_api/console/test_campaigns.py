"""The campaigns' page: figures that are the ledger's, changes that are the API's, and nobody else's brand."""

import csv
import gzip
import io
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from auction.campaign import Campaign
from bidder_api.console.campaigns import Figures, make_wallet, status_of
from bidder_api.console.formats import Formats
from bidder_api.console.pages import FILES
from bidder_api.console.period import Period
from bidder_api.console.words import _WORDS
from bidder_api.store import list_changes
from ledger.reports import CampaignBudget
from tests.bidder_api.console.visitor import HERE, Visitor, click, fund, make_campaign
from tests.bidder_api.world import RETAILER, World

NOW = datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)  # the world's clock
PAGE_BYTES_MAX = 250_000


def sums(world: World, sql: str) -> int:
    import sqlalchemy as sa

    with world.database.engine.connect() as connection:
        return int(connection.execute(sa.text(sql)).scalar_one())


# --- figures


def test_money_on_the_page_is_the_ledgers_to_the_micro(world: World) -> None:
    world.wait_started()
    fund(world, 90_000_007)
    fund(world, 10**9, "brio")
    first, second = make_campaign(world, "Shoes"), make_campaign(world, "Boots")
    foreign = make_campaign(world, "Other", tenants=["brio"])
    click(world, first, 1_234_567, count=3)
    click(world, second, 7, count=2)
    click(world, foreign, 5_000_000, "brio")
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    page = visitor.campaigns()
    charged = 3 * 1_234_567 + 2 * 7
    assert visitor.figure("spend") == str(charged)
    assert charged == sums(world, "SELECT SUM(amount_micros) FROM audit_event WHERE advertiser_id = 'acme'")
    assert f'<data id="balance" value="{90_000_007 - charged}"' in page
    assert sums(world, "SELECT -posted_micros FROM audit_balance WHERE account = 'wallet:acme'") == 90_000_007 - charged
    assert (visitor.figure("impressions"), visitor.figure("clicks"), visitor.figure("ctr")) == ("5", "5", "1")
    assert f'<data value="{3 * 1_234_567}"' in visitor.row(first)
    assert f'<data value="{2 * 7}"' in visitor.row(second)
    assert "Other" not in page
    assert foreign not in page


def test_the_page_shows_what_the_calls_it_offers_to_copy_answer(world: World) -> None:
    world.wait_started()
    fund(world, 10**9)
    campaign_id = make_campaign(world)
    click(world, campaign_id, 123_457, count=2)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    page = visitor.campaigns()
    shown = unescape(page[page.index('id="commands"') :].partition("</pre>")[0])
    targets = re.findall(rf"'{HERE}(/v1/[^']+)'", shown)
    assert [target.partition("?")[0] for target in targets] == [
        "/v1/campaigns", "/v1/ledger/budgets", "/v1/ledger/credit-lines",
        "/v1/reports/campaigns", "/v1/reports/campaigns",
    ]  # fmt: skip
    answers = [world.call("GET", target, role="advertiser") for target in targets]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert sum(one["charged_micros"] for one in answers[3].json()["items"]) == int(visitor.figure("spend"))
    assert answers[1].json()["items"][0] == {
        "campaign_id": campaign_id, "advertiser_id": "acme", "day": "2026-11-18", "daily_budget_micros": 25_500_000,
        "total_budget_micros": None, "spent_day_micros": 246_914, "spent_total_micros": 246_914,
    }  # fmt: skip


def test_a_period_is_held_against_the_days_before_it(world: World) -> None:
    world.wait_started()
    fund(world, 10**9)
    campaign_id = make_campaign(world)
    hour_ms, now_ms = 3_600_000, world.clock.now_ms
    for hours_ago, price in ((8 * 24, 100_000), (7 * 24 + 1, 7_000), (7 * 24 - 1, 9_000), (6 * 24, 400), (0, 50)):
        world.clock.now_ms = now_ms - hours_ago * hour_ms
        click(world, campaign_id, price)
    world.clock.now_ms = now_ms
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    assert visitor.figure("spend") == "450"
    assert "before: €0.11" in visitor.page  # of its last day only as many hours as today has had
    assert visitor.campaigns("period=today").count("before: €0.00") >= 1
    assert visitor.figure("spend") == "50"
    visitor.campaigns("period=custom&first=2026-11-10&last=2026-11-11")
    assert visitor.figure("spend") == "116000"
    assert "before:" not in visitor.campaigns("compare=none")


def test_the_chart_is_the_periods_days_and_hours_none_after_now(world: World) -> None:
    world.wait_started()
    fund(world, 10**9)
    click(world, make_campaign(world), 1_500_000)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")

    def figures(query: str) -> list[tuple[str, str]]:
        table = (
            visitor.campaigns(query)
            .partition('<table class="table table-sm" id="figures">')[2]
            .partition("</table>")[0]
        )
        return re.findall(r'<tr><th scope="row">([^<]+)</th><td class="number" data-value="([^"]*)">', table)

    assert figures("") == [(f"Nov {day}", "0") for day in range(12, 18)] + [("Nov 18", "1.5")]
    hours = figures("period=today")
    assert [label for label, _ in hours] == [f"{hour:02}:00" for hour in range(12)]
    assert hours[-1] == ("11:00", "1.5")


def test_csv_is_the_apis_own(world: World) -> None:
    world.wait_started()
    fund(world, 10**9)
    campaign_id = make_campaign(world)
    click(world, campaign_id, 1_234_567)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    answer = visitor.get("/console/campaigns.csv?period=today")
    assert answer.headers["content-disposition"] == 'attachment; filename="campaigns-2026-11-18-2026-11-18.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["name"], row["charged_micros"]) == (campaign_id, "1234567")


def test_without_campaigns_the_page_says_how_to_begin(world: World) -> None:
    page = Visitor(world).sign_in_as("advertiser", "acme").campaigns()
    assert "No campaigns yet" in page
    assert "<canvas" not in page


def test_a_search_finds_by_part_of_a_name_and_keeps_the_rest_of_the_page(world: World) -> None:
    make_campaign(world, "Trail shoes")
    make_campaign(world, "Boots <b>")
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    page = visitor.campaigns("q=SHOE&period=today")
    assert "Trail shoes" in page
    assert "Boots" not in page
    assert '<input type="hidden" name="period" value="today">' in page
    assert "No campaign is called that." in visitor.campaigns("q=zzz")
    assert "Boots &lt;b&gt;" in visitor.campaigns()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("first=2026-11-10", "Choose a first and a last day"),
        ("first=2026-11-10&last=2026-11-01", "must not be before"),
        ("first=2026-01-01&last=2026-11-01", "At most 91 days"),
        ("first=2027-01-01&last=2027-01-02", "not in the future"),
        ("first=0001-01-01&last=0001-01-02", "not in the future"),
    ],
)
def test_days_that_make_no_sense_are_refused_at_their_fields(world: World, query: str, said: str) -> None:
    page = Visitor(world).sign_in_as("advertiser", "acme").campaigns("period=custom&" + query)
    assert said in page
    assert page.count('aria-describedby="days-refusal"') == 2


# --- changes


def send(visitor: Visitor, campaign_id: str, partial: bool = True, **form: str) -> Any:
    form = {"etag": visitor.etag(campaign_id), **form}
    more = {"HX-Request": "true"} if partial else {}
    return visitor.send(f"/console/campaigns/{campaign_id}?period=today", form, **more)


def read(world: World, campaign_id: str) -> Any:
    return world.call("GET", f"/v1/campaigns/{campaign_id}").json()


def test_a_budget_is_changed_as_the_api_changes_it(world: World) -> None:
    campaign_id = make_campaign(world)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    answer = send(visitor, campaign_id, daily_budget="1,234.000001")
    assert answer.status_code == 200
    assert answer.text.strip().startswith(f'<tr id="{campaign_id}" data-said="Daily budget of Shoes: €1,234.00"')
    assert 'value="1234.000001"' in answer.text
    assert read(world, campaign_id)["daily_budget_micros"] == 1_234_000_001
    (budget,) = world.call("GET", "/v1/ledger/budgets").json()["items"]
    assert budget["daily_budget_micros"] == 1_234_000_001
    last = world.read(lambda c: list_changes(c, RETAILER, 0, 100))[-1]
    assert (last.role, last.action, last.resource_id) == ("advertiser", "update", campaign_id)
    assert '"daily_budget_micros":25500000' in str(last.before)


def test_without_scripts_a_change_comes_back_to_the_page(world: World) -> None:
    campaign_id = make_campaign(world)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    answer = send(visitor, campaign_id, partial=False, daily_budget="30")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/campaigns?period=today#{campaign_id}")
    visitor.campaigns()
    refused = send(visitor, campaign_id, partial=False, daily_budget="0")
    assert refused.status_code == 422
    assert "<!doctype html>" in refused.text
    assert read(world, campaign_id)["daily_budget_micros"] == 30_000_000


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "Write an amount such as 25.50."),
        ("much", "Write an amount such as 25.50."),
        ("25,50", "Write an amount such as 25.50."),  # a comma groups thousands in English
        ("NaN", "Write an amount such as 25.50."),
        ("1e3", "Write an amount such as 25.50."),
        ("9" * 60, "Write an amount such as 25.50."),
        ("0.0000001", "An amount has six decimals at most."),
        ("0", "The amount must be more than nothing"),
        ("-5", "The amount must be more than nothing"),
        ("99999999999999", "The amount must be more than nothing"),
    ],
)
def test_what_cannot_be_a_budget_is_refused_at_the_field(world: World, typed: str, said: str) -> None:
    campaign_id = make_campaign(world)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    answer = send(visitor, campaign_id, daily_budget=typed)
    assert answer.status_code == 422
    assert f'aria-invalid="true" aria-describedby="refusal-{campaign_id}"' in answer.text
    assert re.search(rf'id="refusal-{campaign_id}">{re.escape(said)}', answer.text), answer.text
    assert f'value="{typed}" aria-invalid' in answer.text
    assert read(world, campaign_id)["daily_budget_micros"] == 25_500_000


def test_in_french_a_budget_is_typed_as_the_french_do(world: World) -> None:
    campaign_id = make_campaign(world)
    visitor = Visitor(world, **{"Accept-Language": "fr-FR,fr;q=0.9"}).sign_in_as("advertiser", "acme")
    assert 'value="25,50"' in visitor.campaigns()
    assert send(visitor, campaign_id, daily_budget="1 234,56").status_code == 200
    assert read(world, campaign_id)["daily_budget_micros"] == 1_234_560_000
    visitor.campaigns()
    assert "Écrivez un montant comme 25,50." in send(visitor, campaign_id, daily_budget="1.234,56").text


def test_what_another_changed_meanwhile_is_not_overwritten(world: World) -> None:
    campaign_id = make_campaign(world)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    patch, stale = {"daily_budget_micros": 77_000_000}, visitor.etag(campaign_id)
    world.call("PATCH", f"/v1/campaigns/{campaign_id}", patch, headers={"If-Match": stale})
    answer = send(visitor, campaign_id, daily_budget="30")
    assert answer.status_code == 422
    assert "It was changed by somebody else meanwhile." in answer.text
    assert 'value="77.00"' in answer.text
    assert read(world, campaign_id)["daily_budget_micros"] == 77_000_000
    assert send(visitor, campaign_id, daily_budget="30", etag=stale).status_code == 422
    assert send(visitor, campaign_id, daily_budget="30").status_code == 200


def test_a_campaign_is_paused_and_resumed(world: World) -> None:
    fund(world, 10**9)
    campaign_id = make_campaign(world)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    answer = send(visitor, campaign_id, status="paused")
    assert "Shoes is paused" in answer.text
    assert "Resume" in answer.text
    assert read(world, campaign_id)["status"] == "paused"
    visitor.campaigns()
    assert "Shoes is active again" in send(visitor, campaign_id, status="active").text
    for status in ("archived", "", "x"):
        visitor.campaigns()
        assert send(visitor, campaign_id, status=status).status_code == 422
    assert read(world, campaign_id)["status"] == "active"


def test_a_partial_answer_to_who_is_no_longer_signed_in_leads_to_the_door(world: World) -> None:
    campaign_id = make_campaign(world)
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    visitor.campaigns()
    visitor.client.cookies.delete("console_session")
    answer = send(visitor, campaign_id, status="paused")
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/console/sign-in")
    assert read(world, campaign_id)["status"] == "active"


# --- whose


def test_another_brands_page_and_campaign_answer_as_what_does_not_exist(world: World) -> None:
    foreign = make_campaign(world, "Secret", tenants=["brio"])
    visitor = Visitor(world).sign_in_as("advertiser", "acme")
    for path in ("/console/campaigns", "/console/campaigns.csv"):
        pages = [visitor.get(f"{path}?advertiser_id={name}") for name in ("brio", "nobody")]
        assert [page.status_code for page in pages] == [404, 404]
        assert pages[0].text.replace("brio", "NAME") == pages[1].text.replace("nobody", "NAME")
    visitor.campaigns()
    form = {"status": "paused", "etag": "*"}
    unknown = foreign[:-4] + "0000"
    token = visitor.token()
    answers = [
        visitor.send(f"/console/campaigns/{one}{query}", form, token=token)
        for one in (foreign, unknown)
        for query in ("", "?advertiser_id=brio")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert world.call("GET", f"/v1/campaigns/{foreign}", tenants=["brio"]).json()["status"] == "active"
    own = make_campaign(world, "Own")
    answer = visitor.send(f"/console/campaigns/{own}?advertiser_id=brio", form, token=token)
    assert (answer.status_code, read(world, own)["status"]) == (404, "active")


def test_an_agency_chooses_among_its_brands(world: World) -> None:
    world.wait_started()
    fund(world, 10**9, "brio")
    make_campaign(world, "Of acme")
    of_brio = make_campaign(world, "Of brio", tenants=["brio"])
    click(world, of_brio, 31_000, "brio")
    visitor = Visitor(world).sign_in_as("agency", "acme", "brio")
    chooser = visitor.campaigns()
    assert re.findall(r"advertiser_id=(\w+)", chooser) == ["acme", "brio"]
    page = visitor.campaigns("advertiser_id=brio")
    assert "Of brio" in page
    assert "Of acme" not in page
    assert visitor.figure("spend") == "31000"
    assert send_for(visitor, of_brio, "brio").status_code == 200
    assert visitor.get("/console/campaigns?advertiser_id=cara").status_code == 404


def send_for(visitor: Visitor, campaign_id: str, brand: str) -> Any:
    form = {"status": "paused", "etag": visitor.etag(campaign_id)}
    return visitor.send(f"/console/campaigns/{campaign_id}?advertiser_id={brand}", form, **{"HX-Request": "true"})


def test_an_agencys_figures_over_the_api_are_those_of_the_brand_it_names(world: World) -> None:
    world.wait_started()
    fund(world, 10**9, "brio")
    campaign_id = make_campaign(world, tenants=["brio"])
    click(world, campaign_id, 31_000, "brio")
    span = "from=2026-11-12T00:00:00Z&to=2026-11-19T00:00:00Z"
    for path in (f"/v1/reports/campaigns?{span}", f"/v1/sales?{span}", "/v1/ledger/credit-lines?page_size=9",
                 "/v1/ledger/budgets?page_size=9"):  # fmt: skip

        def call(named: str, path: str = path) -> Any:
            return world.call("GET", path + named, role="agency", tenants=("acme", "brio"))

        assert call("").json()["code"] == "advertiser_id_missing"
        assert (call("&advertiser_id=brio").status_code, len(call("&advertiser_id=brio").json()["items"])) == (200, 1)
        assert call("&advertiser_id=acme").json()["items"] == []
        foreign, unknown = call("&advertiser_id=cara"), call("&advertiser_id=nobody")
        assert (foreign.status_code, foreign.text) == (unknown.status_code, unknown.text)
        assert foreign.status_code == 404


def test_campaigns_are_listed_by_advertiser_for_who_may_see_them(world: World) -> None:
    make_campaign(world, "Of acme")
    make_campaign(world, "Of brio", tenants=["brio"])

    def names(named: str, **caller: Any) -> list[str]:
        answer = world.call("GET", f"/v1/campaigns?advertiser_id={named}", **caller)
        return [one["name"] for one in answer.json()["items"]]

    assert names("brio", role="admin") == ["Of brio"]
    assert names("acme", role="agency", tenants=("acme", "brio")) == ["Of acme"]
    assert names("brio", tenants=("acme",)) == []


@pytest.mark.parametrize("role", ["merchant", "crm", "finance", "auditor", "retailer"])
def test_a_role_without_campaigns_sees_none(world: World, role: str) -> None:
    visitor = Visitor(world).sign_in_as(role)
    start = visitor.get("/console")
    if role in ("finance", "auditor"):
        assert start.headers["location"] == "/console/finance"
    else:
        assert "No pages for this role yet" in start.text
    assert visitor.get("/console/campaigns?advertiser_id=acme").status_code == 404


def test_an_admin_opens_any_brand(world: World) -> None:
    fund(world, 5_000_000)
    make_campaign(world, "Of acme")
    visitor = Visitor(world).sign_in_as("admin")
    assert "advertiser_id=acme" in visitor.campaigns()
    assert "Of acme" in visitor.campaigns("advertiser_id=acme")


# --- what each word means

CAMPAIGN = Campaign(
    campaign_id="c", advertiser_id="a", name="n", daily_budget_micros=100, total_budget_micros=1_000,
    flight_starts_at=None, flight_ends_at=None, pacing="even", status="active", created_at=NOW, updated_at=NOW,
    change_seq=1,
)  # fmt: skip
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("campaign", "day", "life", "funds", "word"),
    [
        ({}, 99, 999, 1, "active"),
        ({}, 100, 100, 1, "out_of_budget"),
        ({}, 0, 1_000, 1, "out_of_budget"),
        ({"daily_budget_micros": None, "total_budget_micros": None}, 10**9, 10**9, 1, "active"),
        ({}, 0, 0, 0, "wallet_empty"),
        ({}, 100, 100, 0, "wallet_empty"),
        ({"flight_starts_at": NOW + HOUR}, 0, 0, 0, "scheduled"),
        ({"flight_starts_at": NOW}, 0, 0, 1, "active"),
        ({"status": "paused", "flight_starts_at": NOW + HOUR}, 0, 0, 1, "paused"),
        ({"status": "paused", "flight_ends_at": NOW}, 0, 0, 1, "ended"),
        ({"flight_ends_at": NOW + HOUR}, 0, 0, 1, "active"),
    ],
)
def test_the_word_for_how_a_campaign_stands(
    campaign: dict[str, Any], day: int, life: int, funds: int, word: str
) -> None:
    import msgspec

    budget = CampaignBudget("c", "a", "2026-11-18", 100, 1_000, day, life)
    assert status_of(msgspec.structs.replace(CAMPAIGN, **campaign), budget, funds, NOW) == word


def test_how_long_the_wallet_lasts_is_counted_from_the_time_gone() -> None:
    week = Period(NOW.date() - timedelta(days=6), NOW.date(), "UTC")
    half = NOW.replace(hour=12, minute=0, second=0)  # six and a half days in
    wallet = make_wallet(100_000_000, 13_000_000, week, half)
    assert (wallet.spend_a_day_micros, wallet.days_left) == (2_000_000, 50)
    assert make_wallet(100, 0, week, half).days_left is None
    assert make_wallet(-5, 13, week, half).days_left == 0


def test_a_ratio_over_nothing_is_none() -> None:
    assert Figures().value("roas") is None
    assert Figures().value("ctr") is None


def test_days_are_the_retailers_and_so_is_a_change_of_clocks() -> None:
    spring = Period(datetime(2026, 3, 29).date(), datetime(2026, 3, 29).date(), "Europe/Paris")  # noqa: DTZ001
    autumn = Period(datetime(2026, 10, 25).date(), datetime(2026, 10, 25).date(), "Europe/Paris")  # noqa: DTZ001
    assert (len(spring.hours()), len(autumn.hours())) == (23, 25)
    assert spring.begins_at.astimezone(UTC) == datetime(2026, 3, 28, 23, tzinfo=UTC)
    begins, ends = autumn.before(datetime(2026, 10, 25, 11, tzinfo=UTC))  # noon in Paris, after the change
    assert (begins.isoformat(), ends.isoformat()) == ("2026-10-24T00:00:00+02:00", "2026-10-24T12:00:00+02:00")


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize("micros", [0, 1, -1, 25_500_000, 1_234_567_891, 10**15 + 1])
def test_what_is_typed_is_what_was_shown_to_the_micro(language: str, micros: int) -> None:
    formats = Formats(language, "EUR", "UTC")
    assert formats.parse_money(formats.typed_money(micros)) == micros


def test_every_word_is_there_in_both_languages_and_says_the_same_names() -> None:
    for key, (english, french) in _WORDS.items():
        assert english, key
        assert french, key
        assert set(re.findall(r"{(\w+)}", english)) == set(re.findall(r"{(\w+)}", french)), key


# --- what travels


def test_a_page_with_all_it_needs_weighs_little_and_comes_from_here(world: World) -> None:
    for number in range(100):
        make_campaign(world, f"Campaign number {number}")
    visitor = Visitor(world, **{"Accept-Encoding": "gzip"}).sign_in_as("advertiser", "acme")

    def weight(path: str) -> int:
        with visitor.client.stream("GET", path) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            raw = b"".join(answer.iter_raw())
        assert gzip.decompress(raw)
        return len(raw)

    page = visitor.campaigns()
    assert page.count('<tr id="cmp_') == 100
    files = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)
    assert len(files) == len(FILES)
    assert not re.findall(r'(?:src|href|action)="(?!/|#|data:,)', page)
    assert "style=" not in page
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=", page)
    whole = weight("/console/campaigns") + sum(map(weight, files))
    assert whole <= PAGE_BYTES_MAX, whole


def test_the_policy_lets_nothing_in_line_run(world: World) -> None:
    policy = Visitor(world).get("/console/sign-in").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


def test_every_vendored_file_has_its_licence_beside_it() -> None:
    for path, _ in FILES.values():
        if "static" in path.parts and "console" not in path.parts:
            assert any(one.name.startswith("LICENSE") for one in path.parent.iterdir()), path
