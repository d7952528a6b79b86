"""Client of a cluster's job server: Ray's client with a reachability check and Lightwell's errors."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...pipeline.errors import LightwellError, RequestError, RunError, did_you_mean

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Variable that takes precedence over addresses passed to Ray's client."""
DEFAULT_PORT = 8265
TERMINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
NOISY_LOGGERS = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Loggers of Ray that report every upload and connection."""
EXIT_CODES = frozenset({0, 1, 2, 3})
"""Exit codes of Lightwell's commands; a killed process has others."""


@dataclass(frozen=True, slots=True)
class JobState:
    """State of a job."""

    id: str
    status: str
    """``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``."""
    exit_code: int | None
    """Exit code of the command, 1 if it was killed; None while it runs."""
    message: str
    command: str
    started_s: float | None
    """Seconds since 1970."""
    ended_s: float | None

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self.status in TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class JobServer:
    """Connection to a cluster's job server."""

    address: str
    client: JobSubmissionClient

    @classmethod
    def connect(cls, address: str, *, timeout_s: float = 5.0) -> Self:
        """Connect to the server at an address.

        Args:
            address: ``http://HOST:8265``; scheme and port are optional.
            timeout_s: timeout for the connection.

        Raises:
            RequestError: the address is invalid, or there is no job server.
        """
        url = parse_address(address)
        _check_version(url, timeout_s)
        from ray.job_submission import JobSubmissionClient

        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _override_address_variable(url), _translate_errors(url, "connect"):
            return cls(url, JobSubmissionClient(url))

    def submit(
        self, entrypoint: str, *, working_dir: Path, modules: Sequence[Path], metadata: Mapping[str, str]
    ) -> str:
        """Upload folders and start a command in the first of them; returns the job's id."""
        environment = {
            "working_dir": str(working_dir),
            "py_modules": [str(path) for path in modules],
        }
        with _translate_errors(self.address, "submit"):
            return self.client.submit_job(
                entrypoint=entrypoint, runtime_env=environment, metadata=dict(metadata)
            )

    def state(self, job: str) -> JobState:
        """Return the state of a job.

        Raises:
            RequestError: there is no such job.
            RunError: the server does not answer.
        """
        with _translate_errors(self.address, "status"):
            try:
                return _to_job_state(self.client.get_job_info(job))
            except RuntimeError as error:
                if "404" not in str(error):
                    raise
                raise RequestError(self._no_such(job)) from error

    def states(self) -> list[JobState]:
        """Return the submitted jobs, oldest first, without drivers that connected by themselves."""
        with _translate_errors(self.address, "list"):
            result = [_to_job_state(one) for one in self.client.list_jobs() if one.submission_id]
        return sorted(result, key=lambda state: state.started_s or 0.0)

    def stop(self, job: str) -> bool:
        """Stop a job; returns False if it had already ended.

        Raises:
            RequestError: there is no such job.
        """
        self.state(job)
        with _translate_errors(self.address, "stop"):
            return bool(self.client.stop_job(job))

    def logs(self, job: str) -> str:
        """Return a job's output so far.

        Raises:
            RequestError: there is no such job.
        """
        self.state(job)
        with _translate_errors(self.address, "logs"):
            return str(self.client.get_job_logs(job))

    def _no_such(self, job: str) -> str:
        known = [state.id for state in self.states()]
        hint = did_you_mean(job, known) or "`lightwell jobs ls` lists them"
        return f"jobs: expected a job of {self.address}, got {job!r}, which it does not know; {hint}"


def parse_address(address: str) -> str:
    """Complete the address of a job server.

    Raises:
        RequestError: the address is invalid.
    """
    url = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
    try:
        right = url.scheme in ("http", "https") and bool(url.hostname) and not url.path.strip("/")
        port = url.port or (DEFAULT_PORT if url.scheme == "http" else 443)
    except ValueError:
        right = False
    if not right:
        raise RequestError(
            f"--address: expected the job server of a cluster such as http://127.0.0.1:{DEFAULT_PORT}, got {address!r}; "
            "`ray start --head` prints it as the dashboard's address"
        )
    host = f"[{url.hostname}]" if ":" in str(url.hostname) else url.hostname
    return f"{url.scheme}://{host}:{port}"


def _check_version(url: str, timeout_s: float) -> None:
    """Check that a Ray job server answers; Ray's client may hang for minutes, and accepts any web server."""
    cure = "check that the cluster is running, with the dashboard on its head node"
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=timeout_s) as answer:  # noqa: S310  (http or https)
            known = b"ray_version" in answer.read(10_000)
    except urllib.error.HTTPError as error:
        if error.code in (
            401,
            403,
        ):  # a cluster that requires a token, which Ray's client handles
            return
        raise RequestError(
            f"--address: expected a cluster's job server, got the answer {error.code} from {url}; {cure}"
        ) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise RequestError(
            f"--address: expected a cluster's job server, got no answer from {url} ({reason}); {cure}"
        ) from error
    if not known:
        raise RequestError(f"--address: expected a cluster's job server, got another server at {url}; {cure}")


@contextmanager
def _override_address_variable(url: str) -> Iterator[None]:
    """Set the environment variable that overrides addresses passed to Ray's client, for the duration of the context."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before


@contextmanager
def _translate_errors(url: str, what: str) -> Iterator[None]:
    """Convert errors of Ray's client to LightwellErrors."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except LightwellError:
        raise
    except AuthenticationError as error:
        raise RequestError(
            f"--address: expected the token of the cluster at {url}, got none or another (RAY_AUTH_MODE is "
            f"{os.environ.get('RAY_AUTH_MODE', 'not set')}); set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that "
            "holds it"
        ) from error
    except (RuntimeError, OSError, ValueError) as error:  # requests' own errors are OSErrors
        reason = " ".join(str(error).split())[-500:]
        raise RunError(
            f"{what}: expected an answer from {url}, got {type(error).__name__}: {reason}; check its dashboard"
        ) from error


def _to_job_state(result: Any) -> JobState:
    status = str(result.status.value if hasattr(result.status, "value") else result.status)
    code = result.driver_exit_code
    if status in TERMINAL_STATES and code not in EXIT_CODES:
        code = 1
    if status in ("FAILED", "STOPPED") and code == 0:
        code = 1
    return JobState(
        id=str(result.submission_id or result.job_id),
        status=status,
        exit_code=code,
        message=str(result.message or "").partition(", last available logs")[0],
        command=str(result.entrypoint),
        started_s=result.start_time / 1000 if result.start_time else None,
        ended_s=result.end_time / 1000 if result.end_time else None,
    )
