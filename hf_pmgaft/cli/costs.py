"""What a run costs: time by the operations of the image tower, memory by what was measured, and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from ..attacks.passes import most_passes
from ..attacks.spec import AttackSpec
from .run_plan import Plan
from .train_setup import final_attack

# What a backward pass costs beside a forward pass: of the pixels alone, and of the parameters.
PIXEL_BACKWARD = 1
PARAMETER_BACKWARD = 2
# MiB that a run on a ViT-B/32 holds, and that each image adds (docs/speed.md), by tuning and bf16.
MEMORY = {
    ("vision_tower", False): (2157, 58),
    ("vision_tower", True): (2244, 34),
    ("last_blocks", False): (1033, 40),
    ("last_blocks", True): (1214, 27),
    ("peft", False): (655, 141),
    ("peft", True): (1002, 70),
    ("r_adapter", False): (1091, 95),
    ("r_adapter", True): (1775, 67),
    ("deep_prompts", False): (796, 75),
    ("deep_prompts", True): (1353, 52),
}


@dataclass(frozen=True)
class Tower:
    """A ViT image tower at its own resolution.

    Attributes:
        tokens, width, layers, patch (`int`): Its shape; `tokens` with the class token, `patch` in pixels.
        parameters (`int`): Of the whole CLIP, text tower included.
    """

    tokens: int
    width: int
    layers: int
    patch: int
    parameters: int

    @property
    def gflop(self) -> float:
        """Operations of a forward pass of one image, in 10^9; a multiplication and an addition are two.

        Example:
            >>> round(TOWERS["openai/clip-vit-base-patch32"].gflop, 1)
            8.8
        """
        block = 24 * self.tokens * self.width**2 + 4 * self.tokens**2 * self.width
        embedding = 2 * (self.tokens - 1) * 3 * self.patch**2 * self.width
        return (self.layers * block + embedding) / 1e9

    @property
    def activations(self) -> int:
        """What the activations of one image are proportional to."""
        return self.tokens * self.width * self.layers


TOWERS = {
    "openai/clip-vit-base-patch32": Tower(50, 768, 12, 32, 151_277_313),
    "openai/clip-vit-base-patch16": Tower(197, 768, 12, 16, 149_620_737),
    "openai/clip-vit-large-patch14": Tower(257, 1024, 24, 14, 427_616_513),
}
MEASURED = TOWERS["openai/clip-vit-base-patch32"]
# Eight images a step, each 11 forward passes or what costs as much, in 4.65 seconds (docs/speed.md).
CPU = "two cores of an AMD EPYC"
CPU_TFLOPS = 8 * 11 * MEASURED.gflop / 4.65 / 1e3
ASSUMED_TFLOPS = 50.0
MANY_CLASSES = 100  # as most sets have; with fewer than ten AutoAttack has fewer targets


def what_it_costs(plan: Plan, passes: dict[str, int], tflops: float | None = None) -> dict[str, str]:
    """Time and memory in words.

    Args:
        plan (`Plan`): What runs.
        passes (`dict[str, int]`): Passes of the objective over a batch, beside the attack's: of the `student`, with
            gradients of its parameters, and of the `teacher`.
        tflops (`float`, *optional*): What the machine sustains, in 10^12 operations a second; `ASSUMED_TFLOPS` if it
            is not known.
    """
    tower = TOWERS.get(plan.model_args.model_name_or_path)
    if tower is None:
        return {"unknown": f"the shape of {plan.model_args.model_name_or_path}; known are {', '.join(TOWERS)}"}
    config = plan.config
    rate = tflops or ASSUMED_TFLOPS
    rows = {}

    # Time
    attack = config.num_steps * (1 + PIXEL_BACKWARD) if config.attacks_images else 0
    step = passes["student"] * (1 + PARAMETER_BACKWARD) + passes["teacher"] + attack
    training = None if plan.steps is None else step * tower.gflop * plan.steps * plan.batch
    if training is not None:
        rows["training"] = _time(training, rate)
    if plan.evaluated:
        rows["evaluation"] = "at most " + _time(_evaluation(plan) * tower.gflop * plan.evaluated, rate)
    whose = "assumed, since no GPU was timed: pass yours as --tflops" if tflops is None else "as you say"
    rows["rate"] = f"{rate:g} TFLOP/s, {whose}"
    rows["measured"] = f"{CPU_TFLOPS:.2f} TFLOP/s in steps of PMG-AFT on {CPU}"
    if training is not None:
        rows["measured"] += f", where training takes {_length(training, CPU_TFLOPS)}"

    # Memory
    if (config.tuning, config.bf16) in MEMORY:
        fixed, image = MEMORY[config.tuning, config.bf16]
        fixed *= tower.parameters / MEASURED.parameters
        image *= tower.activations / MEASURED.activations
        gib = (fixed + image * config.train_batch_size) / 1024
        how = "measured on a CPU" if tower is MEASURED else "scaled from ViT-B/32, not measured"
        rows["memory"] = f"{gib:.1f} GiB a process at {config.train_batch_size} images each ({how})"
    return rows


def checkpoint_bytes(plan: Plan) -> int | None:
    """The bytes that a run writes at most: the model and its checkpoints; `None` for a tower of unknown shape."""
    tower = TOWERS.get(plan.model_args.model_name_or_path)
    if tower is None:
        return None
    config = plan.config
    copies = 1 + _states_of(config.optim.value)  # of the weights' size, in a checkpoint
    checkpoints = 0 if config.save_strategy == "no" else (config.save_total_limit or 1) + 1
    return 4 * tower.parameters * (1 + checkpoints * copies)


def _evaluation(plan: Plan) -> int:
    """Passes over an image in all evaluations together, a backward pass as what it costs beside a forward pass."""
    config = plan.config
    final = [final_attack(text, config) for text in plan.data_args.final_attacks]
    parts = [part for attack in final for part in attack.expand(MANY_CLASSES)]
    before_or_after = _passes_under([AttackSpec.of(config.eval_attack_spec())])
    return 2 * before_or_after + (_passes_under(parts) if parts else 0)


def _passes_under(attacks: list[AttackSpec]) -> int:
    """Passes over an image without an attack, and in each with its verdict."""
    passes = [most_passes(attack, MANY_CLASSES) for attack in attacks]
    return 1 + sum(each.forward + 1 + each.backward * PIXEL_BACKWARD for each in passes)


def _states_of(optimizer: str) -> int:
    """Numbers that an optimizer keeps for each weight."""
    if optimizer.startswith("adamw"):
        return 2
    return 1 if optimizer.startswith("sgd") else 0


def _time(gflop: float, tflops: float) -> str:
    return f"{_length(gflop, tflops)} at {tflops:g} TFLOP/s ({gflop / 1e6:,.0f} PFLOP)"


def _length(gflop: float, tflops: float) -> str:
    hours = gflop / 1e3 / tflops / 3600
    if hours >= 72:
        return f"{hours / 24:,.0f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
