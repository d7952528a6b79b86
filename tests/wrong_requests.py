"""Wrong requests, as people make them: what each writes and which command it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.ray.cluster import ResourceRequest
from lightwell.workers.ray.engine import RayEngine


@dataclass(frozen=True)
class Wrong:
    """A command that is refused, and the files that it names."""

    command: str
    files: Mapping[str, str] = field(default_factory=dict)


def plan(text: str) -> Wrong:
    """A wrong plan; the index is that of the folder if the text names none."""
    named = text if text.startswith("index") else f"index: index.parquet\n{text}"
    return Wrong("explain plan.yaml", {"plan.yaml": named})


def policy(text: str) -> Wrong:
    """A wrong policy for training."""
    return plan(f"augment:\n  {text}")


def train(text: str) -> Wrong:
    """A wrong training job."""
    return Wrong("train train.yaml --out run", {"train.yaml": text})


def audit(text: str) -> Wrong:
    """A wrong audit."""
    return Wrong("audit audit.yaml --out audited", {"audit.yaml": text})


PLANS = (
    plan("prepocess: [ToGray]"),
    plan("batch: 32"),
    plan("batch: {size: 0}"),
    plan("batch: {sise: 8}"),
    plan("seed: -1"),
    plan("device: cuda"),
    plan("decode: fast"),
    plan("cache: {dir: cache, quality: 90}"),
    plan("cache: {dir: cache, format: webp}"),
    plan("cache: cache\ndevice: gpu"),
    plan("errors: {on_error: ignore}"),
    plan("errors: {max_bad_share: 5}"),
    plan("resources: {cpus: 0}"),
    plan("resources: {gpus: 1.5}"),
    plan("sampling: balance"),
    plan("sampling: {weights: {cat: -1}}"),
    plan("mix: {kind: Mixup}"),
    plan("bbox_params: {min_visibility: 20}"),
    plan("preprocess: [HorizontalFlip]"),
    plan("evaluate: [{RandomCrop: {height: 8, width: 8}}]"),
    plan("index: s3://bucket/index.parquet"),
    Wrong("preview plan.yaml --out preview.html", {"plan.yaml": "index: nowhere.parquet\n"}),
    plan("index: plan.yaml"),
    plan("seed: 1\nseed: 2"),
    plan("augment: [HorizontalFlip"),
    Wrong("explain plan.yml", {"plan.yaml": "index: index.parquet\n"}),
    Wrong("explain plan.yaml", {"plan.yaml": "- index.parquet\n"}),
)

POLICIES = (
    policy("- HorizontalFilp"),
    policy("- {HorizontalFlip: {prob: 0.5}}"),
    policy("- {HorizontalFlip: {p: 2}}"),
    policy("- {RandomCrop: {height: 8}}"),
    policy("- {Resize: {height: -8, width: 8}}"),
    policy("- {Rotate: {limit: many}}"),
    policy("- {OneOf: {transforms: []}}"),
    policy("- {OneOf: {transforms: [Blur], n: 2}}"),
    policy("- {SomeOf: {transforms: [Blur, ToGray], n: 0}}"),
    policy("- {Blur: {}, ToGray: {}}"),
    policy("HorizontalFlip"),
    policy("- mypackage.transforms:Scratches"),
    policy("- Lambda"),
    policy("- {Mosaic: {target_size: [64, 64]}}"),
    policy("- {Compose: {transforms: [Blur], seed: 5}}"),
    policy("{file: policy.json}"),
    policy("{import: 'mypackage.policies:strong'}"),
    policy("- {GaussNoise: {std_range: [0.1, 5]}}"),
    policy("- {CoarseDropout: {fill: blue}}"),
    policy("- {CoarseDropout: {fill: 300}}"),
    policy("- {Posterize: {num_bits: [[1, 2], [1, 2], [1, 2], [1, 2]]}}"),
    policy("- {Posterize: {num_bits: [4, 9]}}"),
    policy("- {Rotate: {fill: [1, 2, 3, 4, 5]}}"),
    policy("- {RandomResizedCrop: {size: 224}}"),
    policy("- {RandomResizedCrop: {size: [224]}}"),
)

SOURCES = (
    Wrong("index -q fotos"),
    Wrong("index -q empty", {"empty/.keep": ""}),
    Wrong("index -q notes.txt", {"notes.txt": "cat.jpg\n"}),
    Wrong("index -q table.csv", {"table.csv": "file,label\ncat.jpg,cat\n"}),
    Wrong("index -q table.csv --label-column breed", {"table.csv": "path,label\ncat.jpg,cat\n"}),
    Wrong("index -q table.csv", {"table.csv": "path,label\n"}),
    Wrong("index -q table.csv --labels numbers", {"table.csv": "path,label\ncat.jpg,cat\n"}),
    Wrong("index -q coco.json", {"coco.json": "{}"}),
    Wrong("index -q coco.json", {"coco.json": '{"images": [{"id": 1}], "annotations": []}'}),
    Wrong("index -q empty --annotations voc", {"empty/.keep": ""}),
    Wrong("index -q data.yaml", {"data.yaml": "names: [cat]\n"}),
    Wrong("index -q 'train-{000..009}.tar'"),
    Wrong("index -q smb://server/photos"),
    Wrong("index -q photos --split train=0.8,val=0.1"),
    Wrong("index -q photos --split train"),
    Wrong("index -q photos -o photos"),
    Wrong("index -q ''"),
)

MODEL = "model: {name: resnet18, weights: none}\n"
JOBS = (
    train(MODEL),
    train("plan: plan.yaml\n"),
    train(f"plan: nowhere.yaml\n{MODEL}"),
    train(f"plan: 5\n{MODEL}"),
    train("plan: plan.yaml\nmodel: {name: resnet81}\n"),
    train("plan: plan.yaml\nmodel: resnet18\n"),
    train("plan: plan.yaml\nmodel: {name: resnet18, weights: best.pth}\n"),
    train("plan: plan.yaml\nmodel: {name: resnet18, weights: none}\nepoch: 5\n"),
    train(f"plan: plan.yaml\n{MODEL}epochs: 0\n"),
    train(f"plan: plan.yaml\n{MODEL}monitor: acuracy\n"),
    train(f"plan: plan.yaml\n{MODEL}fine_tune_from: layer5\n"),
    train(f"plan: plan.yaml\n{MODEL}fine_tune_from: all\nfeature_passes: 2\n"),
    train(f"plan: plan.yaml\n{MODEL}validation_split: new\n"),
    train(f"plan: plan.yaml\n{MODEL}optimizer: {{kind: adamw2}}\n"),
    train(f"plan: plan.yaml\n{MODEL}feed: sweep\n"),
    train(f"job: gradcam\nplan: plan.yaml\n{MODEL}"),
    train(f"job: clasify\nplan: plan.yaml\n{MODEL}"),
    audit("plan: plan.yaml\n"),
    audit(f"plan: plan.yaml\n{MODEL}"),
    audit(f"plan: plan.yaml\n{MODEL}untrained: allow\ntarget_layer: layer9\n"),
    audit(f"plan: plan.yaml\n{MODEL}untrained: allow\nsplit: new\n"),
    audit(f"plan: plan.yaml\n{MODEL}class_names: image-net\n"),
    audit("plan: plan.yaml\ncheckpoint: nowhere.safetensors\n"),
)

COMMANDS = (
    Wrong("trian"),
    Wrong("index"),
    Wrong("index photos --labls text"),
    Wrong("index photos --labels words"),
    Wrong("inspect photos --weights none --out inspected"),
    Wrong("embed plan.yaml --weights none --out features"),
    Wrong("train nowhere.yaml --out run"),
    Wrong("train train.yaml"),
    Wrong("train train.yaml --out run --workers 4"),
    Wrong("train train.yaml --out run --engine ray --threads 4"),
    Wrong("train train.yaml --out run --memory lots"),
    Wrong("train train.yaml --out run --engine dask"),
    Wrong("train train.yaml --out photos"),
    Wrong("train train.yaml --out run --allow-import ./mine.py"),
    Wrong("audit audit.yaml --out run --fail-on 'accuracy=0.8'"),
    Wrong("audit audit.yaml --out run --fail-on 'acuracy<0.8'"),
    Wrong("audit audit.yaml --out run --explain fish"),
    Wrong("predict nowhere.safetensors photos --out predictions"),
    Wrong("predict plan.yaml photos --out predictions"),
    Wrong("predict nowhere.safetensors"),
    Wrong("evaluate nowhere.safetensors plan.yaml --out evaluation"),
    Wrong("export nowhere.safetensors --onnx model.onnx"),
    Wrong("export plan.yaml"),
    Wrong("materialize plan.yaml --out shards --format zip"),
    Wrong("preview plan.yaml --out preview.html --key nobody"),
    Wrong("preview plan.yaml --out plan.yaml"),
    Wrong("init nowhere"),
    Wrong("init photos --model resnet81"),
    Wrong("cache ls nowhere"),
    Wrong("report nowhere"),
    Wrong("report photos"),
    Wrong("new job My-Job"),
    Wrong("new job queue"),
    Wrong("new job cats --out photos"),
    Wrong("submit -- train train.yaml"),
    Wrong("submit --address head:8265 -- train train.yaml --out run"),
)

Call = Callable[[], Any]


def calls(folder: Path) -> dict[str, Call]:
    """Wrong calls in Python, by how they are written."""
    found = Plan.load(folder / "plan.yaml")
    index = Index.load(folder / "index.parquet")
    engine = LocalEngine(num_threads=1)
    return {
        "LocalEngine(num_threads=-1)": lambda: LocalEngine(num_threads=-1),
        "LocalEngine(num_threads='two')": lambda: LocalEngine(num_threads="two"),  # type: ignore[arg-type]
        "LocalEngine(memory_bytes=1.5)": lambda: LocalEngine(memory_bytes=1.5),  # type: ignore[arg-type]
        "LocalEngine(backend='gpu')": lambda: LocalEngine(backend="gpu"),  # type: ignore[arg-type]
        "RayEngine(num_workers=-1)": lambda: RayEngine(num_workers=-1),
        "RayEngine(placement='apart')": lambda: RayEngine(placement="apart"),  # type: ignore[arg-type]
        "ResourceRequest(cpus=-1)": lambda: ResourceRequest(cpus=-1),
        "ResourceRequest(gpus=1.5)": lambda: ResourceRequest(gpus=1.5),
        "engine.feed(plan.yaml, View())": lambda: engine.feed("plan.yaml", View()),  # type: ignore[arg-type]
        "engine.feed(plan, View(split='new'))": lambda: engine.feed(found, View(split="new")),
        "engine.feed(plan, View(keys=('x.jpg',)))": lambda: engine.feed(found, View(keys=("x.jpg",))),
        "engine.feed(plan, View(), 5)": lambda: engine.feed(found, View(), 5),  # type: ignore[arg-type]
        "engine.feed(plan, View(), {'step': 3})": lambda: engine.feed(found, View(), {"step": 3}),
        "View(shuffle='yes')": lambda: View(shuffle="yes"),  # type: ignore[arg-type]
        "View(num_epochs=-1)": lambda: View(num_epochs=-1),
        "View(split=5)": lambda: View(split=5),  # type: ignore[arg-type]
        "View(keys=['x.jpg'])": lambda: View(keys=["x.jpg"]),  # type: ignore[arg-type]
        "View(rank=4, num_ranks=4)": lambda: View(rank=4, num_ranks=4),
        "View(num_ranks=0)": lambda: View(num_ranks=0),
        "Plan(index='i', batch=8)": lambda: Plan(index="i", batch=8),  # type: ignore[arg-type]
        "Plan(index='i', augment=['Flip'])": lambda: Plan(index="i", augment=["Flip"]),  # type: ignore[arg-type]
        "Plan(index='i', agument=[])": lambda: Plan(index="i", agument=[]),  # type: ignore[call-arg]
        "index.rows('new')": lambda: index.rows("new"),
        "Index.load('plan.yaml')": lambda: Index.load(folder / "plan.yaml"),
    }
