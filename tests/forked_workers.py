"""Ray nodes whose worker processes are forked from one that has imported what they need.

A worker of Ray imports torch and Albumentations for three seconds of processor time, and tests start hundreds of them. The
raylet of a node started here runs a small program in place of the interpreter. It asks the node's fork server for a process
with the same arguments, environment and files, which then does what Ray's own worker does.
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
from importlib.util import find_spec
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
REQUEST_BYTES = 1 << 20
CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="

ASK = """#!{python} -ISE
import json, os, socket, sys
argv, env = sys.argv[1:], dict(os.environ)
context = next((w for w in argv if w.startswith({context!r})), None)
context = json.loads(context[len({context!r}):]) if context else {{}}
variables = context.get("env_vars", {{}})
ours = (
    not argv[:1] == ["-u"] and any(w.endswith("default_worker.py") for w in argv)
    and not any(context.get(name) for name in ("command_prefix", "override_worker_entrypoint"))
    and "PYTHONPATH" not in variables
)
if not ours:
    os.execve({python!r}, [{python!r}, *argv], env)
start = next(n for n, w in enumerate(argv) if w.endswith("default_worker.py"))
skipped = ({context!r}, {language!r})
request = json.dumps([[w for w in argv[start:] if not w.startswith(skipped)], {{**env, **variables}}]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [request], [0, 1, 2])
    server.recv(1)  # ends with the worker
"""
"""The program that raylets run as their interpreter; it becomes the real one for anything but a plain worker."""


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
    """Become the node: the fork server is a child in its session."""
    _begin_session(log)
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY),
        (2, log, os.O_WRONLY),
    ):
        os.dup2(os.open(path, flags), descriptor)
    server = socket.socket(socket.AF_UNIX)
    address = folder / f"fork-{os.getpid()}"
    server.bind(str(address))
    server.listen(64)
    if os.fork() == 0:
        _serve(server, env)
    server.close()
    ask = folder / f"python-{os.getpid()}"
    ask.write_text(
        ASK.format(python=sys.executable, address=str(address), context=CONTEXT, language=LANGUAGE)
    )
    ask.chmod(0o755)
    start = f"import sys; sys.executable = {str(ask)!r}; {START}"
    os.execve(sys.executable, [sys.executable, "-c", start, *arguments], env)


def _begin_session(log: Path) -> None:
    os.setsid()
    for descriptor, path in ((0, Path(os.devnull)), (1, log), (2, log)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), descriptor)


def _serve(server: socket.socket, env: dict[str, str]) -> None:
    """Fork a process for each request, until the session is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing is left of processes that end
    paths = _search_path(env)
    found = find_spec("ray")  # imported by each worker: Ray's core keeps the variables of its first import
    assert found is not None
    assert found.origin is not None
    program = str(Path(found.origin).parent / "_private" / "workers" / "default_worker.py")
    while True:
        request, _ = server.accept()
        content, descriptors, *_ = socket.recv_fds(request, REQUEST_BYTES, 3)
        argv, variables = json.loads(content)
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            Thread(target=_end_with, args=(request,), daemon=True).start()
            _work(program, paths, argv, variables, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        request.close()


def _work(
    program: str, paths: list[str], argv: list[str], env: dict[str, str], descriptors: list[int]
) -> None:
    """Become the worker; the connection stays open until it ends."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _set_environment(env)
    sys.argv = argv
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
