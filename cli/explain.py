"""``lightwell explain``: what a plan does, step by step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import AllowImport, Json
from .output import print_json, print_table


def explain(
    plan: Annotated[Path, typer.Argument(help="A plan, or a job file with a plan in it.")],
    allow_import: AllowImport = None,
    as_json: Json = False,
) -> None:
    """Show what a plan does to an image, step by step, before anything runs.

    Example: lightwell explain plan.yaml
    """
    from dataclasses import asdict

    from ..pipeline.compiler.program import Program
    from ..pipeline.jobs.job_file import load_plan, plan_warnings
    from ..pipeline.text import printable
    from ..pipeline.tools.costs import measure_costs
    from ..pipeline.tools.explain import explain as explain_program

    written = load_plan(plan, allow_import=allow_import or ())
    program = Program.compile(written)
    for warning in plan_warnings(plan, allow_import=allow_import or ()):
        print(f"warning: {printable(warning)}", file=sys.stderr)
    costs = measure_costs(program, written.load_index()) if written.index.is_file() else None
    steps = explain_program(program, costs)
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    header = ["step", "options", "runs in", "draws from", "cost", "note"]
    shares = ["" if step.cost_share is None else f"{step.cost_share:.0%}" for step in steps]
    print_table(
        header,
        [
            [step.name, step.options, step.runs_in, step.draws_from, share, step.note]
            for step, share in zip(steps, shares, strict=True)
        ],
    )
    if costs is None:
        print(
            "cost: not measured; it needs an index that is there, a policy that can be run on its images, and device: cpu"
        )
    if written.resources is not None:
        print(f"on Ray: {written.resources} for each worker")
