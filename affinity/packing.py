"""A visitor's record as bytes: an eighth of its size in memory, and what the record file is made of.

Names of the catalogue (products, categories, brands) are kept once for all visitors and stand in the bytes as numbers;
times are kept as differences; what a column says again and again is kept once, and a column that says nothing not at
all. What follows from the rest (views, progress with patterns) and what the database has
(the profile) is left out, and so is the summary of purchases, which is kept beside the bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, islice, repeat
from operator import sub
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from affinity.matching import Happening, ancestry
from affinity.navigation import Action
from affinity.record import ProductFacts, Shown, VisitorRecord

FORMAT = 2  # to be raised with every change of what the bytes mean
ACTIONS = tuple(Action)  # by their codes

T = TypeVar("T", int, float)
Name = int | str | None  # the number of a known name; the name itself where it is not
Once = tuple[list[int], list[int]]  # the different values of a column, and for each row the place of its own
Weights = tuple[list[float], list[int]]
Belongs = tuple[str | None, str | None]  # category and brand
UNKNOWN_COUNT_MAX = 10_000


class Names:
    """The catalogue's names, each with a number that never changes; numbers are of one process and one record file.

    Attributes:
        name, number: each name by its number, 0, 1, …, and the other way round.
        products: product id to the category and brand it had when it was first mentioned.
        unknown: products that were mentioned and are not in the catalogue, at most so many.
    """

    def __init__(self) -> None:
        self.name: dict[int, str] = {}
        self.number: dict[str, int] = {}
        self.products: dict[str, Belongs] = {}
        self.unknown: set[str] = set()

    def add(self, names: Iterable[str]) -> None:
        """Give the next numbers to names that have none."""
        for name in names:
            number = self.number.setdefault(name, len(self.name))
            self.name.setdefault(number, name)

    def mention(self, product_id: str, facts: ProductFacts | None) -> None:
        """Take account of a product an event is about: its brand and its category get numbers too."""
        if product_id in self.products:
            return
        if facts is None:
            if len(self.unknown) < UNKNOWN_COUNT_MAX:
                self.unknown.add(product_id)
            return
        self.products[product_id] = facts.category_id, facts.brand
        above = () if facts.category_id is None else ancestry(facts.category_id)
        self.add((product_id, *above, *(() if facts.brand is None else (facts.brand,))))

    def fits(self, facts: Mapping[str, ProductFacts]) -> bool:
        """Say whether the catalogue says of each product what it said when an event mentioned it."""
        if any(product_id in facts for product_id in self.unknown):
            return False
        return all(
            (now := facts.get(product_id)) is None or (now.category_id, now.brand) == belongs
            for product_id, belongs in self.products.items()
        )


class _Packed(Struct, frozen=True, array_like=True):
    """A record, column by column."""

    seen_at_ms: int
    session_began_ms: int
    event_time: list[int]  # the first since 1970, each other since the one before
    event_action: bytes
    event_product: list[Name]
    event_category: list[Name]
    event_brand: list[Name]
    event_price: list[int | None]
    event_quantity: list[int]
    event_text: list[list[str | None]]  # queries, and what else an event says; empty where no event does
    category_total: float
    category: list[Name]
    category_weight: Weights
    brand_total: float
    brand: list[Name]
    brand_weight: Weights
    bought: tuple[list[Name], list[Name], list[Name]]  # products, categories, brands
    bought_ago: Once  # milliseconds before the last event, of those one after the other
    dismissed: list[Name]
    served_at_ms: dict[str, list[int]]
    shown: dict[str, tuple[int, list[int]]]  # last click, times
    unrendered: list[tuple[int, str, int, str]]  # time, placement, slot, bid


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_code = {action.value: code for code, action in enumerate(ACTIONS)}.__getitem__
_happening: Callable[[Iterable[Any]], Happening] = partial(tuple.__new__, Happening)
_NO_COLUMNS: tuple[Sequence[Any], ...] = ((),) * len(Happening._fields)


def pack(record: VisitorRecord, names: Names) -> bytes:
    """Return the record as bytes, without purchases, profile, and what can be computed anew."""
    columns = tuple(zip(*record.events, strict=True)) or _NO_COLUMNS
    at, action, product, category, brand, price, quantity, *texts = columns
    last_ms: int = at[-1] if at else 0
    number = names.number.get

    def numbers(column: Iterable[str | None]) -> list[Name]:
        column = list(column)
        return list(map(number, column, column))  # type: ignore[arg-type]  # None is no known name

    bought = record.bought_product, record.bought_category, record.bought_brand
    return _encode(
        _Packed(
            record.seen_at_ms,
            record.session_began_ms,
            [*at[:1], *map(sub, at[1:], at)],
            bytes([_code(one._value_) for one in action]),
            numbers(product),
            numbers(category),
            numbers(brand),
            list(price),
            list(quantity),
            [list(column) if any(one is not None for one in column) else [] for column in texts],
            record.category_total,
            numbers(record.category_weight),
            _once(record.category_weight.values()),
            record.brand_total,
            numbers(record.brand_weight),
            _once(record.brand_weight.values()),
            (numbers(bought[0]), numbers(bought[1]), numbers(bought[2])),
            _once([last_ms - at_ms for times in bought for at_ms in times.values()]),
            numbers(record.dismissed),
            record.served_at_ms,
            {name: (shown.clicked_at_ms, shown.at_ms) for name, shown in record.shown.items()},
            [(*fill, bid_id) for fill, bid_id in record.unrendered.items()],
        )
    )


def unpack(pseudonym: bytes, raw: bytes, names: Names) -> VisitorRecord:
    """Return the record that was packed. Its purchases and profile are the caller's to set.

    Raises:
        msgspec.MsgspecError: the bytes are not a record's.
    """
    packed = _decode(raw)
    name = names.name.get

    def named(column: list[Name]) -> Iterable[Any]:
        return map(name, column, column)  # type: ignore[arg-type]  # what is no number is the name itself

    record = VisitorRecord(pseudonym)
    record.seen_at_ms, record.session_began_ms = packed.seen_at_ms, packed.session_began_ms
    columns = zip(
        accumulate(packed.event_time),
        map(ACTIONS.__getitem__, packed.event_action),
        named(packed.event_product),
        named(packed.event_category),
        named(packed.event_brand),
        packed.event_price,
        packed.event_quantity,
        *(column or repeat(None, len(packed.event_time)) for column in packed.event_text),
        strict=True,
    )
    record.events = list(map(_happening, columns))
    record.pending_count = len(record.events)
    last_ms = record.events[-1].at_ms if record.events else 0
    record.category_total, record.brand_total = packed.category_total, packed.brand_total
    record.category_weight = dict(zip(named(packed.category), _each(packed.category_weight), strict=True))
    record.brand_weight = dict(zip(named(packed.brand), _each(packed.brand_weight), strict=True))
    bought_at = map(last_ms.__sub__, _each(packed.bought_ago))
    record.bought_product, record.bought_category, record.bought_brand = (
        dict(zip(named(column), islice(bought_at, len(column)), strict=True)) for column in packed.bought
    )
    record.dismissed = dict.fromkeys(named(packed.dismissed))
    record.served_at_ms = packed.served_at_ms
    record.shown = {placement_id: Shown(*shown) for placement_id, shown in packed.shown.items()}
    record.unrendered = {(at_ms, placement, slot): bid for at_ms, placement, slot, bid in packed.unrendered}
    return record


def _once(column: Iterable[T]) -> tuple[list[T], list[int]]:
    """Return the different values, in the order they first come, and the place among them of each."""
    places: dict[T, int] = {}
    of_each = [places.setdefault(value, len(places)) for value in column]
    return list(places), of_each


def _each(column: tuple[list[T], list[int]]) -> Iterable[T]:
    values, places = column
    return map(values.__getitem__, places)
