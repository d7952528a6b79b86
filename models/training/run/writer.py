"""Files of a training run: metrics of epochs, checkpoints and the best weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..checkpoint import BEST_NAME, LAST_NAME, CheckpointMetadata, Progress, save_checkpoint
from ..evaluation import EpochMetrics, EvalResult
from ..metrics_logger import METRICS_NAME, MetricsLogger
from ..optim import best_epoch
from ..results import format_result
from ..resume import History, view_position
from ..scores import SplitScores
from ..step import UpdateGroup
from ..tensorboard import EVENTS_NAME
from .average import KeptEpochs

if TYPE_CHECKING:
    import torch

    from .run import Run


class RunWriter:
    """Writes the files of a run from its main rank.

    Args:
        run: the run, as it begins or resumes.
        feed_position: of the training feed at that moment.
    """

    def __init__(self, run: Run, feed_position: Mapping[str, Any]) -> None:
        self._run = run
        self._feed_position = feed_position
        events = run.context.out / EVENTS_NAME if run.spec.tensorboard else None
        self._logger = MetricsLogger(run.context.out / METRICS_NAME, events)
        self._best: tuple[CheckpointMetadata, Mapping[str, torch.Tensor]] | None = None
        """Best weights that are not written yet."""
        self._kept = KeptEpochs(run, run.metadata.history)

    def truncate_log(self) -> None:
        """Remove lines of unfinished epochs from ``metrics.jsonl``, and print how many lines of finished ones are missing."""
        finished = len(self._run.metadata.history)
        if self._run.dist.is_main and (num_missing := self._logger.truncate_from(finished)):
            self._run.context.console.print(
                f"{METRICS_NAME}: the lines of {num_missing:,} finished epochs are damaged or missing; the run resumes from the "
                "checkpoint, and the training curves have a gap"
            )

    def save_step(self, epoch: int, step: int, running: EpochMetrics, history: History) -> None:
        """Save a checkpoint within an epoch; a collective operation of all ranks.

        Args:
            epoch: the epoch.
            step: next step of it.
            running: metrics of its steps.
            history: validation metrics of the finished epochs.
        """
        sums = {name: self._run.dist.all_reduce(value) for name, value in running.metrics.sums.items()}
        counts = self._run.context.commit_counts()
        position = self._position(epoch, step)
        progress = Progress(step, position, counts, running.loss, running.num_read, running.seconds, sums)
        self._save(history, progress)

    def save_epoch(
        self,
        trained: EvalResult,
        validated: EvalResult,
        history: History,
        scores: SplitScores | None,
        *,
        write: bool = True,
    ) -> None:
        """Save a finished epoch: metrics, best weights, and last the checkpoint, which marks the epoch as finished.

        Args:
            trained: metrics of its steps.
            validated: of the validation split.
            history: validation metrics of all finished epochs, this one included.
            scores: of the validation split, for the calibration.
            write: False writes the metrics only; best weights are held until the next checkpoint.
        """
        run, spec, epoch = self._run, self._run.spec, len(history) - 1
        counts = run.context.commit_counts()
        last = UpdateGroup.of(epoch, run.num_steps - 1, run.num_steps, spec.accumulate)
        factor = run.rate_factor(last.done_epochs, history[:-1])
        rate = max(group["base_lr"] for group in run.learner.optimizer.param_groups) * factor

        def keep() -> None:
            for split, result in ((spec.train_split, trained), (spec.validation_split, validated)):
                self._logger.append({"epoch": epoch, "split": split, **result.as_dict(), "lr": rate})
            if best_epoch(history, spec.monitor) == epoch:
                chosen = replace(
                    run.metadata,
                    history=history,
                    thresholds=validated.metrics.thresholds,
                    temperature=1.0 if scores is None else scores.fit_temperature(),
                )
                with run.learner.averaged():
                    weights = run.learner.model.state_dict()
                    if not write:
                        weights = {name: one.clone() for name, one in weights.items()}
                    self._best = (chosen, weights)
                    if write:  # while the model has its averaged weights
                        self._write_best()

        run.dist.on_main(keep)
        self._kept.hold(history)
        if write:
            self._save(history, Progress(position=self._position(epoch + 1, 0), counts=counts))
        run.context.console.print(
            f"epoch {epoch + 1}/{spec.epochs}: train loss {trained.loss:.4f}, {spec.validation_split} "
            f"{format_result(validated, run.task)}, lr {rate:.2g}, {trained.as_dict()['images_per_s']:.0f} images/s"
        )

    def _write_best(self) -> None:
        """Write the best weights that are held, if there are any."""
        if self._best is not None:
            metadata, weights = self._best
            save_checkpoint(self._run.context.out / BEST_NAME, weights, metadata)
        self._best = None

    def _save(self, history: History, progress: Progress) -> None:
        """Write what the checkpoint counts on, and the checkpoint."""

        def write() -> None:
            self._write_best()
            self._kept.write(history)
            metadata = replace(self._run.metadata, history=history)
            self._run.learner.save(self._run.context.out / LAST_NAME, metadata, progress)
            self._kept.prune(history)

        self._run.dist.on_main(write)
        self._run.context.publish()

    def _position(self, epoch: int, step: int) -> dict[str, Any]:
        """Return the feed position after a training step, regardless of prefetched batches."""
        return {**self._feed_position, **view_position(epoch, step, self._run.num_steps)}
