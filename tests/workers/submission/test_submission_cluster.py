"""Commands that go through the job server of a real head node, with all that they ship."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import commands
import lightwell
import pyarrow.parquet as pq
import pytest
import warm
from clusters import Cluster, ray_cluster, wait_until
from lightwell.pipeline.errors import RequestError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.text import plain_log
from lightwell.workers.submission.log_stream import follow
from lightwell.workers.submission.server import JobServer
from patience import HANG_S
from pictures import make_folder

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),  # Ray's own call
]

PLAN = "index: index.parquet\npreprocess: [{Resize: {height: 32, width: 32}}]\nbatch: {size: 8}\n"
AUDIT = "plan: plan.yaml\nmodel: {name: timm:test_resnet, weights: none}\nuntrained: allow\nsplit: null\n"
THEIRS = '''
import os, sys, time
from dataclasses import dataclass

import lightwell
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View


@dataclass(frozen=True)
class Waits:
    """A training job that says where its code lies, at its end in a task of Ray too, and does as it is told."""

    plan: Plan
    then: str = "end"
    view: View = View()

    def run(self, feed, context):
        print("here", lightwell.__file__, __file__, flush=True)
        if self.then == "end":
            import ray

            @ray.remote(num_cpus=0)
            def where():
                import lightwell
                import theirs

                return lightwell.__file__, theirs.__file__

            ray.init(log_to_driver=False)
            print("task", *ray.get(where.remote()), flush=True)
            ray.shutdown()
        if self.then == "gate":
            sys.exit(3)
        if self.then == "die":
            os.kill(os.getpid(), 9)
        if self.then == "wait":
            print("waiting", flush=True)
            time.sleep(600)
        if self.then == "count":
            for number in range(40):
                print(f"line {number}", flush=True)
                time.sleep(0.1)
        return {"images": sum(len(batch) for batch in feed)}
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node with its job server, which knows no Lightwell but the one that is shipped... and this checkout's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with ray_cluster(2, dashboard=True, env={"PATH": path}) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Photos with their index, a plan, an audit, and a job of somebody else beside them."""
    build_index(make_folder(tmp_path / "photos", num_images=16)).save(tmp_path / "index.parquet")
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "audit.yaml").write_text(AUDIT)
    (tmp_path / "theirs.py").write_text(THEIRS)
    for then in ("end", "gate", "die", "wait", "count"):
        (tmp_path / f"{then}.yaml").write_text(f"job: theirs:Waits\nplan: plan.yaml\nthen: {then}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("theirs", None)
    yield tmp_path
    sys.modules.pop("theirs", None)


def run(*words: object, project: Path) -> subprocess.CompletedProcess[str]:
    assert Path.cwd() == project
    return commands.lightwell(*words)


def submit_audit(cluster: Cluster, project: Path, out: Path) -> subprocess.CompletedProcess[str]:
    submit = ["submit", "--address", cluster.dashboard, "--"]
    return run(*submit, "audit", "audit.yaml", "--out", out, project=project)


def test_an_audit_on_the_cluster_gives_what_it_gives_here(cluster: Cluster, project: Path) -> None:
    here = run("audit", "audit.yaml", "--out", project / "here", "--quiet", project=project)
    assert here.returncode == 0, here.stderr
    done = submit_audit(cluster, project, project / "there")
    assert done.returncode == 0, done.stderr
    assert "bottleneck: " in done.stdout
    assert "SUCCEEDED, exit code 0" in done.stderr
    assert f"index.parquet lists files such as {project}" in done.stderr
    assert (project / "there" / "report.html").is_file()
    one, other = (pq.read_table(project / name / "records.parquet") for name in ("here", "there"))
    assert one["key"].equals(other["key"])
    assert one.schema.equals(other.schema)


def test_jobs_of_others_go_along_and_the_shipped_code_is_what_runs(
    cluster: Cluster, project: Path, root: Path
) -> None:
    submit = ["submit", "--json", "--address", cluster.dashboard, "--module", "theirs.py", "--"]
    done = run(
        *submit, "train", "end.yaml", "--allow-import", "theirs", "--out", project / "out", project=project
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["exit_code"]) == ("SUCCEEDED", 0)
    assert 0 < told["shipped_bytes"] < 100_000
    for where in ("here", "task"):
        (line,) = re.findall(rf"^{where} (.+)$", done.stderr, re.MULTILINE)
        ours, theirs = line.split()
        assert "py_modules_files" in ours
        assert "working_dir_files" in theirs
        assert Path(ours).read_bytes() == (root / "__init__.py").read_bytes()


@pytest.mark.parametrize(("then", "code"), [("gate", 3), ("die", 1)])
def test_the_exit_code_is_the_commands(then: str, code: int, cluster: Cluster, project: Path) -> None:
    submit = ["submit", "--quiet", "--address", cluster.dashboard, "--module", "theirs.py", "--"]
    done = run(
        *submit,
        "train",
        f"{then}.yaml",
        "--allow-import",
        "theirs",
        "--out",
        project / "out",
        project=project,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert f"FAILED, exit code {code}" in done.stderr


def test_what_only_the_cluster_can_know_is_a_wrong_request_there(cluster: Cluster, project: Path) -> None:
    (project / "plan.yaml").write_text(PLAN.replace("index.parquet", "/nowhere/index.parquet"))
    done = submit_audit(cluster, project, project / "out")
    assert done.returncode == 2
    assert "error: expected an index, got no file '/nowhere/index.parquet'" in done.stdout


def test_a_detached_job_is_listed_followed_and_stopped(cluster: Cluster, project: Path) -> None:
    address = ["--address", cluster.dashboard]
    submit = ["submit", "--detach", *address, "--module", "theirs.py", "--"]
    done = run(
        *submit, "train", "wait.yaml", "--allow-import", "theirs", "--out", project / "out", project=project
    )
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    assert f"lightwell jobs stop {job} --address {cluster.dashboard}" in done.stderr

    with warm.running(warm.COMMAND, "jobs", "logs", job, "--follow", *address) as following:
        wait_until(
            lambda: "waiting\n" in following.out.read_text() or not following.process.is_alive(),
            HANG_S,
            "the line of a job",
        )
        assert following.process.pid is not None
        os.kill(following.process.pid, signal.SIGINT)
        followed = following.end()
    assert followed.returncode == 1
    assert f"{job} is still running" in followed.stderr
    assert f"lightwell jobs stop {job}" in followed.stderr

    assert f"{job}: RUNNING" in run("jobs", "status", job, *address, project=project).stdout
    assert f"{job}: stopping" in run("jobs", "stop", job, *address, project=project).stdout
    server = JobServer.connect(cluster.dashboard)
    wait_until(lambda: server.state(job).has_ended, HANG_S, "the end of a stopped job")
    state = json.loads(run("jobs", "status", job, "--json", *address, project=project).stdout)
    assert (state["status"], state["exit_code"]) == ("STOPPED", 1)
    assert "waiting" in run("jobs", "logs", job, *address, project=project).stdout
    assert "already ended" in run("jobs", "stop", job, *address, project=project).stdout
    assert job in {state.id for state in server.states()}
    with pytest.raises(RequestError, match=f"got '{job}x', which it does not know; did you mean '{job}'"):
        server.state(job + "x")


def test_a_log_is_whole_though_connections_drop(cluster: Cluster, project: Path) -> None:
    words = ["train", "count.yaml", "--allow-import", "theirs", "--out", str(project / "out")]
    job = lightwell.submit(words, cluster.dashboard, modules=[Path("theirs.py")])
    with dropping_proxy(cluster.dashboard, after_s=1.0) as (address, drops):
        pieces: list[str] = []
        state = follow(job.id, JobServer.connect(address), pieces.append)
        assert len(drops) > 1
    assert state.exit_code == 0
    assert "".join(pieces) == plain_log(job.logs())
    assert re.findall(r"^line (\d+)$", "".join(pieces), re.MULTILINE) == [str(number) for number in range(40)]


def test_another_token_is_told_as_such(cluster: Cluster, project: Path) -> None:
    other = f"import os; os.environ['RAY_AUTH_TOKEN'] = '0' * 64; {warm.COMMAND}"
    done = warm.run(other, "jobs", "ls", "--address", cluster.dashboard)
    assert done.returncode == 2
    assert "--address: expected the token of the cluster" in done.stderr


@contextmanager
def dropping_proxy(address: str, *, after_s: float) -> Iterator[tuple[str, list[float]]]:
    """Pass connections on to a server and cut each that is older than so many seconds."""
    host, port = address.removeprefix("http://").split(":")
    drops: list[float] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
        except OSError:
            return

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            threads = [
                threading.Thread(target=pump, args=pair, daemon=True)
                for pair in ((client, server), (server, client))
            ]
            for thread in threads:
                thread.start()
            threads[1].join(after_s)
            if threads[1].is_alive():
                drops.append(time.monotonic())
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=guarded, args=(client,), daemon=True).start()

    def guarded(client: socket.socket) -> None:
        try:
            serve(client)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", drops
        listener.shutdown(socket.SHUT_RDWR)
