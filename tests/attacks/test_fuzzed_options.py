"""Views, engines, feeds and commands with anything in the wrong place: only errors of ours come out, and their exit codes."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell import LightwellError, LocalEngine, Plan, View, build_index
from lightwell.cli.app import app
from lightwell.pipeline.sampler.position import make_position
from lightwell.pipeline.text import printable
from lightwell.workers.ray.cluster import ResourceRequest, Resources
from lightwell.workers.ray.engine import RayEngine
from pictures import make_folder
from strangers import tried
from typer.main import get_command
from typer.testing import CliRunner

COUNTS: Counter[str] = Counter()
WILD = [
    None, True, False, -1, 0, 1, 2, 3, 7, 2**31, -(2**63), 2**64, 10**30, 0.5, 1.5, float("nan"), float("inf"), "", "x", "train",
    "1", "\x1b[31m", "opencv", "dali", "auto", "separate", b"x", [], [1], (), (1,), ("a",), {}, {"a": 1}, object, 1j,
]  # fmt: skip
ANY = st.sampled_from(WILD)


def some(*usual: Any) -> st.SearchStrategy[Any]:
    """Mostly what is right."""
    return st.sampled_from([*usual] * (200 // len(usual)) + WILD)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, their index and a plan."""
    folder = tmp_path_factory.mktemp("options")
    make_folder(folder / "photos", num_images=6)
    build_index(folder / "photos").save(folder / "index.parquet")
    policy = "preprocess:\n- Resize: {height: 8, width: 8}\nbatch: {size: 2}\n"
    (folder / "plan.yaml").write_text(f"index: index.parquet\n{policy}")
    (folder / "train.yaml").write_text("plan: plan.yaml\nmodel: {name: nothing}\n")
    (folder / "broken.yaml").write_text("plan: [\n")
    (folder / "device.yaml").symlink_to("/dev/zero")
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    return folder


def refused(error: LightwellError) -> None:
    assert str(error)
    assert printable(str(error)) == str(error)
    assert "\n" not in str(error)
    COUNTS["refused"] += 1


VIEW = st.fixed_dictionaries(
    {},
    optional={
        "split": some(None, "train", "val"),
        "shuffle": some(True, False),
        "augment": some(True, False),
        "first_epoch": some(0, 3),
        "num_epochs": some(1, 2),
        "drop_last": some(True, False),
        "keys": some(None),
        "rank": some(0),
        "num_ranks": some(1, 2),
    },
)
ENGINE = st.fixed_dictionaries(
    {},
    optional={
        "num_threads": some(1, 2),
        "prefetch": some(1, 3),
        "memory_bytes": some(0, 10**8),
        "backend": some(None, "opencv"),
    },
)
POSITION = st.one_of(
    st.none(),
    ANY,
    st.fixed_dictionaries(
        {},
        optional={"version": some(1), "plan": ANY, "view": ANY, "epoch": some(0, 1), "step": some(0, 1)},
    ),
    st.fixed_dictionaries({"epoch": some(0, 1), "step": some(0, 1)}),
)


@tried(800)
@given(view=VIEW, engine=ENGINE, position=POSITION)
def test_views_engines_and_positions_raise_errors_of_ours_only(
    place: Path, view: dict[str, Any], engine: dict[str, Any], position: Any
) -> None:
    """A View, a LocalEngine and a position with values of wrong types and sizes: an error of ours, or batches."""
    plan = Plan.load(place / "plan.yaml")
    try:
        requested = View(**view)
        if isinstance(position, dict) and set(position) == {"epoch", "step"}:
            position = {**make_position(requested, plan=plan.fingerprint(), epoch=0, step=0), **position}
        with LocalEngine(**engine).feed(plan, requested, position) as feed:
            next(iter(feed), None)
    except LightwellError as error:
        refused(error)
    else:
        COUNTS["taken"] += 1


@tried(100)
@given(plan=ANY, view=ANY)
def test_a_feed_of_something_else_is_refused(place: Path, plan: Any, view: Any) -> None:
    """Anything in place of the plan or the view of a feed, on both engines: PlanError before anything starts."""
    right = Plan.load(place / "plan.yaml")
    for engine in (LocalEngine(), RayEngine()):
        for one, other in ((plan, View()), (right, view)):
            try:
                engine.feed(one, other)
            except LightwellError as error:
                refused(error)
            else:
                raise AssertionError("it was taken")


@tried(800)
@given(
    address=some(None, "auto", "host:1"),
    num_workers=some(0, 2),
    cpus=some(None, 1),
    gpus=some(None, 0, 0.5),
    per_worker=some(ResourceRequest, Resources),
    placement=some("colocated", "separate"),
    memory_bytes=some(0),
    backend=some(None, "opencv"),
    num_job_workers=some(1, 2),
)
def test_options_of_ray_raise_errors_of_ours_only(
    cpus: Any, gpus: Any, per_worker: Any, **options: Any
) -> None:
    """A RayEngine, what its workers hold and their number with wrong types and sizes: PlanError before Ray is touched."""
    try:
        options["per_worker"] = (
            per_worker(cpus, gpus) if per_worker in (ResourceRequest, Resources) else per_worker
        )
        RayEngine(**options)
    except LightwellError as error:
        refused(error)
    else:
        COUNTS["taken"] += 1


COMMAND = get_command(app)  # built once: that takes longer than most of the commands below
COMMANDS = [
    ["index"], ["index"], ["explain"], ["train"], ["audit"], ["materialize"], ["cache", "ls"], ["cache", "verify"],
    ["cache", "prune"], ["submit"], ["evaluate"], ["bogus"], [], ["jobs"], ["cache"],
]  # fmt: skip
PLACES = [
    "photos", "plan.yaml", "train.yaml", "broken.yaml", "device.yaml", "binary.yaml", "index.parquet", "gone", "", ".", "\x1b[31m",
    "~nobody/x", "x" * 300, "ftp://host/x", "http://user:pw@127.0.0.1:1/x.csv", "photos/*.tar", "{0..1}.tar", "-", "--",
]  # fmt: skip
OPTIONS = [
    "--out", "-o", "--output", "--engine", "--threads", "--memory", "--workers", "--cpus-per-worker", "--gpus-per-worker",
    "--address", "--placement", "--job-workers", "--max-failures", "--fail-on", "--explain", "--allow-import", "--split",
    "--seed", "--labels", "--label-separator", "--label-columns", "--annotations", "--allow-protocol", "--max-wait", "--root",
    "--path-column", "--label-column", "--max-bytes", "--older-than", "--format", "--shard-bytes",
]  # fmt: skip
FLAGS = [
    "--quiet",
    "--json",
    "--hash",
    "--help",
    "--version",
    "--forbid-private-addresses",
    "--dry-run",
    "--bogus",
    "-x",
]
VALUES = [
    "-1", "0", "1", "3", "1e9", "99999999999999999999", "nan", "inf", "0.5", "2G", "0G", "9" * 400 + "T", "-2G", "x", "", "local",
    "train=0.5,val=0.5", "train=2", "train=nan,val=1", "a=b", ",,,", "accuracy<0.8", "accuracy<", "os:system", "os", "../out",
    "out", "index.parquet", "text", "numbers", "coco", "yolo", "file", "simplecache", "127.0.0.1:1", "ray://", "label", "\udcff",
]  # fmt: skip


@tried(400)
@given(
    command=st.sampled_from(COMMANDS),
    where=st.lists(st.sampled_from(PLACES), max_size=2),
    options=st.lists(st.tuples(st.sampled_from(OPTIONS), st.sampled_from(VALUES)), max_size=3),
    flags=st.lists(st.sampled_from(FLAGS), max_size=1),
    has_out=st.booleans(),
)
def test_commands_end_with_an_exit_code_and_never_with_a_traceback(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    where: list[str],
    options: list[tuple[str, str]],
    flags: list[str],
    has_out: bool,
) -> None:
    """Commands with options, paths and values that do not belong: exit code 0, 1 or 2, and one line of ours."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = [*command, *where, *[word for pair in options for word in pair], *flags]
    words += ["-o" if command == ["index"] else "--out", "made"] if has_out else []
    code, of_ours = 0, None
    with CliRunner().isolation() as (_, _, output):
        try:
            COMMAND.main(words, prog_name="lightwell")
        except LightwellError as error:
            code, of_ours = error.exit_code, error
        except SystemExit as stop:
            code = stop.code or 0
        sys.stdout.flush()
        printed = output.getvalue().decode()
    assert code in (0, 1, 2), words
    assert "Traceback" not in printed
    if of_ours is not None:
        assert code != 0
        refused(of_ours)
    else:
        COUNTS["taken" if code == 0 else "refused"] += 1


def test_enough_was_tried() -> None:
    """The count of what was tried above."""
    sys.stdout.write(f"{COUNTS.total():,} cases: {dict(COUNTS)}; raw exceptions: none\n")
    assert not COUNTS or min(COUNTS["refused"], COUNTS["taken"]) > 0
