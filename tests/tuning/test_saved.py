"""What `save_weights` writes, `load_model` reads: plain models, adapters, and what a tuning attached."""

import json
import pickle

import pytest
import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig
from safetensors.torch import load_file, save
from support.hub_runs import assert_equal, logits
from support.tiny import make_model
from torch import nn

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, load_model
from hf_pmgaft.tuning import PeftAdapter, TextContext, make_tuning
from hf_pmgaft.tuning.saved import save_weights


def image_embeds(model) -> torch.Tensor:
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(pixel_values=pixels, input_ids=torch.zeros((1, 2), dtype=torch.long)).image_embeds


def move_what_is_trained(model) -> None:
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))


def test_a_plain_model_is_saved_whole_and_without_what_its_objective_learned(model, tmp_path):
    model.objective = nn.ModuleDict({"log_logit_scale": nn.Linear(1, 1)})
    save_weights(model, tmp_path, base_model=None)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "visual_projection.weight" in names and not [name for name in names if name.startswith("objective.")]
    torch.testing.assert_close(image_embeds(load_model(str(tmp_path))), image_embeds(model), rtol=0, atol=0)


def test_an_adapter_is_saved_without_its_base_model_and_comes_back_beside_it(model, tmp_path):
    model.save_pretrained(tmp_path / "base")
    adapted = PeftAdapter(LoraConfig(r=2, target_modules=["q_proj"])).prepare(load_model(str(tmp_path / "base")))
    move_what_is_trained(adapted)
    save_weights(adapted, tmp_path / "adapter", base_model=str(tmp_path / "base"))
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = load_model(str(tmp_path / "adapter"))
    torch.testing.assert_close(image_embeds(loaded), image_embeds(adapted), rtol=0, atol=0)
    assert (image_embeds(loaded) - image_embeds(model)).abs().max() > 1e-3


@pytest.mark.parametrize("base", ["named", "passed"])
def test_an_attachment_is_saved_alone_and_comes_back_beside_its_base_model(model, tmp_path, base):
    model.save_pretrained(tmp_path / "base")
    tuned = TextContext(num_tokens=3).prepare(model)
    move_what_is_trained(tuned)
    save_weights(tuned, tmp_path / "tuned", base_model=str(tmp_path / "base") if base == "named" else None)
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"tuning.json", "tuning.safetensors"}
    loaded = load_model(str(tmp_path / "tuned"), None if base == "named" else make_model())
    torch.testing.assert_close(loaded.tuning.vectors.weight, tuned.tuning.vectors.weight, rtol=0, atol=0)


@pytest.mark.parametrize("tuning", ["vision_tower", "peft", "text_context"])
def test_saved_weights_are_readable_as_every_other_file(tmp_path, tuning):
    options = {"peft": {"target_modules": ["q_proj"]}, "text_context": {"num_tokens": 2}}
    model = make_tuning(tuning, options.get(tuning)).prepare(make_model())
    save_weights(model, tmp_path, base_model="user/clip")
    (tmp_path / "other").touch()
    expected = (tmp_path / "other").stat().st_mode
    (weights,) = tmp_path.glob("*.safetensors")
    assert weights.stat().st_mode == expected


# ---- Weights of strangers, on the Hub ----


class Evil:
    """A pickle that makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_is_read_as_tensors_alone_or_refused(hub, tmp_path, clip_files, processor):
    config = {name: content for name, content in clip_files.items() if name != "model.safetensors"}
    torch.save(make_model().state_dict(), tmp_path / "tensors")
    hub.put("user/tensors", {**config, "pytorch_model.bin": (tmp_path / "tensors").read_bytes()})
    assert_equal(logits(load_model("user/tensors"), processor), logits(make_model(), processor))

    torch.save({"weight": Evil(tmp_path / "ran")}, tmp_path / "evil")
    hub.put("user/evil", {**config, "pytorch_model.bin": (tmp_path / "evil").read_bytes()})
    hub.put("user/raw", {**config, "pytorch_model.bin": pickle.dumps(Evil(tmp_path / "ran"), protocol=2)})
    hub.put("user/base", clip_files)
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "user/base", "r": 2, "target_modules": ["q_proj"]}
    adapter_files = {"adapter_config.json": json.dumps(adapter).encode()}
    hub.put("user/adapter", {**adapter_files, "adapter_model.bin": (tmp_path / "evil").read_bytes()})
    for name in ("user/evil", "user/raw", "user/adapter"):
        with pytest.raises(OSError, match=f"weights of '{name}' are a pickle of more than tensors.*safetensors"):
            load_model(name)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil", weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


def test_no_code_of_a_repository_is_run_or_asked_for(hub, tmp_path, clip_files, processor, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "y")
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    config = json.loads(clip_files["config.json"])
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    hub.put("user/known", {**clip_files, "config.json": json.dumps(config).encode(), "evil.py": code})
    assert_equal(logits(load_model("user/known"), processor), logits(make_model(), processor))
    config["model_type"] = "evil"
    hub.put("user/unknown", {**clip_files, "config.json": json.dumps(config).encode(), "evil.py": code})
    with pytest.raises(ValueError, match="contains custom code"):
        load_model("user/unknown")
    settings = json.dumps({"processor_class": "Evil", "auto_map": {"AutoProcessor": "evil.Evil"}}).encode()
    hub.put("user/processor", {**clip_files, "processor_config.json": settings, "evil.py": code})
    with pytest.raises(ValueError, match="custom code"):
        PMGAFTTrainer("user/processor", PMGAFTConfig(output_dir=str(tmp_path / "run"), use_cpu=True))
    assert not asked and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../x", "a/b/c", "user/clip\n", "user/..", "-x/y", ""])
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, ValueError), match="cannot be a Hub id|no such file|empty model name"):
        load_model(name)
    assert hub.requests == []


@pytest.mark.parametrize("path", ["../../evil.safetensors", "/evil.safetensors", "a/../../../../evil.safetensors"])
def test_a_path_that_leads_out_of_the_cache_is_refused(hub, tmp_path, clip_files, path):
    outside = {p for p in tmp_path.rglob("*") if (tmp_path / "cache") not in p.parents}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: path for name in make_model().state_dict()}}
    content = {name: value for name, value in clip_files.items() if name != "model.safetensors"}
    content |= {"model.safetensors.index.json": json.dumps(index).encode(), path: save({"x": torch.zeros(1)})}
    hub.put("user/evil", content)
    for pull in (load_model, snapshot_download):
        with pytest.raises((OSError, ValueError), match="Invalid"):
            pull("user/evil")
    new = {p for p in tmp_path.rglob("*") if (tmp_path / "cache") not in p.parents} - outside
    assert new <= {tmp_path / "cache"}
    assert not [p for p in tmp_path.rglob("evil*")]


@pytest.mark.parametrize(
    "content",
    [
        (10**15).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"xx",
        b"",
        None,
    ],
    ids=["header too large", "header overflows", "no JSON", "empty", "cut off"],
)
def test_a_damaged_safetensors_file_is_refused_by_name(hub, clip_files, content):
    whole = clip_files["model.safetensors"]
    hub.put(
        "user/damaged", {**clip_files, "model.safetensors": whole[: len(whole) // 2] if content is None else content}
    )
    with pytest.raises(OSError, match="weights of 'user/damaged' are no whole safetensors file"):
        load_model("user/damaged")
