"""Pages: their templates, the style and script that they share, and the hash that allows the script."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from .text import interval, percent, replace_unprintable

if TYPE_CHECKING:
    import jinja2


def render_page(package: str, template: str, script: str = "", **values: Any) -> str:
    """Return a page as HTML, with everything that it shows escaped.

    Args:
        package: whose folder has the template.
        template: name of its file, which extends ``base.html``; it can import ``parts.html``.
        script: name of the page's script in this package; empty for a page without.
        values: what the template shows.
    """
    code = packaged_text(__package__, script) if script else Markup("")
    return (
        template_environment(package)
        .get_template(template)
        .render(
            style=packaged_text(__package__, "page.css"),
            script=code,
            script_hash=script_hash(code),
            **values,
        )
    )


def template_environment(package: str) -> jinja2.Environment:
    """Return an environment for the templates of a package and those that all pages share, which escapes what they show."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(__package__, ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["interval"] = interval
    environment.finalize = replace_unprintable
    return environment


def packaged_text(package: str, name: str) -> Markup:
    """Return a script or style of a package, to be put into a page as it is."""
    return Markup(files(package).joinpath(name).read_text(encoding="utf-8"))  # noqa: S704  no data in it


def script_hash(script: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows this script and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
