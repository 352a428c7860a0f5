"""The tensors in a TorchScript archive, such as OpenAI's own files of CLIP; none of its code is ever called."""

from __future__ import annotations

import io
import os
import pickletools
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch.jit import _pickle as lists

# Functions of torch that an archive's pickle calls to make lists; each returns what it is given.
LISTS = [lists.build_intlist, lists.build_tensorlist, lists.build_doublelist, lists.build_boollist]


def is_torchscript(file: str | os.PathLike) -> bool:
    """Whether a file is an archive of TorchScript, as torch tells it from a checkpoint.

    Example:
        >>> torch.save({"weight": torch.ones(2)}, "weights.pt")
        >>> is_torchscript("weights.pt")
        False
    """
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Reads the parameters and buffers of a TorchScript archive by their names in its modules.

    Only the pickle of its attributes is read, by torch's `weights_only` unpickler, to which each of the archive's own
    classes is an empty one. The rest of the archive, its code, is not even copied.

    Raises:
        pickle.UnpicklingError: if the pickle asks for more than that.

    Example:
        >>> torch.jit.script(torch.nn.Linear(2, 1)).save("linear.pt")
        >>> sorted(read_torchscript("linear.pt"))
        ['bias', 'weight']
    """
    plain = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(plain, "w") as tensors:
        for name in archive.namelist():
            record = name.partition("/")[2]
            if record.startswith("data/") or record in ("data.pkl", "version", "byteorder"):
                tensors.writestr(name, archive.read(name))
            if record == "data.pkl":
                classes = _own_classes(archive.read(name))
    plain.seek(0)

    stand_ins = [(type("Module", (), {}), name) for name in classes]
    with torch.serialization.safe_globals([*LISTS, *stand_ins]):
        module = torch.load(plain, map_location="cpu", weights_only=True)
    return dict(_tensors(module, ""))


def _own_classes(pickle: bytes) -> list[str]:
    """The archive's own classes that its pickle names, found without running it."""
    names = {arg.replace(" ", ".") for code, arg, _ in pickletools.genops(pickle) if code.name == "GLOBAL"}
    return sorted(name for name in names if name.startswith("__torch__."))


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif type(value).__name__ == "Module":
            yield from _tensors(value, f"{prefix}{name}.")
