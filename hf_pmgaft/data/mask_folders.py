"""A folder of images beside a folder of masks, with the same names, as a set."""

from __future__ import annotations

from pathlib import Path

import datasets
from PIL import Image

IMAGE_FOLDERS = ("images", "JPEGImages")
MASK_FOLDERS = ("masks", "annotations", "SegmentationClass")
CLASS_FILES = ("classes.txt", "classes.json", "class_names.txt", "id2label.json")
MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp")  # that keep numbers as they were
# Of Pascal VOC, whose folders hold the images of all splits.
SPLIT_LISTS = "ImageSets/Segmentation"


def has_mask_folders(folder: str | Path) -> bool:
    """Whether a folder, or each of its splits, has images/ and masks/ (or annotations/) with masks in it.

    Example:
        >>> for part in ("images", "masks"):
        ...     Path("pets", part).mkdir(parents=True)
        >>> has_mask_folders("pets")
        False
        >>> Image.new("L", (4, 4)).save("pets/masks/1.png")
        >>> has_mask_folders("pets")
        True
    """
    folder = Path(folder)
    if not folder.is_dir():
        return False
    parts = [folder, *(each for each in folder.iterdir() if each.is_dir())]
    return any(_folders(part) is not None for part in parts)


def class_file(folder: str | Path) -> Path | None:
    """Finds the file with the class names of a folder of masks, such as classes.txt; `None` if there is none.

    Example:
        >>> class_file("pets") is None
        True
    """
    files = [Path(folder, name) for name in CLASS_FILES]
    return next((file for file in files if file.is_file()), None)


def load_mask_folder(folder: str | Path, split: str) -> datasets.Dataset:
    """Pairs the images of a split with its masks, in the order of their names.

    Splits are folders in images/ and masks/ (`images/val/1.jpg`, `masks/val/1.png`), or around them
    (`val/images/1.jpg`), or lists of names as Pascal VOC has them. Without any, all is one split of whatever name.

    Args:
        folder (`str` or path): Has images/ and masks/, or annotations/.
        split (`str`): Name of the split; no slice.

    Returns:
        `datasets.Dataset`: Rows with `image` and `mask`.

    Raises:
        ValueError: for a split that is not there, images without a mask, and masks without an image.

    Example:
        >>> for part, name in (("images", "1.jpg"), ("masks", "1.png")):
        ...     Path("streets", part).mkdir(parents=True)
        ...     Image.new("L", (4, 4)).save(Path("streets", part, name))
        >>> load_mask_folder("streets", "test")[0]["mask"].size
        (4, 4)
    """
    folder = Path(folder)
    images, masks = _folders(folder / split) or _folders(folder) or (None, None)
    if images is None:
        around = sorted(each.name for each in folder.iterdir() if each.is_dir() and _folders(each))
        raise ValueError(f"{folder} has no split {split!r}. It has: {', '.join(around)}.")

    names = None
    listed = folder / SPLIT_LISTS / f"{split}.txt"
    if (masks / split).is_dir():
        images, masks = images / split, masks / split
    elif listed.is_file():
        names = listed.read_text(encoding="utf-8").split()
    elif (folder / SPLIT_LISTS).is_dir() or not any(each.is_file() for each in masks.iterdir()):
        splits = sorted(each.stem for each in (*(folder / SPLIT_LISTS).glob("*.txt"), *masks.iterdir()))
        raise ValueError(f"{folder} has no split {split!r}. It has: {', '.join(splits[:8])}.")

    image_files = _by_name(images, tuple(Image.registered_extensions()))
    mask_files = _by_name(masks, MASK_ENDINGS)
    if names is None:
        names = sorted(image_files.keys() | mask_files.keys())
    for kind, files, where in (("image", image_files, images), ("mask", mask_files, masks)):
        missing = [name for name in names if name not in files]
        if missing:
            raise ValueError(
                f"{where} has no {kind} for {len(missing)} of {len(names)} names, such as {missing[0]!r}. Give each "
                "image and its mask one name, and remove what has no other half."
            )

    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    columns = {"image": [image_files[name] for name in names], "mask": [mask_files[name] for name in names]}
    return datasets.Dataset.from_dict(columns, features=features)


def _folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder, if it has both."""
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    masks = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), None)
    if images is None or masks is None:
        return None
    has_masks = any(file.suffix.lower() in MASK_ENDINGS for file in masks.rglob("*"))
    return (images, masks) if has_masks else None


def _by_name(folder: Path, endings: tuple[str, ...]) -> dict[str, str]:
    """The files of these endings, by their path below a folder without its ending."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in endings)
    return {file.relative_to(folder).with_suffix("").as_posix(): str(file) for file in files}
