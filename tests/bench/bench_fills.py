"""What `POST /v1/fills` costs beside bare Starlette routes: the real `endcap serve`, with keys, receipts and a model.

Run as `python -m tests.bench.bench_fills`. The server has 100,000 bids in its database; pages send 200 candidates, and
their visitors have profiles and sessions. The bare routes are a Starlette application on stock uvicorn that decodes the
same bodies and returns as many bytes. Both run on processor 1 and are asked in turns, so that a busy machine slows them
alike; the client is on processor 0. Compared is the processor time a request takes, and so how many a second one
processor can answer.
"""

import asyncio
import json
import multiprocessing
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from affinity.store import ensure_advertisers, next_change_seq, upsert_products
from auction.builder import SnapshotSource
from auction.request import SlotRequest
from auction.store import insert_bids, insert_campaign, put_placement
from bidder_api.database import open_database
from bidder_api.deployment import RETAILER_ID
from tests.auction.worlds import large_source
from tests.server import RunningServer, free_port, ok

SERVER_CPU, CLIENT_CPU = 1, 0
CANDIDATE_COUNT = 200
BODY_COUNT = 200
CONNECTION_COUNT = 8
VISITOR_COUNT = 100


# --- a shop to ask -----------------------------------------------------------------------------------------------


@contextmanager
def running_shop(bid_count: int) -> Iterator[tuple[RunningServer, str, list[bytes]]]:
    """Yield a server with so many bids in its database, a retailer's key, and bodies to ask it with."""
    source = large_source(bid_count, slot_count=4)
    with TemporaryDirectory() as folder:
        variables = {"ENDCAP_TIME_ZONE": "Europe/Paris", "ENDCAP_METRICS": "open"}
        server = RunningServer(Path(folder) / "data", variables=variables)
        server.run("db", "upgrade")
        _fill_database(server.data_dir / "endcap.db", source)
        _train(server, Path(folder), source)
        with server:
            os.sched_setaffinity(server.pid, {SERVER_CPU})
            site = server.client(server.create_key("retailer"))
            finance = server.client(server.create_key("finance"))
            for name in source.advertiser_names:
                top_up = {"advertiser_id": name, "amount_micros": 10**12, "reference": f"bench {name}"}
                ok(finance.post("/v1/ledger/top-ups", json=top_up))
            bodies = _bodies(source)
            _look_around(site, source)
            _wait_for_paid_fills(site, bodies[0])
            yield server, site.headers["Authorization"], bodies


def _fill_database(path: Path, source: SnapshotSource) -> None:
    database = open_database(f"sqlite:///{path}")

    def write(connection: Any) -> None:
        change_seq = next_change_seq(connection, RETAILER_ID)
        ensure_advertisers(connection, RETAILER_ID, source.advertiser_names, 0)
        upsert_products(connection, RETAILER_ID, source.products, change_seq)
        for placement in source.placements:
            put_placement(connection, RETAILER_ID, msgspec.structs.replace(placement, change_seq=change_seq))
        for campaign in source.campaigns:
            insert_campaign(connection, RETAILER_ID, msgspec.structs.replace(campaign, change_seq=change_seq))
        insert_bids(
            connection, RETAILER_ID, [msgspec.structs.replace(bid, change_seq=change_seq) for bid in source.bids]
        )

    database.transact(write)
    database.close()


def _train(server: RunningServer, folder: Path, source: SnapshotSource) -> None:
    """Import sessions of a few products of one category each, and train the model the server will use."""
    chance = random.Random(4)
    by_category = _by_category(source)
    leaves = list(by_category)
    now = time.time()
    with (folder / "sessions.jsonl").open("w") as file:
        for session in range(10_000):
            began = now - chance.uniform(2, 20) * 86_400
            for step, product_id in enumerate(chance.choices(by_category[chance.choice(leaves)], k=5)):
                event = {
                    "visitor_id": f"past-{session}",
                    "action": "view_item",
                    "product_id": product_id,
                    "occurred_at": datetime.fromtimestamp(began + 20 * step, UTC).isoformat(),
                }
                file.write(json.dumps(event) + "\n")
    server.run("navigation", "import", str(folder / "sessions.jsonl"))
    server.run("affinity", "train")


def _by_category(source: SnapshotSource) -> dict[str, list[str]]:
    by_category: dict[str, list[str]] = {}
    for product in source.products:
        by_category.setdefault(product.product_type or "", []).append(product.product_id)
    return by_category


def _bodies(source: SnapshotSource) -> list[bytes]:
    chance = random.Random(5)
    large = [(name, members) for name, members in _by_category(source).items() if len(members) >= CANDIDATE_COUNT]
    bodies: list[bytes] = []
    for number in range(BODY_COUNT):
        category, members = chance.choice(large)
        shown = chance.sample(members, CANDIDATE_COUNT)
        page = {
            "visitor_id": f"v{number % VISITOR_COUNT}",
            "consent": {"personalised": True},
            "page": {"type": "category", "category_id": category},
            "placements": [
                {
                    "placement_id": "top",
                    "candidates": [
                        {"product_id": name, "organic_rank": rank, "relevance": 0.9}
                        for rank, name in enumerate(shown, 1)
                    ],
                }
            ],
            "context": {"device": "mobile"},
        }
        bodies.append(json.dumps(page, separators=(",", ":")).encode())
    return bodies


def _look_around(site: httpx2.Client, source: SnapshotSource) -> None:
    """Give every visitor a profile and a session."""
    chance = random.Random(6)
    names = [product.product_id for product in source.products]
    for number in range(VISITOR_COUNT):
        profile = {"segments": [f"segment{chance.randrange(60)}" for _ in range(4)], "attributes": {"age": 40}}
        ok(site.put(f"/v1/profiles/v{number}", json=profile | {"segments": sorted(set(profile["segments"]))}))
        now = time.time()
        events = [
            {
                "visitor_id": f"v{number}",
                "action": "view_item",
                "product_id": chance.choice(names),
                "occurred_at": datetime.fromtimestamp(now - 60 + 10 * step, UTC).isoformat(),
            }
            for step in range(5)
        ]
        ok(site.post("/v1/navigation", json={"events": events}), 202)


def _wait_for_paid_fills(site: httpx2.Client, body: bytes) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        answer = site.post("/v1/fills", content=body)
        if answer.status_code == 200 and b'"is_sponsored":true' in answer.content:
            return
        time.sleep(0.1)
    raise TimeoutError("no paid fill within 60 s")


# --- bare routes -------------------------------------------------------------------------------------------------


def _serve_bare(port: int, answer: bytes) -> None:
    """Serve routes that decode the body and return as many bytes, and nothing else."""
    os.sched_setaffinity(0, {SERVER_CPU})
    decode = msgspec.json.Decoder(SlotRequest).decode

    async def typed(asked: Request) -> Response:
        decode(await asked.body())
        return Response(answer, media_type="application/json")

    async def plain(asked: Request) -> Response:
        await asked.json()
        return Response(answer, media_type="application/json")

    app = Starlette(routes=[Route("/typed", typed, methods=["POST"]), Route("/json", plain, methods=["POST"])])
    uvicorn.run(app, port=port, log_level="warning", access_log=False, loop="uvloop", http="httptools")


@contextmanager
def bare_server(answer: bytes) -> Iterator[tuple[int, int]]:
    """Yield port and process id of the bare routes."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve_bare, args=(port, answer), daemon=True)
    process.start()
    try:
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        assert process.pid is not None
        yield port, process.pid
    finally:
        process.terminate()
        process.join(10)


# --- asking ------------------------------------------------------------------------------------------------------


def processor_s(pid: int) -> float:
    """Return the processor time of a process and its threads, in seconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # a thread that ended
    return total / 1e9


def message(path: str, authorization: str, body: bytes) -> bytes:
    """Return a request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def ask_all(port: int, messages: Sequence[bytes]) -> int:
    """Send every message, as many at once as there are connections, so that the server is never idle.

    Return the bytes of the last answer's body.
    """
    size = 0
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTION_COUNT)
        ]
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(messages), CONNECTION_COUNT):
            asked = list(zip(connections, messages[first : first + CONNECTION_COUNT], strict=False))
            for connection, one in asked:
                connection.sendall(one)
            for connection, _ in asked:
                answer = connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200"), answer[:400]
                place = answer.index(b"\r\n\r\n") + 4
                size = int(answer[:place].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(answer) < place + size:
                    answer += connection.recv(65536)
    return size


def measure_capacity(
    server: RunningServer, authorization: str, bodies: list[bytes], rounds: int = 20
) -> list[tuple[float, float]]:
    """Return microseconds of processor per request, and requests a second, medians over rounds in turns.

    Of the bare route with msgspec, the one with `request.json()`, and ours.
    """
    ours = [message("/v1/fills", authorization, body) for body in bodies]
    size = ask_all(server.port, ours)
    with bare_server(b"x" * size) as (port, pid):
        routes = [
            (port, pid, [message("/typed", authorization, body) for body in bodies]),
            (port, pid, [message("/json", authorization, body) for body in bodies]),
            (server.port, server.pid, ours),
        ]
        taken: list[list[tuple[float, float]]] = [[] for _ in routes]
        for number in range(rounds + 1):
            for place, (to, of, messages) in enumerate(routes):
                before, began = processor_s(of), time.perf_counter()
                ask_all(to, messages)
                took_s = time.perf_counter() - began
                if number:  # the first one warms up
                    taken[place].append(((processor_s(of) - before) / len(messages) * 1e6, len(messages) / took_s))
    return [(statistics.median(us for us, _ in one), statistics.median(rate for _, rate in one)) for one in taken]


class Connection(asyncio.Protocol):
    """One connection of the open-loop client: a request at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] | None = None
        self._answer = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the way out."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in a piece of the answer."""
        self._answer += data
        place = self._answer.find(b"\r\n\r\n") + 4
        if place < 4:
            return
        size = int(self._answer[:place].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(self._answer) >= place + size:
            assert self._answer.startswith(b"HTTP/1.1 200"), self._answer[:300]
            self._answer = b""
            assert self.answered is not None
            self.answered.set_result(None)


async def ask_at_rate(
    port: int, messages: Sequence[bytes], rate: float, seconds: float, connection_count: int = 32
) -> list[float]:
    """Send requests at random instants, `rate` a second on average; return milliseconds from instant to answer."""
    loop, chance = asyncio.get_running_loop(), random.Random(7)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connection_count):
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        free.put_nowait(connection)
    taken: list[float] = []

    async def ask(one: bytes, due: float) -> None:
        connection = await free.get()
        connection.answered = loop.create_future()
        connection.transport.write(one)
        await connection.answered
        taken.append((loop.time() - due) * 1_000)
        free.put_nowait(connection)

    due, number, tasks = loop.time() + 0.1, 0, set()
    ends = due + seconds
    while due < ends:
        delay = due - loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.ensure_future(ask(messages[number % len(messages)], due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += chance.expovariate(rate)
        number += 1
    await asyncio.gather(*tasks)
    return taken


def late_count(server: RunningServer) -> tuple[int, int, int]:
    """Return how many auctions there were, how many answers were late and how many partial, as the server counts."""
    found = {"endcap_auctions_total": 0, "endcap_auction_late_total": 0, "endcap_auction_partial_total": 0}
    for line in httpx2.get(f"{server.url}/metrics").text.splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name] = int(float(value))
    auctions, late, partial = found.values()
    return auctions, late, partial


def rows(bid_count: int = 100_000, rounds: int = 20, seconds: float = 8.0) -> list[tuple[str, str]]:
    """Rows of the table."""
    os.sched_setaffinity(0, {CLIENT_CPU})
    with running_shop(bid_count) as (server, authorization, bodies):
        (typed_us, typed), (json_us, plain), (fills_us, fills) = measure_capacity(server, authorization, bodies, rounds)
        what = f"POST /v1/fills, {bid_count:,} bids, {CANDIDATE_COUNT} candidates"
        table = [
            (
                "bare route, body decoded into typed structs by msgspec: µs of processor, requests/s",
                f"{typed_us:.0f}, {typed:,.0f}",
            ),
            ("bare route, Starlette's own request.json(): µs of processor, requests/s", f"{json_us:.0f}, {plain:,.0f}"),
            (f"{what}: µs of processor, requests/s", f"{fills_us:.0f}, {fills:,.0f}"),
            ("fills' requests/s against the bare route with msgspec", f"{fills / typed:.0%}"),
            ("fills' requests/s against the bare route with request.json() (must be ≥ 60 %)", f"{fills / plain:.0%}"),
        ]
        rate = 0.5 * 1e6 / fills_us
        ours = [message("/v1/fills", authorization, body) for body in bodies]
        taken = sorted(asyncio.run(ask_at_rate(server.port, ours, rate, seconds)))
        table.append(
            (
                f"at half of its capacity, {rate:.0f} requests/s: ms p50 / p99 / p99.9 at the client",
                f"{_at(taken, 0.5):.1f} / {_at(taken, 0.99):.1f} / {_at(taken, 0.999):.1f}",
            )
        )
        for tmax_ms in (2, 5, 20):
            asked = [_with_tmax(body, tmax_ms) for body in bodies]
            messages = [message("/v1/fills", authorization, body) for body in asked]
            before = late_count(server)
            asyncio.run(ask_at_rate(server.port, messages, rate, seconds))
            held, late, partial = (now - then for now, then in zip(late_count(server), before, strict=True))
            table.append(
                (f"tmax {tmax_ms} ms at that rate: answers in time, partial", f"{1 - late / held:.3%}, {partial}")
            )
        return table


def _with_tmax(body: bytes, tmax_ms: int) -> bytes:
    return json.dumps(json.loads(body) | {"tmax_ms": tmax_ms}, separators=(",", ":")).encode()


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main(show: Callable[[str], None] = print) -> int:
    """Print the table."""
    table = rows()
    width = max(len(name) for name, _ in table)
    for name, figure in table:
        show(f"{name:<{width}}  {figure:>16}")
    show(f"machine: {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
