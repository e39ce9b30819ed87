"""What the `endcap` command's tasks do once their settings are read: imports, models, and the books' own tools."""

import io
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity.catalog import Product
from affinity.pseudonym import Pseudonymizer
from bidder_api.access import derive_secret
from bidder_api.database import Database
from bidder_api.deployment import opened
from bidder_api.settings import AllSettings, beacon_keys, for_deployment, master_secret

if TYPE_CHECKING:
    from affinity.rank import Trained
    from affinity.train import Evaluation

Progress = Callable[[int, int | None], None]
ShowProgress = Callable[[str], AbstractContextManager[Progress]]  # title to a bar

NAVIGATION_FOLDER = "navigation"
MODEL_FOLDER = "models"
RECEIPT_FOLDER = "receipts"
CLICKS_FILE = "clicks.msgpack"
PLACEMENT_COUNT_MAX = 10_000
WEATHER_CHUNK_COUNT = 500  # lines in one transaction
PROFILE_CHUNK_COUNT = 500  # computed profiles in one transaction
COMPUTE_ATTEMPT_MAX = 5
WEATHER_KEPT_MS = 2 * 86_400_000


class NothingRecorded(Exception):  # a refusal is an answer, not an error
    """There is nothing to report on."""


class Outcome(Struct, frozen=True):
    """What became of a file: lines imported, (line number, message) of those that were not, and lines left out."""

    good_count: int
    bad_lines: list[tuple[int, str]]
    ignored_count: int = 0


class Findings(Struct, frozen=True):
    """What a check of the books found, in words."""

    is_sound: bool
    lines: list[str]


def import_file(settings: AllSettings, kind: str, path: Path, show_progress: ShowProgress) -> Outcome:
    """Import a file: `catalog`, `navigation`, `profiles` or `weather`."""
    from affinity import importer
    from affinity.special import special_categories

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
                special = special_categories(settings.affinity.special_category_terms)
                done = importer.import_profiles(
                    path, database.transact, retailer_id, now_ms, progress, pseudonymizer, special
                )
            else:
                pseudonymizer = pseudonymizer_of(master_secret(settings.server))
                done = importer.import_navigation(
                    path,
                    _navigation_log(settings),
                    now_ms,
                    progress,
                    pseudonymizer,
                    f"{now_ms:x}",
                    deployment.currency,
                )
    return Outcome(done.good_count, done.bad_lines, done.ignored_count)


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


class ComputedCustomers(Struct, frozen=True):
    """What a computation of the profiles came to.

    Attributes:
        customer_count: persons who bought something.
        entry_count: entries into segments recorded.
        without_consent: orders' lines left out, since nothing says that their buyer consented.
        segments: customers in each computed segment, by its name.
    """

    customer_count: int
    entry_count: int
    without_consent: int
    segments: dict[str, int]


def compute_profiles(settings: AllSettings, show_progress: ShowProgress) -> ComputedCustomers:
    """Compute every customer from orders and navigation, and keep what was found; servers take it up by themselves.

    Raises:
        ComputationDisturbed: visitors were erased again and again while it ran.
    """
    from affinity.errors import ComputationDisturbed

    for _attempt in range(COMPUTE_ATTEMPT_MAX):
        done = _compute_profiles(settings, show_progress)
        if done is not None:
            return done
    raise ComputationDisturbed("visitors were erased while their profiles were computed: run it again")


def _compute_profiles(settings: AllSettings, show_progress: ShowProgress) -> ComputedCustomers | None:
    """Return None where somebody was erased meanwhile, of whom something may have been read."""
    from affinity import store
    from affinity.customers import FROM_ANYWHERE, compute_customers, read_purchases
    from affinity.record import read_facts
    from ledger.store import read_ordered_lines

    with opened(settings.server) as (database, deployment):
        retailer_id, now_ms = deployment.retailer_id, _now_ms()
        erasure_seq = database.transact(lambda connection: store.begin_computation(connection, retailer_id))
        with show_progress("Reading navigation") as progress:
            navigation = read_purchases(_navigation_log(settings), progress)

        def read(connection: Connection) -> tuple[Any, ...]:
            consented = navigation.pseudonyms | store.read_profile_pseudonyms(connection, retailer_id)
            customer_of = store.read_links(connection, retailer_id)
            consented.update(customer_of, customer_of.values())
            before = store.read_customer_segments(connection, retailer_id)
            facts = read_facts(store.read_products_changed(connection, retailer_id))
            return (
                customer_of,
                before,
                facts,
                *navigation.with_orders(read_ordered_lines(connection, retailer_id), consented),
            )

        customer_of, before, facts, lines, without_consent = database.read(read)
        with show_progress("Computing") as progress:
            computed = compute_customers(lines, customer_of, before, facts, now_ms, progress)
        entries = defaultdict(list)
        for entry in computed.entries:
            entries[entry.pseudonym].append(entry)
        pseudonyms = sorted(computed.profiles)
        with show_progress("Keeping") as progress:
            for first in range(0, len(pseudonyms), PROFILE_CHUNK_COUNT):
                some = pseudonyms[first : first + PROFILE_CHUNK_COUNT]

                def keep(connection: Connection, some: list[bytes] = some) -> bool:
                    profiles = {one: computed.profiles[one] for one in some}
                    entered = [entry for one in some for entry in entries.get(one, ())]
                    return store.put_computed_profiles(connection, retailer_id, profiles, entered, erasure_seq)

                if not database.transact(keep):
                    return None
                progress(first + len(some), len(pseudonyms))
        database.transact(lambda connection: store.finish_computation(connection, retailer_id, computed.scale, now_ms))
    persons = [one.segments for one in computed.profiles.values() if one.segments]
    return ComputedCustomers(
        customer_count=len(persons),
        entry_count=sum(entry.from_segment_id == FROM_ANYWHERE for entry in computed.entries),
        without_consent=without_consent,
        segments=dict(Counter(f"{kind}:{name}" for one in persons for kind, name in one.items())),
    )


def train_affinity(
    settings: AllSettings,
    show_progress: ShowProgress,
    tuned: Mapping[int, float] | None = None,
    *,
    is_forced: bool = False,
) -> "Trained":
    """Build the model from the navigation log, save it, and put it in use unless it is worse: see `rank.train`."""
    from affinity.rank import train
    from affinity.store import read_segments_of

    products = _read_products(settings)
    with opened(settings.server) as (database, deployment):
        segments_of = database.read(lambda connection: read_segments_of(connection, deployment.retailer_id))
    with show_progress("Training") as progress:
        return train(
            _navigation_log(settings),
            _model_folder(settings),
            _now_ms(),
            progress,
            tuned,
            products=products,
            segments_of=segments_of,
            is_forced=is_forced,
        )


def _read_products(settings: AllSettings) -> list[Product]:
    from affinity.store import read_products_changed

    with opened(settings.server) as (database, deployment):
        return database.read(lambda connection: read_products_changed(connection, deployment.retailer_id, -1))


def evaluate_affinity(settings: AllSettings, top_count: int, show_progress: ShowProgress) -> "Evaluation":
    """Return how well a model of the earlier sessions foresees the later ones, beside simpler rankings."""
    from affinity.rank import evaluate

    with show_progress("Evaluating") as progress:
        return evaluate(_navigation_log(settings), _now_ms(), progress, top_count)


def report_clicks(settings: AllSettings) -> Any:
    """Return how predicted clicks hold on each placement, and what clicks say of its slots; see `ClickReport`.

    Raises:
        NothingRecorded: no click or showing was counted yet.
    """
    from affinity.clicks import ClickCounters, read_memory
    from auction.store import list_placements
    from bidder_api.click_report import report_counters

    path = settings.server.data_dir / CLICKS_FILE
    try:
        memory = read_memory(path)
        counters = ClickCounters(settings.affinity)
        if memory is not None:
            counters.recall(memory)
    except (msgspec.MsgspecError, ValueError) as damage:
        raise NothingRecorded(f"{path}: the counters of clicks cannot be read: {damage}") from damage
    if memory is None or not memory.placements:
        raise NothingRecorded(f"{path}: no showing or click was counted yet; a server writes them once a minute")
    with opened(settings.server) as (database, deployment):
        placements = database.read(
            lambda connection: list_placements(connection, deployment.retailer_id, None, PLACEMENT_COUNT_MAX)
        )
    return report_counters(counters, placements, _now_ms())


def rank_affinity(settings: AllSettings) -> Callable[[Any], Any]:
    """Return what answers a line of `endcap affinity rank`.

    Raises:
        TrainingRefused: there is no model yet.
    """
    from affinity.errors import TrainingRefused
    from affinity.model import active_model, load_model
    from affinity.rank import CatalogueRanker
    from affinity.sessions import TRAIL_LENGTH_MAX
    from affinity.shared_store import NO_PROCESS, SharedStore, open_client
    from affinity.shared_visitors import SharedReader
    from affinity.store import read_links
    from affinity.visitors import VisitorStore
    from bidder_api.serving import ProductBook

    path = active_model(_model_folder(settings))
    if path is None:
        raise TrainingRefused("there is no model yet: run endcap affinity train")
    products = _read_products(settings)
    with opened(settings.server) as (database, deployment):
        links = database.read(lambda connection: read_links(connection, deployment.retailer_id))

    def visitors() -> VisitorStore | SharedReader:
        book = ProductBook()
        book.apply(products, 0)
        pseudonymizer = pseudonymizer_of(master_secret(settings.server))
        if settings.server.shares_visitors:
            copies = VisitorStore(settings.affinity, pseudonymizer, None, book.facts)
            copies.set_links(links)
            client = open_client(settings.server.visitor_store)
            return SharedReader(copies, SharedStore(client, pseudonymizer, settings.affinity, NO_PROCESS))
        store = VisitorStore(
            msgspec.structs.replace(settings.affinity, visitor_event_count_max=TRAIL_LENGTH_MAX),
            pseudonymizer,
            _navigation_log(settings),
            book.facts,
        )
        store.load(_now_ms())
        return store

    return CatalogueRanker(load_model(path), products, _now_ms(), visitors).rank


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


class Inspection(Struct, frozen=True):
    """What a look at a month's traffic found that was not found before: events, and micros charged, by rule."""

    rules: dict[str, tuple[int, int]]


def inspect_ledger(settings: AllSettings, period: str, *, is_dry: bool) -> Inspection:
    """Find a month's invalid traffic and undo what was charged for it, unless it is to be told only.

    Raises:
        LedgerRefused: the month is sealed.
    """
    from ledger import store
    from ledger.command import ReverseInvalid
    from ledger.errors import ConflictRefused
    from ledger.inspection import find_new

    with _writer_of(settings) as (writer, database, retailer_id, ledger_settings):

        def look(connection: Connection) -> tuple[Any, dict[str, tuple[int, int]]]:
            if period <= store.last_sealed(connection, retailer_id):
                raise ConflictRefused("period_sealed", f"{period} is sealed: give back by credit notes")
            portions = find_new(connection, retailer_id, period, ledger_settings, _now_ms())
            rules: dict[str, tuple[int, int]] = {}
            for some in portions:
                rule_of = {one.event_seq: one.rule for one in some}
                for row in store.read_charges(connection, retailer_id, rule_of):
                    count, micros = rules.get(rule_of[row.seq], (0, 0))
                    rules[rule_of[row.seq]] = count + 1, micros + row.amount_micros
            return portions, rules

        portions, rules = database.read(look)
        for some in () if is_dry else portions:
            writer.command(ReverseInvalid(some))
    return Inspection(dict(sorted(rules.items())))


def close_ledger(settings: AllSettings, period: str, stage: str) -> Any:
    """Close a month softly or seal it, and undo what was invalid traffic in it in between; see `ClosedPeriod`."""
    from ledger.command import ClosePeriod, ReverseInvalid
    from ledger.inspection import find_before_seal

    with _writer_of(settings) as (writer, database, retailer_id, ledger_settings):

        def undo_invalid() -> None:
            for some in database.read(
                lambda connection: find_before_seal(connection, retailer_id, period, ledger_settings, _now_ms())
            ):
                writer.command(ReverseInvalid(some))

        if stage == "sealed":
            undo_invalid()
        closed, _ = writer.command(ClosePeriod(period, stage))  # type: ignore[arg-type]
        if stage == "soft":
            undo_invalid()
    return closed


@contextmanager
def _writer_of(settings: AllSettings) -> Iterator[tuple[Any, Database, str, Any]]:
    """Open the books to write in them, beside a server or without one: the chain's head lets in one at a time."""
    from ledger.beacon import BeaconKeys
    from ledger.writer import LedgerWriter

    with opened(settings.server) as (database, deployment):
        of_ledger = for_deployment(settings, deployment.currency, deployment.time_zone).ledger
        keys = BeaconKeys.parse(beacon_keys(settings.server))
        writer = LedgerWriter(database.transact, database.read, deployment.retailer_id, keys, of_ledger, _now_ms)
        yield writer, database, deployment.retailer_id, of_ledger


def export_ledger(
    settings: AllSettings, kind: str, views: Sequence[str], out: BinaryIO, show_progress: ShowProgress
) -> None:
    """Write the journal, or views of the books, in one of the formats of `endcap ledger export`.

    Args:
        views: of the books; only XLSX takes several, hledger and FEC none.
        out: bytes go there as they are made.
    """
    from ledger import export

    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)

    def write(connection: Connection) -> int:
        if kind == "csv":
            return export.export_csv(connection, deployment.retailer_id, text, views[0], progress)
        if kind == "parquet":
            return export.export_parquet(
                connection, deployment.retailer_id, out, deployment.currency, views[0], progress
            )
        if kind == "xlsx":
            return export.export_xlsx(connection, deployment.retailer_id, out, views, progress)
        if kind == "fec":
            return export.export_fec(connection, deployment.retailer_id, deployment.time_zone, text, progress)
        return export.export_hledger(connection, deployment.retailer_id, text, progress)

    with opened(settings.server) as (database, deployment), show_progress("Exporting") as progress:
        database.read(write)
    text.detach()


def make_checkpoint(settings: AllSettings) -> str:
    """Return a signed statement of where the chain stands."""
    from ledger import checkpoint

    seed = derive_secret(master_secret(settings.server), "checkpoints")
    with opened(settings.server) as (database, deployment):
        made = database.read(
            lambda connection: checkpoint.make_checkpoint(connection, deployment.retailer_id, seed, _now_ms())
        )
    return msgspec.json.encode(made).decode()


def report_sales(settings: AllSettings, from_ms: int, to_ms: int, model: str) -> Any:
    """Return which sales are credited to which campaigns (see `SalesReport`)."""
    from bidder_api.sales_facts import sales_facts_of
    from ledger import sales

    chosen = sales.model_named(model)
    with opened(settings.server) as (database, deployment):
        facts_of = sales_facts_of(deployment.retailer_id)
        return database.read(
            lambda connection: sales.report_sales(
                connection, deployment.retailer_id, deployment.currency, from_ms, to_ms, chosen, facts_of, _now_ms()
            )
        )


def make_charge_receipt(settings: AllSettings, event_id: str, checkpoint: Path | None) -> str:
    """Return the receipt of a charge as JSON, up to a checkpoint exported before or else one of now."""
    from ledger import charge_receipt
    from ledger.checkpoint import read_checkpoint

    text = make_checkpoint(settings).encode() if checkpoint is None else checkpoint.read_bytes()
    kept = read_checkpoint(text, None)
    with opened(settings.server) as (database, deployment):
        made = database.read(
            lambda connection: charge_receipt.make_charge_receipt(connection, deployment.retailer_id, event_id, kept)
        )
    return msgspec.json.encode(made).decode()


def make_commission_receipt(settings: AllSettings, order_id: str, line: int, checkpoint: Path | None) -> str:
    """Return the receipt of the commission on a line of an order as JSON, up to a checkpoint or else one of now."""
    from ledger import commission_receipt
    from ledger.checkpoint import read_checkpoint

    text = make_checkpoint(settings).encode() if checkpoint is None else checkpoint.read_bytes()
    kept = read_checkpoint(text, None)
    with opened(settings.server) as (database, deployment):
        made = database.read(
            lambda connection: commission_receipt.make_commission_receipt(
                connection, deployment.retailer_id, order_id, line, kept
            )
        )
    return msgspec.json.encode(made).decode()


def agree_commission(settings: AllSettings, draft: Any) -> Any:
    """Agree on commission (a `CommissionDraft`); return the agreement as it is kept."""
    from ledger.command import AgreeCommission
    from ledger.commissioning import agree

    command = AgreeCommission(**msgspec.structs.asdict(draft))
    with opened(settings.server) as (database, deployment):
        done = database.transact(lambda connection: agree(connection, deployment.retailer_id, command, _now_ms()))
    return done.agreement


def end_commission(settings: AllSettings, agreement_id: str, ends_at: datetime) -> Any:
    """Say when an agreement on commission ends; return it."""
    from ledger.command import EndCommission
    from ledger.commissioning import end

    command = EndCommission(agreement_id, ends_at)
    with opened(settings.server) as (database, deployment):
        done = database.transact(lambda connection: end(connection, deployment.retailer_id, command, _now_ms()))
    return done.agreement


def list_commission_agreements(settings: AllSettings) -> list[Any]:
    """Return every agreement on commission."""
    from ledger.commissioning import list_agreements

    with opened(settings.server) as (database, deployment):
        found: list[Any] = database.read(lambda connection: list_agreements(connection, deployment.retailer_id, None))
    return found


def post_commissions(settings: AllSettings, since_ms: int | None, show_progress: ShowProgress) -> Any:
    """Post the commission that is due (see `CommissionsPosted`), also beside a running server."""
    from bidder_api.sales_facts import sales_facts_of
    from ledger.calendar import Calendar
    from ledger.command import CommissionsPosted
    from ledger.commissioning import LOOK_BACK_MS, ORDERS_PER_POST_MAX, find_due, post_due
    from ledger.sales import model_named

    now_ms, model = _now_ms(), model_named(settings.ledger.commission_model)
    done = CommissionsPosted(0, 0, 0, 0)
    with opened(settings.server) as (database, deployment), show_progress("Posting commission") as progress:
        retailer_id, calendar = deployment.retailer_id, Calendar(deployment.time_zone)
        since = now_ms - LOOK_BACK_MS if since_ms is None else since_ms
        due = database.read(
            lambda connection: find_due(connection, retailer_id, model, sales_facts_of(retailer_id), now_ms, since)
        )
        for first in range(0, len(due), ORDERS_PER_POST_MAX):
            some = due[first : first + ORDERS_PER_POST_MAX]

            def post(connection: Connection, some: list[Any] = some) -> CommissionsPosted:
                posted, _ = post_due(connection, retailer_id, some, model.name, deployment.currency, calendar, now_ms)
                return posted

            done = done.plus(database.transact(post))
            progress(first + len(some), len(due))
    return done


def check_receipt(receipt: Path, checkpoint: Path, public_key_hex: str | None) -> list[str]:
    """Return in sentences what a receipt, of a charge or of commission, proves; needs no database."""
    try:
        is_commission = "steps" in msgspec.json.decode(receipt.read_bytes(), type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        is_commission = False
    check = check_commission_receipt if is_commission else check_charge_receipt
    return check(receipt, checkpoint, public_key_hex)


def check_commission_receipt(receipt: Path, checkpoint: Path, public_key_hex: str | None) -> list[str]:
    """Return in sentences what a receipt of commission proves."""
    from ledger import commission_receipt
    from ledger.checkpoint import read_checkpoint

    kept = read_checkpoint(checkpoint.read_bytes(), public_key_hex)
    proven = commission_receipt.check_commission_receipt(receipt.read_bytes(), kept)
    terms, first = proven.agreement, proven.steps[0]
    ordered_at, signed_at = (datetime.fromtimestamp(one / 1000, UTC) for one in (first.occurred_at_ms, kept.made_at_ms))
    bounds = [
        f", {word} {_amount(one)}" for word, one in (("least", terms.min_micros), ("most", terms.max_micros)) if one
    ]
    return [
        f"Order {first.order_id} of {ordered_at:%Y-%m-%d %H:%M:%S} UTC, line {first.line}: {first.quantity} pieces, "
        f"{_amount(first.sales_micros)} in all, credited to campaign {first.campaign_id} by the model {first.model} "
        f"({first.basis}).",
        f"Agreement {terms.agreement_id} with {terms.advertiser_id}: {terms.rate_bps} basis points{''.join(bounds)}.",
        *(
            f"  {step.period}  {'-' if step.amount_micros < 0 else '+'}{_amount(abs(step.amount_micros))}  "
            f"{'commission' if step.step == 0 else f'went back, {step.quantity} pieces kept'}"
            for step in proven.steps
        ),
        f"These are in the {kept.batch} batches that were signed at {signed_at:%Y-%m-%d %H:%M:%S} UTC by the key "
        f"{kept.public_key_hex}.",
    ]


def check_charge_receipt(receipt: Path, checkpoint: Path, public_key_hex: str | None) -> list[str]:
    """Return in sentences what a receipt proves; needs no database."""
    from ledger import charge_receipt
    from ledger.checkpoint import read_checkpoint

    kept = read_checkpoint(checkpoint.read_bytes(), public_key_hex)
    proven = charge_receipt.check_charge_receipt(receipt.read_bytes(), kept)
    why = "" if proven.code is None else f" ({proven.code})"
    whose = proven.advertiser_id or "nobody"
    signed_at = datetime.fromtimestamp(kept.made_at_ms / 1000, UTC)
    return [
        f"{proven.type} {proven.event_id} of {proven.occurred_at:%Y-%m-%d %H:%M:%S} UTC is {proven.status}{why}.",
        f"{whose} was charged {_amount(proven.amount_micros)} {proven.currency} for product {proven.product_id} in "
        f"{proven.auction_id}, campaign {proven.campaign_id}, bid {proven.bid_id}.",
        *(f"  {account}  {'-' if micros < 0 else '+'}{_amount(abs(micros))}" for account, micros in proven.postings),
        f"It is event {proven.seq}, in batch {proven.batch} of the {kept.batch} that were signed at "
        f"{signed_at:%Y-%m-%d %H:%M:%S} UTC by the key {kept.public_key_hex}.",
    ]


def _amount(micros: int) -> str:
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


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
