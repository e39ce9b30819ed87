"""Bids as columns, kept from one snapshot to the next, so that a change costs no more than what changed.

What bids ask for (products, audiences, patterns, words, …) is kept once, however many ask for it, and goes by a code.
`compile_bids` turns codes into the rows of one snapshot. These depend on nothing but the bids there are: neither on the
order they came in nor on those that were there before.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.audience import Audience, without_lists
from affinity.pattern import NavigationPattern
from affinity.product_target import Mask, Target
from auction.campaign import Bid, BidContext, Keyword
from auction.kernel import BID, CLICK, IMPRESSION, UNKNOWN_TEMPERATURE
from auction.lists import Lists, gather, lists_of
from auction.snapshot import (
    ALL_HOURS,
    ALL_PAGES,
    CONTEXT_DIMENSIONS,
    NONE_ROW,
    PAGE_BIT,
    Int32s,
    Int64s,
    TargetsSpec,
)
from auction.words import words_of
from ledger.money import BID_MICROS_MAX
from ledger.terms import ChargeOn

PPM = 1_000_000
SPARE_CODE_COUNT = 10_000  # codes nobody uses any more, before they are given out anew

CODES = (
    "products",
    "target",
    "campaign",
    "audience",
    "pattern",
    "condition",
    "negative",
    "multiplier",
    "categories",
    "keywords",
)

Columns = Mapping[str, Int32s]  # the codes of bids, by name
Key = TypeVar("Key")
KeywordKey = tuple[str, str]  # match, and words joined by spaces

_encode = msgspec.json.Encoder(order="deterministic").encode


class Codes(Generic[Key]):
    """A number for each distinct thing, and the thing for each number."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self._code_of: dict[Key, int] = {}

    def code(self, key: Key) -> int:
        """Return the key's number, a new one for a new key."""
        code = self._code_of.setdefault(key, len(self.keys))
        if code == len(self.keys):
            self.keys.append(key)
        return code

    def keep_only(self, used: Int32s) -> Int32s:
        """Forget all keys but these codes'; return (codes there were,) the new code of each, NONE_ROW of the others."""
        kept = [self.keys[code] for code in used]
        new_code = np.full(len(self.keys), NONE_ROW, np.int32)
        new_code[used] = np.arange(len(used), dtype=np.int32)
        self.keys = kept
        self._code_of = {key: code for code, key in enumerate(kept)}
        return new_code


class CompiledBids(Struct, frozen=True, kw_only=True):
    """The bids of one snapshot. B bids in the order of their ids, W rows of wishes.

    Attributes:
        bid_id: (B,) their ids.
        bid: (B,) BID, codes and all.
        product: per bid, the products' rows of the catalogue; NONE_ROW for one it does not have, or that is not what
            the bid is about.
        campaign_row: (B,).
        audience_row: (B,) row of the audience; NONE_ROW also where `brand_audience` says it by product.
        pattern_row, condition_row, negative_row, multiplier_row: (B,).
        brand_audience: (code of the audience, brand row) to its row, for audiences that speak of "the brand".
        categories, keywords: per bid, rows of the categories and keywords it names.
        targets: the distinct audiences and patterns.
        keyword_names, context_names: by row.
        wish_start, wish, multiplier_max_ppm: see MarketArrays in kernel.py.
        frequency_caps: bid id to its row, count and window in seconds.
    """

    bid_id: list[str]
    bid: NDArray[np.void]
    product: Lists
    campaign_row: Int32s
    audience_row: Int32s
    pattern_row: Int32s
    condition_row: Int32s
    negative_row: Int32s
    multiplier_row: Int32s
    brand_audience: dict[tuple[int, int], int]
    categories: Lists
    keywords: Lists
    targets: TargetsSpec
    keyword_names: list[KeywordKey]
    context_names: list[tuple[str, str]]
    wish_start: Int64s
    wish: Int64s
    multiplier_max_ppm: Int64s
    frequency_caps: dict[str, tuple[int, int, int]]


class BidTable:
    """Every bid that is not archived."""

    def __init__(self) -> None:
        self._bid_id: list[str] = []
        self._row: dict[str, int] = {}
        self._bids = np.zeros(1_024, BID)
        self._is_sorted = True
        self._frequency_caps: dict[str, tuple[int, int]] = {}
        self._products: Codes[tuple[str, ...]] = Codes()
        self._product_targets: Codes[bytes] = Codes()
        self._campaigns: Codes[str] = Codes()
        self._audiences: Codes[bytes] = Codes()
        self._patterns: Codes[bytes] = Codes()
        self._conditions: Codes[bytes] = Codes()
        self._negatives: Codes[tuple[KeywordKey, ...]] = Codes()
        self._multipliers: Codes[tuple[tuple[str, int], ...]] = Codes()
        self._categories: Codes[tuple[str, ...]] = Codes()
        self._keywords: Codes[tuple[KeywordKey, ...]] = Codes()

    def __len__(self) -> int:
        """Count the bids, those archived since included."""
        return len(self._bid_id)

    def apply(self, bids: Iterable[Bid]) -> None:
        """Take over bids that are new or changed; archived ones leave. They may come in several parts."""
        for bid in bids:
            row = self._row.get(bid.bid_id)
            if row is None:
                if bid.status == "archived":
                    continue
                row = self._append(bid.bid_id)
            self._bids[row] = self._record_of(bid)
            if bid.frequency_cap is None:
                self._frequency_caps.pop(bid.bid_id, None)
            else:
                self._frequency_caps[bid.bid_id] = bid.frequency_cap.count, bid.frequency_cap.window_s

    def categories_named(self) -> frozenset[str]:
        """Return the categories some bid names."""
        used = self._used("categories", self._categories)
        return frozenset(chain.from_iterable(self._categories.keys[code] for code in used))

    def compile_bids(
        self,
        product_row: Mapping[str, int],
        product_brand: Int32s,
        brand: Sequence[str],
        category_row: Mapping[str, int],
        campaign_row: Mapping[str, int],
        placement_row: Mapping[str, int],
        mask_of: Callable[[Target], Mask],
    ) -> CompiledBids:
        """Return the bids of known campaigns, in rows of the given names.

        Args:
            product_row, category_row, campaign_row, placement_row: rows by name.
            product_brand: (P,) rows of `brand`.
            brand: names.
            mask_of: says of each product whether a target is about it.
        """
        self._sort()
        self._shrink()
        row_of_campaign = _rows_of(self._campaigns.keys, campaign_row)
        every = self._bids[: len(self._bid_id)]
        is_in = (every["is_live"] == 1) & (_through(row_of_campaign, every["campaign"]) != NONE_ROW)
        is_whole = bool(is_in.all())
        bids = every if is_whole else every[is_in]
        bid_id = self._bid_id if is_whole else [self._bid_id[row] for row in np.flatnonzero(is_in)]
        codes = {name: np.ascontiguousarray(bids[name]) for name in CODES}  # quicker to go through, and often
        product = gather(
            lists_of([[product_row.get(name, NONE_ROW) for name in names] for names in self._products.keys]),
            codes["products"],
        )
        self._leave_out(product, codes["target"], mask_of)
        targets, audience_row, brand_audience, pattern_row = self._targets(codes, product, product_brand, brand)
        keyword_names = self._keyword_names(codes)
        row_of_keyword = {name: row for row, name in enumerate(keyword_names)}
        context_names, wishes = self._wishes(codes, row_of_keyword, placement_row)
        row_of_bid = {name: row for row, name in enumerate(bid_id)} if self._frequency_caps else {}
        return CompiledBids(
            bid_id=bid_id,
            bid=bids,
            product=product,
            campaign_row=_through(row_of_campaign, codes["campaign"]),
            audience_row=audience_row,
            pattern_row=pattern_row,
            condition_row=wishes.row["condition"],
            negative_row=wishes.row["negative"],
            multiplier_row=wishes.row["multiplier"],
            brand_audience=brand_audience,
            categories=self._named(codes, "categories", self._categories, category_row),
            keywords=self._named(codes, "keywords", self._keywords, row_of_keyword),
            targets=targets,
            keyword_names=keyword_names,
            context_names=context_names,
            wish_start=np.array(wishes.start, np.int64),
            wish=np.array(wishes.numbers, np.int64),
            multiplier_max_ppm=np.array(wishes.factor_max, np.int64),
            frequency_caps={
                name: (row_of_bid[name], count, window_s)
                for name, (count, window_s) in sorted(self._frequency_caps.items())
                if name in row_of_bid
            },
        )

    # --- one bid -----------------------------------------------------------------------------------------------------

    def _append(self, bid_id: str) -> int:
        row = len(self._bid_id)
        if row == len(self._bids):
            self._bids = np.concatenate([self._bids, np.zeros(row, BID)])
        if row and bid_id < self._bid_id[-1]:
            self._is_sorted = False
        self._bid_id.append(bid_id)
        self._row[bid_id] = row
        return row

    def _record_of(self, bid: Bid) -> tuple[Any, ...]:
        is_impression = bid.charge_on is ChargeOn.IMPRESSION
        micros = bid.bid_micros // 1_000 if is_impression else bid.bid_micros
        assert 0 <= micros <= BID_MICROS_MAX
        context, negatives = bid.context, bid.negative_keywords
        return (
            micros,
            self._products.code(tuple(bid.product_ids)),
            NONE_ROW if bid.product_target is None else self._product_targets.code(_encode(bid.product_target)),
            self._campaigns.code(bid.campaign_id),
            NONE_ROW if bid.audience is None else self._audiences.code(_encode(without_lists(bid.audience))),
            NONE_ROW if bid.navigation_pattern is None else self._patterns.code(_encode(bid.navigation_pattern)),
            NONE_ROW if context is None else self._conditions.code(_encode(context)),
            NONE_ROW if not negatives else self._negatives.code(_keyword_keys(negatives)),
            self._multipliers.code(_factors(bid.placement_multipliers)) if bid.placement_multipliers else NONE_ROW,
            self._categories.code(tuple(sorted(set(bid.category_ids)))) if bid.category_ids else NONE_ROW,
            self._keywords.code(_keyword_keys(bid.keywords)) if bid.keywords else NONE_ROW,
            ALL_PAGES if bid.pages is None else sum(PAGE_BIT[page] for page in set(bid.pages)),
            IMPRESSION if is_impression else CLICK,
            bid.status != "archived",
            bid.status != "active",
            bid.frequency_cap is not None,
        )

    def _sort(self) -> None:
        """Bring the bids into the order of their ids; nearly always they are, since ids begin with their time."""
        if self._is_sorted:
            return
        order = sorted(range(len(self._bid_id)), key=self._bid_id.__getitem__)
        self._bids[: len(order)] = self._bids[order]
        self._bid_id = [self._bid_id[row] for row in order]
        self._row = {name: row for row, name in enumerate(self._bid_id)}
        self._is_sorted = True

    # --- codes -------------------------------------------------------------------------------------------------------

    def _used(self, name: str, codes: Codes[Any]) -> Int32s:
        """Return the codes that bids use, ascending."""
        bids = self._bids[: len(self._bid_id)]
        return _distinct(bids[name][bids["is_live"] == 1], len(codes.keys))

    def _shrink(self) -> None:
        """Give out anew the codes nobody uses any more, once there are many."""
        columns: list[tuple[str, Codes[Any]]] = [
            ("products", self._products),
            ("target", self._product_targets),
            ("campaign", self._campaigns),
            ("audience", self._audiences),
            ("pattern", self._patterns),
            ("condition", self._conditions),
            ("negative", self._negatives),
            ("multiplier", self._multipliers),
            ("categories", self._categories),
            ("keywords", self._keywords),
        ]
        bids = self._bids[: len(self._bid_id)]
        for name, codes in columns:
            if len(codes.keys) <= SPARE_CODE_COUNT:
                continue
            used = _distinct(bids[name], len(codes.keys))
            if len(codes.keys) > 2 * len(used) + SPARE_CODE_COUNT:
                bids[name] = _through(codes.keep_only(used), bids[name])

    # --- what bids ask for -------------------------------------------------------------------------------------------

    def _leave_out(self, product: Lists, target: Int32s, mask_of: Callable[[Target], Mask]) -> None:
        """Leave out of bids' products those their target is not about."""
        asked = np.repeat(target, np.diff(product.start))
        for code in _distinct(target, len(self._product_targets.keys)):
            mask = mask_of(msgspec.json.decode(self._product_targets.keys[code], type=Target))
            of_bids = np.flatnonzero((asked == code) & (product.row != NONE_ROW))
            product.row[of_bids[~mask[product.row[of_bids]]]] = NONE_ROW

    def _targets(
        self, column: Columns, product: Lists, product_brand: Int32s, brand: Sequence[str]
    ) -> tuple[TargetsSpec, Int32s, dict[tuple[int, int], int], Int32s]:
        used = _distinct(column["audience"], len(self._audiences.keys))
        asked = {int(code): msgspec.json.decode(self._audiences.keys[code], type=Audience) for code in used}
        of_brand = np.zeros(len(self._audiences.keys) + 1, bool)
        for code, audience in asked.items():
            of_brand[code] = needs_brand(audience)
        by_key = {self._audiences.keys[code]: audience for code, audience in asked.items() if not of_brand[code]}
        resolved: dict[tuple[int, int], bytes] = {}
        for code, brand_row in _pairs(column["audience"], of_brand, product, product_brand):
            named = resolve_brand(asked[code], brand[brand_row] if brand_row < len(brand) else "")
            resolved[code, brand_row] = _encode(named)
            by_key[resolved[code, brand_row]] = named
        row_of = {key: row for row, key in enumerate(sorted(by_key))}
        row_of_code = np.full(len(self._audiences.keys), NONE_ROW, np.int32)
        for code in asked:
            if not of_brand[code]:
                row_of_code[code] = row_of[self._audiences.keys[code]]
        patterns, row_of_pattern = _ranked(column["pattern"], self._patterns)
        spec = TargetsSpec(
            [by_key[key] for key in row_of],
            [msgspec.json.decode(key, type=NavigationPattern) for key in patterns],
        )
        return (
            spec,
            _through(row_of_code, column["audience"]),
            {pair: row_of[key] for pair, key in resolved.items()},
            _through(row_of_pattern, column["pattern"]),
        )

    def _keyword_names(self, column: Columns) -> list[KeywordKey]:
        names: set[KeywordKey] = set()
        for name, codes in (("keywords", self._keywords), ("negative", self._negatives)):
            for code in _distinct(column[name], len(codes.keys)):
                names.update(codes.keys[code])
        return sorted(names)

    def _wishes(
        self, column: Columns, row_of_keyword: Mapping[KeywordKey, int], placement_row: Mapping[str, int]
    ) -> tuple[list[tuple[str, str]], "_Wishes"]:
        wishes = _Wishes()
        conditions, row_of_condition = _ranked(column["condition"], self._conditions)
        contexts = [msgspec.json.decode(key, type=BidContext) for key in conditions]
        names = sorted({name for context in contexts for name in context_values(context)})
        row_of_name = {name: row for row, name in enumerate(names)}
        for context in contexts:
            wishes.add(condition_numbers(context, row_of_name))
        wishes.set_row("condition", column["condition"], row_of_condition, 0)

        begin = wishes.count
        negatives, row_of_negative = _ranked(column["negative"], self._negatives)
        for keywords in negatives:
            wishes.add([row_of_keyword[keyword] for keyword in keywords])
        wishes.set_row("negative", column["negative"], row_of_negative, begin)

        begin = wishes.count
        multipliers, row_of_multiplier = _ranked(column["multiplier"], self._multipliers)
        for factors in multipliers:
            known = sorted((placement_row[name], factor) for name, factor in factors if name in placement_row)
            wishes.add(list(chain.from_iterable(known)), max([PPM, *[factor for _, factor in known]]))
        wishes.set_row("multiplier", column["multiplier"], row_of_multiplier, begin)
        return names, wishes

    def _named(self, column: Columns, name: str, codes: Codes[Any], row_of: Mapping[Any, int]) -> Lists:
        """Return, per bid, the rows of the names in its set."""
        rows: list[list[int]] = [[] for _ in codes.keys]
        for code in _distinct(column[name], len(codes.keys)):
            rows[code] = sorted(row_of[key] for key in codes.keys[code])
        return gather(lists_of(rows), column[name])


class _Wishes:
    """Lists of whole numbers that offers name by row."""

    def __init__(self) -> None:
        self.start = [0]
        self.numbers: list[int] = []
        self.factor_max: list[int] = []
        self.row: dict[str, Int32s] = {}

    @property
    def count(self) -> int:
        return len(self.factor_max)

    def add(self, numbers: Sequence[int], factor_max_ppm: int = PPM) -> None:
        self.numbers += numbers
        self.start.append(len(self.numbers))
        self.factor_max.append(factor_max_ppm)

    def set_row(self, name: str, codes: Int32s, row_of_code: Int32s, begin: int) -> None:
        rows = _through(row_of_code, codes)
        self.row[name] = np.where(rows == NONE_ROW, NONE_ROW, rows + begin).astype(np.int32)


def context_values(context: BidContext) -> list[tuple[str, str]]:
    """Return the values a condition names, each with its dimension."""
    wanted = (context.devices, context.regions, context.stores, context.weather)
    return [(name, value) for name, values in zip(CONTEXT_DIMENSIONS, wanted, strict=True) for value in values or ()]


def condition_numbers(context: BidContext, row_of_name: Mapping[tuple[str, str], int]) -> list[int]:
    """Return a condition as numbers; see `MarketArrays` in kernel.py."""
    numbers = [ALL_HOURS if context.hours is None else sum(1 << hour for hour in set(context.hours))]
    warmth = context.temperature_c
    numbers += (UNKNOWN_TEMPERATURE, -UNKNOWN_TEMPERATURE) if warmth is None else warmth.bounds_milli()
    values = sorted(set(context_values(context)))
    for dimension in CONTEXT_DIMENSIONS:
        rows = [row_of_name[name] for name in values if name[0] == dimension]
        numbers += [len(rows), *rows]
    return numbers


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


def _negated(audience: Audience) -> tuple[Audience, ...]:
    return () if audience.not_ is None else (audience.not_,)


def _keyword_keys(keywords: Iterable[Keyword]) -> tuple[KeywordKey, ...]:
    """Return the distinct keywords, folded; words of a broad one in no order."""
    found: set[KeywordKey] = set()
    for keyword in keywords:
        words = words_of(keyword.text)
        if words:
            found.add((keyword.match, " ".join(sorted(set(words)) if keyword.match == "broad" else words)))
    return tuple(sorted(found))


def _factors(multipliers: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, round(factor * PPM)) for name, factor in multipliers.items()))


def _pairs(
    audience: Int32s, of_brand: NDArray[np.bool_], product: Lists, product_brand: Int32s
) -> Iterable[tuple[int, int]]:
    """Yield the distinct pairs of an audience that speaks of "the brand" and the brand of a product bid on."""
    if not of_brand.any():
        return
    code = np.repeat(audience, np.diff(product.start))
    is_asked = of_brand[code] & (code != NONE_ROW) & (product.row != NONE_ROW)
    pairs = code[is_asked].astype(np.int64) << 32 | product_brand[product.row[is_asked]]
    for pair in np.unique(pairs).tolist():
        yield pair >> 32, pair & 0xFFFF_FFFF


def _ranked(codes: Int32s, table: Codes[Key]) -> tuple[list[Key], Int32s]:
    """Return the keys in use, in order, and (codes,) the place of each code's among them."""
    used = _distinct(codes, len(table.keys)).tolist()
    used.sort(key=table.keys.__getitem__)
    row_of_code = np.full(len(table.keys), NONE_ROW, np.int32)
    row_of_code[used] = np.arange(len(used), dtype=np.int32)
    return [table.keys[code] for code in used], row_of_code


def _distinct(codes: Int32s, count: int) -> Int32s:
    """Return the distinct codes among those below `count`, ascending, NONE_ROW left out."""
    is_there = np.zeros(count + 1, bool)
    is_there[codes] = True  # NONE_ROW is the last place
    return np.flatnonzero(is_there[:-1]).astype(np.int32)


def _through(row_of_code: Int32s, codes: Int32s) -> Int32s:
    """Return the row of each code; NONE_ROW stays."""
    padded: Int32s = np.append(row_of_code, np.int32(NONE_ROW))
    return padded[codes]


def _rows_of(names: Sequence[str], row_of: Mapping[str, int]) -> Int32s:
    return np.array([row_of.get(name, NONE_ROW) for name in names], np.int32)
