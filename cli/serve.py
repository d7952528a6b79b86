"""``lightwell serve`` and ``lightwell services``: one stream of batches for many jobs; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .engine import open_ray
from .options import Address, AllowImport, CpusPerWorker, GpusPerWorker, Json, Memory, Workers
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..workers.service.host import Service

services_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List the services of a cluster, ask and stop them.\n\nExample: lightwell services status sweep",
)

Name = Annotated[str, typer.Argument(help="Of the service.")]
Where = Annotated[str, typer.Option("--address", help="Of the Ray cluster: host:port or auto.")]

TELL_S = 10.0
"""Between two lines of a service that runs in the foreground."""


def serve(
    plan: Annotated[
        Path,
        typer.Argument(
            help="A plan, or the job file of one of the jobs that will attach: its view is served."
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="What job files write behind `feed: service://`.")],
    split: Annotated[str | None, typer.Option(help="Of a plan: what is served; train without it.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of a plan: how many; one without it.")] = None,
    augment: Annotated[
        bool | None,
        typer.Option("--augment/--no-augment", help="Of a plan: the training view, as without it."),
    ] = None,
    shuffle: Annotated[
        bool | None, typer.Option("--shuffle/--no-shuffle", help="Of a plan: shuffled, as without it.")
    ] = None,
    drop_last: Annotated[
        bool | None,
        typer.Option("--drop-last/--keep-last", help="Of a plan: the last, smaller batch; kept without it."),
    ] = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    memory: Memory = None,
    window: Annotated[
        int, typer.Option(min=1, help="Batches that the fastest job may be before the slowest.")
    ] = 16,
    window_bytes: Annotated[
        str | None,
        typer.Option(
            help="What finished batches may take, such as 2G; a quarter of an object store without it."
        ),
    ] = None,
    max_lag: Annotated[
        float | None,
        typer.Option(
            help="Seconds for which a job may keep others waiting in all; its batches are then made again for it. "
            "For ever without it."
        ),
    ] = None,
    silent: Annotated[
        float, typer.Option(help="Seconds without a sign of life after which a job is dead.")
    ] = 15,
    consumers: Annotated[
        int, typer.Option(min=1, help="Jobs to wait for, so that all share from the first batch on.")
    ] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running; needs --address.")] = False,
    allow_import: AllowImport = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not say how far it is.")] = False,
    as_json: Json = False,
) -> None:
    """Make each batch of a plan once for all jobs that attach to it, such as a sweep of learning rates.

    Jobs attach by `feed: service://NAME` in their job files. Each has its own position, may be killed and go on, and holds
    the others back once it is --window batches behind. Ctrl-C ends the service.

    Example: lightwell serve train.yaml --name sweep --address auto --consumers 4
    """
    from ..pipeline.errors import RequestError
    from ..pipeline.jobs.job_file import load_reading
    from ..pipeline.machine import parse_size
    from ..pipeline.plan.view import View
    from ..workers.service.host import start_service
    from ..workers.service.sharing import SharingRules

    given = {"split": split, "epochs": epochs, "augment": augment, "shuffle": shuffle, "drop-last": drop_last}
    asked = {key: value for key, value in given.items() if value is not None}
    found = load_reading(plan, allow_import=allow_import or ())
    if found.view is not None and asked:
        raise RequestError(f"--{min(asked)}: expected a plan beside it, got the job file {str(plan)!r}, which says what it "
                           "reads; leave the option out")  # fmt: skip
    view = found.view or View(
        split or "train",
        shuffle=shuffle is not False,
        augment=augment is not False,
        num_epochs=epochs or 1,
        drop_last=bool(drop_last),
    )
    rules = SharingRules(
        window, parse_size(window_bytes, "--window-bytes") if window_bytes else 0, max_lag, silent, consumers
    )
    engine = open_ray(address, workers, cpus_per_worker, gpus_per_worker, memory)
    service = start_service(found.plan, view, name, engine, rules, detached=detach)
    if as_json:
        print_json(service.status())
    else:
        print(f"serving {name}: write `feed: service://{name}` into job files, and run them with "
              f"--address {service.cluster_address()}", flush=True)  # fmt: skip
    if not detach:
        _stay(service, quiet=quiet or as_json)


@services_app.command("ls")
def list_command(address: Where = "auto", as_json: Json = False) -> None:
    """List the services of a cluster.

    Example: lightwell services ls
    """
    from ..workers.ray.cluster import connected
    from ..workers.service.formatting import sum_up
    from ..workers.service.host import find_service, service_names

    with connected(address):
        found = [find_service(name).status() for name in service_names()]
    if as_json:
        print_json(found)
        return
    for status in found:
        print(sum_up(status))
    if not found:
        print("no service is running; start one with `lightwell serve PLAN.yaml --name NAME --address auto`")


@services_app.command("status")
def status_command(name: Name, address: Where = "auto", as_json: Json = False) -> None:
    """Say what a service has made and where each of its consumers stands.

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
def stop_command(name: Name, address: Where = "auto") -> None:
    """End a service; jobs that still want batches end with an error, and go on once it is served again.

    Example: lightwell services stop sweep
    """
    from ..workers.ray.cluster import connected
    from ..workers.service.host import find_service

    with connected(address):
        find_service(name).stop()
    print(f"stopped {name}")


def _stay(service: Service, *, quiet: bool) -> None:
    """Say how far a service is until Ctrl-C ends it."""
    import time

    from ..workers.service.formatting import sum_up

    told = ""
    try:
        while True:
            time.sleep(TELL_S)
            line = sum_up(service.status())
            if not quiet and line != told:
                print(line, flush=True)
            told = line
    except KeyboardInterrupt:
        status = service.status()
        service.stop()
        if not quiet:
            _print_status(status)
            print(f"stopped {service.name}")


def _print_status(status: Any) -> None:
    from ..workers.service.formatting import consumer_rows, sum_up

    if status["consumers"]:
        print_table(*consumer_rows(status))
    print(sum_up(status))
