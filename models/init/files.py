"""The text of ``plan.yaml``, ``train.yaml`` and ``audit.yaml``: they run as they are, and their comments say what else there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..zoo.build import ModelSpec
from ..zoo.data_config import DataConfig
from ..zoo.expected_policy import Step, expected_policy, flow, interpolation_of, step_line
from .dataset import Dataset, Splits

PLAN, TRAIN, AUDIT = "plan.yaml", "train.yaml", "audit.yaml"
NAMES = (PLAN, TRAIN, AUDIT)
INDEX = "index.parquet"
RUN = "train"
"""Folder of the training's results, beside the files."""
OFF = "# "
"""Before a line that is an alternative."""
COLUMN = 42
"""Where comments begin at the latest, but for longer lines."""


@dataclass(frozen=True)
class Line:
    """A line of YAML with what it means."""

    text: str
    comment: str = ""
    off: bool = False
    """An alternative, which is commented out."""

    def write(self, column: int) -> str:
        """Write the line, its comment from a column on."""
        inner = self.text.lstrip()
        before = self.text[: len(self.text) - len(inner)] + (OFF if self.off else "") + inner
        return f"{before:<{column}}  # {self.comment}" if self.comment else before


def plan_text(dataset: Dataset, model: ModelSpec, config: DataConfig) -> str:
    """Write the plan: images as the model's weights expect them, all of each image where it has annotations."""
    height, width = config.size
    header = [
        "How images are preprocessed and augmented; `lightwell explain plan.yaml` lists the steps.",
        f"Size, interpolation, mean and std are those of the pretrained weights of {model.name}.",
    ]
    policy = expected_policy(config)
    crops = [_step(step) for step in policy["evaluate"]]
    geometry = _annotated_lines(config) if dataset.is_annotated else []
    steps = [
        *geometry,
        *([] if geometry else [Line(f"  - SmallestMaxSize: {{max_size: {2 * height}, interpolation: 3}}",
                                    "for a cache: shrink once, keep the result", off=True)]),
        *(Line(f"  - {step_line(step)}", "runs last, as one pass over the batch") for step in policy["preprocess"]),
    ]  # fmt: skip
    crop = Line(
        f"  - RandomResizedCrop: {{size: [{height}, {width}], scale: [0.25, 1.0], interpolation: {interpolation_of(config)}}}",
        "25-100 % of the area",
    )
    flip = "remove if left and right differ, as in text"
    if dataset.has_keypoints:
        flip = "off: keypoints named left and right would keep their names"
    lines = [
        Line(f"index: {INDEX}", "images, classes, splits; made by `lightwell index`"),
        Line("preprocess:", "every image; must be deterministic"),
        *steps,
        Line("augment:", "training only; random, different in each epoch"),
        *([] if geometry else [crop]),
        Line("  - HorizontalFlip: {p: 0.5}", flip, off=dataset.has_keypoints),
        Line("  - RandomBrightnessContrast: {p: 0.3}", "lighting", off=not geometry),
        Line("  - Rotate: {limit: 15, p: 0.5}", "degrees, in both directions", off=True),
        *_evaluate_lines(crops, config, annotated=bool(geometry)),
        *([Line("bbox_params: {min_visibility: 0.1}", "drop boxes of which less than 10 % is left", off=True)]
          if dataset.has_boxes else []),
        Line("batch: {size: 32}", "images per step"),
        Line("seed: 0", "same seed, same batches"),
        *([Line("sampling: balanced", "training draws all classes equally often", off=True)]
          if dataset.obstacle is None else []),
        Line("cache: cache", "folder for resized images; needs the resize in preprocess", off=True)
        if not geometry
        else Line("cache: cache", "folder for resized images", off=True),
        Line("errors: {max_bad_share: 0.02}", "stop if more files than this are broken", off=True),
        Line("device: gpu", "decode and augment on an NVIDIA GPU", off=True),
    ]  # fmt: skip
    return _written(header, lines)


def _step(step: Step) -> Line:
    ((name, _),) = step.items()
    told = {
        "SmallestMaxSize": "resizes the short side",
        "CenterCrop": "input size of the model",
        "Resize": "changes the aspect ratio",
    }
    return Line(f"  - {step_line(step)}", told[name])


def _evaluate_lines(crops: list[Line], config: DataConfig, *, annotated: bool) -> Iterable[Line]:
    if annotated:
        return
    height, width = config.size
    yield Line("evaluate:", "validation, test and audits; must be deterministic")
    yield from crops
    if len(crops) > 1:
        resize = (
            f"  - Resize: {{height: {height}, width: {width}, interpolation: {interpolation_of(config)}}}"
        )
        yield Line(resize, "instead of these two: keeps the edges", off=True)


def _annotated_lines(config: DataConfig) -> list[Line]:
    """Fit all of an image into the size and fill up the rest, as annotations may lie anywhere."""
    height, width = config.size
    size = f"max_size: {min(height, width)}, interpolation: {interpolation_of(config)}"
    return [
        Line(f"  - LongestMaxSize: {{{size}}}", "resizes the long side: nothing is cut off"),
        Line(
            f"  - PadIfNeeded: {{min_height: {height}, min_width: {width}, border_mode: 0, fill: 0, fill_mask: 255}}",
            "black borders, 255 in masks",
        ),
    ]


def train_text(dataset: Dataset, model: ModelSpec) -> str:
    """Write the training job of a classifier."""
    splits = dataset.splits
    assert splits is not None
    scratch = model.weights == "none"
    weights = (
        "random initialisation; or default (pretrained), or a file: best.pth"
        if scratch
        else "pretrained, downloaded once; without a network a file (best.pth), or none"
        if model.weights == "default"
        else "or default (pretrained), or none (random initialisation)"
    )
    weigh = "balanced" if dataset.is_imbalanced else "none"
    lines = [
        Line("job: classify"),
        Line(f"plan: {PLAN}"),
        Line("model:"),
        Line(f"  name: {flow(model.name)}", "of torchvision or timm; another one needs another plan: `lightwell init --model`"),
        Line(f"  weights: {flow(model.weights)}", weights),
        Line("epochs: 5", "passes over the training images"),
        Line("fine_tune_from: all", "trains all layers" if scratch else
             "trains all layers, which is slower; or a block and all behind it"
             + (", such as layer4" if "resnet" in model.name else ""), off=not scratch),
        *([] if scratch else [
            Line("feature_passes: 2", "much faster: compute features in two passes, then train on them", off=True)]),
        Line("optimizer: {name: adamw, lr: 0.002}", "or sgd; lr of the last layer"),
        Line("schedule: cosine", "learning rate; or constant, step"),
        Line(f"class_weights: {weigh}", "none, or balanced: images of rare classes count more"),
        Line("monitor: auroc", "chooses the best epoch; or loss, accuracy, balanced_accuracy"),
        Line("early_stop: {metric: auroc, patience: 3}", "stop after 3 epochs without improvement", off=True),
        Line("label_smoothing: 0.1", "less confident, often better calibrated", off=True),
        Line(f"train_split: {flow(splits.train)}"),
        Line(f"validation_split: {flow(splits.validation)}", "measured after each epoch"),
        Line(f"test_split: {'null' if splits.test is None else flow(splits.test)}",
             "measured once, at the end; null for none"),
        Line("device: auto", "or cpu, cuda"),
    ]  # fmt: skip
    header = [
        f"Trains a classifier: lightwell train {TRAIN} --out {RUN}",
        "Without fine_tune_from only a new last layer is trained; the others stay as pretrained."
        if not scratch
        else "All layers are trained from random initialisation, which takes many images and epochs.",
    ]
    return _written(header, lines)


def audit_text(splits: Splits, model: ModelSpec) -> str:
    """Write the audit of the trained classifier."""
    lines = [
        Line("job: gradcam"),
        Line(f"plan: {PLAN}"),
        Line(f"checkpoint: {RUN}/best.safetensors", "written by the training"),
        Line(f"model: {{name: {flow(model.name)}}}",
             "instead of checkpoint: a pretrained model; classes are matched by name", off=True),
        Line(f"split: {flow(splits.audited)}", "or another split; null for all images"),
        Line("explain: predicted", "class to explain; or label, or the name of a class"),
        Line("gallery: 27", "number of images in the report"),
        Line('title: "What the model looks at"'),
        Line('credit: ""', "source and licence of the images, shown in the report"),
        Line("device: auto", "or cpu, cuda"),
    ]  # fmt: skip
    header = [f"Shows where the classifier looks: lightwell audit {AUDIT} --out audit"]
    return _written(header, lines)


def _written(header: Iterable[str], lines: Iterable[Line]) -> str:
    lines = list(lines)
    lengths = [len(line.text) + len(OFF) * line.off for line in lines if line.comment]
    column = max(length for length in [0, *lengths] if length <= COLUMN)
    return "\n".join([*(f"# {line}" for line in header), *(line.write(column) for line in lines), ""])
