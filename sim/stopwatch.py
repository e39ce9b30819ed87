"""Where a run's processor seconds go, by part. Nothing that decides ever reads it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the processor time spent in named parts; parts do not overlap."""

    def __init__(self) -> None:
        self.parts_s: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside towards `name`."""
        started = time.process_time()
        try:
            yield
        finally:
            self.parts_s[name] = self.parts_s.get(name, 0.0) + time.process_time() - started
