"""Pages: their templates, the style that all share, and the hash that allows their script."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from .text import interval, percent, replace_unprintable

if TYPE_CHECKING:
    import jinja2


def template_environment(package: str) -> jinja2.Environment:
    """Return an environment for the templates beside a package's modules, which escapes everything that they show."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["interval"] = interval
    environment.finalize = replace_unprintable
    return environment


def page_style() -> Markup:
    """Return the style sheet of all pages."""
    return packaged_text(__package__, "page.css")


def packaged_text(package: str, name: str) -> Markup:
    """Return a script or style of a package, to be put into a page as it is."""
    return Markup(files(package).joinpath(name).read_text(encoding="utf-8"))  # noqa: S704  no data in it


def script_hash(script: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows this script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
