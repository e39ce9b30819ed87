"""Whatever is done to the books behind the ledger's back is found, and the first bad row is named."""

import random
from collections.abc import Callable, Iterator

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bidder_api.database import Database
from ledger.chain import append_batch, encode_row, hash_leaf, leaf_check, link, merkle_root
from ledger.checkpoint import Checkpoint, make_checkpoint, read_checkpoint
from ledger.command import Reverse
from ledger.errors import RequestRefused
from ledger.store import ENTRY_COLUMNS, EVENT_COLUMNS
from ledger.verify import Verdict, verify
from tests.ledger.world import NOON_MS, RETAILER, World

SEED = bytes(range(32))
TAMPERING_COUNT = 200


@pytest.fixture
def books(sqlite_database: Database) -> World:
    """Books with a bit of everything, and no triggers left to guard them."""
    world = World(sqlite_database)
    fill_books(world)
    return world


def fill_books(world: World) -> None:
    world.fund("adv-2", 1_000_003, "promotional-credit")
    world.fund("adv-1", 90_000_049)
    world.click(world.fill(123_457))
    world.credit("adv-2", 5_000_011)
    world.limit("cmp-2", "adv-2", 3_000_017, None)
    for _ in range(12):
        who = world.chance.choice("12")
        token = world.fill(world.chance.randint(1, 999_983), advertiser_id=f"adv-{who}", campaign_id=f"cmp-{who}")
        world.record(*(world.event(token, kind) for kind in ("impression", "view", "click")))
    world.writer.command(Reverse("txn_5", "found to be a robot"))


def check(connection: Connection, checkpoint: Checkpoint | None = None) -> Verdict:
    return verify(connection, RETAILER, {}, checkpoint)


def drop_guards(connection: Connection) -> None:
    for (name,) in connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
        connection.execute(sa.text(f"DROP TRIGGER {name}"))


@pytest.fixture
def tamper(books: World) -> Iterator[Callable[[Callable[[Connection], object]], Verdict]]:
    """Do something to the books, say what verification finds, and undo it."""

    def do(change: Callable[[Connection], object]) -> Verdict:
        with books.database.engine.connect() as connection:
            drop_guards(connection)
            change(connection)
            verdict = check(connection)
            connection.rollback()
        return verdict

    yield do
    books.must_be_sound()


def statement(sql: str) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(sa.text(sql))


def test_untouched_books_are_good(books: World) -> None:
    verdict = books.verify()
    assert verdict.is_good
    assert verdict.event_count == 37
    assert verdict.entry_count == books.one("SELECT COUNT(*) FROM entries")


TamperingTools = Callable[[Callable[[Connection], object]], Verdict]


def test_every_random_tampering_is_found_and_the_first_bad_row_is_named(books: World, tamper: TamperingTools) -> None:
    chance = random.Random(7)
    counts = {table: int(str(books.one(f"SELECT COUNT(*) FROM {table}"))) for table in ("events", "entries")}
    missed = []
    for _ in range(TAMPERING_COUNT):
        table = chance.choice(["events", "entries"])
        seq, other = chance.sample(range(1, counts[table] + 1), 2)
        kind = chance.choice(["edit", "delete", "insert", "swap"])
        named = seq
        if kind == "edit":
            column = chance.choice(EVENT_COLUMNS[1:] if table == "events" else ENTRY_COLUMNS[1:])
            value = "COALESCE({0} || 'x', 'x')" if chance.random() < 0.5 else "COALESCE({0} + 1, 1)"
            sql = [f"UPDATE {table} SET {column} = {value.format(column)} WHERE seq = {seq}"]
        elif kind == "delete":
            sql = [f"DELETE FROM {table} WHERE seq = {seq}"]
        elif kind == "insert":
            named = counts[table] + 1
            fresh = {"seq": named, "token_id": "'new'", "event_id": "'new'", "transaction_id": f"'txn_{named}'"}
            columns = ["retailer_id", *(EVENT_COLUMNS if table == "events" else ENTRY_COLUMNS), "leaf_check"]
            picked = ", ".join(str(fresh.get(column, column)) for column in columns)
            sql = [f"INSERT INTO {table} ({', '.join(columns)}) SELECT {picked} FROM {table} WHERE seq = {seq}"]
        else:
            named = min(seq, other)
            sql = [
                f"UPDATE {table} SET seq = -1 WHERE seq = {seq}",
                f"UPDATE {table} SET seq = {seq} WHERE seq = {other}",
                f"UPDATE {table} SET seq = {other} WHERE seq = -1",
            ]

        def change(connection: Connection, statements: list[str] = sql) -> None:
            for one in statements:
                connection.execute(sa.text(one))

        bad = tamper(change).bad
        if bad is None or (bad.table, bad.key) != (table, str(named)):
            missed.append((kind, table, named, sql, bad))
    print(f"tampered {TAMPERING_COUNT}, found and named {TAMPERING_COUNT - len(missed)}")
    assert not missed


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE chain SET root_hex = prev_hex WHERE batch = 3", "chain"),
        ("UPDATE chain SET kind = 'change' WHERE batch = 3", "chain"),
        ("DELETE FROM chain WHERE batch = 4", "chain"),
        ("DELETE FROM chain WHERE batch = (SELECT MAX(batch) FROM chain)", "chain_heads"),
        ("UPDATE chain_heads SET hash_hex = '00'", "chain_heads"),
        ("UPDATE balances SET credit_micros = credit_micros - 1 WHERE account = 'revenue:media'", "balances"),
        ("DELETE FROM balances WHERE account = 'cash'", "balances"),
        ("UPDATE funds SET wallet_micros = wallet_micros + 1 WHERE advertiser_id = 'adv-1'", "funds"),
        ("UPDATE funds SET owed_micros = 0 WHERE advertiser_id = 'adv-2'", "funds"),
        ("UPDATE campaign_spend SET spent_micros = spent_micros - 1 WHERE campaign_id = 'cmp-1'", "campaign_spend"),
        ("DELETE FROM reversals", "reversals"),
    ],
)
def test_figures_and_links_that_do_not_fit_are_found(tamper: TamperingTools, sql: str, table: str) -> None:
    bad = tamper(statement(sql)).bad
    assert bad is not None
    assert bad.table == table


def test_a_row_forged_with_its_leaf_check_is_still_found(books: World, tamper: TamperingTools) -> None:
    def forge(connection: Connection) -> None:
        connection.execute(
            sa.text("UPDATE entries SET amount_micros = amount_micros * 2 WHERE transaction_id = 'txn_5'")
        )
        for row in connection.execute(sa.text("SELECT * FROM entries WHERE transaction_id = 'txn_5'")).all():
            made = leaf_check(hash_leaf("entry", encode_row(tuple(row)[1:-1])))
            connection.execute(sa.text(f"UPDATE entries SET leaf_check = {made} WHERE seq = {row.seq}"))

    bad = tamper(forge).bad
    assert bad is not None
    assert bad.table == "entries"


def cut_tail(connection: Connection) -> None:
    """Take the last commit, a reversal, out whole: rows, link and head, and put every figure right."""
    drop_guards(connection)

    def run(sql: str) -> sa.CursorResult[tuple[object, ...]]:
        return connection.execute(sa.text(sql))

    run("DELETE FROM chain WHERE batch = (SELECT MAX(batch) FROM chain)")
    for account, period, micros in run("SELECT account, period, amount_micros FROM entries WHERE reverses > ''").all():
        side = "debit_micros" if int(str(micros)) > 0 else "credit_micros"
        moved = abs(int(str(micros)))
        run(f"UPDATE balances SET {side} = {side} - {moved} WHERE account = '{account}' AND period = '{period}'")
        family, _, who = str(account).partition(":")
        if family == "wallet":
            run(f"UPDATE funds SET wallet_micros = wallet_micros - {moved} WHERE advertiser_id = '{who}'")
    run("DELETE FROM entries WHERE reverses > ''")
    run("DELETE FROM reversals")
    run(
        "UPDATE chain_heads SET batch = (SELECT MAX(batch) FROM chain), "
        "hash_hex = (SELECT hash_hex FROM chain ORDER BY batch DESC LIMIT 1), "
        "last_seqs = json_object('entry', (SELECT MAX(seq) FROM entries), 'event', (SELECT MAX(seq) FROM events))"
    )


def test_a_cut_tail_is_found_with_a_checkpoint_and_only_with_one(books: World) -> None:
    checkpoint = books.database.read(lambda c: make_checkpoint(c, RETAILER, SEED, NOON_MS))
    with books.database.engine.connect() as connection:
        cut_tail(connection)
        assert check(connection).bad is None
        bad = check(connection, checkpoint).bad
        connection.rollback()
    assert bad is not None
    assert "cut off" in bad.rule


def test_books_written_anew_do_not_fit_an_old_checkpoint(books: World) -> None:
    checkpoint = books.database.read(lambda c: make_checkpoint(c, RETAILER, SEED, NOON_MS))
    other = Checkpoint(3, "ab" * 32, "cd" * 32, {}, NOON_MS, checkpoint.public_key_hex, "")
    with books.database.engine.connect() as connection:
        assert check(connection, checkpoint).is_good
    for wrong in (other, msgspec.structs.replace(checkpoint, batches_root_hex="ef" * 32)):
        with books.database.engine.connect() as connection:
            bad = check(connection, wrong).bad
        assert bad is not None
        assert (bad.table, bad.key) == ("chain", str(wrong.batch))


def test_a_checkpoint_is_taken_from_its_signer_only_and_only_whole(books: World) -> None:
    checkpoint = books.database.read(lambda c: make_checkpoint(c, RETAILER, SEED, NOON_MS))
    text = msgspec.json.encode(checkpoint)
    assert read_checkpoint(text, None) == read_checkpoint(text, checkpoint.public_key_hex) == checkpoint
    changed = msgspec.structs.replace(checkpoint, batch=checkpoint.batch - 1)
    for wrong, key in ((msgspec.json.encode(changed), None), (text, "00" * 32), (b"{}", None), (b"\xff", None)):
        with pytest.raises(RequestRefused) as refused:
            read_checkpoint(wrong, key)
        assert refused.value.code == "checkpoint_invalid"


def test_leaves_of_other_packages_are_read_with_their_reader(world: World) -> None:
    leaves = [b"[1]", b"[2]", b"[3]"]
    world.database.transact(lambda c: append_batch(c, RETAILER, "change", leaves[:2]))
    world.database.transact(lambda c: append_batch(c, RETAILER, "change", leaves[2:]))

    def found(kept: list[bytes]) -> Verdict:
        return world.database.read(lambda c: verify(c, RETAILER, {"change": lambda _c, _r: iter(kept)}))

    assert found(leaves) == Verdict(None, 2, 0, 0, [])
    for kept, key in (([b"[1]", b"[9]", b"[3]"], "1..2"), (leaves[:2], "3"), ([*leaves, b"[4]"], "4")):
        bad = found(kept).bad
        assert bad is not None
        assert (bad.table, bad.key) == ("change", key)


def test_both_databases_verify_and_say_the_same(world: World) -> None:
    fill_books(world)
    assert world.verify().is_good
    first = world.one("SELECT MIN(hash_hex) FROM chain WHERE batch = 1")
    roots = [str(root) for (root,) in world.rows("SELECT root_hex FROM chain WHERE batch = 1")]
    assert first == link(1, "entry", 1, 2, roots[0], "0" * 64).hash_hex
    assert merkle_root([bytes.fromhex(roots[0])]).hex() == roots[0]
