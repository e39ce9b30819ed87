"""The demo's keys: one per role, and one of the site's per address of the shop; kept in the data folder, private."""

import os
from pathlib import Path

import msgspec
from sqlalchemy.engine import Connection

from bidder_api.access import Role
from bidder_api.database import Database
from bidder_api.keys import KeyDraft, make_key

KEYS_FILE = "keys.json"
ROLES = (Role.ADMIN, Role.MERCHANT, Role.RETAILER, Role.FINANCE, Role.AUDITOR, Role.CRM)


def ensure_keys(
    data_dir: Path, database: Database, retailer_id: str, hash_key: bytes, port: int, advertiser_id: str, now_ms: int
) -> dict[str, str]:
    """Return the demo's keys by what they are kept under; those that are not there yet are made.

    Args:
        data_dir: where they are kept.
        database: the demo's.
        retailer_id: whose deployment it is.
        hash_key: what secrets of keys are hashed with.
        port: of the shop; the site's keys are bound to its addresses.
        advertiser_id: whom the advertiser's key speaks for.
        now_ms: UTC, milliseconds since 1970.
    """
    keys = read_keys(data_dir)
    wanted = [KeyDraft(role=role, name="demo") for role in ROLES]
    wanted.append(KeyDraft(role=Role.ADVERTISER, name="demo", advertiser_id=advertiser_id))
    wanted += [KeyDraft(role=Role.SITE, name="demo shop", origin=origin) for origin in origins(port)]
    missing = [draft for draft in wanted if _name(draft) not in keys]
    if missing:

        def make(connection: Connection) -> dict[str, str]:
            return {_name(draft): make_key(connection, retailer_id, draft, hash_key, now_ms)[1] for draft in missing}

        keys |= database.transact(make)
        write_private(data_dir / KEYS_FILE, msgspec.json.format(msgspec.json.encode(keys)))
    return {_name(draft): keys[_name(draft)] for draft in wanted}


def read_keys(data_dir: Path) -> dict[str, str]:
    """Return the keys kept in a data folder."""
    try:
        return msgspec.json.decode((data_dir / KEYS_FILE).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}


def site_keys(keys: dict[str, str]) -> dict[str, str]:
    """Return the site's keys by the origin each is bound to."""
    named = (name.split(" ", 1) for name in keys if name.startswith(f"{Role.SITE} "))
    return {origin: keys[f"{role} {origin}"] for role, origin in named}


def origins(port: int) -> list[str]:
    """Return the addresses of the shop on this machine, as browsers name them."""
    return [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]


def write_private(path: Path, content: bytes) -> None:
    """Write a file only its owner can read; it appears whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)


def _name(draft: KeyDraft) -> str:
    return f"{draft.role} {draft.origin}" if draft.origin else str(draft.role)
