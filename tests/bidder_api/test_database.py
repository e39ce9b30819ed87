"""The embedded database: what is deleted is gone from its files, byte for byte."""

import random
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection

from bidder_api import database as module
from bidder_api.database import Database, TracesLeft

ROW_COUNT = 5_000


def fill(database: Database) -> list[bytes]:
    """Keep rows under the keys of people, in a table and in an index over it; return the people."""
    chance = random.Random(7)
    people = [chance.randbytes(16) for _ in range(500)]

    def insert(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE visits (number INTEGER PRIMARY KEY, visitor BLOB, pad TEXT)"))
        connection.execute(text("CREATE INDEX visits_by_visitor ON visits (visitor, pad)"))
        rows = [
            {"number": number, "visitor": chance.choice(people), "pad": "x" * chance.randrange(100)}
            for number in range(ROW_COUNT)
        ]
        connection.execute(text("INSERT INTO visits VALUES (:number, :visitor, :pad)"), rows)

    database.transact(insert)
    return people


def delete(database: Database, people: list[bytes]) -> None:
    def work(connection: Connection) -> None:
        for one in people:
            connection.execute(text("DELETE FROM visits WHERE visitor = :one"), {"one": one})

    database.transact(work)


def held(folder: Path, people: list[bytes]) -> int:
    raw = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    return sum(one in raw for one in people)


@pytest.mark.parametrize("is_overwritten", [True, False], ids=["overwritten", "deleted by an older version"])
def test_scrubbing_leaves_no_byte_of_what_was_deleted(tmp_path: Path, is_overwritten: bool) -> None:
    database = module.open_database(f"sqlite:///{tmp_path}/endcap.db")
    people = fill(database)
    gone, kept = people[:100], people[100:]
    if not is_overwritten:
        event.listen(database.engine, "begin", lambda c: c.exec_driver_sql("PRAGMA secure_delete=OFF") and None)
    delete(database, gone)
    assert held(tmp_path, gone) == len(gone)
    database.scrub([], ["visits"])
    if is_overwritten:
        assert held(tmp_path, gone) < 10  # SQLite may have left copies of rows it moved
    else:
        assert held(tmp_path, gone) > 50
    database.scrub(gone, ["visits"])
    assert held(tmp_path, gone) == 0
    assert held(tmp_path, kept) == len(kept)
    assert database.read(lambda c: c.execute(text("PRAGMA integrity_check")).scalar()) == "ok"
    database.close()


def test_scrubbing_gives_up_while_a_reader_stays_in_the_way_and_may_be_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = module.open_database(f"sqlite:///{tmp_path}/endcap.db")
    people = fill(database)
    monkeypatch.setattr(module, "SCRUB_WITHIN_S", 0.3)
    with database.engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM visits")).scalar()
        delete(database, people)
        with pytest.raises(TracesLeft):
            database.scrub(people, [])
    database.scrub(people, [])
    assert held(tmp_path, people) == 0
    database.close()
