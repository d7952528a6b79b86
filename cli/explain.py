"""``lightwell explain``: show the steps of a plan."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import AllowImport, Json
from .output import print_json, print_table


def explain(
    plan: Annotated[Path, typer.Argument(help="Plan, or job file that contains one (YAML).")],
    allow_import: AllowImport = None,
    as_json: Json = False,
) -> None:
    """Show the steps of a plan, where each runs, and its share of the CPU time.

    Example: lightwell explain plan.yaml
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
    if as_json:
        print_json([asdict(step) for step in steps])
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
    if parsed.resources is not None:
        print(f"on Ray: {parsed.resources} per worker")
