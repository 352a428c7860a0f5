"""Every objective with every tuning: what is listed in either dict is tested by being listed."""

import math
import sys
import types

import pytest
import torch
from datasets import load_dataset
from support.pairs import OPTIONS, make
from support.paths import EMOJI
from support.tiny import CLASS_NAMES, make_model
from support.trainers import losses, state
from transformers import AutoProcessor, CLIPModel

from hf_pmgaft import PMGAFTConfig, PMGAFTTrainer, ZeroShotClassifier, encode_class_names, load_model
from hf_pmgaft.models.backbones import unwrap_peft
from hf_pmgaft.objectives import OBJECTIVES
from hf_pmgaft.tuning import TUNINGS, attachment_of, without_tuning

LORA = {"r": 2, "target_modules": ["q_proj", "v_proj", "fc1"]}
LIVE = {"deep_prompts", "peft of both towers", "r_adapter", "text_context"}
PROMPTS = {"deep_prompts", "text_context"}
PAIRS = [(objective, tuning) for objective in sorted(OBJECTIVES) for tuning in sorted(OPTIONS)]
# No true gradient: it shifts all of a query's attention scores alike.
NO_GRADIENT = "k_proj.bias"


def impossible(objective: str, tuning: str) -> str | None:
    """What the refusal of a pair says, if it cannot work."""
    if tuning in LIVE and not OBJECTIVES[objective].uses_text:
        return "sends no gradient"
    if tuning in PROMPTS and OBJECTIVES[objective].uses_captions:
        return "places for class names alone"
    return None


def logits(model, processor) -> torch.Tensor:
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        texts = encode_class_names(model, processor, CLASS_NAMES, "a photo of the {}")
        return ZeroShotClassifier.from_model(model, processor, texts)(pixels)


def test_every_tuning_has_options_here():
    assert {name.split()[0] for name in OPTIONS} == set(TUNINGS)


@pytest.mark.parametrize(("objective", "tuning"), PAIRS, ids=lambda value: value.replace(" ", "_"))
def test_a_pair_trains_what_it_says_and_comes_back_as_it_was_saved(tmp_path, objective, tuning):
    if reason := impossible(objective, tuning):
        with pytest.raises(ValueError, match=reason):
            make(tmp_path, objective, tuning)
        return
    trainer = make(tmp_path, objective, tuning, max_steps=2)
    processor = trainer.processing_class
    before, plain = state(trainer.model), logits(make_model(), processor)
    guide = trainer.step.guide(images := torch.rand(2, 3, 16, 16))
    trainer.train()

    weights = trainer.objective.weights
    for line in (line for line in trainer.state.log_history if "loss" in line):
        assert set(weights) <= set(line) and all(math.isfinite(line[name]) for name in weights)
        assert line["loss"] == pytest.approx(sum(weights[name] * line[name] for name in weights), rel=1e-5)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    for name, value in trainer.model.state_dict().items():
        if not name.endswith(NO_GRADIENT):
            assert torch.equal(value, before[name]) != (name in trained), name
    torch.testing.assert_close(trainer.step.guide(images), guide, rtol=0, atol=0)
    if trainer.teacher.is_student:
        with without_tuning(trainer.model):
            torch.testing.assert_close(logits(unwrap_peft(trainer.model), processor), plain, rtol=1e-5, atol=1e-5)

    with trainer.evaluation_model() as live:
        tuned = logits(live, processor)
    assert (tuned - plain).abs().max() > 1e-4
    trainer.save_model(str(tmp_path / "saved"))
    again = load_model(str(tmp_path / "saved"), make_model() if trainer.teacher.is_student else None)
    torch.testing.assert_close(logits(again.eval(), processor), tuned, rtol=1e-5, atol=1e-4)

    if tuning in PROMPTS:
        with pytest.raises(ValueError, match="cannot be folded"):
            trainer.save_merged(str(tmp_path / "merged"))
        return
    trainer.save_merged(str(tmp_path / "merged"))
    merged, info = CLIPModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and attachment_of(merged) is None
    torch.testing.assert_close(logits(merged.eval(), processor), tuned, rtol=1e-5, atol=1e-4)


# Each objective as it trains the vision tower, and each tuning as PMG-AFT trains it.
ONCE = [(objective, "vision_tower") for objective in sorted(OBJECTIVES)]
ONCE += [("pmg_aft", tuning) for tuning in sorted(OPTIONS) if tuning != "vision_tower"]


@pytest.mark.parametrize(("objective", "tuning"), ONCE, ids=lambda value: value.replace(" ", "_"))
def test_resumed_training_ends_with_the_same_bits(tmp_path, objective, tuning):
    options = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.5}
    whole = make(tmp_path, objective, tuning, **options)
    whole.train()
    resumed = make(tmp_path, objective, tuning, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(resumed) == losses(whole)
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name
    for name, value in resumed.average.values.items():
        assert torch.equal(value, whole.average.values[name]), name


@pytest.mark.parametrize(("objective", "tuning"), ONCE, ids=lambda value: value.replace(" ", "_"))
def test_accumulation_is_one_large_batch(tmp_path, objective, tuning):
    runs = []
    for batch, steps in ((8, 1), (4, 2)):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        trainer = make(tmp_path / str(batch), objective, tuning, max_steps=2, **sizes)
        trainer.train()
        runs.append([line for line in trainer.state.log_history if "loss" in line])
    weights = trainer.objective.weights
    for one, other in zip(*runs, strict=True):
        assert other["loss"] == pytest.approx(sum(weights[name] * other[name] for name in weights), rel=1e-5)
        for name in weights:
            if not OBJECTIVES[objective].uses_captions:  # which contrast a batch, and see a smaller one
                assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("objective", "tuning"), ONCE, ids=lambda value: value.replace(" ", "_"))
def test_the_loss_falls_on_the_embedded_default(tmp_path, objective, tuning):
    data = load_dataset(str(EMOJI / "data"), "finetune", split="train").select(range(0, 16 * 40, 40))
    if OBJECTIVES[objective].uses_captions:
        data = data.rename_column("tags", "captions")

    options = {**OPTIONS[tuning], "rescale": 1.0} if tuning == "r_adapter" else OPTIONS[tuning]
    prompts = tuning in PROMPTS
    args = PMGAFTConfig(
        output_dir=str(tmp_path),
        objective=objective,
        tuning=tuning.split()[0],
        tuning_kwargs=options,
        eps="2/255",
        learning_rate=1e-2 if prompts else 5e-3 if tuning.startswith("peft") else 3e-4,
        lr_scheduler_type="constant",
        max_steps=8,
        per_device_train_batch_size=16,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = PMGAFTTrainer(
        str(EMOJI / "model"),
        args,
        train_dataset=data,
        processing_class=AutoProcessor.from_pretrained(str(EMOJI / "model")),
        prompt_templates="an emoji of {}",
    )

    if tuning == "vision_tower":  # away from its teacher, where several losses are zero
        torch.manual_seed(0)
        for parameter in trainer.model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.data.add_(0.1 * parameter.std() * torch.randn_like(parameter))

    trainer.train()
    curve = losses(trainer)
    assert max(curve[-2:]) < 0.95 * curve[0], curve


def test_the_method_that_the_page_adds_trains_once_it_is_listed(tmp_path, monkeypatch):
    page = (EMOJI.parents[1] / "docs/add_a_method.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    module = types.ModuleType("hf_pmgaft.objectives.mart")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, module.__name__, "exec"), module.__dict__)
    monkeypatch.setitem(OBJECTIVES, "mart", module.MART)
    trainer = make(tmp_path, "mart", objective_kwargs={"lam": 2.0}, max_steps=2)
    assert trainer.objective.lam == 2.0
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["loss"] == pytest.approx(line["boosted_ce"] + 2 * line["weighted_kl"], rel=1e-5)
    assert line["boosted_ce"] > 0 and line["weighted_kl"] > 0
