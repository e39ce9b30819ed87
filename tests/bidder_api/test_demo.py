"""`endcap demo`, from outside: what it prints, what it keeps, and that a second start finds it there."""

import gzip
import re
import stat
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from bidder_api.demonstration.client import ApiClient, CallFailedError, ServerGoneError
from bidder_api.demonstration.load import move_dates, whole_weeks_to
from tests.demo_process import DemoProcess

WHAT_A_ROLE_MAY = {
    "admin": "/v1/keys",
    "merchant": "/v1/placements",
    "retailer": "/v1/products",
    "advertiser": "/v1/campaigns",
    "finance": "/v1/ledger/trial-balance",
    "auditor": "/v1/ledger/trial-balance",
}


def test_it_prints_addresses_and_one_working_key_per_role(demo: DemoProcess) -> None:
    assert f"{demo.url}/" in demo.output
    assert f"{demo.url}/docs" in demo.output
    keys = demo.keys
    assert {*WHAT_A_ROLE_MAY, "site", "crm"} <= set(keys)
    for role, path in WHAT_A_ROLE_MAY.items():
        with ApiClient(demo.port, keys[role]) as client:
            assert client.call("GET", path)
    with ApiClient(demo.port, keys["site"]) as client, pytest.raises(CallFailedError, match=r"40[13]"):
        client.call("GET", "/v1/keys")


def test_kernels_are_not_compiled_before_there_is_anything_to_see() -> None:
    program = "import sys, bidder_api.demo; print([name for name in sys.modules if name.endswith('.kernel')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_keys_are_kept_for_their_owner_alone(demo: DemoProcess) -> None:
    assert stat.S_IMODE((demo.data_dir / "keys.json").stat().st_mode) == 0o600


def test_the_self_check_is_within_budget_and_the_books_balance(demo: DemoProcess) -> None:
    check = re.search(r"1,000 fills over HTTP, p50 ([\d.]+) ms, p99 ([\d.]+) ms, (within|over) the budget", demo.output)
    assert check
    assert float(check[1]) < 20
    assert re.search(r"Ledger: .*trial balance 0\b", demo.output)
    assert re.search(r"[1-9]\d* billed, \$\d", demo.output)


def test_every_page_has_fills_from_the_start(demo: DemoProcess) -> None:
    with ApiClient(demo.port, None) as browser:
        for path in ("/", "/c/dairy-eggs", "/p/1029743"):
            status, page = browser.raw("GET", path)
            assert status == 200
            assert b'class="tile' in page


def test_no_raw_visitor_is_on_the_disk(demo: DemoProcess) -> None:
    for path in demo.data_dir.rglob("*"):
        if path.is_file():
            assert b"household-1836" not in path.read_bytes(), path


def test_a_second_start_finds_everything_there_even_on_another_port(tmp_path: Path) -> None:
    with DemoProcess(tmp_path / "data") as first:
        first.wait_for("\ncrm ")
        keys = first.keys
        assert "Training" in first.output
        assert first.stop() == 0, first.output  # in the middle of its self-check
    with DemoProcess(tmp_path / "data") as second:
        second.wait_for("\ncrm ")
        assert "Importing" not in second.output
        assert "Training" not in second.output
        for role in keys.keys() - {"site"}:  # a site's key is bound to its origin, port and all
            assert second.keys[role] == keys[role]
        assert second.keys["site"] != keys["site"]
        assert second.stop() == 0, second.output


def test_a_port_in_use_is_refused_before_anything_is_done(demo: DemoProcess, tmp_path: Path) -> None:
    with DemoProcess(tmp_path / "data", demo.port) as second:
        assert second.process.wait(60) == 1
    assert f"port {demo.port} cannot be listened on" in second.output
    assert not (tmp_path / "data").exists()


def test_dates_are_moved_by_whole_weeks_into_the_last_week() -> None:
    for today in (date(2026, 11, 24), date(2027, 2, 28), date(2018, 1, 3)):
        shift = whole_weeks_to(today)
        assert shift.days % 7 == 0
        assert timedelta(0) <= today - (date(2018, 1, 1) + shift) < timedelta(days=7)


def test_moving_dates_changes_nothing_else(tmp_path: Path) -> None:
    source, target = tmp_path / "a.gz", tmp_path / "b"
    lines = [
        '{"occurred_at":"2017-12-31T10:00:00Z","visitor_id":"2017-12-31"}\n',
        "1\tMilk\t2017-12-31\t2.79 USD\n",
        '{"visitor_id":"h","segments":[]}\n',
    ]
    source.write_bytes(gzip.compress("".join(lines).encode()))
    move_dates(source, target, timedelta(days=7))
    assert target.read_text() == (
        '{"occurred_at":"2018-01-07T10:00:00Z","visitor_id":"2017-12-31"}\n'
        "1\tMilk\t2018-01-07\t2.79 USD\n"
        '{"visitor_id":"h","segments":[]}\n'
    )


def test_the_client_tells_a_server_that_is_gone_from_one_that_refuses(demo: DemoProcess) -> None:
    with ApiClient(1, None) as nobody, pytest.raises(ServerGoneError):
        nobody.call("GET", "/readyz")
    with ApiClient(1, None) as nobody, pytest.raises(TimeoutError, match=r"/readyz was not there after 0\.2 s"):
        nobody.wait_until("/readyz", 0.2)
    with ApiClient(demo.port, None) as somebody, pytest.raises(CallFailedError, match="401"):
        somebody.call("GET", "/v1/keys")
