"""Ray nodes whose workers and agents are forked from processes that have imported what they need.

A worker of Ray imports torch and Albumentations for three seconds of processor time, and tests start hundreds of them. The
raylet of a node started here runs a small program in place of the interpreter. It asks a fork server of the node for a process
with the same arguments, environment and files, which then does what Ray's own worker or agent does. Agents have a server of
their own, which has imported Ray; workers import it themselves, as Ray's core keeps the variables of its first import.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread

import warm

START = (
    "from ray.scripts import scripts; scripts.get_ray_client_dependency_error = lambda: 'off'; scripts.main()"
)
"""The program of ``ray start``, without the server of ``ray://`` addresses, which no test connects to."""
UNSHARED = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
"""Runs a shell command in a mount namespace of its own."""
AGENTS = ("ray/dashboard/agent.py", "ray/_private/runtime_env/agent/main.py")
"""What a raylet starts beside itself."""
PIPED = {"RAY_enable_pipe_based_agent_to_parent_health_check": "1"}
"""Makes agents find by their input that the raylet is gone: here they are not its children."""
REQUEST_BYTES = 1 << 20
CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="

ASK = """#!{python} -ISE
import json, os, socket, sys
argv, env = sys.argv[1:], dict(os.environ)
context = next((w for w in argv if w.startswith({context!r})), None)
context = json.loads(context[len({context!r}):]) if context else {{}}
variables = context.get("env_vars", {{}})
start = next((n for n, w in enumerate(argv) if w.endswith(("default_worker.py", *{agents!r}))), None)
is_agent = start is not None and argv[start].endswith({agents!r})
ours = (
    start is not None and (is_agent or not argv[:1] == ["-u"])
    and not any(context.get(name) for name in ("command_prefix", "override_worker_entrypoint"))
    and "PYTHONPATH" not in variables
)
if not ours:
    os.execve({python!r}, [{python!r}, *argv], env)
skipped = ({context!r}, {language!r})
request = json.dumps([[w for w in argv[start:] if not w.startswith(skipped)], {{**env, **variables}}]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({for_agents!r} if is_agent else {for_workers!r})
    socket.send_fds(server, [request], [0, 1, 2])
    server.recv(1)  # ends with the worker
"""
"""The program that raylets run as their interpreter; it becomes the real one for anything but plain workers and agents."""


def start_node(
    arguments: Sequence[str], env: Mapping[str, str], folder: Path, log: Path, hidden: Path | None
) -> ForkServerProcess:
    """Start ``ray start`` with arguments, in a session of its own; returns its process.

    Workers of a node with a hidden folder are started as usual, in its mount namespace.
    """
    target = _run_node if hidden is None else partial(_run_hidden_node, hidden)
    process = warm.server().Process(target=target, args=(list(arguments), dict(env), folder, log))
    process.start()
    return process


def _run_hidden_node(hidden: Path, arguments: list[str], env: dict[str, str], _: Path, log: Path) -> None:
    """Become a node for which a folder is empty."""
    _begin_session(log)
    command = [*UNSHARED, 'mount -t tmpfs none "$0" && exec "$@"', str(hidden), sys.executable, "-c", START]
    os.execvpe(command[0], [*command, *arguments], env)


def _run_node(arguments: list[str], env: dict[str, str], folder: Path, log: Path) -> None:
    """Become the node: its fork servers are children in its session."""
    _begin_session(log)
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY),
        (2, log, os.O_WRONLY),
    ):
        os.dup2(os.open(path, flags), descriptor)
    for_workers, for_agents = (folder / f"{name}-{os.getpid()}" for name in ("fork", "agents"))
    paths = _search_path(env)
    sys.path[:] = paths
    _set_environment({**env, **PIPED})
    _fork_server(for_workers, paths)
    import ray.dashboard.agent
    import ray.scripts.scripts  # noqa: F401

    _fork_server(for_agents, paths)
    ask = folder / f"python-{os.getpid()}"
    ask.write_text(
        ASK.format(
            python=sys.executable,
            for_workers=str(for_workers),
            for_agents=str(for_agents),
            agents=AGENTS,
            context=CONTEXT,
            language=LANGUAGE,
        )
    )
    ask.chmod(0o755)
    sys.executable = str(ask)
    sys.argv = ["ray", *arguments]
    exec(START, {"__name__": "__main__"})


def _begin_session(log: Path) -> None:
    os.setsid()
    for descriptor, path in ((0, Path(os.devnull)), (1, log), (2, log)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)


def _fork_server(address: Path, paths: list[str]) -> None:
    """Fork a process for each request at an address, in a child that has imported what this process has."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(address))
    server.listen(64)
    if os.fork() == 0:
        _serve(server, paths)
    server.close()


def _serve(server: socket.socket, paths: list[str]) -> None:
    """Fork a process for each request, until the session is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing is left of processes that end
    while True:
        request, _ = server.accept()
        content, descriptors, *_ = socket.recv_fds(request, REQUEST_BYTES, 3)
        argv, variables = json.loads(content)
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            Thread(target=_end_with, args=(request,), daemon=True).start()
            _work(paths, argv, variables, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        request.close()


def _work(paths: list[str], argv: list[str], env: dict[str, str], descriptors: list[int]) -> None:
    """Become the worker or agent; the connection stays open until it ends."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _set_environment(env)
    program, *_ = argv
    sys.argv = argv
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing has put another in its place
    sys.path[:] = [str(Path(program).parent), *paths]
    code = 1
    try:
        runpy.run_path(program, run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(code)


def _end_with(request: socket.socket) -> None:
    """End this process when the one that asked for it is killed, which Ray believes to be the worker."""
    request.recv(1)
    os._exit(1)


def _search_path(env: Mapping[str, str]) -> list[str]:
    """Return where a new interpreter with this environment looks for modules."""
    shown = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return list(json.loads(shown.stdout))


def _set_environment(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
