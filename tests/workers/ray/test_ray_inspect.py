"""A dataset audit on a cluster of three machines, one of which is lost, leaves the files of one machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from clusters import Cluster, ray_cluster
from lightwell import LocalEngine, ModelSpec, Plan, run_batch_job
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.workers.ray.cluster import connected
from lightwell.workers.ray.engine import RayEngine
from PIL import Image
from ray_jobs import files_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> DatasetAudit:
    """36 pictures of two classes, among them copies, a cut off one and a lost one, and a small network."""
    folder = tmp_path_factory.mktemp("inspect")
    for number in range(36):
        pixels = np.random.default_rng(number).integers(30, 226, (12, 12, 3), np.uint8)
        path = folder / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(path)
    photos = folder / "photos"
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    build_index(photos).save(folder / "index.parquet")
    (photos / "cat" / "02.png").write_bytes((photos / "cat" / "02.png").read_bytes()[:300])
    (photos / "dog" / "35.png").unlink()
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "weights.pth")
    plan = Plan.model_validate(
        {"index": folder / "index.parquet", "batch": {"size": 2}, "errors": {"max_bad_share": None}}
    )
    return DatasetAudit(
        plan=plan, model=ModelSpec(name="timm:test_resnet", weights=str(folder / "weights.pth"))
    )


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    """A head that runs no worker, and two nodes with one CPU each."""
    with ray_cluster(0, 1, 1) as found, connected(found.address):
        yield found


class NodeLoss(SilentConsole):
    """Loses a node of a cluster in the middle of a stage."""

    def __init__(self, cluster: Cluster, stage: str) -> None:
        self.cluster, self.stage, self.lost = cluster, stage, ""

    def track(self, batches: Any, label: str) -> Iterator[Any]:
        for number, batch in enumerate(batches):
            yield batch
            if number == 1 and self.stage in label and not self.lost:
                node = next(each for each in self.cluster.nodes[1:] if each.pids_of("ray::"))
                self.cluster.kill_node(node)
                self.lost = node.ip


@pytest.mark.fault("Ray: SIGKILL of one of three nodes in a stage of a dataset audit")
@pytest.mark.parametrize("has_model", [False, True])
def test_an_audit_that_loses_a_node_leaves_the_files_of_one_machine(
    audit: DatasetAudit, machines: Cluster, tmp_path: Path, has_model: bool
) -> None:
    job = audit if has_model else audit.model_copy(update={"model": None})
    expected = run_batch_job(job, LocalEngine(num_threads=2), tmp_path / "local", part_images=8)
    while len(machines.nodes) < 3:
        machines.add_node(1)
    loss = NodeLoss(machines, "images")
    found = run_batch_job(job, RayEngine(), tmp_path / "ray", loss, part_images=8)
    assert loss.lost
    assert found == expected
    assert {finding["kind"] for finding in found["findings"]} >= {"unreadable", "exact_duplicate"}
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
