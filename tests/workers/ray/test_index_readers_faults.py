"""Indexing on Ray while something is killed: time is lost, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import TESTS, Cluster, ray_cluster, wait_until
from forked_workers import UNSHARED
from lightwell.pipeline.errors import RunError
from lightwell.pipeline.index import scan
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.index.scan_checkpoint import ScanCheckpoint
from lightwell.workers.ray.cluster import connected
from lightwell.workers.ray.index_readers import RayReaders
from patience import HANG_S
from pictures import make_folder
from ray_jobs import SlowChunk

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TASK = "ray::scan_group"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions of two files, so that there are many."""
    monkeypatch.setattr(scan, "LOCAL_CHUNK_FILES", 2)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Sixty pictures in as many classes, so that a run takes some seconds where each chunk waits."""
    return make_folder(tmp_path / "photos", num_images=60)


@pytest.fixture(scope="module")
def apart() -> Iterator[Cluster]:
    """A head without room for workers, and a node with one CPU, of which a test may do as it likes."""
    with ray_cluster(0, 1) as found, connected(found.address):
        yield found


def saved(index: Index, path: Path) -> bytes:
    index.save(path)
    return path.read_bytes()


class SlowReaders(RayReaders):
    """Readers whose tasks wait at each chunk."""

    def scan(self, chunks: Any, **options: Any) -> Any:
        yield from super().scan((SlowChunk(one, 0.2) for one in chunks), **options)


@pytest.mark.fault("indexing: SIGKILL of a worker, then of its node while another joins")
def test_workers_and_nodes_that_die_change_nothing(many: Path, tmp_path: Path, apart: Cluster) -> None:
    first = apart.nodes[1]
    done: list[str] = []

    def hurt(number: int, total: int) -> None:
        if number >= 6 and not done:
            wait_until(lambda: first.pids_of(TASK), HANG_S, "a task")
            os.kill(first.pids_of(TASK)[0], signal.SIGKILL)
            done.append("worker")
        elif number >= 20 and len(done) == 1:
            apart.add_node(1)
            apart.kill_node(first)
            done.append("nodes")

    index = build_index(many, readers=SlowReaders(num_workers=1), progress=hurt)
    assert done == ["worker", "nodes"]
    assert saved(index, tmp_path / "there") == saved(build_index(many), tmp_path / "here")


DRIVER = """
import sys
from pathlib import Path
from lightwell.pipeline.index import scan
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.scan_checkpoint import ScanCheckpoint
from lightwell.workers.ray.index_readers import RayReaders
from ray_jobs import SlowChunk

class SlowReaders(RayReaders):
    def scan(self, chunks, **options):
        yield from super().scan((SlowChunk(one, 0.1) for one in chunks), **options)

scan.LOCAL_CHUNK_FILES = 2
source, output, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
build_index(
    source,
    readers=SlowReaders(address, 1),
    checkpoint=ScanCheckpoint(output, interval_s=0),
)
"""


@pytest.mark.fault("indexing: SIGKILL of the driver")
def test_a_driver_that_is_killed_is_taken_up_by_the_next(many: Path, tmp_path: Path, apart: Cluster) -> None:
    output = tmp_path / "index.parquet"
    words = [sys.executable, "-c", DRIVER, str(many), str(output), apart.address]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    driver = subprocess.Popen(words, env=env, start_new_session=True)
    parts = tmp_path / ".index.parquet.parts"
    wait_until(lambda: len(list(parts.glob("part-*.parquet"))) >= 5, HANG_S, "five parts")
    driver.kill()
    driver.wait()
    assert not output.exists()
    said: list[str] = []
    num_left = 2 * len(list(parts.glob("part-*.parquet")))
    checkpoint = ScanCheckpoint(output, report=said.append)
    index = build_index(many, readers=RayReaders(num_workers=1), checkpoint=checkpoint)
    assert said == [f"resuming an interrupted scan: {num_left} files are done"]
    assert 10 <= num_left < 60
    assert saved(index, output) == saved(build_index(many), tmp_path / "here")


def test_a_node_that_has_not_mounted_the_files_ends_the_run(many: Path, apart: Cluster) -> None:
    if subprocess.run([*UNSHARED, "mount -t tmpfs none /mnt"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    for node in apart.nodes[1:]:
        apart.kill_node(node)
    blind = apart.add_node(1, hidden=many)
    with pytest.raises(RunError, match=r"expected to read .*000\.jpg.*as the driver can, got no such file"):
        build_index(many, readers=RayReaders(num_workers=1))
    apart.kill_node(blind)
