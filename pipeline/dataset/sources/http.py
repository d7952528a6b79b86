"""HTTP for fsspec with bounds: no more bytes than were asked for, none unpacked, and no forbidden address."""

from __future__ import annotations

from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from .uri_rules import UriRules

CHUNK_BYTES = 1 << 16


class BoundedHTTPFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files behind HTTP, read by ranges; a server that ignores ranges is read up to the end of the range.

    Replies are asked for uncompressed and never unpacked, so that a small compressed reply cannot become a large one.

    Args:
        rules: addresses that may be connected to; checked for every connection, those of redirects included.
    """

    def __init__(self, rules: UriRules, **options: Any) -> None:
        async def client(**kwargs: Any) -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(socket_factory=rules.socket_for)
            kwargs |= {"connector": connector, "auto_decompress": False}
            return aiohttp.ClientSession(**kwargs)

        super().__init__(get_client=client, **options)

    async def _cat_file(
        self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        if start is None or end is None:
            raise ValueError("files are read by ranges")
        if end <= start:
            return b""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        options = {**self.kwargs, **kwargs}
        session = await self.set_session()
        async with session.get(
            self.encode_url(url), headers={**options.pop("headers", {}), **headers}, **options
        ) as reply:
            if reply.status == 416:  # the file ends before
                return b""
            self._raise_not_found_for_status(reply, url)
            if reply.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
                raise PermissionError(13, "its server compresses what was asked for as it is", url)
            skip = start if reply.status == 200 else 0
            return await _read(reply.content, skip, end - start)


async def _read(content: aiohttp.StreamReader, skip: int, size: int) -> bytes:
    """Read some bytes behind those that are skipped; the rest is never fetched."""
    parts: list[bytes] = []
    missing = size
    async for chunk in content.iter_chunked(CHUNK_BYTES):
        part = chunk[skip : skip + missing]
        skip = max(0, skip - len(chunk))
        parts.append(part)
        missing -= len(part)
        if not missing:
            break
    return b"".join(parts)
