"""Which addresses the processes of a session listen on, from /proc."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

LISTEN = "0A"
"""State of a listening socket in ``/proc/net/tcp``."""


def addresses(pids: Iterable[int]) -> dict[str, set[str]]:
    """Map every address that one of some processes listens on to the names of those processes."""
    listening = _listening()
    found: dict[str, set[str]] = {}
    for pid in pids:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:  # the process, or the file, is gone
            continue
        for link in links:
            if (address := listening.get(link)) is not None:
                found.setdefault(address, set()).add(name)
    return found


def _listening() -> dict[str, str]:
    """Map ``socket:[INODE]`` of every listening TCP socket to its address."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                found[f"socket:[{fields[9]}]"] = _address(fields[1].partition(":")[0])
    return found


def _address(written: str) -> str:
    """Read an address as the kernel prints it: words of four bytes in the byte order of the machine."""
    words = [int(written[start : start + 8], 16) for start in range(0, len(written), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
