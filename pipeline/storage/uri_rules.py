"""Rules for remote URIs: allowed protocols, no chained URIs, no metadata services, optionally no private addresses.

Tables and indexes may be untrusted, and every URI in them causes a request (server-side request forgery). ``Storage``
checks each URI that it opens. Addresses are checked at the socket, after name resolution and at every redirect; not
checked are requests through a proxy, and protocols other than HTTP, whose hosts come from the user's configuration.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from ..errors import PlanError, SourceError
from ..uris import has_userinfo, public_uri

DEFAULT_PROTOCOLS = frozenset(
    {"file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https", "hf", "memory"}
)
"""``memory`` is fsspec's store within this process."""
FORBIDDEN_PROTOCOLS = frozenset(
    {"local", "reference", "simplecache", "filecache", "blockcache", "cached", "dir", "generic", "git"}
)
"""Protocols that open other URIs, write copies or alias the local disk; they cannot be allowed."""

PROTOCOLS_VARIABLE = "LIGHTWELL_ALLOW_PROTOCOLS"
PRIVATE_VARIABLE = "LIGHTWELL_FORBID_PRIVATE_ADDRESSES"

_SCHEME = re.compile(r"[a-z][a-z0-9+.\-]*")
_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "192.0.0.192/32")
)
"""Link-local addresses and those of cloud metadata services."""
_METADATA_REFUSAL = (
    "expected the address of a file server, got a link-local one or that of a metadata service, which hands out "
    "credentials; use another server"
)
_METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})


class ForbiddenURIError(SourceError, OSError):
    """A URI that the rules forbid; also an ``OSError``, so that it counts as the error of one file."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.strerror = message


@dataclass(frozen=True)
class UriRules:
    """Allowed protocols and addresses. Can be pickled."""

    protocols: frozenset[str] = DEFAULT_PROTOCOLS
    forbid_private_addresses: bool = False
    """Refuse HTTP addresses of private networks and of this machine."""

    @classmethod
    def from_env(
        cls, allow_protocols: Iterable[str] = (), *, forbid_private_addresses: bool | None = None
    ) -> Self:
        """Combine the defaults, the environment and the arguments.

        Args:
            allow_protocols: allowed in addition to the default ones and those of ``LIGHTWELL_ALLOW_PROTOCOLS`` (separated by
                commas).
            forbid_private_addresses: by default from ``LIGHTWELL_FORBID_PRIVATE_ADDRESSES`` (``1`` for yes).

        Raises:
            PlanError: a protocol is malformed or cannot be allowed.
        """
        more = [*allow_protocols, *filter(None, os.environ.get(PROTOCOLS_VARIABLE, "").split(","))]
        names = {name.strip().lower().removesuffix("://") for name in more}
        for name in sorted(names):
            if not _SCHEME.fullmatch(name) or name in FORBIDDEN_PROTOCOLS:
                raise PlanError(
                    f"allowed protocols: expected names such as sftp, got {name!r}; leave it out"
                    + (" (it opens other URIs or the local disk)" if name in FORBIDDEN_PROTOCOLS else "")
                )
        if forbid_private_addresses is None:
            forbid_private_addresses = os.environ.get(PRIVATE_VARIABLE, "") not in ("", "0")
        return cls(DEFAULT_PROTOCOLS | names, forbid_private_addresses)

    def refusal(self, uri: str) -> str | None:
        """Return why a URI is forbidden, or None if it is allowed."""
        protocol = uri.partition("://")[0].lower()
        if "::" in protocol or not _SCHEME.fullmatch(protocol):
            return "expected a URI of one protocol, got a chain of protocols; give the plain URI of the file"
        if protocol not in self.protocols:
            allowed = ", ".join(sorted(self.protocols))
            return (
                f"expected a path or one of the protocols {allowed}, got {protocol!r}; copy the files to one of them"
                + ("" if protocol in FORBIDDEN_PROTOCOLS else f", or allow it (--allow-protocol {protocol})")
            )
        if has_userinfo(uri):
            return (
                "expected a URI without user name and password, got one with them; put credentials into fsspec's "
                "configuration, ~/.netrc or the environment"
            )
        if any((char.isspace() and char != " ") or ord(char) < 32 for char in uri):
            return "expected a URI without control characters, got one with them; correct it"
        return self._host_refusal(uri) if protocol in ("http", "https") else None

    def check(self, uri: str) -> None:
        """Raise for a forbidden URI.

        Raises:
            ForbiddenURIError: with the reason and no secrets.
        """
        if reason := self.refusal(uri):
            raise ForbiddenURIError(f"{public_uri(uri)!r}: {reason}")

    def _host_refusal(self, uri: str) -> str | None:
        host = re.split(r"[/?#]", uri.partition("://")[2], maxsplit=1)[0]
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if host.lower().rstrip(".") in _METADATA_HOSTS:
            return _METADATA_REFUSAL
        try:
            return self.address_refusal(
                socket.inet_ntoa(socket.inet_aton(host))
            )  # 2852039166 and 0xa9fea9fe, too
        except OSError:
            pass
        try:
            return self.address_refusal(host)
        except ValueError:
            return None  # a name: its addresses are checked at the connection

    def address_refusal(self, address: str) -> str | None:
        """Return why an IP address is forbidden, or None if it is allowed.

        Raises:
            ValueError: not an IP address.
        """
        found = ipaddress.ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None) or found
        if any(found.version == one.version and found in one for one in _METADATA_NETWORKS):
            return _METADATA_REFUSAL
        if self.forbid_private_addresses and not found.is_global:
            return "expected a public address, got a private one, which --forbid-private-addresses forbids; use another server"
        return None

    def socket_for(self, address: tuple[Any, ...]) -> socket.socket:
        """Create a socket for an allowed address; the ``socket_factory`` of an aiohttp connector.

        Raises:
            PermissionError: the address is forbidden.
        """
        family, kind, protocol, _, place = address
        if family in (socket.AF_INET, socket.AF_INET6) and (reason := self.address_refusal(str(place[0]))):
            raise PermissionError(13, f"its server leads to a forbidden address: {reason}")
        return socket.socket(family, kind, protocol)
