"""A running deployment: the parts of the serving process, and what keeps them fresh.

`compose` makes every part once; `Serving.run` then follows snapshots, models, keys, profiles and imported navigation
for as long as the application runs. Everything that changes a part does so on the event loop, between requests; what
takes long is prepared in a thread first.
"""

import asyncio
import gc
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import CollectorRegistry
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from starlette.routing import Route

from affinity import endpoint as affinity_endpoint
from affinity import kernel as affinity_kernel
from affinity import store as affinity_store
from affinity.catalog import Product
from affinity.clicks import read_memory, write_memory
from affinity.erasure import Eraser
from affinity.errors import ErasureUnfinished, LogUnwritable, SharedStoreUnavailable
from affinity.kinds import ProductAttributes
from affinity.metrics import AffinityMetrics
from affinity.model import AffinityModel, BoundModel, active_model, load_model, neutral_model
from affinity.navigation_log import NavigationLog
from affinity.product_sets import check_room
from affinity.record import ProductFacts, read_facts
from affinity.shared_store import SharedStore, open_client
from affinity.shared_visitors import SharedVisitors, process_id_in
from affinity.special import special_categories
from affinity.visitors import VisitorStore
from auction import endpoint as auction_endpoint
from auction.metrics import AuctionMetrics
from auction.receipt import ReceiptLog
from auction.serving import BindModel, SlotServer
from auction.snapshot import Snapshot
from auction.spend import PacingMemory
from bidder_api.access import REFRESH_INTERVAL_S, Keyring, derive_secret
from bidder_api.call import Desk
from bidder_api.children import SnapshotNews
from bidder_api.database import Database
from bidder_api.deployment import is_current
from bidder_api.guard import Guard
from bidder_api.hearing import Hearing
from bidder_api.holdings import holdings
from bidder_api.idempotency import forget_old
from bidder_api.metrics import ServerMetrics
from bidder_api.patterns import explain_endpoint, pattern_counter
from bidder_api.preview import preview_endpoint
from bidder_api.readiness import Readiness
from bidder_api.sales_facts import sales_facts_of
from bidder_api.server import Parts, build_app, management_routes
from bidder_api.settings import AllSettings, beacon_keys, for_deployment, master_secret
from bidder_api.store import Deployment
from bidder_api.table import OPERATIONS
from bidder_api.tasks import CLICKS_FILE, MODEL_FOLDER, NAVIGATION_FOLDER, RECEIPT_FOLDER, pseudonymizer_of
from bidder_api.webhooks.address import Outlets
from bidder_api.webhooks.deliverer import Deliverer, WebhookMetrics
from bidder_api.webhooks.endpoint import WebhookDesk
from bidder_api.webhooks.sender import Sender
from ledger import endpoint as ledger_endpoint
from ledger.beacon import BeaconKeys
from ledger.command import OrdersRecorded, RecordOrders
from ledger.commission_run import run_commissions
from ledger.commissioning import LOOK_BACK_MS
from ledger.errors import LedgerBroken, LedgerRefused
from ledger.metrics import LedgerMetrics
from ledger.pipe import Intake
from ledger.spend import SpendUpdate

T = TypeVar("T")

PACING_FILE = "pacing.json"
RECORD_FILE = "visitors.records"
LEARNT_KEPT_EVERY_S = 60.0
SWITCH_INTERVAL_S = (
    0.0005  # how long a thread may hold up the event loop; the interpreter's own 5 ms is a page's budget
)

TICK_S = 1.0
GC_YOUNG_COUNT = 20_000  # objects made between two looks at the young ones
KEPT_WITHIN_S = 30  # where there is no record file, as after an erasure
FOLLOW_COUNT = 400  # events of an imported file read between two requests
COUNT_SLICE_S = 0.001  # how long audiences are counted between two requests
FIRST_COUNT_S_MAX = 5.0  # nothing is known of any audience yet
COUNT_S_MAX = 0.1  # and in all, before other things have their turn
COUNT_PAUSE = 9  # after that, so many times as long as it took: snapshots may come one after another
HOUSEKEEPING_EVERY_S = 3600.0
COMMISSIONS_AFTER_S = 60.0  # of a start, and then once an hour
COMMISSIONS_SHORT_MS = 17 * 86_400_000  # orders that became final since the last hours, or were told of three days late
COMMISSIONS_FULL_EVERY = 24  # looks at so little, between two at everything

_log = structlog.get_logger("serving")

IntakeOf = Callable[[Callable[[SpendUpdate], None]], AbstractAsyncContextManager[Intake]]


class ProductBook:
    """What the serving process knows of products beside the snapshot: facts for navigation, links for clicks."""

    def __init__(self) -> None:
        self.facts: dict[str, ProductFacts] = {}
        self._links: dict[str, str] = {}
        self.change_seq = -1

    def link(self, product_id: str) -> str | None:
        """Return the product's page in the shop."""
        return self._links.get(product_id)

    def apply(self, products: Sequence[Product], change_seq: int) -> None:
        """Take over changed products. The first time that is all of them, and prices are ranked within categories.

        Later a product keeps its place among its category's prices until the next start: moving one price would move
        many places, and they say no more than cheap or dear.
        """
        for product_id, facts in read_facts(products).items():
            known = self.facts.get(product_id)
            self.facts[product_id] = facts if known is None else facts._replace(price_rank=known.price_rank)
        for product in products:
            if product.link is not None:
                self._links[product.product_id] = product.link
            else:
                self._links.pop(product.product_id, None)
        self.change_seq = change_seq


class CurrentModel:
    """The model snapshots are bound to; another one counts from the next binding on.

    While neither model nor products change, which is so when only bids do, snapshots share one binding.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.bind: BindModel = neutral_model
        self._bound: tuple[BindModel, BoundModel, ProductAttributes] | None = None

    def __call__(self, product_ids: Sequence[str], attributes: ProductAttributes) -> BoundModel:
        """Return the current model, bound to products."""
        bind, before = self.bind, self._bound
        if (
            before is not None
            and before[0] == bind
            and before[1].product_ids == list(product_ids)
            and attributes.is_like(before[2])
        ):
            return before[1]
        bound = bind(product_ids, attributes)
        self._bound = bind, bound, attributes
        return bound


class IntakeProxy:
    """Stands for the intake until it is there, and lets the serving process hear of what went through it."""

    def __init__(self, hearing: Hearing | None = None, shared: SharedVisitors | None = None) -> None:
        self.intake: Intake | None = None
        self._hearing = hearing
        self._shared = shared

    def _there(self) -> Intake:
        if self.intake is None:
            from ledger.errors import LedgerUnavailable

            raise LedgerUnavailable("writer_gone", "the ledger's writer is not there yet")
        return self.intake

    async def record(self, events: Any, *, with_amounts: bool) -> Any:
        """See `Intake`."""
        results = await self._there().record(events, with_amounts=with_amounts)
        if self._hearing is not None:
            self._hearing.events(events, results)
        return results

    async def command(self, command: Any) -> Any:
        """See `Intake`."""
        answer = await self._there().command(command)
        if self._hearing is not None and isinstance(command, RecordOrders) and isinstance(answer, OrdersRecorded):
            if self._shared is not None:
                await self._read_buyers(self._shared, self._hearing, command, answer)
            self._hearing.orders(command.orders, answer.results)
        return answer

    async def _read_buyers(
        self, shared: SharedVisitors, hearing: Hearing, command: RecordOrders, answer: OrdersRecorded
    ) -> None:
        """Have memory know who ordered; where it cannot now, profiles hear of the orders again when it can."""
        buyers = {one for order in command.orders for one in (order.visitor, order.customer) if one is not None}
        if not buyers:
            return
        if shared.is_up:
            with suppress(SharedStoreUnavailable, LogUnwritable):
                await shared.read(*buyers)
                return
        shared.later(buyers, lambda: hearing.profiles(command.orders, answer.results))

    def unwritable_s(self) -> float:
        """See `Intake`."""
        return 0.0 if self.intake is None else self.intake.unwritable_s()


class Serving(Struct, kw_only=True):
    """The parts of a running deployment, for whoever adds pages of their own (the demo shop) or looks at it in tests.

    Attributes:
        app: the application, as ASGI.
        slot_server: fills pages.
        visitors: everything known of visitors.
        intake: the way into the ledger.
        deliverer: tells webhooks of notices.
        shared: where other processes share the visitors; None where they do not.
    """

    settings: AllSettings
    deployment: Deployment
    database: Database
    clock_ms: Callable[[], int]
    readiness: Readiness
    metrics: ServerMetrics
    affinity_metrics: AffinityMetrics
    ledger_metrics: LedgerMetrics
    keyring: Keyring
    visitors: VisitorStore
    products: ProductBook
    slot_server: SlotServer
    intake: IntakeProxy
    intake_of: IntakeOf
    model: CurrentModel
    eraser: Eraser
    deliverer: Deliverer
    shared: SharedVisitors | None = None
    visitor_seq: int = -1
    commission_look_count: int = 0
    counts_again_at: float = 0.0
    app: Guard | None = None

    @property
    def retailer_id(self) -> str:
        """Return whose deployment it is."""
        return self.deployment.retailer_id

    # --- following -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Start everything, follow whatever changes, and leave nothing unwritten at the end."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        async with self.intake_of(self.apply_spend) as intake:
            self.intake.intake = intake
            self.ledger_metrics.watch(intake.unwritable_s)
            tasks = [
                asyncio.create_task(self._forever(self._start_then_tick)),
                asyncio.create_task(self._forever(self._follow_keys)),
                asyncio.create_task(self._forever(self.deliverer.run)),
                asyncio.create_task(self._forever(self._follow_commissions)),
            ]
            if self.shared is not None:
                tasks.append(asyncio.create_task(self._forever(self.shared.run)))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._stop_delivering()
                self.visitors.flush(self.clock_ms())
                if self.shared is not None:
                    await self.shared.close()
                await self._keep_visitors()
                await self.keep_learnt()
                if self.slot_server.receipts is not None:
                    self.slot_server.receipts.write()

    async def start(self) -> None:
        """Read what the database and the navigation log hold; after it everything but the snapshot is there."""
        await in_thread(affinity_kernel.warm)
        self.readiness.done("kernels")
        await self.keyring.refresh()
        if await in_thread(lambda: is_current(self.database)):
            self.readiness.done("migrations")
        await self._follow_products()
        await self._follow_visitors()
        if self.shared is None:
            await in_thread(lambda: self.visitors.load(self.clock_ms()))  # nobody else touches visitors before ready
        else:
            await self._start_sharing(self.shared)
        if self.visitors.record_file_refusal is not None:
            _log.warning("record_file_refused", why=self.visitors.record_file_refusal)
        await self.drop_old_navigation()
        self.readiness.done("visitors")

    async def _start_sharing(self, shared: SharedVisitors) -> None:
        """Share the visitors; without the server the process is ready all the same, and fills pages without them."""
        await shared.start()
        with suppress(SharedStoreUnavailable):
            await shared.read_some(self.settings.affinity.audience_sample_size)
        self.visitors.measure()

    async def take_snapshot(self, path: Path) -> None:
        """Map a snapshot's file and serve from it."""
        await self._follow_models()
        served = await in_thread(lambda: self.slot_server.prepare(Snapshot.load(path)))
        is_first = self.slot_server.served is None
        self.slot_server.take(served)
        if is_first or self.slot_server.is_outdated:
            await self.learn()
        if is_first:
            await in_thread(set_memory_aside)
        self.readiness.done("snapshot")
        await self._follow_products()
        await self._count_audiences(FIRST_COUNT_S_MAX if is_first else COUNT_S_MAX)

    async def hear(self, news: SnapshotNews) -> None:
        """Act on what the snapshot builder tells."""
        if news.path is None:
            self.metrics.snapshot_failures.inc()
            return
        try:
            await self.take_snapshot(Path(news.path))
        except Exception as failure:
            self.metrics.snapshot_failures.inc()
            _log.error("snapshot_not_taken", path=news.path, exc_info=failure)

    def apply_spend(self, update: SpendUpdate) -> None:
        """Take over what the ledger says was spent, and what is left."""
        server = self.slot_server
        if update.is_full:
            server.forget_spend()
            self.readiness.done("ledger")
        for campaign in update.campaigns:
            server.apply_campaign(
                campaign.campaign_id, campaign.day, campaign.spent_day_micros, campaign.spent_total_micros
            )
        for funds in update.funds:
            server.apply_funds(funds.advertiser_id, funds.funds_micros)
        self.ledger_metrics.moved(update)

    async def tick(self) -> None:
        """Do what is to be done about every second."""
        self.visitors.flush(self.clock_ms())
        self.affinity_metrics.visitors.set(len(self.visitors))
        if self.shared is not None:
            await self._follow_shared(self.shared)
        unwritable_s = self.intake.unwritable_s()
        is_paused = unwritable_s > self.settings.ledger.unwritable_s_max
        self.slot_server.paid_pause_reason = "events_unwritable" if is_paused else None
        await self._follow_visitors()
        if await self._follow_models() and self.slot_server.served is not None:
            snapshot = self.slot_server.served.market.snapshot
            self.slot_server.take(await in_thread(lambda: self.slot_server.prepare(snapshot)))
        await self._finish_withdrawals()
        while self.shared is None and self.visitors.follow(FOLLOW_COUNT, self.clock_ms()) == FOLLOW_COUNT:
            await asyncio.sleep(0)
        await self._count_audiences(COUNT_S_MAX)
        self.metrics.ready.set(self.readiness.is_ready)

    async def _follow_shared(self, shared: SharedVisitors) -> None:
        self.affinity_metrics.store_up.set(shared.is_up)
        self.affinity_metrics.unsent.set(shared.unsent_count)
        if shared.is_up:
            with suppress(SharedStoreUnavailable):  # it is looked for, and said
                async with self.eraser.busy:
                    await shared.tick()

    async def _finish_withdrawals(self) -> None:
        try:
            self.affinity_metrics.withdrawals.inc(await self.eraser.finish_withdrawals())
        except (ErasureUnfinished, DBAPIError) as failure:  # they are forgotten in memory; their lines wait
            _log.warning("withdrawals_unfinished", exc_info=failure)

    async def _sweep_refused(self) -> None:
        try:
            await self.eraser.sweep_refused()
        except ErasureUnfinished as failure:  # it is tried again in an hour
            _log.warning("refusals_unfinished", exc_info=failure)

    async def drop_old_navigation(self) -> None:
        """Delete the navigation that is older than it may be kept, on disk and in memory."""
        cutoff_ms = self.visitors.oldest_kept_ms(self.clock_ms())
        if not cutoff_ms:
            return
        log = self.visitors.log
        assert log is not None
        log.rotate()
        try:
            if self.shared is not None:
                await self.shared.settle()
                await self.shared.drop_before(cutoff_ms)
            await in_thread(lambda: log.drop_before(cutoff_ms))
        except (ErasureUnfinished, SharedStoreUnavailable) as failure:  # such as a full disk: again in an hour
            _log.error("old_navigation_not_dropped", exc_info=failure)
        for _ in self.visitors.drop_before(cutoff_ms):
            await asyncio.sleep(0)

    async def _count_audiences(self, s_max: float) -> None:
        """Learn which audiences are large enough to be targeted, some visitors between two requests."""
        began_at = time.monotonic()
        if began_at < self.counts_again_at:
            return
        while self.slot_server.served is not None and time.monotonic() < began_at + s_max:
            targets = self.slot_server.served.targets
            if not self.visitors.count_audiences(targets, COUNT_SLICE_S, self.clock_ms()):
                break
            await asyncio.sleep(0)
        now = time.monotonic()
        self.counts_again_at = now + COUNT_PAUSE * min(now - began_at, COUNT_S_MAX)

    async def learn(self) -> None:
        """Correct qualities by the clicks counted since."""
        try:
            clicks = self.slot_server.read_clicks(self.clock_ms())
            if clicks is not None:
                self.slot_server.take_learnt(await in_thread(lambda: self.slot_server.learn(clicks)))
        except Exception as failure:  # what was learnt before goes on counting
            _log.error("quality_not_learnt", exc_info=failure)

    async def keep_learnt(self) -> None:
        """Write down what pacing and clicks have taught; what cannot be written is learnt again."""
        data_dir = self.settings.server.data_dir
        keep_pacing(self.slot_server, data_dir / PACING_FILE)
        memory = self.slot_server.counters.memory()
        try:
            await in_thread(lambda: write_memory(memory, data_dir / CLICKS_FILE))
        except OSError as failure:
            _log.error("clicks_not_kept", exc_info=failure)

    async def _start_then_tick(self) -> None:
        await self.start()
        kept_house_at = kept_learnt_at = kept_visitors_at = learnt_at = time.monotonic()
        while True:
            await self.tick()
            if time.monotonic() - learnt_at > self.settings.auction.quality_interval_s:
                learnt_at = time.monotonic()
                await self.learn()
            if time.monotonic() - kept_learnt_at > LEARNT_KEPT_EVERY_S:
                kept_learnt_at = time.monotonic()
                await self.keep_learnt()
            kept_every_s = self.settings.affinity.visitor_record_file_every_s
            if not self.visitors.has_record_file():
                kept_every_s = min(kept_every_s, KEPT_WITHIN_S)
            if time.monotonic() - kept_visitors_at > kept_every_s:
                kept_visitors_at = time.monotonic()
                await self._keep_visitors()
            if time.monotonic() - kept_house_at > HOUSEKEEPING_EVERY_S:
                kept_house_at = time.monotonic()
                self.visitors.measure()
                await self.drop_old_navigation()
                await self._sweep_refused()
                if self.shared is not None:
                    with suppress(SharedStoreUnavailable):
                        await self.shared.keep_house()
                await in_thread(
                    lambda: self.database.transact(
                        lambda connection: forget_old(connection, self.retailer_id, self.clock_ms())
                    )
                )
            await asyncio.sleep(TICK_S)

    async def post_commissions(self) -> None:
        """Post the commission that is due; what cannot be posted now is found again in an hour."""
        now_ms = self.clock_ms()
        is_short = self.commission_look_count % COMMISSIONS_FULL_EVERY != 0
        self.commission_look_count += 1
        try:
            posted = await run_commissions(
                self.intake,
                self.database.read,
                self.retailer_id,
                self.settings.ledger.commission_model,
                sales_facts_of(self.retailer_id),
                now_ms,
                now_ms - (COMMISSIONS_SHORT_MS if is_short else LOOK_BACK_MS),
            )
        except (LedgerRefused, LedgerBroken, DBAPIError) as failure:
            self.commission_look_count = 0
            _log.error("commissions_not_posted", exc_info=failure)
            return
        if posted.charged_lines or posted.returned_lines:
            _log.info("commissions_posted", charged_lines=posted.charged_lines, returned_lines=posted.returned_lines)

    async def _keep_visitors(self) -> None:
        """Write the visitors' record file between requests; without one the next start only takes longer."""
        keeping = None
        try:
            keeping = self.visitors.begin_keeping(self.clock_ms()) if self.visitors.unkept_count else None
            if keeping is not None:
                while keeping.step():
                    await asyncio.sleep(0)
                await in_thread(keeping.sync)
                keeping.finish()
        except (OSError, LogUnwritable) as failure:
            self.visitors.unkept_count += 1
            _log.error("visitors_not_kept", exc_info=failure)
        finally:
            if keeping is not None:
                keeping.abandon()

    async def _stop_delivering(self) -> None:
        try:
            await self.deliverer.close()
        except DBAPIError as failure:  # the lease runs out by itself
            _log.warning("lease_not_released", exc_info=failure)

    async def _follow_keys(self) -> None:
        while True:
            await self.keyring.refresh()
            await asyncio.sleep(REFRESH_INTERVAL_S)

    async def _follow_commissions(self) -> None:
        await asyncio.sleep(COMMISSIONS_AFTER_S)
        while True:
            await self.post_commissions()
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)

    async def _follow_products(self) -> None:
        def read(connection: Connection) -> tuple[int, list[Product]]:
            change_seq = affinity_store.current_change_seq(connection, self.retailer_id)
            return change_seq, affinity_store.read_products_changed(
                connection, self.retailer_id, self.products.change_seq
            )

        change_seq, changed = await in_thread(lambda: self.database.read(read))
        self.products.apply(changed, change_seq)

    async def _follow_visitors(self) -> None:
        """Take over profiles and links that another process wrote, and what was computed of customers."""
        async with self.eraser.busy:
            await self._take_over_visitors()

    async def _take_over_visitors(self) -> None:
        visitors, profile_seq = self.visitors, self.visitors.profile_seq
        forgotten_count = visitors.forgotten_count

        def read(connection: Connection) -> tuple[int, affinity_store.VisitorChanges | None]:
            change_seq = affinity_store.current_change_seq(connection, self.retailer_id, affinity_store.VISITORS)
            if change_seq == self.visitor_seq:
                return change_seq, None
            return change_seq, affinity_store.read_visitor_changes(connection, self.retailer_id, profile_seq)

        change_seq, changes = await in_thread(lambda: self.database.read(read))
        if changes is None:
            return
        if self.visitor_seq < 0 or self.shared is not None:
            visitors.set_links(changes.links)
        visitors.put_scale(changes.scale)

        async def take(some: list[T], take_over: Callable[[list[T]], None]) -> bool:
            """Take over some at a time; say whether nobody was erased since, who may be among them."""
            for first in range(0, len(some), FOLLOW_COUNT):
                if visitors.forgotten_count != forgotten_count:
                    return False
                take_over(some[first : first + FOLLOW_COUNT])
                await asyncio.sleep(0)
            return True

        if not (
            await take(changes.profiles, visitors.put_profiles)
            and await take(changes.computed, visitors.put_computed)
            and await take(changes.entries, visitors.put_entries)
        ):
            return  # what is there now is read again
        self.visitor_seq = visitors.profile_seq = change_seq

    async def _follow_models(self) -> bool:
        """Take up a model that was trained since; say whether there is one."""
        newest = active_model(self.settings.server.data_dir / MODEL_FOLDER)
        if newest is None or newest == self.model.path:
            return False
        self.model.path = newest
        try:
            model: AffinityModel = await in_thread(lambda: load_model(newest))
        except Exception as failure:
            _log.error("model_not_taken", path=str(newest), exc_info=failure)
            return False
        self.model.bind = model.bind
        return True

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run what never ends; when it fails nonetheless, say so and begin again."""
        while True:
            try:
                await work()
            except Exception as failure:
                _log.error("following_failed", what=work.__name__, exc_info=failure)
                await asyncio.sleep(TICK_S)


def set_memory_aside() -> None:
    """Spare the collector what lives as long as the process; going through it would hold up fills.

    What a request leaves behind has no cycles, so the collector has little to find and need not look often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_COUNT, 20, 50)


def keep_pacing(slot_server: SlotServer, path: Path) -> None:
    """Write what pacing has learnt to a file, whole or not at all; what cannot be written is learnt again."""
    if slot_server.served is None:
        return
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_bytes(msgspec.json.encode(slot_server.spend.memory()))
        draft.replace(path)
    except OSError as failure:
        _log.error("pacing_not_kept", path=str(path), exc_info=failure)


def recall_pacing(slot_server: SlotServer, path: Path) -> None:
    """Read what pacing had learnt; a file that is not there or cannot be read is no more than a fresh start."""
    try:
        slot_server.recall(msgspec.json.decode(path.read_bytes(), type=PacingMemory))
    except FileNotFoundError:
        pass
    except (OSError, msgspec.MsgspecError) as failure:
        _log.error("pacing_not_recalled", path=str(path), exc_info=failure)


def recall_clicks(slot_server: SlotServer, path: Path) -> None:
    """Read the counters of clicks; a file that is not there or cannot be read is no more than a fresh start."""
    try:
        memory = read_memory(path)
        if memory is not None:
            slot_server.counters.recall(memory)
    except (OSError, msgspec.MsgspecError, ValueError) as failure:
        _log.error("clicks_not_recalled", path=str(path), exc_info=failure)


async def in_thread(work: Callable[[], T]) -> T:
    """Run something beside the event loop."""
    return await asyncio.to_thread(work)


def compose(
    settings: AllSettings,
    database: Database,
    deployment: Deployment,
    intake_of: IntakeOf,
    *,
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    pages: Callable[[Serving], Sequence[Route]] | None = None,
) -> Serving:
    """Make the parts of a serving process and the application over them.

    Args:
        settings: everything that is set.
        database: the deployment's, migrated.
        deployment: whose it is.
        intake_of: opens the way into the ledger; given what is to hear of every commit.
        clock_ms: UTC, milliseconds since 1970.
        pages: routes beside the API, such as the demo shop's.
    """
    settings = for_deployment(settings, deployment.currency, deployment.time_zone)
    server, data_dir = settings.server, settings.server.data_dir
    master = master_secret(server)
    registry = CollectorRegistry()
    metrics, affinity_metrics = ServerMetrics(registry), AffinityMetrics(registry)
    ledger_metrics, auction_metrics = LedgerMetrics(registry), AuctionMetrics(registry)
    hash_key = derive_secret(master, "access keys")
    keyring = Keyring(database, deployment.retailer_id, hash_key, clock_ms)
    products, model = ProductBook(), CurrentModel()
    pseudonymizer = pseudonymizer_of(master)
    visitors = VisitorStore(
        settings.affinity,
        pseudonymizer,
        NavigationLog(data_dir / NAVIGATION_FOLDER, settings.affinity.navigation_segment_bytes),
        products.facts,
        data_dir / RECORD_FILE,
    )
    shared = None
    if server.shares_visitors:
        process_id = process_id_in(data_dir)
        store = SharedStore(open_client(server.visitor_store), pseudonymizer, settings.affinity, process_id)
        shared = SharedVisitors(visitors, store, clock_ms, affinity_metrics.unread_fills.inc)
    keys = BeaconKeys.parse(beacon_keys(server))
    slot_server = SlotServer(
        bind_model=model,
        visitors=visitors,
        seal=keys.seal_beacon,
        settings=settings.auction,
        key=derive_secret(master, "auctions"),
        receipts=ReceiptLog(data_dir / RECEIPT_FOLDER, settings.auction),
        metrics=auction_metrics,
        clock_ms=clock_ms,
    )
    recall_pacing(slot_server, data_dir / PACING_FILE)
    outlets = Outlets(server.webhook_private_ranges, server.webhook_loopback)
    webhook_master = derive_secret(master, "webhooks")
    elsewhere = holdings(database, deployment.retailer_id, clock_ms, settings.ledger)
    recall_clicks(slot_server, data_dir / CLICKS_FILE)
    serving = Serving(
        settings=settings,
        deployment=deployment,
        database=database,
        clock_ms=clock_ms,
        readiness=Readiness("migrations", "kernels", "visitors", "snapshot", "ledger"),
        metrics=metrics,
        affinity_metrics=affinity_metrics,
        ledger_metrics=ledger_metrics,
        keyring=keyring,
        visitors=visitors,
        products=products,
        model=model,
        slot_server=slot_server,
        intake=IntakeProxy(Hearing(slot_server, keys, clock_ms), shared),
        intake_of=intake_of,
        eraser=Eraser(visitors, database.transact, deployment.retailer_id, elsewhere, shared),
        deliverer=Deliverer(
            database,
            deployment.retailer_id,
            webhook_master,
            Sender(outlets),
            clock_ms,
            WebhookMetrics(registry),
            random.Random(),
        ),
        shared=shared,
    )
    if shared is not None:
        serving.readiness.degraded = lambda: () if shared.is_up else ("visitor_store",)
    desk = Desk(
        database,
        deployment.retailer_id,
        clock_ms,
        server.management_thread_count,
        count_call=metrics.count_call,
        special=special_categories(settings.affinity.special_category_terms),
        low_funds_micros=settings.ledger.low_funds_micros,
        check_live_pattern=lambda pattern, pointer: check_room(
            pattern, slot_server.product_sets(), settings.affinity.pattern_target_count_max, pointer
        ),
    )
    books = ledger_endpoint.Books(
        retailer_id=deployment.retailer_id,
        intake=serving.intake,
        read=database.read,
        keys=keys,
        product_link=products.link,
        pseudonymize=pseudonymizer.of,
        sales_facts=sales_facts_of(deployment.retailer_id),
        settings=settings.ledger,
        metrics=ledger_metrics,
        now_ms=clock_ms,
    )
    surfaces = [
        *auction_endpoint.routes(slot_server, shared),
        *ledger_endpoint.routes(books),
        *affinity_endpoint.routes(
            visitors,
            database.transact,
            deployment.retailer_id,
            clock_ms,
            affinity_metrics,
            elsewhere,
            serving.eraser,
            deployment.currency,
            shared,
        ),
        *management_routes(
            desk,
            keyring,
            hash_key,
            lambda audience: visitors.count_matching(audience, None, clock_ms()),
            pattern_counter(desk, visitors, slot_server.product_sets),
            settings.auction,
            WebhookDesk(webhook_master, outlets),
        ),
        Route(
            "/v1/navigation-patterns/{pattern_id}/explain", explain_endpoint(desk, visitors, shared), methods=["GET"]
        ),
        Route("/v1/rules/preview", preview_endpoint(desk, slot_server, shared), methods=["POST"]),
    ]
    serving.app = build_app(
        Parts(
            settings=server,
            operations=OPERATIONS,
            surfaces=surfaces,
            keyring=keyring,
            metrics=metrics,
            readiness=serving.readiness,
            pages=() if pages is None else pages(serving),
            lifespan=serving.run,
        )
    )
    return serving
