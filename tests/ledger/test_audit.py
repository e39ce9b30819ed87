"""The views are a contract: these columns, the same values on both databases."""

import pytest

from bidder_api.database import Database
from ledger.audit import VIEWS, read_view
from ledger.command import Reverse
from tests.ledger.world import World


def write_some(world: World) -> World:
    world.fund("adv-1", 1_000_003)
    world.limit("cmp-1", "adv-1", 500_009, 900_001)
    world.limit("cmp-idle", "adv-1", 5, 7)
    world.clock.pass_ms(7)  # so that milliseconds must be padded
    world.click(world.fill(123_457), event_id="e1")
    world.record(world.event(world.fill(9), "impression", event_id="e2"))
    world.writer.command(Reverse("txn_3", "a, b"))
    return world


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_exactly_the_columns_it_promises(world: World, name: str) -> None:
    with world.database.engine.connect() as connection:
        assert tuple(connection.exec_driver_sql(f"SELECT * FROM {name}").keys()) == VIEWS[name]


def test_what_the_views_say(world: World) -> None:
    write_some(world)
    event = world.rows("SELECT * FROM audit_event ORDER BY event_id")[0]
    token_id = event[1]
    assert isinstance(token_id, str)
    assert event == (
        "e1", token_id, "click", "adv-1", "cmp-1", "accepted", 123_457, "EUR",
        "2026-11-24T12:00:00.007Z", "2026-11-24T12:00:00.007Z", "txn_3",
    )  # fmt: skip
    assert world.rows("SELECT * FROM audit_entry ORDER BY seq")[3:5] == [
        (4, "txn_3", 2, "revenue:media", -123_457, "EUR", "2026-11", "charge:click", None, "2026-11-24T12:00:00.007Z"),
        (
            5,
            "txn_5",
            1,
            "wallet:adv-1",
            -123_457,
            "EUR",
            "2026-11",
            "a, b",
            "txn_3",
            "2026-11-24T12:00:00.007Z",
        ),
    ]
    assert world.rows("SELECT * FROM audit_balance ORDER BY account") == [
        ("cash", "EUR", 1_000_003),
        ("revenue:media", "EUR", 0),
        ("wallet:adv-1", "EUR", -1_000_003),
    ]
    assert world.rows("SELECT * FROM audit_budget ORDER BY campaign_id, scope") == [
        ("cmp-1", "daily", "2026-11-24", 500_009, 123_457),
        ("cmp-1", "total", None, 900_001, 123_457),
        ("cmp-idle", "total", None, 7, 0),
    ]
    assert world.rows("SELECT batch, kind, count, first_seq, last_seq FROM audit_chain ORDER BY batch") == [
        (1, "entry", 2, 1, 2),
        (2, "entry", 2, 3, 4),
        (3, "event", 1, 1, 1),
        (4, "event", 1, 2, 2),
        (5, "entry", 2, 5, 6),
    ]


@pytest.mark.postgres
def test_both_databases_show_the_same_rows(sqlite_database: Database, postgres_database: Database) -> None:
    one, other = write_some(World(sqlite_database)), write_some(World(postgres_database))
    chance = {"audit_event": {"token_id"}, "audit_chain": {"root_hex", "prev_hex"}}  # differ with every token
    for name, columns in VIEWS.items():
        kept = [n for n, column in enumerate(columns) if column not in chance.get(name, ())]
        assert rows_of(one, name, kept) == rows_of(other, name, kept)


def rows_of(world: World, name: str, kept: list[int]) -> list[list[object]]:
    return world.database.read(lambda c: [[row[n] for n in kept] for row in read_view(c, name)])
