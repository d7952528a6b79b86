"""``lightwell explain``: show the steps of a plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AllowImport, Json
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..models.training.optimization.learning_table import LearningRow


def explain(
    plan: Annotated[Path, typer.Argument(help="Plan, or job file that contains one (YAML).")],
    allow_import: AllowImport = None,
    as_json: Json = False,
) -> None:
    """Show the steps of a plan, where each runs, and its share of the CPU time; of a training job also what learns.

    Example: lightwell explain plan.yaml
    Example: lightwell explain train.yaml
    """
    from dataclasses import asdict

    from ..pipeline.compiler.program import Program
    from ..pipeline.jobs.job_file import load_plan, plan_warnings
    from ..pipeline.text import printable
    from ..pipeline.tools.costs import measure_costs
    from ..pipeline.tools.explain import explain as explain_program

    parsed = load_plan(plan, allow_import=allow_import or ())
    program = Program.compile(parsed)
    for warning in plan_warnings(plan, allow_import=allow_import or ()):
        print(f"warning: {printable(warning)}", file=sys.stderr)
    costs = measure_costs(program, parsed.load_index()) if parsed.index.is_file() else None
    steps = explain_program(program, costs)
    learning = learning_rows(plan, allow_import or ()) if parsed.index.is_file() else None
    if as_json:
        rows = [asdict(step) for step in steps]
        print_json(
            rows if learning is None else {"steps": rows, "learning": [asdict(row) for row in learning]}
        )
        return
    header = ["step", "options", "runs in", "seeded by", "cost", "note"]
    shares = ["" if step.cost_share is None else f"{step.cost_share:.0%}" for step in steps]
    print_table(
        header,
        [
            [step.name, step.options, step.runs_in, step.draws_from, share, step.note]
            for step, share in zip(steps, shares, strict=True)
        ],
    )
    if costs is None:
        print("cost: not measured; needs the index, a policy that runs on its images, and `device: cpu`")
    if learning is not None:
        from ..models.training.optimization.learning_table import HEADER

        print()
        print_table(HEADER, [row.cells() for row in learning])
    if parsed.resources is not None:
        print(f"on Ray: {parsed.resources} per worker")


def learning_rows(path: Path, allow_import: Sequence[str]) -> Sequence[LearningRow] | None:
    """List what learns in the training job of a file; None for a plan and for other jobs."""
    from ..models.training.job import TrainJob
    from ..pipeline.config.safe_yaml import read_yaml
    from ..pipeline.errors import LightwellError
    from ..pipeline.jobs.job_file import load_job
    from ..pipeline.text import printable

    if "plan" not in read_yaml(path):
        return None
    try:
        job = load_job(path, default="classify", allow_import=allow_import)
    except LightwellError:  # an audit without the key `job`
        return None
    if not isinstance(job, TrainJob):
        return None
    try:
        return job.learning()
    except LightwellError as error:
        print(f"warning: the blocks that learn are not listed: {printable(str(error))}", file=sys.stderr)
        return None
