"""What a run downloads and needs of the disk is told from what the Hub says, and nothing is downloaded for it."""

import json
import shutil
from collections import namedtuple

import datasets
import pytest
from huggingface_hub import hf_hub_download
from support.hub_sets import SUITE, put_sets

from hf_pmgaft.cli import downloads, reproduce, train
from hf_pmgaft.cli.costs import checkpoint_bytes
from hf_pmgaft.cli.run_plan import Plan, make_plan

FACTS = json.loads(reproduce.FACTS.read_text(encoding="utf-8"))
BASE = "openai/clip-vit-base-patch32"
SETS = ["dtd", "caltech101", "fgvc_aircraft", "cifar100"]  # stated by cards, shards, a branch, a named configuration
FOREIGN = ["model.fp16.safetensors", "flax_model.msgpack", "tf_model.h5", "pytorch_model.bin"]
OTHERS = dict.fromkeys(FOREIGN, b"w" * 9000)  # weights that are not read
Usage = namedtuple("Usage", "total used free")


def plan(*flags: str) -> Plan:
    return make_plan(*train.parse(["--recipe", "tecoa", *flags]), FACTS["train_images"])


@pytest.fixture
def repos(hub, clip_files):
    hub.put(BASE, {**clip_files, **OTHERS, "README.md": b"a card", "onnx/model.onnx": b"o" * 9000})
    return put_sets(hub, ["tiny_imagenet", *SETS], most=6)


def bytes_of(files: dict[str, bytes], *words: str) -> int:
    return sum(len(content) for path, content in files.items() if any(word in path for word in words))


def test_sizes_are_those_of_the_files_that_are_read_and_none_is_read(hub, repos, clip_files):
    found = downloads.find_downloads(plan("--suite_sets", *SETS))
    sizes = {each.name: each.num_bytes for each in found.all}
    converted = repos["fgvc_aircraft"].refs["refs/convert/parquet"]
    assert sizes == {
        BASE: bytes_of(clip_files, ".safetensors", ".json", ".txt"),
        "tiny_imagenet": bytes_of(repos["tiny_imagenet"].files, "train-"),
        "dtd": bytes_of(repos["dtd"].files, "test-"),
        "caltech101": bytes_of(repos["caltech101"].files, "train/", "test/"),
        "fgvc_aircraft": bytes_of(converted, "test/"),
        "cifar100": bytes_of(repos["cifar100"].files, "test-"),
    }
    assert all(sizes.values()) and not any(each.problem for each in found.all)
    assert not hub.served and len(hub.requests) <= 2 * len(found.all)


def test_weights_are_of_the_kind_that_is_read(hub, repos, clip_files):
    small = {path: content for path, content in clip_files.items() if not path.endswith(".safetensors")}
    hub.put(BASE, {**small, **OTHERS})
    (model,) = downloads.find_downloads(plan("--suite_sets", "dtd")).models
    assert model.num_bytes == bytes_of(small, ".json", ".txt") + 9000


def test_what_is_in_the_cache_is_not_counted(hub, repos):
    hf_hub_download(BASE, "model.safetensors")
    for path in repos["dtd"].files:
        if "test-" in path:
            hf_hub_download(SUITE["dtd"]["path"], path, repo_type="dataset")
    found = downloads.find_downloads(plan("--suite_sets", "dtd"))
    assert found.evaluation[0].num_bytes == 0
    assert 0 < found.models[0].num_bytes < 100_000


def test_what_is_on_this_machine_is_not_downloaded(hub, repos, tmp_path):
    datasets.Dataset.from_dict({"label": [0]}).save_to_disk(tmp_path / "mine")
    flags = [
        "--model_name_or_path",
        str(tmp_path),
        "--dataset_name",
        str(tmp_path / "mine"),
        "--data_root",
        str(tmp_path),
    ]
    found = downloads.find_downloads(plan(*flags))
    assert [each.num_bytes for each in found.all] == [0, 0] and hub.requests == []


def test_gated_sets_have_a_size_and_say_what_to_do(hub, repos):
    imagenet = put_sets(hub, ["imagenet"], most=4)["imagenet"]
    found = downloads.find_downloads(plan("--dataset_name", "imagenet", "--suite_sets", "dtd"))
    (training,) = found.training
    assert training.num_bytes == bytes_of(imagenet.files, "train-")
    assert "accept its terms at" in found.rows()["not there"]


@pytest.mark.parametrize("name", ["user/nothing", "outputs/clip-tecoa"])
def test_models_and_sets_that_are_nowhere_are_named_beside_the_size_of_the_others(hub, repos, name):
    found = downloads.find_downloads(plan("--model_name_or_path", name, "--dataset_name", name, "--suite_sets", "dtd"))
    rows = found.rows()
    assert f"without {name}, {name}: model 0.00 GB without {name}" in rows["downloads"]
    assert f"{name} is not here" in rows["not there"] and f"{name} is not on the Hub" in rows["not there"]


def test_a_revision_that_is_not_there_is_named(hub, repos):
    found = downloads.find_downloads(plan("--revision", "v7", "--suite_sets", "dtd"))
    assert found.rows()["not there"] == f"{BASE} has no revision 'v7'."


def test_a_hub_out_of_reach_is_one_line(hub, repos):
    hub.http.shutdown()
    hub.http.server_close()
    found = downloads.find_downloads(plan("--suite_sets", *SETS))
    assert found.rows() == {"downloads": "unknown: the Hub is not reachable"}


def test_offline_nothing_is_asked(capsys):
    reproduce.main(["tecoa"])
    assert "downloads    unknown: the Hub is not reachable\n" in capsys.readouterr().out


# ---- Room ----


def needs_of(made: Plan) -> tuple[downloads.Downloads, list[int]]:
    found = downloads.find_downloads(made)
    return found, [num_bytes for _, num_bytes in downloads.find_needs(made, found, checkpoint_bytes(made))]


def test_files_of_sets_are_kept_with_their_rows_and_of_those_under_a_limit_rows_alone(hub, repos):
    made = plan("--suite_sets", "dtd")
    found, needs = needs_of(made)
    model, training, evaluation = (each.num_bytes for each in found.all)
    checkpoints = 4 * 151_277_313 * (1 + 3 * 2)  # weights, and three checkpoints with momentum
    assert needs == [checkpoints, model, 2 * training + evaluation]
    made.data_args.limit = None
    assert needs_of(made)[1] == [checkpoints, model, 2 * training + 2 * evaluation]


def test_a_stream_is_not_kept(hub, repos):
    found, needs = needs_of(plan("--suite_sets", "dtd", "--streaming", "true"))
    assert found.training[0].num_bytes > 0 and needs[2] == found.evaluation[0].num_bytes


def test_checkpoints_that_are_not_written_take_no_room():
    assert checkpoint_bytes(plan("--save_strategy", "no")) == 4 * 151_277_313


@pytest.mark.parametrize("free, is_enough", [(4_300_000_000, True), (4_200_000_000, False)])
def test_a_run_that_the_disk_has_no_room_for_is_refused(monkeypatch, capsys, tmp_path, free, is_enough):
    lines = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "main", lines.append)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 10**12 - free, free))
    reproduce.main(["tecoa"])
    assert ("too little" in capsys.readouterr().out) == (not is_enough)
    if is_enough:
        reproduce.main(["tecoa", "--run"])
        assert len(lines) == 1
        return
    with pytest.raises(SystemExit, match=r"may write 4.24 GB to the disk of .*, where 4.20 GB are free. Set --output"):
        reproduce.main(["tecoa", "--run"])
    assert lines == []


def test_folders_of_one_disk_share_it(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 40, 60))
    needs = [(tmp_path / "outputs", 40), (tmp_path / "cache", 30)]
    assert "may write 0.00 GB" in downloads.find_shortage(needs)
    assert downloads.find_shortage(needs[:1]) is None
