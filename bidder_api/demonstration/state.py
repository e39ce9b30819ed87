"""How far the demo in a data folder is set up, and how progress is shown."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bidder_api.demonstration.keys import write_private

STATE_FILE = "demo.json"


class DemoRefusedError(Exception):
    """The demo cannot be set up; the message says why. Refusal code `demo_refused`."""

    code = "demo_refused"
    retryable = False


class State(Struct, kw_only=True):
    """What is done; written after each step, so that a start that was cut short goes on from there.

    Attributes:
        run_count: starts so far; simulated shoppers do something else each time.
    """

    is_loaded: bool = False
    is_trained: bool = False
    is_set_up: bool = False
    run_count: int = 0


def read_state(data_dir: Path) -> State:
    """Return how far the demo in a folder is set up."""
    try:
        return msgspec.json.decode((data_dir / STATE_FILE).read_bytes(), type=State)
    except FileNotFoundError:
        return State()


def write_state(data_dir: Path, state: State) -> None:
    """Keep how far the demo is set up."""
    write_private(data_dir / STATE_FILE, msgspec.json.encode(state))


def make_console() -> Console:
    """Return the console the demo prints to: long lines stay whole, numbers keep their colour."""
    return Console(highlight=False, soft_wrap=True)


@contextmanager
def showing(console: Console, title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar while something runs; a line where there is no terminal."""
    if not console.is_terminal:
        began = time.monotonic()
        yield lambda done, total: None
        console.print(f"  {title:<34} {time.monotonic() - began:.1f} s", markup=False)
        return
    columns = (TextColumn("  {task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
