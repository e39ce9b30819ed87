"""From what is stored to what the auction reads: pure building of a snapshot, no database and no clock."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.sparse import csr_array

from affinity.audience import Audience
from affinity.catalog import CATEGORY_SEPARATOR, Product, category_and_ancestors
from affinity.pattern import NavigationPattern
from auction.booking import Booking
from auction.campaign import Bid, BidContext, Campaign, Keyword
from auction.kernel import CLICK, IMPRESSION, OFFER, UNKNOWN_TEMPERATURE
from auction.loss import LossReason
from auction.market import highest_score
from auction.placement import PageCaps, Placement
from auction.retailer_rule import RetailerRule
from auction.rules import compile_rules
from auction.snapshot import (
    ALL_HOURS,
    ALL_PAGES,
    CONTEXT_DIMENSIONS,
    NONE_ROW,
    PAGE_BIT,
    Bytes,
    Columns,
    Int32s,
    Int64s,
    Names,
    Snapshot,
    TargetsSpec,
)
from auction.target import VirtualColumns
from auction.virtual_attribute import VirtualAttribute, virtual_columns
from auction.weather import WeatherHour
from auction.words import KeywordTable, words_of, words_of_each
from ledger.money import BID_MICROS_MAX
from ledger.terms import ChargeOn

PPM = 1_000_000
OPEN_END_MS = 1 << 62  # a flight without an end

_encode = msgspec.json.Encoder(order="deterministic").encode


class SnapshotSource(Struct, frozen=True, kw_only=True):
    """Everything a snapshot is built from, as of one version.

    Attributes:
        version: value of the deployment's change sequence it was read at.
        currency: ISO 4217.
        time_zone: IANA name; days of budgets and hours of bids are in it.
        read_at_ms: when it was read, UTC milliseconds since 1970; ages of products count from it.
        advertiser_names: advertiser id to the name shown in disclosures.
        page_caps: type of page to its caps.
        campaigns, bids: archived ones left out; paused ones are in, so that a receipt can say so.
        rules: live ones.
        weather: of regions, by the hour.
        bookings, virtual_attributes: active ones.
    """

    version: int
    currency: str
    time_zone: str
    read_at_ms: int = 0
    products: list[Product]
    advertiser_names: dict[str, str] = {}
    placements: list[Placement] = []
    page_caps: dict[str, PageCaps] = {}
    campaigns: list[Campaign] = []
    bids: list[Bid] = []
    rules: list[RetailerRule] = []
    weather: list[WeatherHour] = []
    bookings: list[Booking] = []
    virtual_attributes: list[VirtualAttribute] = []


QualityOf = Callable[[Sequence[str]], Int64s]


def same_quality(product_ids: Sequence[str]) -> Int64s:
    """Expect the same of every product: offers are then numbered by their bids alone."""
    return np.full(len(product_ids), 10_000, np.int64)


def build_snapshot(source: SnapshotSource, quality_of: QualityOf = same_quality) -> Snapshot:
    """Return the snapshot of a source; the order of the source's lists does not matter.

    Args:
        source: everything, as of one version.
        quality_of: quality expected of each product, in parts per million, such as a model's base quality. It
            only orders the offers; a better guess lets auctions stop earlier and changes no answer.
    """
    products = sorted(source.products, key=_product_id)
    virtual = virtual_columns(source.virtual_attributes, products, source.read_at_ms)
    campaigns = sorted(source.campaigns, key=lambda campaign: campaign.campaign_id)
    placements = sorted(source.placements, key=lambda placement: placement.placement_id)
    catalogue = _Catalogue(products, source.bids, virtual)
    campaign_row = {campaign.campaign_id: row for row, campaign in enumerate(campaigns)}
    bids = sorted([bid for bid in source.bids if bid.campaign_id in campaign_row], key=lambda bid: bid.bid_id)
    advertiser_id = sorted({campaign.advertiser_id for campaign in campaigns} | set(source.advertiser_names))
    advertiser_row = {name: row for row, name in enumerate(advertiser_id)}
    targeting = _Targeting(bids, catalogue, {placement.placement_id: row for row, placement in enumerate(placements)})
    campaign_advertiser = _int32s([advertiser_row[campaign.advertiser_id] for campaign in campaigns])
    expected_ppm = quality_of(catalogue.product_id)
    offer = _number_offers(bids, catalogue, targeting, campaign_row, campaign_advertiser, advertiser_row, expected_ppm)
    postings = _Postings(offer, catalogue, targeting)
    compiled = compile_rules(source.rules, products, source.read_at_ms, virtual)
    id_start, id_letters = _text_column(catalogue.product_id)
    bid_start, bid_letters = _text_column([bid.bid_id for bid in bids])
    names = Names(
        version=source.version,
        read_at_ms=source.read_at_ms,
        currency=source.currency,
        time_zone=source.time_zone,
        product_id=catalogue.product_id,
        brand=catalogue.brand,
        category=catalogue.category,
        advertiser_id=advertiser_id,
        advertiser_name=[source.advertiser_names.get(name, name) for name in advertiser_id],
        campaign_id=list(campaign_row),
        placements=placements,
        page_caps=source.page_caps,
        rules=compiled.rules,
        targets=TargetsSpec(targeting.audiences, targeting.patterns),
        keywords=list(targeting.keywords.row_of),
        words=catalogue.words,
        context_names=list(targeting.context_row),
        attribute_values=catalogue.attribute_values,
        frequency_caps={
            bid.bid_id: (row, bid.frequency_cap.count, bid.frequency_cap.window_s)
            for row, bid in enumerate(bids)
            if bid.frequency_cap is not None
        },
        weather=source.weather,
        virtual_attributes=source.virtual_attributes,
        bookings=[one for one in source.bookings if one.ends_at.timestamp() * 1000 > source.read_at_ms],
    )
    columns = Columns(
        offer=offer,
        product_id_start=id_start,
        product_id_letters=id_letters,
        bid_id_start=bid_start,
        bid_id_letters=bid_letters,
        product_brand=catalogue.product_brand,
        product_category=catalogue.product_category,
        product_price=catalogue.product_price,
        product_relevance_ppm=catalogue.product_relevance_ppm,
        product_is_available=catalogue.product_is_available,
        attribute_code=catalogue.attribute_code,
        campaign_advertiser=campaign_advertiser,
        campaign_daily_micros=_budgets([campaign.daily_budget_micros for campaign in campaigns]),
        campaign_total_micros=_budgets([campaign.total_budget_micros for campaign in campaigns]),
        campaign_starts_ms=_moments([campaign.flight_starts_at for campaign in campaigns], -OPEN_END_MS),
        campaign_ends_ms=_moments([campaign.flight_ends_at for campaign in campaigns], OPEN_END_MS),
        campaign_is_even=_bytes([campaign.pacing == "even" for campaign in campaigns]),
        campaign_is_active=_bytes([campaign.status == "active" for campaign in campaigns]),
        category_end=catalogue.category_end,
        product_by_category=catalogue.product_by_category,
        category_product_start=catalogue.category_product_start,
        posting_row=postings.row,
        open_all_start=postings.open_all_start,
        open_category_start=postings.open_category_start,
        open_word_start=postings.open_word_start,
        target_category_start=postings.target_category_start,
        keyword_start=postings.keyword_start,
        product_start=postings.product_start,
        word_product_start=catalogue.word_product.start,
        word_product_row=catalogue.word_product.row,
        wish_start=_int64s(targeting.wish_start),
        wish=_int64s(targeting.wish),
        multiplier_max_ppm=_int64s(targeting.multiplier_max_ppm),
        rule_target_bits=compiled.target_bits,
        rule_value_micros=compiled.value_micros,
    )
    return Snapshot(names, columns)


class Csr(NamedTuple):
    """A list of rows for each of n keys: key i has `row[start[i]:start[i + 1]]`."""

    start: Int64s
    row: Int32s


class _Catalogue:
    """Products as columns: rows are in the order of their ids."""

    def __init__(self, products: Sequence[Product], bids: Sequence[Bid], virtual: VirtualColumns) -> None:
        self.product_id = [product.product_id for product in products]
        self.product_row = {product_id: row for row, product_id in enumerate(self.product_id)}
        self.advertiser_ids = [product.advertiser_ids for product in products]
        self.brand, brand_row = _codes([product.brand for product in products], absent="")
        # A product without a brand has a code of its own: caps per brand do not lump such products together.
        alone = len(self.brand) + np.arange(len(products), dtype=np.int32)
        self.product_brand = np.where(brand_row == NONE_ROW, alone, brand_row).astype(np.int32)
        self.product_price = _int64s([_price_now(product) for product in products])
        self.product_relevance_ppm = np.rint(
            np.array([1.0 if product.relevance is None else product.relevance for product in products], np.float64)
            * PPM
        ).astype(np.int64)
        self.product_is_available = _bytes([product.is_available for product in products])
        self._set_categories(products, bids)
        self._set_words(products)
        self._set_attributes(products, virtual)

    def _set_categories(self, products: Sequence[Product], bids: Sequence[Bid]) -> None:
        paths = [product.product_type or "" for product in products]
        named = set(paths).union(chain.from_iterable(bid.category_ids for bid in bids if bid.category_ids))
        every = {above for path in named for above in category_and_ancestors(path)}
        # In the order of their paths, what is below a category follows it without a gap.
        self.category = sorted(every, key=lambda category: category.split(CATEGORY_SEPARATOR))
        self.category_row = {category: row for row, category in enumerate(self.category)}
        self.product_category = _int32s([self.category_row.get(path, NONE_ROW) for path in paths])
        end = np.arange(1, len(self.category) + 1, dtype=np.int64)
        above: list[list[int]] = []
        for row, category in enumerate(self.category):
            rows = [self.category_row[name] for name in category_and_ancestors(category)]
            above.append(rows)
            end[rows] = row + 1
        self.category_end = end
        self.categories_above = _csr(above)
        self.product_by_category = np.argsort(self.product_category, kind="stable").astype(np.int32)
        sorted_category = self.product_category[self.product_by_category]
        self.category_product_start = np.searchsorted(sorted_category, np.arange(len(self.category) + 1)).astype(
            np.int64
        )

    def _set_words(self, products: Sequence[Product]) -> None:
        each = words_of_each([f"{product.title} {product.brand}" for product in products])
        every = list(chain.from_iterable(each))
        self.words, codes = _codes(every, absent=None)
        counts = np.array([len(words) for words in each], np.int64)
        product_rows = np.repeat(np.arange(len(products), dtype=np.int64), counts)
        distinct = np.unique(product_rows * max(len(self.words), 1) + codes)
        product_rows, word_rows = np.divmod(distinct, max(len(self.words), 1))
        self.product_words = Csr(_starts(product_rows, len(products)), word_rows.astype(np.int32))
        self.word_product = _turn_around(self.product_words, len(self.words))

    def _set_attributes(self, products: Sequence[Product], virtual: VirtualColumns) -> None:
        columns: dict[str, dict[int, Any]] = {
            "brand": {row: product.brand for row, product in enumerate(products) if product.brand},
            "is_own_brand": {row: product.is_own_brand for row, product in enumerate(products)},
            "on_promotion": {row: is_on_promotion(product) for row, product in enumerate(products)},
            "rating": {row: product.rating for row, product in enumerate(products) if product.rating is not None},
        }
        for row, product in enumerate(products):
            for name, value in product.attributes.items():
                columns.setdefault(name, {})[row] = value
        for name, found in virtual.items():
            columns[name] = {row: value for row, value in enumerate(found) if value is not None}
        self.attribute_values: dict[str, list[bool | int | float | str]] = {}
        self.attribute_code = np.full((len(columns), len(products)), NONE_ROW, np.int32)
        for place, name in enumerate(columns):
            value_row: dict[Any, int] = {}
            values = columns[name]
            codes = [value_row.setdefault(value, len(value_row)) for value in values.values()]
            self.attribute_code[place, np.fromiter(values, np.int64, len(values))] = codes
            self.attribute_values[name] = list(value_row)


class _Targeting:
    """What bids ask for, each distinct wish once."""

    def __init__(self, bids: Sequence[Bid], catalogue: _Catalogue, placement_row: dict[str, int]) -> None:
        self.keywords = KeywordTable()
        self.audiences: list[Audience] = []
        self.patterns: list[NavigationPattern] = []
        self._audience_row: dict[tuple[bytes, str], int] = {}
        pattern_row: dict[bytes, int] = {}
        self.context_row: dict[tuple[str, str], int] = {}
        self.wish_start: list[int] = [0]
        self.wish: list[int] = []
        self.multiplier_max_ppm: list[int] = []
        condition_row: dict[bytes, int] = {}
        multiplier_row: dict[bytes, int] = {}
        negative_row: dict[tuple[int, ...], int] = {}

        self.bid_audience = [self._audience(bid.audience) if bid.audience else NONE_ROW for bid in bids]
        self.bid_pattern = [NONE_ROW] * len(bids)
        self.bid_condition = [NONE_ROW] * len(bids)
        self.bid_negative = [NONE_ROW] * len(bids)
        self.bid_multiplier = [NONE_ROW] * len(bids)
        categories: list[Sequence[int]] = [()] * len(bids)
        keywords: list[Sequence[int]] = [()] * len(bids)
        for row, bid in enumerate(bids):
            if bid.navigation_pattern is not None:
                key = _encode(bid.navigation_pattern)
                if key not in pattern_row:
                    pattern_row[key] = len(self.patterns)
                    self.patterns.append(bid.navigation_pattern)
                self.bid_pattern[row] = pattern_row[key]
            if bid.context is not None:
                key = _encode(bid.context)
                if key not in condition_row:
                    condition_row[key] = self._add_wish(self._condition(bid.context))
                self.bid_condition[row] = condition_row[key]
            if bid.placement_multipliers:
                key = _encode(bid.placement_multipliers)
                if key not in multiplier_row:
                    factors = _multipliers(bid.placement_multipliers, placement_row)
                    multiplier_row[key] = self._add_wish(factors, max([PPM, *factors[1::2]]))
                self.bid_multiplier[row] = multiplier_row[key]
            if bid.negative_keywords:
                negatives = tuple(sorted(set(self._keyword_rows(bid.negative_keywords))))
                if negatives not in negative_row:
                    negative_row[negatives] = self._add_wish(negatives)
                self.bid_negative[row] = negative_row[negatives]
            if bid.category_ids:
                categories[row] = sorted({catalogue.category_row[category] for category in bid.category_ids})
            if bid.keywords:
                keywords[row] = sorted(set(self._keyword_rows(bid.keywords)))
        self.bid_categories = _csr(categories)
        self.bid_keywords = _csr(keywords)

    def audience_for(self, audience: Audience, brand: str) -> int:
        """Return the row of an audience, its "bought the brand" resolved with the brand of the product bid on."""
        key = (_encode(audience), brand)
        row = self._audience_row.get(key)
        return self._audience(resolve_brand(audience, brand), key) if row is None else row

    def _audience(self, audience: Audience, alias: tuple[bytes, str] | None = None) -> int:
        key = (_encode(audience), "")
        row = self._audience_row.get(key)
        if row is None:
            if needs_brand(audience):
                return NONE_ROW  # given a row per product, see `audience_for`
            row = self._audience_row[key] = len(self.audiences)
            self.audiences.append(audience)
        if alias is not None:
            self._audience_row[alias] = row
        return row

    def _keyword_rows(self, keywords: Iterable[Keyword]) -> list[int]:
        folded = [(keyword.match, words_of(keyword.text)) for keyword in keywords]
        return [self.keywords.row(match, words) for match, words in folded if words]

    def _condition(self, context: BidContext) -> list[int]:
        hours = context.hours
        numbers = [ALL_HOURS if hours is None else sum(1 << hour for hour in set(hours))]
        warmth = context.temperature_c
        numbers += (UNKNOWN_TEMPERATURE, -UNKNOWN_TEMPERATURE) if warmth is None else warmth.bounds_milli()
        wanted = (context.devices, context.regions, context.stores, context.weather)
        for dimension, values in zip(CONTEXT_DIMENSIONS, wanted, strict=True):
            names = [(dimension, value) for value in sorted(set(values or ()))]
            numbers.append(len(names))
            numbers += [self.context_row.setdefault(name, len(self.context_row)) for name in names]
        return numbers

    def _add_wish(self, numbers: Sequence[int], multiplier_max_ppm: int = PPM) -> int:
        self.wish += numbers
        self.wish_start.append(len(self.wish))
        self.multiplier_max_ppm.append(multiplier_max_ppm)
        return len(self.multiplier_max_ppm) - 1


def _multipliers(factors: dict[str, float], placement_row: dict[str, int]) -> list[int]:
    known = sorted(
        (placement_row[name], round(factor * PPM)) for name, factor in factors.items() if name in placement_row
    )
    return list(chain.from_iterable(known))


def _number_offers(
    bids: Sequence[Bid],
    catalogue: _Catalogue,
    targeting: _Targeting,
    campaign_row: dict[str, int],
    campaign_advertiser: Int32s,
    advertiser_row: dict[str, int],
    expected_ppm: Int64s,
) -> NDArray[np.void]:
    """Return one offer per bid and product known to the catalogue, most valuable first."""
    row_of = catalogue.product_row.get
    product_rows = _int32s([row_of(name, NONE_ROW) for bid in bids for name in bid.product_ids])
    bid_rows = np.repeat(np.arange(len(bids), dtype=np.int32), [len(bid.product_ids) for bid in bids])
    is_known = product_rows != NONE_ROW
    product_rows, bid_rows = product_rows[is_known], bid_rows[is_known]
    offer = np.zeros(len(product_rows), OFFER)
    is_impression = _bytes([bid.charge_on is ChargeOn.IMPRESSION for bid in bids]).astype(bool)
    bid_micros = _int64s([bid.bid_micros for bid in bids])
    bid_micros[is_impression] //= 1_000
    assert not len(bids) or (bid_micros.min() >= 0 and bid_micros.max() <= BID_MICROS_MAX)
    bid_campaign = _int32s([campaign_row[bid.campaign_id] for bid in bids])
    offer["product_row"] = product_rows
    offer["bid_row"] = bid_rows
    offer["bid_micros"] = bid_micros[bid_rows]
    offer["campaign_row"] = bid_campaign[bid_rows]
    offer["advertiser_row"] = campaign_advertiser[offer["campaign_row"]]
    offer["brand_row"] = catalogue.product_brand[product_rows]
    offer["pattern_row"] = _int32s(targeting.bid_pattern)[bid_rows]
    offer["condition_row"] = _int32s(targeting.bid_condition)[bid_rows]
    offer["negative_row"] = _int32s(targeting.bid_negative)[bid_rows]
    offer["multiplier_row"] = _int32s(targeting.bid_multiplier)[bid_rows]
    offer["charge"] = np.where(is_impression, IMPRESSION, CLICK)[bid_rows]
    offer["page_mask"] = np.array([_page_mask(bid.pages) for bid in bids], np.uint16)[bid_rows]
    offer["is_restricted"] = _bytes([bool(bid.category_ids or bid.keywords) for bid in bids])[bid_rows]
    offer["has_frequency_cap"] = _bytes([bid.frequency_cap is not None for bid in bids])[bid_rows]
    offer["audience_row"] = _audience_rows(bids, bid_rows, product_rows, catalogue, targeting)
    is_paused = _bytes([bid.status != "active" for bid in bids]).astype(bool)[bid_rows]
    is_entitled = _entitled(offer, catalogue, advertiser_row)
    offer["never_reason"] = np.select(
        [~is_entitled, is_paused, catalogue.product_is_available[product_rows] == 0],
        [int(LossReason.NOT_ENTITLED), int(LossReason.BID_PAUSED), int(LossReason.OUT_OF_STOCK)],
        0,
    )
    value = highest_score(offer, _int64s(targeting.multiplier_max_ppm), expected_ppm)
    return offer[np.argsort(-value, kind="stable")]


def needs_brand(audience: Audience) -> bool:
    """Say whether the audience speaks of "the brand" of whatever product is bid on."""
    if audience.bought_brand_within_days is not None and audience.brand is None:
        return True
    return any(needs_brand(part) for part in [*(audience.all or ()), *(audience.any or ()), *_negated(audience)])


def resolve_brand(audience: Audience, brand: str) -> Audience:
    """Return the audience with "the brand" replaced by a brand's name."""
    changes: dict[str, Any] = {}
    if audience.bought_brand_within_days is not None and audience.brand is None:
        changes["brand"] = brand
    if audience.all is not None:
        changes["all"] = [resolve_brand(part, brand) for part in audience.all]
    if audience.any is not None:
        changes["any"] = [resolve_brand(part, brand) for part in audience.any]
    if audience.not_ is not None:
        changes["not_"] = resolve_brand(audience.not_, brand)
    return msgspec.structs.replace(audience, **changes) if changes else audience


def is_on_promotion(product: Product) -> bool:
    """Say whether the product sells below its shelf price now."""
    return product.sale_price_micros is not None and product.sale_price_micros < product.price_micros


class _Postings:
    """Which offers belong to which context, each list in ascending rows."""

    def __init__(self, offer: NDArray[np.void], catalogue: _Catalogue, targeting: _Targeting) -> None:
        product = offer["product_row"]
        is_open = offer["is_restricted"] == 0
        open_product = np.where(is_open, product, NONE_ROW).astype(np.int32)
        open_category = np.where(is_open, catalogue.product_category[product], NONE_ROW).astype(np.int32)
        categories, words = len(catalogue.category), len(catalogue.words)
        everything = np.flatnonzero(is_open)
        lists = [
            Csr(_int64s([0, len(everything)]), everything.astype(np.int32)),
            _turn_around(_gather(catalogue.categories_above, open_category), categories),
            _turn_around(_gather(catalogue.product_words, open_product), words),
            _turn_around(_gather(targeting.bid_categories, offer["bid_row"]), categories),
            _turn_around(_gather(targeting.bid_keywords, offer["bid_row"]), len(targeting.keywords.row_of)),
            _turn_around(Csr(np.arange(len(offer) + 1, dtype=np.int64), product), len(catalogue.product_id)),
        ]
        self.row = np.concatenate([rows for _, rows in lists])
        begins = np.cumsum([0] + [len(rows) for _, rows in lists])
        starts = [start + begin for (start, _), begin in zip(lists, begins, strict=False)]
        self.open_all_start, self.open_category_start, self.open_word_start = starts[:3]
        self.target_category_start, self.keyword_start, self.product_start = starts[3:]


def _audience_rows(
    bids: Sequence[Bid], bid_rows: Int32s, product_rows: Int32s, catalogue: _Catalogue, targeting: _Targeting
) -> Int32s:
    rows = _int32s(targeting.bid_audience)[bid_rows]
    wants_brand = _bytes([bid.audience is not None and needs_brand(bid.audience) for bid in bids]).astype(bool)
    for place in np.flatnonzero(wants_brand[bid_rows]) if len(bids) else ():
        audience = bids[bid_rows[place]].audience
        brand_row = catalogue.product_brand[product_rows[place]]
        assert audience is not None
        rows[place] = targeting.audience_for(
            audience, catalogue.brand[brand_row] if brand_row < len(catalogue.brand) else ""
        )
    return rows


def _entitled(offer: NDArray[np.void], catalogue: _Catalogue, advertiser_row: dict[str, int]) -> NDArray[np.bool_]:
    count = max(len(advertiser_row), 1)
    pairs = [
        row * count + advertiser_row[name]
        for row, names in enumerate(catalogue.advertiser_ids)
        for name in names
        if name in advertiser_row
    ]
    asked = offer["product_row"].astype(np.int64) * count + offer["advertiser_row"]
    return np.isin(asked, _int64s(pairs))


def _page_mask(pages: list[str] | None) -> int:
    return ALL_PAGES if pages is None else sum(PAGE_BIT[page] for page in set(pages))


def _price_now(product: Product) -> int:
    return product.price_micros if product.sale_price_micros is None else product.sale_price_micros


def _product_id(product: Product) -> str:
    return product.product_id


def _negated(audience: Audience) -> tuple[Audience, ...]:
    return () if audience.not_ is None else (audience.not_,)


def _gather(lists: Csr, keys: Int32s) -> Csr:
    """Return, per item, the list of its key; an empty one where the key is NONE_ROW."""
    has_key = keys != NONE_ROW
    safe = np.where(has_key, keys, 0)
    if len(lists.start) < 2:
        return Csr(np.zeros(len(keys) + 1, np.int64), np.zeros(0, np.int32))
    first = lists.start[safe]
    counts = np.where(has_key, lists.start[safe + 1] - first, 0)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    places = np.arange(start[-1]) + np.repeat(first - start[:-1], counts)
    return Csr(start, lists.row[places])


def _turn_around(lists: Csr, key_count: int) -> Csr:
    """Return, per key, the items whose list names it, ascending; a counting sort in one pass."""
    shape = (len(lists.start) - 1, key_count)
    turned = csr_array((np.ones(len(lists.row), np.int8), lists.row, lists.start), shape=shape).tocsc()
    return Csr(turned.indptr.astype(np.int64), turned.indices.astype(np.int32))


def _csr(lists: Sequence[Sequence[int]]) -> Csr:
    start = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(rows) for rows in lists], out=start[1:])
    return Csr(start, np.fromiter(chain.from_iterable(lists), np.int32, int(start[-1])))


def _starts(sorted_keys: NDArray[np.integer[Any]], key_count: int) -> Int64s:
    return np.searchsorted(sorted_keys, np.arange(key_count + 1)).astype(np.int64)


def _codes(values: Sequence[str], absent: str | None) -> tuple[list[str], Int32s]:
    """Return the distinct values in order, and each value's place among them; NONE_ROW for `absent`."""
    distinct = sorted(set(values) - ({absent} if absent is not None else set()))
    place = {value: row for row, value in enumerate(distinct)}
    return distinct, _int32s([place.get(value, NONE_ROW) for value in values])


def _text_column(texts: Sequence[str]) -> tuple[Int64s, Bytes]:
    encoded = [text.encode() for text in texts]
    start = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=start[1:])
    return start, np.frombuffer(bytearray(b"".join(encoded)), np.uint8)  # compiled code wants to be able to write


def _budgets(amounts: Sequence[int | None]) -> Int64s:
    return _int64s([-1 if amount is None else amount for amount in amounts])


def _moments(moments: Sequence[Any], open_end: int) -> Int64s:
    return _int64s([open_end if moment is None else int(moment.timestamp() * 1000) for moment in moments])


def _int32s(numbers: Sequence[int]) -> Int32s:
    return np.array(numbers, np.int32)


def _int64s(numbers: Sequence[int]) -> Int64s:
    return np.array(numbers, np.int64)


def _bytes(answers: Sequence[bool]) -> Bytes:
    return np.array(answers, np.uint8)
