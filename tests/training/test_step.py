"""One step of training: alone in a loop of one's own, and as the trainer takes it."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor
from support.trainers import make_trainer, state
from support.tuned import shake
from torch import nn

from hf_pmgaft import AdversarialStep
from hf_pmgaft.objectives import PMGAFT
from hf_pmgaft.tuning import without_tuning

TEMPLATE = "a photo of the {}"


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    images = make_images(8)
    pixel_values = make_processor().image_processor(list(images["image"]), return_tensors="pt")["pixel_values"]
    return {"pixel_values": pixel_values, "labels": torch.tensor(images["label"]), "sample_id": torch.arange(8)}


def make_step(model: nn.Module, **options) -> AdversarialStep:
    options = {"eps": "8/255", "num_steps": 2, "prompt_templates": TEMPLATE, **options}
    return AdversarialStep.of(model, make_processor(), CLASS_NAMES, **options)


def test_a_loop_of_one_s_own_learns_in_the_vision_tower_alone(batch):
    model = make_model()
    step, before = make_step(model, objective="tecoa"), state(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for number in range(20):
        loss = step(model, batch, number).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("vision_model.", "visual_projection.")) for name in changed)


@pytest.mark.parametrize("objective", ["pmg_aft", "fare", "tga_zsr", "comp_tga"])
def test_the_trainer_takes_the_same_step(tmp_path, batch, objective):
    trainer = make_trainer(tmp_path, objective=objective, num_steps=2, eps="8/255")
    alone, model = make_model(), trainer.model
    ours = make_step(alone, objective=objective, seed=trainer.args.seed)(alone, batch, 0)
    loss = trainer.compute_loss(model, batch)
    assert torch.equal(ours.loss, loss)
    means = trainer.means.pop()
    assert means == {name: pytest.approx(mean.item(), rel=1e-6) for name, mean in ours.means.items()}
    ours.loss.backward()
    loss.backward()
    for (name, one), other in zip(alone.named_parameters(), model.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        assert one.grad is None or torch.equal(one.grad, other.grad), name


def test_a_step_follows_from_seed_number_and_sample_id(batch):
    model = make_model()
    step = make_step(model)
    loss = step(model, batch, 3).loss
    assert torch.equal(loss, step(model, batch, 3).loss)
    assert not torch.equal(loss, step(model, batch, 4).loss)
    assert not torch.equal(loss, step(model, {**batch, "sample_id": torch.arange(8) + 8}, 3).loss)
    assert not torch.equal(loss, make_step(model, seed=1)(model, batch, 3).loss)


def test_the_loss_is_the_weighted_sum_of_the_means_of_its_terms(batch):
    model = make_model()
    step = make_step(model, objective=PMGAFT(alpha=2.0, beta=0.5))
    shake(model)  # away from its teacher
    result = step(model, batch, 0)
    weights = {"adversarial_ce": 1.0, "teacher_kl": 2.0, "clean_kl": 0.5}
    assert min(result.means[name] for name in weights) > 1e-6
    torch.testing.assert_close(result.loss, sum(weights[name] * result.means[name] for name in weights))
    right = (result.logits.argmax(1) == batch["labels"]).float().mean()
    assert result.means["adversarial_accuracy"] == right


def test_terms_that_are_sums_are_over_all_batches_whose_losses_are_averaged(batch):
    model = make_model()
    objective = PMGAFT(kl_reduction="sum", alpha=2.0)
    step = AdversarialStep.of(model, make_processor(), CLASS_NAMES, objective=objective, eps="8/255", num_steps=2)

    alone = step(model, batch, step=0)
    fourth = step(model, batch, step=0, accumulated=4)

    means, sums = ("adversarial_ce", "adversarial_accuracy"), ("teacher_kl", "clean_kl")
    assert all(fourth.means[name] == alone.means[name] for name in means)
    assert all(fourth.means[name] == 4 * alone.means[name] for name in sums)
    assert alone.means["clean_kl"] > 0
    expected = sum(weight * fourth.means[name] for name, weight in objective.weights.items())
    torch.testing.assert_close(fourth.loss.detach(), expected)


def test_the_attack_leaves_gradients_and_modes_alone_and_stays_in_its_ball(batch):
    model = make_model().train()
    result = make_step(model)(model, batch, 0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    change = (result.student.adversarial - result.student.clean).abs()
    assert 0 < change.max() <= 8 / 255 + 1e-6


def test_an_objective_without_attack_shows_its_clean_logits(batch):
    model = make_model()
    result = make_step(model, objective="clean")(model, batch, 0)
    assert result.student.adversarial is None
    assert torch.equal(result.logits, result.student.clean_logits)


def test_a_teacher_that_is_the_student_without_its_adapter_stays_as_it_was(batch):
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    with without_tuning(model):
        plain = make_model().get_image_features(batch["pixel_values"]).pooler_output
    step = make_step(model)
    step(model, batch, 0)
    assert step.teacher.is_student
    torch.testing.assert_close(step.teacher.encode(batch["pixel_values"]), plain, rtol=1e-5, atol=1e-5)
    assert not step.teacher.encode(batch["pixel_values"]).requires_grad
