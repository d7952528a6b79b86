"""End of a training run: test the best weights and write the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....pipeline.atomic_io import write_json
from ..checkpoint import BEST_NAME, load_weights, read_metadata
from ..evaluation import evaluate
from ..metrics_logger import METRICS_NAME, RESULT_NAME
from ..optim import best_epoch
from ..optimization.lora import remove_lora
from ..results import describe_test, format_result, write_training_curves
from ..resume import History
from ..scores import ScoreRecorder
from .average import finish_average
from .run import Run


def finish(run: Run, history: History) -> Mapping[str, Any]:
    """Evaluate the best weights on the test split, write curves and result, and return the result."""
    spec, out = run.spec, run.context.out
    best = best_epoch(history, spec.monitor)
    result: dict[str, Any] = {
        "best_epoch": best,
        "epochs": len(history),
        "monitor": spec.monitor,
        "notes": list(spec.validation_notes(run.index, run.task)),
        "validation": dict(history[best]),
        "test": None,
        "checkpoint": f"{run.context.destination or out}/{BEST_NAME}",
    }
    if spec.test_split is not None:
        result["test"] = _test(run, spec.test_split, best)
    if spec.average is not None:
        result["average"] = finish_average(run, history)
    if run.dist.is_main:
        write_training_curves(out / METRICS_NAME, out)
        write_json(out / RESULT_NAME, result)
    run.context.publish()
    return result


def _test(run: Run, split: str, best: int) -> dict[str, Any]:
    """Evaluate the best weights, those of an epoch, on a split; returns the metrics."""
    path, model = run.context.out / BEST_NAME, run.learner.model
    remove_lora(model)  # the best weights are those of the plain network
    run.dist.on_main(lambda: load_weights(path, model))  # other ranks may not see the main rank's files
    run.dist.broadcast(model)
    recorder = ScoreRecorder(run.task)
    tested = evaluate(run.learner.module, run.split_batches(split), recorder, run.num_rows(split), run.dist)
    scores = recorder.gather(run.dist)
    saved = read_metadata(path)[0] if run.dist.is_main else run.metadata
    details = tested.metrics.details(saved.thresholds)
    result = {**tested.as_dict(), **details}
    if run.dist.is_main:
        result |= describe_test(details, run.task, scores, saved.temperature, run.context.out)
    run.context.console.print(f"test, weights of epoch {best + 1}: {format_result(tested, run.task)}")
    return result
