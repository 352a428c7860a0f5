"""Every family of dual encoders: what is listed in the table is tested by being listed."""

import pytest
import torch
import transformers
from peft import LoraConfig
from support.families import DUAL, make
from support.tiny import CLASS_NAMES, make_images
from support.trainers import make_trainer, state
from torch import nn
from transformers import AutoModel

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotClassifier, at_resolution, encode_class_names, load_model
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.engines import prepare_for_engines
from hf_pmgaft.models.backbones import BACKBONES, REFUSED, get_backbone, get_encoder
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.zero_shot import ClassPrompts

TEMPLATE = "a photo of the {}"
# No true gradient: it shifts all of a query's attention scores alike. It is a third of SigLIP's pooling bias.
NO_GRADIENT = ("k_proj.bias", "in_proj_bias")
families = pytest.mark.parametrize("name", sorted(DUAL))


def pixels(size: int = 16, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def own_logits(model, processor, pixel_values: torch.Tensor) -> torch.Tensor:
    """As the model card of the family says: the processor's tokens, SigLIP's at full length, and forward."""
    prompts = [TEMPLATE.format(name) for name in CLASS_NAMES]
    siglip = isinstance(model, transformers.SiglipModel)
    tokens = processor.tokenizer(prompts, padding="max_length" if siglip else True, return_tensors="pt")
    texts = {key: tokens[key] for key in (["input_ids"] if siglip else ["input_ids", "attention_mask"])}
    with torch.no_grad():
        return model(pixel_values=pixel_values, **texts).logits_per_image


def zero_shot_logits(model, processor, pixel_values: torch.Tensor) -> torch.Tensor:
    embeds = encode_class_names(model, processor, CLASS_NAMES, TEMPLATE)
    classifier = ZeroShotClassifier.from_model(model, processor, embeds)
    return classifier.logits(classifier.encode_image(pixel_values))


def test_every_row_has_a_tiny_model_here():
    assert {name.split()[0] for name in DUAL} == set(BACKBONES)


@families
def test_logits_are_the_familys_own(name, processor):
    model = make(name)

    logits = zero_shot_logits(model, processor, pixels())

    expected = own_logits(model, processor, pixels())
    assert expected.std(dim=1).min() > 1e-3  # there is something to compare
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@families
def test_the_teacher_is_a_copy_that_computes_the_same_and_does_not_follow(name):
    model = make(name)
    backbone = get_backbone(model)
    before = backbone.image_embeds(model, pixels()).detach()
    teacher = backbone.vision_copy(model)

    with torch.no_grad():
        for _, parameter in backbone.vision_parameters(model):
            parameter.add_(0.1)

    # Where nothing has a gradient torch pools SigLIP's tokens by another kernel.
    torch.testing.assert_close(teacher(pixels()), before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(backbone.image_embeds(model, pixels()), before, atol=1e-2)
    assert before.shape[1] == backbone.width(model.config)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@families
def test_attacks_find_a_gradient_at_every_image(name, processor):
    model = make(name)
    embeds = encode_class_names(model, processor, CLASS_NAMES, TEMPLATE)
    classifier = ZeroShotClassifier.from_model(model, processor, embeds)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()

    loss = nn.functional.cross_entropy(classifier(images), torch.tensor([0, 1, 2]), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)

    assert (gradient.flatten(1).abs().amax(dim=1) > 0).all()


@families
def test_training_moves_the_vision_tower_alone_and_the_checkpoint_opens_with_equal_logits(tmp_path, name, processor):
    model = make(name)
    before = state(model)
    data = ZeroShotDataset(make_images(8), processor, prompt_templates=TEMPLATE, name="toy")
    trainer = make_trainer(tmp_path, model=model, max_steps=2, eval_dataset={"toy": data})

    trainer.train()
    trainer.save_model()
    metrics = trainer.evaluate()

    trained = {key for key, _ in trainer.backbone.vision_parameters(model)}
    changed = {key for key, value in state(model).items() if not torch.equal(value, before[key])}
    assert changed <= trained
    assert {key for key in trained - changed if not key.endswith(NO_GRADIENT)} == set()
    assert 0 <= metrics["eval_toy_robust_accuracy"] <= metrics["eval_toy_clean_accuracy"] <= 1
    reloaded = AutoModel.from_pretrained(tmp_path)
    assert type(reloaded) is type(model)
    expected = own_logits(reloaded, processor, pixels())
    torch.testing.assert_close(zero_shot_logits(model.eval(), processor, pixels()), expected, atol=1e-5, rtol=1e-5)


@families
def test_lora_sits_in_the_vision_tower_and_the_teacher_is_the_model_without_it(tmp_path, name):
    model = make(name)
    before = get_backbone(model).image_embeds(model, pixels()).detach()
    config = LoraConfig(r=2, init_lora_weights="gaussian")
    trainer = make_trainer(tmp_path, model=model, peft_config=config, max_steps=2)
    adapter = {key: value.clone() for key, value in trainer.model.named_parameters() if value.requires_grad}

    trainer.train()

    now = dict(trainer.model.named_parameters())
    assert adapter and all(
        "lora_" in key and "vision_model" in key and ".head.attention." not in key for key in adapter
    )
    assert all(not torch.equal(value, now[key]) for key, value in adapter.items())
    torch.testing.assert_close(trainer.step.guide.encode_image(pixels()), before, atol=1e-5, rtol=1e-5)
    adapted = trainer.backbone.image_embeds(trainer.model.eval(), pixels())
    assert not torch.allclose(adapted, before, atol=1e-4)
    trainer.save_merged(str(tmp_path / "merged"))
    merged = AutoModel.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(trainer.backbone.image_embeds(merged, pixels()), adapted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(name for name in DUAL if name != "VisionTextDualEncoderModel"))
def test_the_last_block_is_trained_with_all_that_follows_it(name):
    model = make(name)
    backbone = get_backbone(model)

    make_tuning("last_blocks", {"blocks": 1}).prepare(model)
    backbone.image_embeds(model, pixels()).square().sum().backward()

    first, last = (f"{backbone.vision_layers}.{i}." for i in (0, 1))
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    after = {key for key, _ in backbone.vision_parameters(model) if key.startswith(backbone.after_layers)}
    assert trained == {key for key, _ in model.named_parameters() if key.startswith(last)} | after
    assert after and not any(key.startswith(first) for key in trained)
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)


def test_blocks_of_a_tower_of_any_kind_are_not_guessed():
    with pytest.raises(
        ValueError, match="'last_blocks' with a VisionTextDualEncoderModel.*Pass tuning 'vision_tower'"
    ):
        make_tuning("last_blocks", {"blocks": 1}).prepare(make("VisionTextDualEncoderModel"))


@pytest.mark.parametrize("name", ["SiglipModel", "Aimv2Model"])
def test_the_patch_token_of_an_image_of_one_patch_is_its_embedding(name):
    # Pooling by attention over one patch is that patch.
    config = make(name).config
    config.vision_config.image_size = 4
    model = getattr(transformers, name)(config).eval()

    embeds, patches = get_backbone(model).image_and_patch_embeds(model, pixels(4))

    assert patches.shape[1:3] == (1, 1)
    torch.testing.assert_close(patches[:, 0, 0], embeds, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["CLIPModel", "MetaClip2Model", "ChineseCLIPModel", "AltCLIPModel", "BlipModel"])
def test_patch_tokens_go_the_way_of_the_class_token(name):
    model = make(name)
    backbone = get_backbone(model)

    embeds, patches = backbone.image_and_patch_embeds(model, pixels())

    output = model.vision_model(pixel_values=pixels())
    row_2_column_1 = model.visual_projection(model.vision_model.post_layernorm(output.last_hidden_state[:, 1 + 9]))
    torch.testing.assert_close(patches[:, 2, 1], row_2_column_1)
    torch.testing.assert_close(embeds, model.visual_projection(output.pooler_output))
    torch.testing.assert_close(backbone.vision_copy(model).with_patches(pixels()), (embeds, patches))


def test_register_tokens_are_no_patches():
    model = make("Tipsv2Model")
    hidden = model.vision_model(pixel_values=pixels()).last_hidden_state

    _, patches = get_backbone(model).image_and_patch_embeds(model, pixels())

    torch.testing.assert_close(patches.flatten(1, 2), hidden[:, 3:])


@pytest.mark.parametrize("role", ["model", "teacher"])
def test_an_objective_over_patches_is_refused_on_a_family_without_them(tmp_path, role):
    with pytest.raises(ValueError, match="patch tokens of a VisionTextDualEncoderModel.*CLIPModel"):
        make_trainer(tmp_path, objective="tga_zsr", **{role: make("VisionTextDualEncoderModel")})


@pytest.mark.parametrize("name", ["SiglipModel", "AltCLIPModel"])
def test_an_objective_over_patches_trains_families_that_have_them(tmp_path, name):
    trainer = make_trainer(tmp_path, model=make(name), objective="tga_zsr", max_steps=1)

    assert torch.isfinite(torch.tensor(trainer.train().training_loss))


def test_siglip_reads_texts_at_full_length_whatever_the_tokenizer_masks(processor):
    model = make("SiglipModel")
    backbone = get_backbone(model)
    short = processor.tokenizer([TEMPLATE.format("red disc")], return_tensors="pt")
    full = processor.tokenizer([TEMPLATE.format("red disc")], padding="max_length", return_tensors="pt")

    tokens = backbone.full_length(model, short["input_ids"], short["attention_mask"], pad_token_id=1)
    prompts = ClassPrompts.of(model, processor, CLASS_NAMES, TEMPLATE)

    assert torch.equal(tokens[0], full["input_ids"])
    assert tokens[1].all() and prompts.attention_mask.all() and prompts.input_ids.shape[1] == 16
    with torch.no_grad():
        expected = model(pixel_values=pixels(count=1), input_ids=full["input_ids"]).text_embeds
        torch.testing.assert_close(backbone.text_embeds(model, *tokens), expected, atol=1e-6, rtol=1e-5)


def test_captions_of_siglip_are_read_at_full_length_too(tmp_path, processor):
    rows = [{"image": row["image"], "caption": TEMPLATE.format(CLASS_NAMES[row["label"]])} for row in make_images(8)]
    trainer = make_trainer(tmp_path, rows, make("SiglipModel"), objective="advflyp", max_steps=1)
    lengths = []
    embeddings = trainer.model.text_model.embeddings
    embeddings.register_forward_hook(lambda module, args, output: lengths.append(output.shape[1]))

    trainer.train()

    assert set(lengths) == {2, 16}  # that of image passes, and all positions


@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel", "Tipsv2Model"])
def test_frozen_numbers_become_buffers_under_the_same_names(name):
    model = make(name)
    before = state(model)
    numbers = {key for key, value in model._parameters.items() if value.numel() == 1}

    prepare_for_engines(model)

    assert numbers and numbers == {key for key in model._buffers if "logit" in key or "temperature" in key}
    assert state(model).keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in state(model).items())


@pytest.mark.parametrize("tuning", ["text_context", "deep_prompts", "r_adapter"])
def test_what_is_added_beside_the_weights_trains_metaclip_2_and_is_refused_by_name_elsewhere(tmp_path, tuning):
    options = {"deep_prompts": {"depth": 1}, "text_context": {"num_tokens": 3}, "r_adapter": {}}[tuning]
    settings = dict(tuning=tuning, tuning_kwargs=options, max_steps=1)

    trainer = make_trainer(tmp_path, model=make("MetaClip2Model"), **settings)
    before = state(trainer.model.tuning)
    trainer.train()

    assert any(not torch.equal(value, before[key]) for key, value in state(trainer.model.tuning).items())
    with pytest.raises(ValueError, match="a SiglipModel with .*CLIPModel and MetaClip2Model.*'peft'"):
        make_trainer(tmp_path, model=make("SiglipModel"), **settings)


# ---- Other resolutions ----

INTERPOLATED = sorted({*BACKBONES, "Dinov2Model", "ViTModel"} - {"Aimv2Model"})
UNASKED = ("Dinov2Model", "Tipsv2Model")  # which interpolate whenever the size differs


def test_a_models_own_resolution_leaves_it_as_it_is(processor):
    model = make("CLIPModel")

    assert at_resolution(model, processor, 16) == (model, processor)


@pytest.mark.parametrize("name", INTERPOLATED)
def test_another_resolution_computes_what_interpolation_in_each_pass_would(name):
    model = make(name)
    encoder = model.vision_model if hasattr(model, "vision_model") else model
    option = {} if name in UNASKED else {"interpolate_pos_encoding": True}
    expected = encoder(pixel_values=pixels(24), **option).last_hidden_state

    larger, _ = at_resolution(model, None, 24)

    there = larger.vision_model if hasattr(larger, "vision_model") else larger
    torch.testing.assert_close(there(pixel_values=pixels(24)).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    assert get_encoder(larger).image_size(larger) == 24 and get_encoder(model).image_size(model) == 16


def test_a_model_at_another_resolution_is_trained_saved_and_evaluated_as_any_other(tmp_path, processor):
    larger, its_processor = at_resolution(make("CLIPModel"), processor, 24)
    data = ZeroShotDataset(make_images(8), its_processor, prompt_templates=TEMPLATE, name="toy")
    config = PMGAFTConfig(str(tmp_path), max_steps=1, eval_num_steps=2, use_cpu=True, disable_tqdm=True)
    options = dict(processing_class=its_processor, prompt_templates=TEMPLATE)
    trainer = PMGAFTTrainer(larger, config, train_dataset=make_images(8), **options)

    trainer.train()
    trainer.save_model()
    report = trainer.evaluate_robustness({"toy": data})

    reloaded, saved = load_model(str(tmp_path)), transformers.AutoProcessor.from_pretrained(tmp_path)
    assert data[0]["images"].shape == (3, 24, 24) and report.protocol["sets"]["toy"]["attacked_at"] == 24
    assert reloaded.config.vision_config.image_size == 24 and saved.image_processor.crop_size["height"] == 24
    expected = zero_shot_logits(larger.eval(), its_processor, pixels(24))
    torch.testing.assert_close(zero_shot_logits(reloaded, saved, pixels(24)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"peft_config": LoraConfig(r=2, init_lora_weights="gaussian")},
        {"tuning": "r_adapter"},
        {"tuning": "text_context", "tuning_kwargs": {"num_tokens": 2}},
    ],
    ids=["lora", "r_adapter", "text_context"],
)
def test_what_was_trained_beside_a_model_at_another_resolution_is_loaded_beside_it_at_that(
    tmp_path, processor, options
):
    make("CLIPModel").save_pretrained(tmp_path / "base")
    larger, its_processor = at_resolution(load_model(str(tmp_path / "base")), processor, 24)
    names = {key: options[key] for key in ("tuning", "tuning_kwargs") if key in options}
    config = PMGAFTConfig(str(tmp_path / "run"), max_steps=1, use_cpu=True, disable_tqdm=True, **names)
    settings = dict(processing_class=its_processor, prompt_templates=TEMPLATE, objective="tecoa")
    peft_config = options.get("peft_config")
    trainer = PMGAFTTrainer(larger, config, train_dataset=make_images(8), peft_config=peft_config, **settings)

    trainer.train()
    trainer.save_model()

    reloaded = load_model(str(tmp_path / "run"))
    with trainer.evaluation_model() as model:
        expected = zero_shot_logits(model, its_processor, pixels(24))
    torch.testing.assert_close(zero_shot_logits(reloaded, its_processor, pixels(24)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name, size, message", [("CLIPModel", 18, "multiple of the patch size"), ("Aimv2Model", 24, "Aimv2Model in which")]
)
def test_a_resolution_that_cannot_be_is_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        at_resolution(make(name), None, size)


# ---- What does not fit ----


def test_models_that_do_not_fit_are_refused_by_name_and_reason():
    towers = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = transformers.Siglip2Config(
        text_config={**towers, "vocab_size": 32, "projection_size": 16}, vision_config={**towers, "num_patches": 16}
    )

    with pytest.raises(TypeError, match="You passed a Siglip2Model.*sequences of patches.*Pass one of: .*SiglipModel"):
        get_backbone(transformers.Siglip2Model(config))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refused_name_is_a_class_of_transformers_and_is_not_listed_as_known(name):
    assert hasattr(transformers, name) and name not in BACKBONES


def test_a_vision_tower_alone_is_pointed_to_what_it_can_do():
    with pytest.raises(TypeError, match="CLIPVisionModel, but .* needs an image and a text.*fare, sim_clip.*`head`"):
        get_backbone(make("CLIPVisionModel"))
