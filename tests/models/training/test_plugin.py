"""A third-party training job, imported by path from a package outside this tree."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Context, TrainingJob
from lightwell.pipeline.jobs.find_job import find_job
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.runtime.local_engine import LocalEngine

THEIRS = """
from collections import Counter
from dataclasses import dataclass

from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View


@dataclass(frozen=True)
class CountLabels:
    plan: Plan
    times: int = 1

    @property
    def view(self):
        return View(split="train", num_epochs=self.times)

    def run(self, feed, context):
        counts = Counter()
        for batch in context.console.track(feed, "counting"):
            counts.update(batch.labels.tolist())
        return dict(counts)
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "jobs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(package.parent))
    for name in ("theirs", "theirs.jobs"):
        sys.modules.pop(name, None)
    yield package
    for name in ("theirs", "theirs.jobs"):
        sys.modules.pop(name, None)


def test_a_training_job_of_another_package_is_imported_by_path_and_run(theirs: Path, tmp_path: Path) -> None:
    for number, name in enumerate(["cat", "cat", "cat", "dog"]):
        path = tmp_path / "images" / "train" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((16, 16, 3), 40 * number, np.uint8))
    build_index(tmp_path / "images").save(tmp_path / "index.parquet")
    (tmp_path / "job.yaml").write_text(
        "job: theirs.jobs:CountLabels\nplan: {index: index.parquet, batch: {size: 3}}\ntimes: 2\n"
    )
    assert find_job("theirs.jobs:CountLabels", allow_import=("theirs",)).__module__ == "theirs.jobs"
    job = load_job(tmp_path / "job.yaml", default="classify", allow_import=("theirs.jobs",))
    assert isinstance(job, TrainingJob)
    engine = LocalEngine(num_threads=1)
    with engine.feed(job.plan, job.view) as feed:
        assert job.run(feed, Context(engine, tmp_path / "out", SilentConsole())) == {0: 6, 1: 2}


def test_an_unknown_job_is_refused_with_the_reason(theirs: Path) -> None:
    with pytest.raises(PlanError, match=r"theirs\.jobs:Nothing.*check the spelling"):
        find_job("theirs.jobs:Nothing", allow_import=("theirs",))


def test_the_built_in_job_is_listed_and_satisfies_the_contract() -> None:
    assert isinstance(find_job("classify"), type)
    assert {"plan", "view", "run"} <= {*dir(find_job("classify")), *find_job("classify").model_fields}
