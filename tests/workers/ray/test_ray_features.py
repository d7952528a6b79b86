"""Features and probes on Ray: the files of the local engine, to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from clusters import Cluster
from lightwell import LocalEngine, ModelSpec, Plan, build_index
from lightwell.models.features.embed import Embed
from lightwell.models.features.probe import GridOptions, ProbeFeatures
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.workers.local import run_batch_job, run_training_job
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.ray.engine import RayEngine
from lightwell.workers.train.trainer import RayTrainer
from pictures import make_folder
from ray_jobs import files_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

LOCAL = LocalEngine(num_threads=1)
RANDOM = ModelSpec(name="timm:test_resnet", weights="none")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Pictures of two classes in three splits, one of them cut off after indexing."""
    folder = tmp_path_factory.mktemp("features")
    for split, num_images in (("train", 9), ("val", 6), ("test", 4)):
        make_folder(folder / "photos" / split, num_images=num_images)
    build_index(folder / "photos").save(folder / "index.parquet")
    damaged = folder / "photos" / "train" / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    policy = [{"Resize": {"height": 32, "width": 32}}]
    return Plan.model_validate(
        {"index": folder / "index.parquet", "preprocess": policy, "batch": {"size": 4}}
    )


def test_embed_on_ray_writes_the_files_of_the_local_engine(plan: Plan, tmp_path: Path) -> None:
    job = Embed(plan=plan, model=RANDOM, untrained="allow")
    for engine, name in ((LOCAL, "local"), (RayEngine(num_workers=2), "ray")):
        run_batch_job(job, engine, tmp_path / name, part_images=5)
    expected = files_of(tmp_path / "local")
    assert "features.parquet" in expected
    assert files_of(tmp_path / "ray") == expected


def test_a_probe_on_ray_writes_the_files_of_the_local_engine(
    plan: Plan, tmp_path: Path, cluster: Cluster
) -> None:
    job = ProbeFeatures(
        plan=plan, model=RANDOM, blocks=("layer3",), logistic=(0.1,), grid=GridOptions(epochs=2)
    )
    run_training_job(job, LOCAL, tmp_path / "local")
    trainer = RayTrainer(address=cluster.address, per_worker=Resources(cpus=1))
    trainer.run(job, tmp_path / "ray", SilentConsole())
    for name in ("best.safetensors", "counts.json", "quarantine.jsonl", "result.json"):
        expected, got = ((tmp_path / engine / name).read_bytes() for engine in ("local", "ray"))
        assert got.replace(b"/ray/best", b"/local/best") == expected, name
