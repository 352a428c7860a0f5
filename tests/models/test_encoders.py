"""Feature objectives with any image encoder as teacher or student, without labels or text; heads on their features."""

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig
from support.families import ENCODER, MEAN, STD, image_processor, make
from support.tiny import CLASS_NAMES, SIZE, make_images, make_model, make_processor
from support.trainers import losses, state
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from hf_pmgaft import (
    LinearProbe,
    NearestClassMean,
    PMGAFTConfig,
    PMGAFTTrainer,
    SamplePictures,
    evaluate_robustness,
    load_model,
)
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.models.backbones import ENCODERS, get_encoder

ATTACK = {"attack": "pgd", "eps": "8/255", "norm": "linf", "num_steps": 3, "loss": "margin"}
# No true gradient: it shifts all of a query's attention scores alike. It is a third of SigLIP's pooling bias.
NO_GRADIENT = ("k_proj.bias", "in_proj_bias")
encoders = pytest.mark.parametrize("name", sorted(ENCODER))


def labelled(count: int = 16, seed: int = 0, name: str = "toy") -> ZeroShotDataset:
    return ZeroShotDataset(make_images(count, seed), image_processor(), name=name)


def make_trainer(tmp_path, model, **options) -> PMGAFTTrainer:
    arguments = dict(
        output_dir=str(tmp_path),
        objective="fare",
        eps="8/255",
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        learning_rate=2e-3,
        max_steps=2,
        logging_steps=1,
        eval_num_steps=2,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    extra = {"train_dataset": make_images(8), "processing_class": image_processor(), **options}
    arguments.update({key: extra.pop(key) for key in list(extra) if key in arguments})
    return PMGAFTTrainer(model=model, args=PMGAFTConfig(**arguments), **extra)


def pixels(size: int = SIZE) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_every_row_has_a_tiny_encoder_here():
    assert set(ENCODER) == set(ENCODERS)


# ---- Students and teachers ----


def test_sample_pictures_of_an_encoder_without_text_are_by_its_head(tmp_path):
    head = NearestClassMean(labelled(8, seed=1))
    trainer = make_trainer(tmp_path, make("Dinov2Model"), eval_dataset={"toy": labelled(8)}, head=head)
    pictures = SamplePictures(trainer)
    trainer.add_callback(pictures)

    trainer.evaluate()

    stands = trainer.last_report.sets[0].verdicts["robust"]
    right = [int(p == label) for p, label in zip(pictures.predictions["model"], pictures.labels, strict=True)]
    assert len(right) == 8 and trainer.last_report.picture is not None
    assert all(kept <= found for kept, found in zip((stands[row] for row in pictures.rows), right, strict=True))


@encoders
def test_an_encoder_without_text_is_trained_saved_loaded_and_evaluated(tmp_path, name):
    model = make(name)
    before = state(model)
    head = NearestClassMean(labelled(8, seed=1))
    trainer = make_trainer(tmp_path, model, eval_dataset={"toy": labelled(8)}, head=head)

    trainer.train()
    trainer.save_model()
    metrics = trainer.evaluate()

    trained = {key for key, _ in trainer.backbone.vision_parameters(model)}
    changed = {key for key, value in state(model).items() if not torch.equal(value, before[key])}
    assert changed <= trained and not {key for key in trained - changed if not key.endswith(NO_GRADIENT)}
    assert 0 <= metrics["eval_toy_robust_accuracy"] <= metrics["eval_toy_clean_accuracy"] <= 1
    reloaded, encoder = load_model(str(tmp_path)), get_encoder(model)
    assert type(reloaded) is type(model)
    expected = encoder.image_embeds(model.eval(), pixels())
    torch.testing.assert_close(encoder.image_embeds(reloaded, pixels()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["Dinov2Model", "ViTModel", "DINOv3ViTModel", "DeiTModel"])
def test_the_embedding_is_the_class_token(name):
    model = make(name)

    embeds = get_encoder(model).image_embeds(model, pixels())

    torch.testing.assert_close(embeds, model(pixel_values=pixels()).last_hidden_state[:, 0], rtol=0, atol=0)


def test_a_self_supervised_teacher_guides_clip_by_its_own_pixels_size_and_class_token(tmp_path):
    torch.manual_seed(0)
    config = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=8, patch_size=4)
    teacher, model = Dinov2Model(Dinov2Config(**config)).eval(), make_model()
    own = image_processor()
    own.image_mean, own.image_std = [0.5] * 3, [0.5] * 3
    options = dict(processing_class=make_processor(), teacher=teacher, teacher_processor=own, max_steps=1)
    trainer = make_trainer(tmp_path, model, **options)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    embeds = trainer.step.guide.embed(images)
    trainer.train()

    small = F.interpolate(images, size=(8, 8), mode="bicubic", align_corners=False)
    expected = teacher(pixel_values=(small - 0.5) / 0.5).last_hidden_state[:, 0]
    torch.testing.assert_close(embeds, expected, atol=1e-5, rtol=1e-5)
    assert losses(trainer)[0] > 1  # the distance to another encoder, not to itself


@pytest.mark.parametrize("objective", ["fare", "sim_clip"])
def test_labels_are_not_needed_where_none_are_used(tmp_path, objective):
    bare = make_images(8).remove_columns("label")
    with_labels = make_trainer(tmp_path / "a", make("Dinov2Model"), objective=objective)
    without = make_trainer(tmp_path / "b", make("Dinov2Model"), objective=objective, train_dataset=bare)

    with_labels.train()
    without.train()

    assert losses(without) == losses(with_labels) and losses(without)[-1] != 0


def test_an_adapter_in_an_encoder_has_the_encoder_without_it_as_its_teacher(tmp_path):
    model = make("Dinov2Model")
    before = get_encoder(model).image_embeds(model, pixels()).detach()
    trainer = make_trainer(tmp_path, model, peft_config=LoraConfig(r=2, init_lora_weights="gaussian"))

    trainer.train()

    trained = [key for key, value in trainer.model.named_parameters() if value.requires_grad]
    assert trained and all("lora_" in key for key in trained)
    torch.testing.assert_close(trainer.step.guide.encode_image(pixels()), before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(trainer.backbone.image_embeds(trainer.model, pixels()), before, atol=1e-4)


def test_what_has_no_text_is_refused_where_text_is_needed(tmp_path):
    model = make("Dinov2Model")
    with pytest.raises(
        ValueError, match="objective TeCoA with a Dinov2Model, which has no text tower.*fare, sim_clip"
    ):
        make_trainer(tmp_path, model, objective="tecoa")
    with pytest.raises(ValueError, match="eval_dataset with a Dinov2Model.*Pass `head`, such as NearestClassMean"):
        make_trainer(tmp_path, model, eval_dataset={"toy": labelled()})
    with pytest.raises(TypeError, match="Dinov2Model, but .* a text tower.*evaluation with a `head`"):
        evaluate_robustness(model, image_processor(), [labelled()], progress=False)
    with pytest.raises(TypeError, match="Dinov2Model, but .* a text tower"):
        make_trainer(tmp_path, model).predict(make_images(8))


def test_a_teacher_of_another_width_is_refused_by_its_numbers(tmp_path):
    with pytest.raises(ValueError, match="a Dinov2Model, have 32 dimensions, the model's 24.*Pass a teacher of the"):
        make_trainer(tmp_path, make_model(), teacher=make("Dinov2Model"))


def test_a_model_of_no_known_family_is_refused():
    with pytest.raises(
        TypeError, match="You passed a Linear, but .*Pass one of: .*CLIPModel.* also take: .*Dinov2Model"
    ):
        get_encoder(nn.Linear(2, 2))


# ---- Heads ----


def test_the_nearest_class_mean_is_the_closed_form():
    features = F.normalize(torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-4.0, 3.0]]), dim=1)
    labels = torch.tensor([0, 0, 1, 1])

    means, scale, bias = NearestClassMean(None).solve(features, labels, 2)

    # (1, 0) + (0.6, 0.8) = (1.6, 0.8) and (0, 1) + (-0.8, 0.6) = (-0.8, 1.6), both of norm 0.8 sqrt(5)
    torch.testing.assert_close(means, torch.tensor([[2.0, 1.0], [-1.0, 2.0]]) / 5**0.5)
    assert (scale, bias) == (100, 0)


def test_the_linear_probe_is_where_the_gradient_of_its_loss_vanishes():
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(40, 5, generator=generator), dim=1)
    labels = torch.randint(3, (40,), generator=generator)

    weight, scale, bias = LinearProbe(None, c=2.0).solve(features, labels, 3)

    residual = (features @ weight.T + bias).softmax(dim=1) - F.one_hot(labels, 3)
    torch.testing.assert_close(residual.T @ features + weight / 2.0, torch.zeros(3, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(residual.sum(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    assert scale == 1 and weight.abs().max() > 0.1


@pytest.mark.parametrize("head", [NearestClassMean, LinearProbe])
def test_a_head_classifies_by_unit_features_and_is_attacked_as_any_classifier(head):
    model, support, data = make("Dinov2Model"), labelled(32, seed=1), labelled(16)

    report = evaluate_robustness(model, image_processor(), [data], [ATTACK], head=head(support), progress=False)

    def features(data: ZeroShotDataset) -> torch.Tensor:
        images = torch.stack([data[row]["images"] for row in range(len(data))])
        normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        with torch.no_grad():
            return F.normalize(model(pixel_values=normalised).last_hidden_state[:, 0], dim=1)

    labels = torch.tensor([support[row]["labels"] for row in range(len(support))])
    weight, _, bias = head(support).solve(features(support), labels, len(CLASS_NAMES))
    right = (features(data) @ weight.T + bias).argmax(1) == torch.tensor([data[i]["labels"] for i in range(len(data))])
    (result,) = report.sets
    assert result.clean_accuracy == right.float().mean().item() > 0.5
    assert result.robust_accuracy < result.clean_accuracy
    assert not report.flags


def test_a_head_serves_a_dual_encoder_too(processor):
    support, data = (ZeroShotDataset(make_images(16, seed), processor, name="toy") for seed in (1, 0))
    head = NearestClassMean(support)

    report = evaluate_robustness(make_model(), processor, [data], [ATTACK], head=head, progress=False)

    assert report.protocol["head"]["name"] == "NearestClassMean"


def test_the_protocol_names_the_head_and_its_support():
    model = make("Dinov2Model")

    def protocol(head) -> dict:
        return evaluate_robustness(
            model, image_processor(), [labelled(4)], [ATTACK], head=head, probes=False, progress=False
        ).protocol

    one, other = protocol(LinearProbe(labelled(8, seed=1), c=3.0)), protocol(LinearProbe(labelled(8, seed=2), c=3.0))

    assert one["head"]["name"] == "LinearProbe" and one["head"]["c"] == 3.0
    assert one["head"]["support"]["toy"]["num_samples"] == 8
    assert one["head"]["support"]["toy"]["images"] != other["head"]["support"]["toy"]["images"]


def test_a_support_set_that_cannot_serve_is_refused():
    model, data = make("Dinov2Model"), labelled(8)

    def fit(support) -> None:
        NearestClassMean(support).fit(model, image_processor(), data)

    renamed = ZeroShotDataset(make_images(8), image_processor(), class_names=["a", "b", "c", "d"], name="renamed")
    with pytest.raises(ValueError, match="no support set for 'toy'; it has \\['other'\\]"):
        fit({"other": data})
    with pytest.raises(ValueError, match="'renamed' has other classes than 'toy'"):
        fit(renamed)
    with pytest.raises(ValueError, match="no image of 1 of the 4 classes, such as 'yellow square'"):
        fit(ZeroShotDataset(make_images(3), image_processor(), name="few"))
