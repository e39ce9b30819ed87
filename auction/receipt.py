"""Receipts: what each auction looked at, in append-only segment files that take a bounded part of the disk.

On the slot path a receipt is a handful of copied arrays in a queue; `write` turns the queue into records off the path.
A segment holds, besides receipts, the names behind the rows they speak of, each once per snapshot, so that it can be
read long after its snapshots are gone. A receipt holds neither a visitor's id nor a hash of one.

A record is 4 bytes of length (little-endian) and a MessagePack value. A record torn by a crash ends its segment.
"""

import contextlib
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from auction.allocation import Allocation, fill_again
from auction.engine import Outcome
from auction.kernel import ENTRY, LOST, CandidateArrays, OutcomeArrays, PageArrays
from auction.market import Blocks, Market, new_outcome, outcome_in
from auction.request import SlotRequest
from auction.settings import Settings
from auction.snapshot import Snapshot

SEGMENT_SUFFIX = ".receipts"
GONE_BEFORE = "gone-before"  # a file with the time before which segments were dropped
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = struct.Struct("<I")
_RECORD_BYTES_MAX = 1 << 28
BATCH_COUNT_MAX = 256
PINNED = PageArrays._fields.index("pinned_row")

# How the arrays of a receipt are written, in this order.
_CANDIDATE_TYPES = ("i8", "i4", "i1", "u8")  # amounts, codes, charge, bits
_PAGE_TYPES = ("i8", "i8", "i8", "u8", "i1", "u8", "i8")


class PlaceNote(Struct, frozen=True, array_like=True):
    """A placement as it was laid out."""

    placement_id: str
    first_slot: int
    slot_count: int
    pricing: str
    rule_ids: list[str]
    no_fill_reason: str | None


class Note(Struct, frozen=True, array_like=True, tag="receipt"):
    """A receipt as it is written.

    Attributes:
        snapshot_number: which of the segment's tables of names its rows are looked up in.
        candidates, entry: arrays, as bytes, of those that took part.
        lost: the same of those that did not; `lost_count` of them, the first of which are here.
        page: attention, opportunity cost, pins; caps.
        outcome: winners, both prices, thresholds, order.
        allocation: how the page was filled; receipts older than this field are greedy.
    """

    auction_id: str
    held_at_ms: int
    snapshot_number: int
    snapshot_version: int
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


class OfferName(Struct, frozen=True, array_like=True):
    """Whose bid on what a row is."""

    bid_id: str
    campaign_id: str
    advertiser_id: str
    product_id: str


class Names(Struct, frozen=True, array_like=True, tag="names"):
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


_Record = Note | Names
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Record] = msgspec.msgpack.Decoder(_Record)


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


class Waiting(Struct, frozen=True):
    """A receipt in the queue, and the snapshot its rows are of."""

    note: Note
    snapshot: Snapshot


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
        process_name: part of this process's file names.
    """

    def __init__(self, folder: Path, settings: Settings, process_name: str = "0") -> None:
        self._folder = folder
        self._settings = settings
        self._process_name = process_name
        self._waiting: deque[Waiting] = deque()
        self._path: Path | None = None
        self._size = 0
        self._snapshot_number = 0
        self._snapshot: Snapshot | None = None
        self._named_offers = self._named_products = np.zeros(0, bool)
        self._named_campaigns = self._named_advertisers = np.zeros(0, bool)
        self.dropped_count = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def waiting_count(self) -> int:
        """Count the receipts not written yet."""
        return len(self._waiting)

    def queue(self, waiting: Waiting) -> None:
        """Take a receipt; drop and count it when the queue is full."""
        if len(self._waiting) >= self._settings.receipt_queue_max:
            self.dropped_count += 1
            return
        self._waiting.append(waiting)

    def write(self, count_max: int = 1 << 30) -> int:
        """Write up to so many receipts of the queue; return how many were.

        What the disk refuses is dropped and counted: a receipt must never hold up a fill.
        """
        written = 0
        while self._waiting and written < count_max:
            if self._path is None or self._size >= self._settings.receipt_segment_bytes:
                self._begin_segment(self._waiting[0].note.held_at_ms)
            written += self._write_batch(min(count_max - written, BATCH_COUNT_MAX))
        return written

    def _write_batch(self, count_max: int) -> int:
        """Write the first receipts of the queue that are of one snapshot, after the names they need."""
        snapshot = self._waiting[0].snapshot
        notes: list[Note] = []
        while self._waiting and len(notes) < count_max and self._waiting[0].snapshot is snapshot:
            notes.append(self._waiting.popleft().note)
        names = self._name(snapshot, notes)
        parts = [] if names is None else [_framed(names)]
        for note in notes:
            parts.append(_framed(msgspec.structs.replace(note, snapshot_number=self._snapshot_number)))
        self._append(b"".join(parts), len(notes))
        return len(notes)

    def find(self, auction_id: str) -> Receipt | None:
        """Return the receipt of an auction, None where none is kept."""
        self.write()
        held_at_ms = time_of(auction_id)
        if held_at_ms is None:
            return None
        for path in self._segments_around(held_at_ms):
            for receipt in read_segment(path, only=auction_id):
                return receipt
        return None

    def is_gone(self, auction_id: str) -> bool:
        """Say whether receipts as old as this one's would be were dropped."""
        held_at_ms = time_of(auction_id)
        if held_at_ms is None:
            return False
        try:
            gone_before_ms = int((self._folder / GONE_BEFORE).read_text())
        except (OSError, ValueError):
            return False
        return held_at_ms < gone_before_ms

    # --- segments ----------------------------------------------------------------------------------------------------

    def _append(self, content: bytes, receipt_count: int) -> None:
        assert self._path is not None
        try:
            with self._path.open("ab") as file:
                file.write(content)
            self._size += len(content)
        except OSError:
            self.dropped_count += receipt_count
            self._path = None

    def _begin_segment(self, first_ms: int) -> None:
        self._trim()
        self._path = self._folder / f"{first_ms:015d}-{self._process_name}{SEGMENT_SUFFIX}"
        self._size = self._path.stat().st_size if self._path.exists() else 0
        self._snapshot = None

    def _trim(self) -> None:
        """Drop our oldest segments while there is more than may be, and note from when on receipts are kept."""
        ours = [path for path in list_segments(self._folder) if path.stem.endswith(f"-{self._process_name}")]
        sizes = {path: path.stat().st_size for path in ours}
        most = self._settings.receipt_bytes_max - self._settings.receipt_segment_bytes
        total = sum(sizes.values())
        while ours and total > max(most, 0):
            oldest = ours.pop(0)
            total -= sizes[oldest]
            # Until the next segment begins, that is as far as the oldest one reached.
            until_ms = _first_ms(ours[0]) if ours else _first_ms(oldest) + 1
            with contextlib.suppress(OSError):
                (self._folder / GONE_BEFORE).write_text(str(until_ms))
                oldest.unlink()

    def _segments_around(self, held_at_ms: int) -> list[Path]:
        """Return the segments that may hold a receipt of that time: per process, the last that began before it."""
        by_process: dict[str, list[Path]] = {}
        for path in list_segments(self._folder):
            by_process.setdefault(path.stem.partition("-")[2], []).append(path)
        found: list[Path] = []
        for paths in by_process.values():
            begun = [path for path in paths if _first_ms(path) <= held_at_ms]
            # Auctions overlap the change of segments: one that began earlier may be written a little later.
            found += reversed(begun[-2:])
            found += [path for path in paths if held_at_ms < _first_ms(path) <= held_at_ms + 60_000]
        return found

    # --- names -------------------------------------------------------------------------------------------------------

    def _name(self, snapshot: Snapshot, notes: list[Note]) -> Names | None:
        """Return the names receipts speak of that the segment does not have yet."""
        if self._snapshot is not snapshot:
            self._snapshot = snapshot
            self._snapshot_number += 1
            self._named_offers = np.zeros(snapshot.offer_count, bool)
            self._named_products = np.zeros(len(snapshot.product_id), bool)
            self._named_campaigns = np.zeros(len(snapshot.campaign_id), bool)
            self._named_advertisers = np.zeros(len(snapshot.advertiser_id), bool)
        entries = [np.frombuffer(note.entry, ENTRY)["offer_row"] for note in notes]
        lost = [np.frombuffer(note.lost, LOST)["offer_row"] for note in notes]
        offers = np.concatenate(entries + lost)
        offers = _take_new(self._named_offers, offers[offers >= 0])
        shown = [np.frombuffer(note.candidates[1], "i4")[2 * note.candidate_count :] for note in notes]
        facts = snapshot.columns.offer[offers]
        products = _take_new(self._named_products, np.concatenate([*shown, facts["product_row"]]))
        if not len(offers) and not len(products):
            return None
        campaigns = _take_new(self._named_campaigns, facts["campaign_row"])
        advertisers = _take_new(self._named_advertisers, facts["advertiser_row"])
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


class _NameTable:
    """The names of one snapshot's rows, as a segment tells them bit by bit."""

    def __init__(self) -> None:
        self.offers: dict[int, OfferName] = {}
        self.products: dict[int, str] = {}
        self._campaigns: dict[int, str] = {}
        self._advertisers: dict[int, str] = {}

    def add(self, names: Names) -> None:
        """Take over what a record names."""
        self.products.update(names.products)
        self._campaigns.update(names.campaigns)
        self._advertisers.update(names.advertisers)
        columns = [
            np.frombuffer(column, "i4").tolist()
            for column in (
                names.offer_row,
                names.bid_length,
                names.campaign_row,
                names.advertiser_row,
                names.product_row,
            )
        ]
        place = 0
        for offer, length, campaign, advertiser, product in zip(*columns, strict=True):
            bid_id = names.bid_letters[place : place + length].decode()
            place += length
            self.offers[offer] = OfferName(
                bid_id, self._campaigns[campaign], self._advertisers[advertiser], self.products[product]
            )


def _take_new(is_named: NDArray[np.bool_], rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the rows that are not marked yet, each once, and mark them."""
    new = rows[~is_named[rows]]
    if len(new):
        new = np.unique(new)
        is_named[new] = True
    return new


def list_segments(folder: Path) -> list[Path]:
    """Return the segment files of a folder, oldest first."""
    return sorted(folder.glob(f"*{SEGMENT_SUFFIX}"))


def read_receipts(folder: Path) -> Iterator[Receipt]:
    """Yield every receipt kept in a folder, oldest segment first."""
    for path in list_segments(folder):
        yield from read_segment(path)


def read_segment(path: Path, only: str | None = None) -> Iterator[Receipt]:
    """Yield the receipts of a segment up to its end, or to a torn record; with `only`, just that auction's."""
    tables: dict[int, _NameTable] = {}
    wanted = None if only is None else only.encode()
    try:
        content = path.read_bytes()
    except OSError:
        return  # dropped meanwhile
    place = 0
    while place + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size
        if length > _RECORD_BYTES_MAX or place + length > len(content):
            return
        record = content[place : place + length]
        place += length
        if wanted is not None and b"receipt" in record[:12] and wanted not in record[:64]:
            continue
        try:
            decoded = _decoder.decode(record)
        except msgspec.DecodeError:
            return
        table = tables.setdefault(decoded.snapshot_number, _NameTable())
        if isinstance(decoded, Names):
            table.add(decoded)
        else:
            yield open_note(decoded, table.offers, table.products)


def open_note(note: Note, offers: dict[int, OfferName], products: dict[int, str]) -> Receipt:
    """Return the arrays of a note."""
    slot_count = sum(place.slot_count for place in note.places)
    count = note.candidate_count
    amounts, codes, charge, bits = [
        np.frombuffer(raw, kind).reshape(-1, count).copy()  # compiled code wants to be able to write
        for raw, kind in zip(note.candidates, _CANDIDATE_TYPES, strict=True)
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
        offers=offers,
        products=products,
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


def _framed(record: Note | Names) -> bytes:
    encoded = _encoder.encode(record)
    return _LENGTH.pack(len(encoded)) + encoded


def _first_ms(path: Path) -> int:
    return int(path.stem.partition("-")[0])
