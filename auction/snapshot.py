"""The immutable copy of bids, rules and catalogue that auctions read: arrays and the names behind their rows.

Holds no building (see `builder.py`) and no decision. A snapshot is written to one versioned file and mapped by
every process that reads it, so that workers share its memory; a file is put in place whole or not at all.

Row numbers are positions in this snapshot only. Offers are numbered in descending order of the value they were
expected to have when the snapshot was built: any list of offers in ascending order is then, nearly, in descending
order of value, which is what lets a search stop early. Nothing relies on it being exact.
"""

import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from affinity.audience import Audience
from affinity.kinds import ProductAttributes
from affinity.pattern import NavigationPattern, product_targets_of
from affinity.product_sets import ProductSets
from affinity.signals import NO_SIGNALS, Signals
from auction.booking import Booking
from auction.errors import SnapshotRefused
from auction.kernel import OFFER
from auction.placement import PageCaps, Placement
from auction.retailer_rule import RetailerRule
from auction.virtual_attribute import VirtualAttribute
from auction.weather import WeatherHour
from auction.words import KeywordIndex

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Bytes = NDArray[np.uint8]

FORMAT_VERSION = 5
_MAGIC = b"ENDCAPSN"
_ALIGNMENT = 64

CHARGE_COUNT = 2  # rows of attention tables: CLICK, IMPRESSION
NONE_ROW = -1  # "has none" wherever a row number is expected

PAGE_TYPES = ("home", "landing", "category", "search", "product", "cart", "confirmation", "email", "store_screen")
PAGE_BIT = {page_type: 1 << place for place, page_type in enumerate(PAGE_TYPES)}
ALL_PAGES = (1 << len(PAGE_TYPES)) - 1
CONTEXT_DIMENSIONS = ("device", "region", "store", "weather")
ALL_HOURS = (1 << 24) - 1


class TextColumn(Struct, frozen=True):
    """Many short texts in one run of bytes, so that a million ids cost no objects."""

    start: Int64s
    letters: Bytes

    def __getitem__(self, row: int) -> str:
        """Return the text of a row."""
        return self.letters[self.start[row] : self.start[row + 1]].tobytes().decode()

    def gather(self, rows: Int32s) -> tuple[Int64s, bytes]:
        """Return the lengths of several texts in bytes, and the texts one after the other."""
        first = self.start[rows]
        lengths = self.start[rows + 1] - first
        total = np.cumsum(lengths)
        places = np.arange(total[-1] if len(total) else 0) + np.repeat(first - total + lengths, lengths)
        return lengths, self.letters[places].tobytes()

    def __len__(self) -> int:
        return len(self.start) - 1


class TargetsSpec(Struct, frozen=True):
    """The distinct audiences and patterns the offers use: row i of a visitor's bits is the i-th of them."""

    audiences: list[Audience] = []
    patterns: list[NavigationPattern] = []


class Names(Struct, frozen=True, kw_only=True):
    """Everything of a snapshot that is text or a tree rather than an array, in the order of the rows."""

    version: int
    read_at_ms: int
    currency: str
    time_zone: str
    product_id: list[str]
    brand: list[str]
    category: list[str]
    advertiser_id: list[str]
    advertiser_name: list[str]
    campaign_id: list[str]
    placements: list[Placement]
    page_caps: dict[str, PageCaps]
    rules: list[RetailerRule]  # in the order they are evaluated
    targets: TargetsSpec
    keywords: list[tuple[str, str]]
    words: list[str]
    context_names: list[tuple[str, str]]  # dimension and value
    attribute_values: dict[str, list[bool | int | float | str]]
    frequency_caps: dict[str, tuple[int, int, int]]  # bid id to its row, count and window in seconds
    weather: list[WeatherHour] = []
    bookings: list[Booking] = []
    virtual_attributes: list[VirtualAttribute] = []
    signals: Signals = NO_SIGNALS


class Columns(Struct, frozen=True, kw_only=True):
    """The arrays of a snapshot. P products, O offers, K campaigns, C categories, R rules.

    Attributes:
        offer: (O,) records of OFFER.
        offer_by_product, best_left: (O,) the same records in the order of their products, and (O, 2) what each and
            those behind it can bid; see MarketArrays in kernel.py.
        product_id_start, product_id_letters: the products' ids, a TextColumn.
        bid_id_start, bid_id_letters: the same of the bids.
        product_*: (P,) brand, category (NONE_ROW for none), price now, relevance, and whether a slot may show it.
        attribute_code: (A, P) place of the product's value among `attribute_values`, NONE_ROW where it has none.
        campaign_*: (K,) advertiser, budgets (-1 for none), flight (an open end is ±2^62), whether pacing is even,
            whether it is active, and its target ROAS (0 for none).
        category_end: (C,) categories are in the order of their paths, so that those below c are c..category_end[c].
        product_by_category: (P,) products in the order of their category.
        category_product_start: (C + 1,) where each category begins there.
        posting_row: lists of offers one after the other, each ascending; what follows says where each list begins:
        open_all_start: offers of unrestricted bids, all of them; (2,).
        open_category_start, open_word_start: the same by category of the product (with the ones above it), and by word
            of its title.
        target_category_start, keyword_start: offers of restricted bids by the category or keyword they name.
        product_start: (P + 1,) where the offers of each product begin in `offer_by_product`.
        wish_start, wish: conditions, sets of negative keywords and of placement multipliers that offers name by row;
            see MarketArrays in kernel.py.
        multiplier_max_ppm: greatest factor of each of those rows, at least 1.
        pattern_target_bits: (P, ⌈T/8⌉) which of the patterns' distinct product targets are about each product, see
            `ProductSets`.
        rule_target_bits: (R, ⌈P/8⌉) which products a rule is about.
        rule_value_micros: (V, P) what each rule that gives a value gives each product, in the order of those rules.
    """

    offer: NDArray[np.void]
    offer_by_product: NDArray[np.void]
    best_left: Int64s
    product_id_start: Int64s
    product_id_letters: Bytes
    bid_id_start: Int64s
    bid_id_letters: Bytes
    product_brand: Int32s
    product_category: Int32s
    product_price: Int64s
    product_relevance_ppm: Int64s
    product_is_available: Bytes
    attribute_code: Int32s
    campaign_advertiser: Int32s
    campaign_daily_micros: Int64s
    campaign_total_micros: Int64s
    campaign_starts_ms: Int64s
    campaign_ends_ms: Int64s
    campaign_is_even: Bytes
    campaign_is_active: Bytes
    campaign_roas_ppm: Int64s
    category_end: Int64s
    product_by_category: Int32s
    category_product_start: Int64s
    posting_row: Int32s
    open_all_start: Int64s
    open_category_start: Int64s
    open_word_start: Int64s
    target_category_start: Int64s
    keyword_start: Int64s
    product_start: Int64s
    word_product_start: Int64s
    word_product_row: Int32s
    wish_start: Int64s
    wish: Int64s
    multiplier_max_ppm: Int64s
    pattern_target_bits: Bytes
    rule_target_bits: Bytes
    rule_value_micros: Int32s


class Snapshot:
    """A version of everything an auction reads, and the look-ups over it. Never changed once made."""

    def __init__(self, names: Names, columns: Columns) -> None:
        self.names = names
        self.columns = columns
        self.version = names.version
        self.currency = names.currency
        self.time_zone = names.time_zone
        self.product_id = names.product_id
        self.product_row = _rows(names.product_id)
        self.category_row = _rows(names.category)
        self.advertiser_id = names.advertiser_id
        self.campaign_id = names.campaign_id
        self.campaign_row = _rows(names.campaign_id)
        self.bid_id = TextColumn(columns.bid_id_start, columns.bid_id_letters)
        self.placements = names.placements
        self.placement_row = _rows([placement.placement_id for placement in names.placements])
        self.rules = names.rules
        self.targets_spec = names.targets
        self.word_row = _rows(names.words)
        self.context_row = {name: row for row, name in enumerate(names.context_names)}
        self.attribute_row = _rows(list(names.attribute_values))
        self.keyword_index = KeywordIndex(names.keywords)

    @property
    def has_exact_pages(self) -> bool:
        """Say whether any placement asks for the page worth most."""
        return any(placement.allocation == "exact" for placement in self.placements)

    @property
    def offer_count(self) -> int:
        """Count the offers."""
        return len(self.columns.offer)

    def products_below(self, category_row: int) -> Int32s:
        """Return the products of the category and of those below it."""
        start = self.columns.category_product_start
        return self.columns.product_by_category[start[category_row] : start[self.columns.category_end[category_row]]]

    def products_with_word(self, word_row: int) -> Int32s:
        """Return the products whose title or brand has the word."""
        start = self.columns.word_product_start
        return self.columns.word_product_row[start[word_row] : start[word_row + 1]]

    def product_sets(self) -> ProductSets:
        """Return which products the patterns' product targets are about."""
        targets = product_targets_of(self.targets_spec.patterns)
        return ProductSets(targets, self.product_row, self.columns.pattern_target_bits)

    def attributes(self) -> ProductAttributes:
        """Return the products by category and brand, as a model binds to them."""
        columns = self.columns
        return ProductAttributes(
            self.category_row,
            columns.product_category,
            columns.product_brand,
            columns.category_end,
            columns.product_by_category,
            columns.category_product_start,
        )

    def save(self, path: Path) -> None:
        """Write the snapshot to a file, which appears whole or not at all."""
        arrays = {name: np.ascontiguousarray(getattr(self.columns, name)) for name in Columns.__struct_fields__}
        table, offset = [], 0
        for name, array in arrays.items():
            offset = _aligned(offset)
            table.append((name, _dtype_text(array.dtype), list(array.shape), offset))
            offset += array.nbytes
        header = msgspec.msgpack.encode((table, offset, self.names))
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                file.write(_preamble(header))
                file.write(header)
                base = _aligned(file.tell())
                for (_name, _dtype, _shape, place), array in zip(table, arrays.values(), strict=True):
                    file.write(bytes(base + place - file.tell()))
                    file.write(array.data if array.size else b"")
                file.flush()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def load(path: Path) -> "Snapshot":
        """Map a saved snapshot; its arrays share the file's memory with every other process that did.

        Raises:
            SnapshotRefused: the file is of another version, cut or damaged.
        """
        with path.open("rb") as file:
            preamble = file.read(_PREAMBLE_BYTES)
            header = file.read(_checked_header_bytes(preamble, path))
            if zlib.crc32(header) != int.from_bytes(preamble[24:32], "little"):
                raise SnapshotRefused(f"snapshot {path} is damaged: the checksum of its header differs")
            table, data_bytes, names = msgspec.msgpack.decode(header, type=_Header)
            base = _aligned(_PREAMBLE_BYTES + len(header))
            size = os.fstat(file.fileno()).st_size
            if size < base + data_bytes:
                raise SnapshotRefused(f"snapshot {path} must have {base + data_bytes} bytes, had {size}")
            # Copy on write: the pages are shared, and compiled code may be given arrays it could write to.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        arrays: dict[str, Any] = {}
        for name, dtype_text, shape, place in table:
            dtype = OFFER if dtype_text == "offer" else np.dtype(dtype_text)
            count = int(np.prod(shape))
            arrays[name] = (
                np.frombuffer(mapped, dtype, count, base + place).reshape(shape) if count else _none(dtype, shape)
            )
        return Snapshot(names, Columns(**arrays))


_Header = tuple[list[tuple[str, str, list[int], int]], int, Names]
_PREAMBLE_BYTES = 32


def _preamble(header: bytes) -> bytes:
    return _MAGIC + b"".join(
        number.to_bytes(8, "little") for number in (FORMAT_VERSION, len(header), zlib.crc32(header))
    )


def _checked_header_bytes(preamble: bytes, path: Path) -> int:
    if len(preamble) < _PREAMBLE_BYTES or preamble[:8] != _MAGIC:
        raise SnapshotRefused(f"{path} must be a snapshot file, and is not")
    version = int.from_bytes(preamble[8:16], "little")
    if version != FORMAT_VERSION:
        raise SnapshotRefused(f"snapshot {path} must be of format {FORMAT_VERSION}, was {version}")
    return int.from_bytes(preamble[16:24], "little")


def _dtype_text(dtype: np.dtype[Any]) -> str:
    return "offer" if dtype == OFFER else dtype.str


def _none(dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
    return np.zeros(shape, dtype)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _rows(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}
