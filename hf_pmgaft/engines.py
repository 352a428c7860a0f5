"""All that mixed precision, DDP, DeepSpeed and FSDP need to know; nothing engine-specific stands elsewhere."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import is_accelerate_available


def prepare_for_engines(model: nn.Module) -> None:
    """Makes a plain dual encoder one that every engine can hold, in place, with the same checkpoint keys.

    The model's own parameters of a single number (logit scale, bias or temperature), which DeepSpeed and FSDP2 refuse
    where they have no dimension, become persistent buffers of the same names; they are frozen in any case. FSDP2's
    preparation asks for input embeddings, which a dual encoder has not.
    """
    for name in [name for name, value in model._parameters.items() if value is not None and value.numel() == 1]:
        model.register_buffer(name, model._parameters.pop(name).detach().clone(), persistent=True)
    model.get_input_embeddings = lambda: None


def check_engine_requested(args: TrainingArguments) -> None:
    """Checks the engine that is asked for, and prepares for it, before `TrainingArguments` sets up its devices.

    Args:
        args (`PMGAFTConfig`): The run's configuration, before its `super().__post_init__()`.

    Raises:
        ValueError: if the engine cannot run, or would silently be another one.
    """
    if args.deepspeed or _flag("ACCELERATE_USE_DEEPSPEED"):
        if importlib.util.find_spec("deepspeed") is None:
            raise ValueError(
                "You passed deepspeed, which is not installed. Run `pip install deepspeed`, or train without it."
            )
        # It counts its processes wrongly unless it is told.
        args.use_cpu = args.use_cpu or not torch.accelerator.is_available()

    if args.fsdp or _flag("ACCELERATE_USE_FSDP"):
        _check_fsdp(args)
        # A model this small needs none of it, and it fails on buffers.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def _check_fsdp(args: TrainingArguments) -> None:
    """Raises `ValueError` where FSDP would run as something else, or could not be resumed."""
    if args.use_cpu:
        raise ValueError(
            "You asked for FSDP on the CPU (use_cpu), where Accelerate would silently run DDP. Use DDP or "
            "DeepSpeed there, or leave use_cpu out where there are GPUs."
        )
    version = (args.fsdp_config or {}).get("version") if not isinstance(args.fsdp_config, str) else None
    if str(version or os.environ.get("FSDP_VERSION", 2)) == "1":
        raise ValueError(
            "You asked for FSDP 1, whose flattened parameters are not supported here. Pass version 2, as in "
            "examples/accelerate_configs/fsdp2.yaml."
        )
    if not is_accelerate_available("1.15.0"):
        raise ValueError("You asked for FSDP, whose checkpoints older accelerate resumes wrongly. Install 1.15.")


def tell_deepspeed_of_cpu(device: torch.device) -> None:
    """Names the CPU to DeepSpeed, which accelerate imports if it is there, and which would guess with a warning."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def check_engine(args: TrainingArguments) -> None:
    """Checks the run against its engine, and prepares for it, once `TrainingArguments` knows its devices.

    Args:
        args (`PMGAFTConfig`): The run's configuration, after its `super().__post_init__()`.

    Raises:
        ValueError: if a launcher was asked for several processes, and ran one, or if the engine cannot do what is
            asked of it.
    """
    # What engines that hold the weights in parts cannot do
    is_sharded = args.deepspeed_plugin is not None or args.fsdp or _flag("ACCELERATE_USE_FSDP")
    if args.attack_precision == "fp32" and is_sharded and (args.bf16 or args.fp16):
        raise ValueError(
            "You asked for attack_precision='fp32', but under DeepSpeed and FSDP in bf16 or fp16 the weights that the "
            "attack runs through are not in float32. Leave attack_precision out, or use DDP."
        )
    if args.attack_precision == "bf16" and (is_sharded or args.fp16):
        raise ValueError(
            "You asked for attack_precision='bf16' with fp16, DeepSpeed or FSDP, which choose the precision of every "
            "pass themselves. Leave attack_precision out, or train in float32 on one process or by DDP."
        )
    if args.attack_stops_early and is_sharded:
        raise ValueError(
            "You asked for tau in attack_kwargs under DeepSpeed or FSDP, whose processes must take equally many "
            "passes through the model, while an attack that stops early takes fewer. Leave tau out, or use DDP."
        )
    if args.averages_weights and is_sharded:
        raise ValueError(
            "You asked for ema_decay or wise_ft under DeepSpeed or FSDP, where no process holds the weights that "
            "would be averaged. Leave them out, or use DDP."
        )

    # Compilation, which `compile_blocks` does in place of Accelerate
    if args.torch_compile and getattr(args.deepspeed_plugin, "zero_stage", None) == 3:
        raise ValueError(
            "You asked for torch_compile with ZeRO-3, where the compiled model sees weights of no size. Leave "
            "torch_compile out, or use DDP, ZeRO-2 or FSDP2."
        )
    if args.torch_compile:
        for name in ("BACKEND", "MODE"):
            os.environ.pop(f"ACCELERATE_DYNAMO_{name}", None)

    # Launch
    was_launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if was_launched and "WORLD_SIZE" not in os.environ and args.world_size == 1:
        raise ValueError(
            "You asked `accelerate launch` for several processes, but it started one: on the CPU it does so without a "
            "word. Pass --multi_gpu to it, and --use_cpu true to the script; or use torchrun --nproc_per_node."
        )
    load_whole_models()


def load_whole_models() -> None:
    """Lets `from_pretrained` load whole models although ZeRO-3 is on: its sharded loading takes no 0-dimensional
    parameters, and the engine shards the model that is trained in any case."""
    unset_hf_deepspeed_config()


def broadcast_buffers() -> bool | None:
    """What DDP is told about writing buffers before each pass; `None` leaves it alone.

    Older torch then refuses the backward pass of a step of several passes. Newer torch minds that by itself, and warns
    of the option.
    """
    minds = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    return None if minds else False


def compile_blocks(blocks: nn.ModuleList, args: TrainingArguments, accelerator: Accelerator) -> None:
    """Compiles blocks in place, as one and the same region, for attack and training passes under any wrapper.

    The last one stays as it is: where the class token is all that is asked for, `lean` has less to compute.
    Accelerate, which would compile the whole model, and not for the attack, is told not to.
    """
    accelerator.state.dynamo_plugin.backend = DynamoBackend.NO
    for block in blocks[:-1]:
        block.compile(backend=args.torch_compile_backend, mode=args.torch_compile_mode)


def show_trained(model: nn.Module, run: Callable[[], object]) -> None:
    """Lets FSDP2 see in a pass without a graph, before any attack, which weights are trained.

    In its first pass it settles in what precision gradients are handed over, by the weights that are trained then; in
    an attack none is, and in bf16 the first training pass would fail. All processes must take part.
    """
    if isinstance(model, FSDPModule):
        with torch.no_grad():
            run()


def local_part(parameter: nn.Parameter) -> torch.Tensor:
    """What this process holds of a parameter."""
    if isinstance(parameter, DTensor):
        return parameter.to_local()
    return getattr(parameter, "ds_tensor", parameter)


@torch.no_grad()
def copy_trained(model: nn.Module, plain: nn.Module) -> None:
    """Copies the trained weights, which the engine around `model` may hold in parts, into the plain model.

    They are the float32 weights that the optimizer moves, also where the engine computes with lower ones. All
    processes must take part, and all get the whole.
    """
    there = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for wrapper in ("_checkpoint_wrapped_module.", "_orig_mod."):
                name = name.replace(wrapper, "")
            there[name].copy_(_whole(parameter))


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        return parameter.detach().to(mesh.device_type).full_tensor()
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter)
    return parameter


def checkpoint_format(accelerator: Accelerator) -> str | None:
    """The engine that a checkpoint's optimizer state is for; `None` if it needs none, which DDP does not either."""
    state = accelerator.state
    if getattr(state, "deepspeed_plugin", None) is not None:
        return f"DeepSpeed ZeRO-{state.deepspeed_plugin.zero_stage}"
    return None if getattr(state, "fsdp_plugin", None) is None else "FSDP2"


def adapt_to_processes(accelerator: Accelerator, folder: str) -> None:
    """Lets DeepSpeed load a checkpoint that another number of processes wrote, which it does in a format of its own.

    All processes must call it, before the engine is made.
    """
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is None:
        return
    step = next(path for path in Path(folder).glob("global_step*") if path.name.removeprefix("global_step").isdigit())
    other = len([*step.glob("*_optim_states.pt")]) != accelerator.num_processes
    plugin.deepspeed_config.setdefault("checkpoint", {})["load_universal"] = other
    if other and accelerator.is_main_process:
        from deepspeed.checkpoint import ds_to_universal

        options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
        folders = {"input_folder": str(step), "output_folder": f"{step}_universal"}
        ds_to_universal.main(argparse.Namespace(**folders, **options, inject_missing_state=True))
    accelerator.wait_for_everyone()


def check_unwrapped(model: nn.Module) -> None:
    """Raises `TypeError` for a wrapper through which no attack can run."""
    if type(model).__name__ == "DeepSpeedEngine":
        raise TypeError(
            "You passed DeepSpeed's engine, which counts every gradient as a training step: with ZeRO-2 an attack "
            "through it crashes, with ZeRO-3 it spoils the training gradients. Pass `trainer.model`, or the module "
            "inside (`engine.module`)."
        )


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
