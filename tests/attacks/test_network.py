"""What a neighbour on the network can reach."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys

import pytest
from clusters import processes
from listening import addresses
from patience import HANG_S

USE_RAY = """
import sys
import ray
from lightwell.workers.ray.cluster import connect
assert connect()
assert ray.get(ray.remote(lambda: 41 + 1).remote()) == 42
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.ray
def test_a_local_ray_listens_on_loopback_only() -> None:
    """A neighbour on the network connects to the Ray that `--engine ray` starts on this machine: nothing listens there."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", USE_RAY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        session = [pid for pid, (leader, _) in processes().items() if leader == process.pid]
        found = addresses(session)
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 0
    assert {"gcs_server", "raylet"} <= set().union(*found.values())
    assert {address for address in found if not ipaddress.ip_address(address).is_loopback} == set()


JOIN = """
import sys
import ray
from lightwell.workers.ray.cluster import connect
assert connect(sys.argv[1])
print(ray.get(ray.remote(lambda: 42).remote()), flush=True)
"""
START = """
import ray
from lightwell.workers.ray.cluster import connect
assert connect()
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.mark.ray
def test_a_local_ray_can_be_joined_by_its_address() -> None:
    """Another process of this machine, such as a training that reads from a service, joins the Ray that a first one started."""
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().strip()
        assert address.startswith("127.0.0.1:")
        joined = subprocess.run(
            [sys.executable, "-c", JOIN, address], check=False, capture_output=True, text=True, timeout=HANG_S
        )
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(60)
    assert joined.stdout == "42\n", joined.stderr
