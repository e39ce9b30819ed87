"""The queue answers only what is durable, lets no bad request spoil its neighbours, and comes back by itself."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bidder_api.database import Database, open_database
from ledger.command import AddFunds, FundsAdded
from ledger.errors import ConflictRefused, LedgerBroken, LedgerRefused, LedgerUnavailable, StorageFailed
from ledger.event import EventResult, ReportedEvent
from ledger.pipe import LocalIntake, WriterClient, serve_writer
from ledger.spend import SpendUpdate
from ledger.writer import LedgerWriter
from tests.ledger.world import World, codes

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


class Shown(list[SpendUpdate]):
    """What was told of spend, in order."""

    def __call__(self, update: SpendUpdate) -> None:
        self.append(update)


def never(_failure: StorageFailed) -> None:
    pytest.fail("storage did not fail")


@asynccontextmanager
async def in_process(world: World, shown: Shown | None = None) -> AsyncIterator[LocalIntake]:
    async with LocalIntake(world.writer, world.settings, shown if shown is not None else Shown(), never) as intake:
        yield intake


def run(work: Callable[[], object]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_what_arrives_together_is_one_commit_and_each_gets_its_own_answer(sqlite_world: World) -> None:
    world, shown = sqlite_world, Shown()
    world.fund("adv-1", 10**9)

    async def scenario() -> None:
        async with in_process(world, shown) as intake:
            asked = [[world.event(world.fill(n + 1)) for n in range(3)] for _ in range(20)]
            answers = await asyncio.gather(*(intake.record(events, with_amounts=True) for events in asked))
            for events, results in zip(asked, answers, strict=True):
                assert [(r.event_id, r.amount_micros) for r in results] == [
                    (e.event_id, n) for n, e in enumerate(events, 1)
                ]

    run(scenario)
    assert world.one("SELECT COUNT(*) FROM chain WHERE kind = 'event'") == 1
    assert [update.event_count for update in shown] == [0, 60]
    world.must_be_sound()


def test_a_browser_learns_no_amounts(sqlite_world: World) -> None:
    sqlite_world.fund("adv-1", 10**9)

    async def scenario() -> None:
        async with in_process(sqlite_world) as intake:
            sent = [sqlite_world.event(sqlite_world.fill(7_919))]
            assert codes(await intake.record(sent, with_amounts=False)) == [("accepted", None, None)]
            assert codes(await intake.record(sent, with_amounts=True)) == [("duplicate", None, 7_919)]

    run(scenario)


def test_a_group_is_bounded_and_no_request_is_split(sqlite_world: World) -> None:
    async def scenario() -> None:
        async with in_process(sqlite_world) as intake:
            asked = [[sqlite_world.event(sqlite_world.fill(charge_on=None)) for _ in range(100)] for _ in range(6)]
            await asyncio.gather(*(intake.record(events, with_amounts=False) for events in asked))

    run(scenario)
    assert sqlite_world.rows("SELECT count FROM audit_chain") == [(300,), (300,)]


class FailsOn(LedgerWriter):
    """Breaks whenever a certain event is in the group."""

    bad_id = "bad"

    def record(self, requests: object) -> object:  # type: ignore[override]
        if any(event.event_id == self.bad_id for events in requests for event in events):  # type: ignore[attr-defined]
            raise AssertionError("a bug of ours")
        return super().record(requests)  # type: ignore[arg-type]


def test_a_request_that_breaks_the_writer_breaks_alone(sqlite_world: World) -> None:
    world = sqlite_world
    world.writer.__class__ = FailsOn

    async def scenario() -> None:
        async with in_process(world) as intake:
            asked = [[world.event(world.fill(charge_on=None), event_id=name)] for name in ("a", "bad", "b")]
            answers = await asyncio.gather(
                *(intake.record(events, with_amounts=True) for events in asked), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [list, LedgerBroken, list]

    run(scenario)
    assert world.one("SELECT COUNT(*) FROM events") == 2
    world.must_be_sound()


def test_too_many_waiting_are_refused_before_they_wait(sqlite_world: World) -> None:
    async def scenario() -> None:
        async with in_process(sqlite_world) as intake:
            many = [sqlite_world.event("x")] * (sqlite_world.settings.waiting_event_count_max + 1)
            with pytest.raises(LedgerUnavailable) as refused:
                await intake.record(many, with_amounts=False)
            assert refused.value.code == "too_busy"

    run(scenario)


class Unwell(LedgerWriter):
    """Cannot write while told so."""

    failure: Exception | None = None

    def _commit(self, work: object) -> object:  # type: ignore[override]
        if self.failure is not None:
            raise self.failure
        return super()._commit(work)  # type: ignore[arg-type]


def test_a_full_disk_is_told_waited_out_and_over_by_itself(sqlite_world: World) -> None:
    writer = sqlite_world.writer
    writer.__class__ = Unwell
    assert isinstance(writer, Unwell)

    async def scenario() -> None:
        async with in_process(sqlite_world) as intake:
            writer.failure = LedgerUnavailable("storage_full")
            sent = [sqlite_world.event(sqlite_world.fill(charge_on=None))]
            with pytest.raises(LedgerUnavailable) as refused:
                await intake.record(sent, with_amounts=False)
            assert (refused.value.code, refused.value.retryable) == ("storage_full", True)
            assert intake.unwritable_s() > 0
            writer.failure = None
            async with asyncio.timeout(2):  # nobody sends anything: the writer tries by itself
                while intake.unwritable_s():
                    await asyncio.sleep(0.01)
            assert (await intake.record(sent, with_amounts=False))[0].result == "unbilled"

    run(scenario)


def test_a_listener_that_fails_loses_nobodys_answer(sqlite_world: World) -> None:
    def fail(_update: SpendUpdate) -> None:
        raise RuntimeError("a bug of the listener's")

    async def scenario() -> None:
        async with LocalIntake(sqlite_world.writer, sqlite_world.settings, fail, never) as intake:
            for _ in range(2):
                sent = [sqlite_world.event(sqlite_world.fill(charge_on=None))]
                assert (await intake.record(sent, with_amounts=True))[0].result == "unbilled"

    run(scenario)


def test_failed_storage_fails_everybody_waiting_and_ends_the_writer(sqlite_world: World) -> None:
    writer = sqlite_world.writer
    writer.__class__ = Unwell
    assert isinstance(writer, Unwell)
    ended: list[StorageFailed] = []

    async def scenario() -> None:
        async with LocalIntake(writer, sqlite_world.settings, Shown(), ended.append) as intake:
            writer.failure = StorageFailed("fsync said no")
            asked = [
                intake.record([sqlite_world.event(sqlite_world.fill())] * 300, with_amounts=True) for _ in range(3)
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(answer, LedgerUnavailable) for answer in answers)
            assert len(ended) == 1
            with pytest.raises(LedgerUnavailable):
                await intake.record([], with_amounts=True)

    run(scenario)


# --- a process of its own


def serve(url: str, socket_path: Path, parent_pid: int | None) -> None:
    """What a writer's process runs; `os._exit`, so that nothing of the test's own process is torn down in it."""
    database = open_database(url)
    os._exit(serve_writer(lambda: World(database).writer, World(database).settings, socket_path, parent_pid))


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "w.sock"


class WriterProcess:
    """A writer in a process of its own, to be killed."""

    def __init__(self, url: str, socket_path: Path) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=serve, args=(url, socket_path, os.getpid()))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def end(self, number: int) -> int | None:
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int | None:
        self._process.join(10)
        return self._process.exitcode


@pytest.fixture
def start(sqlite_database: Database, socket_path: Path) -> Iterator[Callable[[], WriterProcess]]:
    url = sqlite_database.engine.url.render_as_string(hide_password=False).replace("+pysqlite", "")
    sqlite_database.close()
    started: list[WriterProcess] = []

    def begin() -> WriterProcess:
        started.append(WriterProcess(url, socket_path))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.end(signal.SIGKILL)


def test_a_writer_of_its_own_answers_tells_spend_and_refuses_in_the_same_words(
    sqlite_world: World, start: Callable[[], WriterProcess], socket_path: Path
) -> None:
    world, shown = sqlite_world, Shown()

    async def scenario() -> None:
        async with WriterClient(socket_path, shown) as client:
            with pytest.raises(LedgerUnavailable):
                await client.record([], with_amounts=True)
            process = start()
            assert await client.wait_connected(10)
            assert client.unwritable_s() == 0
            funds = await client.command(AddFunds("top-up", "adv-1", 10**7, "r1"))
            assert isinstance(funds, FundsAdded)
            assert funds.is_new
            sent = [world.event(world.fill(123_457))]
            assert codes(await client.record(sent, with_amounts=True)) == [("accepted", None, 123_457)]
            assert codes(await client.record(sent, with_amounts=False)) == [("duplicate", None, None)]
            with pytest.raises(LedgerRefused) as refused:
                await client.command(AddFunds("top-up", "adv-1", 5, "r1"))
            assert (refused.value.code, refused.value.status) == ("reference_in_use", ConflictRefused.status)
            assert refused.value.pointer == "/reference"
            assert process.end(signal.SIGTERM) == 0

    run(scenario)
    assert shown[0].is_full
    assert [funds.funds_micros for update in shown for funds in update.funds] == [10**7, 10**7 - 123_457]
    world.must_be_sound()


def test_a_killed_writer_is_noticed_and_its_successor_found(
    sqlite_world: World, start: Callable[[], WriterProcess], socket_path: Path
) -> None:
    async def scenario() -> None:
        async with WriterClient(socket_path, Shown()) as client:
            first = start()
            assert await client.wait_connected(10)
            successor = start()  # waits for the lock
            sent = [sqlite_world.event(sqlite_world.fill(charge_on=None))]
            assert (await client.record(sent, with_amounts=True))[0].result == "unbilled"
            first.end(signal.SIGKILL)
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(LedgerUnavailable):
                        assert (await client.record(sent, with_amounts=True))[0].result == "duplicate"
                        break
                    await asyncio.sleep(0.01)
            assert successor.end(signal.SIGTERM) == 0

    run(scenario)


def test_a_writer_ends_when_its_parent_is_gone(
    sqlite_world: World, start: Callable[[], WriterProcess], socket_path: Path
) -> None:
    url = str(sqlite_world.database.engine.url).replace("+pysqlite", "")
    sqlite_world.database.close()
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = WriterProcess(url, socket_path)
        os.write(writer, str(child.pid).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    orphan = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    give_up_at = time.monotonic() + 10
    while Path(f"/proc/{orphan}").exists() and "Z" not in Path(f"/proc/{orphan}/stat").read_text().split()[2]:
        assert time.monotonic() < give_up_at, "the writer outlived its parent"
        time.sleep(0.02)


def test_sixty_four_clients_never_bill_past_one_budget(world: World) -> None:
    world.fund("adv-1", 10**9)
    world.limit("cmp-1", "adv-1", 5_000_011, 7_000_003)
    prices = [world.chance.randint(1, 99_991) for _ in range(640)]
    asked = [[world.event(world.fill(price))] for price in prices]

    async def scenario() -> list[EventResult]:
        async with in_process(world) as intake:

            async def client(number: int) -> list[EventResult]:
                own: list[EventResult] = []
                for events in asked[number::64]:
                    own += await intake.record(events, with_amounts=True)
                return own

            return [r for own in await asyncio.gather(*(client(n) for n in range(64))) for r in own]

    results = asyncio.run(scenario())
    assert sum(result.amount_micros or 0 for result in results) == 5_000_011
    assert sum(result.code == "partial" for result in results) <= 1
    world.must_be_sound()


def test_two_writers_at_once_never_bill_past_one_budget(world: World) -> None:
    world.fund("adv-1", 3_000_017)
    world.limit("cmp-1", "adv-1", None, 2_999_999)
    groups = [[[world.event(world.fill(world.chance.randint(1, 99_991))) for _ in range(8)]] for _ in range(20)]

    def work(own: list[list[list[ReportedEvent]]]) -> None:
        writer = world.new_writer()
        for group in own:
            writer.record(group)

    threads = [threading.Thread(target=work, args=(groups[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.one("SELECT SUM(amount_micros) FROM audit_event") == 2_999_999
    world.must_be_sound()
