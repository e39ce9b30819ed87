"""Visitors' state in a Valkey or Redis server that several serving processes share: keys, scripts, and nothing else.

A visitor is one list there: a version, a packed record, then the lines of the navigation log that are not in the record
yet. Every process only appends, so that two of them writing at once lose nothing, and needs no look at what is there
first; whoever sees many lines folds them into the record, and that counts only where nobody else did meanwhile. What
was read once is read on from its version. Each process's position in its own log is written with the lines, by one
script, so that every line of a log is there exactly once, whatever broke when.

All keys carry one hash tag, and pseudonyms instead of ids. Source of the commands: https://valkey.io/commands/
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import msgspec
import structlog
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from msgspec import Struct

from affinity.computed import DAY_MS, Purchases
from affinity.errors import SharedStoreUnavailable, VisitorStoreRefused
from affinity.navigation_log import CLICKED, RENDERED, WITHDRAWN, LogLine
from affinity.packing import Names, pack, unpack
from affinity.pseudonym import PSEUDONYM_SIZE, Pseudonymizer
from affinity.record import VisitorRecord
from affinity.record_file import settled
from affinity.settings import Settings

if TYPE_CHECKING:
    from valkey.asyncio import Valkey

T = TypeVar("T")

COMMAND_WITHIN_S = 2.0  # then the server counts as gone
CONNECTION_COUNT_MAX = 256
PROCESS_ID_LENGTH = 16
NO_PROCESS = "0" * PROCESS_ID_LENGTH  # who only reads
EVENT_ID_COUNT_MAX = 500  # remembered of one visitor: as many as one batch may hold
EVENT_ID_KEPT_MS = 2 * DAY_MS  # longer than events may be late
EVERLASTING_MS = 36_500 * DAY_MS  # an expiry all the same, so that `maxmemory-policy volatile-lru` may evict
AWAY_AFTER_MS = 10_000  # a process not heard of for so long is not waited for; it catches up when it comes back
RETIRED_AFTER_MS = 7 * DAY_MS  # and after so long it is not expected back
ADD, AFTER_FILL, FORGET = "a", "f", "w"  # what is to become of a line

# KEYS: positions, processes, erasures, index, then of each visitor the list and the event ids.
# ARGV: process, file, position before and after, milliseconds the list and the ids are kept, count of ids and of
# visitors; pseudonyms; the same, veiled; then of each line visitor, kind, event id or '', time and text.
_APPEND = """
local at = redis.call('HGET', KEYS[1], ARGV[2]) or '0'
if at ~= ARGV[3] then return {at} end
local process, count = ARGV[1], tonumber(ARGV[8])
local has_erasures = redis.call('EXISTS', KEYS[3]) == 1
local version, first, oldest, touched, taken = {}, {}, {}, {}, {}
for i = 1, count do
  local length = redis.call('LLEN', KEYS[3 + 2 * i])
  version[i] = length == 0 and 0 or tonumber(redis.call('LINDEX', KEYS[3 + 2 * i], 0)) + length - 2
  first[i] = version[i]
end
for place = 9 + 2 * count, #ARGV, 5 do
  local i, kind, event = tonumber(ARGV[place]), ARGV[place + 1], ARGV[place + 2]
  local at_ms, text = tonumber(ARGV[place + 3]), ARGV[place + 4]
  local list, ids, whose, veiled = KEYS[3 + 2 * i], KEYS[4 + 2 * i], ARGV[8 + i], ARGV[8 + count + i]
  local is_taken = true
  if kind == 'w' then
    redis.call('DEL', list, ids)
    redis.call('ZREM', KEYS[4], whose)
    version[i], oldest[i] = 0, nil
    for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
      if other ~= process then redis.call('HSET', KEYS[3], other .. veiled, ARGV[place + 3]) end
    end
  else
    if has_erasures then
      local until_ms = redis.call('HGET', KEYS[3], process .. veiled)
      is_taken = not until_ms or at_ms > tonumber(until_ms)
    end
    if kind == 'f' and version[i] == 0 then is_taken = false end
    if is_taken and event ~= '' then
      is_taken = redis.call('ZADD', ids, 'NX', at_ms, event) == 1
    end
    if is_taken then
      if version[i] == 0 then
        local now = redis.call('TIME')
        version[i] = tonumber(now[1]) * 1000000 + tonumber(now[2])
        redis.call('RPUSH', list, string.format('%.0f', version[i]), '')
      end
      redis.call('RPUSH', list, text)
      version[i] = version[i] + 1
      oldest[i] = math.min(oldest[i] or at_ms, at_ms)
    end
  end
  taken[#taken + 1] = is_taken and '1' or '0'
end
local answer = {ARGV[4], table.concat(taken)}
for i = 1, count do
  local list, ids = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  if oldest[i] then
    redis.call('PEXPIRE', list, ARGV[5])
    redis.call('ZREMRANGEBYRANK', ids, 0, -tonumber(ARGV[7]) - 1)
    redis.call('PEXPIRE', ids, ARGV[6])
    redis.call('ZADD', KEYS[4], 'LT', oldest[i], ARGV[8 + i])
  end
  answer[#answer + 1] = first[i]
  answer[#answer + 1] = version[i]
  answer[#answer + 1] = redis.call('LLEN', list)
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
return answer
"""

# KEYS: lists. ARGV: of each the version known, '' for none. Returns of each the version, and what is needed from there:
# 1 and everything after the version, or 0 and the lines since; {0} where there is no list.
_READ = """
local answer = {}
for i, list in ipairs(KEYS) do
  local length = redis.call('LLEN', list)
  if length == 0 then
    answer[i] = {0}
  else
    local base, known = tonumber(redis.call('LINDEX', list, 0)), tonumber(ARGV[i])
    local version = base + length - 2
    if known and known >= base and known <= version then
      answer[i] = {version, 0, redis.call('LRANGE', list, known - base + 2, -1)}
    else
      answer[i] = {version, 1, redis.call('LRANGE', list, 1, -1)}
    end
  end
end
return answer
"""

# KEYS: list, index. ARGV: the list's base version as it was read, lines folded, record, time of its oldest event ('' to
# drop it all), pseudonym.
_FOLD = """
if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[1] then return 0 end
local left_ms, folded = redis.call('PTTL', KEYS[1]), tonumber(ARGV[2])
if ARGV[4] == '' and redis.call('LLEN', KEYS[1]) == folded + 2 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[5])
  return 1
end
local lines = redis.call('LRANGE', KEYS[1], folded + 2, -1)
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[1], string.format('%.0f', tonumber(ARGV[1]) + folded), ARGV[3])
local oldest_ms = tonumber(ARGV[4])
for _, line in ipairs(lines) do redis.call('RPUSH', KEYS[1], line) end
if left_ms > 0 then redis.call('PEXPIRE', KEYS[1], left_ms) end
if oldest_ms then redis.call('ZADD', KEYS[2], oldest_ms, ARGV[5]) end
return 1
"""

# KEYS: processes, erasures, index, then of each visitor the list and the event ids. ARGV: process, now; then of each
# visitor the pseudonym and the same, veiled.
_FORGET = """
for i = 1, (#KEYS - 3) / 2 do
  redis.call('DEL', KEYS[2 + 2 * i], KEYS[3 + 2 * i])
  redis.call('ZREM', KEYS[3], ARGV[1 + 2 * i])
  for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if other ~= ARGV[1] then redis.call('HSET', KEYS[2], other .. ARGV[2 + 2 * i], ARGV[2]) end
  end
end
"""

# KEYS: processes, erasures, index. ARGV: process, milliseconds until one is retired, and until it counts as away, what
# the keys of lists begin with. Takes some out of the index whose list expired or was evicted. Returns how many visitors
# there are, what this process has to erase (veiled, and until when, by turns), and what those that are running have.
_BEAT = """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], now_ms, ARGV[1])
for _, whose in ipairs(redis.call('ZRANDMEMBER', KEYS[3], 20)) do
  if redis.call('EXISTS', ARGV[4] .. whose) == 0 then redis.call('ZREM', KEYS[3], whose) end
end
local waiting = redis.call('HGETALL', KEYS[2])
local mine, others, is_running, is_known = {}, {}, {}, {}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - tonumber(ARGV[2]))
for _, process in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do is_known[process] = true end
for _, process in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now_ms - tonumber(ARGV[3]), '+inf')) do
  is_running[process] = true
end
for place = 1, #waiting, 2 do
  local process, veiled = string.sub(waiting[place], 1, #ARGV[1]), string.sub(waiting[place], #ARGV[1] + 1)
  if process == ARGV[1] then
    mine[#mine + 1] = veiled
    mine[#mine + 1] = waiting[place + 1]
  elseif is_running[process] then
    others[#others + 1] = veiled
  elseif not is_known[process] then
    redis.call('HDEL', KEYS[2], waiting[place])
  end
end
return {redis.call('ZCARD', KEYS[3]), mine, others}
"""

# KEYS: erasures. ARGV: veiled and until when, by turns, each with its process before it: done, unless told of anew.
_DONE = """
for place = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[place]) == ARGV[place + 1] then redis.call('HDEL', KEYS[1], ARGV[place]) end
end
"""


class SharedRecord(Struct, frozen=True, array_like=True):
    """A visitor's record as it is in the list: packed with its names written out, and its summary of purchases."""

    raw: bytes
    purchases: Purchases


class Line(Struct, frozen=True):
    """A line of the navigation log on its way.

    Attributes:
        kind: ADD; AFTER_FILL, which counts only for who is known; FORGET.
        raw: as it is in the log.
    """

    pseudonym: bytes
    kind: str
    event: int
    at_ms: int
    raw: bytes


class Span(Struct, frozen=True):
    """What became of one visitor's list: its version before and after, 0 where there is none, and its length."""

    first: int
    last: int
    length: int


class Appended(Struct, frozen=True):
    """What became of lines.

    Attributes:
        position: how far the server has the file now; where it was not where it was said to be, nothing was appended.
        is_taken: of each line, whether it counts: not where its event id is known, or its visitor was erased since.
        spans: of each visitor.
    """

    position: int
    is_taken: list[bool]
    spans: dict[bytes, Span]


class Found(Struct, frozen=True):
    """What was read of one visitor.

    Attributes:
        version: of what is there now; 0 where there is nothing.
        base: the packed record, empty where it begins with the lines; None where the lines follow what is known.
        lines: of the log, in their order.
    """

    version: int
    base: bytes | None
    lines: list[bytes]


class Heard(Struct, frozen=True):
    """What a process hears when it says that it is there.

    Attributes:
        visitor_count: how many there are.
        to_erase: whom this process has to erase, and what was noted of them until when, UTC milliseconds.
        awaited: whom other running processes have to.
    """

    visitor_count: int
    to_erase: dict[bytes, int]
    awaited: set[bytes]


_BUSY = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
_STATUS = {"aof": "aof_last_bgrewrite_status", "rdb": "rdb_last_bgsave_status"}

_log = structlog.get_logger("visitors")

_encode_record = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(SharedRecord).decode
_decode_line = msgspec.json.Decoder(LogLine).decode


def kind_of(line: LogLine) -> str:
    """Return what is to become of a line in the shared store."""
    if line.action == WITHDRAWN:
        return FORGET
    return AFTER_FILL if line.action in (RENDERED, CLICKED) else ADD


def pack_shared(record: VisitorRecord, settings: Settings) -> bytes:
    """Return a record as it is kept in the list; one that is too long loses its older and lighter half."""
    names = Names()
    raw = pack(record, names)
    while len(raw) > settings.visitor_record_bytes_max and record.shrink():
        raw = pack(record, names)
    return _encode_record(SharedRecord(raw, record.purchases))


def unpack_shared(pseudonym: bytes, base: bytes) -> VisitorRecord:
    """Return the record a list begins with; an empty one where it begins with its lines."""
    if not base:
        return VisitorRecord(pseudonym)
    shared = _decode_record(base)
    record = unpack(pseudonym, shared.raw, Names())
    record.purchases = shared.purchases
    return record


def decode_shared_lines(lines: Sequence[bytes]) -> list[LogLine]:
    """Return the lines of a list as the log has them."""
    return [_decode_line(raw) for raw in lines]


def open_client(url: str) -> "Valkey":
    """Return a client of a `valkey://`, `valkeys://`, `redis://` or `rediss://` URL; it connects when first used.

    Raises:
        VisitorStoreRefused: the library is not installed, or the URL is none.
    """
    try:
        from valkey.asyncio import Valkey
    except ImportError as missing:
        raise VisitorStoreRefused(
            "ENDCAP_VISITOR_STORE in Valkey or Redis needs the extra: pip install 'endcap[cluster]'"
        ) from missing
    scheme, _, rest = url.partition("://")
    try:
        client: Valkey = Valkey.from_url(
            f"{scheme.replace('redis', 'valkey')}://{rest}",
            socket_timeout=COMMAND_WITHIN_S,
            socket_connect_timeout=COMMAND_WITHIN_S,
            max_connections=CONNECTION_COUNT_MAX,
        )
        return client
    except ValueError as refusal:
        raise VisitorStoreRefused(f"ENDCAP_VISITOR_STORE is no URL of a server: {refusal}") from refusal


class SharedStore:
    """The lists of one deployment in one server. Every method asks the server once, unless it says otherwise.

    Args:
        client: of the server.
        pseudonymizer: the deployment's; names its keys, and veils whom a process that is away has yet to erase.
        settings: this package's. Records made under others, or by another version, are kept apart and filled from the
            logs anew.
        process_id: PROCESS_ID_LENGTH characters that stay the same as long as the log is.

    Raises:
        SharedStoreUnavailable: from every method: the server does not answer, or refuses.
    """

    def __init__(self, client: "Valkey", pseudonymizer: Pseudonymizer, settings: Settings, process_id: str) -> None:
        if len(process_id) != PROCESS_ID_LENGTH:
            raise ValueError(f"process_id must have {PROCESS_ID_LENGTH} characters, was {process_id!r}")
        self._client: Any = client
        self._settings = settings
        self._process = process_id.encode()
        self._root = b"endcap:{" + pseudonymizer.of("shared store").hex()[:12].encode() + b"}"
        self._space = b"%08x" % crc32(_encode_record(settled(settings)))
        key = pseudonymizer.of("shared store: veil") + pseudonymizer.of("shared store: veil, continued")
        self._veil = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305  # one block of no structure, not a message
        self._scripts = {
            name: client.register_script(text)
            for name, text in (
                ("append", _APPEND),
                ("read", _READ),
                ("fold", _FOLD),
                ("forget", _FORGET),
                ("beat", _BEAT),
                ("done", _DONE),
            )
        }

    # --- what a process does --------------------------------------------------------------------------------------

    async def join(self) -> tuple[str, dict[str, int]]:
        """Enter this version and its settings among those the server knows.

        Returns:
            What this run of the server is called, and how far it has each file of this process's log.
        """
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.sadd(self._root + b":spaces", self._space)
            pipeline.info("server")
            pipeline.hgetall(self._positions)
            _, said, positions = await self._asked(pipeline.execute())
        return said["run_id"], {name.decode(): int(position) for name, position in positions.items()}

    async def drop_positions(self, names: Collection[str]) -> None:
        """Forget how far the server has files that are gone."""
        if names:
            await self._asked(self._client.hdel(self._positions, *names))

    async def ping(self) -> None:
        """Say whether the server answers, by not raising."""
        await self._asked(self._client.ping())

    async def beat(self) -> Heard:
        """Say that this process is there, and hear what it has to do."""
        keys = [self._processes, self._erasures, self._index]
        args = [self._process, RETIRED_AFTER_MS, AWAY_AFTER_MS, self._list(b"")]
        answer = await self._run("beat", keys, args)
        mine, others = answer[1], answer[2]
        return Heard(
            int(answer[0]),
            {self._unveil(veiled): int(until) for veiled, until in zip(mine[::2], mine[1::2], strict=True)},
            {self._unveil(veiled) for veiled in others},
        )

    async def append(self, name: str, first: int, last: int, lines: Sequence[Line]) -> Appended:
        """Append lines of a file of the log, from one position to another, if the server has it up to the first one."""
        visitors = list(dict.fromkeys(line.pseudonym for line in lines))
        place_of = {pseudonym: place for place, pseudonym in enumerate(visitors, 1)}
        keys = [self._positions, self._processes, self._erasures, self._index]
        for pseudonym in visitors:
            keys += [self._list(pseudonym), self._events(pseudonym)]
        days = self._settings.retention_days
        kept_ms = days * DAY_MS if days else EVERLASTING_MS
        args: list[Any] = [self._process, name, first, last, kept_ms, EVENT_ID_KEPT_MS, EVENT_ID_COUNT_MAX]
        args += [len(visitors), *visitors, *map(self._veiled, visitors)]
        for line in lines:
            args += [place_of[line.pseudonym], line.kind, line.event or b"", line.at_ms, line.raw]
        answer = await self._run("append", keys, args)
        if len(answer) == 1:
            return Appended(int(answer[0]), [], {})
        spans = {
            pseudonym: Span(*map(int, answer[2 + 3 * place : 5 + 3 * place]))
            for place, pseudonym in enumerate(visitors)
        }
        return Appended(int(answer[0]), [one == 0x31 for one in answer[1]], spans)

    async def read(self, known: Mapping[bytes, int | None]) -> dict[bytes, Found]:
        """Return what is there of visitors.

        Args:
            known: pseudonyms, to the version that is known of each; None for none.
        """
        keys = [self._list(pseudonym) for pseudonym in known]
        args = [b"" if version is None else version for version in known.values()]
        answer = await self._run("read", keys, args)
        return {pseudonym: _found(one) for pseudonym, one in zip(known, answer, strict=True)}

    async def fold(self, pseudonym: bytes, found: Found, base: bytes | None, oldest_ms: int) -> bool:
        """Put a record in the place of what was read, whole; say whether nobody else had.

        Lines that came since stay.

        Args:
            pseudonym: whose.
            found: as it was read.
            base: all of it as one record; None where nothing of it is to be kept.
            oldest_ms: when the oldest of what the record keeps happened.
        """
        args = [found.version - len(found.lines), len(found.lines), base or b"", "" if base is None else oldest_ms]
        return bool(await self._run("fold", [self._list(pseudonym), self._index], [*args, pseudonym]))

    async def forget(self, pseudonyms: Collection[bytes], now_ms: int) -> None:
        """Delete everything of visitors, and have every other process erase what it noted of them until now.

        Asks once for each version of Endcap, and each set of settings records depend on, that was run on the server.
        """
        pairs = [part for pseudonym in pseudonyms for part in (pseudonym, self._veiled(pseudonym))]
        for space in await self._asked(self._client.smembers(self._root + b":spaces")):
            there = self._in_space(space)
            keys = [there + b":processes", there + b":erasures", there + b":index"]
            for pseudonym in pseudonyms:
                keys += [there + b":v:" + pseudonym, there + b":e:" + pseudonym]
            await self._run("forget", keys, [self._process, now_ms, *pairs])

    async def done(self, erased: Mapping[bytes, int]) -> None:
        """Say that this process erased whom it had to."""
        if erased:
            args = [part for one, until in erased.items() for part in (self._process + self._veiled(one), until)]
            await self._run("done", [self._erasures], args)

    async def seen(self, events: Collection[tuple[bytes, int]]) -> set[int]:
        """Return those of some visitors' event ids that the store has; asks once for all of them."""
        asked = list(events)
        async with self._client.pipeline(transaction=False) as pipeline:
            for pseudonym, number in asked:
                pipeline.zscore(self._events(pseudonym), number)
            scores = await self._asked(pipeline.execute())
        return {number for (_, number), score in zip(asked, scores, strict=True) if score is not None}

    async def some(self, count: int) -> list[bytes]:
        """Return so many visitors by chance, all of them where there are fewer."""
        return list(await self._asked(self._client.zrandmember(self._index, count)))

    async def with_older(self, cutoff_ms: int, count: int) -> list[bytes]:
        """Return so many visitors who may have something from before a moment, the oldest first."""
        return list(await self._asked(self._client.zrangebyscore(self._index, "-inf", cutoff_ms, 0, count)))

    async def leave_out(self, pseudonyms: Collection[bytes]) -> None:
        """Take visitors who have expired out of the index."""
        if pseudonyms:
            await self._asked(self._client.zrem(self._index, *pseudonyms))

    async def drop_unused(self) -> None:
        """Delete what versions and settings left that no process was heard of with for long. Asks again and again."""

        async def drop() -> None:
            seconds, _ = await self._client.time()
            for space in await self._client.smembers(self._root + b":spaces"):
                there = self._in_space(space)
                heard = await self._client.zcount(there + b":processes", seconds * 1000 - RETIRED_AFTER_MS, "+inf")
                if space == self._space or heard:
                    continue
                async for key in self._client.scan_iter(match=there.replace(b"{", b"\\{") + b":*", count=1000):
                    await self._client.unlink(key)
                await self._client.srem(self._root + b":spaces", space)

        await self._asked(drop())

    async def kept_files(self) -> list[str]:
        """Return which files the server keeps: `aof`, `rdb`. Where it may not be asked, that is its operator's matter.

        Asks twice.
        """
        from valkey.exceptions import ResponseError

        async def ask() -> list[str]:
            try:
                said: dict[str, Any] = await self._client.info("persistence")
                saves = (await self._client.config_get("save"))["save"]
            except ResponseError as refusal:
                _log.warning("visitor_store_files_unknown", why=str(refusal))
                return []
            has_rdb = saves or said.get("rdb_saves") or said.get("rdb_last_load_keys_loaded")
            return [*(["aof"] if said["aof_enabled"] else []), *(["rdb"] if has_rdb else [])]

        return await self._asked(ask())

    async def writing(self) -> tuple[bool, list[str]]:
        """Say whether the server is writing its files, and which of them could not be written the last time."""
        said: dict[str, Any] = await self._asked(self._client.info("persistence"))
        is_busy = any(said.get(name) for name in _BUSY)
        return is_busy, [what for what, status in _STATUS.items() if said.get(status, "ok") != "ok"]

    async def rewrite(self, what: str) -> None:
        """Have the server begin to write its `aof` or its `rdb` anew, without what was deleted."""
        await self._asked(self._client.bgrewriteaof() if what == "aof" else self._client.bgsave(schedule=True))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    # --- inside ------------------------------------------------------------------------------------------------------

    def _in_space(self, space: bytes) -> bytes:
        return self._root + b":" + space

    def _list(self, pseudonym: bytes) -> bytes:
        return self._in_space(self._space) + b":v:" + pseudonym

    def _events(self, pseudonym: bytes) -> bytes:
        return self._in_space(self._space) + b":e:" + pseudonym

    @property
    def _index(self) -> bytes:
        return self._in_space(self._space) + b":index"

    @property
    def _processes(self) -> bytes:
        return self._in_space(self._space) + b":processes"

    @property
    def _erasures(self) -> bytes:
        return self._in_space(self._space) + b":erasures"

    @property
    def _positions(self) -> bytes:
        return self._in_space(self._space) + b":log:" + self._process

    def _veiled(self, pseudonym: bytes) -> bytes:
        return self._veil.encryptor().update(pseudonym)

    def _unveil(self, veiled: bytes) -> bytes:
        assert len(veiled) == PSEUDONYM_SIZE
        return self._veil.decryptor().update(veiled)

    async def _run(self, name: str, keys: list[bytes], args: list[Any]) -> Any:
        return await self._asked(self._scripts[name](keys=keys, args=args))

    async def _asked(self, answer: Awaitable[T]) -> T:
        from valkey.exceptions import ValkeyError

        try:
            return await answer
        except (ValkeyError, OSError, TimeoutError) as failure:
            raise SharedStoreUnavailable(f"visitors' state cannot be reached: {failure or type(failure)}") from failure


def _found(answer: Sequence[Any]) -> Found:
    if len(answer) == 1:
        return Found(0, b"", [])
    version, is_whole, parts = answer
    return Found(int(version), parts[0], parts[1:]) if is_whole else Found(int(version), None, parts)
