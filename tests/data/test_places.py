"""What the Hub says of sets before anything of them is downloaded."""

import pytest
from support.hub_server import READER
from support.hub_sets import put_sets

from hf_pmgaft.data.places import Place, SplitOnHub, look_up


def test_commits_rows_and_bytes_of_splits_are_known_before_any_file_is_read(hub):
    repos = put_sets(hub, ["food101", "cifar10"], most=12)
    place = look_up("ethz/food101")
    files = [size for name, size in ((n, len(c)) for n, c in repos["food101"].files.items()) if "validation" in name]
    assert place.commit == place.pinned == repos["food101"].sha() and place.problem is None
    assert place.of_split(None, "validation") == SplitOnHub(12, sum(files))
    assert place.of_split(None, "train+validation").num_rows == 24
    assert place.of_split(None, "test") is None and place.of_split("other", "train") is None
    assert look_up("uoft-cs/cifar10").of_split(None, "test").num_rows == 12
    assert not hub.fetched("datasets/ethz/food101")


def test_branches_and_tags_are_resolved_and_recorded(hub):
    repo = put_sets(hub, ["fgvc_aircraft"], most=2)["fgvc_aircraft"]
    place = look_up("HuggingFaceM4/FGVC-Aircraft", "refs/convert/parquet")
    assert place.pinned == repo.sha("refs/convert/parquet") and place.of_split(None, "test") is None
    assert place.describe(split="test") == {
        "path": "HuggingFaceM4/FGVC-Aircraft",
        "split": "test",
        "revision": "refs/convert/parquet",
        "commit": repo.sha("refs/convert/parquet"),
    }


def test_files_of_a_split_are_known_by_pattern_by_the_card_or_by_their_names(hub):
    repos = put_sets(hub, ["food101", "cifar100", "caltech101", "fgvc_aircraft"], most=12)

    def size(name: str, *words: str) -> int:
        return sum(len(content) for path, content in repos[name].files.items() if any(word in path for word in words))

    food = look_up("ethz/food101")
    assert food.num_bytes(None, "validation[:10%]") == size("food101", "validation-")
    assert food.num_bytes(None, "train+validation") == size("food101", "train-", "validation-")
    assert food.num_bytes(None, "train", "data/validation-00001*") == size("food101", "validation-00001")
    assert food.num_bytes(None, "test") is None and food.num_bytes(None, "train", "*.zip") is None
    assert look_up("uoft-cs/cifar100").num_bytes(None, "test") == size("cifar100", "test-")
    assert look_up("clip-benchmark/wds_vtab-caltech101").num_bytes(None, "test") == size("caltech101", "test/")
    converted = look_up("HuggingFaceM4/FGVC-Aircraft", "refs/convert/parquet")
    files = repos["fgvc_aircraft"].refs["refs/convert/parquet"]
    assert converted.num_bytes(None, "test") == len(files["default/test/0000.parquet"])


def test_what_is_here_is_not_downloaded(tmp_path):
    assert look_up(str(tmp_path)).num_bytes(None, "test") == 0


def test_what_cannot_be_read_is_said_with_what_to_do(hub, monkeypatch):
    repo = put_sets(hub, ["imagenet"], most=2)["imagenet"]
    assert f"accept its terms at {hub.url}/datasets/ILSVRC/imagenet-1k" in look_up("ILSVRC/imagenet-1k").problem
    assert "user/nothing is not on the Hub, or is private" in look_up("user/nothing").problem
    repo.granted.add("reader")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert look_up("ILSVRC/imagenet-1k").problem is None
    assert "has no revision 'v2'" in look_up("ILSVRC/imagenet-1k", "v2").problem


def test_folders_and_a_hub_out_of_reach_are_left_to_those_who_load(hub, tmp_path):
    assert look_up(str(tmp_path)) == Place(str(tmp_path))
    assert look_up(str(tmp_path)).describe(split="test") == {"path": tmp_path.name, "split": "test"}
    hub.fail("GET", "/api/datasets/user/set", 500, times=9)
    assert look_up("user/set", "v1") == Place("user/set", "v1")
    assert look_up("no id at all") == Place("no id at all")


@pytest.mark.parametrize("revision", [None, "main"])
def test_offline_nothing_is_asked(revision):
    assert look_up("user/set", revision) == Place("user/set", revision)
