"""The training loop: epochs of steps, each followed by validation and a checkpoint."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import torch

from ....pipeline.errors import RunError
from ....pipeline.jobs.contracts import Feed
from ...zoo.freezing import freeze_batch_norm, train_mode
from ..checkpoint import Progress
from ..checkpoint_timer import CheckpointTimer
from ..evaluation import evaluate
from ..optimization.unfreezing import stage_at
from ..resume import History, is_done
from ..scores import ScoreRecorder
from ..step import UpdateGroup
from .writer import RunWriter

if TYPE_CHECKING:
    from .run import Run


def train(run: Run, feed: Feed, progress: Progress) -> History:
    """Train the remaining epochs of a run; returns the validation metrics of all epochs.

    Every random number and learning rate depends on the seed, the epoch and the step, and a checkpoint holds all that a
    step changes. So a run that is killed anywhere and resumed ends with the weights of one that was not.

    Args:
        run: model, optimizer and the rest, as they are after the last checkpoint.
        feed: batches after the last checkpoint.
        progress: within the first epoch.

    Raises:
        RunError: a loss is not finite, a batch does not fit in memory, or no image can be validated.
    """
    spec, history = run.spec, run.metadata.history
    writer = RunWriter(run, feed.position())
    writer.truncate_log()
    data = run.open_data(feed, (len(history), progress.step))
    timer = CheckpointTimer(spec.checkpoint_every, run.dist)
    step, stage = None, None
    for epoch in range(len(history), spec.epochs):
        if step is None or stage != stage_at(spec.stages, epoch):
            stage = stage_at(spec.stages, epoch)
            step = run.make_step(data.module, stage)
        running = run.restore_metrics(progress)
        progress = Progress()
        train_mode(run.learner.model)
        if spec.batch_norm == "frozen":
            freeze_batch_norm(run.learner.model)
        started = perf_counter() - running.seconds
        for batch in data.epoch(epoch):
            torch.manual_seed(run.seed(epoch, batch.step))
            group = UpdateGroup.of(epoch, batch.step, run.num_steps, spec.accumulate)
            factor = run.rate_factor(group.done_epochs, history)
            step(batch, running, factor=factor, group=group, num_images=run.num_images(batch))
            running.seconds = perf_counter() - started
            if timer.is_due() and group.is_complete:
                step.flush(running)
                with timer.measure_write():
                    writer.save_step(epoch, batch.step + 1, running, history)
        step.end_epoch(running)
        trained = running.compute(run.dist)
        recorder = ScoreRecorder(run.task)
        with run.learner.averaged():
            validated = evaluate(
                data.module, data.validation(), recorder, run.num_rows(spec.validation_split), run.dist
            )
        scores = recorder.gather(run.dist)
        if validated.loss is None:
            raise RunError(
                f"validation_split: expected labelled images of {spec.validation_split!r} that can be read, got none; "
                "see quarantine.jsonl"
            )
        history = (*history, run.history_row(trained, validated, history))
        ends = is_done(spec, history)
        if run.features is None or ends or timer.is_due():
            with timer.measure_write():
                writer.save_epoch(trained, validated, history, scores)
        else:  # epochs on features are shorter than writing a checkpoint
            writer.save_epoch(trained, validated, history, scores, write=False)
        if ends:
            break
    return history
