"""`endcap demo`: a grocer's shop with real products on the embedded database, everything on.

Data go in through the importers users have; placements, rules, money, campaigns and bids over the HTTP API, as a
merchant, finance and brands would send them. A second start finds it all there.
"""

import gzip
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.engine import Connection

from affinity.catalog import Product
from affinity.store import list_products, rename_advertiser
from bidder_api import demo_market, processes
from bidder_api.access import Role, derive_secret
from bidder_api.database import Database
from bidder_api.demo_client import ApiClient
from bidder_api.demo_setup import (
    describe_balance,
    describe_takings,
    page_categories,
    set_up,
    time_fills,
    wait_for_paid_fills,
)
from bidder_api.demo_shoppers import send_shoppers
from bidder_api.deployment import open_deployment
from bidder_api.keys import KeyDraft, make_key
from bidder_api.settings import AllSettings, master_secret
from bidder_api.store import Deployment
from bidder_api.tasks import import_file, train_affinity

DATA = Path(__file__).parent / "demo_data"
FILES = {"catalog": "catalogue.tsv.gz", "profiles": "profiles.jsonl.gz", "navigation": "navigation.jsonl.gz"}
LAST_DAY_OF_DATA = date(2018, 1, 1)
CURRENCY = "USD"

ROLES = ("admin", "merchant", "retailer", "site", "advertiser", "finance", "auditor", "crm")
KEYS_FILE = "keys.json"
STATE_FILE = "demo.json"

CHECK_FILL_COUNT = 1_000
FILL_BUDGET_MS = 20.0
SHOPPER_PAGE_COUNT = 250
READY_WITHIN_S = 90.0


class DemoRefusedError(Exception):
    """The demo cannot be set up; the message says why."""


class State(Struct, kw_only=True):
    """How far the demo is set up; written after each step, so that a start that was cut short goes on from there."""

    is_loaded: bool = False
    is_trained: bool = False
    is_set_up: bool = False
    run_count: int = 0


def run(settings: AllSettings) -> int:
    """Set the demo up where it is not yet, and serve it until SIGTERM or Ctrl-C; return the process's status."""
    began = time.monotonic()
    settings = demo_settings(settings)
    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]Endcap demo[/], data in", str(settings.server.data_dir))
    database, deployment = open_deployment(settings.server)
    try:
        load(settings, database, deployment, console)
        products = read_products(database, deployment)
        keys = ensure_keys(settings, database, deployment, demo_market.brands(products)[0].advertiser_id)
    finally:
        database.close()
    host = Host(settings, keys, products, console, began)
    host.start()
    status = processes.serve(settings, pages="bidder_api.shop.mount:pages")
    return status or host.status


def demo_settings(settings: AllSettings) -> AllSettings:
    """Return the settings of the demo: always embedded, in dollars, and with an organic click worth something."""
    server = msgspec.structs.replace(settings.server, database_url=None, currency=CURRENCY, time_zone="UTC")
    auction = msgspec.structs.replace(
        settings.auction, organic_click_value_micros=demo_market.ORGANIC_CLICK_VALUE_MICROS
    )
    return msgspec.structs.replace(settings, server=server, auction=auction)


# --- data ----------------------------------------------------------------------------------------------------------


def load(settings: AllSettings, database: Database, deployment: Deployment, console: Console) -> None:
    """Import the shipped files with their dates moved to the present, name the brands, and train the model.

    Raises:
        DemoRefusedError: a line of the shipped files was refused.
    """
    state = read_state(settings.server.data_dir)
    if not state.is_loaded:
        folder = settings.server.data_dir / "import"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shift = whole_weeks_to(datetime.now(UTC).date())
        for kind, name in FILES.items():
            path = folder / name.removesuffix(".gz")
            with showing(console, f"Preparing {name}"):
                move_dates(DATA / name, path, shift)
            outcome = import_file(settings, kind, path, lambda title: showing(console, title))
            if outcome.bad_lines:
                line_number, message = outcome.bad_lines[0]
                raise DemoRefusedError(f"{path}:{line_number}: {message}")
            path.unlink()
        folder.rmdir()
        database.transact(lambda connection: name_brands(connection, deployment.retailer_id))
        state.is_loaded = True
        write_state(settings.server.data_dir, state)
    if not state.is_trained:
        train_affinity(settings, lambda title: showing(console, title))
        state.is_trained = True
        write_state(settings.server.data_dir, state)


def whole_weeks_to(today: date) -> timedelta:
    """Return how far dates are moved: whole weeks, so that a Monday stays one; the data then ends within a week."""
    return timedelta(days=(today - LAST_DAY_OF_DATA).days // 7 * 7)


def move_dates(source: Path, target: Path, shift: timedelta) -> None:
    """Unpack a shipped file with every date in it moved by so many days."""
    first = date(2016, 12, 1)
    moved = {
        (first + timedelta(days=day)).isoformat(): (first + timedelta(days=day) + shift).isoformat()
        for day in range(500)
    }
    mark = '"occurred_at":"'
    with gzip.open(source, "rt", encoding="utf-8", newline="") as lines, target.open("w", encoding="utf-8") as out:
        for line in lines:
            at = line.find(mark)
            if at >= 0:
                at += len(mark)
                out.write(line[:at] + moved[line[at : at + 10]] + line[at + 10 :])
            elif "\t" in line:
                out.write("\t".join(moved.get(field, field) for field in line.split("\t")))
            else:
                out.write(line)


def name_brands(connection: Connection, retailer_id: str) -> None:
    """Give each advertiser the name of its brand, for disclosures."""
    names = {
        one: product.brand for product in _every_product(connection, retailer_id) for one in product.advertiser_ids
    }
    for advertiser_id, name in names.items():
        rename_advertiser(connection, retailer_id, advertiser_id, name)


def read_products(database: Database, deployment: Deployment) -> list[Product]:
    """Return the whole catalogue."""
    return database.read(lambda connection: list(_every_product(connection, deployment.retailer_id)))


def _every_product(connection: Connection, retailer_id: str) -> Iterator[Product]:
    after: str | None = None
    while page := list_products(connection, retailer_id, after, 1_000):
        yield from page
        after = page[-1].product_id


def read_end_caps() -> list[tuple[str, str]]:
    """Return (aisle, product id) of what stood on physical end caps."""
    lines = (DATA / "end_caps.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [(aisle, product_id) for aisle, product_id, _ in (line.split("\t") for line in lines)]


# --- what is kept beside the data ----------------------------------------------------------------------------------


def read_state(data_dir: Path) -> State:
    """Return how far the demo in a folder is set up."""
    try:
        return msgspec.json.decode((data_dir / STATE_FILE).read_bytes(), type=State)
    except FileNotFoundError:
        return State()


def write_state(data_dir: Path, state: State) -> None:
    """Keep how far the demo is set up."""
    write_private(data_dir / STATE_FILE, msgspec.json.encode(state))


def write_private(path: Path, content: bytes) -> None:
    """Write a file only its owner can read; it appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)


def ensure_keys(
    settings: AllSettings, database: Database, deployment: Deployment, advertiser_id: str
) -> dict[str, str]:
    """Return a key per role, and a site's key per origin, from the data folder; those not there yet are made."""
    path = settings.server.data_dir / KEYS_FILE
    keys: dict[str, str] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    wanted = [KeyDraft(role=Role(role), name="demo") for role in ROLES if role not in ("site", "advertiser")]
    wanted.append(KeyDraft(role=Role.ADVERTISER, name="demo", advertiser_id=advertiser_id))
    wanted += [KeyDraft(role=Role.SITE, name="demo shop", origin=origin) for origin in origins(settings.server.port)]
    missing = [draft for draft in wanted if key_name(draft) not in keys]
    if missing:
        hash_key = derive_secret(master_secret(settings.server), "access keys")
        now_ms = time.time_ns() // 1_000_000

        def make(connection: Connection) -> dict[str, str]:
            return {
                key_name(draft): make_key(connection, deployment.retailer_id, draft, hash_key, now_ms)[1]
                for draft in missing
            }

        keys |= database.transact(make)
        write_private(path, msgspec.json.format(msgspec.json.encode(keys)))
    return {key_name(draft): keys[key_name(draft)] for draft in wanted}


def key_name(draft: KeyDraft) -> str:
    """Return what a key is kept under: its role, and for a site the origin it is bound to."""
    return f"{draft.role} {draft.origin}" if draft.origin else str(draft.role)


def origins(port: int) -> list[str]:
    """Return the addresses of the shop on this machine, as browsers name them."""
    return [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]


@contextmanager
def showing(console: Console, title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar while something runs."""
    columns = (TextColumn("  {task.description:<38}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


# --- over the HTTP API ---------------------------------------------------------------------------------------------


class Host(threading.Thread):
    """Sets up over HTTP what a merchant, finance and brands would, once the server is ready, and shows it around.

    Runs beside the server; if it fails, it says so and ends the process.
    """

    def __init__(
        self, settings: AllSettings, keys: dict[str, str], products: list[Product], console: Console, began: float
    ) -> None:
        super().__init__(name="demo host", daemon=True)
        self._settings = settings
        self._keys = keys
        self._products = products
        self._console = console
        self._began = began
        self.status = 0

    def run(self) -> None:
        """Set up, show, check."""
        try:
            with ApiClient(self._settings.server.port, self._keys["admin"]) as admin:
                admin.wait_until_ready(READY_WITHIN_S)
                state = read_state(self._settings.server.data_dir)
                if not state.is_set_up:
                    with showing(self._console, "Placements, rules, money, bids") as progress:
                        set_up(admin, self._products, read_end_caps(), progress)
                    state.is_set_up = True
                wait_for_paid_fills(admin)
                self._show_around()
                state.run_count += 1
                write_state(self._settings.server.data_dir, state)
                self._check(state.run_count)
        except Exception as failure:
            self._console.print(f"[bold red]The demo could not be set up:[/] {failure}", markup=True)
            self.status = 1
            os.kill(os.getpid(), signal.SIGTERM)

    def _show_around(self) -> None:
        port, show = self._settings.server.port, self._console.print
        show(f"\nReady with paid fills after [bold]{time.monotonic() - self._began:.1f} s[/].\n")
        show(f"Shop               http://127.0.0.1:{port}/")
        show(f"API documentation  http://127.0.0.1:{port}/docs")
        show(f"Metrics            http://127.0.0.1:{port}/metrics")
        show(f"\nKeys (kept in {self._settings.server.data_dir / KEYS_FILE}), one per role:\n")
        for name, key in self._keys.items():
            show(f"{name.split()[0]:<11}{key}", markup=False)

    def _check(self, run_count: int) -> None:
        port, show = self._settings.server.port, self._console.print
        visitor_ids = [f"household-{number}" for number in range(1, 2_001)]
        categories = sorted({category for product in self._products for category in page_categories(product)})
        with ApiClient(port, self._keys["retailer"]) as site, ApiClient(port, self._keys["finance"]) as finance:
            with showing(self._console, "Self-check") as progress:
                timing = time_fills(site, visitor_ids, categories, CHECK_FILL_COUNT, progress)
            with showing(self._console, "Simulated shoppers") as progress:
                takings = send_shoppers(site, visitor_ids, categories, SHOPPER_PAGE_COUNT, run_count, progress)
            balance = finance.call("GET", "/v1/ledger/trial-balance")
        verdict = "within" if timing.p99_ms <= FILL_BUDGET_MS else "over"
        show(
            f"\nSelf-check: {CHECK_FILL_COUNT:,} fills over HTTP, p50 {timing.p50_ms:.1f} ms, "
            f"p99 {timing.p99_ms:.1f} ms, {verdict} the budget of {FILL_BUDGET_MS:g} ms; "
            f"paid places on {timing.paid_share:.0%} of the pages."
        )
        show(f"Shoppers: {describe_takings(takings)}")
        show(f"Ledger: {describe_balance(balance)}")
        show("\nBids and clicks here are simulated; the data holds none. Ctrl-C stops the demo.\n")
