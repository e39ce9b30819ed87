"""Importers: the good lines are in, the bad ones are named, nothing raw is written."""

import gzip
from pathlib import Path

import msgspec

from affinity import store
from affinity.importer import import_catalog, import_navigation, import_profiles
from affinity.navigation_log import NavigationLog
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.settings import Settings
from affinity.special import SpecialCategories
from affinity.visitors import VisitorStore
from bidder_api.database import Database

R = "shop"
NOW_MS = 1_700_000_000_000
HIDE = Pseudonymizer(b"k" * 32)


def nothing(_done: int, _total: int | None) -> None:
    """Show no progress."""


def test_a_catalogue_is_imported_with_its_advertisers(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "feed.tsv"
    rows = [f"p{row}\t{row}.5 EUR\tb{row % 3}\t{row}" for row in range(1_200)]
    rows[7] = "p7\tfree\tb1\t7"
    path.write_text("id\tprice\tadvertiser_ids\tsize\n" + "\n".join(rows))
    calls: list[tuple[int, int | None]] = []
    done = import_catalog(path, database.transact, R, 1, lambda *call: calls.append(call), "EUR")
    assert done.good_count == 1_199
    assert [number for number, _ in done.bad_lines] == [9]
    assert calls[-1] == (1_200, 1_200)
    assert database.read(lambda c: store.count_products(c, R)) == 1_199
    assert len(database.read(lambda c: store.list_advertisers(c, R))) == 3
    path.write_text("id\tsize\np1\tXL\np2\t7\n")
    again = import_catalog(path, database.transact, R, 1, nothing)
    assert [number for number, _ in again.bad_lines] == [2]
    assert again.good_count == 1


def test_an_import_keeps_since_when_products_can_be_bought(sqlite_database: Database, tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    for now_ms, stock in ((10, 3), (20, 0), (30, 0), (40, 5)):
        path.write_text('{"id":"p1","stock":' + str(stock) + '}\n{"id":"p2"}\n')
        import_catalog(path, sqlite_database.transact, R, now_ms, nothing)
    kept = sqlite_database.read(lambda c: list(store.read_availability(c, R)))
    assert kept == [("p1", 10, True), ("p1", 20, False), ("p1", 40, True), ("p2", 10, True)]


def test_profiles_are_imported_under_pseudonyms(sqlite_database: Database, tmp_path: Path) -> None:
    path = tmp_path / "profiles.jsonl"
    path.write_text(
        '{"visitor_id":"secret-1","segments":["vip"],"attributes":{"age":40}}\n'
        '{"visitor_id":"secret-2","attributes":{"age":"forty"}}\n'
        '{"visitor_id":"secret-3","unknown":1}\n'
        "\n"
        '{"visitor_id":"secret-4","attributes":{"age":41}}\n'
        '{"visitor_id":"secret-5","segments":["Diabétiques"]}\n'
    )
    done = import_profiles(path, sqlite_database.transact, R, 1, nothing, HIDE, SpecialCategories())
    assert (done.good_count, [number for number, _ in done.bad_lines]) == (2, [2, 3, 6])
    assert "special category" in done.bad_lines[-1][1]
    kept = sqlite_database.read(lambda c: store.get_profile(c, R, HIDE.of("secret-1")))
    assert kept is not None
    assert kept.segments == ["vip"]
    sqlite_database.close()
    assert all(b"secret-" not in file.read_bytes() for file in tmp_path.glob("endcap.db*"))


def test_history_of_any_age_is_imported_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl.gz"
    events = [
        {
            "visitor_id": "secret-1",
            "action": "purchase",
            "product_id": f"p{row}",
            "occurred_at": f"20{row}-01-01T00:00:00Z",
        }
        for row in range(11, 21)
    ]
    lines = [msgspec.json.encode(event) for event in events]
    lines[3] = b'{"visitor_id":"secret-1","action":"teleport","occurred_at":"2020-01-01T00:00:00Z"}'
    lines[4] = b'{"visitor_id":"secret-1","action":"view_item","occurred_at":"2099-01-01T00:00:00Z"}'
    lines[5] = b'{"visitor_id":"secret-1","action":"view_item","occurred_at":"1890-01-01T00:00:00Z"}'
    lines[6] = b'{"visitor_id":"secret-1","action":"view_item","occurred_at":"2020-01-01T00:00:00"}'
    lines[7] = b'\xff{"visitor_id"'
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    folder = tmp_path / "navigation"
    done = import_navigation(path, NavigationLog(folder, 10_000), NOW_MS, nothing, HIDE, "x")
    assert (done.good_count, [number for number, _ in done.bad_lines]) == (5, [4, 5, 6, 7, 8])
    assert all(b"secret" not in file.read_bytes() for file in folder.iterdir())
    visitors = VisitorStore(Settings(), HIDE, NavigationLog(folder, 10_000), read_facts([]))
    assert visitors.load(NOW_MS) == 5
    record = visitors.record(HIDE.of("secret-1"))
    assert record is not None
    assert record.purchases.order_count == 5
