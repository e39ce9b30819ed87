"""Where a run's seconds go, by part. The only place in the simulation that reads the machine's clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the time spent in named parts; parts do not overlap."""

    def __init__(self) -> None:
        self.parts_s: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside towards `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts_s[name] = self.parts_s.get(name, 0.0) + time.perf_counter() - started
