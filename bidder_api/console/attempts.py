"""How often somebody may try to sign in."""

from collections import deque
from collections.abc import Callable, Iterable

WINDOW_MS = 15 * 60_000
PER_ADDRESS, PER_NAME = 20, 100  # a name's is the higher, so that nobody locks another out from one address
KNOWN_COUNT_MAX = 10_000


class TooManyAttempts(Exception):
    """Not now; `retry_after_s` says when."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many attempts to sign in; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Attempts:
    """Attempts of the last quarter of an hour, by address and by name; those that succeed are not counted."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._times: dict[tuple[str, str], deque[int]] = {}

    def begin(self, address: str, name: str | None) -> None:
        """Count an attempt before anything is looked at, so that many at once are counted too.

        Raises:
            TooManyAttempts: there were as many as may be; this one is not looked at.
        """
        now_ms = self._clock_ms()
        counted = list(self._counted(address, name))
        for key, most in counted:
            times = self._times.get(key, deque())
            while times and times[0] <= now_ms - WINDOW_MS:
                times.popleft()
            if len(times) >= most:
                raise TooManyAttempts((times[0] + WINDOW_MS - now_ms + 999) // 1000)
        for key, _most in counted:
            self._times.setdefault(key, deque()).append(now_ms)
        while len(self._times) > KNOWN_COUNT_MAX:
            self._times.pop(next(iter(self._times)))

    def succeed(self, address: str, name: str | None) -> None:
        """Take the last attempt back: it was the right one."""
        for key, _most in self._counted(address, name):
            if self._times.get(key):
                self._times[key].pop()

    def _counted(self, address: str, name: str | None) -> Iterable[tuple[tuple[str, str], int]]:
        yield ("address", address), PER_ADDRESS
        if name is not None:
            yield ("name", name), PER_NAME
