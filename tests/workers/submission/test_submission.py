"""What a submitted command ships and means, found out before any cluster is asked."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import commands
import lightwell
import pytest
import typer
from clusters import free_port
from lightwell.cli.app import app, main
from lightwell.cli.submit import CLUSTER_PATHS, DOCUMENTS, LOCAL_COMMANDS, check_command
from lightwell.pipeline.errors import PlanError, RequestError
from lightwell.pipeline.index.build import build_index
from lightwell.workers.submission.declared_files import Document
from lightwell.workers.submission.package import build_wheel, copy_package
from lightwell.workers.submission.server import JobServer, parse_address
from lightwell.workers.submission.working_dir import WorkingDir
from patience import HANG_S
from pictures import make_folder

PLAN = "index: index.parquet\npreprocess: [{Resize: {height: 16, width: 16}}]\nbatch: {size: 8}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos, their index, and a plan and a job in a folder of their own; the current folder is another."""
    (tmp_path / "jobs").mkdir()
    build_index(make_folder(tmp_path / "photos", num_images=8)).save(tmp_path / "jobs" / "index.parquet")
    (tmp_path / "jobs" / "plan.yaml").write_text(PLAN)
    (tmp_path / "jobs" / "audit.yaml").write_text("plan: plan.yaml\nmodel: {name: resnet18, weights: none}\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def knocked() -> Iterator[list[str]]:
    """The address of a server that notes who comes, and its notes behind it."""
    notes: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        notes.append(f"http://127.0.0.1:{server.getsockname()[1]}")
        threading.Thread(target=note, args=(server, notes), daemon=True).start()
        yield notes
        server.shutdown(socket.SHUT_RDWR)


def note(server: socket.socket, notes: list[str]) -> None:
    try:
        while True:
            connection, peer = server.accept()
            notes.append(str(peer))
            connection.close()
    except OSError:
        return


class Ended(NamedTuple):
    code: object
    stderr: str


@pytest.fixture
def submit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`lightwell submit`, as from a terminal."""

    def run(*words: object, address: str) -> Ended:
        line = ["lightwell", "submit", "--address", address, "--", *map(str, words)]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as stop:
            main()
        return Ended(stop.value.code, capsys.readouterr().err)

    return run


def ship(*paths: Path, job: str | None = "gradcam", **options: Any) -> WorkingDir:
    return WorkingDir.of([Document(path, job) for path in paths], Path.cwd(), **options)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nonsense"], "No such command"),
        (["audit"], "Missing"),
        (["audit", "../jobs/audit.yaml"], "Missing option '--out'"),
        (["audit", "../jobs/audit.yaml", "--outt", "/out"], "No such option"),
        (
            ["audit", "../jobs/audit.yaml", "--out", "/out", "--threads", "two"],
            "Invalid value for '--threads'",
        ),
        (["audit", "nowhere.yaml", "--out", "/out"], "nowhere.yaml: no such file"),
        (
            ["audit", "../jobs/wrong.yaml", "--out", "/out"],
            "chekpoint: no such key; did you mean 'checkpoint'?",
        ),
        (
            ["audit", "../jobs/audit.yaml", "--out", "runs"],
            "out: expected an absolute path on all nodes",
        ),
        (
            ["materialize", "../jobs/kept.yaml", "--out", "/out"],
            "cache: expected a file to upload, or a path",
        ),
        (
            ["explain", "../jobs/lost.yaml"],
            "index: expected a file to upload, or a path on the cluster",
        ),
        (
            ["index", "photos", "-o", "/i.parquet"],
            "source: expected an absolute path on all nodes, or a URI",
        ),
        (["index", "/photos"], "output: expected an absolute path"),
        (
            ["predict", "best.safetensors", "/photos", "--out", "/out"],
            "checkpoint: expected an absolute path",
        ),
        (
            ["predict", "/best.safetensors", "/a.jpg", "b.jpg", "--out", "/out"],
            "sources: expected an absolute path",
        ),
        (["cache", "lss", "/pixels"], "No such command"),
        (["cache", "ls", "pixels"], "folder: expected an absolute path"),
        (["bench", "cold", "--data", "/photos"], "expected a command for a cluster, got bench"),
        (["submit", "--address", "x", "--", "doctor"], "expected a command for a cluster, got submit"),
    ],
)
def test_a_wrong_command_is_refused_here_and_nobody_is_asked(
    words: list[str], told: str, project: Path, knocked: list[str], submit: Callable[..., Ended]
) -> None:
    (project / "jobs" / "wrong.yaml").write_text("plan: plan.yaml\nchekpoint: best.safetensors\n")
    (project / "jobs" / "kept.yaml").write_text(PLAN + "cache: pixels\n")
    (project / "jobs" / "lost.yaml").write_text("index: lost.parquet\n")
    done = submit(*words, address=knocked[0])
    assert done.code == 2
    assert told in " ".join(done.stderr.split())
    assert knocked[1:] == []


@pytest.mark.usefixtures("project")
def test_from_python_a_wrong_command_is_an_error_of_ours(knocked: list[str]) -> None:
    with pytest.raises(
        RequestError, match=r"expected a command of lightwell, got .*: No such option: --outt"
    ):
        lightwell.submit(["audit", "../jobs/audit.yaml", "--outt", "/out"], knocked[0])
    with pytest.raises(PlanError, match=r"nowhere\.yaml: no such file"):
        lightwell.submit(["audit", "nowhere.yaml", "--out", "/out"], knocked[0])
    assert knocked[1:] == []


@pytest.mark.usefixtures("project")
def test_a_command_is_checked_in_a_fraction_of_a_second_of_processor_time() -> None:
    root = typer.main.get_command(app)

    def check() -> float:
        started = time.process_time()
        command = check_command(root, ["audit", "../jobs/audit.yaml", "--out", "/out"])
        WorkingDir.of(command.documents, Path.cwd())
        return time.process_time() - started

    assert min(check() for _ in range(5)) < 0.25


def test_every_path_of_every_command_is_shipped_or_on_the_cluster() -> None:
    def leaves(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        for word, command in group.commands.items():
            if not name and word in LOCAL_COMMANDS:
                continue
            yield from (
                leaves(command, word) if hasattr(command, "commands") else [(f"{name} {word}", command)]
            )

    found = {
        f"{name}: {parameter.name}"
        for name, command in leaves(typer.main.get_command(app))
        for parameter in command.params
        if "Path" in str(getattr(parameter, "type_descriptor", None))
        and parameter.name not in {*DOCUMENTS, *CLUSTER_PATHS}
    }
    assert found == set()


def test_what_relative_paths_name_goes_along_and_nothing_else(project: Path) -> None:
    jobs = project / "jobs"
    (jobs / "best.safetensors").write_bytes(b"weights")
    (jobs / "metrics.jsonl").write_text("")
    (jobs / "policy.json").write_text(policy())
    (jobs / "plan.yaml").write_text(PLAN + "augment: {file: policy.json}\n")
    (jobs / "audit.yaml").write_text("plan: plan.yaml\ncheckpoint: best.safetensors\ntitle: audit.yaml\n")
    (jobs / "notes.txt").write_text("of no concern")
    shipment = ship(Path("../jobs/audit.yaml"))
    assert set(map(str, shipment.files)) == {
        "audit.yaml",
        "best.safetensors",
        "index.parquet",
        "metrics.jsonl",
        "plan.yaml",
        "policy.json",
    }
    assert shipment.root == project / "jobs"
    assert shipment.num_bytes == sum((jobs / path).stat().st_size for path in shipment.files)
    assert {line.split()[1] for line in shipment.file_lines()} == set(map(str, shipment.files))
    (note,) = shipment.notes()
    assert str(project / "photos") in note


def policy() -> str:
    import albumentations as A

    return json.dumps(A.to_dict(A.Compose([A.HorizontalFlip(p=0.5)])))


def test_absolute_paths_are_the_clusters(project: Path) -> None:
    index = str(project / "jobs" / "index.parquet")
    (project / "jobs" / "plan.yaml").write_text(PLAN.replace("index.parquet", index) + "cache: /pixels\n")
    files = ship(Path("../jobs/audit.yaml")).files
    assert {path.name for path in files} == {"audit.yaml", "plan.yaml"}


def test_weights_beside_the_job_file_go_along(project: Path) -> None:
    (project / "jobs" / "weights.pth").write_bytes(b"weights")
    (project / "jobs" / "audit.yaml").write_text(
        "plan: plan.yaml\nmodel: {name: resnet18, weights: weights.pth}\n"
    )
    assert ship(Path("../jobs/audit.yaml")).files[Path("weights.pth")] == project / "jobs" / "weights.pth"


def test_a_file_outside_the_folder_of_the_job_goes_along_when_it_is_allowed_by_name(project: Path) -> None:
    (project / "jobs" / "index.parquet").rename(project / "index.parquet")
    (project / "jobs" / "plan.yaml").write_text(PLAN.replace("index.parquet", "../index.parquet"))
    with pytest.raises(PlanError, match=r"plan\.yaml: index: expected a file below .*allow it with --ship"):
        ship(Path("../jobs/audit.yaml"))
    shipment = ship(Path("../jobs/audit.yaml"), ship=[project / "index.parquet"])
    assert set(map(str, shipment.files)) == {"jobs/audit.yaml", "jobs/plan.yaml", "index.parquet"}
    assert shipment.root == project
    with pytest.raises(RequestError, match=r"--ship: expected a file or a folder, got '.*nowhere'"):
        ship(Path("../jobs/audit.yaml"), ship=[project / "nowhere"])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("{root}/jobs/{name}", "plan.yaml"),
        ("../jobs/{name}", "a plan; touch hacked $(touch hacked) 'x' \"y\".yaml"),
    ],
)
def test_the_entrypoint_means_there_what_the_command_means_here(
    given: str, name: str, project: Path, tmp_path: Path
) -> None:
    """It is run by a real shell, as the job server does it, where nothing lies but what was shipped."""
    (project / "jobs" / name).write_text(PLAN)
    words = ["explain", given.format(name=name, root=project), "--json"]
    shipment = ship(Path(words[1]), job=None)
    there = tmp_path / "there"
    shipment.copy_to(there)
    told = tmp_path / "told"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > {told}\n")
    python.chmod(0o755)
    subprocess.run(["sh", "-c", shipment.entrypoint(words, str(python))], cwd=there, check=True)
    option, module, *received = told.read_text().split("\0")[:-1]
    assert (option, module) == ("-m", "lightwell.cli")
    done = commands.lightwell(*received, cwd=there)
    assert done.returncode == 0, done.stderr
    assert [step["name"] for step in json.loads(done.stdout)] == ["Read", "Draw", "Decode", "Resize", "Batch"]
    assert not list(tmp_path.rglob("hacked"))
    assert str(project) not in shipment.entrypoint(words)


def test_a_data_folder_is_never_shipped(project: Path) -> None:
    (project / "jobs" / "plan.yaml").write_text(PLAN.replace("index.parquet", "../photos"))
    with pytest.raises(PlanError, match=r"index: expected a file to upload.*got the folder '.*photos'"):
        ship(Path("../jobs/audit.yaml"))


def test_an_index_with_relative_paths_is_refused(project: Path) -> None:
    import pyarrow as pa
    from lightwell.pipeline.index.index import Index

    index = Index.load(project / "jobs" / "index.parquet")
    place = index.table.column_names.index("uri")
    uris = pa.array([os.path.relpath(uri, project) for uri in index.table["uri"].to_pylist()])
    Index(index.table.set_column(place, "uri", uris), index.classes).save(project / "jobs" / "index.parquet")
    with pytest.raises(PlanError, match="expected absolute paths or URIs of images, got 'photos/"):
        ship(Path("../jobs/audit.yaml")).notes()


def test_too_much_is_refused_and_the_largest_file_is_named(project: Path) -> None:
    (project / "jobs" / "best.safetensors").write_bytes(bytes(200_000))
    (project / "jobs" / "audit.yaml").write_text("plan: plan.yaml\ncheckpoint: best.safetensors\n")
    with pytest.raises(
        RequestError, match=r"at most 100\.0 kB to ship, got .*best\.safetensors' has 200\.0 kB; put it where"
    ):
        ship(Path("../jobs/audit.yaml"), max_bytes=100_000)


@pytest.mark.parametrize("name", ["nowhere", "photos", "jobs/index.parquet"])
def test_what_is_no_module_does_not_go_along(name: str, project: Path) -> None:
    with pytest.raises(RequestError, match="--module: expected a Python module or the folder of a package"):
        ship(Path("../jobs/audit.yaml"), modules=[project / name])


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("127.0.0.1", "http://127.0.0.1:8265"),
        ("head:9000", "http://head:9000"),
        ("http://head/", "http://head:8265"),
        ("https://ray.example.org", "https://ray.example.org:443"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_an_address_is_completed(given: str, completed: str) -> None:
    assert parse_address(given) == completed


@pytest.mark.parametrize(
    "address", ["", "ray://head:10001", "head:port", "http://head/jobs", "auto://", "file:///etc"]
)
def test_an_address_that_cannot_be_a_job_server_is_refused(address: str) -> None:
    with pytest.raises(RequestError, match="--address: expected the job server of a cluster"):
        parse_address(address)


@pytest.mark.usefixtures("project")
def test_an_address_where_nothing_answers_is_told_at_once(submit: Callable[..., Ended]) -> None:
    started = time.monotonic()
    done = submit("explain", "../jobs/plan.yaml", address=f"127.0.0.1:{free_port()}")
    assert done.code == 2
    assert (
        "error: --address: expected a cluster's job server, got no answer from http://127.0.0.1:"
        in done.stderr
    )
    assert time.monotonic() - started < HANG_S


def test_a_server_that_takes_a_call_and_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        with pytest.raises(RequestError, match=r"got no answer from .*timed out"):
            JobServer.connect(f"127.0.0.1:{server.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - started < HANG_S


def test_another_web_server_is_not_taken_for_a_cluster() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(RequestError, match="expected a cluster's job server, got the answer 501"):
            JobServer.connect(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_a_checkout_and_an_installation_ship_the_same_package(root: Path, tmp_path: Path) -> None:
    first, second, installed, third = (tmp_path / name for name in ("first", "second", "installed", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    before = contents(root / "workers")
    package, info = copy_package(first)
    copy_package(second)
    assert (package.name, info.suffix) == ("lightwell", ".dist-info")
    assert contents(first) == contents(second)
    assert contents(root / "workers") == before
    assert not [name for name in contents(first) if "direct_url" in name or "RECORD" in name]

    wheel = build_wheel(root, tmp_path)
    pip = ["pip", "install", "-q", "--no-deps", "--no-index", "--target", str(installed), str(wheel)]
    subprocess.run([sys.executable, "-m", *pip], check=True, capture_output=True)
    code = (
        "import pathlib, sys; from lightwell.workers.submission.package import copy_package;"
        "copy_package(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(third)],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        check=True,
    )
    assert contents(third) == contents(first)
