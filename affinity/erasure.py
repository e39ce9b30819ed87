"""Erasure: out of memory, the navigation log, the database, and whatever other packages hold under a pseudonym.

A person is erased when somebody asks for it and waits until it is done. A visitor who withdraws consent is forgotten
in memory at once, by `VisitorStore.withdraw`; here their lines and rows follow.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any

from msgspec import Struct
from sqlalchemy.engine import Connection

from affinity import store
from affinity.held import HeldElsewhere
from affinity.navigation_log import NavigationLog
from affinity.shared_visitors import SharedVisitors
from affinity.visitors import VisitorStore

Transact = Callable[[Callable[[Connection], Any]], Any]

# After withdrawals were taken out of the files, the next ones gather for a while and share one rewriting: for so many
# seconds, or so many times as long as it took.
WITHDRAWAL_REST_S = 20.0
WITHDRAWAL_REST = 10


def _erase_nothing(_connection: Connection, _pseudonyms: Collection[bytes]) -> None:
    pass


def _read_nothing(_connection: Connection, _pseudonyms: Collection[bytes]) -> HeldElsewhere:
    return HeldElsewhere()


def _scrub_nothing(_pseudonyms: Collection[bytes]) -> None:
    pass


class Elsewhere(Struct, frozen=True, kw_only=True):
    """How what other packages hold of visitors is read and erased.

    Attributes:
        erase: erases it, in the transaction that erases ours.
        read: reads it.
        scrub: leaves none of the pseudonyms' bytes in the database's files, after the transaction; may raise
            `ErasureUnfinished`.
    """

    erase: Callable[[Connection, Collection[bytes]], None] = _erase_nothing
    read: Callable[[Connection, Collection[bytes]], HeldElsewhere] = _read_nothing
    scrub: Callable[[Collection[bytes]], None] = _scrub_nothing


class Eraser:
    """Erases visitors of a serving process; used on its event loop.

    Attributes:
        busy: held while somebody is erased; who takes profiles over from the database holds it too, so that none comes
            back that is being deleted.

    Args:
        visitors: whose memory and log it is.
        transact: runs a function in one transaction; called in a thread of its own.
        retailer_id: whose deployment it is.
        elsewhere: what else there is.
        shared: where other processes share the visitors; None where they do not.
    """

    def __init__(
        self,
        visitors: VisitorStore,
        transact: Transact,
        retailer_id: str,
        elsewhere: Elsewhere,
        shared: SharedVisitors | None = None,
    ) -> None:
        self._shared = shared
        self._visitors = visitors
        self._transact = transact
        self._retailer_id = retailer_id
        self._elsewhere = elsewhere
        self.busy = asyncio.Lock()
        self._unscrubbed: set[bytes] = set()
        self._rests_until = 0.0

    async def erase_person(self, pseudonym: bytes) -> None:
        """Erase every device of a person, and their customer. When this returns, no file holds their pseudonyms.

        The database goes after memory and log, since it knows which devices belong together: an erasure that failed
        midway is whole when it is asked for again.

        Raises:
            ErasureUnfinished: something could not be rewritten now.
        """
        linked: set[bytes] = await self._in_transaction(
            lambda connection: store.read_person(connection, self._retailer_id, pseudonym)
        )
        async with self.busy:
            gone = {*linked, *self._visitors.devices(pseudonym)}
            self._visitors.forget(gone)
            await self._erase_log(NavigationLog.erase, gone)
            if self._shared is not None:
                await self._shared.forget(gone)
            await self._erase_rows(gone)
        self._unscrubbed |= gone
        traces = frozenset(self._unscrubbed)
        await asyncio.to_thread(self._elsewhere.scrub, traces)
        if self._shared is not None:
            await self._shared.confirm(traces)
        self._unscrubbed -= traces

    async def finish_withdrawals(self, *, at_once: bool = False) -> int:
        """Take those who withdrew consent out of log and database; return how many they were.

        The log goes last, since its lines say who withdrew: what failed midway, or was killed, the next start finishes.

        To be called every second or so. After one that took long it rests, so that withdrawals gather; `at_once` does
        not wait for that, as for somebody who agreed again and is told something new of.
        """
        if not self._visitors.withdrawn or (time.monotonic() < self._rests_until and not at_once):
            return 0
        if self._shared is not None and not self._shared.is_up and not at_once:
            return 0  # the log may not be rewritten before its lines are shared
        async with self.busy:
            began = time.monotonic()
            gone = self._visitors.take_withdrawn()
            try:
                if gone:
                    await self._erase_rows(gone)
                    self._visitors.drop_profiles(gone)
                    await self._erase_log(NavigationLog.erase_withdrawn, gone)
            except BaseException:
                self._visitors.withdrawn |= gone
                raise
            ended = time.monotonic()
            self._rests_until = ended + max(WITHDRAWAL_REST_S, WITHDRAWAL_REST * (ended - began)) if gone else 0.0
        return len(gone)

    async def sweep_refused(self) -> int:
        """Take those out of the log who refused consent and are not in memory; return how many were looked for.

        To be called every hour or so: it reads the whole log.
        """
        gone = self._visitors.take_refused()
        if not gone:
            return 0
        async with self.busy:
            try:
                await self._erase_log(NavigationLog.erase, gone)
            except BaseException:
                self._visitors.keep_refused(gone)
                raise
        return len(gone)

    async def _erase_log(self, erase: Callable[[NavigationLog, set[bytes]], int], gone: set[bytes]) -> None:
        log = self._visitors.log
        if log is not None:
            log.rotate()
            if self._shared is not None:
                await self._shared.settle()
            await asyncio.to_thread(erase, log, gone)

    async def _erase_rows(self, gone: set[bytes]) -> None:
        def delete(connection: Connection) -> None:
            self._elsewhere.erase(connection, gone)
            store.delete_visitor(connection, self._retailer_id, gone)

        await self._in_transaction(delete)

    async def _in_transaction(self, work: Callable[[Connection], Any]) -> Any:
        return await asyncio.to_thread(self._transact, work)
