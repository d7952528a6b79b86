"""The folder of a first run: what ``lightwell init`` may write there, and what it leaves alone.

Its manifest keeps the source and a digest of each file as it was written, so that files which somebody has changed since,
or has put there, are told from those that may be written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from ...pipeline.atomic_io import write_text
from ...pipeline.errors import OutputError, RequestError
from ...pipeline.outputs.folder import OutputFolder
from ...pipeline.outputs.manifest import Manifest
from ...pipeline.storage.store import is_remote, without_file_scheme
from .files import INDEX, NAMES

KIND = "init"
RUNS = "runs"
UNCHANGED, WRITTEN, REPLACED, REMOVED = "unchanged", "written", "replaced", "removed"


def default_folder(source: str) -> Path:
    """Choose the folder for the files of a source: ``runs/NAME``, where results of runs usually lie.

    A folder named ``lightwell`` would hide the package from a Python that is started beside it.
    """
    text = without_file_scheme(source).rstrip("/")
    last = text.rsplit("/", 1)[-1] if is_remote(text) else Path(text).expanduser().resolve().name
    name = re.split(r"[*?\[{]", last, maxsplit=1)[0]
    if name == last and not (not is_remote(text) and Path(text).is_dir()):
        name = name.partition("?")[0].partition(".")[0]
    return Path(RUNS, name.strip(" -_.") or "dataset")


def check_place(out: Path, source: str) -> None:
    """Check that the files do not come to lie among the images, where the next look at the folder would meet them.

    Raises:
        RequestError: they would.
    """
    text = without_file_scheme(source)
    if is_remote(text) or not (folder := Path(text).expanduser()).is_dir():
        return
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(folder)):
        beside = Path(os.path.realpath(folder)).parent / RUNS / Path(os.path.realpath(folder)).name
        raise RequestError(
            f"--out: expected a folder outside the images, got {str(out)!r} in {source!r}; write --out {str(beside)!r}, or "
            "start from another folder"
        )


@contextmanager
def open_init_folder(out: Path, source: str, *, force: bool) -> Iterator[OutputFolder]:
    """Open the folder for the files of a source; what is there and not ours is refused before anything is read.

    Args:
        out: the folder; made where it is missing, and taken away again where nothing came of it.
        source: as it is asked for.
        force: replace what is there; files that were changed or are not ours are renamed.

    Raises:
        RequestError: a file is there that somebody else wrote or has changed, or the index of another source.
        OutputError: the folder cannot be written.
    """
    fresh = not out.exists()

    def check(folder: OutputFolder) -> None:
        if force:
            _set_aside(folder.path)
        else:
            _check_unchanged(folder.path, source)

    try:
        with OutputFolder.open(out, kind=KIND, outputs=NAMES, check=check) as folder:
            folder.describe(json.dumps({**_told(out), "source": _absolute(source)}))
            folder.claim(*NAMES)
            yield folder
            folder.complete()
    except BaseException:
        if fresh and not (out / INDEX).exists():
            _take_away(out)
        raise


def write_files(folder: OutputFolder, texts: Mapping[str, str], source: str) -> dict[str, str]:
    """Write the files that are not there already as they should be, and delete those that are no longer wanted.

    Returns:
        ``unchanged``, ``written``, ``replaced`` or ``removed`` by name.

    Raises:
        OutputError: a file cannot be written.
    """
    done = {}
    for name, text in texts.items():
        path = folder.path / name
        had = path.is_file()
        if had and path.read_bytes() == text.encode():
            done[name] = UNCHANGED
            continue
        write_text(path, text)
        done[name] = REPLACED if had else WRITTEN
    for name in NAMES:
        if name not in texts and folder.remove(name):
            done[name] = REMOVED
    folder.describe(
        json.dumps(
            {"source": _absolute(source)} | {name: _digest(text.encode()) for name, text in texts.items()}
        )
    )
    return done


def _check_unchanged(out: Path, source: str) -> None:
    """Check that files to be overwritten are as they were written here, and that the index is of the same source."""
    told = _told(out)
    for name in _others(out):
        what = (
            "that was changed since it was written" if name in told else "that `lightwell init` did not write"
        )
        raise RequestError(
            f"--out: expected to write {name!r}, got one in {str(out)!r} {what}; choose another --out, or replace it with "
            "--force, which keeps the old one"
        )
    if (out / INDEX).exists() and told.get("source") != _absolute(source):
        of = repr(told["source"]) if "source" in told else "another source"
        raise RequestError(
            f"--out: expected a folder without an index, or with one of {source!r}, got {str(out)!r} with one of {of}; choose "
            "another --out, or replace it with --force"
        )


def _others(out: Path) -> list[str]:
    """List files that were not written here, or were changed since."""
    told = _told(out)
    files = {name: out / name for name in NAMES}
    return [
        name
        for name, path in files.items()
        if path.is_file() and told.get(name) != _digest(path.read_bytes())
    ]


def _set_aside(out: Path) -> None:
    """Rename files of others to ``NAME.old``, or ``NAME.old2`` and so on where that is taken.

    Raises:
        OutputError: the folder cannot be written.
    """
    for name in _others(out):
        ends = (".old" if number == 1 else f".old{number}" for number in count(1))
        target = next(path for end in ends if not os.path.lexists(path := out / f"{name}{end}"))
        try:
            (out / name).rename(target)
        except OSError as error:
            raise OutputError(
                f"--out: expected to rename {str(out / name)!r}, got {error.strerror or error}; choose another --out"
            ) from error


def _told(out: Path) -> dict[str, str]:
    """Read from the manifest what the last run wrote."""
    manifest = Manifest.load(out)
    with suppress(ValueError, RecursionError):
        told = json.loads((manifest and manifest.fingerprint) or "{}")
        if isinstance(told, dict):
            return {str(name): str(value) for name, value in told.items()}
    return {}


def _absolute(source: str) -> str:
    text = without_file_scheme(source)
    return text if is_remote(text) else str(Path(text).expanduser().absolute())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _take_away(out: Path) -> None:
    """Delete a folder that was made for files which were not written."""
    with suppress(OSError):
        for name in (".lightwell.json", *NAMES):
            (out / name).unlink(missing_ok=True)
        out.rmdir()
