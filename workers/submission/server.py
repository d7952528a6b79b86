"""The job server of a cluster: Ray's own client, asked only where somebody answers, its errors in our words."""

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
"""Where Ray's own commands look for the address, before all else."""
DEFAULT_PORT = 8265
ENDS = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
NOISY_LOGGERS = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""Loggers of Ray that tell of every upload and every connection."""
EXIT_CODES = frozenset({0, 1, 2, 3})
"""What our commands end with; a process that was killed ends otherwise."""


@dataclass(frozen=True, slots=True)
class JobState:
    """What the server knows of a job."""

    id: str
    status: str
    """``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``."""
    exit_code: int | None
    """Of our command, 1 where it was killed; None while it runs."""
    message: str
    command: str
    started_s: float | None
    """Seconds since 1970."""
    ended_s: float | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in ENDS


@dataclass(frozen=True, slots=True)
class JobServer:
    """A cluster's job server that has answered."""

    address: str
    client: JobSubmissionClient

    @classmethod
    def connect(cls, address: str, *, timeout_s: float = 5.0) -> Self:
        """Find the server behind an address.

        Args:
            address: ``http://HOST:8265``; scheme and port may be left out.
            timeout_s: how long it may take to answer.

        Raises:
            RequestError: the address cannot be right, or nothing answers there.
        """
        url = parse_address(address)
        _ask_version(url, timeout_s)
        from ray.job_submission import JobSubmissionClient

        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _given_address_wins(url), _in_our_words(url, "connect"):
            return cls(url, JobSubmissionClient(url))

    def submit(
        self, entrypoint: str, *, working_dir: Path, modules: Sequence[Path], metadata: Mapping[str, str]
    ) -> str:
        """Ship folders and start a command in the first of them; returns the job's id."""
        environment = {
            "working_dir": str(working_dir),
            "py_modules": [str(path) for path in modules],
        }
        with _in_our_words(self.address, "submit"):
            return self.client.submit_job(
                entrypoint=entrypoint, runtime_env=environment, metadata=dict(metadata)
            )

    def state(self, job: str) -> JobState:
        """Ask how far a job is.

        Raises:
            RequestError: there is no such job.
            RunError: the server does not answer.
        """
        with _in_our_words(self.address, "status"):
            try:
                return _state_of(self.client.get_job_info(job))
            except RuntimeError as error:
                if "404" not in str(error):
                    raise
                raise RequestError(self._no_such(job)) from error

    def states(self) -> list[JobState]:
        """List the jobs that were submitted, oldest first; drivers that connected by themselves are left out."""
        with _in_our_words(self.address, "list"):
            found = [_state_of(one) for one in self.client.list_jobs() if one.submission_id]
        return sorted(found, key=lambda state: state.started_s or 0.0)

    def stop(self, job: str) -> bool:
        """Ask a job to stop; False where it had ended already.

        Raises:
            RequestError: there is no such job.
        """
        self.state(job)
        with _in_our_words(self.address, "stop"):
            return bool(self.client.stop_job(job))

    def logs(self, job: str) -> str:
        """Return all that a job has printed.

        Raises:
            RequestError: there is no such job.
        """
        self.state(job)
        with _in_our_words(self.address, "logs"):
            return str(self.client.get_job_logs(job))

    def _no_such(self, job: str) -> str:
        known = [state.id for state in self.states()]
        hint = did_you_mean(job, known) or "`lightwell jobs ls` lists them"
        return f"jobs: expected a job of {self.address}, got {job!r}, which it does not know; {hint}"


def parse_address(address: str) -> str:
    """Complete the address of a job server.

    Raises:
        RequestError: it is none.
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


def _ask_version(url: str, timeout_s: float) -> None:
    """Ray's client would wait for minutes where packets are dropped, and takes any web server for a cluster."""
    cure = "see that the cluster runs, and that its head was started with a dashboard"
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=timeout_s) as answer:  # noqa: S310  (http or https)
            known = b"ray_version" in answer.read(10_000)
    except urllib.error.HTTPError as error:
        if error.code in (
            401,
            403,
        ):  # a cluster with tokens; Ray's client has one to show, or says what to do
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
def _given_address_wins(url: str) -> Iterator[None]:
    """Ray lets its environment variables overrule the address that it is given; set the first of them meanwhile."""
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
def _in_our_words(url: str, what: str) -> Iterator[None]:
    """Turn what Ray's client raises into an error of ours."""
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
            f"{what}: expected an answer of {url}, got {type(error).__name__}: {reason}; see its dashboard"
        ) from error


def _state_of(found: Any) -> JobState:
    status = str(found.status.value if hasattr(found.status, "value") else found.status)
    code = found.driver_exit_code
    if status in ENDS and code not in EXIT_CODES:
        code = 1
    if status in ("FAILED", "STOPPED") and code == 0:
        code = 1
    return JobState(
        id=str(found.submission_id or found.job_id),
        status=status,
        exit_code=code,
        message=str(found.message or "").partition(", last available logs")[0],
        command=str(found.entrypoint),
        started_s=found.start_time / 1000 if found.start_time else None,
        ended_s=found.end_time / 1000 if found.end_time else None,
    )
