"""Stand-ins of public sets for the Hub on loopback: the sixteen of `paper16`, and a set of captions.

Schemas, columns, names of classes and their order, configurations, splits and formats are those of the sets; images
are small, of one colour per label. Row counts are the sets' own, or at most so many as a test asks for:

    put_sets(hub, ["tiny_imagenet", "dtd"], most=40)
    suite = small_suite(tmp_path, ["dtd"], most=40)  # paper16 with the counts of such sets
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from PIL import Image

from hf_pmgaft.suites import FOLDER, read_suite
from support.hub_server import HubServer, Repo

SUITE = read_suite("paper16")
EDGES = {"cifar10": 32, "cifar100": 32, "stl10": 96}
EDGE = 20
MOST_UNUSED = 1000  # rows of a split that no evaluation reads, unless a set says otherwise
BACKGROUND, EVERY = 4, 20  # label of Caltech101's background, and which rows have it: 443 of 8,838


@dataclass(frozen=True)
class HubSet:
    """What a set is on the Hub.

    Attributes:
        splits (`dict[str, int]`): Rows of each split.
        folder (`str`): Where its parquet files are.
        config (`str`): Its configuration.
        columns (`dict`): Features beside image and label.
        shards (`dict[str, int]`): Files of a split, 1 if not named.
        gated (`str`, *optional*): Whether terms must be accepted.
        most_unused (`int`): Rows at most of a split that no evaluation reads.
    """

    splits: dict[str, int]
    folder: str = "data"
    config: str = "default"
    columns: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    gated: str | None = None
    most_unused: int = MOST_UNUSED


TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")
COARSE = datasets.ClassLabel(names=["aquatic_mammals", "fish"])
FAMILY = datasets.ClassLabel(names=["A300", "A310", "Boeing 707"])
MAKER = datasets.ClassLabel(names=["ATR", "Airbus", "Boeing"])
SETS = {
    "tiny_imagenet": HubSet({"train": 100_000, "valid": 10_000}),
    "cifar10": HubSet({"train": 50_000, "test": 10_000}, "plain_text", "plain_text"),
    "cifar100": HubSet({"train": 50_000, "test": 10_000}, "cifar100", "cifar100", {"coarse_label": COARSE}),
    "stl10": HubSet({"train": 5_000, "test": 8_000}),
    "sun397": HubSet({"train": 108_754}, shards={"train": 4}),
    "food101": HubSet({"train": 75_750, "validation": 25_250}, shards={"train": 8, "validation": 3}),
    "oxford_pets": HubSet({"train": 3_680, "test": 3_669}, columns={"image_id": TEXT, "label_cat_dog": NUMBER}),
    "flowers102": HubSet({"train": 1_020, "test": 6_149, "validation": 1_020}, columns={"file_name": TEXT}),
    "dtd": HubSet({"train": 3_760, "test": 1_880}),
    "eurosat": HubSet({"train": 16_200, "test": 5_400, "validation": 5_400}, columns={"filename": TEXT}),
    "fgvc_aircraft": HubSet(
        {"train": 3_334, "validation": 3_333, "test": 3_333}, columns={"family": FAMILY, "manufacturer": MAKER}
    ),
    "imagenet": HubSet(
        {"train": 1_281_167, "validation": 50_000, "test": 100_000},
        shards={"train": 8, "validation": 2, "test": 2},
        gated="auto",
        most_unused=16_000,  # so that few-shot recipes find 16 of each class
    ),
    "caltech101": HubSet({"train": 2_754, "test": 6_084}),
    "caltech256": HubSet({"train": 21_424, "validation": 3_061, "test": 6_122}, columns={"text": TEXT}),
    "stanford_cars": HubSet({"train": 8_144, "test": 8_041}),
    "pcam": HubSet({"train": 262_144, "valid": 32_768, "test": 32_768}),
}
CAPTIONS = "jxie/flickr8k"  # five columns of captions
CAPTION_COLUMNS = [f"caption_{i}" for i in range(5)]


def put_sets(hub: HubServer, names: Sequence[str] = tuple(SETS), most: int | None = None) -> dict[str, Repo]:
    """Puts stand-ins on a Hub under the ids that the suite states, and gives their repositories by name.

    Args:
        hub (`HubServer`): Where.
        names (`list[str]`): Names of `paper16`.
        most (`int`, *optional*): Rows per split at most. Without it splits that are evaluated have the set's own
            number of rows.
    """
    return {name: _put_set(hub, name, most) for name in names}


def put_captions(hub: HubServer, rows: int = 12) -> Repo:
    """Puts a stand-in of Flickr8k on a Hub, as `CAPTIONS`: an image, and five columns of captions."""
    features = datasets.Features({"image": datasets.Image(), **dict.fromkeys(CAPTION_COLUMNS, TEXT)})
    pictures = [_picture(label, EDGE) for label in range(rows)]
    columns = {"image": [{"bytes": picture, "path": f"{i}.png"} for i, picture in enumerate(pictures)]}
    for number, column in enumerate(CAPTION_COLUMNS):
        columns[column] = [f"a photo of thing {row} , the {number}th way to say it ." for row in range(rows)]
    table = pa.Table.from_pydict(columns, schema=features.arrow_schema)

    tables = {split: table for split in ("train", "validation", "test")}
    return hub.put(f"datasets/{CAPTIONS}", _parquet_files(tables, HubSet(dict.fromkeys(tables, rows)), features))


def small_suite(folder: Path, names: Sequence[str] = tuple(SETS), most: int = 40) -> Path:
    """Writes `paper16` with the counts of sets of `most` rows per split, and without its stored rows."""
    entries = yaml.safe_load((FOLDER / "paper16.yaml").read_text(encoding="utf-8"))
    entries = {name: entries[name] for name in names}
    for name, entry in entries.items():
        entry["num_images"] = num_images(name, most)
        for key in ("class_names", "labels"):
            if isinstance(entry.get(key), str):
                entry[key] = str(FOLDER / entry[key])
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")
    return file


def num_images(name: str, most: int | None = None) -> int:
    """The images of a stand-in that are evaluated."""
    rows = [_rows(name, split, most) for split in evaluated_splits(name)]
    background = [-(-count // EVERY) for count in rows] if name == "caltech101" else [0]
    return sum(rows) - sum(background)


def evaluated_splits(name: str) -> list[str]:
    """The splits that the suite evaluates."""
    return SUITE[name]["split"].split("+")


def _rows(name: str, split: str, most: int | None) -> int:
    rows = SETS[name].splits[split]
    if most is None and split not in evaluated_splits(name):
        most = SETS[name].most_unused
    return rows if most is None else min(rows, most)


def _put_set(hub: HubServer, name: str, most: int | None) -> Repo:
    place, stated = SUITE[name]["path"], SETS[name]
    rows = {split: _rows(name, split, most) for split in stated.splits}
    if name == "caltech101":
        return hub.put(f"datasets/{place}", _shards(rows))

    features = _features(name)
    tables = {split: _table(name, split, count, features) for split, count in rows.items()}
    if name == "fgvc_aircraft":  # a loading script, with its parquet files on a branch of their own
        script = {"README.md": b"---\nlicense: unknown\n---\n", "FGVC-Aircraft.py": b"raise RuntimeError\n"}
        converted = {f"default/{split}/0000.parquet": _parquet(table) for split, table in tables.items()}
        return hub.put(f"datasets/{place}", script, refs={"refs/convert/parquet": converted})
    return hub.put(f"datasets/{place}", _parquet_files(tables, stated, features), gated=stated.gated)


def _features(name: str) -> datasets.Features:
    """Columns in the order of the set, with its names of labels."""
    entry = SUITE[name]
    label = datasets.ClassLabel(names=entry.get("labels", entry["class_names"]))
    label = {"caltech256": NUMBER, "pcam": datasets.Value("bool")}.get(name, label)
    columns = {entry["image_column"]: datasets.Image(), entry["label_column"]: label}
    return datasets.Features({**columns, **SETS[name].columns})


def _labels(name: str, count: int) -> np.ndarray:
    """Labels in turn; of Caltech101, as many of the background as make its counts."""
    rows = np.arange(count)
    if name == "caltech101":
        others = np.delete(np.arange(102), BACKGROUND)
        return np.where(rows % EVERY == 0, BACKGROUND, others[rows % 101])
    return SUITE[name].get("first_label", 0) + rows % len(SUITE[name]["class_names"])


def _table(name: str, split: str, count: int, features: datasets.Features) -> pa.Table:
    labels = _labels(name, count)
    edge = EDGES.get(name, EDGE)
    pictures = pa.array([_picture(label, edge) for label in range(labels.max() + 1)], pa.binary())
    paths = pa.array([f"{split}_{row}.png" for row in range(count)])
    images = pa.StructArray.from_arrays([pictures.take(pa.array(labels)), paths], ["bytes", "path"])

    arrays = []
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            arrays.append(images)
        elif column == SUITE[name]["label_column"]:
            arrays.append(pa.array(labels).cast(features.arrow_schema.field(column).type))
        elif feature == TEXT:
            arrays.append(paths)
        else:
            arrays.append(pa.array(np.zeros(count, dtype=np.int64)))
    return pa.Table.from_arrays(arrays, schema=features.arrow_schema)


@cache
def _picture(label: int, edge: int) -> bytes:
    """A PNG of a colour that no other label has."""
    colour = (label * 67 % 256, label * 131 % 256, label // 4 % 256)
    buffer = io.BytesIO()
    Image.new("RGB", (edge, edge), colour).save(buffer, "PNG")
    return buffer.getvalue()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=max(100, len(table) // 50))
    return buffer.getvalue()


def _parquet_files(tables: dict[str, pa.Table], stated: HubSet, features: datasets.Features) -> dict[str, bytes]:
    """Parquet files as `push_to_hub` names them, and a card that states configuration, features and splits."""
    files = {}
    for split, table in tables.items():
        count = min(stated.shards.get(split, 1), len(table))
        bounds = [len(table) * i // count for i in range(count + 1)]
        for number in range(count):
            part = table.slice(bounds[number], bounds[number + 1] - bounds[number])
            files[f"{stated.folder}/{split}-{number:05}-of-{count:05}.parquet"] = _parquet(part)

    splits = SplitDict({split: SplitInfo(split, table.nbytes, len(table)) for split, table in tables.items()})
    info = datasets.DatasetInfo(
        features=features,
        splits=splits,
        download_size=sum(map(len, files.values())),
        dataset_size=sum(table.nbytes for table in tables.values()),
        config_name=stated.config,
    )
    card = DatasetCardData()
    DatasetInfosDict({stated.config: info}).to_dataset_card_data(card)
    patterns = [{"split": split, "path": f"{stated.folder}/{split}-*"} for split in tables]
    MetadataConfigs({stated.config: {"data_files": patterns}}).to_dataset_card_data(card)
    return {"README.md": f"---\n{card.to_yaml()}\n---\n".encode(), **files}


def _shards(rows: dict[str, int], per_split: int = 2) -> dict[str, bytes]:
    """Webdataset shards as clip-benchmark writes them: `s0000000.webp` and `s0000000.cls`, a folder for each split."""
    files = {"classnames.txt": "\n".join(SUITE["caltech101"]["class_names"]).encode()}
    for split, count in rows.items():
        labels = _labels("caltech101", count)
        for number, part in enumerate(np.array_split(np.arange(count), per_split)):
            files[f"{split}/{number}.tar"] = _shard(part, labels[part])
        files[f"{split}/nshards.txt"] = str(per_split).encode()
    return files


def _shard(rows: np.ndarray, labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            for ending, content in (("cls", str(label).encode()), ("webp", _picture(label, EDGE))):
                member = tarfile.TarInfo(f"s{row:07}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
