"""Manifest of an output folder: ``.lightwell.json`` lists the files that runs have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..atomic_io import write_json
from ..errors import RequestError

MANIFEST_NAME = ".lightwell.json"
LOCK_NAME = ".lightwell.lock"
VERSION = 1
MAX_BYTES = 1 << 28
"""Largest manifest that is read."""


def _checked_name(name: str) -> str:
    path = PurePosixPath(name)
    inside = name and not path.is_absolute() and ".." not in path.parts and str(path) == name
    if not inside or "\0" in name or path.parts[0] in (MANIFEST_NAME, LOCK_NAME, "."):
        raise ValueError(f"expected the name of a file below the folder, got {name!r}")
    return name


StageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
StageKey = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}-[0-9a-f]{16}$")]
FileName = Annotated[str, AfterValidator(_checked_name)]
"""Relative path in the folder, with ``/`` as separator."""


class Manifest(BaseModel):
    """Kind of job that an output folder belongs to, and its files."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    format: Literal["lightwell output"] = "lightwell output"
    version: int = VERSION
    kind: str = Field(max_length=200)
    """Job or command, such as ``Materialize``."""
    fingerprint: str | None = None
    """Fingerprint of the last run, if any."""
    stages: Mapping[StageName, StageKey] = {}
    """Keys of the stages of the last run's batch job, ``NAME-FINGERPRINT`` by name."""
    files: Mapping[FileName, int | None] = {}
    """Sizes in bytes by name; None while a run may write the file."""

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read the manifest of a folder; None if there is none.

        Raises:
            RequestError: the manifest is damaged, or of a newer version.
        """
        path = folder / MANIFEST_NAME
        if path.is_symlink() or not path.is_file():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"{path.stat().st_size:,} bytes")
            content = json.loads(path.read_bytes())
            found = cls.model_validate(content)
        except (OSError, ValueError, RecursionError, ValidationError) as error:
            reason = (
                error.errors()[0]["msg"]
                if isinstance(error, ValidationError)
                else " ".join(str(error).split())
            )
            raise RequestError(
                f"--out: expected the manifest of an earlier run, got {str(path)!r}, which is damaged ({reason[:200]}); "
                "choose a new folder"
            ) from error
        if found.version > VERSION:
            raise RequestError(
                f"--out: expected a folder of this version of Lightwell, got {str(folder)!r} of a newer one; update "
                "Lightwell, or choose a new folder"
            )
        return found

    def save(self, folder: Path) -> None:
        """Write the manifest into a folder.

        Raises:
            OutputError: the file cannot be written.
        """
        write_json(folder / MANIFEST_NAME, self.model_dump(mode="json"), indent=None)


def check_name(name: str) -> str:
    """Check that a name is a valid file name in an output folder; return it.

    Raises:
        ValueError: absolute, outside of the folder, or reserved.
    """
    return _checked_name(name)
