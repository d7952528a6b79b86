"""File and folder names to ignore: those of operating systems and tools, and file types without images."""

from __future__ import annotations

import os
import re

_JUNK_NAMES = frozenset(
    {
        # macOS, Windows, Linux
        *("__macosx", "icon\r", "network trash folder", "temporary items", "thevolumesettingsfolder"),
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
        # storage devices of Synology and QNAP, photo managers
        *(
            "@eadir",
            "@tmp",
            "@sharesnap",
            "#recycle",
            "#snapshot",
            "@recycle",
            "@recently-snapshot",
            "picasa.ini",
        ),
        # tools
        *("__pycache__", "zbthumbnail.info", "pspbrwse.jbf"),
    }
)
_JUNK_PATTERN = re.compile(
    r"~\$.*|.*~|.*\.(tmp|temp|part|partial|crdownload|download|swp|swo|aria2|filepart)", re.DOTALL
)
_SIDE_SUFFIXES = frozenset(
    {
        # tables, annotations, an index
        *(
            ".csv",
            ".tsv",
            ".parquet",
            ".arrow",
            ".feather",
            ".json",
            ".jsonl",
            ".ndjson",
            ".xml",
            ".yaml",
            ".yml",
        ),
        *(".xls", ".xlsx", ".db", ".sqlite", ".sqlite3", ".sql", ".toml", ".ini", ".cfg", ".xmp", ".aae"),
        # text and documents
        *(
            ".txt",
            ".md",
            ".rst",
            ".log",
            ".html",
            ".htm",
            ".css",
            ".pdf",
            ".doc",
            ".docx",
            ".odt",
            ".rtf",
            ".ppt",
        ),
        *(
            ".pptx",
            ".url",
            ".lnk",
            ".webloc",
            ".md5",
            ".sha1",
            ".sha256",
            ".torrent",
            ".lst",
            ".names",
            ".data",
        ),
        # code
        *(
            ".py",
            ".pyc",
            ".ipynb",
            ".sh",
            ".bat",
            ".m",
            ".r",
            ".js",
            ".c",
            ".cpp",
            ".h",
            ".java",
            ".exe",
            ".dll",
        ),
        # archives
        *(".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
        # sound and video
        *(
            ".mp4",
            ".m4v",
            ".avi",
            ".mov",
            ".mkv",
            ".webm",
            ".mpg",
            ".mpeg",
            ".wmv",
            ".mp3",
            ".wav",
            ".flac",
            ".ogg",
        ),
        # arrays and models
        *(
            ".npy",
            ".npz",
            ".mat",
            ".h5",
            ".hdf5",
            ".pkl",
            ".pickle",
            ".pt",
            ".pth",
            ".ckpt",
            ".onnx",
            ".safetensors",
        ),
        *(".pb", ".tfrecord", ".tfrecords", ".lmdb", ".mdb"),
    }
)

HIDDEN = "hidden files and folders"
JUNK = "files and folders of operating systems and tools"


def junk_kind(name: str) -> str | None:
    """Return the reason to ignore a file or folder that contains no user data; None for any other."""
    if name.casefold() in _JUNK_NAMES:
        return JUNK
    return HIDDEN if name.startswith(".") else None


def side_kind(name: str) -> str | None:
    """Return the kind of a file that is no image by its name; None for a possible image."""
    if _JUNK_PATTERN.fullmatch(name.casefold()):
        return JUNK
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return f"files that are no images by their suffix {suffix}" if suffix in _SIDE_SUFFIXES else None


def is_junk_path(path: str) -> bool:
    """Return whether any part of a posix path is junk or hidden."""
    return any(junk_kind(part) for part in path.split("/"))
