"""Without the Hub, by HF_HUB_OFFLINE or for want of an answer: what was loaded before is right, the rest is said."""

import io
import shutil
import socket
from dataclasses import replace

import datasets
import huggingface_hub
import pytest
import transformers
from huggingface_hub import constants
from support.borders import Refused, check, outcomes
from support.hub_runs import files_of
from support.hub_sets import put_sets, small_suite
from support.tiny import make_images, make_model, make_processor

from hf_pmgaft.arguments import parse_args
from hf_pmgaft.cli.train_arguments import TYPES
from hf_pmgaft.cli.train_setup import make_trainer
from hf_pmgaft.hub.card_update import ExistingCard
from hf_pmgaft.suites import load_suite
from hf_pmgaft.suites.sets import load_set
from hf_pmgaft.tuning.saved import load_pair

CARD = b"---\ntags: [hf-pmgaft]\n---\n# clip\n"
SPLITS = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: data/test-*\n---\n"


@pytest.fixture
def stocked(hub, tmp_path):
    """A Hub with a model, its card and sets; a folder `model`, and one without a processor, here."""
    rows = io.BytesIO()
    make_images(8).to_parquet(rows)
    hub.put("user/clip", files_of(make_model(), make_processor()) | {"README.md": CARD})
    hub.put("datasets/user/set", {"data/test-00000-of-00001.parquet": rows.getvalue(), "README.md": SPLITS})
    put_sets(hub, ["dtd"], most=47)

    make_model().save_pretrained(tmp_path / "bare")
    shutil.copytree(tmp_path / "bare", tmp_path / "model")
    make_processor().save_pretrained(tmp_path / "model")
    make_images(8).to_parquet(tmp_path / "train.parquet")
    return hub


def trained(folder, **options):
    """A trainer of what is here, but for the options."""
    here = {"model_name_or_path": folder / "model", "dataset_name": folder / "train.parquet", "do_eval": "false"}
    options = {**here, "output_dir": folder / "run", "use_cpu": "true", **options}
    return make_trainer(*parse_args(TYPES, [f"--{name}={value}" for name, value in options.items()]))


READ = {
    "model": lambda folder: load_pair("user/clip")[0].config.projection_dim,
    "processor": lambda folder: type(load_pair(str(folder / "bare"), "user/clip")[1]).__name__,
    "set": lambda folder: len(load_set("user/set@test", make_processor())),
    "suite": lambda folder: len(load_suite(small_suite(folder, ["dtd"], most=47), make_processor())[0]),
    "card": lambda folder: ExistingCard.read("user/clip").model,
    "training set": lambda folder: len(trained(folder, dataset_name="user/set@test").train_dataset),
    "teacher": lambda folder: trained(folder, teacher_name_or_path="user/clip").step.teacher is not None,
    "push": lambda folder: trained(folder, push_to_hub="true", hub_model_id="user/clip").hub_model_id,
}
NOT_REACHED = "user/clip is no folder here and not in the cache of the Hub, which was not reached (WHY)"
NO_CARD = Refused("user/clip is no folder here, and the Hub, where its card would be, was not reached (")
NO_PUSH = Refused("push_to_hub for the repository 'user/clip', but the Hub cannot be reached (")
NO_SET = Refused("was not reached on the Hub", ConnectionError)
CASES = {
    "a cached model": (("model", True), 24),
    "a cached processor": (("processor", True), "CLIPProcessor"),
    "a cached set": (("set", True), 8),
    "a cached suite": (("suite", True), 47),
    "a cached training set": (("training set", True), 8),
    "a cached teacher": (("teacher", True), True),
    "a card, which may have changed": (("card", True), NO_CARD),
    "a push": (("push", True), NO_PUSH),
    "a model": (
        ("model", False),
        Refused(NOT_REACHED, OSError),
    ),
    "a processor": (("processor", False), Refused(NOT_REACHED, OSError)),
    "a set": (("set", False), NO_SET),
    "a suite": (("suite", False), Refused("was not reached on the Hub")),
    "a training set": (("training set", False), NO_SET),
    "a teacher": (("teacher", False), Refused(NOT_REACHED, OSError)),
    "a card": (("card", False), NO_CARD),
    "a first push": (("push", False), NO_PUSH),
}


def because(why: str, outcome):
    """The outcome with the reason in place of WHY."""
    is_refused = isinstance(outcome, Refused)
    return replace(outcome, words=outcome.words.replace("WHY", why)) if is_refused else outcome


@outcomes(CASES)
def test_without_the_hub(given, outcome, stocked, tmp_path, monkeypatch):
    name, is_cached = given
    if is_cached:
        READ[name](tmp_path)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    check(lambda: READ[name](tmp_path), because("HF_HUB_OFFLINE is set", outcome))


@outcomes(CASES)
def test_without_an_answer(given, outcome, stocked, tmp_path, monkeypatch, impatient):
    name, is_cached = given
    if is_cached:
        READ[name](tmp_path)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", url)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        check(lambda: READ[name](tmp_path), because(f"{url} gives no answer", outcome))
