"""From what is stored to what the auction reads: pure building of a snapshot, no database and no clock."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.catalog import CATEGORY_SEPARATOR, Product, category_and_ancestors
from affinity.pattern import product_targets_of
from affinity.product_sets import pack_masks
from affinity.product_target import CatalogueColumns, Mask, Target, VirtualColumns, target_key, target_mask
from affinity.signals import NO_SIGNALS, Signals
from auction.bid_table import BidTable, CompiledBids
from auction.booking import Booking
from auction.campaign import Bid, Campaign, TargetRoas
from auction.kernel import OFFER, WORD_PADDING, find_best_left_nb, write_offers_nb
from auction.lists import Lists, gather, lists_of, turn_around
from auction.market import highest_score
from auction.placement import PageCaps, Placement
from auction.retailer_rule import RetailerRule
from auction.rules import compile_rules
from auction.snapshot import (
    NONE_ROW,
    Bytes,
    Columns,
    Int32s,
    Int64s,
    Names,
    Snapshot,
)
from auction.virtual_attribute import VirtualAttribute, virtual_columns
from auction.weather import WeatherHour
from auction.words import words_of_each

PPM = 1_000_000
DAY_MS = 86_400_000
OPEN_END_MS = 1 << 62  # a flight without an end


class SnapshotSource(Struct, frozen=True, kw_only=True):
    """What a snapshot is built from, as of one version: all of it, or what changed since an earlier version.

    Attributes:
        version: value of the deployment's change sequence it was read at.
        currency: ISO 4217.
        time_zone: IANA name; days of budgets and hours of bids are in it.
        read_at_ms: when it was read, UTC milliseconds since 1970; ages of products count from it.
        advertiser_names: advertiser id to the name shown in disclosures; all of them.
        placements, page_caps, weather: all of them; caps by type of page, weather of regions by the hour.
        bookings, virtual_attributes: all that are active.
        signals: of merchandising; None where they did not change, or there are none.
        products, campaigns, bids, rules: those that changed. Archived campaigns and bids leave, and so do rules that
            are not live; paused ones stay, so that a receipt can say so.
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
    signals: Signals | None = None


QualityOf = Callable[[Sequence[str]], Int64s]


def same_quality(product_ids: Sequence[str]) -> Int64s:
    """Expect the same of every product: offers are then numbered by their bids alone."""
    return np.full(len(product_ids), 10_000, np.int64)


def build_snapshot(source: SnapshotSource, quality_of: QualityOf = same_quality) -> Snapshot:
    """Return the snapshot of a whole source; see `SnapshotMaker`."""
    maker = SnapshotMaker()
    maker.apply(source)
    return maker.make(quality_of)


class SnapshotMaker:
    """Makes snapshots, keeping from one to the next what did not change.

    What it makes depends on what there is now, and on nothing else: not on the order it came in.
    """

    def __init__(self) -> None:
        self._source: SnapshotSource | None = None
        self._products: dict[str, Product] = {}
        self._campaigns: dict[str, Campaign] = {}
        self._rules: dict[str, RetailerRule] = {}
        self._signals = NO_SIGNALS
        self._bids = BidTable()
        self._catalogue: _Catalogue | None = None
        self._catalogue_stands_on: tuple[object, ...] = ()

    @property
    def version(self) -> int:
        """Return the version everything was taken over at, -1 for nothing yet."""
        return -1 if self._source is None else self._source.version

    def apply(self, source: SnapshotSource) -> None:
        """Take over what changed; the first time that is everything."""
        self._source = msgspec.structs.replace(source, products=[], campaigns=[], bids=[], rules=[])
        if source.signals is not None:
            self._signals = source.signals
        if source.products:
            self._products.update((product.product_id, product) for product in source.products)
            self._catalogue = None
        for campaign in source.campaigns:
            self._campaigns[campaign.campaign_id] = campaign
            if campaign.status == "archived":
                del self._campaigns[campaign.campaign_id]
        for rule in source.rules:
            self._rules[rule.rule_id] = rule
            if rule.stage != "live":
                del self._rules[rule.rule_id]
        self._bids.apply(source.bids)

    def apply_bids(self, bids: Sequence[Bid]) -> None:
        """Take over further bids of the same version; a million of them need not be in memory at once."""
        self._bids.apply(bids)

    def make(self, quality_of: QualityOf = same_quality) -> Snapshot:
        """Return the snapshot of what there is.

        Args:
            quality_of: quality expected of each product, in parts per million, such as a model's base quality. It
                only orders the offers; a better guess lets auctions stop earlier and changes no answer.
        """
        source = self._source
        assert source is not None
        named = self._bids.categories_named()
        catalogue = self._catalogue
        day = source.read_at_ms // DAY_MS  # products are a day older each day
        asked = self._signals if source.virtual_attributes else None  # nothing else of the catalogue asks for signals
        stands_on = named, source.virtual_attributes, asked, day
        if catalogue is None or self._catalogue_stands_on != stands_on:
            products = [self._products[product_id] for product_id in sorted(self._products)]
            virtual = virtual_columns(source.virtual_attributes, products, source.read_at_ms, self._signals)
            catalogue = self._catalogue = _Catalogue(products, named, virtual)
            self._catalogue_stands_on = stands_on
        campaigns = [self._campaigns[campaign_id] for campaign_id in sorted(self._campaigns)]
        placements = sorted(source.placements, key=lambda placement: placement.placement_id)
        advertiser_id = sorted({campaign.advertiser_id for campaign in campaigns} | set(source.advertiser_names))
        advertiser_row = {name: row for row, name in enumerate(advertiser_id)}
        campaign_advertiser = _int32s([advertiser_row[campaign.advertiser_id] for campaign in campaigns])
        bids = self._bids.compile_bids(
            catalogue.product_row,
            catalogue.product_brand,
            catalogue.brand,
            catalogue.category_row,
            {campaign.campaign_id: row for row, campaign in enumerate(campaigns)},
            {placement.placement_id: row for row, placement in enumerate(placements)},
            lambda target: catalogue.mask_of(target, source.read_at_ms),
        )
        offer = _number_offers(bids, catalogue, campaign_advertiser, advertiser_row, quality_of(catalogue.product_id))
        postings = _Postings(offer, catalogue, bids)
        by_product = np.argsort(offer["product_row"], kind="stable")
        offer_by_product = offer[by_product]
        best_left = np.empty((len(offer), 2), np.int64)
        find_best_left_nb(offer_by_product, bids.multiplier_max_ppm, best_left)
        rules = compile_rules(
            list(self._rules.values()), catalogue.products, source.read_at_ms, catalogue.virtual, self._signals
        )
        bid_start, bid_letters = _text_column(bids.bid_id)
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
            campaign_id=[campaign.campaign_id for campaign in campaigns],
            placements=placements,
            page_caps=source.page_caps,
            rules=rules.rules,
            targets=bids.targets,
            keywords=bids.keyword_names,
            words=catalogue.words,
            context_names=bids.context_names,
            attribute_values=catalogue.attribute_values,
            frequency_caps=bids.frequency_caps,
            weather=source.weather,
            virtual_attributes=source.virtual_attributes,
            signals=self._signals,
            bookings=[one for one in source.bookings if one.ends_at.timestamp() * 1000 > source.read_at_ms],
        )
        columns = Columns(
            offer=offer,
            offer_by_product=offer_by_product,
            best_left=best_left,
            product_id_start=catalogue.id_start,
            product_id_letters=catalogue.id_letters,
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
            campaign_roas_ppm=_int64s([_roas_ppm(campaign) for campaign in campaigns]),
            category_end=catalogue.category_end,
            product_by_category=catalogue.product_by_category,
            category_product_start=catalogue.category_product_start,
            posting_row=postings.row,
            open_all_start=postings.open_all_start,
            open_category_start=postings.open_category_start,
            open_word_start=postings.open_word_start,
            target_category_start=postings.target_category_start,
            keyword_start=postings.keyword_start,
            product_start=_starts(offer_by_product["product_row"], len(catalogue.product_id)),
            word_product_start=catalogue.word_product.start,
            word_product_row=catalogue.word_product.row,
            wish_start=bids.wish_start,
            wish=bids.wish,
            multiplier_max_ppm=bids.multiplier_max_ppm,
            pattern_target_bits=catalogue.bits_of(product_targets_of(bids.targets.patterns), source.read_at_ms),
            rule_target_bits=rules.target_bits,
            rule_value_micros=rules.value_micros,
        )
        return Snapshot(names, columns)


class _Catalogue:
    """Products as columns: rows are in the order of their ids."""

    def __init__(self, products: Sequence[Product], named: frozenset[str], virtual: VirtualColumns) -> None:
        """Take products in the order of their ids, and categories that bids name, be there products in them or not."""
        self.products = products
        self.virtual = virtual
        self._named = named
        self._columns: CatalogueColumns | None = None
        self._masks: dict[bytes, Mask] = {}
        self._packed: tuple[list[bytes], Bytes] | None = None
        self.product_id = [product.product_id for product in products]
        self.product_row = {product_id: row for row, product_id in enumerate(self.product_id)}
        self.id_start, self.id_letters = _text_column(self.product_id)
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
        self._set_categories(products)
        self._set_words(products)
        self._set_attributes(products, virtual)

    def mask_of(self, target: Target, read_at_ms: int) -> Mask:
        """Say of each product whether a bid's target is about it; kept as long as the catalogue stands."""
        key = target_key(target)
        if key not in self._masks:
            self._masks[key] = target_mask(target, self._columns_at(read_at_ms))
        return self._masks[key]

    def bits_of(self, targets: Sequence[Target], read_at_ms: int) -> Bytes:
        """Say of each product which targets of patterns are about it; kept for the same targets of one catalogue."""
        keys = [target_key(target) for target in targets]
        if self._packed is None or self._packed[0] != keys:
            columns = self._columns_at(read_at_ms)
            masks = (target_mask(target, columns) for target in targets)
            self._packed = keys, pack_masks(masks, len(targets), len(self.products))
        return self._packed[1]

    def _columns_at(self, read_at_ms: int) -> CatalogueColumns:
        if self._columns is None:
            self._columns = CatalogueColumns(self.products, read_at_ms, self.virtual)
        return self._columns

    def _set_categories(self, products: Sequence[Product]) -> None:
        paths = [product.product_type or "" for product in products]
        every = {above for path in self._named.union(paths) for above in category_and_ancestors(path)}
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
        self.categories_above = lists_of(above)
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
        self.product_words = Lists(_starts(product_rows, len(products)), word_rows.astype(np.int32))
        self.word_product = turn_around(self.product_words, len(self.words))

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


def _number_offers(
    bids: CompiledBids,
    catalogue: _Catalogue,
    campaign_advertiser: Int32s,
    advertiser_row: dict[str, int],
    expected_ppm: Int64s,
) -> NDArray[np.void]:
    """Return one offer per bid and product known to the catalogue, most valuable first."""
    offer = np.zeros(int((bids.product.row != NONE_ROW).sum()), OFFER)
    rows = (
        bids.campaign_row,
        bids.audience_row,
        bids.pattern_row,
        bids.condition_row,
        bids.negative_row,
        bids.multiplier_row,
    )
    entitled = lists_of(
        [[advertiser_row[name] for name in names if name in advertiser_row] for names in catalogue.advertiser_ids]
    )
    write_offers_nb(
        bids.bid,
        bids.product.start,
        bids.product.row,
        np.stack(rows, axis=1),
        campaign_advertiser,
        catalogue.product_brand,
        catalogue.product_is_available,
        entitled.start,
        entitled.row,
        offer,
    )
    _resolve_audiences(bids, offer)
    value = highest_score(offer, bids.multiplier_max_ppm, expected_ppm)
    offer = offer[np.argsort(-value, kind="stable")]
    offer["offer_row"] = np.arange(len(offer), dtype=np.int32)
    return offer


def is_on_promotion(product: Product) -> bool:
    """Say whether the product sells below its shelf price now."""
    return product.sale_price_micros is not None and product.sale_price_micros < product.price_micros


class _Postings:
    """Which offers belong to which context, each list in ascending rows."""

    def __init__(self, offer: NDArray[np.void], catalogue: _Catalogue, bids: CompiledBids) -> None:
        product = offer["product_row"]
        is_open = offer["is_restricted"] == 0
        open_product = np.where(is_open, product, NONE_ROW).astype(np.int32)
        open_category = np.where(is_open, catalogue.product_category[product], NONE_ROW).astype(np.int32)
        categories, words = len(catalogue.category), len(catalogue.words)
        everything = np.flatnonzero(is_open)
        lists = [
            Lists(_int64s([0, len(everything)]), everything.astype(np.int32)),
            turn_around(gather(catalogue.categories_above, open_category), categories),
            turn_around(gather(catalogue.product_words, open_product), words),
            turn_around(gather(bids.categories, offer["bid_row"]), categories),
            turn_around(gather(bids.keywords, offer["bid_row"]), len(bids.keyword_names)),
        ]
        self.row = np.concatenate([rows for _, rows in lists])
        begins = np.cumsum([0] + [len(rows) for _, rows in lists])
        starts = [start + begin for (start, _), begin in zip(lists, begins, strict=False)]
        self.open_all_start, self.open_category_start, self.open_word_start = starts[:3]
        self.target_category_start, self.keyword_start = starts[3:]


def _resolve_audiences(bids: CompiledBids, offer: NDArray[np.void]) -> None:
    """Write the rows of audiences that speak of "the brand", by the brand of the product."""
    if not bids.brand_audience:
        return
    audience = bids.bid["audience"][offer["bid_row"]]
    by_brand = np.flatnonzero((offer["audience_row"] == NONE_ROW) & (audience != NONE_ROW))
    known = _int64s([code << 32 | brand_row for code, brand_row in bids.brand_audience])
    order = np.argsort(known)
    asked = audience[by_brand].astype(np.int64) << 32 | offer["brand_row"][by_brand]
    rows = _int32s(list(bids.brand_audience.values()))[order]
    offer["audience_row"][by_brand] = rows[np.searchsorted(known[order], asked)]


def _price_now(product: Product) -> int:
    return product.price_micros if product.sale_price_micros is None else product.sale_price_micros


def _starts(sorted_keys: NDArray[np.integer[Any]], key_count: int) -> Int64s:
    return np.searchsorted(sorted_keys, np.arange(key_count + 1)).astype(np.int64)


def _codes(values: Sequence[str], absent: str | None) -> tuple[list[str], Int32s]:
    """Return the distinct values in order, and each value's place among them; NONE_ROW for `absent`."""
    distinct = sorted(set(values) - ({absent} if absent is not None else set()))
    place = {value: row for row, value in enumerate(distinct)}
    return distinct, _int32s([place.get(value, NONE_ROW) for value in values])


def _text_column(texts: Sequence[str]) -> tuple[Int64s, Bytes]:
    joined = "".join(texts)
    encoded = texts if joined.isascii() else [text.encode() for text in texts]
    start = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(texts)), out=start[1:])
    letters = bytearray(joined.encode()) + bytes(WORD_PADDING)  # compiled code reads them eight at a time
    return start, np.frombuffer(letters, np.uint8)


def _budgets(amounts: Sequence[int | None]) -> Int64s:
    return _int64s([-1 if amount is None else amount for amount in amounts])


def _roas_ppm(campaign: Campaign) -> int:
    return campaign.objective.roas_ppm if isinstance(campaign.objective, TargetRoas) else 0


def _moments(moments: Sequence[Any], open_end: int) -> Int64s:
    return _int64s([open_end if moment is None else int(moment.timestamp() * 1000) for moment in moments])


def _int32s(numbers: Sequence[int]) -> Int32s:
    return np.array(numbers, np.int32)


def _int64s(numbers: Sequence[int]) -> Int64s:
    return np.array(numbers, np.int64)


def _bytes(answers: Sequence[bool]) -> Bytes:
    return np.array(answers, np.uint8)
