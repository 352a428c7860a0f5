"""Names of models, as users type them: what they lead to, or why they lead nowhere."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from support.borders import Refused, check, outcomes
from support.open_clip import make_clip, other_clip
from support.published import base_folder, described, open_clip_folder, saved
from support.tiny import make_model, make_processor

from hf_pmgaft import load_model
from hf_pmgaft.models.sources import Source
from hf_pmgaft.tuning.saved import load_pair

# ---- Where a name leads ----

NAMES = {
    "a Hub id": ("openai/clip-vit-base-patch32", ("openai/clip-vit-base-patch32", None)),
    "one of a name alone": ("gpt2", ("gpt2", None)),
    "open_clip's prefix": ("hf-hub:chs20/fare2-clip", ("chs20/fare2-clip", None)),
    "a revision by @": ("chs20/fare2-clip@refs-pr-1", ("chs20/fare2-clip", "refs-pr-1")),
    "open_clip's prefix and a revision": ("hf-hub:chs20/fare2-clip@v1.0", ("chs20/fare2-clip", "v1.0")),
    "a trailing slash": ("chs20/fare2-clip/", ("chs20/fare2-clip", None)),
    "an address of the Hub": ("https://huggingface.co/chs20/fare2-clip", ("chs20/fare2-clip", None)),
    "an address with a revision": ("https://huggingface.co/chs20/fare2-clip/tree/main", ("chs20/fare2-clip", "main")),
    "the address of a file": (
        "https://huggingface.co/chs20/fare2-clip/blob/main/open_clip_model.safetensors",
        Refused("Pass the repository, 'chs20/fare2-clip'"),
    ),
    "the address of a data set": ("https://huggingface.co/datasets/a/b", Refused("which is no model of the Hub")),
    "another address": ("https://example.org/models/clip", Refused("Download it, and pass the file or folder")),
    "nothing": ("", Refused("You passed an empty model name")),
    "spaces": ("  ", Refused("You passed an empty model name")),
    "words": ("a robust clip", Refused("cannot be a Hub id, OWNER/NAME", OSError)),
    "three parts": ("outputs/runs/clip", Refused("cannot be a Hub id, OWNER/NAME", OSError)),
    "a path that is not there": ("./outputs/clip", Refused("there is no such file or folder", OSError)),
    "one at home": ("~/no such folder", Refused("there is no such file or folder", OSError)),
    "a file that is not there": ("fare_eps_2.pt", Refused("there is no such file or folder", OSError)),
    "a folder of open_clip's that is not there": ("local-dir:nowhere", Refused("no such file or folder", OSError)),
    "a path of Windows": ("C:\\models\\clip", Refused("there is no such file or folder", OSError)),
}


@outcomes(NAMES)
def test_where_a_name_leads(given, outcome):
    def source():
        found = Source.of(given)
        return found.name, found.revision

    check(source, outcome)


def test_two_revisions_are_refused_and_so_is_one_of_a_folder(tmp_path):
    check(lambda: Source.of("owner/clip@a", "b"), Refused("Pass one of the two"))
    check(lambda: Source.of(tmp_path, "main"), Refused("which is on this machine and has none"))


def test_what_is_here_is_found_at_home_and_with_a_slash(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a clip@home").mkdir()
    assert Source.of("~/a clip@home/").name == str(tmp_path / "a clip@home")
    assert Source.of("a clip@home/") == Source("a clip@home")
    assert Source.of("local-dir:a clip@home") == Source("a clip@home")


# ---- What a folder or file holds ----


def folder(**files):
    def write(path: Path) -> Path:
        for name, content in files.items():
            name = name.replace("__", ".")
            (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def plain(path: Path) -> Path:
    make_model().save_pretrained(path)
    return path


def with_processor(path: Path) -> Path:
    return base_folder(path)


def broken(path: Path) -> Path:
    base_folder(path)
    (path / "model.safetensors").write_bytes(b"\x00" * 100)
    return path


def cut(path: Path) -> Path:
    base_folder(path)
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return path


def pickles(path: Path) -> Path:
    model = make_model()
    model.config.save_pretrained(path)
    make_processor().save_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    return path


def evil(path: Path) -> Path:
    make_model().config.save_pretrained(path)
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": print}, protocol=2))
    return path


def bert(path: Path) -> Path:
    from transformers import BertConfig, BertModel

    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(BertConfig(**sizes)).save_pretrained(path)
    return path


def opened(path: Path) -> Path:
    open_clip_folder(path)
    return path


def no_weights(path: Path) -> Path:
    open_clip_folder(path)
    (path / "open_clip_model.safetensors").unlink()
    return path


def bin_alone(path: Path) -> Path:
    other = open_clip_folder(path)
    (path / "open_clip_model.safetensors").unlink()
    torch.save(other.state_dict(), path / "open_clip_pytorch_model.bin")
    return path


def nan(path: Path) -> Path:
    model = make_model()
    model.visual_projection.weight.data[0, 0] = float("nan")
    model.save_pretrained(path)
    make_processor().save_pretrained(path)
    return path


HELD = {
    "a model and its processor": (with_processor, "CLIPModel"),
    "a Trainer's checkpoint without a processor": (plain, Refused("holds no processor", OSError)),
    "only pickles, of tensors": (pickles, "CLIPModel"),
    "only pickles, of more": (evil, Refused("a pickle of more than tensors", OSError)),
    "an open_clip repository": (opened, "CLIPModel"),
    "one with a pickle of tensors alone": (bin_alone, "CLIPModel"),
    "its configuration without weights": (no_weights, Refused("but neither open_clip_model.safetensors", OSError)),
    "its file of weights": (lambda p: opened(p) / "open_clip_model.safetensors", "CLIPModel"),
    "its configuration": (lambda p: opened(p) / "open_clip_config.json", Refused("a configuration without weights")),
    "nothing": (folder(), Refused("it holds nothing, but a model has config.json", OSError)),
    "a card alone": (folder(README__md=b"#"), Refused("it holds README.md, but a model has", OSError)),
    "checkpoints of a run": (lambda p: plain(p / "checkpoint-5").parent, Refused("it holds checkpoint-5", OSError)),
    "a configuration that is no JSON": (folder(config__json=b"{"), Refused("config.json is no JSON", OSError)),
    "a file for llama.cpp": (
        lambda p: folder(clip__gguf=b"GGUF")(p) / "clip.gguf",
        Refused("weights that llama.cpp has quantised"),
    ),
    "a broken safetensors": (broken, Refused("no whole safetensors file", OSError)),
    "half a safetensors": (cut, Refused("no whole safetensors file", OSError)),
    "weights alone": (
        lambda p: saved(other_clip(make_clip()).state_dict(), p / "fare.pt"),
        Refused("holds weights without a configuration"),
    ),
    "weights that are not finite": (nan, Refused("visual_projection.weight holds NaN or infinity")),
    "a language model": (bert, Refused("You passed a BertModel", TypeError)),
}


@outcomes(HELD)
def test_what_a_folder_or_file_holds(given, outcome, tmp_path):
    check(lambda: type(load_pair(str(given(tmp_path)))[0]).__name__, outcome)


@pytest.mark.parametrize("missing", ["model_cfg", "preprocess_cfg"])
def test_sections_of_a_configuration(missing, tmp_path):
    config = {key: value for key, value in described().items() if key != missing}
    open_clip_folder(tmp_path, config=config)
    outcome = "CLIPModel" if missing == "preprocess_cfg" else Refused("describes no model of open_clip")
    check(lambda: type(load_model(str(tmp_path))).__name__, outcome)
