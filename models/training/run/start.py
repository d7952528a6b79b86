"""Start of a training job: check the request, resume an earlier run, train and finish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ....pipeline.jobs.contracts import Context, Feed
from ....pipeline.plan.view import View
from ...features.recipe import check_image_transforms
from ...features.split_model import split_model
from ...zoo.device import torch_device
from ..checkpoint import Progress
from ..distributed.context import DistributedContext
from ..prepare import build_trainable, check_device, open_features
from ..results import write_run
from ..resume import is_done, read_resume_state
from ..spec import TrainSpec
from .finish import finish
from .learner import Learner
from .loop import train
from .run import Run


def check_request(spec: TrainSpec, *, trains_here: bool) -> None:
    """Check a job without reading images or writing files; see ``TrainJob.check_request``."""
    if trains_here:
        check_device(spec, torch_device(spec.device))
    model = build_trainable(spec, len(spec.check().classes))
    if spec.feature_passes is not None:
        split_model(model)
        check_image_transforms(spec.plan, augment=spec.feature_passes > 0)
        check_image_transforms(spec.plan, augment=False)
    spec.check_network(model)


def compute_features(spec: TrainSpec, context: Context) -> None:
    """Compute the features of training, validation and test that a run with ``feature_passes`` learns from."""
    device = torch_device(spec.device)
    dist = DistributedContext(device=device)
    learner = Learner.build(spec, len(spec.check().classes), dist, None)
    assert learner.split is not None, "asked only with feature_passes"
    features = open_features(spec, spec.plan.load_index(), context, dist, learner.split)
    for number in range(spec.feature_passes or 0) or (None,):
        features.open(spec.train_split, number)
    for split in filter(None, (spec.validation_split, spec.test_split)):
        features.open(split)


def run_job(spec: TrainSpec, view: View, feed: Feed, context: Context) -> Mapping[str, Any]:
    """Run a training job, alone or as one of several ranks; torch's global random state is restored."""
    task = spec.check()
    resume = read_resume_state(spec, view, context.out)
    device = torch_device(spec.device)
    dist = DistributedContext.from_env(device)
    if dist.is_main:
        context.out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = Run.prepare(spec, task, context, dist, resume)
        dist.barrier()  # all ranks have read the checkpoint before the main rank overwrites it
        if dist.is_main:
            write_run(context.out, spec)
        history = resume.history
        if not is_done(spec, history):
            if resume.progress is not None:
                position = f"step {resume.progress.step + 1} of epoch {len(history) + 1}/{spec.epochs}"
                context.console.print(f"resuming at {position}")
            history = train(run, feed, resume.progress or Progress())
        return finish(run, history)
