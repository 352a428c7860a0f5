"""What keeps a training step fast, asserted by what is computed and kept, not by the clock."""

import contextlib
import copy
from collections import Counter

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from support.pairs import make
from support.paths import EMOJI
from support.tiny import make_images
from support.trainers import LORA, losses, make_trainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from hf_pmgaft.cli.train_arguments import DataArguments
from hf_pmgaft.cli.train_setup import load_training_set
from hf_pmgaft.data import ImageClassificationDataset, few_shot
from hf_pmgaft.objectives import OBJECTIVES

# What makes the host wait for a GPU: reading a value, a shape that depends on values, and a constant that is made of
# Python numbers and so copied over.
WAITS = {"_local_scalar_dense", "equal", "lift_fresh", "masked_select", "nonzero"}
# A text pass makes it wait in transformers, which looks whether the mask hides anything: once in captions and live
# prompts, never in class prompts that are encoded before training.
WITHOUT_TEXT_PASSES = sorted(name for name, objective in OBJECTIVES.items() if not objective.uses_captions)


class NoWaiting(TorchDispatchMode):
    """Refuses every operation for which the host would wait for a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(x is not None and x.dtype == torch.bool for x in args[1])
        if by_mask or name in WAITS:
            raise AssertionError(f"the host waits in {function}")
        return function(*args, **(kwargs or {}))


class NoCopying(TorchFunctionMode):
    """Likewise what would copy to the host; on the CPU there is nothing to copy, and the operation is never called."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.tolist, torch.Tensor.cpu, torch.Tensor.numpy):
            raise AssertionError(f"the host waits in {function}")
        return function(*args, **(kwargs or {}))


class NoWaitingInSteps(TrainerCallback):
    """From the batch to the clipped gradients; on the CPU the optimizer's own step count is a tensor that it reads."""

    def __init__(self):
        self.steps, self.stack = 0, contextlib.ExitStack()

    def on_step_begin(self, args, state, control, **kwargs):
        self.stack.enter_context(NoCopying())
        self.stack.enter_context(NoWaiting())

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.stack.close()
        self.steps += 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor(1.0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
    ],
)
def test_waiting_would_be_seen(wait):
    with NoCopying(), NoWaiting(), pytest.raises(AssertionError, match="host waits"):
        wait(torch.ones(3))


def train_without_waiting(trainer):
    watch = NoWaitingInSteps()
    trainer.add_callback(watch)
    trainer.train()
    assert watch.steps == 2


@pytest.mark.parametrize("objective", WITHOUT_TEXT_PASSES)
def test_no_objective_makes_the_host_wait_within_a_step(tmp_path, objective):
    train_without_waiting(make(tmp_path, objective, max_steps=2, logging_steps=2))


@pytest.mark.parametrize("tuning", ["last_blocks", "peft"])
def test_no_tuning_of_the_vision_tower_makes_the_host_wait_within_a_step(tmp_path, tuning):
    train_without_waiting(make(tmp_path, "pmg_aft", tuning, max_steps=2, logging_steps=2))


@pytest.mark.parametrize(
    "options",
    [
        {"attack": "fgsm"},
        {"attack": "shared"},
        {"norm": "l2", "attack_kwargs": {"momentum": 0.9}},
        {"attack_kwargs": {"restarts": 2, "loss": "dlr"}},
        {"attack_kwargs": {"start_std": 0.001, "loss": "margin"}},
        {"augmentation": 1.0, "ema_decay": 0.9},
        {"attack_precision": "bf16"},
    ],
    ids=str,
)
def test_no_attack_makes_the_host_wait_within_a_step(tmp_path, options):
    train_without_waiting(make_trainer(tmp_path, max_steps=2, logging_steps=2, **options))


@pytest.mark.parametrize("peft_config", [None, LoraConfig(**LORA)], ids=["whole tower", "LoRA"])
def test_the_optimizer_holds_what_is_trained_and_nothing_of_the_text_tower(tmp_path, peft_config):
    trainer = make_trainer(tmp_path, peft_config=peft_config)
    optimizer = trainer.create_optimizer()
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    held = {names[parameter] for group in optimizer.param_groups for parameter in group["params"]}
    assert held and held == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    # What DDP puts into buckets, and what has an optimizer state, is what requires a gradient.
    assert not any("text" in name or "logit_scale" in name for name in held)


def test_gradients_and_the_graph_are_gone_when_a_step_ends(tmp_path):
    class Watch(TrainerCallback):
        before, after = [], []

        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            self.before.append(sum(parameter.grad is not None for parameter in model.parameters()))

        def on_step_end(self, args, state, control, model, **kwargs):
            self.after.append(sum(parameter.grad is not None for parameter in model.parameters()))

    watch = Watch()
    trainer = make_trainer(tmp_path, max_steps=2, callbacks=[watch])
    trainer.train()
    assert min(watch.before) > 0 and watch.after == [0, 0]
    assert not any(value.requires_grad for value in trainer.means.tensors())


@pytest.mark.parametrize("peft_config", [None, LoraConfig(**LORA)], ids=["whole tower", "LoRA"])
def test_gradient_checkpointing_computes_the_training_pass_twice_and_the_attack_once(tmp_path, peft_config):
    passes = {}
    for checkpointing in (False, True):
        trainer = make_trainer(
            tmp_path / str(checkpointing), peft_config=peft_config, max_steps=1, gradient_checkpointing=checkpointing
        )
        passes[checkpointing] = count = Counter()
        for name, module in trainer.model.named_modules():
            if "vision" in name and name.endswith("layer_norm1"):  # within what a layer checkpoints
                module.register_forward_pre_hook(
                    lambda module, *_, count=count: count.update(["training" if module.training else "eval"])
                )
        trainer.train()
    # Two layers; K = 2 steps of the attack (LoRA's teacher is the same weights), then both views.
    evaluated = 2 * 2 + (0 if peft_config is None else 2)
    assert passes[False] == {"eval": evaluated, "training": 2 * 2}
    assert passes[True] == {"eval": evaluated, "training": 2 * 2 * 2}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The rows whose images are decoded."""
    rows, pixels = [], ImageClassificationDataset.pixels

    def note(self, value, row):
        rows.append(row)
        return pixels(self, value, row)

    monkeypatch.setattr(ImageClassificationDataset, "pixels", note)
    return rows


def test_kept_images_make_the_same_run_and_are_decoded_once(tmp_path, processor, decoded):
    runs = []
    for kept in (False, True):
        data = ImageClassificationDataset(make_images(16), processor)
        # Six steps of eight images: three epochs, each in an order of its own.
        trainer = make_trainer(tmp_path, data.cached(2**20) if kept else data, max_steps=6, augmentation=0.5)
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == runs[1] and len(runs[0]) == 6
    assert sorted(decoded[48:]) == list(range(16)) and len(decoded) == 3 * 16 + 16


def test_images_are_kept_as_far_as_the_memory_reaches(processor, decoded):
    size = 3 * 16 * 16 * 4
    data = ImageClassificationDataset(make_images(4), processor).cached(2 * size + 1)
    for _ in range(2):
        for row in range(4):
            assert data[row]["sample_id"] == row
    assert decoded == [0, 1, 2, 3, 2, 3]
    with pytest.raises(ValueError, match="keeps nothing"):
        data.cached(0)


def test_kept_images_of_a_subset_are_its_own(processor):
    data = ImageClassificationDataset(make_images(8), processor)
    subset = few_shot(data, 1).cached(2**20)
    for _ in range(2):
        for index, row in enumerate(subset.sample_ids):
            assert torch.equal(subset[index]["pixel_values"], data[row]["pixel_values"])


def test_images_of_a_stream_cannot_be_kept(processor):
    data_args = DataArguments(dataset_name=f"{EMOJI / 'data'}:finetune", streaming=True, cache_images=1)
    with pytest.raises(ValueError, match="cache_images=1 with streaming.*Leave one"):
        load_training_set(data_args, processor, seed=0)


def test_compiled_blocks_serve_attack_and_training_and_neither_evaluation_nor_checkpoints(tmp_path):
    compiled, ran = [], []

    def backend(graph, inputs):
        compiled.append(graph)
        return lambda *args: ran.append(phase[-1]) or graph(*args)

    phase, found = ["training"], {}
    for name in ("plain", "compiled"):
        options = {"torch_compile": True} if name == "compiled" else {}
        trainer = make_trainer(tmp_path / name, eval_dataset=make_images(8), **options)
        if name == "compiled":
            blocks = trainer.model.vision_model.encoder.layers
            for block in blocks[:-1]:
                assert block._compiled_call_impl is not None
                block.compile(backend=backend)
            assert blocks[-1]._compiled_call_impl is None
            attack = trainer.step.perturb

            def in_attack(*args, attack=attack):
                phase.append("attack")
                try:
                    return attack(*args)
                finally:
                    phase.pop()

            trainer.step.perturb = in_attack
        trainer.train()
        found[name] = losses(trainer)
    assert {"attack", "training"} == set(ran)
    assert len(compiled) <= 4  # frozen and trained, not once for each block, step or pass
    assert found["compiled"] == pytest.approx(found["plain"], rel=1e-5)
    count = len(ran)
    trainer.evaluate()
    assert len(ran) == count
    copy.deepcopy(trainer.model)
    trainer.save_model(str(tmp_path / "saved"))
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(trainer.model.state_dict())
