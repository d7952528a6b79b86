"""Local Ray clusters of several nodes, for tests that kill processes and nodes.

Every node is a separate `ray start` with its own loopback address, raylet and object store; its processes share a session,
by which they are found and killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from forked_workers import start_node
from patience import HANG_S

TESTS = Path(__file__).resolve().parent
START_S = 60.0
STORE_BYTES = 200 << 20
# Detects a dead node within about 3 s instead of 15 s; a busy machine has 10 s to answer.
SYSTEM = {
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 10000,
}


@dataclass(frozen=True)
class Node:
    """One node: its `ray start` process is the session leader of all others."""

    process: ForkServerProcess
    ip: str
    log: Path

    def pids(self) -> list[int]:
        """Return the live processes of the node."""
        return sorted(
            pid
            for pid, (session, state) in processes().items()
            if session == self.process.pid and state != "Z"
        )

    def pids_of(self, name: str) -> list[int]:
        """Return those whose command line contains a text, such as ``raylet/raylet`` or ``ray::``."""
        return [pid for pid in self.pids() if name in command_line(pid)]


@dataclass
class Cluster:
    """A Ray cluster: a head node and others."""

    folder: Path
    env: Mapping[str, str]
    address: str = ""
    dashboard: str = ""
    """URL of the job server, if requested."""
    nodes: list[Node] = field(default_factory=list)
    num_started: int = 0

    def add_node(
        self,
        num_cpus: int = 1,
        *,
        num_gpus: int = 0,
        resources: Mapping[str, float] | None = None,
        store_bytes: int = STORE_BYTES,
        dashboard: bool = False,
        hidden: Path | None = None,
    ) -> Node:
        """Start a node and wait until it has joined the cluster; the first one is the head. GPUs need not exist.

        A ``hidden`` folder appears empty on the node, as on a machine that has not mounted it.
        """
        is_head = not self.address
        self.num_started += 1
        ip = f"127.0.0.{self.num_started + 1}"  # 127.0.0.1 would be changed to an address of the network
        port = free_port()
        command = [
            "start",
            "--block",
            "--disable-usage-stats",
            f"--node-ip-address={ip}",
            f"--num-cpus={num_cpus}",
        ]
        command += [f"--num-gpus={num_gpus}", f"--object-store-memory={store_bytes}"]
        command += [f"--resources={json.dumps(dict(resources or {}))}"]
        for name in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent"):
            command.append(f"--{name}-port=0")
        command.append("--include-log-monitor=")  # drivers get no logs
        for name in ("min-worker", "max-worker", "node-manager", "object-manager"):
            command.append(f"--{name}-port=0")
        if is_head:
            command += [
                "--head",
                "--port=0",
                "--no-monitor",  # nothing scales
                f"--temp-dir={self.folder}",
            ]
            command += [f"--include-dashboard={str(dashboard).lower()}", "--dashboard-host=127.0.0.1"]
            command += [f"--dashboard-port={port}", f"--system-config={json.dumps(SYSTEM)}"]
        else:
            command.append(f"--address={self.address}")
        log = self.folder / f"node-{self.num_started}.log"
        log.touch()
        process = start_node(command, self.env, self.folder, log, hidden)
        node = Node(process, ip, log)
        self.nodes.append(node)
        wait_until(
            lambda: "Ray runtime started" in log.read_text() or not process.is_alive(), START_S, "a node"
        )
        assert process.is_alive(), log.read_text()
        if is_head:
            written = self.folder / "ray_current_cluster"
            wait_until(
                lambda: written.is_file() and written.read_text().strip() != "", START_S, "the head's address"
            )
            self.address = written.read_text().strip()
            self.dashboard = f"http://127.0.0.1:{port}" if dashboard else ""
        return node

    def kill_node(self, node: Node) -> None:
        """SIGKILL a node's raylet and everything else of it, as if its machine lost power."""
        kill_session(node)
        self.nodes.remove(node)

    def shutdown(self) -> None:
        """End all nodes at once and leave nothing of them."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            ray.shutdown()
        for node in reversed(self.nodes):
            kill_session(node)
        self.nodes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_cluster(
    num_cpus: int = 1,
    *others: int,
    store_bytes: int = STORE_BYTES,
    dashboard: bool = False,
    env: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Start a head node with so many CPUs and one node for each further number; nothing is left when it ends.

    Modules in ``tests`` can be imported on the nodes. Connect with ``lightwell.workers.ray.cluster.connect(address)``.
    """
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH", ""))))
    folder = Path(tempfile.mkdtemp(prefix="lw"))  # short: sockets lie below, whose paths have 107 bytes
    cluster = Cluster(folder, {**os.environ, "PYTHONPATH": path, **(env or {})})
    try:
        cluster.add_node(num_cpus, store_bytes=store_bytes, dashboard=dashboard)
        for number in others:
            cluster.add_node(number, store_bytes=store_bytes)
        yield cluster
    finally:
        cluster.shutdown()


def kill_session(node: Node) -> None:
    """SIGKILL all processes of a node until none is left, those too that it starts meanwhile."""

    def gone() -> bool:
        pids = node.pids()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not pids

    wait_until(gone, START_S, f"the end of node {node.ip}")
    node.process.join()


def processes() -> dict[int, tuple[int, str]]:
    """Map every process of this machine to its session and its state."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                told = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(folder.name)] = int(told[3]), told[0]
    return found


def command_line(pid: int) -> str:
    """Return what `ps` shows of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def free_port() -> int:
    """Find a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(done: object, seconds: float, what: str) -> None:
    """Ask again and again until it is so; for as long as a busy machine may need, where it is less."""
    assert callable(done)
    seconds = max(seconds, HANG_S)
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)
