"""The Hub of the tests serves data sets to the real clients: by files, branches, ranges and rights."""

import datasets
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from support.hub_server import READER
from support.hub_sets import CAPTION_COLUMNS, CAPTIONS, SETS, SUITE, num_images, put_captions, put_sets, small_suite

from hf_pmgaft.suites import load_suite

FEW = ["tiny_imagenet", "cifar100", "fgvc_aircraft", "caltech101", "pcam"]  # of unlike layouts


@pytest.mark.parametrize("names", [FEW, pytest.param(list(SETS), marks=pytest.mark.slow)], ids=["few", "all"])
def test_sets_of_the_papers_load_by_their_hub_ids_with_their_own_schemas(hub, tmp_path, processor, names):
    for repo in put_sets(hub, names, most=6).values():
        repo.granted.add("user")
    sets = load_suite(small_suite(tmp_path, names, most=6), processor)
    assert {data.name: len(data) for data in sets} == {name: num_images(name, most=6) for name in names}
    assert "data/test-00000-of-00001.parquet" in hub.fetched("datasets/1aurent/PatchCamelyon")


def test_rows_are_those_of_the_set_unless_fewer_are_asked_for(hub):
    put_sets(hub, ["dtd", "fgvc_aircraft"])
    assert len(datasets.load_dataset(SUITE["dtd"]["path"], split="test")) == 1880
    converted = datasets.load_dataset(
        SUITE["fgvc_aircraft"]["path"], split="test", revision="refs/convert/parquet", streaming=True
    )
    assert sum(1 for _ in converted) == 3333
    with pytest.raises(RuntimeError, match="scripts are no longer supported"):
        datasets.load_dataset(SUITE["fgvc_aircraft"]["path"], split="test")


def test_captions_have_five_columns(hub):
    put_captions(hub, rows=3)
    loaded = datasets.load_dataset(CAPTIONS, split="test")
    assert loaded.column_names == ["image", *CAPTION_COLUMNS] and len(set(loaded["caption_4"])) == 3


def test_gated_sets_are_listed_to_all_and_read_by_those_who_accepted(hub):
    repo = put_sets(hub, ["imagenet"], most=4)["imagenet"]
    place, reader = SUITE["imagenet"]["path"], HfApi(token=READER)
    info = reader.dataset_info(place, files_metadata=True)
    assert info.gated == "auto" and info.card_data["dataset_info"]["splits"][1]["num_examples"] == 4
    assert all(file.size > 0 for file in info.siblings)

    with pytest.raises(GatedRepoError, match="403"):
        reader.auth_check(place, repo_type="dataset")
    with pytest.raises(GatedRepoError, match="401"):
        HfApi(token=False).hf_hub_download(place, "README.md", repo_type="dataset")
    with pytest.raises(datasets.exceptions.DatasetNotFoundError, match="gated dataset.*ask for access"):
        datasets.load_dataset(place, split="validation", token=READER)
    repo.granted.add("reader")
    assert len(datasets.load_dataset(place, split="validation", token=READER)) == 4


def test_branches_tags_and_commits_are_served_and_others_refused(hub):
    old, new = {"data.csv": b"label\na\n"}, {"data.csv": b"label\nb\n"}
    repo = hub.put("datasets/user/set", new, refs={"v1": old})
    for revision, label in (("main", "b"), ("v1", "a"), (repo.sha("v1"), "a"), (repo.sha(), "b")):
        assert datasets.load_dataset("user/set", split="train", revision=revision)["label"][0] == label
    assert HfApi().dataset_info("user/set", revision="v1").sha == repo.sha("v1") != repo.sha()
    assert [tag.name for tag in HfApi().list_repo_refs("user/set", repo_type="dataset").tags] == ["v1"]
    with pytest.raises(RevisionNotFoundError):
        HfApi().dataset_info("user/set", revision="v2")
    with pytest.raises(RepositoryNotFoundError):
        HfApi().dataset_info("user/other")
    with pytest.raises(datasets.exceptions.DatasetNotFoundError, match="doesn't exist"):
        datasets.load_dataset("user/model")


def test_the_end_of_a_parquet_file_is_read_without_the_rest_of_it(hub):
    put_sets(hub, ["sun397"])
    place = f"datasets/{SUITE['sun397']['path']}"
    files = HfFileSystem(endpoint=hub.url)
    (path, *others) = files.glob(f"{place}/data/*.parquet")
    assert len(others) == 3
    with files.open(path, block_size=2**16) as file:
        assert pq.ParquetFile(file).metadata.num_rows == 108_754 // 4
    (read,) = (size for name, size in hub.fetched(place).items() if name.endswith(".parquet"))
    assert 0 < read < files.size(path) / 2


def test_a_data_set_is_pushed_and_loaded_again(hub, images):
    images.push_to_hub("user/shapes", private=True)
    assert "data/train-00000-of-00001.parquet" in hub.repos["datasets/user/shapes"].files
    assert datasets.load_dataset("user/shapes", split="train")["label"][:3] == images["label"][:3]
