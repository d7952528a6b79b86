"""``lightwell serve`` and ``lightwell services``: one batch stream shared by several jobs; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .engine import engine_options, open_engine
from .options import Address, AllowImport, CpusPerWorker, EngineName, GpusPerWorker, Json, Memory, Workers
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..workers.service.host import Service

services_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, inspect and stop the services of a cluster.\n\nExample: lightwell services status sweep",
)

Name = Annotated[str, typer.Argument(help="Name of the service.")]
ServiceAddress = Annotated[
    str, typer.Option("--address", help="Address of the Ray cluster: host:port or auto.")
]

STATUS_INTERVAL_S = 10.0
"""Seconds between two status lines of a service in the foreground."""


def serve(
    plan: Annotated[
        Path,
        typer.Argument(
            help="A plan, or the job file of one of the jobs that will attach; its view is served."
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", help="Name of the service: job files write `feed: service://NAME`.")
    ],
    split: Annotated[
        str | None, typer.Option(help="With a plan: the split to serve (default: train).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="With a plan: number of epochs (default: 1).")
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option("--augment/--no-augment", help="With a plan: serve the training view (default)."),
    ] = None,
    shuffle: Annotated[
        bool | None, typer.Option("--shuffle/--no-shuffle", help="With a plan: shuffle each epoch (default).")
    ] = None,
    drop_last: Annotated[
        bool | None,
        typer.Option(
            "--drop-last/--keep-last", help="With a plan: drop or keep a smaller last batch (default: keep)."
        ),
    ] = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    memory: Memory = None,
    window: Annotated[
        int, typer.Option(min=1, help="Maximum lead, in batches, of the fastest job over the slowest.")
    ] = 16,
    window_bytes: Annotated[
        str | None,
        typer.Option(
            help="Memory limit for finished batches, such as 2G (default: a quarter of an object store)."
        ),
    ] = None,
    max_lag_s: Annotated[
        float | None,
        typer.Option(
            "--max-lag-s",
            help="Total seconds for which a job may block others before it is evicted and its batches are made again "
            "for it (default: no limit).",
        ),
    ] = None,
    heartbeat_timeout: Annotated[
        float,
        typer.Option(
            "--heartbeat-timeout", help="Seconds without a heartbeat after which a job counts as dead."
        ),
    ] = 15,
    consumers: Annotated[
        int, typer.Option(min=1, help="Jobs to wait for before the first batch is made.")
    ] = 1,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the service running; needs --address.")
    ] = False,
    allow_import: AllowImport = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print status lines.")] = False,
    as_json: Json = False,
) -> None:
    """Make each batch of a plan once for several jobs, such as a sweep of learning rates.

    Jobs attach with `feed: service://NAME` in their job files. Each has its own position, may be killed and resumed, and
    blocks the others once it is --window batches behind. Ctrl-C ends the service.

    Example: lightwell serve train.yaml --name sweep --address auto --consumers 4
    """
    from ..pipeline.errors import RequestError
    from ..pipeline.jobs.job_file import load_plan_and_view
    from ..pipeline.machine import parse_size
    from ..pipeline.plan.view import View
    from ..workers.service.host import start_service
    from ..workers.service.sharing import SharingRules

    options = engine_options(locals())
    given = {"split": split, "epochs": epochs, "augment": augment, "shuffle": shuffle, "drop-last": drop_last}
    given_options = {key: value for key, value in given.items() if value is not None}
    served = load_plan_and_view(plan, allow_import=allow_import or ())
    if served.view is not None and given_options:
        raise RequestError(f"--{min(given_options)}: expected a plan with this option, got the job file {str(plan)!r}, whose view "
                           "is served; leave the option out")  # fmt: skip
    view = served.view or View(
        split or "train",
        shuffle=shuffle is not False,
        augment=augment is not False,
        num_epochs=epochs or 1,
        drop_last=bool(drop_last),
    )
    rules = SharingRules(
        window,
        parse_size(window_bytes, "--window-bytes") if window_bytes else 0,
        max_lag_s,
        heartbeat_timeout,
        consumers,
    )
    engine = open_engine(EngineName.ray, **options)
    service = start_service(served.plan, view, name, engine, rules, detached=detach)
    if as_json:
        print_json(service.status())
    else:
        print(f"serving {name}: put `feed: service://{name}` into job files, and run them with "
              f"--address {service.cluster_address()}", flush=True)  # fmt: skip
    if not detach:
        _run_until_interrupted(service, quiet=quiet or as_json)


@services_app.command("ls")
def list_command(address: ServiceAddress = "auto", as_json: Json = False) -> None:
    """List the services of a cluster.

    Example: lightwell services ls
    """
    from ..workers.ray.cluster import connected
    from ..workers.service.formatting import status_line
    from ..workers.service.host import find_service, service_names

    with connected(address):
        statuses = [find_service(name).status() for name in service_names()]
    if as_json:
        print_json(statuses)
        return
    for status in statuses:
        print(status_line(status))
    if not statuses:
        print("no service is running; start one with `lightwell serve PLAN.yaml --name NAME --address auto`")


@services_app.command("status")
def status_command(name: Name, address: ServiceAddress = "auto", as_json: Json = False) -> None:
    """Show the progress of a service and the position of each consumer.

    Example: lightwell services status sweep
    """
    from ..workers.ray.cluster import connected
    from ..workers.service.host import find_service

    with connected(address):
        status = find_service(name).status()
    if as_json:
        print_json(status)
    else:
        _print_status(status)


@services_app.command("stop")
def stop_command(name: Name, address: ServiceAddress = "auto") -> None:
    """Stop a service; jobs that need further batches fail, and resume once it is served again.

    Example: lightwell services stop sweep
    """
    from ..workers.ray.cluster import connected
    from ..workers.service.host import find_service

    with connected(address):
        find_service(name).stop()
    print(f"stopped {name}")


def _run_until_interrupted(service: Service, *, quiet: bool) -> None:
    """Print the status of a service until Ctrl-C ends it."""
    import time

    from ..workers.service.formatting import status_line

    last_line = ""
    try:
        while True:
            time.sleep(STATUS_INTERVAL_S)
            line = status_line(service.status())
            if not quiet and line != last_line:
                print(line, flush=True)
            last_line = line
    except KeyboardInterrupt:
        status = service.status()
        service.stop()
        if not quiet:
            _print_status(status)
            print(f"stopped {service.name}")


def _print_status(status: Any) -> None:
    from ..workers.service.formatting import consumer_table, status_line

    if status["consumers"]:
        print_table(*consumer_table(status))
    print(status_line(status))
