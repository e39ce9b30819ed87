"""Receipts: what each auction looked at, in append-only segment files that take a bounded part of the disk.

On the slot path a receipt is a handful of copied arrays in a queue; `write` turns the queue into records off the path.
A segment (segment.py) holds, besides receipts, the names behind the rows they speak of, each once per snapshot, so that
it can be read long after its snapshots are gone. A receipt holds neither a visitor's id nor a hash of one.

Auctions with a paid fill have segments of their own: where room is short, those of the others go first.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.allocation import fill_again, new_outcome, outcome_in
from auction.engine import Outcome
from auction.kernel import (
    ENTRY,
    LIST_AT,
    LIST_END,
    LOST,
    NOT_HEAPED,
    PPM,
    TERM_BASE_COUNT,
    TERM_HEAP_SIZE,
    TERM_LEFT_IN_LISTS,
    TERM_LEFT_IN_PRODUCTS,
    CandidateArrays,
    OutcomeArrays,
    PageArrays,
)
from auction.market import Blocks, Market
from auction.placement import Allocation, OrganicSource
from auction.request import SlotRequest
from auction.segment import (
    HEAD,
    OVERLAP_MS,
    SegmentIndex,
    Tell,
    first_ms,
    framed,
    list_segments,
    read_records,
    segment_path,
    series_of,
)
from auction.settings import Settings
from auction.snapshot import Snapshot

GONE_BEFORE = "gone-before"  # with a series behind it, a file with the time before which its segments were dropped
UNPAID = "unpaid"  # behind a process's name: its series of auctions without a paid fill
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
BATCH_COUNT_MAX = 256
OPEN_COUNT_MAX = 8  # segments whose index is kept in memory
PINNED = PageArrays._fields.index("pinned_row")

# How the arrays of a receipt are written, in this order.
_CANDIDATE_TYPES = (("i8", 4), ("i4", 3), ("i1", 1), ("u8", 3))  # amounts, codes, charge, bits: type, rows
_PAGE_TYPES = ("i8", "i8", "i8", "u8", "i1", "u8", "i8")


class Reach(Struct, frozen=True):
    """How far the offers of a placement were looked at.

    Attributes:
        product_count: products not looked at, of those the page named or else those with a quality of the visitor's
            own; NOT_HEAPED where no offer was looked at yet.
        offer_count_max: offers of the context's lists not looked at, at most: one may be in several lists, and those of
            the products above are in them too.
        value_micros_max: what an impression of an offer not looked at could be worth at most.
    """

    product_count: int
    offer_count_max: int
    value_micros_max: int

    @property
    def has_begun(self) -> bool:
        """Say whether any offer was looked at."""
        return self.product_count != NOT_HEAPED


REACH = slice(TERM_BASE_COUNT, TERM_LEFT_IN_PRODUCTS + 1)  # the terms that say how far offers were looked at


class PlaceNote(Struct, frozen=True, array_like=True):
    """A placement as it was laid out.

    Attributes:
        term, lists: how far its offers were looked at: REACH of `PlaceArrays.term`, and `.lists`, as bytes of i8.
        is_drawn: it read qualities that were drawn, to explore; receipts older than these two did not.
        propensity_ppm: how many of a million auctions read the same qualities, expected or drawn.
        organic_source: where its organic products came from; None on a page that only sells, and in older receipts.
    """

    placement_id: str
    first_slot: int
    slot_count: int
    pricing: str
    rule_ids: list[str]
    no_fill_reason: str | None
    term: bytes
    lists: bytes
    is_drawn: bool = False
    propensity_ppm: int = PPM
    organic_source: OrganicSource | None = None

    @property
    def reach(self) -> Reach:
        """Return how far its offers were looked at."""
        term = dict(zip(range(REACH.start, REACH.stop), np.frombuffer(self.term, "i8").tolist(), strict=True))
        left_in_lists, left_in_products = term[TERM_LEFT_IN_LISTS], term[TERM_LEFT_IN_PRODUCTS]
        offer_count = 0
        if left_in_lists:
            lists = np.frombuffer(self.lists, "i8").reshape(3, -1)
            left = lists[LIST_END] - lists[LIST_AT]
            common, others = left[: term[TERM_BASE_COUNT]], left[term[TERM_BASE_COUNT] :]  # in all of them, in each
            offer_count = int(common.min() if len(common) else 0) + int(others.sum())
        return Reach(term[TERM_HEAP_SIZE], offer_count, -(-max(left_in_lists, left_in_products) // PPM))


class Note(Struct, array_like=True):
    """A receipt as it is written.

    Attributes:
        snapshot_number: which of the segment's tables of names its rows are looked up in; set when it is written.
        model: name of the model whose qualities it was ranked with.
        candidates, entry: arrays, as bytes, of those that took part.
        lost: the same of those that did not; `lost_count` of them, the first of which are here.
        page: attention, opportunity cost, pins; caps.
        outcome: winners, both prices, thresholds, order.
        allocation: how the page was filled; receipts older than this field are greedy.
        quality_version: of what clicks had corrected in the model's qualities, the moment they were read; 0 where
            nothing had.
    """

    auction_id: str
    held_at_ms: int
    snapshot_number: int
    snapshot_version: int
    model: str
    currency: str
    mode: str
    page_type: str
    experiment_id: str | None
    variant: str | None
    is_partial: bool
    tie_seed: int
    places: list[PlaceNote]
    candidate_count: int
    lost_count: int
    candidates: list[bytes]
    entry: bytes
    lost: bytes
    page: list[bytes]
    outcome: bytes
    allocation: Allocation = "greedy"
    quality_version: int = 0


class OfferName(Struct, frozen=True, array_like=True):
    """Whose bid on what a row is."""

    bid_id: str
    campaign_id: str
    advertiser_id: str
    product_id: str


class Names(Struct, frozen=True, array_like=True):
    """Names behind rows of one snapshot, as far as the segment's receipts needed them when they were written.

    Attributes:
        offer_row: of each offer named here, as bytes of i4; the next four are in the same order.
        bid_length, bid_letters: its bid's id: bytes of i4, and UTF-8.
        campaign_row, advertiser_row, product_row: bytes of i4.
        campaigns, advertisers, products: ids by row.
    """

    snapshot_number: int
    offer_row: bytes
    bid_length: bytes
    bid_letters: bytes
    campaign_row: bytes
    advertiser_row: bytes
    product_row: bytes
    campaigns: dict[int, str]
    advertisers: dict[int, str]
    products: dict[int, str]


_encoder = msgspec.msgpack.Encoder()
_note_decoder = msgspec.msgpack.Decoder(Note)
_name_decoder = msgspec.msgpack.Decoder(Names)


class Receipt(Struct, frozen=True):
    """A receipt read back: the note, its arrays, and the names of its rows."""

    note: Note
    candidates: CandidateArrays
    offer_row: NDArray[np.int32]
    quality_ppm: NDArray[np.int64]
    place: NDArray[np.int32]
    lost_row: NDArray[np.int32]
    lost_reason: NDArray[np.int16]
    lost_place: NDArray[np.int16]
    page: PageArrays
    outcome: OutcomeArrays
    offers: dict[int, OfferName]
    products: dict[int, str]
    advertisers: dict[int, str]

    @property
    def visited_count(self) -> int:
        """Count the offers that were looked at, whether or not they took part."""
        return int((self.offer_row >= 0).sum()) + self.note.lost_count


class Waiting(Struct, frozen=True):
    """A receipt in the queue, the snapshot its rows are of, and whether the auction has a paid fill."""

    note: Note
    snapshot: Snapshot
    is_paid: bool


def make_note(
    auction_id: str,
    held_at_ms: int,
    request: SlotRequest,
    outcome: Outcome,
    market: Market,
    experiment_id: str | None,
    variant: str | None,
    lost_count_max: int,
) -> Note:
    """Copy what the outcome stands on, before the next auction writes over it."""
    found, count = market.scratch.found, outcome.candidate_count
    lost = min(outcome.lost_count, lost_count_max)
    rules = market.snapshot.rules
    return Note(
        auction_id=auction_id,
        held_at_ms=held_at_ms,
        snapshot_number=0,
        snapshot_version=market.snapshot.version,
        model=market.model.name,
        currency=market.snapshot.currency,
        mode=request.mode,
        page_type=request.page.type,
        experiment_id=experiment_id,
        variant=variant,
        is_partial=outcome.is_partial,
        tie_seed=outcome.tie_seed,
        places=[
            PlaceNote(
                laid.placement.placement_id,
                laid.first_slot,
                laid.slot_count,
                laid.placement.pricing,
                [rules[row].rule_id for row in laid.plan.rule_rows],
                decided.no_fill_reason,
                laid.arrays.term[REACH].tobytes(),
                laid.arrays.lists.tobytes(),
                laid.quality.is_drawn,
                laid.quality.propensity_ppm,
                laid.organic_source if request.mode == "merchandised" else None,
            )
            for laid, decided in zip(outcome.laid, outcome.places, strict=True)
        ],
        candidate_count=count,
        lost_count=outcome.lost_count,
        candidates=[array[..., :count].tobytes() for array in market.scratch.blocks],
        entry=found.entry[:count].tobytes(),
        lost=found.lost[:lost].tobytes(),
        page=[*outcome.page_bytes[:PINNED], outcome.page.pinned_row.tobytes(), *outcome.page_bytes[PINNED + 1 :]],
        outcome=outcome.block.tobytes(),
        allocation=outcome.allocation,
        quality_version=0 if market.corrections is None else market.corrections.version,
    )


def replay_receipt(receipt: Receipt) -> OutcomeArrays:
    """Fill and price the page again from what the receipt holds; equal to what it was, bit for bit."""
    again = new_outcome(len(receipt.page.pinned_row))
    fill_again(receipt.note.allocation, receipt.candidates, receipt.note.candidate_count, receipt.page, again)
    return again


class ReceiptLog:
    """The queue and the segment files of one process.

    Args:
        folder: where segments are; other processes' segments in it are read, never written or dropped.
        settings: sizes.
        process_name: part of this process's file names; without a dash.

    Attributes:
        written_count: receipts written.
        dropped_count: receipts that were not, because the queue was full or the disk refused them.
    """

    def __init__(self, folder: Path, settings: Settings, process_name: str = "0") -> None:
        self._folder = folder
        self._settings = settings
        self._waiting: deque[Waiting] = deque()
        self._paid, self._unpaid = _Series(process_name), _Series(f"{process_name}-{UNPAID}")
        self._opened: dict[Path, _OpenSegment] = {}
        self.written_count = self.dropped_count = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def waiting_count(self) -> int:
        """Count the receipts not written yet."""
        return len(self._waiting)

    def queue(self, waiting: Waiting) -> None:
        """Take a receipt; drop and count it when the queue is full, and from half full on where nothing was paid."""
        count_max = self._settings.receipt_queue_max
        if len(self._waiting) >= (count_max if waiting.is_paid else count_max // 2):
            self.dropped_count += 1
            return
        self._waiting.append(waiting)

    def write(self, count_max: int = 1 << 30) -> int:
        """Take up to so many receipts from the queue and write them; return how many were taken.

        What the disk refuses is dropped and counted: a receipt must never hold up a fill.
        """
        taken = 0
        while self._waiting and taken < count_max:
            taken += self._write_batch(min(count_max - taken, BATCH_COUNT_MAX))
        return taken

    def _write_batch(self, count_max: int) -> int:
        """Write the first receipts of the queue that are of one snapshot, each after the names it needs."""
        snapshot = self._waiting[0].snapshot
        paid: list[Note] = []
        unpaid: list[Note] = []
        while self._waiting and len(paid) + len(unpaid) < count_max and self._waiting[0].snapshot is snapshot:
            waiting = self._waiting.popleft()
            (paid if waiting.is_paid else unpaid).append(waiting.note)
        for series, notes in ((self._paid, paid), (self._unpaid, unpaid)):
            if notes:
                self._append(series, snapshot, notes)
        return len(paid) + len(unpaid)

    def _append(self, series: "_Series", snapshot: Snapshot, notes: list[Note]) -> None:
        try:
            if series.path is None or series.size >= self._settings.receipt_segment_bytes:
                series.path = None
                self._trim(notes[0].held_at_ms)
                series.begin(segment_path(self._folder, notes[0].held_at_ms, series.name))
            series.append(snapshot, notes)
        except OSError:
            series.path = None
            self.dropped_count += len(notes)
        else:
            self.written_count += len(notes)

    def find(self, auction_id: str) -> Receipt | None:
        """Return the receipt of an auction, None where none is kept."""
        self.write()
        held_at_ms = time_of(auction_id)
        if held_at_ms is None:
            return None
        for path in self._segments_around(held_at_ms):
            receipt = self._open(path).find(auction_id)
            if receipt is not None:
                return receipt
        return None

    def is_gone(self, auction_id: str) -> bool:
        """Say whether receipts as old as this one's would be were dropped.

        An id does not say whether its auction had a paid fill: ask only where none was found.
        """
        held_at_ms = time_of(auction_id)
        if held_at_ms is None:
            return False
        for path in self._folder.glob(f"{GONE_BEFORE}-*"):
            with contextlib.suppress(OSError, ValueError):
                if held_at_ms < int(path.read_text()):
                    return True
        return False

    # --- segments ----------------------------------------------------------------------------------------------------

    def _trim(self, now_ms: int) -> None:
        """Drop ended segments of ours while there are more than may be, and note from when on receipts are kept.

        Those of auctions without a paid fill go first, the oldest before the others.
        """
        ended = {
            series: [path for path in list_segments(self._folder) if series_of(path) == series.name]
            for series in (self._unpaid, self._paid)
        }
        total = sum(path.stat().st_size for series, paths in ended.items() for path in paths if path != series.path)
        most = max(0, self._settings.receipt_bytes_max - 2 * self._settings.receipt_segment_bytes)  # two are written to
        for series, paths in ended.items():
            while total > most and paths and paths[0] != series.path:
                oldest = paths.pop(0)
                total -= oldest.stat().st_size
                until_ms = first_ms(paths[0]) if paths else now_ms
                (self._folder / f"{GONE_BEFORE}-{series.name}").write_text(str(until_ms))
                oldest.unlink()
                self._opened.pop(oldest, None)

    def _open(self, path: Path) -> "_OpenSegment":
        """Return a segment with what is known of where its receipts are; only of the last few that is kept."""
        opened = self._opened.pop(path, None) or _OpenSegment(path)
        self._opened[path] = opened
        if len(self._opened) > OPEN_COUNT_MAX:
            self._opened.pop(next(iter(self._opened)))
        return opened

    def _segments_around(self, held_at_ms: int) -> list[Path]:
        """Return the segments that may hold a receipt of that time: of each series, the last that began before it."""
        by_series: dict[str, list[Path]] = {}
        for path in list_segments(self._folder):
            by_series.setdefault(series_of(path), []).append(path)
        found: list[Path] = []
        for paths in by_series.values():
            begun = [path for path in paths if first_ms(path) <= held_at_ms]
            found += reversed(begun[-2:])
            found += [path for path in paths if held_at_ms < first_ms(path) <= held_at_ms + OVERLAP_MS]
        return found


class _Series:
    """Segments written one after the other, and what the last of them has names for.

    Attributes:
        path: the segment being written; None: another is to begin.
        size: its bytes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path: Path | None = None
        self.size = 0
        self._snapshot: Snapshot | None = None
        self._snapshot_number = 0
        self._named_offers = self._named_products = np.zeros(0, bool)
        self._named_campaigns = self._named_advertisers = np.zeros(0, bool)

    def begin(self, path: Path) -> None:
        """Write to another segment from now on."""
        self.path, self.size, self._snapshot = path, 0, None

    def append(self, snapshot: Snapshot, notes: list[Note]) -> None:
        """Write receipts of one snapshot, after the names they need.

        Raises:
            OSError: the disk refuses; the segment may end torn, and nothing may be written behind that.
        """
        assert self.path is not None
        names = self._name(snapshot, notes)
        parts = [HEAD] if self.size == 0 else []
        if names is not None:
            parts.append(framed(b"", _encoder.encode(names)))
        for note in notes:
            note.snapshot_number = self._snapshot_number
            parts.append(framed(note.auction_id.encode(), _encoder.encode(note)))
        content = b"".join(parts)
        with self.path.open("ab") as file:
            file.write(content)
        self.size += len(content)

    def _name(self, snapshot: Snapshot, notes: list[Note]) -> Names | None:
        """Return the names receipts speak of that the segment does not have yet."""
        if self._snapshot is not snapshot:
            self._snapshot = snapshot
            self._snapshot_number += 1
            self._named_offers = np.zeros(snapshot.offer_count, bool)
            self._named_products = np.zeros(len(snapshot.product_id), bool)
            self._named_campaigns = np.zeros(len(snapshot.campaign_id), bool)
            self._named_advertisers = np.zeros(len(snapshot.advertiser_id), bool)
        # Joined as bytes first: a batch is many short arrays.
        entries = np.frombuffer(b"".join([note.entry for note in notes]), ENTRY)["offer_row"]
        lost = np.frombuffer(b"".join([note.lost for note in notes]), LOST)["offer_row"]
        offers = np.concatenate([entries, lost])
        offers = _take_new(self._named_offers, offers[offers >= 0])
        codes = [note.candidates[1] for note in notes]  # advertisers, brands and products: a third of it each
        shown = np.frombuffer(b"".join([code[len(code) // 3 * 2 :] for code in codes]), "i4")
        facts = snapshot.columns.offer[offers]
        products = _take_new(self._named_products, np.concatenate([shown, facts["product_row"]]))
        campaigns = _take_new(self._named_campaigns, facts["campaign_row"])
        standing = np.frombuffer(b"".join([code[: len(code) // 3] for code in codes]), "i4")
        standing = np.concatenate([facts["advertiser_row"], standing[standing >= 0]])  # a booked slot has no offer
        advertisers = _take_new(self._named_advertisers, standing)
        if not len(offers) and not len(products) and not len(advertisers):
            return None
        lengths, letters = snapshot.bid_id.gather(facts["bid_row"])
        return Names(
            snapshot_number=self._snapshot_number,
            offer_row=offers.astype("i4").tobytes(),
            bid_length=lengths.astype("i4").tobytes(),
            bid_letters=letters,
            campaign_row=facts["campaign_row"].tobytes(),
            advertiser_row=facts["advertiser_row"].tobytes(),
            product_row=facts["product_row"].tobytes(),
            campaigns={row: snapshot.campaign_id[row] for row in campaigns.tolist()},
            advertisers={row: snapshot.advertiser_id[row] for row in advertisers.tolist()},
            products={row: snapshot.product_id[row] for row in products.tolist()},
        )


class NameTable:
    """The names of one snapshot's rows, as a segment tells them bit by bit."""

    def __init__(self) -> None:
        self.offers: dict[int, OfferName] = {}
        self.products: dict[int, str] = {}
        self.advertisers: dict[int, str] = {}
        self._campaigns: dict[int, str] = {}

    def add(self, names: Names, only: NDArray[np.int32] | None = None) -> None:
        """Take over what a record names; with `only`, of offers no more than those."""
        self.products.update(names.products)
        self._campaigns.update(names.campaigns)
        self.advertisers.update(names.advertisers)
        offer_row, length, campaign, advertiser, product = [
            np.frombuffer(column, "i4")
            for column in (
                names.offer_row,
                names.bid_length,
                names.campaign_row,
                names.advertiser_row,
                names.product_row,
            )
        ]
        end = np.cumsum(length)
        picked = slice(None) if only is None else np.flatnonzero(np.isin(offer_row, only))
        columns = [column[picked].tolist() for column in (offer_row, end - length, end, campaign, advertiser, product)]
        for row, begins, ends, campaign_row, advertiser_row, product_row in zip(*columns, strict=True):
            self.offers[row] = OfferName(
                names.bid_letters[begins:ends].decode(),
                self._campaigns[campaign_row],
                self.advertisers[advertiser_row],
                self.products[product_row],
            )


class _OpenSegment:
    """A segment in which receipts are looked for by their auctions: reads what it needs, and what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = SegmentIndex()
        self._names: list[Names] = []

    def find(self, auction_id: str) -> Receipt | None:
        """Return an auction's receipt, None where it is not here."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None  # dropped meanwhile
        try:
            self._index.catch_up(descriptor)
            span = self._index.span_of.get(auction_id.encode())
            if span is None:
                return None
            for place, size in self._index.unkeyed[len(self._names) :]:
                self._names.append(_name_decoder.decode(os.pread(descriptor, size, place)))
            note = _note_decoder.decode(os.pread(descriptor, span[1], span[0]))
        except (OSError, msgspec.MsgspecError):
            return None
        finally:
            os.close(descriptor)
        rows = [np.frombuffer(note.entry, ENTRY)["offer_row"], np.frombuffer(note.lost, LOST)["offer_row"]]
        needed = np.concatenate(rows)
        table = NameTable()
        for names in self._names:
            if names.snapshot_number == note.snapshot_number:
                table.add(names, needed)
        return open_note(note, table)


def _take_new(is_named: NDArray[np.bool_], rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the rows that are not marked yet, each once, and mark them."""
    new = rows[~is_named[rows]]
    if len(new):
        new = np.unique(new)
        is_named[new] = True
    return new


def read_receipts(folder: Path, tell: Tell | None = None) -> Iterator[Receipt]:
    """Yield every receipt kept in a folder, segment by segment, the one that began first first."""
    for path in list_segments(folder):
        yield from read_segment(path, tell)


def read_segment(path: Path, tell: Tell | None = None) -> Iterator[Receipt]:
    """Yield the receipts of a segment up to its end, or to what cannot be read, which is told in a sentence."""
    tables: dict[int, NameTable] = {}
    for number, (key, value) in enumerate(read_records(path, tell)):
        try:
            if key:
                note = _note_decoder.decode(value)
                table = tables.setdefault(note.snapshot_number, NameTable())
                receipt = open_note(note, table)
            else:
                names = _name_decoder.decode(value)
                tables.setdefault(names.snapshot_number, NameTable()).add(names)
                continue
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError):
            if tell is not None:
                tell(f"{path.name} is damaged: record {number + 1:,} cannot be read, nor what follows it.")
            return
        yield receipt


def open_note(note: Note, names: NameTable) -> Receipt:
    """Return the arrays of a note, with the names of its snapshot's rows."""
    slot_count = sum(place.slot_count for place in note.places)
    count = note.candidate_count
    amounts, codes, charge, bits = [
        np.frombuffer(raw, kind).reshape(rows, count).copy()  # compiled code wants to be able to write
        for raw, (kind, rows) in zip(note.candidates, _CANDIDATE_TYPES, strict=True)
    ]
    entry, lost = np.frombuffer(note.entry, ENTRY), np.frombuffer(note.lost, LOST)
    page = [np.frombuffer(raw, kind).copy() for raw, kind in zip(note.page, _PAGE_TYPES, strict=True)]
    page[0] = page[0].reshape(2, slot_count)
    block = np.frombuffer(note.outcome, "i8").reshape(4 + slot_count, slot_count).copy()
    return Receipt(
        note=note,
        candidates=Blocks(amounts, codes, charge[0], bits).arrays(),
        offer_row=entry["offer_row"],
        quality_ppm=entry["quality_ppm"],
        place=entry["place"],
        lost_row=lost["offer_row"],
        lost_reason=lost["reason"],
        lost_place=lost["place"],
        page=PageArrays(*page),
        outcome=outcome_in(block),
        offers=names.offers,
        products=names.products,
        advertisers=names.advertisers,
    )


def time_of(auction_id: str) -> int | None:
    """Return when an auction of that id was held, UTC milliseconds since 1970; None where it is no auction's id."""
    digits = auction_id.removeprefix("auc_")
    if len(auction_id) != 30 or len(digits) != 26 or any(digit not in _ALPHABET for digit in digits):
        return None
    number = 0
    for digit in digits:
        number = number << 5 | _ALPHABET.index(digit)
    return number >> 80
