"""Fifty policies as people publish them: where each step runs and what it makes of pictures is kept in ``tests/snapshots``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from annotated import Scene, drawn_scene, write_index
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_picture
from snapshot import Snapshots

FOLDER = Path(__file__).parents[2] / "policies" / "published"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
REFUSED = {name for name in NAMES if name.endswith(("yolo-mosaic", "style-of-another-camera"))}
ANNOTATIONS = ("masks", "boxes", "keypoints")
MAX_LEVELS, MAX_PIXELS = 3.0, 1.5
"""Differences of a mean level and of a coordinate that another processor or library may cause."""
GRID = 3


def annotations_of(name: str) -> tuple[str, ...]:
    """The annotations that a policy is written for, which its comment names."""
    found = re.search(r"^# annotations: (.*)$", (FOLDER / f"{name}.yaml").read_text(), re.MULTILINE)
    return tuple(found[1].split(", ")) if found else ()


def scene(number: int, kept: tuple[str, ...]) -> Scene:
    """A smooth picture with a rectangle and a point in it, and those annotations of them that are asked for."""
    drawn = drawn_scene(f"{number}.jpg", number, size=(240, 320 + 8 * number))
    is_background = (drawn.image == 90).all(axis=2)
    picture = make_picture(number, *drawn.image.shape[:2])
    drawn.image[is_background] = picture[is_background]
    return replace(
        drawn,
        mask=drawn.mask if "masks" in kept else None,
        boxes=drawn.boxes if "boxes" in kept else None,
        box_labels=drawn.box_labels if "boxes" in kept else None,
        keypoints=drawn.keypoints if "keypoints" in kept else None,
        options={"quality": 95},
    )


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    """An index of two pictures for each kind of annotations."""
    found = {}
    for kept in {annotations_of(name) for name in NAMES}:
        folder = tmp_path_factory.mktemp("pictures")
        found[kept] = write_index(folder, [scene(number, kept) for number in range(2)])
    return found


def plan_of(name: str, index: Path, **changed: Any) -> Plan:
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return Plan.model_validate({"batch": {"size": 2}, **content, "index": index, "seed": 5, **changed})


def routes(plan: Plan, on_gpu: Plan) -> Iterator[str]:
    """A line for each step: where it runs on a CPU and on a GPU, and why not in DALI."""
    cpu, gpu = Program.compile(plan), Program.compile(on_gpu)
    for augment, title in ((True, "training"), (False, "other views")):
        yield f"{title}, on a CPU -> for a GPU"
        pairs = zip(cpu.routes(augment=augment).routes, gpu.routes(augment=augment).routes, strict=True)
        for on_cpu, lowered in pairs:
            fused = " while decoding" if on_cpu.fused_with_decode else ""
            reason = f" ({lowered.reason})" if lowered.reason else ""
            yield f"  {on_cpu.name}: {on_cpu.runs_in}{fused} -> {lowered.runs_in}{reason}"
        if cpu.normalization:
            yield "  Normalize: in the batch"


def levels(plan: Plan, batch: Batch) -> torch.Tensor:
    """The images of a batch as levels of 255, HWC."""
    normalization = Program.compile(plan).normalization
    if normalization is None:
        return batch.images.float()
    mean, std = (torch.tensor(values) for values in (normalization.mean, normalization.std))
    return (batch.images.permute(0, 2, 3, 1) * std + mean) * 255


def digest(plan: Plan, batch: Batch) -> Iterator[str]:
    """Mean levels of a grid on each image, shares of the labels of a mask, boxes and keypoints."""
    for i, image in enumerate(levels(plan, batch)):
        yield f"  {batch.keys[i]}: {' x '.join(map(str, image.shape))}"
        for row in torch.tensor_split(image, GRID):
            cells = [cell.mean(dim=(0, 1)).tolist() for cell in torch.tensor_split(row, GRID, dim=1)]
            yield "    " + " | ".join(" ".join(f"{level:.0f}" for level in cell) for cell in cells)
        if batch.masks is not None:
            counts = np.bincount(batch.masks[i].numpy().ravel(), minlength=256) / batch.masks[i].numel()
            shares = [f"{label} {100 * counts[label]:.1f} %" for label in np.flatnonzero(counts)]
            yield f"    mask: {', '.join(shares)}"
        if batch.boxes is not None:
            yield f"    boxes: {rounded(batch.boxes[i])}"
        if batch.keypoints is not None:
            yield f"    keypoints: {rounded(batch.keypoints[i].reshape(-1, 3))}"


def rounded(rows: np.ndarray) -> str:
    return ", ".join(" ".join(f"{value:.1f}" for value in row) for row in rows) or "none"


def nearly_equal(stored: str, found: str) -> bool:
    """Return whether texts are equal but for small differences of levels and coordinates."""
    lines, other_lines = stored.splitlines(), found.splitlines()
    return len(lines) == len(other_lines) and all(map(_nearly_equal_lines, lines, other_lines))


def _nearly_equal_lines(stored: str, found: str) -> bool:
    pattern, most = (r"\d+", MAX_LEVELS) if " | " in stored else (r"-?\d+\.\d", MAX_PIXELS)
    return re.sub(pattern, "N", stored) == re.sub(pattern, "N", found) and all(
        abs(float(one) - float(other)) <= most
        for one, other in zip(re.findall(pattern, stored), re.findall(pattern, found), strict=True)
    )


def outcome(name: str, index: Path) -> str:
    """What becomes of a policy: where it runs and what it makes of the pictures, or why it is refused."""
    try:
        plan = plan_of(name, index)
    except PlanError as error:
        return f"refused\n  {error}\n"
    lines = [*routes(plan, plan_of(name, index, device="gpu")), "pixels"]
    for augment in (True, False):
        with LocalEngine(num_threads=1).feed(plan, View(augment=augment)) as feed:
            for batch in feed:
                assert not batch.replaced.any()
                lines += [f"  {'training' if augment else 'other views'}", *digest(plan, batch)]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", NAMES)
def test_a_published_policy_runs_where_it_did_and_makes_the_same_pictures(
    name: str, indexes: dict[tuple[str, ...], Path], snapshots: Snapshots
) -> None:
    found = outcome(name, indexes[annotations_of(name)])
    assert found.startswith("refused") == (name in REFUSED)
    snapshots.check(f"policies/{name}", found, same=nearly_equal)


def test_there_are_fifty_of_all_kinds(snapshots: Snapshots) -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02}" for number in range(1, 51)]
    used = {one for name in NAMES for one in annotations_of(name)}
    assert used == set(ANNOTATIONS)
    snapshots.check_names("policies", set(NAMES))


STORED = "  Blur: opencv -> dali\n  0.jpg: 32 x 32 x 3\n    100 200 | 7 7\n    boxes: 10.0 1.0"


@pytest.mark.parametrize(
    ("old", "new", "equal"),
    [
        ("100 200", "103 198", True),
        ("10.0", "11.5", True),
        ("100 200", "104 200", False),
        ("10.0", "11.6", False),
        ("32 x 32", "32 x 33", False),
        ("10.0 1.0", "none", False),
        ("dali", "opencv", False),
        (" | 7 7", "", False),
    ],
)
def test_only_small_differences_of_pixels_are_taken_as_equal(old: str, new: str, equal: bool) -> None:
    assert nearly_equal(STORED, STORED.replace(old, new)) == equal
