"""What `save_weights` writes, `load_model` reads: plain models, adapters, and what a tuning attached."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from support.tiny import make_model
from torch import nn

from hf_pmgaft import load_model
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
