"""What the `endcap` command's tasks do once their settings are read: imports, models, and the books' own tools."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity.pseudonym import Pseudonymizer
from bidder_api.access import derive_secret
from bidder_api.database import Database
from bidder_api.deployment import opened
from bidder_api.settings import AllSettings, master_secret

Progress = Callable[[int, int | None], None]
ShowProgress = Callable[[str], AbstractContextManager[Progress]]  # title to a bar

NAVIGATION_FOLDER = "navigation"
MODEL_FOLDER = "models"
RECEIPT_FOLDER = "receipts"
WEATHER_CHUNK_COUNT = 500  # lines in one transaction
WEATHER_KEPT_MS = 2 * 86_400_000


class NothingRecorded(Exception):  # a refusal is an answer, not an error
    """There are no receipts to report on."""


class Outcome(Struct, frozen=True):
    """What became of a file: lines imported, and (line number, message) of those that were not."""

    good_count: int
    bad_lines: list[tuple[int, str]]


class Findings(Struct, frozen=True):
    """What a check of the books found, in words."""

    is_sound: bool
    lines: list[str]


def import_file(settings: AllSettings, kind: str, path: Path, show_progress: ShowProgress) -> Outcome:
    """Import a file: `catalog`, `navigation`, `profiles` or `weather`."""
    from affinity import importer

    with opened(settings.server) as (database, deployment):
        retailer_id, now_ms = deployment.retailer_id, _now_ms()
        with show_progress(f"Importing {path.name}") as progress:
            if kind == "catalog":
                done = importer.import_catalog(
                    path, database.transact, retailer_id, now_ms, progress, deployment.currency
                )
            elif kind == "weather":
                return _import_weather(path, database, retailer_id, now_ms, progress)
            elif kind == "profiles":
                pseudonymizer = pseudonymizer_of(master_secret(settings.server))
                done = importer.import_profiles(path, database.transact, retailer_id, now_ms, progress, pseudonymizer)
            else:
                pseudonymizer = pseudonymizer_of(master_secret(settings.server))
                done = importer.import_navigation(
                    path, _navigation_log(settings), now_ms, progress, pseudonymizer, f"{now_ms:x}"
                )
    return Outcome(done.good_count, done.bad_lines)


def _import_weather(path: Path, database: Database, retailer_id: str, now_ms: int, progress: Progress) -> Outcome:
    """Keep the weather a file tells of, and forget what is more than two days old."""
    from affinity.store import next_change_seq
    from auction.store import forget_weather, put_weather
    from auction.weather_file import read_weather_file

    hours: list[Any] = []
    bad_lines: list[tuple[int, str]] = []
    for number, hour in read_weather_file(path):
        if isinstance(hour, str):
            bad_lines.append((number, hour))
        else:
            hours.append(hour)

    for first in range(0, len(hours), WEATHER_CHUNK_COUNT):
        some = hours[first : first + WEATHER_CHUNK_COUNT]

        def keep(connection: Connection, some: list[Any] = some) -> None:
            put_weather(connection, retailer_id, some, next_change_seq(connection, retailer_id))

        database.transact(keep)
        progress(first + len(some), len(hours))
    database.transact(lambda connection: forget_weather(connection, retailer_id, now_ms - WEATHER_KEPT_MS))
    return Outcome(len(hours), bad_lines)


def train_affinity(
    settings: AllSettings, show_progress: ShowProgress, tuned: Mapping[int, float] | None = None
) -> dict[str, Any]:
    """Build the model from the navigation log and save it; return its metrics. `tuned`: see `affinity.rank.train`."""
    from affinity.rank import train

    with show_progress("Training") as progress:
        path, metrics = train(_navigation_log(settings), _model_folder(settings), _now_ms(), progress, tuned)
    return {"model": str(path), **metrics}


def evaluate_affinity(settings: AllSettings, show_progress: ShowProgress) -> dict[str, Any]:
    """Return how well a model of the earlier sessions foresees the later ones."""
    from affinity.rank import evaluate

    with show_progress("Evaluating") as progress:
        return dict(evaluate(_navigation_log(settings), _now_ms(), progress))


def rank_affinity(settings: AllSettings) -> Callable[[Any], Any]:
    """Return what answers a line of `endcap affinity rank`.

    Raises:
        TrainingRefused: there is no model yet.
    """
    from affinity.errors import TrainingRefused
    from affinity.model import latest_model, load_model
    from affinity.rank import CatalogueRanker
    from affinity.store import read_products_changed
    from affinity.visitors import VisitorStore
    from bidder_api.serving import ProductBook

    path = latest_model(_model_folder(settings))
    if path is None:
        raise TrainingRefused("there is no model yet: run endcap affinity train")
    with opened(settings.server) as (database, deployment):
        products = database.read(lambda connection: read_products_changed(connection, deployment.retailer_id, -1))

    def visitors() -> VisitorStore:
        book = ProductBook()
        book.apply(products, 0)
        store = VisitorStore(
            settings.affinity,
            pseudonymizer_of(master_secret(settings.server)),
            _navigation_log(settings),
            book.facts,
        )
        store.load(_now_ms())
        return store

    return CatalogueRanker(load_model(path), [product.product_id for product in products], visitors).rank


def report_auctions(
    settings: AllSettings, from_ms: int | None, until_ms: int | None, show_progress: ShowProgress
) -> tuple[Any, list[str]]:
    """Return what the recorded auctions of some time come to (see `AuctionReport`), and what could not be read.

    Raises:
        NothingRecorded: there are no receipts.
    """
    from auction.receipt import read_segment
    from auction.report import report_receipts
    from auction.segment import list_segments, segments_between

    folder = settings.server.data_dir / RECEIPT_FOLDER
    if not list_segments(folder):
        raise NothingRecorded(f"{folder}: there are no receipts (*.receipts) here")
    segments = segments_between(folder, from_ms, until_ms)
    unread: list[str] = []

    def receipts() -> Iterator[Any]:
        for number, path in enumerate(segments):
            progress(number, len(segments))
            yield from read_segment(path, unread.append)
        progress(len(segments), len(segments))

    with show_progress("Reading receipts") as progress:
        report = report_receipts(receipts(), from_ms, until_ms)
    if report.receipt_count == 0:
        raise NothingRecorded(" ".join([f"{folder}: no receipt of that time is here.", *unread]))
    return report, unread


def verify_ledger(settings: AllSettings, checkpoint: Path | None, show_progress: ShowProgress) -> Findings:
    """Check every event, entry and change against the chain, and every figure against the rows."""
    from bidder_api.changes import CHAIN_KIND, change_leaves
    from ledger.checkpoint import read_checkpoint
    from ledger.verify import verify

    kept = None if checkpoint is None else read_checkpoint(checkpoint.read_bytes(), None)
    readers = {CHAIN_KIND: change_leaves}
    with opened(settings.server) as (database, deployment), show_progress("Verifying"):
        verdict = database.read(lambda connection: verify(connection, deployment.retailer_id, readers, kept))
    if verdict.bad is not None:
        return Findings(False, [f"touched: {verdict.bad.table} {verdict.bad.key}: {verdict.bad.rule}"])
    counts = f"{verdict.batch_count} batches, {verdict.event_count} events, {verdict.entry_count} entries"
    unread = [f"not looked at: rows of kind {kind}" for kind in verdict.unread_kinds]
    if kept is not None:
        unread.append(f"the checkpoint of batch {kept.batch} is contained; it is signed by {kept.public_key_hex}")
    return Findings(True, [f"The books are as they were written: {counts}.", *unread])


def export_ledger(settings: AllSettings, kind: str, out: TextIO) -> None:
    """Write the journal as CSV or in hledger's format."""
    from ledger.export import export_csv, export_hledger

    with opened(settings.server) as (database, deployment):
        if kind == "csv":
            database.read(lambda connection: export_csv(connection, out))
        else:
            database.read(lambda connection: export_hledger(connection, deployment.retailer_id, out))


def make_checkpoint(settings: AllSettings) -> str:
    """Return a signed statement of where the chain stands."""
    from ledger import checkpoint

    seed = derive_secret(master_secret(settings.server), "checkpoints")
    with opened(settings.server) as (database, deployment):
        made = database.read(
            lambda connection: checkpoint.make_checkpoint(connection, deployment.retailer_id, seed, _now_ms())
        )
    return msgspec.json.encode(made).decode()


def pseudonymizer_of(master: bytes) -> Pseudonymizer:
    """Return what turns ids of visitors into pseudonyms, in every process and command alike."""
    return Pseudonymizer(derive_secret(master, "visitors"))


def _navigation_log(settings: AllSettings) -> Any:
    from affinity.navigation_log import NavigationLog

    return NavigationLog(settings.server.data_dir / NAVIGATION_FOLDER, settings.affinity.navigation_segment_bytes)


def _model_folder(settings: AllSettings) -> Path:
    return settings.server.data_dir / MODEL_FOLDER


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
