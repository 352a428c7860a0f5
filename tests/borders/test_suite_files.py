"""Suites of one's own as files: what can be meant, and what is refused by its place."""

import json

from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images

from hf_pmgaft.suites import draw_sample_ids, load_suite, read_suite

GOOD = "path: shapes, class_names: [red disc, green disc, blue square, yellow square]"
FILES = {
    "the least of it": (f"shapes: {{{GOOD}}}", ["shapes"]),
    "a number as a name": (f"101: {{{GOOD}}}", ["101"]),
    "an unknown field": (f"shapes: {{{GOOD}, classes: 4}}", Refused("unknown fields ['classes']. Known are: path")),
    "a field in upper case": (f"shapes: {{{GOOD}, Split: test}}", Refused("unknown fields ['Split']")),
    "a number as a field": (f"shapes: {{{GOOD}, 1: test}}", Refused("unknown fields ['1']")),
    "no list of classes": ("shapes: {path: shapes}", Refused("has no class_names. State them")),
    "an empty list": ("shapes: {path: shapes, class_names: []}", Refused("has no class_names")),
    "a file that is not there": ("shapes: {path: shapes, class_names: x.txt}", Refused("x.txt, which is not there")),
    "names that YAML reads otherwise": (
        "shapes: {path: shapes, class_names: [no, 747]}",
        Refused("in quotes"),
    ),
    "a mapping of names": ("shapes: {path: shapes, class_names: {0: a}}", Refused("not a file's name or a list of")),
    "a count": (f"shapes: {{{GOOD}, num_images: 8}}", ["shapes"]),
    "a range": (f"shapes: {{{GOOD}, num_images: [7, 9]}}", ["shapes"]),
    "a range of one": (f"shapes: {{{GOOD}, num_images: [8, 8]}}", ["shapes"]),
    "a count as text": (
        f"shapes: {{{GOOD}, num_images: '8'}}",
        Refused("num_images: '8', which is not a number"),
    ),
    "a count with a comma": (f'shapes: {{{GOOD}, num_images: "8,371"}}', Refused("num_images: '8,371'")),
    "a negative count": (f"shapes: {{{GOOD}, num_images: -8}}", Refused("num_images: -8, which is not")),
    "no image": (f"shapes: {{{GOOD}, num_images: 0}}", Refused("num_images: 0, which is not")),
    "a truth as a count": (f"shapes: {{{GOOD}, num_images: yes}}", Refused("num_images: True, which is not")),
    "a reversed range": (
        f"shapes: {{{GOOD}, num_images: [9, 7]}}",
        Refused("num_images: [9, 7], which is not"),
    ),
    "a range of three": (f"shapes: {{{GOOD}, num_images: [7, 8, 9]}}", Refused("num_images: [7, 8, 9]")),
    "half a range": (f"shapes: {{{GOOD}, num_images: [7]}}", Refused("num_images: [7]")),
    "a text as a size": (
        f"shapes: {{{GOOD}, resize: big}}",
        Refused("resize: 'big', which is not a number of"),
    ),
    "a size as text": (f'shapes: {{{GOOD}, resize: "256"}}', Refused("resize: '256'")),
    "a flag as text": (f'shapes: {{{GOOD}, native_size: "yes"}}', Refused("native_size: 'yes', which is not true or")),
    "a number as a split": (f"shapes: {{{GOOD}, split: 1}}", Refused("split: 1, which is not a text")),
    "a number as a revision": (f"shapes: {{{GOOD}, revision: 1234}}", Refused("revision: 1234, which is not a text")),
    "nothing as a split": (f"shapes: {{{GOOD}, split: }}", Refused("split: None, which is not a text")),
    "a template without a place": (f"shapes: {{{GOOD}, prompt_template: a photo}}", Refused("a photo")),
    "a negative border": (f"shapes: {{{GOOD}, border: -1}}", Refused("border: -1, which is not a number from 0")),
    "two sets of one name": (f"shapes: {{{GOOD}}}\nshapes: {{{GOOD}}}", Refused("shapes stands there twice")),
    "a field that stands twice": (f"shapes: {{{GOOD}, split: a, split: b}}", Refused("split stands there twice")),
    "a list": ("- shapes", Refused("is no mapping of sets to their fields")),
    "a path alone": ("shapes: shapes", Refused("is no mapping of sets to their fields")),
    "nothing": ("", Refused("is no mapping of sets to their fields")),
    "no YAML": ("shapes: {path: [", Refused("is no YAML file")),
    "a tab": ("shapes:\n\tpath: shapes", Refused("is no YAML file")),
    "an object of Python": ("shapes: !!python/object:os.system {}", Refused("is no YAML file")),
}


@outcomes(FILES)
def test_files_of_suites(given, outcome, tmp_path):
    (tmp_path / "own.yaml").write_text(given, encoding="utf-8")
    check(lambda: list(read_suite(tmp_path / "own.yaml")), outcome)


SIZES = {
    "the stated one": ((8, {}), 8),
    "in the range": (([8, 12], {}), 8),
    "the range's end": (([5, 8], {}), 8),
    "below it": (([9, 12], {}), Refused("'shapes' has 8 images, but 9 to 12 are stated")),
    "beyond it": (([5, 7], {}), Refused("'shapes' has 8 images, but 5 to 7 are stated")),
    "another one": ((9, {}), Refused("'shapes' has 8 images, but 9 are stated")),
    "another one of a local copy": ((9, {"data_root": "."}), 8),
    "another one of a local copy with a limit": ((9, {"data_root": ".", "limit": 2}), Refused("but 9 are stated")),
    "another range of a local copy": (([9, 12], {"data_root": "."}), 8),
    "a limit in the range": (([7, 8], {"limit": 2}), 8),
    "a limit of none": ((8, {"limit": 0}), Refused("limit=0")),
    "a limit beyond what is stored": ((8, {"limit": 1001}), Refused("limit=1001")),
    "no folder of that name": ((8, {"data_root": "elsewhere"}), Refused("has no folder 'shapes'")),
}


@outcomes(SIZES)
def test_counts(given, outcome, tmp_path, monkeypatch, processor):
    monkeypatch.chdir(tmp_path)
    make_images(8).save_to_disk("shapes")
    stated, options = given
    entry = {"path": "shapes", "class_names": CLASS_NAMES, "num_images": stated}
    (tmp_path / "own.yaml").write_text(json.dumps({"shapes": entry}))
    check(lambda: len(load_suite("own.yaml", processor, **options)[0]), outcome)


DRAWN = sorted(draw_sample_ids("shapes", 8)[:2])
ROWS = {
    "a list": ('{"shapes": [3, 1]}', [1, 3]),
    "of another set alone": ('{"cars": [3, 1]}', DRAWN),
    "none": ("{}", DRAWN),
    "twice the same": ('{"shapes": [3, 3]}', Refused("has for 'shapes' no list of distinct row numbers")),
    "a negative one": ('{"shapes": [-1, 3]}', Refused("no list of distinct row numbers from 0")),
    "a text": ('{"shapes": ["1", 3]}', Refused("no list of distinct row numbers")),
    "a number": ('{"shapes": 3}', Refused("no list of distinct row numbers")),
    "beyond the set": ('{"shapes": [8, 3]}', Refused("8")),
    "fewer than the limit": ('{"shapes": [3]}', Refused("but 1 sample ids of 'shapes' are stored")),
    "a list of lists": ("[[1, 2]]", Refused("holds a list. Write {set:")),
    "no JSON": ("{shapes: [1]}", Refused("is no JSON file")),
    "nothing": ("", Refused("is no JSON file")),
}


@outcomes(ROWS)
def test_stored_rows(given, outcome, tmp_path, monkeypatch, processor):
    monkeypatch.chdir(tmp_path)
    make_images(8).save_to_disk("shapes")
    (tmp_path / "own.yaml").write_text(json.dumps({"shapes": {"path": "shapes", "class_names": CLASS_NAMES}}))
    (tmp_path / "sample_ids.json").write_text(given)
    check(lambda: load_suite("own.yaml", processor, limit=2)[0].sample_ids, outcome)
