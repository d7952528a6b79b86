"""Runs the trials of a sweep, keeps a table of their results, and names the best.

::

    out/trials/trial-FINGERPRINT/    a training run like any other
    out/shared/                      common to all trials, such as features of a frozen backbone
    out/sweep.json, out/trials.csv   the trials, best first

A trial with a result is not run again, and an interrupted one resumes from its checkpoint; so the same command continues a
sweep that was killed.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...pipeline.atomic_io import write_json, write_text
from ...pipeline.errors import LightwellError, RunError
from ...pipeline.jobs.contracts import SharesWork
from ...pipeline.jobs.progress import SilentConsole
from ...pipeline.jobs.sweep import Trial, format_values
from ..local import check_request, run_training_job
from ..output_store import local_folder
from ..results import open_results

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import Console, Context, Engine, Feed, TrainingJob
    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View

SWEEP_NAME, TABLE_NAME = "sweep.json", "trials.csv"
TRIALS, SHARED = "trials", "shared"
RESULT_NAME = "result.json"
"""Written last by a training job."""


@dataclass(frozen=True)
class Outcome:
    """End of a trial."""

    result: Mapping[str, Any] | None = None
    """Content of ``result.json``; None if it failed."""
    error: str = ""

    def rank(self, metric: str) -> tuple[float, float]:
        """Return a value that is higher for better trials: by a metric of the validation, then by a lower loss."""
        validation = {} if self.result is None else self.result["validation"]
        value, loss = validation.get(metric), validation.get("loss")
        sign = -1.0 if metric == "loss" else 1.0
        return (
            -math.inf if value is None else sign * float(value),
            -math.inf if loss is None else -float(loss),
        )


class TrialRunner(Protocol):
    """Runs trials; one of this process, one of a cluster."""

    @property
    def is_local(self) -> bool:
        """Whether trials run in this process."""
        ...

    def run(self, trials: Sequence[Trial], out: Path, console: Console) -> Iterator[tuple[Trial, Outcome]]:
        """Run trials and yield each as it ends, in any order.

        Args:
            trials: at least one.
            out: folder of the sweep.
            console: shows progress.
        """
        ...


@dataclass(frozen=True)
class LocalTrials:
    """Runs trials in this process, one after the other; the reference for a cluster."""

    engine: Engine
    is_local = True

    def run(self, trials: Sequence[Trial], out: Path, console: Console) -> Iterator[tuple[Trial, Outcome]]:
        """Run trials; see ``TrialRunner``."""
        for trial in first_of_each_work(trials):
            share_work(trial.job, self.engine, out, console)
        for number, trial in enumerate(trials):
            console.print(f"trial {number + 1} of {len(trials)}: {format_values(trial.values)}")
            yield trial, run_trial(trial, self.engine, out, console)


def first_of_each_work(trials: Sequence[Trial]) -> list[Trial]:
    """Return a trial for each work that several may share."""
    works = {
        trial.job.shared_work: trial
        for trial in reversed(trials)
        if isinstance(trial.job, SharesWork) and trial.job.shared_work is not None
    }
    return list(works.values())[::-1]


def run_trial(trial: Trial, engine: Engine, out: Path, console: Console | None = None) -> Outcome:
    """Run a trial to its end, or continue it; an error of the job or its data ends this trial only."""
    folder = out / TRIALS / trial.name
    try:
        return Outcome(run_training_job(trial.job, engine, folder, console, shared=out / SHARED))
    except LightwellError as error:
        return Outcome(error=str(error))


@dataclass(frozen=True)
class _Work:
    """A training job that only computes the work that others share."""

    job: TrainingJob
    outputs: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        return self.job.plan

    @property
    def view(self) -> View:
        return self.job.view

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:  # noqa: ARG002
        assert isinstance(self.job, SharesWork)
        self.job.share(context)
        return {}


def share_work(job: TrainingJob, engine: Engine, out: Path, console: Console | None = None) -> None:
    """Compute the work that a trial shares with others, unless it is there.

    Raises:
        LightwellError: errors of the plan, the feeds or the job.
    """
    run_training_job(_Work(job), engine, out / SHARED, console, shared=out / SHARED)


@dataclass(frozen=True)
class _SweepFolder:
    """Owner of the files of a sweep."""

    plan: Plan
    outputs: tuple[str, ...] = (SWEEP_NAME, TABLE_NAME)


@dataclass
class _Table:
    """Trials and their outcomes."""

    trials: Sequence[Trial]
    folder: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that compares trials."""
        monitors = [one.result["monitor"] for one in self.outcomes.values() if one.result is not None]
        return str(monitors[0]) if monitors else "loss"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each trial, best first; trials without a result last."""
        waiting = Outcome()
        ranked = sorted(
            self.trials, key=lambda one: self.outcomes.get(one.name, waiting).rank(self.metric), reverse=True
        )
        return [self._row(trial, self.outcomes.get(trial.name)) for trial in ranked]

    def _row(self, trial: Trial, outcome: Outcome | None) -> dict[str, Any]:
        row = {"folder": f"{TRIALS}/{trial.name}", "values": dict(trial.values)}
        if outcome is None:
            return {**row, "state": "waiting"}
        if outcome.result is None:
            return {**row, "state": "failed", "error": outcome.error}
        found = {name: outcome.result[name] for name in ("best_epoch", "epochs", "validation")}
        return {**row, "state": "finished", **found}

    def write(self) -> Mapping[str, Any]:
        """Write the table; returns it."""
        rows = self.rows()
        best = rows[0]["folder"] if rows[0]["state"] == "finished" else None
        content = {"monitor": self.metric, "best": best, "trials": rows}
        write_json(self.folder / SWEEP_NAME, content)
        names = [*dict.fromkeys(name for trial in self.trials for name in trial.values)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["folder", *names, self.metric, "best_epoch", "state"])
        for row in rows:
            values = [json.dumps(row["values"].get(name)) for name in names]
            metric = row.get("validation", {}).get(self.metric)
            writer.writerow([row["folder"], *values, metric, row.get("best_epoch"), row["state"]])
        write_text(self.folder / TABLE_NAME, text.getvalue())
        return content


def run_sweep(
    trials: Sequence[Trial],
    runner: TrialRunner,
    out: Path | str,
    console: Console | None = None,
    *,
    reads: Sequence[Path | str] = (),
) -> Mapping[str, Any]:
    """Run the trials of a sweep that have no result yet; returns the content of ``sweep.json``.

    Args:
        trials: at least one.
        runner: of this process or a cluster.
        out: a folder, on a cluster shared by all nodes.
        console: shows progress; None shows nothing.
        reads: input files, such as the job file.

    Raises:
        RequestError: ``out`` is a URI, holds other files, or another run writes there.
        RunError: all trials failed.
        LightwellError: errors of a trial's keys, or of the work that trials share.
    """
    console = console or SilentConsole()
    folder = local_folder(str(out)).absolute()
    results = {trial.name: _finished(folder / TRIALS / trial.name) for trial in trials}
    left = [trial for trial in trials if results[trial.name] is None]
    for trial in left:
        check_request(trial.job, trains_here=runner.is_local)
    owner: Any = _SweepFolder(trials[0].job.plan)
    with open_results(owner, folder, reads=reads) as opened:
        opened.folder.claim(SWEEP_NAME, TABLE_NAME)
        done = {name: Outcome(result) for name, result in results.items() if result is not None}
        table = _Table(trials, folder, done)
        table.write()
        console.print(f"{len(trials)} trials, {len(done)} of them finished before")
        for trial, outcome in runner.run(left, folder, console) if left else ():
            table.outcomes[trial.name] = outcome
            table.write()
            console.print(f"{trial.name}: {format_values(trial.values)}: {_summary(outcome, table.metric)}")
        found = table.write()
        opened.folder.complete()
    if found["best"] is None:
        reasons = sorted({outcome.error for outcome in table.outcomes.values()})
        raise RunError(f"sweep: expected a trial with a result, got none; the first error: {reasons[0]}")
    console.print(f"best trial: {folder / found['best']}")
    return found


def _finished(folder: Path) -> Mapping[str, Any] | None:
    """Return the result of an earlier run of a trial, if it is finished."""
    try:
        found = json.loads((folder / RESULT_NAME).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"monitor", "validation"} <= found.keys() else None


def _summary(outcome: Outcome, metric: str) -> str:
    if outcome.result is None:
        return f"failed: {outcome.error}"
    value = outcome.result["validation"].get(metric)
    shown = "undefined" if value is None else f"{value:.4f}"
    return f"{metric.replace('_', ' ')} {shown} at epoch {outcome.result['best_epoch'] + 1}"
