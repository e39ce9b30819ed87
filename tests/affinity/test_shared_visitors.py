"""Two processes' visitors over a real Valkey or Redis server: what one does the other knows, whatever comes between."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from affinity.errors import ErasureUnfinished, SharedStoreUnavailable
from affinity.held import describe_state
from affinity.model import neutral_model
from affinity.navigation import Consent, NavigationBatch, NavigationEvent
from affinity.navigation_log import LogLine, NavigationLog
from affinity.pseudonym import Pseudonymizer
from affinity.record import ProductFacts, VisitorRecord
from affinity.settings import Settings
from affinity.shared_store import NO_PROCESS, SharedStore, open_client
from affinity.shared_visitors import FOLDED_FROM, SharedReader, SharedVisitors, process_id_in
from affinity.targets import compile_targets
from affinity.visitors import VisitorStore
from tests.valkey import ValkeyServer

NOW_MS = 1_795_000_000_000
KEY = bytes(range(32))
FACTS = {
    f"p{n}": ProductFacts(f"Shoes > Kind {n % 3}", f"B{n % 4}", 1_000_000 * n, 1_000_000 * n, 0.5) for n in range(40)
}
YES, NO = Consent(personalised=True), Consent(personalised=False)


class Process:
    """What one serving process keeps of visitors; `again` is the same one started anew."""

    def __init__(self, folder: Path, server: ValkeyServer, settings: Settings | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.server, self.settings = folder, server, settings or Settings()
        self.now_ms = NOW_MS
        self.log = NavigationLog(folder / "navigation", 1 << 20)
        self.visitors = VisitorStore(self.settings, Pseudonymizer(KEY), self.log, FACTS, folder / "visitors.records")
        self.unread = 0
        self.store = SharedStore(
            open_client(server.url), self.visitors.pseudonymizer, self.settings, process_id_in(folder)
        )
        self.shared = SharedVisitors(self.visitors, self.store, lambda: self.now_ms, self._count)

    def _count(self) -> None:
        self.unread += 1

    def post(self, visitor_id: str, *, consent: Any = None, seconds_ago: float = 5, **event: Any) -> Any:
        said = {"visitor_id": visitor_id, "action": "view_item", "product_id": "p1"} | event
        said["occurred_at"] = datetime.fromtimestamp(self.now_ms / 1000 - seconds_ago, UTC)
        return self.visitors.post(NavigationBatch([NavigationEvent(**said)], consent), self.now_ms)

    async def record(self, visitor_id: str) -> VisitorRecord | None:
        """Return what a page here knows of a visitor."""
        pseudonym = self.visitors.pseudonym(visitor_id)
        await self.shared.read(pseudonym)
        return self.visitors.record(pseudonym)

    async def products(self, visitor_id: str) -> list[str | None]:
        record = await self.record(visitor_id)
        return [] if record is None else [one.product_id for one in record.events]

    def again(self) -> "Process":
        return Process(self.folder, self.server, self.settings)


Play = Callable[[Process, Process], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path, valkey: ValkeyServer) -> Callable[[Play], None]:
    """Returns what runs a play of two processes over one server."""

    def run(play: Play, settings: Settings | None = None) -> None:
        async def running() -> None:
            one, two = Process(tmp_path / "one", valkey, settings), Process(tmp_path / "two", valkey, settings)
            await one.shared.start()
            await two.shared.start()
            try:
                await play(one, two)
            finally:
                await one.store.close()
                await two.store.close()

        asyncio.run(running())

    return run


def state(record: VisitorRecord | None) -> Any:
    """Return everything a record says but when a process saw the visitor, so that two can be compared."""
    assert record is not None
    described = msgspec.structs.replace(describe_state(record), seen_at=None)
    return record.events, record.purchases, described, record.unrendered, record.session_began_ms


def test_what_one_process_is_told_the_other_knows_with_its_next_page(play: Any) -> None:
    async def told(one: Process, two: Process) -> None:
        one.post("v", product_id="p1")
        one.post("v", product_id="p2", action="purchase", quantity=2)
        one.visitors.note_served(one.visitors.pseudonym("v"), "bid", NOW_MS, "top", 1)
        await one.shared.send()
        theirs = await two.record("v")
        assert theirs is not None
        assert state(theirs) == state(await one.record("v"))
        assert theirs.served_at_ms == {"bid": [NOW_MS]}
        two.post("v", product_id="p3")
        await two.shared.send()
        assert await one.products("v") == ["p1", "p2", "p3"]

    play(told)


def test_two_processes_writing_one_visitor_at_once_lose_no_event(play: Any) -> None:
    async def writing(one: Process, two: Process) -> None:
        chance = random.Random(3)

        async def act(process: Process, name: str) -> None:
            for number in range(300):
                process.post(
                    "v", product_id=f"p{number % 40}", action="purchase", price_micros=7, seconds_ago=number * 90
                )
                process.post("v", event_id=f"{name}{number}", product_id="p5", seconds_ago=number)
                if chance.random() < 0.5:
                    await process.shared.send()
                if chance.random() < 0.2:
                    await process.record("v")

        await asyncio.gather(act(one, "a"), act(two, "b"))
        await one.shared.send()
        await two.shared.send()
        mine, theirs = state(await one.record("v")), state(await two.record("v"))
        assert mine == theirs
        purchases = mine[1]
        assert purchases.amount_micros == 2 * 300 * 7

    play(writing, Settings(visitor_event_count_max=64))


def test_a_visitor_read_on_is_the_one_read_whole(play: Any) -> None:
    """Copies that take in what comes, line by line, are what a process that knew nothing reads."""

    async def reading(one: Process, two: Process) -> None:
        chance = random.Random(5)
        for number in range(4 * FOLDED_FROM):
            process = chance.choice([one, two])
            process.now_ms = NOW_MS + number * 1000
            action = chance.choice(["view_item", "add_to_cart", "purchase", "dismiss", "search"])
            process.post("v", action=action, product_id=f"p{chance.randrange(40)}", seconds_ago=chance.random() * 9000)
            if chance.random() < 0.3:
                process.visitors.note_served(process.visitors.pseudonym("v"), "bid", process.now_ms, "top", 2)
            await process.shared.send()
            if chance.random() < 0.5:
                await one.record("v")
        three = one.again()
        three.now_ms = one.now_ms = two.now_ms
        assert state(await one.record("v")) == state(await two.record("v")) == state(await three.record("v"))
        lists = [key for key in one.server.client.scan_iter() if b":v:" in key]
        assert len(lists) == 1
        assert one.server.client.llen(lists[0]) < FOLDED_FROM + 2
        await three.store.close()

    play(reading)


def test_a_page_reads_only_what_is_new(play: Any) -> None:
    async def reading(one: Process, two: Process) -> None:
        for number in range(20):
            one.post("v", product_id=f"p{number}")
        await one.shared.send()
        await two.record("v")
        one.post("v", product_id="p30")
        await one.shared.send()
        pseudonym = two.visitors.pseudonym("v")
        found = await two.store.read({pseudonym: two.visitors.records.versions[pseudonym]})
        assert (found[pseudonym].base, len(found[pseudonym].lines)) == (None, 1)

    play(reading)


def test_a_copy_that_had_to_leave_memory_is_not_taken_for_whole(play: Any) -> None:
    async def leaving(one: Process, _two: Process) -> None:
        for number in range(5):
            one.post("v", product_id=f"p{number}")
        await one.shared.send()
        await one.record("v")
        for number in range(8):  # nobody fits but three
            one.post(f"other{number}")
        one.post("v", product_id="p9")
        await one.shared.send()
        one.post("v", product_id="p10")
        await one.shared.send()
        assert await one.products("v") == [*(f"p{number}" for number in range(5)), "p9", "p10"]

    play(leaving, Settings(visitor_count_max=3, visitor_ready_count_max=1))


def test_an_event_sent_to_two_processes_counts_once(play: Any) -> None:
    async def sending(one: Process, two: Process) -> None:
        one.post("v", event_id="e1", action="purchase", price_micros=5)
        await one.shared.send()
        await two.shared.note_seen([("v", "e1")])
        assert two.post("v", event_id="e1", action="purchase", price_micros=5).recorded == 0
        one.post("v", event_id="e2", action="purchase", price_micros=5)
        two.post("v", event_id="e2", action="purchase", price_micros=5)  # neither could know
        await one.shared.send()
        await two.shared.send()
        for process in (one, two):
            record = await process.record("v")
            assert record is not None
            assert record.purchases.amount_micros == 10
            assert len(record.events) == 2

    play(sending)


def test_a_restart_needs_no_replay(play: Any) -> None:
    async def restarting(one: Process, two: Process) -> None:
        for number in range(30):
            one.post(f"v{number % 3}", product_id=f"p{number}")
        await one.shared.send()
        before = state(await one.record("v1"))
        sent = one.server.client.info("commandstats")["cmdstat_rpush"]["calls"]
        three = one.again()
        await three.shared.start()
        assert one.server.client.info("commandstats")["cmdstat_rpush"]["calls"] == sent
        assert len(three.visitors) == 0
        assert state(await three.record("v1")) == before
        await three.store.close()
        assert two.unread == 0

    play(restarting)


def test_what_was_logged_while_the_server_was_gone_is_shared_once_when_it_is_back(
    tmp_path: Path, valkey_binary: str
) -> None:
    """The process is killed too: only its log has the events. The server comes back with what it had on disk."""

    async def away() -> None:
        with ValkeyServer(valkey_binary, appendonly="yes", appendfsync="always") as server:
            one = Process(tmp_path / "one", server)
            await one.shared.start()
            one.post("v", action="purchase", price_micros=1)
            await one.shared.send()
            server.kill()
            one.post("v", action="purchase", price_micros=10)
            with pytest.raises(SharedStoreUnavailable):
                await one.shared.send()
            assert not one.shared.is_up
            one.post("v", action="purchase", price_micros=100)
            three = one.again()
            await three.shared.start()
            assert not three.shared.is_up
            three.post("v", action="purchase", price_micros=1000)
            running = asyncio.create_task(three.shared.run())
            server.start()
            while not three.shared.is_up:
                await asyncio.sleep(0.01)
            for _ in range(2):
                record = await three.record("v")
                assert record is not None
                assert record.purchases.amount_micros == 1111
                await three.shared.tick()
            running.cancel()
            await one.store.close()
            await three.store.close()

    asyncio.run(away())


def test_a_server_that_lost_everything_is_filled_from_the_logs(play: Any) -> None:
    async def losing(one: Process, two: Process) -> None:
        one.post("v", action="purchase", price_micros=1)
        two.post("v", action="purchase", price_micros=10)
        await one.shared.send()
        await two.shared.send()
        await one.record("v")
        one.server.client.flushall()
        await one.shared.send_all()
        await two.shared.send_all()
        one.post("v", action="purchase", price_micros=100)
        await one.shared.send()
        for process in (one, two):
            record = await process.record("v")
            assert record is not None
            assert record.purchases.amount_micros == 111

    play(losing)


def test_an_answer_that_was_lost_on_its_way_doubles_nothing(play: Any) -> None:
    async def losing(one: Process, _two: Process) -> None:
        really = one.store.append

        async def append(*args: Any) -> Any:
            await really(*args)
            raise SharedStoreUnavailable("the answer is lost")

        one.post("v", action="purchase", price_micros=1)
        one.store.append = append  # type: ignore[method-assign]
        with pytest.raises(SharedStoreUnavailable):
            await one.shared.send()
        one.store.append = really  # type: ignore[method-assign]
        one.post("v", action="purchase", price_micros=10)
        await one.shared.send()
        record = await one.record("v")
        assert record is not None
        assert record.purchases.amount_micros == 11

    play(losing)


def test_a_page_does_not_wait_longer_than_it_can_for_a_server_that_hangs(play: Any) -> None:
    async def hanging(one: Process, _two: Process) -> None:
        loop = asyncio.get_running_loop()
        one.post("v")
        await one.shared.send()
        running = asyncio.create_task(one.shared.run())
        one.server.pause()
        began = loop.time()
        assert not await one.shared.read_within("v", 0.03)
        assert 0.025 < loop.time() - began < 0.2
        began = loop.time()
        assert not await one.shared.read_within("v", 0.03)  # known to be gone: nobody waits
        assert loop.time() - began < 0.01
        assert one.unread == 2
        one.post("v", product_id="p2")  # the log takes it
        one.server.resume()
        while not one.shared.is_up:
            await asyncio.sleep(0.01)
        assert await one.shared.read_within("v", 0.5)
        assert await one.products("v") == ["p1", "p2"]
        running.cancel()

    play(hanging)


def pages(process: Process, visitor_id: str, consent: Any) -> Any:
    targets = compile_targets([], [])
    return process.visitors.view(visitor_id, consent, targets, neutral_model(["p1"]), process.now_ms)


def test_a_refusal_told_one_process_holds_in_the_other_at_once(play: Any) -> None:
    async def refusing(one: Process, two: Process) -> None:
        one.post("v", product_id="p1")
        two.post("v", product_id="p2")
        await one.shared.send()
        await two.shared.send()
        assert await two.products("v") == ["p1", "p2"]
        two.post("v", product_id="p3")  # logged, and not sent before the refusal
        await one.record("v")
        one.visitors.withdraw(one.visitors.pseudonym("v"), NOW_MS)
        await one.shared.send()
        await two.shared.send()
        assert await two.record("v") is None
        await two.shared.tick()
        assert two.log.lines_of([two.visitors.pseudonym("v")]) == []
        two.now_ms += 1000
        two.post("v", product_id="p4", consent=YES, seconds_ago=0)  # agreed again
        await two.shared.send()
        assert await one.products("v") == ["p4"]
        assert (await one.store.beat()).awaited == set()

    play(refusing)


def traces(process: Process, visitor_id: str) -> list[bytes]:
    pseudonym = process.visitors.pseudonym(visitor_id)
    return [pseudonym, msgspec.json.encode(pseudonym)[1:-1], pseudonym.hex().encode(), visitor_id.encode()]


def test_after_an_erasure_neither_the_server_nor_its_files_nor_any_log_hold_the_visitor(
    tmp_path: Path, valkey_binary: str
) -> None:
    async def erasing() -> None:
        with ValkeyServer(valkey_binary, appendonly="yes", save="3600 1") as server:
            one, two = Process(tmp_path / "one", server), Process(tmp_path / "two", server)
            await one.shared.start()
            await two.shared.start()
            gone = one.visitors.pseudonym("visitor-4f2c")
            for number in range(2 * FOLDED_FROM):
                one.post("visitor-4f2c", event_id=f"e{number}", product_id=f"p{number % 40}")
                one.post("visitor-stays", product_id="p1")
            await one.shared.send()
            two.post("visitor-4f2c", product_id="p2")
            await two.shared.send()
            server.client.bgsave()
            marks = traces(one, "visitor-4f2c")

            def holders() -> set[str]:
                places = {str(path): path.read_bytes() for path in [*server.files(), *tmp_path.rglob("*.jsonl")]}
                places["keys and values"] = b"\n".join(server.contents())
                return {name for name, raw in places.items() if any(mark in raw for mark in marks)}

            assert "keys and values" in holders()
            assert len(holders()) >= 4  # both logs and a file of the server's besides
            one.visitors.forget({gone})
            one.log.rotate()
            await one.shared.settle()
            one.log.erase({gone})
            await one.shared.forget({gone})
            confirming = asyncio.create_task(one.shared.confirm({gone}))
            await asyncio.sleep(0.1)
            assert not confirming.done()  # the other process has it in its log still
            await two.shared.tick()
            await confirming
            assert holders() == set()
            assert len(await two.products("visitor-stays")) == 2 * FOLDED_FROM
            assert await two.record("visitor-4f2c") is None
            await one.store.close()
            await two.store.close()

    asyncio.run(erasing())


def test_a_process_that_was_away_erases_before_it_sends_anything(play: Any, tmp_path: Path) -> None:
    async def away(one: Process, two: Process) -> None:
        gone = one.visitors.pseudonym("v")
        two.post("v", product_id="p1")
        await two.shared.send()
        two.post("v", product_id="p2")  # logged, and the process is killed
        await one.record("v")
        one.visitors.forget({gone})
        await one.shared.forget({gone})
        assert msgspec.json.encode(gone)[1:-1] not in b"".join(one.server.contents())
        assert gone not in b"".join(one.server.contents())
        three = two.again()
        await three.shared.start()
        assert three.log.lines_of([gone]) == []
        assert await one.record("v") is None
        assert one.server.contents()
        await three.store.close()

    play(away)


def test_an_erasure_is_done_when_every_running_process_did_its_part(play: Any) -> None:
    async def erasing(one: Process, two: Process) -> None:
        gone = one.visitors.pseudonym("v")
        two.post("v")
        await two.shared.send()
        await one.shared.forget({gone})
        confirming = asyncio.create_task(one.shared.confirm({gone}))
        await asyncio.sleep(0.3)
        assert not confirming.done()
        await two.shared.tick()
        await confirming
        assert two.log.lines_of([gone]) == []

    play(erasing)


def test_a_fill_that_renders_brings_nobody_back_whom_another_process_erased(play: Any) -> None:
    async def rendering(one: Process, two: Process) -> None:
        gone = one.visitors.pseudonym("v")
        one.visitors.note_served(gone, "bid", NOW_MS - 1000, "top", 1)
        await one.shared.send()
        await one.record("v")
        await two.shared.forget({gone})
        await one.store.done({gone: NOW_MS})  # so that nothing but the visitor's absence tells
        one.visitors.note_rendered(gone, NOW_MS - 1000, "top", 1)
        await one.shared.send()
        assert await one.record("v") is None

    play(rendering)


def test_two_who_fold_one_visitor_at_once_fold_it_once(play: Any) -> None:
    async def folding(one: Process, two: Process) -> None:
        pseudonym = one.visitors.pseudonym("v")
        for number in range(6):
            one.post("v", action="purchase", price_micros=10**number)
        await one.shared.send()
        seen = (await one.store.read({pseudonym: None}))[pseudonym]
        two.post("v", action="purchase", price_micros=10**6)
        await two.shared.send()
        await two.shared._fold([pseudonym])
        assert not await one.store.fold(pseudonym, seen, b"", NOW_MS)
        for process in (one, two):
            record = await process.record("v")
            assert record is not None
            assert record.purchases.amount_micros == 1_111_111

    play(folding)


def test_a_long_import_does_not_hold_up_what_is_written_meanwhile(play: Any) -> None:
    async def importing(one: Process, two: Process) -> None:
        pseudonym = one.visitors.pseudonym("v")
        lines = (LogLine(pseudonym, NOW_MS - number, "view_item", number + 1, "p1") for number in range(20_000))
        one.log.write_import(lines, NOW_MS, "x")
        sending = asyncio.create_task(one.shared.send_all())
        await asyncio.sleep(0.05)
        one.post("w", product_id="p2")
        await one.shared.send()
        assert await two.products("w") == ["p2"]
        assert not sending.done()
        await sending
        assert len(await two.products("v")) == Settings().visitor_event_count_max
        await one.shared.send_all()  # again: nothing of it counts twice
        assert one.server.client.hlen(next(key for key in one.server.client.scan_iter() if b":log:" in key)) == 2

    play(importing)


def test_erasing_fails_loudly_where_the_server_is_gone(play: Any) -> None:
    async def failing(one: Process, _two: Process) -> None:
        one.post("v")
        await one.shared.send()
        one.server.kill()
        for act in (one.shared.settle(), one.shared.forget({one.visitors.pseudonym("v")})):
            with pytest.raises(ErasureUnfinished):
                await act

    play(failing)


def test_navigation_older_than_it_may_be_kept_goes_from_the_server(play: Any) -> None:
    async def keeping(one: Process, two: Process) -> None:
        day_ms = 86_400_000
        one.post("both", product_id="p1")
        one.post("old", product_id="p1")
        await one.shared.send()
        for process in (one, two):
            process.now_ms = NOW_MS + 9 * day_ms
        two.post("both", product_id="p2")
        await two.shared.send()
        assert await one.products("both") == ["p1", "p2"]
        for process in (one, two):
            process.now_ms = NOW_MS + 11 * day_ms
        await two.shared.drop_before(two.visitors.oldest_kept_ms(two.now_ms))
        three = one.again()
        three.now_ms = one.now_ms
        assert await three.products("both") == ["p2"]
        assert await three.record("old") is None
        assert not any(b'"p1"' in value for value in one.server.contents())
        await three.store.close()
        for key in one.server.client.scan_iter():
            if b":v:" in key or b":e:" in key:
                assert 0 < one.server.client.pttl(key) <= 10 * day_ms

    play(keeping, Settings(retention_days=10))


def test_where_nothing_is_dropped_by_age_the_server_may_evict(play: Any) -> None:
    async def keeping(one: Process, _two: Process) -> None:
        one.post("v")
        await one.shared.send()
        lists = [key for key in one.server.client.scan_iter() if b":v:" in key]
        assert one.server.client.pttl(lists[0]) > 0
        one.server.client.delete(*lists)  # as eviction does
        assert await one.record("v") is None
        one.post("v", product_id="p2")
        await one.shared.send()
        assert await one.products("v") == ["p2"]

    play(keeping)


def test_devices_of_one_customer_are_one_person_in_every_process(play: Any) -> None:
    async def linking(one: Process, two: Process) -> None:
        phone, laptop, customer = map(one.visitors.pseudonym, ("phone", "laptop", "customer"))
        for process in (one, two):
            process.visitors.set_links({phone: customer, laptop: customer})  # as the database has them
        one.post("phone", product_id="p1")
        two.post("laptop", product_id="p2")
        await one.shared.send()
        await two.shared.send()
        assert sorted(map(str, await one.products("laptop"))) == ["p1", "p2"]
        assert sorted(map(str, await two.products("phone"))) == ["p1", "p2"]
        two.post("phone", product_id="p3")
        await two.shared.send()
        assert await one.products("customer") == ["p1", "p2", "p3"]

    play(linking)


def test_what_became_of_a_fill_reaches_a_visitor_another_process_holds_and_nobody_who_was_erased(play: Any) -> None:
    async def rendering(one: Process, two: Process) -> None:
        pseudonym, erased = one.visitors.pseudonym("v"), one.visitors.pseudonym("erased")
        one.visitors.note_served(pseudonym, "bid", NOW_MS, "top", 1)
        await one.shared.send()
        two.visitors.note_rendered(pseudonym, NOW_MS, "top", 1)
        two.visitors.note_rendered(erased, NOW_MS, "top", 1)
        two.visitors.note_clicked(pseudonym, "top", NOW_MS)
        await two.shared.send()
        record = await one.record("v")
        assert record is not None
        assert record.unrendered == {}
        assert record.shown["top"].clicked_at_ms == NOW_MS
        assert two.log.lines_of([erased]) == []
        assert await one.record("erased") is None

    play(rendering)


def test_a_command_reads_a_visitor_with_all_devices_from_the_server(tmp_path: Path, valkey: ValkeyServer) -> None:
    async def telling() -> None:
        one = Process(tmp_path / "one", valkey)
        await one.shared.start()
        one.post("phone", product_id="p1")
        one.post("kim", product_id="p2")
        await one.shared.send()
        await one.store.close()

    asyncio.run(telling())
    copies = VisitorStore(Settings(), Pseudonymizer(KEY), None, FACTS)
    copies.set_links({copies.pseudonym("phone"): copies.pseudonym("kim")})
    store = SharedStore(open_client(valkey.url), copies.pseudonymizer, copies.settings, NO_PROCESS)
    reader = SharedReader(copies, store)
    for visitor_id in ("phone", "kim"):
        record = reader.record(reader.pseudonym(visitor_id))
        assert record is not None
        assert sorted(str(one.product_id) for one in record.events) == ["p1", "p2"]
    assert reader.record(reader.pseudonym("nobody")) is None
    reader.close()


def test_ten_thousand_events_of_one_visitor_stay_within_bounds(play: Any) -> None:
    async def flooding(one: Process, two: Process) -> None:
        for number in range(10_000):
            one.post("v", product_id=f"p{number % 40}", query="shoe " * 20, action="search", event_id=f"e{number}")
        await one.shared.send()
        key = next(key for key in one.server.client.scan_iter() if b":v:" in key)
        assert len(one.server.client.lindex(key, 1)) < 4_096 + 200  # the summary of purchases comes to it
        assert len(b"".join(one.server.contents())) < 50_000
        assert len(await two.products("v")) > 10

    play(flooding, Settings(visitor_record_bytes_max=4_096))


def test_records_made_under_other_settings_are_kept_apart_and_erased_together(play: Any, tmp_path: Path) -> None:
    async def differing(one: Process, two: Process) -> None:
        one.post("v", product_id="p1")
        await one.shared.send()
        other = Process(tmp_path / "one", one.server, Settings(session_gap_s=60))
        await other.shared.start()
        assert await other.products("v") == ["p1"]  # from the log
        await other.shared.forget({one.visitors.pseudonym("v")})
        assert await two.record("v") is None
        assert one.visitors.pseudonym("v") not in b"".join(one.server.contents())
        await other.store.close()

    play(differing)


def test_what_nobody_uses_any_more_is_dropped(play: Any, tmp_path: Path) -> None:
    async def changing(one: Process, _two: Process) -> None:
        other = Process(tmp_path / "other", one.server, Settings(session_gap_s=60))
        await other.shared.start()
        other.post("v", event_id="e")
        await other.shared.send()
        one.post("w")
        await one.shared.send()
        client = one.server.client
        await one.shared.keep_house()
        assert len([key for key in client.scan_iter() if b":v:" in key]) == 2  # the other was heard of
        (processes,) = [key for key in client.scan_iter() if b":processes" in key and client.zcard(key) == 1]
        client.zadd(processes, dict.fromkeys(client.zrange(processes, 0, -1), 1))
        await one.shared.keep_house()
        (left,) = [key for key in client.scan_iter() if b":v:" in key]
        assert left.endswith(one.visitors.pseudonym("w"))
        assert one.store._space in client.smembers(one.store._root + b":spaces")
        assert client.scard(one.store._root + b":spaces") == 1
        await other.store.close()

    play(changing)


def test_who_was_evicted_is_not_counted_for_long(play: Any) -> None:
    async def evicting(one: Process, _two: Process) -> None:
        for number in range(10):
            one.post(f"v{number}")
        await one.shared.send()
        assert (await one.store.beat()).visitor_count == 10
        lists = [key for key in one.server.client.scan_iter() if b":v:" in key]
        one.server.client.delete(*lists[:4])
        assert (await one.store.beat()).visitor_count == 6

    play(evicting)


def test_keys_carry_one_hash_tag(play: Any) -> None:
    async def naming(one: Process, _two: Process) -> None:
        one.post("v", event_id="e")
        await one.shared.send()
        await one.shared.forget({one.visitors.pseudonym("w")})
        keys = list(one.server.client.scan_iter())
        assert len({key[key.index(b"{") : key.index(b"}") + 1] for key in keys}) == 1
        assert {key.startswith(b"endcap:{") for key in keys} == {True}

    play(naming)


def test_an_unheard_refusal_is_heard_when_the_server_is_back(play: Any) -> None:
    async def refusing(one: Process, two: Process) -> None:
        two.post("v")
        await two.shared.send()
        refusing = one.visitors.pseudonym("v")
        one.shared.later([refusing], lambda: one.visitors.withdraw(refusing, NOW_MS))
        await one.shared.tick()
        await one.shared.send()
        assert await two.record("v") is None

    play(refusing)
