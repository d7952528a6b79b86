"""``lightwell demo``: index, train and audit on a public dataset."""

from __future__ import annotations

from .audit import run_audit
from .engine import open_engine
from .index import print_counts, run_index
from .options import Json, OutFolder, Quiet
from .output import print_json
from .train import run_training


def demo(out: OutFolder = "runs/demo", quiet: Quiet = False, as_json: Json = False) -> None:
    """Index, train and audit 2,624 real photos of solar cells; about five minutes on two cores.

    Example: lightwell demo --out runs/demo
    """
    import time

    from ..models.demo import CREDIT, open_demo_folder, summary_line, write_demo_jobs, write_demo_table
    from ..pipeline.jobs.progress import console_for
    from ..workers.output_store import local_folder

    started = time.monotonic()
    console = console_for(quiet=quiet or as_json)
    with open_demo_folder(local_folder(out)) as folder:
        console.print(CREDIT)
        table, root = write_demo_table(folder)
        _, train_file, audit_file = write_demo_jobs(folder)
    output, shares = folder / "index.parquet", "train=0.65,val=0.1,test=0.25"
    console.print(f"$ lightwell index {table} --root {root} -o {output} --split {shares}")
    built = run_index(table, output, shares=shares, quiet=True, root=root)
    if not (quiet or as_json):
        print_counts(built, output)
    console.print(f"$ lightwell train {train_file} --out {folder / 'train'}")
    result = run_training(train_file, str(folder / "train"), quiet=quiet or as_json)
    console.print(f"$ lightwell audit {audit_file} --out {folder / 'audit'}")
    findings = run_audit(audit_file, folder / "audit", open_engine(), quiet=quiet or as_json)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"seconds": seconds, "train": result, "audit": findings})
    elif not quiet:
        print(summary_line(findings, seconds, folder / "audit" / "report.html"))
