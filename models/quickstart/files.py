"""Text of ``plan.yaml``, ``train.yaml`` and ``audit.yaml``, with alternatives as comments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..zoo.build import ModelSpec
from ..zoo.data_config import DataConfig
from ..zoo.preprocessing import Step, expected_policy, flow, interpolation_of, step_line
from .dataset import Dataset, Splits

PLAN, TRAIN, AUDIT = "plan.yaml", "train.yaml", "audit.yaml"
NAMES = (PLAN, TRAIN, AUDIT)
INDEX = "index.parquet"
RUN = "train"
"""Output folder of the training, next to the files."""
COMMENT_PREFIX = "# "
"""Prefix of a line that is commented out."""
COMMENT_COLUMN = 42
"""Maximum column of trailing comments, except on longer lines."""


@dataclass(frozen=True)
class Line:
    """A line of YAML with a trailing comment."""

    text: str
    comment: str = ""
    off: bool = False
    """Whether the line is an alternative and commented out."""

    def write(self, column: int) -> str:
        """Format the line, with its comment aligned to a column."""
        inner = self.text.lstrip()
        before = self.text[: len(self.text) - len(inner)] + (COMMENT_PREFIX if self.off else "") + inner
        return f"{before:<{column}}  # {self.comment}" if self.comment else before


def plan_text(dataset: Dataset, model: ModelSpec, config: DataConfig) -> str:
    """Return the plan with the preprocessing of the model's weights; annotated images are padded instead of cropped."""
    height, width = config.size
    header = [
        "Preprocessing and augmentation of images; `lightwell explain plan.yaml` shows the steps.",
        f"Sizes, interpolation, mean and std are those of the weights of {model.name}.",
    ]
    policy = expected_policy(config)
    crops = [_step(step) for step in policy["evaluate"]]
    geometry = _annotated_lines(config) if dataset.is_annotated else []
    steps = [
        *geometry,
        *([] if geometry else [Line(f"  - SmallestMaxSize: {{max_size: {2 * height}, interpolation: 3}}",
                                    "downscale once, with a cache", off=True)]),
        *(Line(f"  - {step_line(step)}", "value range of the weights; runs last") for step in policy["preprocess"]),
    ]  # fmt: skip
    crop = Line(
        f"  - RandomResizedCrop: {{size: [{height}, {width}], scale: [0.25, 1.0], interpolation: {interpolation_of(config)}}}",
        "at least a quarter of the image",
    )
    flip = "remove if left and right differ, as in text"
    if dataset.has_keypoints:
        flip = "does not swap the names of left and right keypoints"
    lines = [
        Line(f"index: {INDEX}", "images, classes, splits; from `lightwell index`"),
        Line("preprocess:", "all images; deterministic"),
        *steps,
        Line("augment:", "training images; random in each epoch"),
        *([] if geometry else [crop]),
        Line("  - HorizontalFlip: {p: 0.5}", flip, off=dataset.has_keypoints),
        Line("  - RandomBrightnessContrast: {p: 0.3}", "lighting", off=not geometry),
        Line("  - Rotate: {limit: 15, p: 0.5}", "by -15 to 15 degrees", off=True),
        *_evaluate_lines(crops, config, annotated=bool(geometry)),
        *([Line("bbox_params: {min_visibility: 0.1}", "drop boxes with less visible area", off=True)]
          if dataset.has_boxes else []),
        Line("batch: {size: 32}", "images per batch"),
        Line("seed: 0", "random seed; the same seed gives the same batches"),
        *([Line("sampling: balanced", "sample all classes equally often in training", off=True)]
          if dataset.no_training_reason is None else []),
        Line("cache: cache", "folder for pixels after the resize in preprocess", off=True)
        if not geometry
        else Line("cache: cache", "folder for pixels after preprocess", off=True),
        Line("errors: {max_bad_share: 0.02}", "abort above this share of unreadable files", off=True),
        Line("device: gpu", "decode and augment on an NVIDIA GPU", off=True),
    ]  # fmt: skip
    return _format_yaml(header, lines)


def _step(step: Step) -> Line:
    ((name, _),) = step.items()
    comments = {
        "SmallestMaxSize": "short side",
        "CenterCrop": "model input",
        "Resize": "both sides; changes the aspect ratio",
    }
    return Line(f"  - {step_line(step)}", comments[name])


def _evaluate_lines(crops: list[Line], config: DataConfig, *, annotated: bool) -> Iterable[Line]:
    if annotated:
        return
    height, width = config.size
    yield Line("evaluate:", "all other images; deterministic")
    yield from crops
    if len(crops) > 1:
        resize = (
            f"  - Resize: {{height: {height}, width: {width}, interpolation: {interpolation_of(config)}}}"
        )
        yield Line(resize, "instead of these two: keeps the edges", off=True)


def _annotated_lines(config: DataConfig) -> list[Line]:
    """Return steps that resize the whole image into the input size and pad it, to keep all annotations."""
    height, width = config.size
    size = f"max_size: {min(height, width)}, interpolation: {interpolation_of(config)}"
    return [
        Line(f"  - LongestMaxSize: {{{size}}}", "long side; keeps the whole image"),
        Line(
            f"  - PadIfNeeded: {{min_height: {height}, min_width: {width}, border_mode: 0, fill: 0, fill_mask: 255}}",
            "padding is black, 255 in masks",
        ),
    ]


def train_text(dataset: Dataset, model: ModelSpec) -> str:
    """Return the training job of a classifier."""
    splits = dataset.splits
    assert splits is not None
    scratch = model.weights == "none"
    weights = (
        "random initialisation; or default (pretrained), or a file such as best.pth"
        if scratch
        else "pretrained, downloaded once; or a file such as best.pth, or none"
        if model.weights == "default"
        else "or default (pretrained), or none (random initialisation)"
    )
    weigh = "balanced" if dataset.is_imbalanced else "none"
    lines = [
        Line("job: classify"),
        Line(f"plan: {PLAN}"),
        Line("model:"),
        Line(f"  name: {flow(model.name)}", "torchvision or timm; to change it, run `lightwell init` with --model"),
        Line(f"  weights: {flow(model.weights)}", weights),
        Line("epochs: 5", "passes over the training images"),
        Line("fine_tune_from: all", "train all layers" if scratch else
             f"train all layers, which is slow; or from a block on: lightwell models {model.name}", off=not scratch),
        *([] if scratch else [
            Line("feature_passes: 2", "much faster: run the frozen layers twice per image, not in every epoch", off=True)]),
        Line("optimizer: {name: adamw, lr: 0.002}", "or sgd; lr of the last layer"),
        Line("schedule: cosine", "learning rate; or one_cycle, plateau, step, polynomial, constant"),
        Line(f"class_weights: {weigh}", "balanced weights images of rare classes higher; or none"),
        Line("monitor: auroc", "selects the best epoch; or loss, accuracy, balanced_accuracy"),
        Line("early_stop: {metric: auroc, patience: 3}", "stop after 3 epochs without improvement", off=True),
        Line("label_smoothing: 0.1", "less confident, often better calibrated predictions", off=True),
        Line(f"train_split: {flow(splits.train)}"),
        Line(f"validation_split: {flow(splits.validation)}", "evaluated after each epoch"),
        Line(f"test_split: {'null' if splits.test is None else flow(splits.test)}",
             "evaluated once, at the end; null for none"),
        Line("device: auto", "or cpu, cuda"),
    ]  # fmt: skip
    header = [
        f"Trains a classifier: lightwell train {TRAIN} --out {RUN}",
        "Without fine_tune_from, only a new last layer is trained and all others are frozen."
        if not scratch
        else "All layers are trained from scratch, which takes many images and epochs.",
    ]
    return _format_yaml(header, lines)


def audit_text(splits: Splits, model: ModelSpec) -> str:
    """Return the audit job of the trained classifier."""
    lines = [
        Line("job: gradcam"),
        Line(f"plan: {PLAN}"),
        Line(f"checkpoint: {RUN}/best.safetensors", "output of the training"),
        Line(f"model: {{name: {flow(model.name)}}}",
             "instead of checkpoint: a pretrained model, with classes matched by name", off=True),
        Line(f"split: {flow(splits.audited)}", "or another one; null for all images"),
        Line("explain: predicted", "target class of the maps; or label, second, all, names of classes, or a list"),
        Line("gallery: 27", "maximum number of images in the report"),
        Line('title: "Grad-CAM audit"'),
        Line('credit: ""', "source and licence of the images, for the report"),
        Line("device: auto", "or cpu, cuda"),
    ]  # fmt: skip
    header = [f"Grad-CAM audit of the classifier: lightwell audit {AUDIT} --out audit"]
    return _format_yaml(header, lines)


def _format_yaml(header: Iterable[str], lines: Iterable[Line]) -> str:
    lines = list(lines)
    lengths = [len(line.text) + len(COMMENT_PREFIX) * line.off for line in lines if line.comment]
    column = max(length for length in [0, *lengths] if length <= COMMENT_COLUMN)
    return "\n".join([*(f"# {line}" for line in header), *(line.write(column) for line in lines), ""])
