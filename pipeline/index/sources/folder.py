"""Image folders: class folders, with an optional train/val/test level above or below, and flat folders."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import SourceError
from ..splits import canonical_split, split_names
from .listing import Listing, as_text
from .remarks import Remarks
from .walk import Folder

_IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages", "photos", "pictures"})
_ANNOTATION_FOLDERS = frozenset(
    {
        *("labels", "label", "masks", "mask", "annotations", "annotation", "annots", "segmentation"),
        *("segmentations", "segmentationclass", "segmentationobject", "ground_truth", "groundtruth", "gt"),
        *("imagesets", "metadata", "meta", "docs", "trimaps", "boxes", "bboxes"),
    }
)


@dataclass
class _Samples:
    """Collected samples: path, class or None, split or None."""

    remarks: Remarks
    rows: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


def list_folder(top: Folder) -> Listing:
    """List the files of a folder by its layout: class folders, split folders or flat.

    * ``root/cat/1.jpg``: class folders, with all files below.
    * ``root/train/cat/1.jpg``: the same below split folders (train, val, test and common spellings). A single
      split name among other folders is a class (``train``, ``bus``), unless it has subfolders.
    * ``root/cat/train/1.jpg``: split folders in class folders, if all classes contain nothing else.
    * ``root/1.jpg`` or ``root/train/1.jpg``: no labels.
    * ``root/images/...``, alone or beside ``labels``, ``masks`` or similar: as if ``images`` were the root; also below
      split folders.

    Classes are sorted as text, as in torchvision's ImageFolder. Folders without images are not classes. The listing's
    remarks count what is left out or assumed.

    Raises:
        SourceError: the folder is empty.
    """
    if not top.has_files():
        raise SourceError(
            f"expected a folder with images, got {top.path!r} with no files in it; check the path"
            " (hidden files, tables and annotations do not count)"
        )
    samples = _Samples(top.remarks)
    root = _image_folder(top, top, samples)
    splits = _split_folders(root)
    if splits:
        names = split_names([folder.name for folder in splits], samples.remarks)
        for folder in splits:
            _collect(_image_folder(folder, top, samples), names[folder.name], top, samples)
        _leave_out(root.files, "files beside the split folders", top, samples)
        for folder in root.folders:
            if folder not in splits:
                _leave_out_folder(folder, "files in folders that are no split", top, samples)
    elif splits_by_class := _splits_in_classes(root):
        _collect_splits_in_classes(root, splits_by_class, top, samples)
        splits = [folder for folders in splits_by_class.values() for folder in folders]
    else:
        _collect(root, None, top, samples)
    return _listing(top, samples, has_splits=bool(splits))


def _image_folder(folder: Folder, top: Folder, samples: _Samples) -> Folder:
    """Return the subfolder ``images`` if there are otherwise only annotations, else the folder itself.

    A single subfolder with split folders is entered, too.
    """
    non_empty = [child for child in folder.folders if child.has_files()]
    is_alone = len(non_empty) == 1 and not folder.files and not canonical_split(non_empty[0].name)
    if is_alone and len({canonical_split(one.name) for one in _split_folders(non_empty[0])}) > 1:
        return _image_folder(non_empty[0], top, samples)
    images = [child for child in non_empty if child.name.casefold() in _IMAGE_FOLDERS]
    others = [child for child in non_empty if child not in images]
    if folder.files or len(images) != 1:
        return folder
    if any(child.name.casefold() not in _ANNOTATION_FOLDERS for child in others):
        return folder
    samples.remarks.add("assumed", "folders to hold all images of the folder above", _name(images[0], top))
    for child in others:
        _leave_out_folder(child, "files in folders beside the images (list masks in a table)", top, samples)
    return images[0]


def _split_folders(root: Folder) -> list[Folder]:
    named = [folder for folder in root.folders if canonical_split(folder.name)]
    if len({canonical_split(folder.name) for folder in named if folder.has_files()}) >= 2:
        return named
    others = any(folder.has_files() for folder in root.folders if folder not in named)
    return named if not others or any(folder.folders for folder in named) else []


def _splits_in_classes(root: Folder) -> dict[str, list[Folder]]:
    """Return the split folders of every class folder; empty if a class has other content, or there is only one split."""
    splits_by_class = {
        folder.name: [one for one in folder.folders if one.has_files()] for folder in root.folders
    }
    splits_by_class = {name: folders for name, folders in splits_by_class.items() if folders}
    found = {canonical_split(folder.name) for folders in splits_by_class.values() for folder in folders}
    if None in found or len(found) < 2 or any(folder.files for folder in root.folders):
        return {}
    return splits_by_class


def _collect_splits_in_classes(
    root: Folder, splits_by_class: dict[str, list[Folder]], top: Folder, samples: _Samples
) -> None:
    names = split_names(
        [folder.name for folders in splits_by_class.values() for folder in folders], samples.remarks
    )
    for name, folders in splits_by_class.items():
        for folder in folders:
            samples.remarks.add("assumed", "folders in class folders to be splits", _name(folder, top))
            samples.rows += [(path, as_text(name), names[folder.name]) for path in folder.walk()]
    _leave_out(root.files, "files beside the class folders", top, samples)
    samples.empty += [as_text(folder.name) for folder in root.folders if not folder.has_files()]


def _collect(folder: Folder, split: str | None, top: Folder, samples: _Samples) -> None:
    """Collect the class folders of a folder, or its files if it has none."""
    non_empty = [child for child in folder.folders if child.has_files()]
    if len(non_empty) == 1 and not non_empty[0].files and len(non_empty[0].folders) > 1 and split is None:
        samples.remarks.add(
            "assumed", "folder to be the only class, though it holds folders itself", _name(non_empty[0], top)
        )
    if not non_empty:
        samples.rows += [(path, None, split) for path in folder.files]
    else:
        _leave_out(folder.files, "files beside the class folders", top, samples)
    for child in folder.folders:
        if child.has_files():
            samples.rows += [(path, as_text(child.name), split) for path in child.walk()]
            if any(canonical_split(one.name) and one.has_files() for one in child.folders):
                samples.remarks.add(
                    "assumed", "folders with a split's name to be no splits", f"{_name(child, top)}/"
                )
        else:
            what = (
                "folders with annotations only"
                if child.side_files()
                else "empty folders, which are no classes"
            )
            samples.remarks.add("left_out", what, _name(child, top))
            samples.empty += [] if child.side_files() else [as_text(child.name)]


def _leave_out(paths: list[str], what: str, top: Folder, samples: _Samples) -> None:
    for path in paths:
        samples.remarks.add("left_out", what, as_text(top.below(path)))
    samples.outside += paths


def _leave_out_folder(folder: Folder, what: str, top: Folder, samples: _Samples) -> None:
    paths = list(folder.walk())
    samples.remarks.add("left_out", what, _name(folder, top), count=len(paths))
    samples.outside += paths


def _name(folder: Folder, top: Folder) -> str:
    return as_text(top.below(folder.path))


def _listing(top: Folder, samples: _Samples, *, has_splits: bool) -> Listing:
    if not samples.rows:
        raise SourceError(
            f"expected class folders with images, got {top.path!r} with files only beside them;"
            " move the images into the class folders"
        )
    classes = tuple(sorted({name for _, name, _ in samples.rows if name is not None}))
    numbers = {name: number for number, name in enumerate(classes)}
    unlabelled = sum(name is None for _, name, _ in samples.rows)
    if classes:
        samples.remarks.add("unlabelled", "images in no class folder", count=unlabelled)
    return Listing(
        kind="folder" if classes else "flat",
        root=top.path,
        keys=[top.below(path) for path, _, _ in samples.rows],
        uris=[path for path, _, _ in samples.rows],
        labels=[-1 if name is None else numbers[name] for _, name, _ in samples.rows],
        classes=classes,
        splits=[split for _, _, split in samples.rows] if has_splits else None,
        file_stats=[top.file_stats[path] for path, _, _ in samples.rows] if top.file_stats else None,
        notes={
            "empty_classes": sorted(set(samples.empty) - set(classes)),
            "outside": [as_text(top.below(path)) for path in samples.outside[:5]],
            "num_outside": len(samples.outside),
            "num_side_files": top.side_files(),
        },
        remarks=samples.remarks,
    )
