"""s3fs with a limit to every wait: a server that says nothing any more is away, whatever it was asked.

Loaded when the first request is made: s3fs takes a quarter of a second.
"""

import asyncio
import math
import os
from typing import Any

import s3fs
from aiohttp import ClientError

TRIES = 2
"""Requests per call before a server that answers 5xx or drops connections counts as away: a second or two."""

ANSWER_SECONDS = 18
"""How long a request waits for its answer. With TRIES a server that never gives one is away after 36 seconds."""

CONNECT_SECONDS = 10
"""How long a request waits for its connection."""

SLOWEST_UPLOAD = 20_000
"""Bytes a second of one request below which it counts as stuck."""

PARTS_AT_ONCE = 3
"""Of one file. A slow line is shared by few, and connections stay free for records and leases."""

PART_BYTES = 5 << 20
"""Of a large file, sent as one request; up to twice this is one too. A server that takes nothing of it counts as
away after the time that it may take, nine minutes at most."""

MOST_PARTS = 10_000
"""Of one file, by the rules of S3."""


def connect() -> "LimitedS3":
    """Return the file system of the present process; s3fs refuses to work across a fork."""
    filesystem = LimitedS3(
        skip_instance_cache=True,
        use_listings_cache=False,  # the cache hides what other processes wrote
        config_kwargs={
            "retries": {"mode": "standard", "total_max_attempts": TRIES},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
        },
    )
    filesystem.retries = 1  # those of s3fs would multiply those of botocore
    return filesystem


class LimitedS3(s3fs.S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs whose uploads have a limit of time too.

    The time-outs of botocore begin when a request has been sent. An upload to a server that takes nothing, or that
    never says `100 Continue`, is not sent: it would wait until the system gives the connection up, 15 minutes.
    """

    async def _call_s3(self, method: str, *arguments: Any, **options: Any) -> Any:
        call = super()._call_s3(method, *arguments, **options)
        body = options.get("Body")
        if not isinstance(body, bytes | bytearray | memoryview):
            return await call
        seconds = TRIES * ANSWER_SECONDS + len(body) / SLOWEST_UPLOAD
        try:
            async with asyncio.timeout(seconds) as limit:
                return await call
        except TimeoutError:
            if not limit.expired():
                raise
            # Not a TimeoutError: fsspec would replace it by one without a text.
            raise ClientError(f"{len(body):,} bytes were not taken within {seconds:.0f} s") from None

    async def _put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        part_bytes = max(PART_BYTES, math.ceil(os.path.getsize(lpath) / MOST_PARTS))
        await super()._put_file(lpath, rpath, chunksize=part_bytes, max_concurrency=PARTS_AT_ONCE, **options)
