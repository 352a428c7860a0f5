"""Shards of webdataset: tar files made of names and contents."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

from PIL import Image

from support.tiny import encoded


def picture(colour: str = "red", kind: str = "PNG") -> bytes:
    """A small image as a file."""
    return encoded(Image.new("RGB", (20, 20), colour), format=kind)


def shard(*files: tuple[str, Any]) -> bytes:
    """A tar of files in their order: bytes, texts, or dicts as JSON."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            if isinstance(content, dict):
                content = json.dumps(content)
            content = content if isinstance(content, bytes) else content.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write_files(folder: Any, files: dict[str, bytes]) -> None:
    """Writes files by their paths in a folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
