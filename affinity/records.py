"""The records of all visitors, in bounded memory: those used last stand ready, all others are bytes.

Events of a visitor nobody looks at wait beside the bytes until they are many, so that an event costs the same whether
its visitor is one of a thousand or of a million.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from affinity.computed import Purchases
from affinity.matching import Happening
from affinity.navigation import Action
from affinity.packing import Names, pack, unpack
from affinity.record import ProductFacts, VisitorRecord, sum_up_purchase
from affinity.settings import Settings

WAITING_COUNT_MAX = 8
CHECKED_EVERY = 256  # changes of one ready record between two looks at its size
# What an entry of the map and an event that waits take in memory, rounded up; measured with tracemalloc.
ENTRY_BYTES, WAITING_BYTES = 320, 256

Packed = tuple[bytes, bytes, Purchases | None]  # pseudonym, bytes, and what was bought


class PackedRecord:
    """A record as bytes.

    Attributes:
        raw: the packed record, empty where there is none yet.
        purchases: the summary of all purchases, those that wait included; None where there is none.
        waiting: events that are not in the bytes yet, in the order they arrived.
    """

    __slots__ = ("purchases", "raw", "waiting")

    def __init__(self, raw: bytes = b"", purchases: Purchases | None = None) -> None:
        self.raw = raw
        self.purchases = purchases
        self.waiting: list[Happening] = []

    def byte_count(self) -> int:
        """Return about how much memory it takes."""
        return ENTRY_BYTES + len(self.raw) + WAITING_BYTES * len(self.waiting)


class VisitorRecords:
    """Visitors' records by pseudonym; the least recently seen go when there are too many.

    Changed by one thread; `peek` and iterating may run beside it.

    Args:
        settings: this package's.
        complete: sets what a record has from elsewhere (its profile), whenever one is made.

    Attributes:
        names: the catalogue's, as packed records refer to them.
        byte_count: about what all packed records take, in bytes.
        versions: of records that are copies of shared ones, which version each is of.
    """

    def __init__(self, settings: Settings, complete: Callable[[VisitorRecord], None] = lambda _: None) -> None:
        self.names = Names()
        self.byte_count = 0
        self.versions: dict[bytes, int] = {}
        self._settings = settings
        self._complete = complete
        self._kept: OrderedDict[bytes, VisitorRecord | PackedRecord] = OrderedDict()  # least recently seen first
        # Those ready, least recently used first: the bytes they came from while they are unchanged, else the changes.
        self._ready: OrderedDict[bytes, bytes | int] = OrderedDict()
        self._walk: Walk | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, pseudonym: bytes) -> bool:
        return pseudonym in self._kept

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._kept))

    # --- one visitor -------------------------------------------------------------------------------------------------

    def get(self, pseudonym: bytes) -> VisitorRecord | None:
        """Return the visitor's record to be read, None where there is none. To change it, `open` it."""
        kept = self._kept.get(pseudonym)
        if isinstance(kept, PackedRecord):
            return self._make_ready(pseudonym, kept)
        if kept is not None:
            self._ready.move_to_end(pseudonym)
        return kept

    def get_ready(self, pseudonym: bytes) -> VisitorRecord | None:
        """Return the visitor's record where it stands ready."""
        kept = self._kept.get(pseudonym)
        return kept if isinstance(kept, VisitorRecord) else None

    def open(self, pseudonym: bytes, now_ms: int) -> VisitorRecord:
        """Return the visitor's record to be changed at once, made if there is none; the visitor was seen now."""
        if self._walk is not None:
            self._walk.keep(pseudonym)
        if pseudonym in self._kept:
            self._kept.move_to_end(pseudonym)
        record = self.get(pseudonym)
        if record is None:
            record = self._kept[pseudonym] = VisitorRecord(pseudonym)
            self._complete(record)
            self._ready[pseudonym] = 0
            self._keep_within_bounds()
        if record.seen_at_ms < now_ms:
            record.seen_at_ms = now_ms
        changes = self._ready[pseudonym]
        changes = self._ready[pseudonym] = changes + 1 if type(changes) is int else 1
        if not changes % CHECKED_EVERY:
            self._pack_within_bounds(record)
        return record

    def touch(self, pseudonym: bytes) -> None:
        """Say that a record that was read is about to be changed."""
        if pseudonym in self._ready:
            self._before_change(pseudonym)
            if not isinstance(self._ready[pseudonym], int):
                self._ready[pseudonym] = 0

    def note(self, pseudonym: bytes, happening: Happening, facts: ProductFacts | None, now_ms: int) -> None:
        """Take an event of a visitor in."""
        if happening.product_id is not None:
            self.names.mention(happening.product_id, facts)
        if pseudonym in self._ready:
            self.open(pseudonym, now_ms).note(happening, facts, self._settings)
            return
        self._before_change(pseudonym)
        kept = self._kept.get(pseudonym)
        assert not isinstance(kept, VisitorRecord), "what is not packed is ready"
        if kept is None:
            kept = self._kept[pseudonym] = PackedRecord()
            self.byte_count += ENTRY_BYTES
        else:
            self._kept.move_to_end(pseudonym)
        kept.waiting.append(happening)
        self.byte_count += WAITING_BYTES
        if happening.action is Action.PURCHASE:
            kept.purchases = kept.purchases or Purchases()
            sum_up_purchase(kept.purchases, happening, facts)
        if len(kept.waiting) >= WAITING_COUNT_MAX:
            self._make_ready(pseudonym, kept)
        self._keep_within_bounds()

    def put(self, record: VisitorRecord) -> None:
        """Take a record over in place of the one there is; it stands ready."""
        self.pop(record.pseudonym)
        self._kept[record.pseudonym] = record
        self._complete(record)
        self._ready[record.pseudonym] = 0
        self._keep_within_bounds()

    def pop(self, pseudonym: bytes) -> None:
        """Drop a visitor's record."""
        kept = self._kept.pop(pseudonym, None)
        self._ready.pop(pseudonym, None)
        if self.versions:
            self.versions.pop(pseudonym, None)
        if isinstance(kept, PackedRecord):
            self.byte_count -= kept.byte_count()

    def peek(self, pseudonym: bytes) -> VisitorRecord | None:
        """Return the visitor's record to be read by another thread: the ready one, or a copy."""
        kept = self._kept.get(pseudonym)
        return self._unpack(pseudonym, kept) if isinstance(kept, PackedRecord) else kept

    # --- all of them -------------------------------------------------------------------------------------------------

    def ready(self) -> list[VisitorRecord]:
        """Return the records that stand ready."""
        return [kept for one in self._ready if isinstance(kept := self._kept[one], VisitorRecord)]

    def purchases(self) -> Iterator[tuple[bytes, Purchases]]:
        """Yield what each visitor bought who bought anything."""
        for pseudonym, kept in self._kept.items():
            if kept.purchases is not None and kept.purchases.order_count:
                yield pseudonym, kept.purchases

    def walk(self) -> "Walk":
        """Begin to read all records as they are now, while they go on changing. One walk at a time."""
        self._walk = Walk(self, list(self._kept))
        return self._walk

    def end_walk(self) -> None:
        """Stop keeping what a walk would read."""
        self._walk = None

    def load(self, packed: Iterator[list[Packed]], names: Names) -> None:
        """Take over packed records, least recently seen first, instead of those there are.

        Args:
            packed: in batches; what it raises comes through, and then nothing was taken over.
            names: those the bytes refer to.
        """
        kept: OrderedDict[bytes, VisitorRecord | PackedRecord] = OrderedDict()
        byte_count = 0
        for batch in packed:
            for pseudonym, raw, purchases in batch:
                one = kept[pseudonym] = PackedRecord(raw, purchases)
                byte_count += one.byte_count()
        self.names, self._kept, self.byte_count = names, kept, byte_count
        self._ready.clear()
        self._keep_within_bounds()

    def packed(self, pseudonym: bytes) -> Packed | None:
        """Return a record as bytes with everything in them, None where there is none."""
        kept = self._kept.get(pseudonym)
        if kept is None:
            return None
        if isinstance(kept, PackedRecord):
            raw = self._pack_within_bounds(self._unpack(pseudonym, kept)) if kept.waiting else kept.raw
        else:
            known = self._ready[pseudonym]
            raw = self._pack_within_bounds(kept) if isinstance(known, int) else known
        bought = kept.purchases
        is_bought = bought is not None and (bought.order_count or bought.through_ms)
        return pseudonym, raw, msgspec.structs.replace(bought) if bought is not None and is_bought else None

    # --- inside ------------------------------------------------------------------------------------------------------

    def _unpack(self, pseudonym: bytes, packed: PackedRecord) -> VisitorRecord:
        record = unpack(pseudonym, packed.raw, self.names) if packed.raw else VisitorRecord(pseudonym)
        for happening in tuple(packed.waiting):
            record.note(happening, None, self._settings)
        record.purchases = Purchases() if packed.purchases is None else msgspec.structs.replace(packed.purchases)
        self._complete(record)
        return record

    def _make_ready(self, pseudonym: bytes, packed: PackedRecord) -> VisitorRecord:
        record = self._kept[pseudonym] = self._unpack(pseudonym, packed)
        is_changed = packed.waiting or record.version  # `complete` may have added what was computed
        self._ready[pseudonym] = 0 if is_changed else packed.raw
        self.byte_count -= packed.byte_count()
        self._keep_within_bounds()
        return record

    def _keep_within_bounds(self) -> None:
        while len(self._ready) > self._settings.visitor_ready_count_max:
            oldest = next(iter(self._ready))
            packed = self.packed(oldest)
            assert packed is not None, "what is ready is kept"
            del self._ready[oldest]
            one = self._kept[oldest] = PackedRecord(*packed[1:])
            self.byte_count += one.byte_count()
        while len(self._kept) > self._settings.visitor_count_max or (
            self.byte_count > self._settings.visitor_bytes_max and len(self._kept) > len(self._ready)
        ):
            oldest = next(iter(self._kept))
            self._before_change(oldest)
            self.pop(oldest)

    def _pack_within_bounds(self, record: VisitorRecord) -> bytes:
        raw = pack(record, self.names)
        while len(raw) > self._settings.visitor_record_bytes_max and record.shrink():
            raw = pack(record, self.names)
        return raw

    def _before_change(self, pseudonym: bytes) -> None:
        if self._walk is not None:
            self._walk.keep(pseudonym)


class Walk:
    """All records as they were when it began, read bit by bit; what changes meanwhile is kept as it was.

    Args:
        records: whose.
        order: pseudonyms at the beginning, least recently seen first.
    """

    def __init__(self, records: VisitorRecords, order: list[bytes]) -> None:
        self._records = records
        self._order = iter(order)
        self._done: set[bytes] = set()
        self._before: dict[bytes, Packed | None] = {}

    def keep(self, pseudonym: bytes) -> None:
        """Remember a record as it is, before it changes for the first time since the beginning."""
        if pseudonym not in self._done and pseudonym not in self._before:
            self._before[pseudonym] = self._records.packed(pseudonym)

    def read(self, count_max: int) -> list[Packed] | None:
        """Return the next records, None after the last."""
        found: list[Packed] = []
        looked_at = 0
        for pseudonym in self._order:
            looked_at += 1
            self._done.add(pseudonym)
            packed = self._before.pop(pseudonym) if pseudonym in self._before else self._records.packed(pseudonym)
            if packed is not None:
                found.append(packed)
            if looked_at == count_max:
                break
        return found if looked_at else None
