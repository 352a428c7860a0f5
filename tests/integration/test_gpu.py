"""On a GPU as on the CPU: losses, verdicts, ranks and texts, from the same noise. Skipped where there is none."""

import copy
import math

import pytest
import torch
from support.emoji import CE, PGD, make_data, make_emoji
from support.pairs import OPTIONS, make
from support.tiny import fit_model, make_images
from support.trainers import digest, make_trainer
from transformers import CLIPModel, LlavaForConditionalGeneration, LlavaProcessor, TrainerCallback

from hf_pmgaft import VisionLanguageModel, attack_answers, swap_vision_tower
from hf_pmgaft.attacks import WITHOUT_BALL, input_gradient, normal_noise, sample_seeds, uniform_noise
from hf_pmgaft.data import ZeroShotDataset, load_images
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.modes import attack_context
from hf_pmgaft.objectives import OBJECTIVES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
GPU = {"use_cpu": False, "adam_epsilon": 1e-5}  # Adam's first step would be the sign of what is but round-off
ATTACKS = {
    "pgd, margin": {"attack": "pgd", "num_steps": 5, "loss": "margin"},
    "pgd in L2": {"attack": "pgd", "norm": "l2", "eps": 0.8, "num_steps": 5},
    "cw": {"attack": "cw", "norm": "l2", "eps": 0.8, "num_steps": 20},
    "apgd": {"attack": "apgd", "num_steps": 10},
    "apgd_t": {"attack": "apgd_t", "num_steps": 10},
    "fab_t": {"attack": "fab_t", "num_steps": 10},
    "square": {"attack": "square", "num_queries": 100},
    "apgd in L1": {"attack": "apgd", "norm": "l1", "eps": 8, "num_steps": 10},
    "patch": {"attack": "patch", "size": 4, "num_steps": 5},
    "corruption": {"attack": "corruption", "kind": "jpeg", "severity": 5},
}


# Whose first step asks for the gradient of an unsquared distance between equal features, which round-off points.
WITHOUT_DIRECTION = ("advflyp", "caw")


def lines_of(trainer) -> list[dict]:
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


@pytest.fixture(scope="module")
def fitted():
    return fit_model()


# ---- Training ----


def test_noise_is_that_of_the_cpu():
    seeds = sample_seeds(3, 7, torch.arange(5))
    assert torch.equal(seeds, sample_seeds(3, 7, torch.arange(5).cuda()).cpu())
    assert torch.equal(uniform_noise(seeds, (3, 16, 16)), uniform_noise(seeds.cuda(), (3, 16, 16)).cpu())
    assert torch.allclose(normal_noise(seeds, (3, 16, 16)), normal_noise(seeds.cuda(), (3, 16, 16)).cpu(), atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "tuning"),
    [(name, "vision_tower") for name in sorted(OBJECTIVES)] + [("pmg_aft", name) for name in sorted(OPTIONS)],
)
def test_a_step_loses_what_it_loses_on_the_cpu(tmp_path, objective, tuning):
    ours = lines_of(make(tmp_path / "gpu", objective, tuning, max_steps=2, **GPU))
    theirs = lines_of(make(tmp_path / "cpu", objective, tuning, max_steps=2, **{**GPU, "use_cpu": True}))
    for step, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        assert set(our) == set(their)
        if step and objective in WITHOUT_DIRECTION:
            break
        for key in set(our) - ({"grad_norm"} if step or objective in WITHOUT_DIRECTION else set()):
            assert our[key] == pytest.approx(their[key], rel=1e-2 if step else 1e-4, abs=1e-5), (step, key)


class NoWaiting(TrainerCallback):
    """From the batch to the optimizer's step, where the clipped norm is known."""

    steps = 0

    def on_step_begin(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("error")

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        torch.cuda.set_sync_debug_mode("default")
        self.steps += 1


@pytest.mark.parametrize(
    "options",
    [
        *({"objective": name} for name in sorted(OBJECTIVES) if not OBJECTIVES[name].uses_captions),
        {"attack": "shared"},
        {"norm": "l2", "attack_kwargs": {"momentum": 0.9, "restarts": 2}},
        {"augmentation": 1.0, "ema_decay": 0.9},
        {"bf16": True},
        {"attack_precision": "bf16"},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_the_host_does_not_wait_within_a_step(tmp_path, options):
    options = dict(options)
    build = make if "objective" in options else make_trainer
    chosen = (options.pop("objective"),) if "objective" in options else ()
    watch = NoWaiting()
    trainer = build(tmp_path, *chosen, max_steps=3, logging_steps=3, **GPU, **options)
    trainer.add_callback(watch)
    try:
        trainer.train()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.steps == 3


@pytest.mark.parametrize("tuning", ["vision_tower", "peft", "deep_prompts"])
@pytest.mark.parametrize("precision", HALF)
def test_half_precision_trains_float32_weights_towards_the_same(tmp_path, precision, tuning):
    half = make(tmp_path / precision, "pmg_aft", tuning, **GPU, **{precision: True})
    full = make(tmp_path / "full", "pmg_aft", tuning, **GPU)
    ours, theirs = lines_of(half), lines_of(full)
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], abs=0.02, rel=0.02)
    assert ours[0]["loss"] != pytest.approx(theirs[0]["loss"], rel=1e-6)  # it did run in lower precision
    for name, value in half.plain_model().named_parameters():
        assert value.dtype == torch.float32 and value.isfinite().all(), name
    scaler = getattr(half.accelerator, "scaler", None)
    assert (scaler is not None) == (precision == "fp16")
    if precision == "bf16":
        assert ours[0]["grad_norm"] == pytest.approx(theirs[0]["grad_norm"], rel=0.1)


def test_a_gradient_that_overflows_costs_a_step_and_not_the_run(tmp_path):
    class Scales(TrainerCallback):
        found = []

        def on_step_begin(self, args, state, control, **kwargs):
            self.before = digest(trainer)

        def on_step_end(self, args, state, control, **kwargs):
            self.found.append((trainer.accelerator.scaler.get_scale(), digest(trainer) == self.before))

    trainer = make_trainer(tmp_path, fp16=True, max_steps=4, **GPU)
    scales = Scales()
    trainer.add_callback(scales)
    trainer.accelerator.scaler._init_scale = 2.0**40
    lines = lines_of(trainer)
    assert scales.found[0] == (2.0**39, True)  # halved, and nothing moved
    assert len(lines) == 4 and all(math.isfinite(line["loss"]) for line in lines)


@pytest.mark.parametrize("precision", HALF)
def test_the_attack_has_its_gradient_in_half_precision(precision, tmp_path):
    trainer = make_trainer(tmp_path, **GPU)
    inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    classifier = trainer.step.student(trainer.model)
    images = inputs["pixel_values"] * classifier.std + classifier.mean
    signs = []
    for context in (torch.autocast("cuda", dtype=HALF[precision]), attack_context(trainer.model, "fp32")):
        with context:
            loss = lambda x: torch.nn.functional.cross_entropy(classifier(x), inputs["labels"], reduction="none")  # noqa: E731
            signs.append(input_gradient(loss, images).sign())
    assert (signs[0] == 0).float().mean() < 0.01  # none went to nothing
    assert (signs[0] == signs[1]).float().mean() > 0.9


def test_a_resumed_run_ends_bit_equal(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "augmentation": 0.5, **GPU}
    whole, resumed = (make_trainer(tmp_path / name, **options) for name in ("whole", "resumed"))
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert digest(resumed) == digest(whole)


def test_compiled_blocks_lose_what_plain_ones_lose(tmp_path):
    ours = lines_of(make_trainer(tmp_path / "compiled", torch_compile=True, **GPU))
    theirs = lines_of(make_trainer(tmp_path / "plain", **GPU))
    for our, their, tolerance in zip(ours, theirs, (1e-4, 1e-2, 1e-2), strict=True):
        assert our["loss"] == pytest.approx(their["loss"], rel=tolerance)


@pytest.mark.parametrize("options", [{}, {"torch_compile": True}, {"peft_config": None, "bf16": True}], ids=str)
def test_gradient_checkpointing_changes_nothing(tmp_path, options):
    ours = lines_of(make_trainer(tmp_path / "again", gradient_checkpointing=True, **GPU, **options))
    theirs = lines_of(make_trainer(tmp_path / "kept", **GPU, **options))
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-2 if "bf16" in options else 1e-4)


# ---- Evaluation ----


@pytest.mark.parametrize("attack", ATTACKS)
def test_verdicts_are_those_of_the_cpu_but_for_round_off(fitted, attack):
    model, processor = fitted
    data = ZeroShotDataset(make_images(40, seed=9), processor, None, "a photo of the {}", name="own")
    spec = {"eps": "20/255", **ATTACKS[attack]}
    if attack in WITHOUT_BALL:
        spec.pop("eps")
    options = {"progress": False, "probes": False}
    theirs = evaluate_robustness(model, processor, [data], [spec], **options)
    ours = evaluate_robustness(copy.deepcopy(model).cuda(), processor, [data], [spec], **options)
    assert ours.protocol["device"] == torch.cuda.get_device_name() != theirs.protocol["device"]
    ours, theirs = ours.sets[0].verdicts, theirs.sets[0].verdicts
    assert ours["clean"] == theirs["clean"]
    assert sum(a != b for a, b in zip(ours["robust"], theirs["robust"], strict=True)) <= 2  # of 40


def test_verdicts_do_not_depend_on_the_batch_but_for_round_off(fitted):
    model, processor = copy.deepcopy(fitted[0]).cuda(), fitted[1]
    data = ZeroShotDataset(make_images(40, seed=9), processor, None, "a photo of the {}", name="own")
    spec = {"eps": "20/255", **ATTACKS["pgd, margin"]}
    options = {"progress": False, "probes": False}
    reports = [evaluate_robustness(model, processor, [data], [spec], batch_size=size, **options) for size in (7, 40)]
    one, other = (report.sets[0].verdicts["robust"] for report in reports)
    assert 0 < sum(one) < 40 and sum(a != b for a, b in zip(one, other, strict=True)) <= 2


def test_ranks_are_those_of_the_cpu_but_for_round_off():
    model, processor = make_emoji()
    options = {"progress": False, "probes": False}
    data = make_data(processor)
    theirs = evaluate_robustness(model, processor, [data], [PGD, CE], **options)
    ours = evaluate_robustness(model.cuda(), processor, [data], [PGD, CE], **options)
    for our, their in zip(ours.sets, theirs.sets, strict=True):
        assert our.clean_accuracy == their.clean_accuracy
        assert our.robust_accuracy == pytest.approx(their.robust_accuracy, abs=0.05), our.figure


def test_a_llava_writes_and_is_attacked_as_on_the_cpu():
    from support.llava import pixels_of
    from support.paths import EMOJI

    model = LlavaForConditionalGeneration.from_pretrained(EMOJI / "llava")
    llava = VisionLanguageModel(model, LlavaProcessor.from_pretrained(EMOJI / "llava"))
    rows = load_images(str(EMOJI / "data"), "food", "test").select(range(0, 120, 10)).to_list()
    images, question = pixels_of(llava, rows), ["describe it"] * len(rows)
    texts = llava.write(images, question)
    theirs = attack_answers(llava, images, question, [["warning"]] * len(rows), eps="8/255", targeted=True)
    there = VisionLanguageModel(model.cuda(), llava.processor)
    assert there.write(images.cuda(), question) == texts
    still = attack_answers(there, images.cuda(), question, [["warning"]] * len(rows), eps=0, targeted=True)
    assert there.write(still, question) == texts
    ours = attack_answers(there, images.cuda(), question, [["warning"]] * len(rows), eps="8/255", targeted=True)
    assert ((ours.cpu() - theirs).abs() < 0.5 / 255).float().mean() > 0.8
    swap_vision_tower(there.model, CLIPModel.from_pretrained(EMOJI / "model").cuda())
    assert there.write(images.cuda(), question) == texts
