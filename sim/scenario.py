"""Scenarios: one TOML file names a world, its traffic, its placements and rules, and who bids how.

Everything a run needs is here, so that a scenario and a seed say the whole result. Reads and checks files; builds
nothing.
"""

import tomllib
from collections.abc import Callable
from datetime import date
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct, field

from affinity.audience import Audience
from affinity.catalog import CategoryId
from affinity.pattern import NavigationPattern
from auction.campaign import FrequencyCap
from auction.placement import AttentionList, PageCaps, PlacementDraft
from auction.request import PageType
from auction.retailer_rule import RuleDraft
from ledger.money import PositiveMicros
from ledger.terms import ChargeOn, Identifier
from sim.errors import ScenarioRefused

SHIPPED_FOLDER = Path(__file__).parent / "scenarios"
PAGES_SIMULATED: tuple[PageType, ...] = ("home", "category", "search", "product")
PAGE_COUNT_MAX = 20_000_000
BID_COUNT_MAX = 200_000

Refuse = Callable[[str, str], None]
Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]
Weights = Annotated[list[Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(min_length=1, max_length=366)]
FilePath = Annotated[str, Meta(min_length=1, max_length=1024)]

NEEDS = {  # policy to what it cannot do without, and why where the name does not say
    "shaded": {"share_ppm": ""},
    "paced": {"daily_budget_micros": " to pace against"},
    "target-roas": {"target_roas_ppm": ""},
    "click-fraud": {"share_ppm": "", "rival_click_ppm": ""},
}
SHOPPING_HOURS = (4, 2, 1, 1, 1, 2, 5, 9, 12, 14, 15, 15, 17, 16, 14, 14, 15, 18, 22, 26, 28, 24, 16, 8)


class World(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Catalogue and visitors.

    Attributes:
        catalogue: `synthetic`, of the counts below; `shipped`, the demo's; or a feed file, relative to the scenario.
        own_brand_ppm: share of a synthetic catalogue that is the retailer's own brand and never bid on.
        consent_ppm: share of visitors who agreed to personalisation.
        sensitivity_ppm: how much the price matters to the most price-sensitive visitors; each draws up to it.
        quality_noise_ppm: how far the retailer's prediction of a product's clicks is off, either way.
        organic: what the shop shows where nobody pays: `affinity` (this visitor's likeliest clicks, as predicted) or
            `popularity` (everybody's).
    """

    catalogue: Literal["synthetic", "shipped"] | FilePath = "synthetic"
    product_count: Annotated[int, Meta(ge=2, le=1_000_000)] = 2_000
    category_count: Annotated[int, Meta(ge=1, le=10_000)] = 24
    brand_count: Annotated[int, Meta(ge=1, le=100_000)] = 60
    own_brand_ppm: Ppm = 100_000
    visitor_count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    consent_ppm: Ppm = 800_000
    sensitivity_ppm: Ppm = 700_000
    quality_noise_ppm: Annotated[int, Meta(ge=0, le=900_000)] = 200_000
    organic: Literal["affinity", "popularity"] = "affinity"


class Traffic(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When visitors come and how long they stay.

    Attributes:
        hour_weights: 24 whole weights from midnight, local time.
        day_weights: one per day; left out, every day is alike. A sale is a day of more weight.
        page_mix: weights of what a visitor opens when no product was clicked.
    """

    starts_on: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] = "2026-11-23"
    time_zone: str = "Europe/Paris"
    days: Annotated[int, Meta(ge=1, le=366)] = 1
    sessions_per_day: Annotated[int, Meta(ge=1, le=2_000_000)] = 1_000
    pages_per_session: Annotated[int, Meta(ge=1, le=50)] = 6
    hour_weights: Weights = field(default_factory=lambda: list(SHOPPING_HOURS))
    day_weights: Weights | None = None
    page_mix: dict[Literal["home", "category", "search"], Annotated[int, Meta(ge=0, le=1_000_000)]] = field(
        default_factory=lambda: {"home": 20, "category": 55, "search": 25}
    )


class Clicks(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How visitors answer: the position-based model, then orders.

    Attributes:
        click_ppm: clicks per million looks of an average visitor at an average product.
        order_ppm: orders per million clicks, likewise.
        seen_permille: true chance that slot t is looked at; left out, as the placement believes.
        beacon_loss_ppm: clicks whose beacon never arrives.
    """

    click_ppm: Annotated[int, Meta(ge=1, le=500_000)] = 40_000
    order_ppm: Annotated[int, Meta(ge=1, le=1_000_000)] = 80_000
    seen_permille: AttentionList | None = None
    beacon_loss_ppm: Ppm = 0


class ScenarioPlacement(PlacementDraft, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A placement as the merchant would put it, with its id."""

    placement_id: Identifier


class Bidders(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Some advertisers who bid alike.

    Attributes:
        policy: one of those in bidder.py by name, or a class of one's own: `file.py:ClassName`.
        count: how many of them; each has one campaign, and one bid per promoted product.
        products_each: how many of its products each promotes, its most wanted first.
        margin_ppm: what an order leaves the advertiser, of the product's price; its value of a click is this times
            price times the chance of an order.
        margin_spread_ppm: how far the margins of the several advertisers lie apart, either way.
        share_ppm: `shaded`, `click-fraud`: the share of its value it bids.
        target_roas_ppm: sales it wants per spend, in parts per million. `target-roas` steers by itself; for any other
            policy it is the campaign's objective, and the server lowers the bids.
        rival_click_ppm: `click-fraud`: how many of others' paid products it has clicked, of a million seen.
        daily_budget_micros, total_budget_micros, funds_micros: left out, no limit, and more funds than can be spent.
        pacing: `even` hands the pacing to the server; `asap` leaves it to the policy.
        audience, navigation_pattern, category_ids, frequency_cap: on every bid, as on the wire.
    """

    policy: FilePath
    count: Annotated[int, Meta(ge=1, le=100_000)] = 1
    products_each: Annotated[int, Meta(ge=1, le=1_000)] = 10
    charge_on: ChargeOn = ChargeOn.CLICK
    margin_ppm: Annotated[int, Meta(ge=1, le=1_000_000)] = 300_000
    margin_spread_ppm: Ppm = 300_000
    share_ppm: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    target_roas_ppm: Annotated[int, Meta(ge=10_000, le=1_000_000_000)] | None = None
    rival_click_ppm: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    daily_budget_micros: PositiveMicros | None = None
    total_budget_micros: PositiveMicros | None = None
    funds_micros: PositiveMicros | None = None
    pacing: Literal["even", "asap"] = "asap"
    audience: Audience | None = None
    navigation_pattern: NavigationPattern | None = None
    category_ids: Annotated[list[CategoryId], Meta(min_length=1, max_length=200)] | None = None
    frequency_cap: FrequencyCap | None = None


class RunSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the market is run and measured.

    Attributes:
        repeats: worlds run with seeds derived from the scenario's; from five on, intervals are over worlds.
        bid_minutes: how often bidders may change their bids.
        settle_events: beacons gathered before the ledger commits them; budgets notice that late.
        bootstrap: resamples behind each interval.
    """

    repeats: Annotated[int, Meta(ge=1, le=1_000)] = 1
    bid_minutes: Annotated[int, Meta(ge=1, le=1_440)] = 60
    settle_events: Annotated[int, Meta(ge=1, le=256)] = 32
    bootstrap: Annotated[int, Meta(ge=20, le=10_000)] = 400


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scenario, checked. `sentence` says in one sentence what it is there to show."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    seed: Annotated[int, Meta(ge=0, le=2**53)]
    sentence: Annotated[str, Meta(min_length=10, max_length=500)]
    placements: Annotated[list[ScenarioPlacement], Meta(min_length=1, max_length=20)]
    bidders: Annotated[list[Bidders], Meta(max_length=100)]
    world: World = World()
    traffic: Traffic = Traffic()
    clicks: Clicks = Clicks()
    run: RunSettings = RunSettings()
    rules: Annotated[list[RuleDraft], Meta(max_length=200)] = []
    page_caps: dict[PageType, PageCaps] = {}


def read_scenario(path: str | Path) -> Scenario:
    """Read a scenario from a file, or a shipped one by its name.

    Raises:
        ScenarioRefused: no such file, not TOML, or something in it that cannot be; the message says where.
    """
    found = find_scenario(path)
    try:
        text = found.read_bytes().decode()
        raw = tomllib.loads(text)
    except UnicodeDecodeError as broken:
        raise ScenarioRefused(f"{found}: must be UTF-8, byte {broken.start} is not") from broken
    except tomllib.TOMLDecodeError as broken:
        raise ScenarioRefused(f"{found}: is not TOML: {broken}") from broken
    except OSError as broken:
        raise ScenarioRefused(f"{found}: cannot be read: {broken.strerror}") from broken
    return convert_scenario(raw, str(found), found.parent)


def find_scenario(path: str | Path) -> Path:
    """Return the file meant by a path or by the name of a shipped scenario.

    Raises:
        ScenarioRefused: neither is there.
    """
    given = Path(path)
    if given.is_file():
        return given
    shipped = SHIPPED_FOLDER / f"{given.name.removesuffix('.toml')}.toml"
    if shipped.is_file() and len(given.parts) == 1:
        return shipped
    raise ScenarioRefused(
        f"{path}: there is no such file, and no shipped scenario of that name: {', '.join(shipped_names())}"
    )


def shipped_names() -> list[str]:
    """Name the scenarios that come with the package."""
    return sorted(found.stem for found in SHIPPED_FOLDER.glob("*.toml"))


def convert_scenario(raw: object, where: str, folder: Path = Path()) -> Scenario:
    """Turn the decoded file into a checked scenario; `folder` is what its own paths are relative to.

    Raises:
        ScenarioRefused: see `read_scenario`.
    """
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as refusal:
        raise ScenarioRefused(f"{where}: {_in_plain_words(str(refusal))}") from refusal
    scenario = _with_paths(scenario, folder)
    _check(scenario, where)
    return scenario


def scenario_hash(scenario: Scenario) -> str:
    """Return 16 hex digits that change with anything in the scenario but its name, sentence and seed."""
    plain = msgspec.structs.replace(scenario, name="x", sentence="x" * 10, seed=0)
    return sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()[:16]


def _with_paths(scenario: Scenario, folder: Path) -> Scenario:
    """Resolve the paths of a feed and of policies against the scenario's own folder."""
    world = scenario.world
    if world.catalogue not in ("synthetic", "shipped"):
        world = msgspec.structs.replace(world, catalogue=str(folder / world.catalogue))
    bidders = [
        msgspec.structs.replace(group, policy=str(folder / group.policy)) if ".py:" in group.policy else group
        for group in scenario.bidders
    ]
    return msgspec.structs.replace(scenario, world=world, bidders=bidders)


def _in_plain_words(message: str) -> str:
    """Turn msgspec's message into place first, then what is wrong, with a guess at a misspelt key."""
    problem, _, place = message.partition(" - at `$")
    table = place.rstrip("`").lstrip(".") or "the top level"
    if problem.startswith("Object contains unknown field `"):
        key = problem.split("`")[1]
        near = get_close_matches(key, _keys_known(), n=1)
        return f"{table}: unknown key `{key}`" + (f"; did you mean `{near[0]}`?" if near else "")
    if problem.startswith("Object missing required field `"):
        return f"{table}: the key `{problem.split('`')[1]}` is missing"
    return f"{table}: {problem[:1].lower()}{problem[1:]}"


def _keys_known() -> list[str]:
    tables = (Scenario, World, Traffic, Clicks, ScenarioPlacement, Bidders, RunSettings, RuleDraft, PageCaps)
    return sorted({key for table in tables for key in table.__struct_encode_fields__})


def _check(scenario: Scenario, where: str) -> None:
    """Refuse what each field alone cannot show, in the file's order."""

    def refuse(place: str, problem: str) -> None:
        raise ScenarioRefused(f"{where}: {place}: {problem}")

    world, traffic = scenario.world, scenario.traffic
    if world.category_count > world.product_count:
        refuse("world.category_count", f"must be at most product_count, was {world.category_count}")
    if world.brand_count > world.product_count:
        refuse("world.brand_count", f"must be at most product_count, was {world.brand_count}")
    if world.catalogue not in ("synthetic", "shipped") and not Path(world.catalogue).is_file():
        refuse("world.catalogue", f"must be synthetic, shipped or a feed file, and {world.catalogue} is not there")
    _check_traffic(traffic, refuse)
    seen: set[str] = set()
    for row, placement in enumerate(scenario.placements):
        place = f"placements[{row}]"
        if placement.placement_id in seen:
            refuse(f"{place}.placement_id", f"must be unique, {placement.placement_id!r} was there before")
        seen.add(placement.placement_id)
        strange = [page for page in placement.page_types if page not in PAGES_SIMULATED]
        if strange:
            refuse(f"{place}.page_types", f"simulated visitors open {', '.join(PAGES_SIMULATED)}, not {strange[0]}")
        if isinstance(placement.attention_permille, list) and len(placement.attention_permille) < placement.slot_count:
            refuse(f"{place}.attention_permille", f"needs {placement.slot_count} numbers, one per slot")
    for page in PAGES_SIMULATED:
        count = sum(page in placement.page_types for placement in scenario.placements)
        if count > 5:
            refuse("placements", f"a page holds at most 5, the {page} page would hold {count}")
        ways = {placement.allocation for placement in scenario.placements if page in placement.page_types}
        if len(ways) > 1:
            refuse("placements", f"all of a page must have the same allocation, the {page} page would have both")
    needed = max(placement.slot_count for placement in scenario.placements)
    if scenario.clicks.seen_permille is not None and len(scenario.clicks.seen_permille) < needed:
        refuse(
            "clicks.seen_permille", f"needs {needed} numbers, one per slot, had {len(scenario.clicks.seen_permille)}"
        )
    for row, group in enumerate(scenario.bidders):
        for key, purpose in NEEDS.get(group.policy, {}).items():
            if getattr(group, key) is None:
                refuse(f"bidders[{row}]", f"a {group.policy} bidder needs {key}{purpose}")
    if sum(group.count * group.products_each for group in scenario.bidders) > BID_COUNT_MAX:
        refuse("bidders", f"count times products_each must come to {BID_COUNT_MAX} bids at most")


def _check_traffic(traffic: Traffic, refuse: Refuse) -> None:
    try:
        date.fromisoformat(traffic.starts_on)
    except ValueError:
        refuse("traffic.starts_on", f"must be a date of the calendar, was {traffic.starts_on}")
    try:
        ZoneInfo(traffic.time_zone)
    except (KeyError, ValueError, OSError):
        refuse(
            "traffic.time_zone", f"must be a zone of the IANA database such as Europe/Paris, was {traffic.time_zone!r}"
        )
    if len(traffic.hour_weights) != 24 or not any(traffic.hour_weights):
        refuse("traffic.hour_weights", "must be 24 weights, not all 0")
    if traffic.day_weights is not None and (len(traffic.day_weights) != traffic.days or not any(traffic.day_weights)):
        refuse("traffic.day_weights", f"must be {traffic.days} weights, one per day, not all 0")
    if not any(traffic.page_mix.values()):
        refuse("traffic.page_mix", "must have a weight above 0")
    pages = traffic.days * traffic.sessions_per_day * traffic.pages_per_session
    if pages > PAGE_COUNT_MAX:
        refuse(
            "traffic",
            f"days times sessions_per_day times pages_per_session must be {PAGE_COUNT_MAX} at most, was {pages}",
        )
