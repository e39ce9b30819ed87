"""The shipped data's way into a demo: dates moved to the present, through the importers users have."""

import gzip
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console
from sqlalchemy.engine import Connection

from affinity.catalog import Product
from affinity.feed import read_feed
from affinity.kernel import (
    AGE_DECAY,
    BACKWARD,
    DISTANCE_DECAY,
    HISTORY,
    NEIGHBOUR_COUNT,
    QUERY_DECAY,
    RARITY_POWER,
    SESSIONS_PER_ITEM,
)
from affinity.store import list_products, rename_advertiser
from bidder_api.database import Database
from bidder_api.demonstration.state import DemoRefusedError, read_state, showing, write_state
from bidder_api.settings import AllSettings
from bidder_api.store import Deployment
from bidder_api.tasks import import_file, train_affinity

DATA = Path(__file__).parents[1] / "demo_data"
FILES = {"catalog": "catalogue.tsv.gz", "profiles": "profiles.jsonl.gz", "navigation": "navigation.jsonl.gz"}
# What `endcap affinity train` finds on this data in half a minute; given to it, the demo starts in seconds.
TUNED = {
    SESSIONS_PER_ITEM: 1_000,
    NEIGHBOUR_COUNT: 300,
    QUERY_DECAY: 4.0,
    DISTANCE_DECAY: 2.0,
    BACKWARD: 0.25,
    AGE_DECAY: 1.0,
    RARITY_POWER: 0.4,
    HISTORY: 0.3,
}
LAST_DAY_OF_DATA = date(2018, 1, 1)


def load(settings: AllSettings, database: Database, deployment: Deployment, today: date, console: Console) -> None:
    """Import the shipped files with their dates moved to the present, and name the brands.

    Raises:
        DemoRefusedError: a line of the shipped files was refused.
    """
    state = read_state(settings.server.data_dir)
    if not state.is_loaded:
        folder = settings.server.data_dir / "import"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shift = whole_weeks_to(today)
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


def train(settings: AllSettings, console: Console) -> None:
    """Train the model on what was imported."""
    state = read_state(settings.server.data_dir)
    if not state.is_trained:
        train_affinity(settings, lambda title: showing(console, title), TUNED)
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


def _every_product(connection: Connection, retailer_id: str) -> Iterator[Product]:
    after: str | None = None
    while page := list_products(connection, retailer_id, after, 1_000):
        yield from page
        after = page[-1].product_id


def read_end_caps() -> list[tuple[str, str]]:
    """Return (aisle, product id) of what stood on physical end caps."""
    lines = (DATA / "end_caps.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [(aisle, product_id) for aisle, product_id, _ in (line.split("\t") for line in lines)]


def read_shipped_products() -> list[Product]:
    """Return the shipped catalogue, its dates as they are in the data."""
    return [line for line in read_feed(DATA / FILES["catalog"]) if isinstance(line, Product)]
