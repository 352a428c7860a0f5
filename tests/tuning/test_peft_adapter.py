"""Where adapters of peft sit, how they fold into a plain CLIPModel, and how they train on."""

import os

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from support.tiny import make_model
from support.trainers import LORA, make_trainer, state
from support.tuned import embed, shake, trained

from hf_pmgaft import fold_into_clip, load_model
from hf_pmgaft.models import get_encoder
from hf_pmgaft.tuning import PeftAdapter, has_adapter
from hf_pmgaft.tuning.saved import save_weights

VISION_QUERIES = r"vision_model\..*\.q_proj"


def adapted_modules(model) -> set[str]:
    return {name.split(".lora_")[0] for name in trained(model.get_base_model())}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"}),
        (["q_proj", "fc1"], {"self_attn.q_proj", "mlp.fc1"}),
        (VISION_QUERIES, {"self_attn.q_proj"}),
    ],
)
def test_lora_sits_in_every_block_of_the_vision_tower_alone(model, targets, expected):
    adapted = PeftAdapter(LoraConfig(r=2, target_modules=targets)).prepare(model)
    assert adapted_modules(adapted) == {f"vision_model.encoder.layers.{i}.{name}" for i in (0, 1) for name in expected}


@pytest.mark.parametrize("name", ["visual_projection", "vision_model.encoder.layers.1.self_attn.q_proj"])
def test_a_module_can_be_named_in_full(model, name):
    adapted = PeftAdapter(LoraConfig(r=2, target_modules=[name])).prepare(model)
    assert adapted_modules(adapted) == {name}


@pytest.mark.parametrize(
    "options", [{"layers_to_transform": [1]}, {"layers_to_transform": 1, "layers_pattern": "layers"}]
)
def test_blocks_can_be_chosen_by_their_numbers(model, options):
    config = LoraConfig(target_modules=["q_proj"], **options)
    adapted = PeftAdapter(config).prepare(model)
    assert adapted_modules(adapted) == {"vision_model.encoder.layers.1.self_attn.q_proj"}


def test_the_user_s_peft_config_is_left_as_it_was(model):
    config = LoraConfig(r=2, target_modules=["q_proj"])
    PeftAdapter(config).prepare(model)
    assert config.target_modules == {"q_proj"}


def test_folded_model_is_a_plain_clip_equal_to_the_adapted_one_which_stays(model):
    before = embed(model).detach()
    adapted = PeftAdapter(LoraConfig(r=2, target_modules=["q_proj", "fc2", "visual_projection"])).prepare(model)
    shake(adapted)
    kept, wanted = state(adapted), embed(adapted)
    folded = fold_into_clip(adapted)

    assert (wanted - before).abs().max() > 1e-2
    torch.testing.assert_close(embed(folded), wanted, rtol=1e-5, atol=1e-5)
    assert not has_adapter(folded) and set(folded.state_dict()) == set(make_model().state_dict())
    assert has_adapter(adapted) and all(torch.equal(value, kept[name]) for name, value in adapted.state_dict().items())
    with adapted.disable_adapter():
        torch.testing.assert_close(embed(adapted), before)


def test_a_plain_model_folds_into_itself(model):
    assert fold_into_clip(model) is model


def test_adapters_are_seen_in_peft_models_and_in_models_with_adapters_inside(model):
    assert not has_adapter(model)
    assert has_adapter(get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"])))
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), model)
    assert has_adapter(model)


def test_a_peft_model_trains_its_own_adapter_and_is_its_own_teacher(tmp_path):
    peft_model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=VISION_QUERIES))
    shake(peft_model)
    trainer = make_trainer(tmp_path, model=peft_model, max_steps=2)
    assert trainer.model is peft_model and trainer.teacher.is_student
    before, images = state(peft_model), torch.rand(2, 3, 16, 16)
    plain = make_trainer(tmp_path, model=make_model()).step.guide(images)
    torch.testing.assert_close(trainer.step.guide(images), plain)
    assert (trainer.step.student(trainer.model)(images) - plain).abs().max() > 1e-3

    trainer.train()
    for name, value in peft_model.state_dict().items():
        assert torch.equal(value, before[name]) != ("lora_" in name), name
    torch.testing.assert_close(trainer.step.guide(images), plain)


def test_a_saved_adapter_goes_on_if_it_is_loaded_as_trainable(tmp_path):
    first = make_trainer(tmp_path, peft_config=LoraConfig(r=2, target_modules=["q_proj"]), max_steps=1)
    first.train()
    first.save_model(str(tmp_path / "adapter"))
    frozen = PeftModel.from_pretrained(make_model(), tmp_path / "adapter")
    with pytest.raises(ValueError, match="adapter is frozen.*is_trainable=True"):
        make_trainer(tmp_path, model=frozen)
    again = make_trainer(
        tmp_path, model=PeftModel.from_pretrained(make_model(), tmp_path / "adapter", is_trainable=True), max_steps=1
    )
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(again.step.student(again.model)(images), first.step.student(first.model.eval())(images))
    again.train()
    assert again.state.global_step == 1


# ---- Adapters of other names ----


@torch.no_grad()
def image_embeds(model, pixel_values):
    return get_encoder(model).image_embeds(model.eval(), pixel_values)


def named(base, *names):
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(**LORA), adapter_name=names[0])
    for name in names[1:]:
        adapted.add_adapter(name, LoraConfig(**LORA))
    return adapted


def test_an_adapter_of_another_name_is_saved_where_it_is_looked_for(tmp_path):
    base = make_model()
    base.save_pretrained(tmp_path / "base")
    adapted = named(load_model(tmp_path / "base"), "robust")
    trainer = make_trainer(tmp_path / "run", model=adapted, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model()

    pixels = torch.randn(2, 3, 16, 16)
    wanted = image_embeds(trainer.model, pixels)
    assert not torch.allclose(wanted, image_embeds(base, pixels), atol=1e-4)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        assert not (folder / "robust").exists()
        torch.testing.assert_close(image_embeds(load_model(folder), pixels), wanted)

    again = make_trainer(tmp_path / "again", model=named(load_model(tmp_path / "base"), "robust"), max_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    torch.testing.assert_close(image_embeds(again.model, pixels), wanted)


def test_every_file_of_several_adapters_can_be_read_by_others(tmp_path):
    mask = os.umask(0o022)
    try:
        save_weights(named(make_model(), "default", "other"), tmp_path, None)
    finally:
        os.umask(mask)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {tmp_path.name, "other"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}


@pytest.mark.filterwarnings("error")
def test_an_adapter_is_made_saved_and_opened_without_a_warning_or_a_question_to_the_hub(hub, tmp_path):
    make_model().save_pretrained(tmp_path / "base")
    base = load_model(str(tmp_path / "base"))
    base.name_or_path = base.config.name_or_path = "user/base"  # as of a model that was pulled
    adapted = PeftAdapter(LoraConfig(r=2)).prepare(base)

    save_weights(adapted, tmp_path / "adapter", base_model=None)
    opened = load_model(str(tmp_path / "adapter"), str(tmp_path / "base"))

    assert isinstance(opened, PeftModel)
    assert hub.requests == []
