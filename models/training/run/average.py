"""Mean of the weights of the best epochs, kept while training and evaluated at its end.

As timm's ``avg_checkpoints.py``, and as the averages along one training of Izmailov et al., "Averaging Weights Leads to Wider
Optima", UAI 2018, but over the best epochs by ``monitor``. Running means and variances of BatchNorm are averaged like weights,
in float64; they are not estimated again, for which Izmailov et al. read the training images once more. Counters are those of
the best epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ....pipeline.errors import ModelError
from ..checkpoint import load_weights, read_metadata, read_tensors, save_checkpoint, to_cpu
from ..evaluation import EvalResult, evaluate
from ..optim import ranked_epochs
from ..optimization.lora import remove_lora
from ..results import format_result
from ..resume import History
from ..scores import ScoreRecorder, SplitScores
from ..spec import TrainSpec

if TYPE_CHECKING:
    from pathlib import Path

    from .run import Run

AVERAGE_NAME = "average.safetensors"


def average_outputs(spec: TrainSpec) -> tuple[str, ...]:
    """Return the names of the files of an average: the mean, and room for the epochs before and after a checkpoint."""
    if spec.average is None:
        return ()
    return (AVERAGE_NAME, *(f"epochs/{slot:03d}.safetensors" for slot in range(2 * spec.average)))


class KeptEpochs:
    """Weights of the best epochs so far, a file each on the main rank, which stay until a checkpoint has recorded better ones.

    Args:
        run: the run, as it begins or resumes, with the history of its checkpoint.
        history: finished epochs.

    Raises:
        ModelError: the weights of an epoch that the checkpoint counts on are missing or damaged; raised on every rank.
    """

    def __init__(self, run: Run, history: History) -> None:
        self._run = run
        self._held: dict[int, Mapping[str, torch.Tensor]] = {}
        """Weights that are not written yet, by epoch."""
        self._files: dict[int, str] = {}
        if run.spec.average is not None:
            run.dist.on_main(
                lambda: self._files.update({epoch: self._find(epoch) for epoch in self._best(history)})
            )

    @property
    def is_used(self) -> bool:
        """Whether this rank keeps epochs."""
        return self._run.spec.average is not None and self._run.dist.is_main

    @property
    def paths(self) -> list[Path]:
        """The files, the best epoch first."""
        return [self._run.context.out / name for name in self._files.values()]

    def hold(self, history: History) -> None:
        """Keep the weights of the last epoch in memory if it is one of the best."""
        epoch = len(history) - 1
        if self.is_used and epoch in self._best(history):
            with self._run.learner.averaged():
                weights = self._run.learner.model.state_dict()
                self._held[epoch] = {name: to_cpu(tensor) for name, tensor in weights.items()}

    def write(self, history: History) -> None:
        """Write the held weights; called before the checkpoint that records their epochs."""
        if not self.is_used:
            return
        best = self._best(history)
        for epoch in [one for one in self._held if one in best]:
            name = next(one for one in self._slots if one not in self._files.values())
            metadata = replace(self._run.metadata, history=history[: epoch + 1])
            save_checkpoint(self._run.context.out / name, self._held[epoch], metadata)
            self._files[epoch] = name
        self._held.clear()

    def prune(self, history: History) -> None:
        """Delete the files of other epochs; called after the checkpoint."""
        if not self.is_used:
            return
        self._files = {epoch: self._files[epoch] for epoch in self._best(history)}
        for name in self._slots:
            if name not in self._files.values():
                (self._run.context.out / name).unlink(missing_ok=True)

    @property
    def _slots(self) -> tuple[str, ...]:
        return average_outputs(self._run.spec)[1:]

    def _best(self, history: History) -> list[int]:
        return ranked_epochs(history, self._run.spec.monitor)[: self._run.spec.average]

    def _find(self, epoch: int) -> str:
        for name in self._slots:
            path = self._run.context.out / name
            if path.is_file() and _epoch_of(path) == epoch:
                read_tensors(path)  # its digest: fail now rather than after the last epoch
                return name
        raise ModelError(
            f"average: expected the weights of epoch {epoch + 1} in {self._run.context.out / 'epochs'}, got none; restore them "
            "from a copy, or train again in another folder"
        )


def _epoch_of(path: Path) -> int:
    """Return the epoch of a file of weights; -1 if it cannot be read."""
    try:
        return len(read_metadata(path)[0].history) - 1
    except ModelError:
        return -1


def finish_average(run: Run, history: History) -> dict[str, Any]:
    """Average the best epochs, evaluate the mean and write it; returns its epochs and metrics. A collective operation."""
    spec, out, model = run.spec, run.context.out, run.learner.model
    assert spec.average is not None
    epochs = ranked_epochs(history, spec.monitor)[: spec.average]
    kept = KeptEpochs(run, history)
    remove_lora(model)  # the files are of the plain network

    def load_mean() -> None:
        kept.prune(history)  # a run that was killed after its last checkpoint left others
        load_weights(kept.paths[0], model)
        model.load_state_dict(mean_weights(kept.paths))

    run.dist.on_main(load_mean)
    run.dist.broadcast(model)
    validated, scores = _evaluate(run, spec.validation_split)

    def save() -> None:
        chosen = replace(
            run.metadata,
            history=history,
            thresholds=validated.metrics.thresholds,
            temperature=1.0 if scores is None else scores.fit_temperature(),
        )
        save_checkpoint(out / AVERAGE_NAME, model, chosen)

    run.dist.on_main(save)
    result: dict[str, Any] = {"epochs": epochs, "validation": validated.as_dict(), "test": None}
    if spec.test_split is not None:
        tested, _ = _evaluate(run, spec.test_split)
        thresholds = validated.metrics.thresholds
        result["test"] = {**tested.as_dict(), **tested.metrics.details(thresholds)}
        line = f"test, mean weights of {len(epochs)} epochs: {format_result(tested, run.task)}"
        run.context.console.print(line)
    return {**result, "checkpoint": f"{run.context.destination or out}/{AVERAGE_NAME}"}


def mean_weights(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Return the means of the floating-point tensors of some checkpoints, and the other tensors of the first."""
    first, *others = paths
    own = read_tensors(first)
    sums = {name: tensor.double() for name, tensor in own.items() if tensor.is_floating_point()}
    for path in others:
        tensors = read_tensors(path)
        for name, total in sums.items():
            total.add_(tensors[name])
    return {
        name: (sums[name] / len(paths)).to(tensor.dtype) if name in sums else tensor
        for name, tensor in own.items()
    }


def _evaluate(run: Run, split: str) -> tuple[EvalResult, SplitScores | None]:
    recorder = ScoreRecorder(run.task)
    found = evaluate(run.learner.module, run.split_batches(split), recorder, run.num_rows(split), run.dist)
    return found, recorder.gather(run.dist)
