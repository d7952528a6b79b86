"""What feeds tell Ray's metrics, read where Prometheus reads it: at the nodes' own endpoints."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import promql_parser
import pytest
import warm
from clusters import Cluster, ray_cluster, wait_until
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.monitor.stats import FeedStats, QueueStats, ThreadStats
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from lightwell.workers.metrics import INSTRUMENTS, TAGS, FeedMeter
from lightwell.workers.ray.cluster import connected
from patience import HANG_S
from pictures import make_folder
from ray_jobs import CountImages

EXPORT_S = 60.0
"""Ray exports every ten seconds."""
Sample = tuple[str, frozenset[tuple[str, str]]]


def scrape(port: int) -> dict[Sample, float]:
    """Read what a node shows, as Prometheus does."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_S) as answer:
        text = answer.read().decode()
    found = {}
    for name, labels, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return found


def of_job(samples: dict[Sample, float], name: str, **tags: str) -> list[float]:
    return [
        value for (found, labels), value in samples.items() if found == name and set(tags.items()) <= labels
    ]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Eleven pictures, one of them cut off."""
    photos = make_folder(tmp_path / "photos", num_images=11)
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    build_index(photos, fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    written = {
        "index": tmp_path / "index.parquet",
        "preprocess": [{"Resize": {"height": 32, "width": 32}}],
        "batch": {"size": 2},
        "cache": tmp_path / "pixels",
    }
    return Plan.model_validate(written)


PORT = """
import sys
import ray
from lightwell.workers.ray.cluster import connect

connect(sys.argv[1])
print(ray.nodes()[0]["MetricsExportPort"])
"""
"""Asked in a process of its own: Ray counts once more for each cluster that one joined before."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A node whose agent takes metrics: a process that joins earlier tries for some seconds and then never exports any."""
    with ray_cluster(2) as started:
        asked = warm.run(PORT, started.address)
        assert asked.returncode == 0, asked.stderr
        wait_until(lambda: has_metrics_of_raylet(int(asked.stdout)), EXPORT_S, "metrics of the raylet")
        yield started


def has_metrics_of_raylet(port: int) -> bool:
    try:
        return any(("Component", "raylet") in labels for _, labels in scrape(port))
    except OSError:
        return False


def some_stats(**changes: object) -> FeedStats:
    threads = (
        ThreadStats("process", 10.0, {"decode": 6.0, "input": 4.0}, {"decode": 1000}),
        ThreadStats("consume", 10.0, {"input": 2.5, "consumer": 7.5}, {}),
    )
    written = {
        "wall_s": 10.0, "first_batch_s": 0.1, "cpu_s": 9.0, "num_threads": 1, "num_samples": 64, "num_batches": 2,
        "samples_per_second": 6.4, "samples_per_second_now": 6.4, "cache_hits": 5, "replaced": 1, "threads": threads,
        "queues": (QueueStats("open batches", 3, 2.0),), "memory_bytes": 1, "peak_bytes": 1,
    }  # fmt: skip
    return FeedStats(**{**written, **changes})  # type: ignore[arg-type]


def test_without_ray_nothing_is_told_and_nothing_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    FeedMeter("job", "train").report(some_stats(), {"replaced": 1, "skipped": 0})
    assert "ray" not in sys.modules


@pytest.mark.ray
def test_a_job_is_seen_at_its_nodes_endpoint(
    cluster: Cluster, plan: Plan, tmp_path: Path, root: Path
) -> None:
    import ray

    with connected(cluster.address):
        (node,) = ray.nodes()
        port = node["MetricsExportPort"]
        run_training_job(CountImages(plan), LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
        wait_until(
            lambda: of_job(scrape(port), "ray_lightwell_samples_total", job="CountImages"),
            EXPORT_S,
            "an export",
        )
        samples = scrape(port)
        tags = {"job": "CountImages", "feed": "train"}
        assert of_job(samples, "ray_lightwell_samples_total", **tags) == [22.0]
        assert of_job(samples, "ray_lightwell_batches_total", **tags) == [12.0]
        assert of_job(samples, "ray_lightwell_replaced_total", **tags) == [2.0]
        assert of_job(samples, "ray_lightwell_cache_hits_total", **tags)[0] > 0
        assert of_job(samples, "ray_lightwell_bytes_total", step="decode", **tags)[0] > 0
        assert (
            of_job(samples, "ray_lightwell_step_seconds_total", stage="process", step="decode", **tags)[0] > 0
        )
        consumer = of_job(
            samples, "ray_lightwell_step_seconds_total", stage="consume", step="consumer", **tags
        )
        assert consumer[0] == pytest.approx(12 * 0.05, rel=0.5)
        assert 0 <= of_job(samples, "ray_lightwell_stall_share", **tags)[0] <= 1
        assert of_job(samples, "ray_lightwell_queue_depth", queue="read chunks", **tags) != []

        dashboard = json.loads((root / "deploy" / "grafana-dashboard.json").read_text())
        shown = {name for name, _ in samples}
        queried = {name for query in queries_of(dashboard) for name in names_of(query)}
        # Nothing was left out in this run or came from other processes, so that these counters do not exist yet.
        rare = {"ray_lightwell_skipped_total", "ray_lightwell_moved_bytes_total"}
        assert {name for name in queried if name.startswith("ray_lightwell_")} - shown <= rare
        assert {name for name in queried if not name.startswith("ray_lightwell_")} <= shown


DRIVER = """
import signal
import sys
from pathlib import Path
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.workers.ray.cluster import connect
from lightwell.workers.local import run_training_job
from lightwell.workers.ray.engine import RayEngine
from ray_jobs import CountOnRay

plan, out, address = Plan.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
connect(address)
run_training_job(CountOnRay(plan), RayEngine(address, num_workers=1), out, SilentConsole())
signal.pause()
"""


@contextmanager
def counting_on_ray(plan: Plan, folder: Path, address: str) -> Iterator[warm.Running]:
    """Run a job in a process of its own, which stays: Ray counts once more for each cluster that one joined before."""
    plan.save(folder / "plan.yaml")
    with warm.running(DRIVER, folder / "plan.yaml", folder / "out", address) as driver:
        yield driver


@pytest.mark.ray
def test_what_workers_of_the_ray_engine_did_is_seen_with_their_feed(
    cluster: Cluster, plan: Plan, tmp_path: Path
) -> None:
    import ray

    with connected(cluster.address):
        (node,) = ray.nodes()
    tags = {"job": "CountOnRay", "feed": "train"}

    def seen(name: str, **more: str) -> list[float]:
        return of_job(scrape(node["MetricsExportPort"]), f"ray_lightwell_{name}_total", **tags, **more)

    with counting_on_ray(plan, tmp_path, cluster.address) as driver:
        wait_until(lambda: seen("batches") == [12.0] or not driver.process.is_alive(), EXPORT_S, "an export")
        assert driver.process.is_alive(), driver.err.read_text()
        assert seen("samples") == [22.0]
        assert seen("moved_bytes")[0] > 22 * 32 * 32 * 3
        assert seen("step_seconds", stage="process", step="decode")[0] > 0


@pytest.mark.ray
def test_an_actor_reports_growth_and_a_feed_that_begins_anew_starts_from_zero(cluster: Cluster) -> None:
    import ray

    with connected(cluster.address):
        (node,) = ray.nodes()

        @ray.remote(num_cpus=0)
        class BuildWorker:
            def __init__(self) -> None:
                self.meter = FeedMeter("actor", "train", "rank 1")

            def report(self, stats: FeedStats) -> None:
                self.meter.report(stats, {"replaced": stats.replaced, "skipped": 0})

        worker = BuildWorker.remote()
        for told in (some_stats(), some_stats(num_samples=128), some_stats(num_samples=32)):
            ray.get(worker.report.remote(told))

        def total() -> list[float]:
            return of_job(
                scrape(node["MetricsExportPort"]), "ray_lightwell_samples_total", job="actor", worker="rank 1"
            )

        wait_until(lambda: total() == [160.0], EXPORT_S, "three reports")
        ray.kill(worker)


def queries_of(dashboard: dict[str, object]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def names_of(query: str) -> set[str]:
    """Find the metrics of a query; Grafana's variables are filled in first."""
    parsed = promql_parser.parse(query.replace("$__rate_interval", "5m"))
    return set(re.findall(r"[a-z_]+(?=\{)", parsed.prettify()))


def test_every_metric_is_on_the_dashboard_and_every_query_can_be_parsed(root: Path) -> None:
    dashboard = json.loads((root / "deploy" / "grafana-dashboard.json").read_text())
    queried = {name for query in queries_of(dashboard) for name in names_of(query)}
    ours = {f"ray_{name}{'_total' * (one.kind == 'counter')}" for name, one in INSTRUMENTS.items()}
    assert ours <= queried
    tags = {*TAGS, *(tag for one in INSTRUMENTS.values() for tag in one.tags)}
    grouped = {
        word
        for query in queries_of(dashboard)
        for group in re.findall(r"by \(([^)]*)\)", query)
        for word in group.replace(" ", "").split(",")
    }
    assert grouped <= {*tags, "instance", "NodeAddress", "Name"}
