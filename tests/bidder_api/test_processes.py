"""`endcap serve` as processes: live soon, alone in its folder, ended in order, and never without a writer."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bidder_api.children import Errand, SnapshotNews, decode_errand, encode_errand
from bidder_api.deployment import NotServable
from bidder_api.processes import OneAtATime, socket_path_in
from bidder_api.settings import AllSettings, Settings
from bidder_api.store import Deployment
from tests.server import RunningServer, ok

LIVE_WITHIN_S = 5.0  # a second is promised, on a machine that does nothing else


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("processes") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: RunningServer) -> Any:
    return server.client(server.create_key("admin"))


def children_of(pid: int) -> dict[str, int]:
    """Return the process ids of a server's children, by role."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == pid and b"bidder_api.children" in words:
            found[words[-2].decode()] = int(entry.name)
    return found


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def wait_until(what: Any, within_s: float = LIVE_WITHIN_S) -> Any:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if answer := what():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s")


def test_what_is_changed_is_live_soon(server: RunningServer, admin: Any) -> None:
    placement = {"page_types": ["home"], "slot_count": 1}
    ok(admin.put("/v1/placements/front", json=placement), 201)
    body = {"page": {"type": "home"}, "placements": [{"placement_id": "front"}]}
    wait_until(lambda: admin.post("/v1/fills", json=body).status_code == 200)


def test_a_key_works_at_once_and_stops_within_a_second_of_being_revoked(server: RunningServer) -> None:
    key = server.create_key("merchant")
    client = server.client(key)
    assert client.get("/v1/placements").status_code == 200
    server.run("keys", "revoke", "key_" + key.split("_")[2])
    wait_until(lambda: client.get("/v1/placements").status_code == 401)


def test_no_key_is_ever_logged(server: RunningServer) -> None:
    key = server.create_key("merchant")
    server.client(key).get("/v1/nothing")
    server.client(key[:-1] + "x").get("/v1/placements")
    assert key.split("_")[3] not in server.log()


def test_a_second_server_in_the_same_folder_is_refused(server: RunningServer) -> None:
    server.run("serve", "--port", "0", status=1)


def test_a_builder_that_is_gone_is_replaced_and_auctions_go_on(server: RunningServer, admin: Any) -> None:
    before = children_of(server.pid)["builder"]
    os.kill(before, signal.SIGKILL)
    body = {"page": {"type": "home"}, "placements": [{"placement_id": "front"}]}
    assert admin.post("/v1/fills", json=body).status_code == 200
    wait_until(lambda: children_of(server.pid).get("builder", before) != before, 20)
    ok(admin.put("/v1/placements/back", json={"page_types": ["home"], "slot_count": 1}), 201)
    body = {"page": {"type": "home"}, "placements": [{"placement_id": "back"}]}
    wait_until(lambda: admin.post("/v1/fills", json=body).status_code == 200, 20)


def test_a_stop_of_the_whole_group_ends_it_in_order(server: RunningServer) -> None:
    children = children_of(server.pid)
    assert set(children) == {"writer", "builder"}
    for pid in children.values():
        os.kill(pid, signal.SIGTERM)  # a service manager's stop reaches them all
    time.sleep(0.5)
    assert all(map(is_running, children.values()))
    assert server.stop() == 0
    wait_until(lambda: not any(map(is_running, children.values())))


def test_without_its_writer_it_ends_with_a_status(server: RunningServer) -> None:
    server.start()
    server.wait_ready()
    children = children_of(server.pid)
    os.kill(children["writer"], signal.SIGKILL)
    assert server.wait_ended() != 0
    wait_until(lambda: not is_running(children["builder"]))


def test_what_was_killed_leaves_no_child_behind(server: RunningServer) -> None:
    server.start()
    server.wait_ready()
    children = children_of(server.pid)
    server.kill()
    wait_until(lambda: not any(map(is_running, children.values())))


def test_an_errand_survives_the_way_to_a_child(tmp_path: Path) -> None:
    errand = Errand(
        settings=AllSettings(server=Settings(data_dir=tmp_path)),
        deployment=Deployment("retailer", "EUR", "UTC", 1),
        beacon_keys="1:x",
        socket_path=str(tmp_path / "s"),
    )
    assert decode_errand(encode_errand(errand)) == errand


def test_a_folder_too_deep_for_a_socket_is_refused_beforehand() -> None:
    with pytest.raises(NotServable, match="too long for a Unix socket"):
        socket_path_in(Path("/" + "x" * 120))


def test_of_snapshots_that_came_while_one_was_taken_up_only_the_newest_is() -> None:
    taken: list[int] = []

    async def take(news: SnapshotNews) -> None:
        await asyncio.sleep(0.01)
        taken.append(news.version)

    async def come() -> None:
        turn = OneAtATime(take)
        news = [SnapshotNews(version, str(version)) for version in (1, 2, 3)]
        await asyncio.gather(*map(turn.hear, [*news, SnapshotNews(-1, failure="full disk"), SnapshotNews(4, "4")]))
        await turn.hear(SnapshotNews(4, "4, of the next day"))

    asyncio.run(come())
    assert taken == [1, -1, 4, 4]
