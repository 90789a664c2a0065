"""A Redis stream: a consumer group, acknowledged after the outcome is settled (Redis 6.2 or later).

    {stream}         the jobs; field ``payload``, or the fields of a conversion themselves
    {stream}:later   a sorted set by the moment at which they are given again
    {stream}:dead    a stream of what was put aside, with the reason

A job leaves the group's list of pending entries in the same step (one script) in which it is put elsewhere, so that it
is always in exactly one place.  What a killed worker had taken is claimed by another one after ``claim_after`` seconds.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import time
from typing import Any, Dict, List, Mapping, Tuple, Union

from postbackd_client.queues.loading import QueueError, load
from postbackd_client.queues.sources import Job, SourceAway, read_seconds, split_options

log = logging.getLogger("postbackd_client")

OPTIONS = {"stream": "postbacks", "group": "postbackd", "claim_after": "60"}

_BATCH = 10
"""Jobs that a thread takes at once: their sending has to end well before others may claim them."""

_LOOK_AGAIN_S = 0.5
"""Between two looks at what was put off."""

_FOR_GOOD = ("WRONGTYPE", "unknown command", "wrong number of arguments", "syntax error")
"""What the answers begin with that another try does not change."""

_SETTLE = """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
"""
"""A script and no transaction: that would be refused while the memory is used up, and settling is what frees it."""
_PUT_OFF = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3], ARGV[4])
return redis.call('XDEL', KEYS[1], ARGV[2])
"""
_PUT_ASIDE = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'payload', ARGV[3], 'reason', ARGV[4], 'tries', ARGV[5])
return redis.call('XDEL', KEYS[1], ARGV[2])
"""
_GIVE_AGAIN = """
local now = redis.call('TIME')
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now[1] * 1000 + math.floor(now[2] / 1000), 'LIMIT', 0, 100)
for _, member in ipairs(due) do
  local job = cjson.decode(member)
  redis.call('XADD', KEYS[1], '*', 'payload', job[1], 'tries', job[2], 'since', job[3])
  redis.call('ZREM', KEYS[2], member)
end
return #due
"""
_TAKE_BACK = """
local aside = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 100)
for _, entry in ipairs(aside) do
  redis.call('XADD', KEYS[1], '*', 'payload', entry[2][2])
  redis.call('XDEL', KEYS[2], entry[1])
end
return #aside
"""


_NUMBER = re.compile("[0-9]{1,15}")
"""Other programs write into the stream too: what is no number of tries or milliseconds must not end the worker."""


def key_beside(stream: str, name: str) -> str:
    """A key that a cluster keeps on the same node as the stream."""
    return f"{stream}:{name}" if "{" in stream else f"{{{stream}}}:{name}"


class RedisStream:
    """A hand-over: appends each text to a stream.  May be shared by all threads of a process, and by forked ones."""

    def __init__(self, redis: Union[str, Any], stream: str = OPTIONS["stream"]) -> None:
        """``redis``: an address, or a ``redis.Redis``, whose time-outs are how long a caller waits at most."""
        if isinstance(redis, str):
            library = load("redis")
            redis = library.Redis.from_url(redis, socket_timeout=0.5, socket_connect_timeout=0.5)
        self._redis = redis
        self._stream = stream

    def __call__(self, text: str) -> None:
        self._redis.xadd(self._stream, {"payload": text})


class RedisSource:
    """A source of jobs: one consumer of the group."""

    def __init__(self, url: str) -> None:
        """Connects, and makes the group when it is missing.  Raises ``QueueError``, ``SourceAway``."""
        self._errors = load("redis.exceptions")
        address, options = split_options(url, OPTIONS)
        self._stream, self._group = options["stream"], options["group"]
        self._claim_ms = int(read_seconds("claim_after", options["claim_after"]) * 1000)
        self._later = key_beside(self._stream, "later")
        self._dead = key_beside(self._stream, "dead")
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._taken: Dict[bytes, Job] = {}
        self._look_at = 0.0
        self._claim_at = 0.0
        try:
            # No retries of its own: the worker says that the queue is away, and comes again.
            self._redis = load("redis").Redis.from_url(
                address, protocol=2, socket_timeout=10, socket_connect_timeout=2, retry=None
            )
        except ValueError as error:
            raise QueueError(f"this is no address of a Redis server: {error}") from error
        self._ask(self._make_group)

    def _make_group(self) -> None:
        """Only where it is missing: making one is refused while the memory is used up, whether it exists or not."""
        if self._redis.exists(self._stream):
            groups = self._redis.xinfo_groups(self._stream)
            if any(_text(group["name"]) == self._group for group in groups):
                return
        try:
            self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except self._errors.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another worker was quicker
                raise

    def _ask(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Call the library; its errors become ours."""
        errors = self._errors
        try:
            return call(*arguments, **options)
        except errors.AuthenticationError as error:
            raise QueueError(f"Redis refuses the password: {error}") from error
        except (errors.ConnectionError, errors.TimeoutError) as error:
            raise SourceAway(f"Redis cannot be reached: {error}") from error
        except errors.ResponseError as error:
            if isinstance(error, errors.NoPermissionError) or str(error).startswith(_FOR_GOOD):
                raise QueueError(f"Redis refuses: {error} (Redis 6.2 or later is needed)") from error
            # Out of memory, read-only, loading, a stream that is gone: all that may be over in a minute.
            raise SourceAway(f"Redis cannot be used now: {error}") from error

    # --- taking ---------------------------------------------------------------------------------------------------

    def take(self, wait_s: float) -> List[Job]:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_AGAIN_S
            self._ask(self._redis.eval, _GIVE_AGAIN, 2, self._stream, self._later)
        if now >= self._claim_at:
            claimed = self._claim()
            if claimed:
                return claimed
            self._claim_at = now + self._claim_ms / 4000
        found = self._ask(
            self._redis.xreadgroup,
            self._group,
            self._consumer,
            {self._stream: ">"},
            count=_BATCH,
            block=max(1, int(min(wait_s, _LOOK_AGAIN_S) * 1000)),
        )
        return self._jobs(found[0][1]) if found else []

    def _claim(self) -> List[Job]:
        """What another consumer took and left lying: its worker is gone."""
        found = self._ask(
            self._redis.xautoclaim, self._stream, self._group, self._consumer, self._claim_ms, count=_BATCH
        )
        return self._jobs(found[1])

    def _jobs(self, entries: List[Tuple[bytes, Dict[bytes, bytes]]]) -> List[Job]:
        now_ms = time.time() * 1000
        jobs = [_read_entry(entry_id, fields, now_ms) for entry_id, fields in entries if fields]
        self._taken.update({job.handle: job for job in jobs})
        return jobs

    # --- settling -------------------------------------------------------------------------------------------------

    def settle(self, job: Job) -> None:
        self._ask(self._redis.eval, _SETTLE, 1, self._stream, self._group, job.handle)
        del self._taken[job.handle]

    def put_off(self, job: Job, wait_s: float) -> None:
        self._move_later(job, wait_s, job.tries + 1)

    def _move_later(self, job: Job, wait_s: float, tries: int) -> None:
        since_ms = int(time.time() * 1000 - job.age_s * 1000)
        found = [job.text, tries, str(since_ms), job.handle.decode("ascii")]
        # Bytes that are no UTF-8 as they came: escaped, Redis could not read the member, nor any behind it.
        member = json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogateescape")
        keys = (self._stream, self._later)
        self._ask(self._redis.eval, _PUT_OFF, 2, *keys, self._group, job.handle, int(wait_s * 1000), member)
        del self._taken[job.handle]

    def put_aside(self, job: Job, reason: str) -> None:
        keys = (self._stream, self._dead)
        text = job.text.encode("utf-8", "surrogateescape")
        told = reason.encode("utf-8", "backslashreplace")
        self._ask(self._redis.eval, _PUT_ASIDE, 2, *keys, self._group, job.handle, text, told, job.tries + 1)
        del self._taken[job.handle]

    def take_back(self) -> int:
        total = 0
        while count := self._ask(self._redis.eval, _TAKE_BACK, 2, self._stream, self._dead):
            total += int(count)
        return total

    def depth(self) -> Mapping[str, int]:
        ask = self._ask
        return {
            "waiting": ask(self._redis.xlen, self._stream),
            "later": ask(self._redis.zcard, self._later),
            "aside": ask(self._redis.xlen, self._dead),
        }

    def close(self) -> None:
        """What was taken and not settled is given again at once; where that fails, another consumer claims it."""
        try:
            for job in list(self._taken.values()):
                self._move_later(job, 0, job.tries)
            owed = self._redis.xpending_range(self._stream, self._group, "-", "+", 1, self._consumer)
            if not owed:
                self._redis.xgroup_delconsumer(self._stream, self._group, self._consumer)
        except (SourceAway, QueueError, self._errors.RedisError) as error:
            log.debug("the worker's name stays on the list of consumers, and harms nobody: %s", error)
        self._redis.close()


def _read_entry(entry_id: bytes, fields: Mapping[bytes, bytes], now_ms: float) -> Job:
    texts = {_text(name): _text(value) for name, value in fields.items()}
    tries = texts.get("tries", "0") if "payload" in texts else "0"
    since_ms = texts.get("since", "") if "payload" in texts else ""
    if not _NUMBER.fullmatch(since_ms):
        since_ms = entry_id.split(b"-")[0].decode("ascii")
    return Job(
        text=texts["payload"] if "payload" in texts else json.dumps(texts),
        handle=entry_id,
        tries=int(tries) if _NUMBER.fullmatch(tries) else 0,
        age_s=max(0.0, (now_ms - int(since_ms)) / 1000),
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
