"""Benchmarks: arithmetic, order of runs, output and invalid requests."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks import benchmark, command, crops, photos, report, runner, throughput
from benchmarks.benchmark import Benchmark, Contestant, Ratio, Runs, Work
from benchmarks.catalogue import ALL, find_benches
from lightwell.pipeline.errors import RequestError, RunError, SourceError
from lightwell.pipeline.formats.headers import read_header
from pictures import make_folder, make_picture, write_picture
from rich.console import Console

PEER_KEYS = [
    "torchvision.io", "torchvision pil", "albumentations", "plain dali", "ray read_images", "webdataset",
    "spdl", "torchdata nodes", "floor",
]  # fmt: skip


def some_bench(*names: str, ratios: tuple[Ratio, ...] = ()) -> Benchmark:
    contestants = tuple(
        Contestant(name, "none:none", needs=f"no_such_{name}" * (name == "absent")) for name in names
    )
    return Benchmark("some", "nothing at all", "images/s", contestants, ratios, lambda data, scratch: ())


def some_work(tmp_path: Path, **changes: object) -> Work:
    return Work(**{"photos": (), "scratch": str(tmp_path), "batch_size": 4, "seconds": 0.1, **changes})  # type: ignore[arg-type]


def lightwell(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "lightwell.cli", *map(str, arguments)]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    ours, other = Runs("ours", "", (10.0, 20.0, 90.0)), Runs("other", "", (5.0, 40.0, 30.0))
    assert (ours.median, other.median) == (20.0, 30.0)
    assert benchmark.median_ratio(ours, other) == 2.0  # of 2, 0.5 and 3
    assert benchmark.median_ratio(ours, 10.0) == 2.0


def test_figures_keep_the_digits_that_matter() -> None:
    assert [benchmark.format_value(value) for value in (21_827.4, 100.0, 75.35, 1.0456)] == [
        "21,827",
        "100",
        "75.35",
        "1.046",
    ]


def test_ratios_of_who_did_not_run_are_left_out() -> None:
    wanted = (Ratio("a", "ours", "a"), Ratio("b", "ours", "b"), Ratio("goal", "ours", 4.0))
    runs = {"ours": Runs("ours", "", (8.0,)), "a": Runs("a", "", (2.0,))}
    assert benchmark.compute_ratios(wanted, runs) == {"a": 4.0, "goal": 2.0}


@pytest.mark.parametrize("name", ["cold", "large"])
def test_the_keys_of_ratios_are_those_of_the_contract(name: str) -> None:
    (bench,) = find_benches(name)
    keys = {ratio.key for ratio in bench.ratios}
    assert keys == {f"{key}{row}" for key in PEER_KEYS for row in ("", " uint8")}
    names = {contestant.name: contestant for contestant in bench.contestants}
    for ratio in bench.ratios:
        assert ratio.ours == ("ours uint8" if ratio.key.endswith(" uint8") else "ours")
        if not ratio.key.startswith("floor"):
            assert names[str(ratio.other)].output == names[ratio.ours].output


def test_the_keys_of_cached_are_those_of_the_contract() -> None:
    (bench,) = find_benches("cached")
    both = {f"{key}{row}" for key in ("torchvision.io", "own cold", "ffcv raw") for row in ("", " uint8")}
    assert {ratio.key for ratio in bench.ratios} == both | {"filling vs no cache"}
    names = {contestant.name: contestant for contestant in bench.contestants}
    for ratio in bench.ratios:
        assert names[str(ratio.other)].output == names[ratio.ours].output


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("probe", ["one pass", "usual way"]),
        ("train", ["in memory", "torchvision", "step and feed"]),
        ("inspect", ["cleanvision", "one pass"]),
    ],
)
def test_the_keys_of_jobs_are_those_of_the_contract(name: str, keys: list[str]) -> None:
    (bench,) = find_benches(name)
    assert [ratio.key for ratio in bench.ratios] == keys
    runs = {one.name for one in bench.contestants}
    assert {side for ratio in bench.ratios for side in (ratio.ours, ratio.other)} <= runs


def test_every_contestant_runs_once_per_round_in_the_same_order_after_a_warm_up(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []

    def run_one(bench: Benchmark, contestant: Contestant, work: Work) -> float:
        seen.append((contestant.name, work.seconds))
        return float(len(seen))

    work = some_work(tmp_path, seconds=7.0)
    runs, left_out = runner.run_rounds(some_bench("ours", "absent", "b"), work, 3, lambda line: None, run_one)
    assert [name for name, _ in seen] == ["ours", "b"] * 4
    assert [seconds for _, seconds in seen] == [1.0] * 2 + [7.0] * 6
    assert (runs["ours"].values, runs["b"].values) == ((3.0, 5.0, 7.0), (4.0, 6.0, 8.0))
    assert left_out == {"absent": "no_such_absent is not installed"}


def test_a_peer_that_fails_is_left_out_and_ours_ends_the_run(tmp_path: Path) -> None:
    def run_one(bench: Benchmark, contestant: Contestant, work: Work) -> float:
        if contestant.name == failing and work.seconds == 5.0:
            raise RunError("broken")
        return 1.0

    work, bench, failing = some_work(tmp_path, seconds=5.0), some_bench("ours", "b"), "b"
    runs, left_out = runner.run_rounds(bench, work, 5, lambda line: None, run_one)
    assert (set(runs), left_out) == ({"ours"}, {"b": "broken"})
    failing = "ours"
    with pytest.raises(RunError, match="broken"):
        runner.run_rounds(bench, work, 5, lambda line: None, run_one)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(RunError, match=r"ours ended with exit code 1: .*no_such_module"):
        runner.run_once(some_bench("ours"), Contestant("ours", "no_such_module:run"), some_work(tmp_path))


def test_throughput_counts_images_after_the_warm_up_up_to_a_multiple_of_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: float(next(clock)))
    batch = np.zeros((8, 224, 224, 3), np.uint8)
    taken = []
    batches = (taken.append(i) or batch for i in range(100))
    assert throughput.images_per_second(batches, 4.0, "uint8", warm_s=2.0) == 8.0
    assert len(taken) == 8  # the first batch at second 0, warm at 3 behind 4 batches, measured to 7


@pytest.mark.parametrize(
    ("shape", "kind", "output"),
    [
        ((2, 224, 224, 3), "float32", "float32"),
        ((2, 3, 224, 224), "float32", "uint8"),
        ((2, 8, 8, 3), "uint8", "uint8"),
    ],
)
def test_a_contestant_with_another_output_is_refused(
    shape: tuple[int, ...], kind: str, output: benchmark.Output
) -> None:
    with pytest.raises(AssertionError):
        throughput.check_batch(np.zeros(shape, kind), output)


def test_crops_lie_inside_and_keep_the_law() -> None:
    chance = random.Random(0)
    drawn = [crops.draw_crop(500, 375, chance) for _ in range(2_000)]
    for left, top, width, height in drawn:
        assert 0 <= left <= 500 - width
        assert 0 <= top <= 375 - height
        assert 0.07 < width * height / (500 * 375) <= 1
        assert 0.73 < width / height < 1.37
    assert np.mean([width * height for _, _, width, height in drawn]) / (500 * 375) == pytest.approx(
        0.432, abs=0.02
    )
    assert crops.draw_crop(1000, 10, chance) == (493, 0, 13, 10)


def test_batches_are_normalised_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.transforms.v2 import functional

    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    by_hand = crops.normalise(images)
    tensor = functional.to_dtype(functional.to_image(images[1]), by_hand.dtype, scale=True)
    assert (by_hand[1] - functional.normalize(tensor, crops.MEAN, crops.STD)).abs().max() < 1e-5


def test_each_epoch_has_every_photo_once() -> None:
    order = list(islice(crops.endless_order(7), 21))
    assert [sorted(order[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert order[:7] != order[7:14]


def test_broken_and_odd_pictures_are_not_measured(tmp_path: Path) -> None:
    make_folder(tmp_path, num_images=3)
    whole = (tmp_path / "cat/000.jpg").read_bytes()
    (tmp_path / "cat/half.jpg").write_bytes(whole[: len(whole) // 2])
    write_picture(tmp_path / "cat/other.png", make_picture(9))
    found = photos.find_photos(tmp_path, photos.is_plain_jpeg)
    assert [path.name for path in found] == ["000.jpg", "002.jpg", "001.jpg"]
    linked = photos.link_photos(found, tmp_path / "linked", at_least=5)
    assert [read_header(path).status for path in linked] == ["ok"] * 5
    assert sorted(map(str, (tmp_path / "linked").iterdir())) == list(linked)


def test_enlarged_pictures_have_the_size(tmp_path: Path) -> None:
    made = list(
        photos.enlarge([write_picture(tmp_path / "a.jpg", make_picture(1))], tmp_path / "large", 5.0, most=1)
    )
    header = read_header(made[0])
    assert header.width * header.height == pytest.approx(5e6, rel=0.01)


def test_documents_have_the_shape_of_the_contract_and_several_keep_apart() -> None:
    bench = some_bench("ours", "b", ratios=(Ratio("b", "ours", "b"),))
    runs = {name: Runs(name, "images/s", (value, value)) for name, value in (("ours", 4.0), ("b", 2.0))}
    result = report.BenchmarkResult(bench, runs, {"c": "c is not installed"}, 7, 5.0)
    one = json.loads(json.dumps(report.document("some", [result], report.machine())))
    assert {"name", "machine", "versions", "runs", "ratios"} <= set(one)
    assert one["runs"][0] == {"who": "ours", "unit": "images/s", "values": [4.0, 4.0], "median": 4.0}
    assert one["ratios"] == {"b": 2.0}
    assert one["versions"]["lightwell"]
    assert one["machine"]["cores"] >= 1
    both = report.document("all", [result, result], {})
    assert both["ratios"] == {"some b": 2.0}
    console = Console(
        width=120, record=True, file=SimpleNamespace(write=lambda text: None, flush=lambda: None)
    )
    report.print_table(result, console)
    assert "c is not installed" in console.export_text()


def test_a_name_that_does_not_exist_is_refused_with_a_suggestion() -> None:
    with pytest.raises(RequestError, match="did you mean 'cold'"):
        find_benches("colt")
    assert [bench.name for bench in find_benches("all")] == list(ALL)
    with pytest.raises(RequestError, match=r"did you mean 'torchvision.io'"):
        command.select_contestants(find_benches("cold")[0], ["torchvision.oi"])


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a folder with JPEG photos, got none"):
        find_benches("cold")[0].prepare(tmp_path, tmp_path / "scratch")


@pytest.mark.parametrize("name", ["ours uint8", "floor"])
def test_a_contestant_reads_the_photos_in_its_own_process(name: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "data", num_images=16)
    (bench,) = find_benches("cold")
    (contestant,) = command.select_contestants(bench, [name]).contestants
    linked = bench.prepare(tmp_path / "data", tmp_path)
    work = some_work(tmp_path, photos=linked, output=contestant.output)
    assert runner.run_once(bench, contestant, work) > 0


@pytest.mark.parametrize("name", ["ours", "ours filling uint8"])
def test_cached_contestants_keep_their_pixels_in_the_scratch_folder(name: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "data", num_images=16)
    (bench,) = find_benches("cached")
    (contestant,) = command.select_contestants(bench, [name]).contestants
    linked = bench.prepare(tmp_path / "data", tmp_path)
    work = some_work(tmp_path, photos=linked, output=contestant.output)
    assert runner.run_once(bench, contestant, work) > 0
    assert list(tmp_path.glob("pixels*/*/*.arrow"))


def test_the_maps_of_gradcam_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.contestants import explaining

    monkeypatch.setattr(explaining, "SIDE", 64)
    work, name = some_work(Path(), batch_size=2, seconds=0.01), "timm:test_resnet"
    with explaining.our_maps(name) as explain:
        assert explaining.explained_per_second(work, name, explain) > 0
    with pytest.raises(AssertionError, match="maps differ by"):
        explaining.explained_per_second(work, name, lambda images: images.mean(1)[:, ::32, ::32])


def test_the_command_measures_the_index_and_writes_its_figures(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos")
    out = tmp_path / "new" / "index.json"
    done = lightwell("bench", "index", "--data", tmp_path / "photos", "--json", out, "--seconds", 0.1)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    (run,) = found["runs"]
    assert (found["name"], run["who"], run["unit"], len(run["values"])) == ("index", "ours", "headers/s", 5)
    assert found["ratios"]["goal"] == pytest.approx(run["median"] / 3_000)
    assert "goal" in done.stdout
    assert len(list((tmp_path / "photos").rglob("*.jpg"))) == 24


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["cold", "--data", "nowhere"], "error: --data: expected a folder with photos, got 'nowhere'"),
        (["cold", "--data", ".", "--rounds", "1"], "rounds"),
    ],
)
def test_an_invalid_request_is_a_one_line_error(argv: list[str], message: str) -> None:
    done = lightwell("bench", *argv)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_installed_package_without_benchmarks_is_an_invalid_request(root: Path, tmp_path: Path) -> None:
    installed = tmp_path / "lightwell"
    for folder in ("cli", "pipeline"):
        shutil.copytree(root / folder, installed / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in root.glob("*.py"):
        shutil.copyfile(path, installed / path.name)
    done = lightwell("bench", "cold", "--data", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: bench: expected a source checkout")


def test_memory_is_measured_over_indexes_of_the_stated_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import memory
    from benchmarks.contestants import memory as contestants
    from lightwell.pipeline.index.index import Index

    for name, value in {"FEW": 8, "MANY": 20, "LARGE_FEW": 2, "LARGE_MANY": 4, "MEGAPIXELS": 0.5}.items():
        monkeypatch.setattr(memory, name, value)
        if hasattr(contestants, name):
            monkeypatch.setattr(contestants, name, value)
    make_folder(tmp_path / "data", num_images=12)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    linked = memory.prepare(tmp_path / "data", scratch)
    assert len(linked) == 20
    sizes = {path.name: len(Index.load(path)) for path in scratch.glob("*.parquet")}
    assert sizes == {
        "photos-8.parquet": 8, "photos-20.parquet": 20, "large-2.parquet": 2, "large-4.parquet": 4,
    }  # fmt: skip
    work = some_work(tmp_path, photos=linked, scratch=str(scratch), batch_size=8)
    for measure in (contestants.many, contestants.many_cached, contestants.many_large):
        assert 50 < measure(work) < 20_000


@pytest.mark.ray
@pytest.mark.slow
def test_scale_measures_what_its_document_shows(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import scale

    out = tmp_path / "new" / "scale.json"
    scale.main(["--rows", "2000", "20000", "--bad", "1000", "--workers", "1", "--json", str(out)])
    found = json.loads(out.read_text())
    small, large = (found["measured"][f"{size} rows"] for size in ("2,000", "20,000"))
    assert small["split_bytes_per_row"] == large["split_bytes_per_row"] == 8
    assert large["index_bytes_per_row"] == pytest.approx(small["index_bytes_per_row"], rel=0.1)
    assert abs(large["position_bytes"] - small["position_bytes"]) < 10
    assert found["measured"]["1 workers"]["driver_cpu_s_per_batch"] > 0
    outlook = {one["what"]: one["value"] for one in found["outlook"]}
    assert outlook["batches of an epoch"] == 1e9 / 256
    assert outlook["index, in memory"] == pytest.approx(large["index_bytes_per_row"])

    def labels(text: str) -> list[str]:
        return [
            line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ") and "---" not in line
        ]

    assert labels(capsys.readouterr().out) == labels((root / "deploy" / "SCALING.md").read_text())
