"""What is trained, what that adds to a model, and how it folds back into a plain CLIPModel."""

import copy
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors import safe_open
from support.tiny import CLASS_NAMES, make_images, make_model
from support.trainers import make_trainer, state
from transformers import TrainerCallback

from hf_pmgaft import encode_class_names, export_class_embeds, fold_into_clip, load_model
from hf_pmgaft.tuning import (
    DeepPrompts,
    LastBlocks,
    PeftAdapter,
    RAdapter,
    TextContext,
    WholeVisionTower,
    attachment_of,
    has_adapter,
    make_tuning,
    without_tuning,
)
from hf_pmgaft.tuning.saved import save_tuning
from hf_pmgaft.zero_shot import ClassPrompts

VISION_QUERIES = r"vision_model\..*\.q_proj"


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapted_modules(model) -> set[str]:
    return {name.split(".lora_")[0] for name in trained(model.get_base_model())}


def embed(model, seed: int = 0) -> torch.Tensor:
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return model.eval()(pixel_values=pixels, input_ids=torch.zeros((1, 2), dtype=torch.long)).image_embeds


def shake(model) -> None:
    """Moves an adapter away from its start, where it changes nothing."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))


def test_whole_vision_tower_is_trained_by_default_and_the_text_tower_never(model):
    names = trained(WholeVisionTower().prepare(model))
    assert names == {n for n, _ in model.named_parameters() if n.startswith(("vision_model.", "visual_projection."))}


@pytest.mark.parametrize("blocks", [1, 2])
def test_last_blocks_are_trained_with_the_norm_and_projection_after_them(model, blocks):
    names = trained(LastBlocks(blocks).prepare(model))
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(tuple(f"vision_model.encoder.layers.{2 - i}." for i in range(1, blocks + 1)))
        or name.startswith(("vision_model.post_layernorm.", "visual_projection."))
    }
    assert names == expected and len(expected) == 16 * blocks + 3


def test_more_blocks_than_there_are_is_refused(model):
    with pytest.raises(ValueError, match="blocks=3, but the vision tower has 2. Pass 2 or fewer"):
        LastBlocks(3).prepare(model)


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


# ---- What tunings attach to a model ----


def images_and_texts(model, processor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return embed(model), encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")


ATTACHED = {
    "text_context": {"num_tokens": 4},
    "class_specific": {"num_tokens": 4, "class_specific": True},
    "deep_prompts": {"num_tokens": 3, "depth": 2},
    "text_to_vision": {"num_tokens": 3, "depth": 2, "coupling": "text_to_vision"},
    "r_adapter": {"rescale": 0.8},
}


@pytest.fixture(params=sorted(ATTACHED))
def attached(request):
    options = dict(ATTACHED[request.param])
    name = {"class_specific": "text_context", "text_to_vision": "deep_prompts"}.get(request.param, request.param)
    torch.manual_seed(0)
    return make_tuning(name, options).for_classes(CLASS_NAMES).prepare(two_blocks())


def two_blocks():
    model = make_model(text_layers=2)
    assert len(model.text_model.encoder.layers) == len(model.vision_model.encoder.layers) == 2
    return model


def test_an_attachment_changes_what_the_model_makes_of_texts_and_nothing_once_it_is_off(attached, processor):
    shake(attached)
    plain = images_and_texts(two_blocks(), processor)
    tuned = images_and_texts(attached, processor)
    assert (tuned[1] - plain[1]).abs().max() > 1e-3
    vision = not isinstance(attached.tuning.options, TextContext)
    assert ((tuned[0] - plain[0]).abs().max() > 1e-3) == vision
    with without_tuning(attached):
        for one, other in zip(images_and_texts(attached, processor), plain, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_only_the_attachment_is_trained_and_all_of_it(attached, processor):
    shake(attached)
    attached.tuning.at_test = False
    assert trained(attached) == {name for name, _ in attached.named_parameters() if name.startswith("tuning.")}
    texts = ClassPrompts.of(attached, processor, CLASS_NAMES, "a photo of the {}").embed(attached)
    (embed(attached) @ texts.T).square().sum().backward()
    for name, parameter in attached.named_parameters():
        assert (parameter.grad is not None) == name.startswith("tuning."), name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


def test_a_copy_has_an_attachment_of_its_own(attached, processor):
    before = images_and_texts(attached, processor)
    other = copy.deepcopy(attached)
    shake(other)
    for one, same in zip(images_and_texts(attached, processor), before, strict=True):
        torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert (images_and_texts(other, processor)[1] - before[1]).abs().max() > 1e-3


def test_a_saved_attachment_comes_back_beside_its_base_model(attached, processor, tmp_path):
    shake(attached)
    two_blocks().save_pretrained(tmp_path / "base")
    save_tuning(attached, tmp_path / "tuned", str(tmp_path / "base"))
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"tuning.json", "tuning.safetensors"}
    for loaded in (load_model(str(tmp_path / "tuned")), load_model(str(tmp_path / "tuned"), two_blocks())):
        for one, other in zip(images_and_texts(loaded, processor), images_and_texts(attached, processor), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    with pytest.raises(ValueError, match="carries .* already.*Pass the base model"):
        make_tuning("text_context").prepare(attached)


def test_exported_class_embeddings_are_those_of_the_tuned_model(attached, processor, tmp_path):
    shake(attached)
    export_class_embeds(attached, processor, CLASS_NAMES, tmp_path / "classes.safetensors", "a photo of the {}")
    with safe_open(tmp_path / "classes.safetensors", "pt") as file:
        torch.testing.assert_close(file.get_tensor("class_embeds"), images_and_texts(attached, processor)[1])
        assert json.loads(file.metadata()["class_names"]) == CLASS_NAMES


def test_adapters_fold_exactly_and_prompts_do_not(attached, processor):
    shake(attached)
    if not isinstance(attached.tuning.options, RAdapter):
        with pytest.raises(ValueError, match="cannot be folded.*load_model.*export_class_embeds"):
            fold_into_clip(attached)
        return
    wanted = images_and_texts(attached, processor)
    folded = fold_into_clip(attached)
    assert set(folded.state_dict()) == set(two_blocks().state_dict()) and attachment_of(attached) is not None
    for one, other in zip(images_and_texts(folded, processor), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_adapters_are_rescaled_at_test_and_dropped_in_training_by_seed_and_step():
    model = RAdapter(drop=0.5, rescale=0.5).prepare(two_blocks())
    shake(model)
    at_test = embed(model)
    model.tuning.at_test = False
    whole = embed(model)
    assert not torch.allclose(at_test, whole)
    for adapter in model.tuning.adapters.values():
        adapter.weight.data.mul_(0.5)
    torch.testing.assert_close(embed(model), at_test)

    def draws(seed: int, step: int) -> list[float]:
        model.tuning.draw(seed, step)
        return list(model.tuning.drop_factors.values())

    assert draws(0, 1) == draws(0, 1) != draws(0, 2) and draws(0, 1) != draws(1, 1)
    every = torch.tensor([draws(0, step) for step in range(200)])
    assert set(every.unique().tolist()) == {0.0, 2.0} and 0.4 < (every == 0).float().mean() < 0.6


def test_an_adapter_computes_what_the_equation_says():
    model = RAdapter(drop=0.0, rescale=1.0).prepare(two_blocks())
    shake(model)
    block, name = model.vision_model.encoder.layers[0], "vision_model-encoder-layers-0-"
    hidden = torch.randn(2, 5, 32)
    h = {part: lambda x, w=model.tuning.adapters[name + part].weight: x @ w + x for part in ("self_attn", "mlp")}
    got = block(hidden, None)
    with without_tuning(model):
        hidden = hidden + h["self_attn"](block.self_attn(block.layer_norm1(hidden))[0])
        torch.testing.assert_close(got, hidden + h["mlp"](block.mlp(block.layer_norm2(hidden))))


def test_context_stands_between_start_token_and_name(processor):
    model = TextContext(num_tokens=2).prepare(two_blocks())
    prompts = ClassPrompts.of(model, processor, CLASS_NAMES, "a photo of the {}")
    start, name = processor.tokenizer.bos_token_id, processor.tokenizer("red disc.")["input_ids"][1:]
    assert prompts.num_templates == 1
    assert prompts.input_ids[0].tolist() == [start] * 3 + name
    # With the token embeddings of two words in its place, the context is those words.
    words = processor.tokenizer("photo of")["input_ids"][1:-1]
    model.tuning.vectors.weight.data = model.text_model.embeddings.token_embedding.weight[words].detach().clone()
    with without_tuning(model):
        expected = encode_class_names(model, processor, CLASS_NAMES, "photo of {}.")
    torch.testing.assert_close(encode_class_names(model, processor, CLASS_NAMES), expected)


def test_context_of_each_class_serves_its_own_list_alone(processor):
    model = TextContext(4, class_specific=True).for_classes(CLASS_NAMES).prepare(two_blocks())
    assert model.tuning.vectors.weight.shape == (4, 4, 16)
    before = encode_class_names(model, processor, CLASS_NAMES)
    model.tuning.vectors.weight.data[2] += torch.randn(4, 16)
    moved = (encode_class_names(model, processor, CLASS_NAMES) - before).abs().amax(1) > 1e-5
    assert moved.tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="4 classes to prompts whose context was learned for each of 4 others"):
        encode_class_names(model, processor, CLASS_NAMES[::-1])


def test_context_that_leaves_no_room_for_a_name_is_refused_with_what_fits(processor):
    model = TextContext(num_tokens=14).prepare(two_blocks())
    with pytest.raises(ValueError, match="14 tokens.*take 19 of its 16 text positions.*num_tokens=11 or fewer"):
        encode_class_names(model, processor, CLASS_NAMES)
    fits = TextContext(num_tokens=11).prepare(two_blocks())
    assert encode_class_names(fits, processor, CLASS_NAMES).shape == (4, 24)


def test_more_blocks_of_prompts_than_a_tower_has_are_refused():
    with pytest.raises(ValueError, match="depth=9, but the text tower has 2 blocks and the vision tower 2. Pass 2"):
        DeepPrompts().prepare(two_blocks())


def test_deep_prompts_replace_those_of_the_block_before(processor):
    model = DeepPrompts(num_tokens=3, depth=2).prepare(two_blocks())
    lengths, ends = [], []
    for block in model.vision_model.encoder.layers:
        block.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
        block.register_forward_pre_hook(lambda module, args: ends.append(args[0][0, -3:]))
    embed(model)
    assert lengths == [20, 20]  # 16 patches, the class token, 3 prompts
    torch.testing.assert_close(ends[1], model.tuning.blocks[1]()[1])
    sides = [block.learned_on_text for block in model.tuning.blocks]
    assert sides == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "fare", "tuning": "text_context"}, "FARE with tuning 'text_context'.*sends no gradient"),
        ({"objective": "fare", "tuning": "peft", "tuning_kwargs": {"towers": "both"}}, "FARE with tuning 'peft'"),
        ({"tuning": "r_adapter", "peft_config": LoraConfig()}, "an adapter and tuning='r_adapter'"),
        ({"tuning": "r_adapter", "wise_ft": 0.5}, "wise_ft with tuning 'r_adapter'.*nothing to mix"),
    ],
)
def test_pairs_that_cannot_work_are_refused_with_the_reason(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options)


# ---- Averages of the weights ----


def test_mix_with_the_original_is_evaluated_and_saved_also_after_a_resume(tmp_path):
    options = {"wise_ft": 0.25, "max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tmp_path, **options)
    original = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    tuned = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert not torch.equal(tuned["visual_projection.weight"], original["visual_projection.weight"])
    expected = {name: 0.75 * value + 0.25 * tuned[name] for name, value in original.items()}
    with trainer.evaluation_model() as model:
        torch.testing.assert_close(dict(model.state_dict()), expected)
    torch.testing.assert_close(dict(trainer.model.state_dict()), tuned, rtol=0, atol=0)
    trainer.save_model(str(tmp_path / "saved"))
    torch.testing.assert_close(dict(load_model(str(tmp_path / "saved")).state_dict()), expected)
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    with resumed.evaluation_model() as model:
        torch.testing.assert_close(dict(model.state_dict()), expected)


def test_mix_takes_the_moving_average_for_the_tuned_weights(tmp_path):
    trainer = make_trainer(tmp_path, wise_ft=0.25, ema_decay=0.5, max_steps=3)
    original = trainer.model.visual_projection.weight.detach().clone()
    trainer.train()
    average = trainer.average.values["visual_projection.weight"]
    with trainer.evaluation_model() as model:
        torch.testing.assert_close(model.visual_projection.weight, 0.75 * original + 0.25 * average)


def test_average_is_evaluated_and_saved_and_training_goes_on_from_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, ema_decay=0.9, max_steps=3, eval_dataset=make_images(8))
    weight, seen = trainer.model.visual_projection.weight, []
    expected = weight.detach().clone()

    class Follow(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(weight.detach().clone())

    trainer.add_callback(Follow())
    trainer.train()
    for value in seen:
        expected = 0.9 * expected + 0.1 * value
    with trainer.evaluation_model() as model:
        torch.testing.assert_close(model.visual_projection.weight, expected)
    assert torch.equal(trainer.model.visual_projection.weight, seen[-1])
    trainer.save_model(str(tmp_path / "saved"))
    torch.testing.assert_close(load_model(str(tmp_path / "saved")).visual_projection.weight, expected)
    plain = make_trainer(tmp_path / "plain", max_steps=3)
    plain.train()
    assert torch.equal(plain.model.visual_projection.weight, seen[-1])


def test_before_the_first_step_the_model_is_evaluated_as_it_came(tmp_path):
    plain = make_trainer(tmp_path / "plain", eval_dataset=make_images(8))
    for tuning in ("text_context", "deep_prompts"):
        options = {"tuning": tuning, "tuning_kwargs": {"num_tokens": 2, **({"depth": 1} if tuning[0] == "d" else {})}}
        trainer = make_trainer(tmp_path / tuning, eval_dataset=make_images(8), max_steps=1, **options)
        assert trainer.evaluate_robustness().to_dict()["sets"] == plain.evaluate_robustness().to_dict()["sets"]
        want = plain.predict(make_images(4)).predictions
        np.testing.assert_allclose(trainer.predict(make_images(4)).predictions, want, rtol=0, atol=1e-5)
        trainer.train()
        assert abs(trainer.predict(make_images(4)).predictions - want).max() > 1e-3
        again = make_trainer(tmp_path / "again", model=trainer.model, eval_dataset=make_images(8))
        assert abs(again.predict(make_images(4)).predictions - want).max() > 1e-3


@pytest.mark.parametrize("tuning", ["text_context", "deep_prompts", "r_adapter"])
def test_training_and_evaluation_read_the_same_prompts(tmp_path, tuning):
    options = {"text_context": {"num_tokens": 3}, "deep_prompts": {"num_tokens": 3, "depth": 1}, "r_adapter": {}}
    trainer = make_trainer(tmp_path, tuning=tuning, tuning_kwargs=options[tuning], max_steps=2, learning_rate=1e-2)
    trainer.train()
    with trainer.evaluation_model() as model:
        evaluated = encode_class_names(model, trainer.processing_class, CLASS_NAMES, "a photo of the {}")
        trained = trainer.step.live_texts(model)["class_embeds"]
    torch.testing.assert_close(trained, evaluated)
    assert (trained - trainer.class_embeds).abs().max() > 1e-3
    if tuning != "r_adapter":  # start token, places, name, end token
        start = trainer.processing_class.tokenizer.bos_token_id
        assert trainer.step.live_prompts["class_embeds"].input_ids[:, :4].eq(start).all()
