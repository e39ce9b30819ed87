"""How fast pages are decided, and what `POST /v1/fills` costs beside a bare route that decodes the same body.

Run as `python -m tests.bench.bench_auction`. Decisions are timed on one synthetic shop (`tests/auction/worlds.py`):
pages of 8 slots, contexts of home, category, search and product mixed, audiences and patterns on half of the bids,
visitors with 100 products of their own quality. The routes run in one server process and are asked in turns, so that
a busy machine slows them alike; compared is the processor time the server spends on a request, and requests a second
one after the other over one connection. `/bare` decodes with the same compiled decoder as ours, `/json` with what
Starlette itself offers.
"""

import asyncio
import gc
import multiprocessing
import os
import random
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from affinity.model import BoundModel
from affinity.navigation import Action, Consent, NavigationBatch, NavigationEvent
from affinity.pseudonym import Pseudonymizer
from affinity.record import read_facts
from affinity.settings import Settings as AffinitySettings
from affinity.targets import Targets, compile_targets
from affinity.view import VisitorView, anonymous_view
from affinity.visitors import VisitorStore
from auction.builder import build_snapshot
from auction.endpoint import routes
from auction.engine import hold_auction, no_deadline
from auction.market import Market
from auction.receipt import ReceiptLog
from auction.request import Page, RequestCandidate, RequestPlacement, SlotRequest
from auction.serving import SlotServer
from auction.settings import Settings
from auction.snapshot import Snapshot
from auction.spend import SpendView
from ledger.beacon import BeaconKeys
from tests.auction.worlds import NOW, NOW_MS, large_source, request, some_quality

SETTINGS = Settings()
PPM = 1_000_000


def model_of(snapshot: Snapshot) -> BoundModel:
    """A model with a quality of its own for every product, and nothing learnt of visitors."""
    return BoundModel(snapshot.product_id, some_quality(snapshot.product_id))


class Decisions:
    """A market with so many bids, and pages and visitors to hold auctions for."""

    def __init__(self, bid_count: int) -> None:
        began = time.process_time()
        source = large_source(bid_count)
        self.source_s = time.process_time() - began
        began = time.process_time()
        self.snapshot = build_snapshot(source, some_quality)
        self.build_s = time.process_time() - began
        self.market = Market(self.snapshot, model_of(self.snapshot))
        self.targets: Targets = compile_targets(
            self.snapshot.targets_spec.audiences, self.snapshot.targets_spec.patterns
        )
        self.spend = SpendView(SETTINGS, self.snapshot)
        for advertiser_id in self.snapshot.advertiser_id:
            self.spend.apply_funds(advertiser_id, 10**12)
        self.spend.refresh(NOW_MS)
        self._chance = random.Random(3)
        self.visitors = [self._visitor() for _ in range(50)]

    def _visitor(self) -> VisitorView:
        chance, model = self._chance, self.market.model

        def some_bits(count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
            return np.array([chance.getrandbits(64) & chance.getrandbits(64) for _ in range(count)], np.uint64)

        rows = np.array(sorted(chance.sample(range(len(self.snapshot.product_id)), 100)), np.int32)
        return msgspec.structs.replace(
            anonymous_view(self.targets),
            has_consent=True,
            pseudonym=bytes(range(16)),
            audience_bits=some_bits(self.targets.no_audience_bits.size),
            pattern_bits=some_bits(self.targets.no_pattern_bits.size),
            product_row=rows,
            quality_ppm=np.minimum(model.base_quality_ppm[rows] * 3, PPM).astype(np.int64),
        )

    def page(self, kind: str) -> Page:
        names, chance = self.snapshot.names, self._chance
        broad = [one for one in names.category if one.count(" > ") < 2]
        if kind == "category":
            return Page(type="category", category_id=chance.choice(broad))
        if kind == "search":
            return Page(type="search", query=chance.choice(names.words))
        if kind == "product":
            return Page(type="product", product_id=chance.choice(names.product_id))
        return Page(type="home")

    def time_kind(self, kind: str, count: int = 400) -> list[float]:
        """Microseconds each of so many auctions took, after as many to warm up."""
        taken: list[float] = []
        for number in range(2 * count):
            asked, visitor = request(self.page(kind)), self.visitors[number % len(self.visitors)]
            began = time.perf_counter_ns()
            hold_auction(asked, "auc", self.market, visitor, self.spend, no_deadline(NOW_MS), number, SETTINGS)
            taken.append((time.perf_counter_ns() - began) / 1_000)
        return taken[count:]


def measure_decisions(bid_counts: tuple[int, ...] = (10_000, 100_000)) -> list[tuple[str, str]]:
    """Rows of the table: what deciding a page of 8 slots takes."""
    rows: list[tuple[str, str]] = []
    medians: dict[int, float] = {}
    for bid_count in bid_counts:
        world = Decisions(bid_count)
        rows.append((f"snapshot of {bid_count:,} bids: build, processor seconds", f"{world.build_s:.2f}"))
        every: list[float] = []
        for kind in ("home", "category", "search", "product"):
            taken = sorted(world.time_kind(kind))
            every += taken
            rows.append((f"{bid_count:,} bids, {kind} page of 8 slots, µs p50 / p99", _percentiles(taken)))
        medians[bid_count] = statistics.median(every)
        rows.append(
            (f"{bid_count:,} bids, all kinds, µs p50 / p99 (must be ≤ 300 p50 at 100,000)", _percentiles(every))
        )
    if len(medians) > 1:
        least, most = min(medians), max(medians)
        rows.append((f"{most:,} bids against {least:,}, p50", f"{medians[most] / medians[least]:.2f} ×"))
    return rows


# --- the route beside a bare one --------------------------------------------------------------------------------


def measure_fills(bid_count: int = 100_000, candidate_count: int = 200, rounds: int = 30) -> list[tuple[str, str]]:
    """Rows of the table: `POST /v1/fills` beside a bare Starlette route, over HTTP."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, bid_count, candidate_count))
    server.start()
    try:
        port, bodies = ours.recv()
        per_request: dict[str, list[float]] = {path: [] for path in ("/bare", "/json", "/v1/fills")}
        rate: dict[str, list[float]] = {path: [] for path in per_request}
        ours.send("warm")
        for path in per_request:
            _ask(port, path, bodies)
        for number in range(rounds):
            for path in sorted(per_request, reverse=bool(number % 2)):
                ours.send("processor")
                before = ours.recv()
                began = time.perf_counter()
                _ask(port, path, bodies)
                rate[path].append(len(bodies) / (time.perf_counter() - began))
                ours.send("processor")
                per_request[path].append((ours.recv() - before) / len(bodies) * 1e6)
    finally:
        ours.send("stop")
        server.join(10)
        server.terminate()
    cost = {path: statistics.median(taken) for path, taken in per_request.items()}
    speed = {path: statistics.median(taken) for path, taken in rate.items()}
    fills = "/v1/fills"
    return [
        ("bare route with msgspec's typed decoder, µs of processor a request", f"{cost['/bare']:.0f}"),
        ("bare route with Starlette's own request.json(), µs of processor", f"{cost['/json']:.0f}"),
        (f"POST /v1/fills, {bid_count:,} bids, {candidate_count} candidates, µs of processor", f"{cost[fills]:.0f}"),
        ("fills against bare with msgspec, processor / requests a second", _shares("/bare", cost, speed)),
        ("fills against bare with request.json(), processor / requests a second", _shares("/json", cost, speed)),
    ]


def _shares(path: str, cost: dict[str, float], speed: dict[str, float]) -> str:
    return f"{cost[path] / cost['/v1/fills']:.0%} / {speed['/v1/fills'] / speed[path]:.0%}"


def _ask(port: int, path: str, bodies: list[bytes]) -> None:
    """Send every body to a path over one connection, each after the answer to the one before."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for body in bodies:
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            answer = connection.recv(65536)
            place = answer.index(b"\r\n\r\n") + 4
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert answer.startswith(b"HTTP/1.1 200"), answer[:400]
            while len(answer) - place < length:
                answer += connection.recv(65536)


def make_server(bid_count: int, folder: Path) -> SlotServer:
    """A slot server of so many bids, with beacons and receipts, everything in memory but the receipts."""
    snapshot = build_snapshot(large_source(bid_count, slot_count=4), some_quality)
    columns, names = snapshot.columns, snapshot.names
    assert len(columns.product_price) == len(names.product_id)
    products = large_source(1, slot_count=4).products
    visitors = VisitorStore(AffinitySettings(), Pseudonymizer(bytes(32)), None, read_facts(products))
    server = SlotServer(
        bind_model=lambda ids: BoundModel(ids, some_quality(ids)),
        visitors=visitors,
        seal=BeaconKeys.parse(BeaconKeys.generate()).seal_beacon,
        settings=SETTINGS,
        key=bytes(32),
        receipts=ReceiptLog(folder, SETTINGS),
    )
    snapshot.save(folder / "snapshot")  # a serving process maps what the builder wrote
    server.swap(Snapshot.load(folder / "snapshot"))
    for advertiser_id in snapshot.advertiser_id:
        server.apply_funds(advertiser_id, 10**12)
    return server


def bodies_for(server: SlotServer, candidate_count: int, count: int = 200, seed: int = 5) -> list[bytes]:
    """Bodies of pages with so many candidates each, of visitors who viewed some of them."""
    chance = random.Random(seed)
    snapshot = server.market.snapshot
    by_category: dict[int, list[str]] = {}
    for row, category in enumerate(snapshot.columns.product_category.tolist()):
        by_category.setdefault(category, []).append(snapshot.product_id[row])
    large = [category for category, members in by_category.items() if len(members) >= candidate_count]
    bodies: list[bytes] = []
    for number in range(count):
        category = chance.choice(large)
        shown = chance.sample(by_category[category], candidate_count)
        visitor_id = f"v{number % 50}"
        server.visitors.post(
            NavigationBatch(
                events=[
                    NavigationEvent(
                        visitor_id=visitor_id, action=Action.VIEW_ITEM, occurred_at=NOW, product_id=chance.choice(shown)
                    )
                    for _ in range(3)
                ]
            ),
            NOW_MS,
        )
        asked = SlotRequest(
            visitor_id=visitor_id,
            consent=Consent(personalised=True),
            page=Page(type="category", category_id=snapshot.names.category[category]),
            placements=[
                RequestPlacement(
                    placement_id="top",
                    candidates=[
                        RequestCandidate(product_id=name, organic_rank=rank, relevance=0.9)
                        for rank, name in enumerate(shown, 1)
                    ],
                )
            ],
            context={"device": "mobile"},
        )
        bodies.append(msgspec.json.encode(asked))
    return bodies


def _serve(pipe: Connection, bid_count: int, candidate_count: int) -> None:
    with TemporaryDirectory() as folder:
        server = make_server(bid_count, Path(folder))
        bodies = bodies_for(server, candidate_count)
        decode = msgspec.json.Decoder(SlotRequest).decode
        sample = msgspec.json.encode(server.fill(decode(bodies[0]), server.clock_ms()))

        async def bare(asked: Request) -> Response:
            decode(await asked.body())
            return Response(sample, media_type="application/json")

        async def json(asked: Request) -> Response:
            await asked.json()
            return Response(sample, media_type="application/json")

        bases = [Route("/bare", bare, methods=["POST"]), Route("/json", json, methods=["POST"])]
        app = Starlette(routes=[*bases, *routes(server)])
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be gone through again
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, log_level="warning", access_log=False, loop="uvloop", http="httptools")
        serving = uvicorn.Server(config)

        async def run() -> None:
            loop = asyncio.get_running_loop()

            def hear() -> None:
                word = pipe.recv()
                if word == "processor":
                    used = resource.getrusage(resource.RUSAGE_SELF)
                    pipe.send(used.ru_utime + used.ru_stime)
                elif word == "stop":
                    serving.should_exit = True

            loop.add_reader(pipe.fileno(), hear)
            pipe.send((listening.getsockname()[1], bodies))
            await serving.serve([listening])

        asyncio.run(run())


def _percentiles(taken: list[float]) -> str:
    ordered = sorted(taken)
    return f"{ordered[len(ordered) // 2]:.0f} / {ordered[int(len(ordered) * 0.99)]:.0f}"


def rows() -> list[tuple[str, str]]:
    """Every row of this file's table."""
    return [*measure_decisions(), *measure_fills()]


def main(show: Callable[[str], None] = print) -> int:
    """Print the table."""
    table = rows()
    width = max(len(name) for name, _ in table)
    for name, figure in table:
        show(f"{name:<{width}}  {figure:>12}")
    show(f"machine: {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
