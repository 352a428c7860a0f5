"""Repositories of what open_clip alone can build: the ids of a text and the image size, or why they do not open."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.borders import Refused, check, outcomes
from support.open_clip_zoo import make_timm_small, push
from support.published import base_folder
from support.tiny import make_processor

from hf_pmgaft.tuning.saved import load_pair

pytest.importorskip("open_clip")

SIGLIP = ([4, 12, 17], 32)  # a red square, in SigLIP's vocabulary
CLIPS = ([320, 736, 3999], 32)  # in CLIP's own


class Folder:
    """A pushed model, and what a case did to it."""

    def __init__(self, path: Path, monkeypatch):
        self.path, self.monkeypatch = path, monkeypatch
        self.options = {}
        push("SigLIP", path)

    def become(self, family: str) -> None:
        for file in self.path.iterdir():
            file.unlink()
        push(family, self.path)

    def change(self, section: str | None = None, **values) -> None:
        config = self.path / "open_clip_config.json"
        content = json.loads(config.read_text())
        part = content["model_cfg"] if section is None else content.get(section) or content["model_cfg"][section]
        part.update(values)
        config.write_text(json.dumps(content))

    def change_weights(self, change) -> None:
        weights = load_file(self.path / "open_clip_model.safetensors")
        change(weights)
        save_file(weights, self.path / "open_clip_model.safetensors")

    def without_tokenizer(self) -> None:
        for file in self.path.glob("*token*"):
            file.unlink()


def moved_tokenizer(folder: Folder) -> None:
    other = folder.path.with_name("tokenizer")
    other.mkdir()
    for file in list(folder.path.glob("*token*")):
        file.rename(other / file.name)
    folder.options["processor"] = str(other)


def other_statistics(folder: Folder) -> None:
    folder.options["processor"] = str(base_folder(folder.path.with_name("base")))


def other_vocabulary(folder: Folder) -> None:
    tokenizer = make_processor([f"word{number}" for number in range(200)] + ["red"]).tokenizer
    tokenizer.save_pretrained(folder.path.with_name("tokenizer"))
    folder.options["processor"] = str(folder.path.with_name("tokenizer"))


def remote_code(folder: Folder) -> None:
    """A tokenizer with code of its own, and a description that asks for its being run."""
    folder.change("text_cfg", tokenizer_kwargs={"trust_remote_code": True})
    (folder.path / "code.py").write_text("raise SystemExit('it was run')")
    config = folder.path / "tokenizer_config.json"
    content = json.loads(config.read_text()) | {
        "tokenizer_class": "Own",
        "auto_map": {"AutoTokenizer": ["code.Own", None]},
    }
    config.write_text(json.dumps(content))


def pickle(folder: Folder) -> None:
    (folder.path / "open_clip_model.safetensors").unlink()
    torch.save({"logit_scale": print}, folder.path / "open_clip_pytorch_model.bin")


CASES = {
    "as it is": (lambda folder: None, SIGLIP),
    "with CLIP's own vocabulary": (lambda folder: folder.become("ConvNeXt"), CLIPS),
    "keys that say nothing": (lambda folder: folder.change("vision_cfg", timm_drop=0.0), SIGLIP),
    "a tokenizer elsewhere": (moved_tokenizer, SIGLIP),
    "no tokenizer": (
        Folder.without_tokenizer,
        Refused("The tokenizer timm/ViT-B-16-SigLIP for", OSError),
    ),
    "no tokenizer, and none named": (
        lambda folder: folder.change("text_cfg", hf_tokenizer_name=""),
        Refused("holds no tokenizer, and has not CLIP's vocabulary. Pass one: --processor ID", OSError),
    ),
    "a tokenizer of another model": (other_vocabulary, Refused("to a model of 128 tokens")),
    "texts cleaned in a way that nobody knows": (
        lambda folder: folder.change("text_cfg", tokenizer_kwargs={"clean": "soap"}),
        Refused("open_clip cannot build"),
    ),
    "a tokenizer with code": (remote_code, Refused("cannot be had. Pass one: --processor", OSError)),
    "a processor of other statistics": (other_statistics, Refused("The pixel statistics of")),
    "a base": (
        lambda folder: folder.options.update(base_model=str(base_folder(folder.path.with_name("base")))),
        Refused("You passed a base for"),
    ),
    "no timm": (
        lambda folder: folder.monkeypatch.setitem(sys.modules, "timm", None),
        Refused("are read by a tower of timm, which cannot be imported", ImportError),
    ),
    "a tower that timm does not know": (
        lambda folder: folder.change("vision_cfg", timm_model_name="vit_of_tomorrow"),
        Refused("vit_of_tomorrow"),
    ),
    "a key of a later open_clip": (
        lambda folder: folder.change("vision_cfg", registers=4),
        Refused("unexpected keyword argument 'registers'. Check the file, or install the newest open_clip_torch"),
    ),
    "a text tower that is not there": (
        lambda folder: folder.change("text_cfg", hf_model_name="nobody/roberta"),
        Refused("are read by nobody/roberta, whose configuration cannot be had", OSError),
    ),
    "oblong images": (lambda folder: folder.change("vision_cfg", image_size=[32, 64]), Refused("images 32 x 64")),
    "padded images": (
        lambda folder: folder.change("preprocess_cfg", resize_mode="longest"),
        Refused("which no processor of CLIP does"),
    ),
    "a tower by its name alone": (
        lambda folder: folder.change(vision_cfg="ViT-B-16"),
        Refused("has 'ViT-B-16' as its vision_cfg, not a section"),
    ),
    "no weights": (
        lambda folder: (folder.path / "open_clip_model.safetensors").unlink(),
        Refused("holds open_clip_config.json, but neither", FileNotFoundError),
    ),
    "weights that lack one": (
        lambda folder: folder.change_weights(lambda weights: weights.pop("logit_bias")),
        Refused("are not those of its open_clip_config.json: missing: logit_bias"),
    ),
    "weights without values": (
        lambda folder: folder.change_weights(lambda weights: weights["logit_scale"].fill_(torch.nan)),
        Refused("are not all finite: clip.logit_scale"),
    ),
    "a pickle of more than weights": (pickle, Refused("what it calls could do anything")),
}


@outcomes(CASES)
def test_what_a_repository_opens_as(given, outcome, tmp_path, monkeypatch):
    make_timm_small(monkeypatch)
    folder = Folder(tmp_path / "model", monkeypatch)
    given(folder)

    def opened():
        model, processor = load_pair(str(folder.path), **folder.options)
        ids = processor.tokenizer("a red square")["input_ids"][0].tolist()
        ids = [number for number in ids if number not in (0, 1, 49406, 49407)]
        return ids, model.config.image_size

    check(opened, outcome)
