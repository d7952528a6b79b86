"""Redact secrets in URIs: for keys, quarantine entries, records, logs and error messages."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(?:::[A-Za-z][A-Za-z0-9+.\-]*)*://[^\s'\"<>`|]+")
_QUERY_IN_TEXT = re.compile(r"(?<=[^\s?])\?[\w.~%+\[\]\-]+=[^\s'\"<>`|)]*")
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]*(?:::|://))")
"""Separator of a chained fsspec URI; does not match the colons of an IPv6 address."""
_LOOKS_LIKE_QUERY = re.compile(r"[\w.~%+\[\]\-]+=")
_WEB = frozenset({"http", "https", "ftp", "ftps", "ws", "wss"})
_CONTAINER_BEFORE_AT = frozenset({"abfs", "abfss", "az", "adl", "wasb", "wasbs"})
"""Azure protocols, where ``container@account`` is a location without credentials."""


def public_uri(uri: str) -> str:
    """Return a URI without user name, password, query and fragment; local paths are returned unchanged.

    Object names may contain ``?`` and ``#``; for object stores only a suffix of the form ``?name=value`` is removed. Each
    part of a chained URI (``a::b``) is redacted.

    Example:
        >>> public_uri("https://ann:secret@host:8080/a/1.jpg?X-Amz-Signature=ab")
        'https://host:8080/a/1.jpg'
    """
    if uri.startswith("/") or "://" not in uri:
        return uri
    if len(links := _CHAIN.split(uri)) > 1:
        return "::".join(map(public_uri, links))
    scheme, _, rest = uri.partition("://")
    if not _SCHEME.fullmatch(scheme):
        return uri
    scheme = scheme.lower()
    if scheme == "file":
        return uri
    authority, path = _split_authority(rest)
    if "@" in authority and not _is_container(scheme, authority):
        authority = authority.rpartition("@")[2]
    return f"{scheme}://{authority}{_without_query(path, is_web=scheme in _WEB)}"


def has_userinfo(uri: str) -> bool:
    """Return whether a URI contains a user name or a password."""
    if uri.startswith("/") or "://" not in uri:
        return False
    if len(links := _CHAIN.split(uri)) > 1:
        return any(map(has_userinfo, links))
    scheme, _, rest = uri.partition("://")
    authority, _ = _split_authority(rest)
    return "@" in authority and not _is_container(scheme.lower(), authority)


def redact_uris(text: str) -> str:
    """Apply ``public_uri`` to every URI in a text, such as the message of a third-party exception."""
    text = _URL_IN_TEXT.sub(lambda match: public_uri(match[0]), text)
    return _QUERY_IN_TEXT.sub("", text)


def _split_authority(rest: str) -> tuple[str, str]:
    """Split ``host/path``; a password with an unescaped slash counts as part of the authority."""
    end = next((number for number, char in enumerate(rest) if char in "/?#"), len(rest))
    authority = rest[:end]
    port = authority.rpartition(":")[2] if ":" in authority else ""
    if port and not port.isdigit() and not authority.endswith("]") and "@" not in authority and "@" in rest:
        after = rest.rindex("@") + 1
        end = next((n for n, char in enumerate(rest[after:], after) if char in "/?#"), len(rest))
    return rest[:end], rest[end:]


def _is_container(scheme: str, authority: str) -> bool:
    return scheme in _CONTAINER_BEFORE_AT and ":" not in authority.rpartition("@")[0]


def _without_query(path: str, *, is_web: bool) -> str:
    if is_web:
        return re.split(r"[?#]", path, maxsplit=1)[0]
    for number, char in enumerate(path):
        if char in "?#" and _LOOKS_LIKE_QUERY.match(path, number + 1):
            return path[:number]
    return path
