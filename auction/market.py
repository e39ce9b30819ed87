"""A snapshot and a model bound to it: what auctions read until either changes, with its look-ups and working memory.

One market belongs to one thread: auctions write to its scratch arrays and clear them again.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.correction import Correction, Corrections
from affinity.model import BoundModel
from affinity.signals import NOTHING_BOUND, BoundSignals
from auction.booking import BookedSlot
from auction.kernel import (
    BID_MICROS_MAX,
    CLICK,
    ENTRY,
    FACT_COUNT,
    LISTED,
    LOST,
    MARK,
    PPM,
    PRODUCT,
    AskerArrays,
    Book,
    CandidateArrays,
    FoundArrays,
    MarketArrays,
    PageArrays,
    PageBook,
    Records,
    bind_book_nb,
    file_ids_nb,
)
from auction.organic import SourceRank
from auction.quality import (
    NO_FACTORS,
    LearntQuality,
    OwnQuality,
    PlacementQuality,
    corrected,
    exploring_share_ppm,
    mean_of,
)
from auction.request import Page
from auction.rules import RuleBook
from auction.snapshot import NONE_ROW, Bytes, Int32s, Int64s, Snapshot
from auction.weather import Forecast
from auction.words import QUERY_WORD_COUNT_MAX, words_of

CONTEXT_COUNT_MAX = 4_096
FILTER_BYTES_MAX = 32_000_000
ORDER_COUNT_MAX = 256
FACTS_COUNT_MAX = 50_000
PLACEMENT_COUNT_MAX = 5  # of one request
RECALLING_SOURCES = frozenset({"recently_viewed", "cart", "complements"})  # look at what the visitor did
ASKING_SOURCES = frozenset({"complements", "best_sellers"})  # look at merchandising signals
ROWS_BETWEEN_LOOKS = 1_024  # before it was measured
QUESTION_STEP = 8  # questions are numbered in steps, so that each placement of a page has a number of its own

NO_FILTERS: Bytes = np.zeros(0, np.uint8)

_encode = msgspec.json.Encoder(order="deterministic").encode


class Context(Struct, frozen=True):
    """Which offers and products belong to a page.

    Attributes:
        lists: as PlaceArrays has them: `base_count` whose common offers are in, then others.
        keyword_rows: keywords the page's search matches.
        category_row: the category organic products come from, NONE_ROW for any.
        category_rows: first and end of the categories whose products' open offers belong here.
        word_rows: words all organic products must have.
        is_nowhere: no open offer and no organic product belongs here: an unknown category, an unknown search.
        category_id: category of the page, for rules.
        product_row: product the page is about, NONE_ROW for none.
    """

    lists: Int64s
    base_count: int
    keyword_rows: tuple[int, ...]
    category_row: int
    category_rows: tuple[int, int]
    word_rows: tuple[int, ...]
    is_nowhere: bool
    category_id: str | None
    product_row: int


class OfferFacts(Struct, frozen=True):
    """The names of one offer, and what its fill leaves behind."""

    bid_id: str
    campaign_id: str
    advertiser_id: str
    campaign_row: int
    advertiser_row: int
    has_frequency_cap: bool
    is_personal: bool  # it asked for an audience or a navigation pattern


class Market:
    """A snapshot with a model.

    Attributes:
        quality: the model's, as it is, for placements of which nothing was learnt.
        corrections: what clicks have led to; None before any.
        id_table: products by the hash of their ids, see `file_ids_nb`.
        rules: the plans of the retailer's rules.
        bookings: by placement, the slots booked of it; empty where nothing is.
        recalls: whether any placement asks what a visitor viewed last and has in the cart.
        asks_signals: whether any asks for the signals of merchandising.
        visitor_limits: placement id to what it may show one visitor, where that is limited.
        scratch: working memory of the auction being held.
        rows_between_looks: offers looked at between two looks at the clock, see `rehearse` in engine.py.
        measured_offer_count: offers there were when that was measured, 0 where it never was.
        pages: slots and caps of pages laid out before (engine.py), and their bytes for receipts.
    """

    def __init__(self, snapshot: Snapshot, model: BoundModel, corrections: Corrections | None = None) -> None:
        columns = snapshot.columns
        base_quality_ppm = np.clip(np.array(model.base_quality_ppm, np.int64), 1, PPM)
        if len(base_quality_ppm) != len(snapshot.product_id):
            raise ValueError(
                f"the model must be bound to the snapshot's {len(snapshot.product_id)} products, "
                f"was to {len(base_quality_ppm)}"
            )
        product = np.zeros(len(base_quality_ppm), PRODUCT)
        product["base_quality_ppm"] = base_quality_ppm
        product["relevance_ppm"] = columns.product_relevance_ppm
        product["offers_begin"], product["offers_end"] = columns.product_start[:-1], columns.product_start[1:]
        product["brand_code"] = columns.product_brand
        product["is_available"] = columns.product_is_available
        product["category_row"] = columns.product_category
        self.snapshot = snapshot
        self.model = model
        self.has_impression_bids = bool((columns.offer["charge"] != CLICK).any())
        self.rules = RuleBook(
            snapshot.rules,
            columns.rule_target_bits,
            columns.rule_value_micros,
            snapshot.product_row,
            snapshot.time_zone,
        )
        arrays = MarketArrays(
            offer=columns.offer,
            offer_by_product=columns.offer_by_product,
            best_left=columns.best_left,
            product=product,
            posting_row=columns.posting_row,
            best_score_from=best_from(columns.offer, columns.multiplier_max_ppm, base_quality_ppm),
            wish_start=columns.wish_start,
            wish=columns.wish,
        )
        mean_ppm = mean_of(base_quality_ppm, columns.product_is_available == 1)
        self.quality = PlacementQuality(base_quality_ppm, mean_ppm, NO_FACTORS, arrays, {})
        self.corrections: Corrections | None = None
        self._learnt: Mapping[str, LearntQuality] = {}
        # Twice as many places as products or more, so that a search is short.
        self.id_table = np.empty(1 << max(4, (2 * len(base_quality_ppm)).bit_length()), np.int32)
        file_ids_nb(columns.product_id_start, columns.product_id_letters, self.id_table)
        self.visitor_limits = {
            one.placement_id: one.sponsored_per_visitor
            for one in snapshot.placements
            if one.sponsored_per_visitor is not None
        }
        sources = {one.organic_source for one in snapshot.placements}
        self.recalls = not sources.isdisjoint(RECALLING_SOURCES)
        self.asks_signals = not sources.isdisjoint(ASKING_SOURCES)
        self._signals: BoundSignals | None = None if self.asks_signals else NOTHING_BOUND
        self._best_sellers: dict[tuple[int, tuple[int, ...]], Int32s] = {}
        self.scratch = Scratch(snapshot)
        self.rows_between_looks = ROWS_BETWEEN_LOOKS
        self.measured_offer_count = 0
        self.pages: dict[tuple[object, ...], tuple[PageArrays, PageBook, list[bytes]]] = {}
        self._forecast = Forecast(snapshot.names.weather) if snapshot.names.weather else None
        self.bookings = _booked_slots(snapshot)
        self._contexts: dict[tuple[str, str | None, str | None, str | None], Context] = {}
        self._filters: dict[bytes, Bytes] = {}
        self._facts: dict[int, OfferFacts] = {}
        self._row_of_number = np.zeros(0, np.int32)
        self._numbered: list[str] = []
        if corrections is not None:
            self.take(corrections, self.correct(corrections))

    def go_on_from(self, before: "Market") -> None:
        """Keep what was found out over an earlier market, as far as it holds here too."""
        self.rows_between_looks, self.measured_offer_count = before.rows_between_looks, before.measured_offer_count
        columns, columns_before = self.snapshot.columns, before.snapshot.columns
        names = (columns.product_id_start, columns_before.product_id_start)
        letters = (columns.product_id_letters, columns_before.product_id_letters)
        if np.array_equal(*names) and np.array_equal(*letters):
            self.rules.go_on_from(before.rules)
            asks = self.asks_signals and before.asks_signals
            if asks and self.snapshot.names.signals == before.snapshot.names.signals:
                self._signals = before.signals

    # --- what clicks have led to -------------------------------------------------------------------------------------

    @property
    def arrays(self) -> MarketArrays:
        """Return what the gate reads where nothing was learnt."""
        return self.quality.arrays

    def correct(self, corrections: Corrections) -> dict[str, LearntQuality]:
        """Return each placement's qualities under the corrections. Changes nothing an auction reads.

        One thread at a time, though it may be another than that of the auctions.
        """
        row_of = self.rows_of_numbers(corrections.product_ids, corrections.product_count)
        found: dict[str, tuple[Int64s, Int64s | None, int]] = {}
        uncounted: dict[str, Correction] = {}
        product_count = len(self.quality.base_quality_ppm)
        for placement in self.snapshot.placements:
            name, share_ppm = placement.placement_id, exploring_share_ppm(placement.exploration_cost_ppm)
            correction = corrections.of.get(name)
            if correction is None:
                continue
            if not len(correction.number) and not share_ppm:
                uncounted[name] = correction
                continue
            drawn_ppm = None
            if share_ppm:
                seed = corrections.seed + self.snapshot.placement_row[name]
                drawn_ppm = correction.drawn_ppm(product_count, row_of, seed)
            found[name] = correction.factors_ppm(product_count, row_of), drawn_ppm, share_ppm
        base_ppm = self.quality.base_quality_ppm
        if uncounted:  # they have the shop's level in common, and so their arrays
            correction = next(iter(uncounted.values()))
            found[""] = correction.factors_ppm(product_count, row_of), None, 0
        factors = [factor for one in found.values() for factor in one[:2] if factor is not None]
        if not factors:
            return {}
        columns = self.snapshot.columns
        highest_ppm = corrected(base_ppm, np.maximum.reduce(factors))
        bound = best_from(columns.offer, columns.multiplier_max_ppm, highest_ppm)

        def quality(factor_ppm: Int64s, is_drawn: bool, propensity_ppm: int) -> PlacementQuality:
            quality_ppm = corrected(base_ppm, factor_ppm)
            product = self.quality.arrays.product.copy()
            product["base_quality_ppm"] = quality_ppm
            arrays = self.quality.arrays._replace(product=product, best_score_from=bound)
            mean_ppm = mean_of(quality_ppm, columns.product_is_available == 1)
            return PlacementQuality(quality_ppm, mean_ppm, factor_ppm, arrays, {}, is_drawn, propensity_ppm)

        learnt = {
            name: LearntQuality(
                quality(factor_ppm, False, PPM - share_ppm),
                None if drawn_ppm is None else quality(drawn_ppm, True, share_ppm),
            )
            for name, (factor_ppm, drawn_ppm, share_ppm) in found.items()
        }
        return learnt | dict.fromkeys(uncounted, learnt[""]) if uncounted else learnt

    def take(self, corrections: Corrections, learnt: Mapping[str, LearntQuality]) -> None:
        """Read from now on what `correct` returned."""
        self.corrections, self._learnt = corrections, learnt
        self.scratch.forget_books()

    def quality_of(self, placement_id: str, tie_seed: int) -> PlacementQuality:
        """Return the qualities an auction reads for a placement; `tie_seed` is the auction's."""
        learnt = self._learnt.get(placement_id)
        return self.quality if learnt is None else learnt.of_auction(tie_seed)

    def base_of_numbers(self, product_ids: list[str], product_count: int) -> NDArray[np.float64]:
        """Return the model's quality of each numbered product, 0 where it is not in the snapshot."""
        row = self.rows_of_numbers(product_ids, product_count)
        return np.where(row >= 0, self.quality.base_quality_ppm[row], 0).astype(np.float64)

    def rows_of_numbers(self, product_ids: list[str], product_count: int) -> Int32s:
        """Return the row of each of the first so many products of a list, -1 where it is not in the snapshot.

        The list is that of the counters of clicks, which grows behind what is asked for; what was found is kept.
        """
        known = self._row_of_number if product_ids is self._numbered else np.zeros(0, np.int32)
        row_of = self.snapshot.product_row.get
        new = [row_of(name, NONE_ROW) for name in product_ids[len(known) : product_count]]
        self._numbered = product_ids
        self._row_of_number = np.concatenate([known, np.array(new, np.int32)])
        return self._row_of_number[:product_count]

    def facts_of(self, context: Mapping[str, Any], now_ms: int) -> Mapping[str, Any]:
        """Return a request's context, completed with the weather of its region where it says none."""
        return context if self._forecast is None else self._forecast.completed(context, now_ms)

    def offer_facts(self, offer_row: int) -> OfferFacts:
        """Return the names of an offer."""
        facts = self._facts.get(offer_row)
        if facts is None:
            if len(self._facts) >= FACTS_COUNT_MAX:
                self._facts.clear()
            offer, snapshot = self.arrays.offer[offer_row], self.snapshot
            facts = self._facts[offer_row] = OfferFacts(
                snapshot.bid_id[int(offer["bid_row"])],
                snapshot.campaign_id[offer["campaign_row"]],
                snapshot.advertiser_id[offer["advertiser_row"]],
                int(offer["campaign_row"]),
                int(offer["advertiser_row"]),
                bool(offer["has_frequency_cap"]),
                bool(offer["audience_row"] >= 0 or offer["pattern_row"] >= 0),
            )
        return facts

    # --- where a page is ---------------------------------------------------------------------------------------------

    def context_of(self, page: Page) -> Context:
        """Return which offers and products belong to the page."""
        key = (page.type, page.category_id, page.product_id, page.query)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= CONTEXT_COUNT_MAX:
                self._contexts.pop(next(iter(self._contexts)))
            context = self._contexts[key] = self._find_context(page)
        return context

    def _find_context(self, page: Page) -> Context:
        snapshot, columns = self.snapshot, self.snapshot.columns
        product_row = snapshot.product_row.get(page.product_id or "", NONE_ROW)
        category_id = page.category_id
        if category_id is None and product_row != NONE_ROW:
            row = columns.product_category[product_row]
            category_id = None if row == NONE_ROW else snapshot.names.category[row]
        category_row = NONE_ROW if category_id is None else snapshot.category_row.get(category_id, NONE_ROW)
        words = words_of(page.query)[:QUERY_WORD_COUNT_MAX] if page.query else []
        keyword_rows = tuple(snapshot.keyword_index.matches(words)) if words else ()

        base: list[tuple[Int64s, int]] = []
        organic_category, is_nowhere = NONE_ROW, False
        word_rows: tuple[int, ...] = ()
        if page.type in ("category", "product") and category_id is not None:
            organic_category = category_row
            is_nowhere = category_row == NONE_ROW
            base = [(columns.open_category_start, category_row)]
        elif page.type == "search" and words:
            known = sorted({snapshot.word_row[word] for word in words if word in snapshot.word_row})
            word_rows = tuple(known)
            is_nowhere = not known or (category_id is not None and category_row == NONE_ROW)
            base = [(columns.open_word_start, row) for row in known]
            if category_id is not None:
                organic_category = category_row
                base.append((columns.open_category_start, category_row))
        else:
            base = [(columns.open_all_start, 0)]
        if is_nowhere:
            base = []
        base.sort(key=lambda one: int(one[0][one[1] + 1] - one[0][one[1]]))
        others: list[tuple[Int64s, int]] = []
        while category_row != NONE_ROW:
            others.append((columns.target_category_start, category_row))
            above = snapshot.names.category[category_row].rpartition(" > ")[0]
            category_row = snapshot.category_row.get(above, NONE_ROW)
        others += [(columns.keyword_start, row) for row in keyword_rows]
        lists = base + [one for one in others if one[0][one[1]] < one[0][one[1] + 1]]
        begins, ends = [start[row] for start, row in lists], [start[row + 1] for start, row in lists]
        return Context(
            lists=np.array([begins, ends, begins], np.int64),
            base_count=len(base),
            keyword_rows=keyword_rows,
            category_row=organic_category,
            category_rows=self._categories_from(organic_category, is_nowhere),
            word_rows=word_rows,
            is_nowhere=is_nowhere,
            category_id=category_id,
            product_row=product_row,
        )

    def _categories_from(self, category_row: int, is_nowhere: bool) -> tuple[int, int]:
        if is_nowhere:
            return 0, 0
        if category_row == NONE_ROW:
            return NONE_ROW, len(self.snapshot.names.category)
        return category_row, int(self.snapshot.columns.category_end[category_row])

    # --- organic products --------------------------------------------------------------------------------------------

    def organic_order(self, context: Context, quality: PlacementQuality) -> Int32s:
        """Return the context's products, those of the best base quality in the placement first."""
        if context.is_nowhere:
            return np.zeros(0, np.int32)
        key = (context.category_row, context.word_rows)
        order = quality.orders.get(key)
        if order is None:
            if len(quality.orders) >= ORDER_COUNT_MAX:
                quality.orders.pop(next(iter(quality.orders)))
            rows = self._products_in(context)
            best_first = np.argsort(-quality.base_quality_ppm[rows], kind="stable")
            order = quality.orders[key] = rows[best_first]
        return order

    @property
    def signals(self) -> BoundSignals:
        """Return the signals of merchandising; empty where no placement asks for any."""
        if self._signals is None:
            self._signals = self.snapshot.names.signals.bind(self.snapshot.product_row)
        return self._signals

    def best_sellers_in(self, context: Context) -> Int32s:
        """Return the context's best-sellers, best first."""
        if context.is_nowhere:
            return np.zeros(0, np.int32)
        key = (context.category_row, context.word_rows)
        rows = self._best_sellers.get(key)
        if rows is None:
            if len(self._best_sellers) >= ORDER_COUNT_MAX:
                self._best_sellers.pop(next(iter(self._best_sellers)))
            rows = self._best_sellers[key] = self.in_context(context, self.signals.best_seller_row)
        return rows

    def in_context(self, context: Context, product_rows: NDArray[np.integer[Any]]) -> Int32s:
        """Return those of the products that belong to the context, in their order."""
        rows = np.array(product_rows, np.int32)
        return rows[self.are_in_context(context, rows)]

    def are_in_context(self, context: Context, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Say of each product whether it belongs to the context."""
        is_in = np.full(len(rows), not context.is_nowhere)
        if context.category_row != NONE_ROW:
            category = self.snapshot.columns.product_category[rows]
            is_in &= category >= context.category_row
            is_in &= category < self.snapshot.columns.category_end[context.category_row]
        for word in context.word_rows:
            with_word = self.snapshot.products_with_word(word)
            place = np.minimum(np.searchsorted(with_word, rows), len(with_word) - 1)
            is_in &= with_word[place] == rows
        return is_in

    def _products_in(self, context: Context) -> Int32s:
        snapshot = self.snapshot
        if context.word_rows:
            rarest = min((snapshot.products_with_word(word) for word in context.word_rows), key=len)
            return self.in_context(context, rarest)
        if context.category_row != NONE_ROW:
            return np.sort(snapshot.products_below(context.category_row))
        return np.arange(len(snapshot.product_id), dtype=np.int32)

    # --- the visitor's own filters -----------------------------------------------------------------------------------

    def passing(self, filters: dict[str, Any]) -> Bytes:
        """Return (P,) 1 for each product the filters let through.

        A product without the field asked for does not pass, nor does any under a field nobody knows.
        """
        key = _encode(filters)
        mask = self._filters.get(key)
        if mask is None:
            count = max(1, FILTER_BYTES_MAX // max(1, len(self.snapshot.product_id)))
            if len(self._filters) >= count:
                self._filters.pop(next(iter(self._filters)))
            mask = self._filters[key] = self._find_passing(filters)
        return mask

    def _find_passing(self, filters: dict[str, Any]) -> Bytes:
        snapshot, columns = self.snapshot, self.snapshot.columns
        mask = np.ones(len(snapshot.product_id), bool)
        for name, wanted in filters.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            if name in ("price_min_micros", "price_max_micros"):
                is_number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
                if not is_number:
                    mask[:] = False
                elif name == "price_min_micros":
                    mask &= columns.product_price >= wanted
                else:
                    mask &= columns.product_price <= wanted
            elif name == "category_id":
                mask &= self._below_any(values)
            elif name == "product_id":
                ids = [value for value in values if isinstance(value, str)]
                rows = [snapshot.product_row[value] for value in ids if value in snapshot.product_row]
                mask &= np.isin(np.arange(len(mask)), rows)
            elif name in snapshot.attribute_row:
                accepted = {_as_text(value) for value in values}
                known = snapshot.names.attribute_values[name]
                # One place more than there are values: NONE_ROW, the last one, is what has no value.
                is_accepted = np.array([_as_text(value) in accepted for value in known] + [False], bool)
                mask &= is_accepted[columns.attribute_code[snapshot.attribute_row[name]]]
            else:
                mask[:] = False
        return mask.astype(np.uint8)

    def _below_any(self, categories: list[Any]) -> NDArray[np.bool_]:
        columns = self.snapshot.columns
        mask = np.zeros(len(columns.product_category), bool)
        for category in categories:
            row = self.snapshot.category_row.get(category) if isinstance(category, str) else None
            if row is not None:
                mask |= (columns.product_category >= row) & (columns.product_category < columns.category_end[row])
        return mask


class Scratch:
    """Arrays one auction after another writes to; what must be clear between two is cleared by who wrote it."""

    def __init__(self, snapshot: Snapshot) -> None:
        product_count = len(snapshot.product_id)
        self.mark = np.zeros(product_count, MARK)
        self.own = OwnQuality(self.mark)
        self.source_rank = SourceRank(self.mark)
        self.is_capped = np.zeros(len(snapshot.bid_id), np.uint8)
        self.is_keyword_hit = np.zeros(len(snapshot.names.keywords), np.uint8)
        self.audience_word_count = -(-len(snapshot.targets_spec.audiences) // 64)
        self.pattern_word_count = -(-len(snapshot.targets_spec.patterns) // 64)
        self.bits = np.zeros(self.audience_word_count + self.pattern_word_count + 1, np.uint64)
        self.fact = np.zeros(FACT_COUNT, np.int64)
        self.question = 0
        self.capacity = 4_096
        self.blocks = new_blocks(self.capacity)
        self.found = new_found(self.capacity, self.blocks)
        self._listings = [np.empty(0, LISTED)] * PLACEMENT_COUNT_MAX
        self.listed = list(self._listings)  # candidates read from a request's bytes, by the order of their lists
        self.place = np.zeros(1, np.int64)
        self._is_taken = False
        self._books: dict[PlacementQuality, Book] = {}
        self._bound: tuple[object, ...] = ()

    def book(self, quality: PlacementQuality, campaign_reason: NDArray[np.int16], pacing_ppm: Int64s) -> Book:
        """Return everything compiled code is handed that stays the same from one auction to the next."""
        bound = self._bound
        if not bound or bound[0] is not campaign_reason or bound[1] is not pacing_ppm or bound[2] is not self.found:
            self._books.clear()
            self._bound = campaign_reason, pacing_ppm, self.found
        book = self._books.get(quality)
        if book is None:
            asker = self.asker(campaign_reason, pacing_ppm, NO_FILTERS)
            book = self._books[quality] = bind_book_nb(quality.arrays, asker, self.found)
        return book

    @property
    def book_count(self) -> int:
        """Count the qualities that are bound."""
        return len(self._books)

    def forget_books(self) -> None:
        """Let go of qualities that are no longer read."""
        self._books.clear()

    def asker(self, campaign_reason: NDArray[np.int16], pacing_ppm: Int64s, passes_filters: Bytes) -> AskerArrays:
        """Return what is true of one request."""
        return AskerArrays(
            campaign_reason,
            pacing_ppm,
            self.mark,
            passes_filters,
            self.is_capped,
            self.is_keyword_hit,
            self.bits,
            self.fact,
        )

    def take(self) -> None:
        """Begin an auction. A second one in the midst of it would read half of its marks."""
        assert not self._is_taken, "one market holds one auction at a time"
        self._is_taken = True
        self.found.counts.fill(0)

    def give_back(self) -> None:
        """End an auction."""
        self._is_taken = False

    def next_question(self) -> int:
        """Return a number no earlier question had."""
        self.question += QUESTION_STEP
        return self.question

    def listing(self, number: int, count: int) -> Records:
        """Return an array for so many candidates of one list; memory that is used again is warm."""
        if len(self._listings[number]) < count:
            self._listings[number] = np.empty(count, LISTED)
        return self._listings[number]

    def make_room(self, more: int) -> FoundArrays:
        """Return the arrays the gate writes to, with room for so many more of each kind."""
        count = self.found.counts
        needed = int(max(count[0], count[1])) + more
        if needed > self.capacity:
            self.capacity = max(needed, 2 * self.capacity)
            self.blocks = new_blocks(self.capacity)
            grown = new_found(self.capacity, self.blocks)
            for name in CandidateArrays._fields:
                getattr(grown.candidate, name)[: count[0]] = getattr(self.found.candidate, name)[: count[0]]
            grown.entry[: count[0]] = self.found.entry[: count[0]]
            grown.lost[: count[1]] = self.found.lost[: count[1]]
            grown.counts[:] = count
            self.found = grown
        return self.found


def _booked_slots(snapshot: Snapshot) -> dict[str, list[BookedSlot]]:
    advertiser_row = {name: row for row, name in enumerate(snapshot.advertiser_id)} if snapshot.names.bookings else {}
    booked: dict[str, list[BookedSlot]] = {}
    for booking in sorted(snapshot.names.bookings, key=lambda booking: booking.booking_id):
        if booking.product_id in snapshot.product_row and booking.advertiser_id in advertiser_row:
            booked.setdefault(booking.placement_id, []).append(
                BookedSlot(
                    booking.booking_id,
                    booking.slot_position,
                    snapshot.product_row[booking.product_id],
                    advertiser_row[booking.advertiser_id],
                    int(booking.starts_at.timestamp() * 1000),
                    int(booking.ends_at.timestamp() * 1000),
                )
            )
    return booked


class Blocks(NamedTuple):
    """The candidates' arrays of one kind together, so that a receipt copies four things and not eleven.

    Attributes:
        amounts: (4, C) bids, weights, values and floors.
        codes: (3, C) advertisers, brands and products.
        charge: (C,).
        bits: (3, C) tie keys, slots and groups.
    """

    amounts: Int64s
    codes: Int32s
    charge: NDArray[np.int8]
    bits: NDArray[np.uint64]

    def arrays(self) -> CandidateArrays:
        """Return them one by one."""
        bid, weight, value, floor = self.amounts
        advertiser, brand, product = self.codes
        tie_key, slots, groups = self.bits
        return CandidateArrays(
            bid, weight, value, floor, advertiser, brand, product, self.charge, tie_key, slots, groups
        )


def new_blocks(capacity: int) -> Blocks:
    """Return blocks for so many candidates."""
    return Blocks(
        np.zeros((4, capacity), np.int64),
        np.zeros((3, capacity), np.int32),
        np.zeros(capacity, np.int8),
        np.zeros((3, capacity), np.uint64),
    )


def new_found(capacity: int, blocks: Blocks) -> FoundArrays:
    """Return arrays for so many candidates, and so many that lost."""
    return FoundArrays(
        candidate=blocks.arrays(),
        entry=np.zeros(capacity, ENTRY),
        lost=np.zeros(capacity, LOST),
        counts=np.zeros(2, np.int64),
    )


def best_from(offer: NDArray[np.void], multiplier_max_ppm: Int64s, quality_ppm: Int64s) -> Int64s:
    """Return (O+1,) the most any offer from each one on can be worth, see `highest_score`."""
    best = highest_score(offer, multiplier_max_ppm, quality_ppm)
    found = np.zeros(len(best) + 1, np.int64)
    found[:-1] = np.maximum.accumulate(best[::-1])[::-1]
    return found


def highest_score(offer: NDArray[np.void], multiplier_max_ppm: Int64s, quality_ppm: Int64s) -> Int64s:
    """Return the most each offer can be worth an impression, in micros times a million, for products of that quality.

    Nothing but a retailer's boost, a visitor's own quality and squashing can lift it above that.
    """
    bid = offer["bid_micros"].copy()
    has_multiplier = offer["multiplier_row"] != NONE_ROW
    if has_multiplier.any():
        factor = multiplier_max_ppm[offer["multiplier_row"][has_multiplier]]
        bid[has_multiplier] = np.minimum(bid[has_multiplier] * factor // PPM, BID_MICROS_MAX)
    weight = np.where(offer["charge"] == CLICK, quality_ppm[offer["product_row"]], PPM)
    score: Int64s = np.where(offer["never_reason"] == 0, bid * weight, 0)
    return score


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
