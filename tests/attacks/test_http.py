"""Servers of strangers: redirects, bodies without end, lengths that lie, and files that are replaced."""

from __future__ import annotations

import gzip
import resource
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from lightwell import Index, LightwellError, LocalEngine, Plan, View, build_index
from lightwell.pipeline.storage.remote import RemoteStore
from lightwell.pipeline.storage.uri_rules import UriRules
from pictures import make_picture, write_picture

Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Serves pictures and whatever a test puts into ``replies``, from the loopback interface."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.replies: dict[str, Reply] = {}
        self.requests: list[str] = []
        self.sent_bytes = 0
        self.ending = threading.Event()
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        if response := self.replies.get(handler.path):
            return response(handler)
        data = self.files.get(handler.path)
        if data is None:
            return send(handler, 404, b"")
        first, last = 0, len(data) - 1
        if span := handler.headers.get("Range", ""):
            start, _, end = span.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end), last)
        part = data[first : last + 1]
        return send(handler, 206 if span else 200, part, ETag=f'"{hash(data)}"')

    def endless(
        self, handler: BaseHTTPRequestHandler, piece: bytes = b"\0" * 65536, pause_s: float = 0.0
    ) -> None:
        """Send until the other side or the test has enough."""
        while not self.ending.wait(pause_s):
            try:
                handler.wfile.write(piece)
            except OSError:
                return
            self.sent_bytes += len(piece)


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: Any) -> None:
    handler.send_response(status)
    headers = {
        "Content-Length": len(body),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name, str(value))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            found.answer(self)

        def do_GET(self) -> None:
            try:
                found.answer(self)
            except OSError:
                self.close_connection = True

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield found
    finally:
        found.ending.set()
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    write_picture(tmp_path / "a.png", make_picture(0, 24, 32))
    return (tmp_path / "a.png").read_bytes()


def indexed(server: Server, tmp_path: Path, *paths: str, **options: Any) -> Index:
    table = tmp_path / "t.csv"
    table.write_text("path\n" + "".join(f"{server.url}{path}\n" for path in paths))
    return build_index(table, label_column=None, **{"max_wait_s": 2.0, "num_threads": 2, **options})


def status_beside_a_good_one(
    server: Server, picture: bytes, tmp_path: Path, response: Reply, **options: Any
) -> str:
    server.files["/good.png"] = picture
    server.replies["/bad.png"] = response
    index = indexed(server, tmp_path, "/good.png", "/bad.png", **options)
    good, bad = index.table["status"].to_pylist()
    assert good == "ok"
    assert bad != "ok"
    return str(bad)


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://2852039166/x",
        "//169.254.169.254/x",
        "/bad.png",
        "gopher:x",
    ],
)
@pytest.mark.parametrize("code", [301, 307])
def test_redirects_lead_to_no_file_and_no_forbidden_address(
    server: Server, picture: bytes, tmp_path: Path, target: str, code: int
) -> None:
    """A server redirects to a local file, to another protocol, to link-local addresses or to itself: that image is refused."""
    status = status_beside_a_good_one(
        server, picture, tmp_path, lambda handler: send(handler, code, b"", Location=target)
    )
    assert "root:" not in status
    assert status.startswith("cannot be opened")


def test_private_addresses_are_refused_where_they_are_forbidden(
    server: Server, picture: bytes, tmp_path: Path
) -> None:
    """A table names a server of this machine by address or by name, and private addresses are forbidden: nothing is asked."""
    server.files["/good.png"] = picture
    server.url = server.url.replace("127.0.0.1", "localhost")
    index = indexed(server, tmp_path, "/good.png", forbid_private_addresses=True)
    assert index.table["status"].to_pylist() != ["ok"]
    assert server.requests == []


def test_a_body_without_end_is_read_as_far_as_was_asked(
    server: Server, picture: bytes, tmp_path: Path
) -> None:
    """A server ignores the range and sends for ever: what was asked for is read, and no more of it."""

    def response(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"", Content_Length=10**12)
        if handler.command == "GET":
            server.endless(handler)

    status = status_beside_a_good_one(server, picture, tmp_path, response)
    assert "not a known image format" in status
    assert server.sent_bytes < 64 << 20


@pytest.mark.parametrize("length", [10**30, 2**63, 2**62, -5, "x", "1" * 5000])
def test_lengths_that_cannot_be_cost_their_image(
    server: Server, picture: bytes, tmp_path: Path, length: Any
) -> None:
    """A server states a length beyond all numbers, below zero or in words: that image is refused."""
    response = lambda handler: send(handler, 200, picture, Content_Length=length)  # noqa: E731
    assert status_beside_a_good_one(server, picture, tmp_path, response)


@pytest.mark.parametrize("stated", [10, 10**6])
def test_a_length_that_lies_costs_its_image(
    server: Server, picture: bytes, tmp_path: Path, stated: int
) -> None:
    """A server states less or more than it has: the image is refused when it is indexed or read, and its bytes are not mixed up."""
    server.files["/good.png"] = picture

    def response(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "HEAD":
            return send(handler, 200, b"", Content_Length=stated)
        return send(handler, 206, picture)

    server.replies["/bad.png"] = response
    index = indexed(server, tmp_path, "/good.png", "/bad.png", max_wait_s=1.0)
    index.save(tmp_path / "index.parquet")
    assert index.table["status"].to_pylist()[0] == "ok"
    assert read(tmp_path, skip=True)[0] == ["/good.png"]


def read(tmp_path: Path, *, skip: bool = False) -> tuple[list[str], list[str]]:
    """Keys that were used, without their server, and why others were not."""
    plan = Plan.model_validate(
        {
            "index": tmp_path / "index.parquet",
            "preprocess": [{"Resize": {"height": 8, "width": 8}}],
            "batch": {"size": 2},
            "errors": {"on_error": "skip" if skip else "replace", "max_bad_share": 1.0, "max_wait_s": 1.0},
        }
    )
    with LocalEngine(num_threads=1).feed(plan, View()) as feed:
        used = sorted({f"/{key.rpartition('/')[2]}" for batch in feed for key in batch.keys})
    return used, [entry["reason"] for entry in feed.quarantine]


def test_a_server_that_drips_is_given_up(server: Server, picture: bytes, tmp_path: Path) -> None:
    """A server sends a byte at a time, for ever: the image is given up within the time that is allowed."""

    def response(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"", Content_Length=100_000)
        if handler.command == "GET":
            server.endless(handler, b"\0", pause_s=0.05)

    started = time.monotonic()
    status = status_beside_a_good_one(server, picture, tmp_path, response, max_wait_s=1.0)
    assert "no valid response" in status or "no response" in status
    assert server.sent_bytes < 100_000
    assert time.monotonic() - started < 300


def test_a_compressed_reply_is_not_unpacked(server: Server, picture: bytes, tmp_path: Path) -> None:
    """A server sends gigabytes of zeros, compressed, though it was asked not to: refused, and never unpacked."""
    bomb = gzip.compress(b"\0" * (256 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def response(handler: BaseHTTPRequestHandler) -> None:
        length = 256 << 20 if handler.command == "HEAD" else len(bomb)
        send(
            handler,
            200,
            bomb,
            Content_Length=length,
            Content_Encoding=None if handler.command == "HEAD" else "gzip",
        )

    status = status_beside_a_good_one(server, picture, tmp_path, response)
    assert "compressed response" in status
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 200 << 20


def test_a_listing_without_end_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that lists a folder never ends: it is refused after its limit, not read into memory for ever."""
    monkeypatch.setattr("lightwell.pipeline.storage.http.MAX_PAGE_BYTES", 1 << 20)

    def response(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"", Content_Length=None, Content_Type="text/html", Connection="close")
        if handler.command == "GET":
            server.endless(handler, b'<a href="a.png">a</a>\n' * 1000)

    for path in ("/photos", "/photos/"):
        server.replies[path] = response
    with pytest.raises(LightwellError):
        build_index(f"{server.url}/photos/", max_wait_s=2.0)
    assert server.sent_bytes < 256 << 20


def test_a_file_that_is_replaced_by_one_of_equal_size_is_noticed_by_its_tag(
    server: Server, picture: bytes, tmp_path: Path
) -> None:
    """A picture is replaced by another of as many bytes after it was indexed: it is quarantined, not used as the old one."""
    server.files |= {"/good.png": picture, "/bad.png": picture}
    indexed(server, tmp_path, "/good.png", "/bad.png").save(tmp_path / "index.parquet")
    assert read(tmp_path)[0] == ["/bad.png", "/good.png"]
    server.files["/bad.png"] = picture[:-1] + bytes([picture[-1] ^ 1])
    used, reasons = read(tmp_path)
    assert used == ["/good.png"]
    assert "with the ETag" in reasons[0]


def test_weak_tags_may_differ(server: Server, picture: bytes, tmp_path: Path) -> None:
    """A server gives another weak tag with every response, as it may: its picture is used."""
    number = iter(range(1000))
    server.replies["/a.png"] = lambda handler: send(handler, 200, picture, ETag=f'W/"{next(number)}"')
    indexed(server, tmp_path, "/a.png").save(tmp_path / "index.parquet")
    assert read(tmp_path) == (["/a.png"], [])


def test_the_store_closes_what_it_gives_up(server: Server) -> None:
    """A store asks a server that hangs and is closed meanwhile: nobody waits for the rest of its patience."""
    server.replies["/a.png"] = lambda handler: server.endless(handler, b"", pause_s=0.1)
    store = RemoteStore(0.5, UriRules.from_env())
    with pytest.raises(LightwellError):
        store.stat(f"{server.url}/a.png")
    store.close()
