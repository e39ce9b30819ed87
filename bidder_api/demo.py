"""`endcap demo`: a grocer's shop with real products on the embedded database, everything on.

Data go in through the importers users have; placements, rules, money, campaigns and bids over the HTTP API, as a
merchant, finance and brands would send them. A second start finds it all there.
"""

import gzip
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy.engine import Connection

from affinity.catalog import Product
from affinity.store import list_products, rename_advertiser
from bidder_api import demo_market, processes
from bidder_api.access import Role, derive_secret
from bidder_api.database import Database
from bidder_api.demo_client import ApiClient
from bidder_api.demo_shoppers import Takings, send_shoppers
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
    campaign_ids: dict[str, str] = {}
    offer_count: dict[str, int] = {}
    is_set_up: bool = False
    run_count: int = 0
