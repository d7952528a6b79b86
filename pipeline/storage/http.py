"""HTTP for fsspec with bounds: no more bytes than were asked for, none unpacked, and no forbidden address."""

from __future__ import annotations

from typing import Any

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from .uri_rules import UriRules

CHUNK_BYTES = 1 << 16
MAX_PAGE_BYTES = 64 << 20
"""Of a page that lists files."""


class BoundedHTTPFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files behind HTTP, read by ranges; a server that ignores ranges is read up to the end of the range.

    Replies are asked for uncompressed and never unpacked, so that a small compressed response cannot become a large one.

    Args:
        rules: addresses that may be connected to; checked for every connection, those of redirects included.
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
        """Read a range; returns it with the identity that the response states of the whole file."""
        if start is None or end is None:
            raise ValueError("files are read by ranges")
        if end <= start:
            return b"", None
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        options = {**self.kwargs, **kwargs}
        session = await self.set_session()
        async with session.get(
            self.encode_url(url), headers={**options.pop("headers", {}), **headers}, **options
        ) as response:
            if response.status == 416:  # the file ends before
                return b"", None
            self._raise_not_found_for_status(response, url)
            if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
                raise PermissionError(13, "its server compresses what was asked for as it is", url)
            skip = start if response.status == 200 else 0
            etag = response.headers.get("ETag", "").strip('"')
            return await _read(response.content, skip, end - start), etag or None

    def cat_with_etag(self, path: str, start: int, end: int, timeout: float) -> tuple[bytes, str | None]:
        """Read a range with the identity of its file, from any thread."""
        found: tuple[bytes, str | None] = sync(
            self.loop, self._cat_with_etag, path, start, end, timeout=timeout
        )
        return found


class _BoundedResponse(aiohttp.ClientResponse):
    """A response of which no more than a page is read at once; ranges are read from its stream."""

    async def read(self) -> bytes:
        """Read the body.

        Raises:
            PermissionError: it is larger than a page of links.
        """
        if self._body is None:
            body = await _read(self.content, 0, MAX_PAGE_BYTES + 1)
            if len(body) > MAX_PAGE_BYTES:
                self.close()
                raise PermissionError(
                    13, f"its server lists more than {MAX_PAGE_BYTES:,} bytes of links", str(self.url)
                )
            self._body = body
        return self._body


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
