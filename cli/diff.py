"""``lightwell diff``: compare two audits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .audit import GATE_CROSSED
from .options import Json, Quiet
from .output import print_json, print_table


def diff(
    first: Annotated[Path, typer.Argument(metavar="DIR_A", help="Output folder of an audit.")],
    second: Annotated[Path, typer.Argument(metavar="DIR_B", help="Output folder of another audit.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for diff.html and diff.json (default: print only).")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="SEVERITY",
            help="Exit with code 3 if a finding of this severity or a higher one (high, medium, low) appeared, or rose to it.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare two audits, of models or of datasets: accuracy, classes, and findings that came, went or changed.

    Example: lightwell diff runs/cells/audit runs/cells/audit2 --out runs/cells/diff --fail-on high
    """
    from ..models.audits.comparison.audit_result import AuditResult
    from ..models.audits.comparison.compare import compare
    from ..models.audits.comparison.page import class_rows, finding_rows, notes, render, summary_rows
    from ..models.audits.gradcam.gate import SeverityGate
    from ..pipeline.atomic_io import write_json, write_text

    gate = None if fail_on is None else SeverityGate.parse(fail_on)
    audits = AuditResult.load(first), AuditResult.load(second)
    found = compare(*audits)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "diff.json", found.to_dict())
        write_text(out / "diff.html", render(found, *audits))
    if as_json:
        print_json(found.to_dict())
    elif not quiet:
        print("\n".join(notes(found)))
        print_table(["", "first", "second", "difference"], [list(row) for row in summary_rows(found)])
        print_table(["finding", "severity", "", "effect"], [list(row) for row in finding_rows(found)])
        if found.classes:
            print_table(
                ["recall of class", "first", "second", "difference", "q"],
                [list(row) for row in class_rows(found)],
            )
        if out is not None:
            print(f"open {out / 'diff.html'}")
    crossing = [] if gate is None else gate.crossing([finding.to_dict() for finding in found.new_severities])
    for finding in crossing:
        print(
            f"--fail-on: {finding['severity']} finding {finding['id']}: {finding['sentence']}",
            file=sys.stderr,
        )
    if crossing:
        raise typer.Exit(GATE_CROSSED)
