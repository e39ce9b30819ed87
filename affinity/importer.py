"""Brings files in: a catalogue and profiles into the database, navigation into its log.

Good lines in, bad ones reported by number; in transactions short enough that a serving process never waits for long.
Raw visitor ids are hashed here, and are in nothing that is written.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity import store
from affinity.catalog import AttributeType, attribute_type
from affinity.errors import EventRefused, SpecialCategoryRefused
from affinity.feed import BadLine, open_feed, read_feed_lines
from affinity.ga4 import read_event
from affinity.navigation import NavigationEvent
from affinity.navigation_log import LogLine, NavigationLog, line_of
from affinity.profile import ProfileDraft, ProfileLine
from affinity.pseudonym import Pseudonymizer
from affinity.special import SpecialCategories

T = TypeVar("T")
Transact = Callable[[Callable[[Connection], Any]], Any]
Progress = Callable[[int, int | None], None]

CHUNK_SECONDS = 0.05
CHUNK_COUNT_MIN, CHUNK_COUNT_MAX = 50, 20_000
PROGRESS_EVERY = 1_000
EVENT_LEAD_MS = 300_000


class Imported(Struct, frozen=True):
    """What became of a file: lines that are in, (line number, message) of those that are not, and lines left out."""

    good_count: int
    bad_lines: list[tuple[int, str]]
    ignored_count: int = 0


def import_catalog(
    path: Path,
    transact: Transact,
    retailer_id: str,
    now_ms: int,
    progress: Progress,
    currency: str | None = None,
) -> Imported:
    """Bring a catalogue feed into the database; advertisers it names are made.

    Args:
        path: a feed, see `feed.read_feed`.
        transact: runs a function in one transaction.
        retailer_id: whose catalogue it is.
        now_ms: when new advertisers are said to be made.
        progress: called with how many lines are done, and of how many where that is known.
        currency: of the deployment: a price in another is a bad line.

    Raises:
        FeedRefused: the file is no feed.
    """
    types: dict[str, AttributeType] = transact(
        lambda connection: store.read_attribute_types(connection, retailer_id, "product")
    )
    bad_lines: list[tuple[int, str]] = []
    chunks = _Chunks()
    done = 0

    def keep(connection: Connection) -> None:
        names = {advertiser_id for product in chunks.items for advertiser_id in product.advertiser_ids}
        store.ensure_advertisers(connection, retailer_id, names, now_ms)
        store.upsert_products(connection, retailer_id, chunks.items, store.next_change_seq(connection, retailer_id))
        is_available = {product.product_id: product.is_available for product in chunks.items}
        store.note_availability(connection, retailer_id, is_available, now_ms)

    for line_number, product in read_feed_lines(path, types, currency):
        if isinstance(product, BadLine):
            bad_lines.append((line_number, product.message))
        elif chunks.add(product):
            chunks.commit(transact, keep)
        done += 1
        if done % PROGRESS_EVERY == 0:
            progress(done, None)
    chunks.commit(transact, keep)
    progress(done, done)
    return Imported(chunks.done_count, bad_lines)


def import_profiles(
    path: Path,
    transact: Transact,
    retailer_id: str,
    now_ms: int,
    progress: Progress,
    pseudonymizer: Pseudonymizer,
    special: SpecialCategories,
) -> Imported:
    """Bring visitors' profiles into the database: JSON lines of `{visitor_id, segments[], attributes{}}`.

    An attribute's type is fixed by the first profile that brings it; a line with another is bad, and so is one that
    tells of a special category of personal data.
    """
    types: dict[str, AttributeType] = transact(
        lambda connection: store.read_attribute_types(connection, retailer_id, "profile")
    )
    bad_lines: list[tuple[int, str]] = []
    chunks = _Chunks()
    done = 0

    def keep(connection: Connection) -> None:
        store.put_profiles(connection, retailer_id, dict(chunks.items), now_ms)

    for line_number, line in _json_lines(path, msgspec.json.Decoder(ProfileLine).decode):
        done += 1
        if done % PROGRESS_EVERY == 0:
            progress(done, None)
        complaint = line if isinstance(line, str) else _profile_complaint(line, types, special)
        if isinstance(line, str) or complaint is not None:
            bad_lines.append((line_number, complaint or ""))
            continue
        profile = ProfileDraft(segments=line.segments, attributes=line.attributes)
        if chunks.add((pseudonymizer.of(line.visitor_id), profile)):
            chunks.commit(transact, keep)
    chunks.commit(transact, keep)
    progress(done, done)
    return Imported(chunks.done_count, bad_lines)


def import_navigation(
    path: Path,
    log: NavigationLog,
    now_ms: int,
    progress: Progress,
    pseudonymizer: Pseudonymizer,
    label: str,
    currency: str | None = None,
) -> Imported:
    """Add a file of navigation events of any age to the log: JSON lines, as in `POST /v1/navigation`, GA4's too.

    The events are in the log as one file when this returns; a running server picks it up. Importing asserts consent.

    Args:
        path: JSON lines, perhaps with gzip.
        log: the deployment's.
        now_ms: an event later than five minutes from now is a bad line.
        progress: called with how many lines are done.
        pseudonymizer: under the deployment's key.
        label: of this import, letters and digits: part of the file's name.
        currency: of the deployment; prices of GA4's events in another are not known.
    """
    bad_lines: list[tuple[int, str]] = []
    good_count = ignored_count = 0

    def lines() -> Iterator[LogLine]:
        nonlocal good_count, ignored_count
        done = 0
        pseudonyms: dict[str, bytes] = {}
        for line_number, read in _json_lines(path, lambda raw: read_event(raw, currency)):
            done += 1
            if done % PROGRESS_EVERY == 0:
                progress(done, None)
            complaint = read if isinstance(read, str) else _time_complaint(read, now_ms)
            if isinstance(read, str) or complaint is not None:
                bad_lines.append((line_number, complaint or ""))
                continue
            if read is None:
                ignored_count += 1
                continue
            good_count += 1
            for event in read:
                pseudonym = pseudonyms.get(event.visitor_id)
                if pseudonym is None:
                    if len(pseudonyms) > 100_000:
                        pseudonyms.clear()
                    pseudonym = pseudonyms[event.visitor_id] = pseudonymizer.of(event.visitor_id)
                yield line_of(event, int(event.occurred_at.timestamp() * 1000), pseudonym, pseudonymizer)
        progress(done, done)

    log.write_import(lines(), now_ms, label)
    return Imported(good_count, bad_lines, ignored_count)


class _Chunks:
    """Gathers lines into transactions of about the same short time, however fast the disk is."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.done_count = 0
        self._size = 500

    def add(self, item: object) -> bool:
        """Gather one more; say whether it is time to commit."""
        self.items.append(item)
        return len(self.items) >= self._size

    def commit(self, transact: Transact, keep: Callable[[Connection], None]) -> None:
        """Keep what is gathered in one transaction."""
        if not self.items:
            return
        began = time.perf_counter()
        transact(keep)
        taken = max(time.perf_counter() - began, 1e-6)
        self.done_count += len(self.items)
        self._size = int(min(max(len(self.items) * CHUNK_SECONDS * 0.8 / taken, CHUNK_COUNT_MIN), CHUNK_COUNT_MAX))
        self._size = min(self._size, 2 * len(self.items) + CHUNK_COUNT_MIN)
        self.items = []


def _json_lines(path: Path, decode: Callable[[bytes], T]) -> Iterator[tuple[int, T | str]]:
    with open_feed(path) as file:
        for line_number, raw in enumerate(file, 1):
            if line_number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                yield line_number, decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, EventRefused) as refusal:
                yield line_number, str(refusal)


def _time_complaint(events: list[NavigationEvent] | None, now_ms: int) -> str | None:
    """Say what is wrong with the time of a line's events, which is one."""
    if not events:
        return None
    occurred_at = events[0].occurred_at
    at_ms = int(occurred_at.timestamp() * 1000)
    if at_ms > now_ms + EVENT_LEAD_MS:
        return f"occurred_at lies in the future: {occurred_at.isoformat()}"
    return f"occurred_at lies before 1970: {occurred_at.isoformat()}" if at_ms < 0 else None


def _profile_complaint(line: ProfileLine, types: dict[str, AttributeType], special: SpecialCategories) -> str | None:
    """Say what is wrong with a line; fix the types of its new attributes."""
    try:
        special.check_profile(line)
    except SpecialCategoryRefused as refusal:
        return str(refusal)
    for name, value in line.attributes.items():
        kind = attribute_type(value)
        fixed = types.setdefault(name, kind)
        if kind != fixed and not (fixed == "float" and kind == "int"):
            return f"attribute {name!r} must be {fixed}, as in the first profile that had it, was {kind}"
    return None
