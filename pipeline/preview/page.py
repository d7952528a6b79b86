"""The page of a preview: one HTML file that opens offline, runs no script and loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ..formats.mask_headers import IGNORED
from ..text import printable
from .pictures import THUMBNAIL, colour_of

if TYPE_CHECKING:
    from jinja2 import Environment

    from .preview import Preview

MARK = '<meta name="generator" content="Lightwell preview">'
MOST_IN_LEGEND = 40
"""Entries of each kind."""


def page(preview: Preview) -> str:
    """Return the whole page as HTML; every name from outside is escaped."""
    body = section(preview)
    title = f"{preview.name}: preview" if preview.name else "Preview"
    return _environment().get_template("page.html").render(title=title, body=body, mark=MARK)


def section(preview: Preview) -> str:
    """Return what notebooks show: the page without its frame, with the styles of its own."""
    from importlib.metadata import version

    uris = [picture.uri for picture in _pictures(preview)]
    return (
        _environment()
        .get_template("section.html")
        .render(
            preview=preview,
            subtitle=_subtitle(preview),
            legend=_legend(preview),
            has_marks=any(one.boxes or one.points or one.mask is not None for one in _pictures(preview)),
            megabytes=f"{sum(map(len, uris)) / 1e6:.1f}",
            thumbnail=THUMBNAIL,
            version=version("lightwell"),
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rgb": _rgb, "amount": _amount}
    environment.finalize = _visible
    return environment


def _visible(value: Any) -> Any:
    """Write characters that hide or reorder text as escapes."""
    return printable(value) if type(value) is str else value


def _rgb(number: int) -> str:
    return "rgb({}, {}, {})".format(*colour_of(number))


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{max(1, round(num_bytes / 1e3)):,} kB"


def _subtitle(preview: Preview) -> str:
    num = len(preview.samples)
    split = f"split “{preview.split}”" if preview.split else "all splits"
    samples = f"{num} sample{'' if num == 1 else 's'} of {preview.num_images:,} ({split})"
    first, last = (preview.epochs[0], preview.epochs[-1]) if preview.epochs else (0, 0)
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    return f"{samples}, {epochs if preview.epochs else 'no epochs'}, seed {preview.plan.seed}"


def _pictures(preview: Preview) -> list[Any]:
    found = [one.original for one in preview.samples]
    found += [version.picture for one in preview.samples for version in one.versions]
    found += [image.picture for image in preview.mixed.images] if preview.mixed else []
    return [picture for picture in found if picture is not None]


def _legend(preview: Preview) -> list[Mapping[str, Any]]:
    """List what colours mean: labels of masks, classes of boxes and names of keypoints that are to be seen."""
    pictures = _pictures(preview)
    labels = sorted({label for one in pictures for label in one.labels})
    boxes = sorted({(box.colour, box.name) for one in pictures for box in one.boxes if box.name})
    points = sorted({(point.colour, point.name) for one in pictures for point in one.points})
    kinds = [
        ("Mask", [(_mask_colour(label), _mask_label(label)) for label in labels]),
        ("Boxes", [(_rgb(number), name) for number, name in boxes]),
        ("Keypoints", [(_rgb(number), name) for number, name in points]),
    ]
    return [
        {
            "kind": kind,
            "entries": [{"colour": colour, "name": name} for colour, name in entries[:MOST_IN_LEGEND]],
            "num_more": max(0, len(entries) - MOST_IN_LEGEND),
        }
        for kind, entries in kinds
        if entries
    ]


def _mask_colour(label: int) -> str:
    if label in (0, IGNORED):
        return "transparent" if label == 0 else "rgb(128, 128, 128)"
    return _rgb(label - 1)


def _mask_label(label: int) -> str:
    names = {0: "label 0, not coloured", IGNORED: f"{IGNORED}, not annotated or padded"}
    return names.get(label, f"label {label}")
