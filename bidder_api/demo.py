"""`endcap demo`: a grocer's shop with real products on the embedded database, everything on.

Data go in through the importers users have; placements, rules, money, campaigns and bids over the HTTP API, as a
merchant, finance and brands would send them. A second start finds it all there.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import msgspec

from bidder_api import processes
from bidder_api.access import derive_secret
from bidder_api.demonstration import market
from bidder_api.demonstration.keys import ensure_keys
from bidder_api.demonstration.state import DemoRefusedError, make_console, showing
from bidder_api.deployment import open_deployment
from bidder_api.settings import AllSettings, master_secret

CURRENCY = "USD"
STOP_WITHIN_S = 5.0
RECEIPT_SEGMENT_BYTES = 4_000_000  # small, since each of the shop's pages reads its own receipt back
RECEIPT_BYTES_MAX = 64_000_000


def run(settings: AllSettings, began_at: float) -> int:
    """Set the demo up where it is not yet, and serve it until SIGTERM or Ctrl-C; return the process's status.

    Args:
        settings: as the environment and the command line have them.
        began_at: when the command was given, in seconds since 1970: what is still to be imported may take long.
    """
    settings = demo_settings(settings)
    if settings.server.shares_visitors:
        raise DemoRefusedError("the demo keeps its visitors in memory: leave ENDCAP_VISITOR_STORE out")
    data_dir, port = settings.server.data_dir, settings.server.port
    check_port(settings.server.host, port)
    console = make_console()
    console.print(f"Endcap demo, data in {data_dir}", markup=False, style="bold")
    compiling = compile_kernels()
    # Imported here: it compiles kernels of its own, on another core meanwhile.
    from bidder_api.demonstration.load import load, read_shipped_products

    database, deployment = open_deployment(settings.server)
    try:
        load(settings, database, deployment, datetime.now(UTC).date(), console)
        hash_key = derive_secret(master_secret(settings.server), "access keys")
        advertiser_id = market.brands(read_shipped_products())[0].advertiser_id
        now_ms = time.time_ns() // 1_000_000
        ensure_keys(data_dir, database, deployment.retailer_id, hash_key, port, advertiser_id, now_ms)
    finally:
        database.close()
    if compiling.poll() is None:
        with showing(console, "Compiling kernels, once"):
            compiling.wait()
    host = HostProcess([str(data_dir), str(port), str(began_at)])  # trains meanwhile, on another core
    try:
        status = processes.serve(settings, pages="bidder_api.shop.mount:pages")
    finally:
        host_status = host.stop()
    return host_status or status


def compile_kernels() -> subprocess.Popen[bytes]:
    """Compile the auction's kernels beside everything else, into the cache; next to nothing if they are there."""
    return subprocess.Popen([sys.executable, "-c", "import auction.kernel"])  # our own interpreter


def demo_settings(settings: AllSettings) -> AllSettings:
    """Return the settings of the demo: always embedded, in dollars, with an organic click worth something."""
    server = msgspec.structs.replace(
        settings.server,
        database_url=None,
        currency=CURRENCY,
        time_zone="UTC",
        log_level="warning",
        port=settings.server.port or free_port(),
    )
    auction = msgspec.structs.replace(
        settings.auction,
        organic_click_value_micros=market.ORGANIC_CLICK_VALUE_MICROS,
        receipt_segment_bytes=RECEIPT_SEGMENT_BYTES,
        receipt_bytes_max=RECEIPT_BYTES_MAX,
    )
    return msgspec.structs.replace(settings, server=server, auction=auction)


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Check that nobody listens there, before anything is done: the host would greet another's server.

    Raises:
        DemoRefusedError: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as failure:
            raise DemoRefusedError(
                f"port {port} cannot be listened on ({failure.strerror}); choose another with --port"
            ) from failure


class HostProcess:
    """The host beside the server. If it fails, so does the demo."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "bidder_api.demonstration.host", *arguments]
        )
        self._is_wanted = True
        threading.Thread(target=self._watch, name="host", daemon=True).start()

    def stop(self) -> int:
        """End it if it still runs; return its status if it ended by itself, else 0."""
        self._is_wanted = False
        status = self._process.poll()
        if status is not None:
            return status
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return 0

    def _watch(self) -> None:
        if self._process.wait() != 0 and self._is_wanted:
            os.kill(os.getpid(), signal.SIGTERM)
