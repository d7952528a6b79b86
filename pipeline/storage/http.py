"""Bounded HTTP file system for fsspec: range reads only, no decompression, no forbidden addresses."""

from __future__ import annotations

from typing import Any

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from .uri_rules import UriRules

CHUNK_BYTES = 1 << 16
MAX_PAGE_BYTES = 64 << 20
"""Largest HTML page of links that is read."""


class BoundedHTTPFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """HTTP file system that reads byte ranges; from a server without range support it reads up to the end of the range.

    Responses are requested uncompressed and never decompressed, which rules out decompression bombs.

    Args:
        rules: allowed addresses; checked at every connection, redirects included.
    """

    def __init__(self, rules: UriRules, **options: Any) -> None:
        async def client(**kwargs: Any) -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(socket_factory=rules.socket_for)
            kwargs |= {"connector": connector, "auto_decompress": False, "response_class": _BoundedResponse}
            return aiohttp.ClientSession(**kwargs)

        super().__init__(get_client=client, **options)

    async def _cat_file(
        self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        data, _ = await self._cat_with_etag(url, start, end, **kwargs)
        return data

    async def _cat_with_etag(
        self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> tuple[bytes, str | None]:
        """Read a range and return it with the file's ETag."""
        if start is None or end is None:
            raise ValueError("expected start and end, got an open range; pass both")
        if end <= start:
            return b"", None
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        options = {**self.kwargs, **kwargs}
        session = await self.set_session()
        async with session.get(
            self.encode_url(url), headers={**options.pop("headers", {}), **headers}, **options
        ) as response:
            if response.status == 416:  # range not satisfiable: beyond the end of the file
                return b"", None
            self._raise_not_found_for_status(response, url)
            if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
                raise PermissionError(
                    13, "its server sent a compressed response to a request for an uncompressed one", url
                )
            skip = start if response.status == 200 else 0
            etag = response.headers.get("ETag", "").strip('"')
            return await _read(response.content, skip, end - start), etag or None

    def cat_with_etag(self, path: str, start: int, end: int, timeout: float) -> tuple[bytes, str | None]:
        """Read a range and return it with the file's ETag; callable from any thread."""
        found: tuple[bytes, str | None] = sync(
            self.loop, self._cat_with_etag, path, start, end, timeout=timeout
        )
        return found


class _BoundedResponse(aiohttp.ClientResponse):
    """HTTP response with a limit on the size of its body; ranges are read from the stream."""

    async def read(self) -> bytes:
        """Read the body.

        Raises:
            PermissionError: the body is larger than ``MAX_PAGE_BYTES``.
        """
        if self._body is None:
            body = await _read(self.content, 0, MAX_PAGE_BYTES + 1)
            if len(body) > MAX_PAGE_BYTES:
                self.close()
                raise PermissionError(
                    13, f"its server sent a listing of more than {MAX_PAGE_BYTES:,} bytes", str(self.url)
                )
            self._body = body
        return self._body


async def _read(content: aiohttp.StreamReader, skip: int, size: int) -> bytes:
    """Skip some bytes and read the next ``size``; the rest is not fetched."""
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
