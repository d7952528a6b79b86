"""Local servers for tests: an S3-compatible one, and an HTTP server with injected faults."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from patience import HANG_S

BUCKET = "photos"


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a moto server on the loopback interface with an empty bucket; yield a boto3 client."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    use_endpoint(monkeypatch, f"http://{host}:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield client
    finally:
        client.close()
        server.stop()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Configure the S3 clients of this process for an endpoint."""
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def upload(client: Any, folder: Path, prefix: str = "") -> None:
    """Upload all files of a folder to the bucket."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.put_object(
                Bucket=BUCKET, Key=f"{prefix}{path.relative_to(folder)}", Body=path.read_bytes()
            )


@dataclass
class Faulty:
    """State of an HTTP server with injected faults, which supports S3's GET and HEAD of objects."""

    files: dict[str, bytes]
    faults: dict[str, list[str]] = field(default_factory=dict)
    """By path, or ``*`` for every path: faults of the next requests, in order; one that ends in ``!`` is permanent.

    ``500``, ``cut`` (half of the body, then the end), ``garbage``, ``slow`` (half a second), ``silent`` (no response).
    """
    num_requests: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    url: str = ""
    ending: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, path: str) -> str:
        with self.lock:
            self.num_requests[path] += 1
            for name in (path, "*"):
                waiting = self.faults.get(name, [])
                if waiting:
                    return waiting[0].rstrip("!") if waiting[0].endswith("!") else waiting.pop(0)
        return ""


@contextmanager
def faulty_server(files: dict[str, bytes]) -> Iterator[Faulty]:
    """Serve files, by path such as ``/photos/a.jpg``, on the loopback interface."""
    faulty = Faulty(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            """Disable logging."""

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, *, body: bool = True) -> None:
            fault = faulty.next_fault(self.path)
            if fault == "silent":
                faulty.ending.wait(2 * HANG_S)
                self.close_connection = True
                return None
            if fault == "slow":
                time.sleep(0.5)
            if fault == "500":
                return self.reply(500, b"")
            data = faulty.files.get(self.path)
            if data is None:
                return self.reply(404, b"")
            span = self.headers.get("Range", "")
            first, last = 0, len(data) - 1
            if span.startswith("bytes="):
                start, _, end = span[6:].partition("-")
                first, last = int(start), min(int(end or last), last)
            part = data[first : last + 1]
            if fault == "garbage":
                part = bytes(len(part))
            headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"} if span else {}
            headers["ETag"] = f'"{hash(data) & 0xFFFFFF:x}"'
            headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
            return self.reply(
                206 if span else 200, part if body else b"", headers, len(part), cut=fault == "cut"
            )

        def reply(
            self,
            status: int,
            data: bytes,
            headers: dict[str, str] | None = None,
            length: int | None = None,
            *,
            cut: bool = False,
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            sent = data[: len(data) // 2] if cut else data
            self.wfile.write(sent)
            with faulty.lock:
                faulty.sent_bytes += len(sent)
            if cut:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Ignore clients that timed out."""

    server = Server(("127.0.0.1", 0), Handler)
    faulty.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield faulty
    finally:
        faulty.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()
