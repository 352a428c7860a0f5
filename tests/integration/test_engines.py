"""Every engine of Accelerate trains the same model: losses, checkpoints, resume, adapters, over two processes.

One launch per engine runs all of its cases (a launch costs 20 seconds); the tests look at what it left. The tables of
docs/distributed.md are made from the dicts below: `python tests/integration/test_engines.py` prints them.
On two GPUs, `ENGINES_ON=gpu python -m pytest -m "" tests/integration/test_engines.py` runs the same by NCCL, with fp16
besides; on one GPU likewise by one process, but for DDP, which is of several.
"""

import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig
from support.launch import torchrun
from support.paths import ROOT
from support.tiny import CLASS_NAMES, SIZE, fit_model, make_images, make_processor
from support.trainers import LORA, digest, make_trainer
from transformers import CLIPModel, TrainerCallback
from transformers.utils import is_accelerate_available

from hf_pmgaft import PMGAFTConfig, load_model
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.distributed import gather, process_share
from hf_pmgaft.evaluation import evaluate_robustness
from hf_pmgaft.training.checkpoints import newest_complete
from hf_pmgaft.tuning import attachment_of
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

BATCH = 8
PROMPT = "a photo of the {}"
CASES = {
    "full": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "lora": {"peft_config": LoraConfig(**LORA)},
    "prompts": {"tuning": "deep_prompts", "tuning_kwargs": {"num_tokens": 2, "depth": 1}},
    "both towers": {"tuning": "r_adapter"},
    "patch tokens": {"objective": "comp_tga"},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
    "sharded checkpoints": {"fsdp_state": "SHARDED_STATE_DICT"},
    "compile": {"torch_compile": True},
}
# What an engine is called, how it wraps the model, and the cases that run on it.
DEEPSPEED, FSDP = "DeepSpeedEngine", "FSDPCLIPModel"
ON_GPU = os.environ.get("ENGINES_ON", "cpu") == "gpu"
PROCESSES = min(2, torch.cuda.device_count()) if ON_GPU else 2
TUNED = ("lora", "prompts", "both towers")
FAST = ("full", "accumulation", "gradient checkpointing", *TUNED, "patch tokens", "bf16")
FAST += ("fp16",) if ON_GPU else ()
ENGINES = {
    "ddp": ("DDP", "DistributedDataParallel", FAST),
    "zero1": ("DeepSpeed ZeRO-1", DEEPSPEED, FAST),
    "zero1_offload": ("DeepSpeed ZeRO-1, optimizer offloaded", DEEPSPEED, FAST),
    "zero2": ("DeepSpeed ZeRO-2", DEEPSPEED, FAST),
    "zero2_offload": ("DeepSpeed ZeRO-2, optimizer offloaded", DEEPSPEED, FAST),
    "zero3": ("DeepSpeed ZeRO-3", DEEPSPEED, FAST),
    "zero3_offload": ("DeepSpeed ZeRO-3, optimizer offloaded", DEEPSPEED, FAST),
    "fsdp2": ("FSDP2", FSDP, (*FAST, "sharded checkpoints")),
}
QUICK = ("ddp",)  # the other engines are slow
RESUMED = ("full", *TUNED, "sharded checkpoints")
if PROCESSES < 2:
    ENGINES.pop("ddp")
COMPILED = ("ddp", "zero1", "zero1_offload", "zero2", "zero2_offload", "fsdp2")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
NOT_COMPARED = {"learning_rate", "epoch", "step"}


def of_engine(engine: str, *values: str):
    """The parameters of a test that looks at an engine's launch."""
    marks = [pytest.mark.xdist_group(engine), *([] if engine in QUICK else [pytest.mark.slow])]
    return pytest.param(engine, *values, marks=marks)


RUNS = [of_engine(engine, case) for engine, (_, _, cases) in ENGINES.items() for case in cases]


def table() -> str:
    """What the tests see work on two processes, in two tables, as docs/distributed.md shows it."""
    rows = [["engine", *FAST, "compile"]]
    for engine, (name, _, cases) in ENGINES.items():
        cells = ["yes" if case in cases else "not run" for case in FAST]
        cells.append("yes" if engine in COMPILED else "refused" if engine.startswith("zero3") else "not run")
        rows.append([name, *cells])
    return markdown([row[:6] for row in rows]) + "\n\n" + markdown([row[:1] + row[6:] for row in rows])


def markdown(rows: list[list[str]]) -> str:
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *body])


# ---- What runs in each process ----


def engine_options(engine: str, state_dict_type: str = "FULL_STATE_DICT") -> dict:
    if engine == "fsdp2":
        fsdp = {"transformer_layer_cls_to_wrap": ["CLIPEncoderLayer"], "state_dict_type": state_dict_type}
        fsdp["activation_checkpointing"] = state_dict_type == "SHARDED_STATE_DICT"  # FSDP's own, in one case
        return {"use_cpu": False, "fsdp": True, "fsdp_config": fsdp}  # on the CPU by `allow_engines_on_cpu`
    if engine.startswith("zero"):
        zero = {"stage": int(engine[4])}
        if "offload" in engine:
            zero["offload_optimizer"] = {"device": "cpu"}
        sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        config = {name: "auto" for name in (*sizes, "gradient_clipping")}
        config |= {name: {"enabled": "auto"} for name in ("bf16", "fp16")}
        config |= {"zero_optimization": zero, "zero_force_ds_cpu_optimizer": False}
        return {"deepspeed": {**config, "zero_allow_untested_optimizer": True}}
    return {}


def allow_engines_on_cpu(engine: str) -> None:
    """Accelerate runs FSDP on GPUs alone; DeepSpeed would compile an operator for minutes."""
    if ON_GPU:
        return
    if engine == "fsdp2":
        from accelerate import DistributedType, PartialState

        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        transformers.training_args.is_torch_bf16_gpu_available = lambda: True  # which it asks for where use_cpu is not
        PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    elif engine.startswith("zero"):
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def start(folder: Path, model: Path, engine: str, case: str, **options):
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state()
    GradientState._reset_state()
    own = dict(CASES[case])
    state = [own.pop("fsdp_state")] if "fsdp_state" in own else []
    options = {"use_cpu": not ON_GPU, **own, **engine_options(engine, *state), **options}
    per_device = BATCH // int(os.environ.get("WORLD_SIZE", 1)) // options.get("gradient_accumulation_steps", 1)
    sets = ZeroShotDataset(make_images(13, seed=9), make_processor(), None, PROMPT, name="own")
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "augmentation": 0.5, **options}
    options["adam_epsilon"] = 1e-5  # its first step would be the sign of gradients that are nothing but round-off
    options["eval_eps"] = "48/255"
    batch = {"per_device_train_batch_size": per_device, "per_device_eval_batch_size": 4}
    return make_trainer(folder, model=str(model), eval_dataset=sets, **batch, **options)


def probe_images() -> torch.Tensor:
    return torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def step_lines(trainer) -> list[dict]:
    return [line for line in trainer.state.log_history if "loss" in line]


def wrapper(trainer) -> str:
    """What holds the model; of DeepSpeed's engine, which is one for all stages, also what it runs."""
    engine = trainer.model_wrapped
    name = type(engine).__name__
    if name != DEEPSPEED:
        return name
    offloaded = ", optimizer offloaded" if engine.zero_use_cpu_optimizer() else ""
    return f"{name} ZeRO-{engine.zero_optimization_stage()}{offloaded}"


def run_case(folder: Path, model: Path, engine: str, case: str) -> dict:
    trainer = start(folder, model, engine, case)
    trainer.train()
    found = {
        "processes": trainer.accelerator.num_processes,
        "wrapper": wrapper(trainer),
        "lines": step_lines(trainer),
        "digests": gather([digest(trainer)]),
        "report": trainer.evaluate_robustness().to_dict(),
    }

    trainer.save_model(str(folder / "final"))
    if case != "prompts":
        trainer.save_merged(str(folder / "merged"))

    wrapped = trainer.model_wrapped
    wrapped.eval()
    added = attachment_of(trainer.model)
    with torch.no_grad(), added.as_at_test() if added else contextlib.nullcontext():
        student = trainer.step.student(wrapped).replace(**trainer.step.live_texts(wrapped))
        found["logits"] = student(probe_images().to(trainer.args.device)).tolist()

    if engine.startswith("zero"):
        with pytest.raises(TypeError, match="DeepSpeed's engine"):
            evaluate_robustness(wrapped, make_processor(), trainer.eval_dataset)

    if case in RESUMED:
        resumed = start(folder / "resumed", model, engine, case)
        resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
        found["resumed"] = {"lines": step_lines(resumed), "digests": gather([digest(resumed)])}
    return found


class Poison(TrainerCallback):
    """Makes the loss of the last process NaN in the second step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1 and process_share()[0] == process_share()[1] - 1:
            loss = self.trainer.objective.loss
            self.trainer.objective.loss = lambda *inputs: {k: v * float("nan") for k, v in loss(*inputs).items()}


def run_poisoned(folder: Path, model: Path, engine: str) -> list[str]:
    poison = Poison()
    poison.trainer = start(folder, model, engine, "full", callbacks=[poison], save_steps=1)
    try:
        poison.trainer.train()
        raised = "nothing"
    except FloatingPointError as error:
        raised = str(error)
    return gather([raised])


class Terminate(TrainerCallback):
    """Sends SIGTERM to the last process alone, in the second step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1 and process_share()[0] == process_share()[1] - 1:
            signal.raise_signal(signal.SIGTERM)


def run_terminated(folder: Path, model: Path, engine: str) -> list:
    trainer = start(folder, model, engine, "full", callbacks=[Terminate()], save_steps=4)
    trainer.train()
    return gather([[trainer.interrupted, trainer.state.global_step]])


def run_handed_over(folder: Path, model: Path, engine: str) -> dict | str:
    """Goes on with the checkpoint of one process without an engine."""
    trainer = start(folder, model, engine, "full")
    try:
        trainer.train(resume_from_checkpoint=str(model / "run" / "checkpoint-2"))
        return step_lines(trainer)[2]
    except ValueError as error:
        return str(error)


def go_on(engine: str, model: Path, folder: Path, checkpoint: Path) -> None:
    """Goes on with the checkpoint of another number of processes."""
    allow_engines_on_cpu(engine)
    trainer = start(folder, model, engine, "full")
    trainer.train(resume_from_checkpoint=str(checkpoint))
    found = {"processes": trainer.accelerator.num_processes, "lines": step_lines(trainer)}
    found["wrapper"] = wrapper(trainer)
    if os.environ["RANK"] == "0":
        (folder / "found.json").write_text(json.dumps(found))
    os._exit(0)


def run_all(engine: str, model: Path, folder: Path, *cases: str) -> None:
    allow_engines_on_cpu(engine)
    found = {case: run_case(folder / case, model, engine, case) for case in cases or ENGINES[engine][2]}
    if not cases:
        found["handed over"] = run_handed_over(folder / "handed over", model, engine)
        found["terminated"] = run_terminated(folder / "terminated", model, engine)
        found["poisoned"] = run_poisoned(folder / "poisoned", model, engine)
    if os.environ["RANK"] == "0":
        (folder / "found.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    os._exit(0)  # gloo's own end, at exit or by destroy_process_group, hangs or aborts now and then


# ---- What the tests look at ----


def launch(engine: str, model: Path, folder: Path, *cases: str, processes: int = PROCESSES) -> dict:
    torchrun(processes, __file__, engine, model, folder, *cases)
    return json.loads((folder / "found.json").read_text())


def held_by(engine: str, case: str) -> str:
    """The wrapper that an engine must have used."""
    name, held, _ = ENGINES[engine]
    if held == DEEPSPEED:
        return name.replace("DeepSpeed", DEEPSPEED)
    inside = {"lora": "PeftModel"}.get(case, "CLIPModel")
    return held.replace("CLIPModel", inside)


def skip_what_is_not_installed(engine: str) -> None:
    if engine.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    if engine == "fsdp2" and not is_accelerate_available("1.15.0"):
        pytest.skip("accelerate is too old for FSDP2")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a model that knows the classes; fitted once, since its last digits depend on where memory lies."""
    folder = tmp_path_factory.mktemp("fitted")
    model, processor = fit_model()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    start(folder / "run", folder, "none", "full").train()
    return folder


@pytest.fixture(scope="module")
def launched(fitted, tmp_path_factory):
    """What a launch of an engine left, each made once."""
    made = {}

    def get(engine):
        skip_what_is_not_installed(engine)
        if engine not in made:
            folder = tmp_path_factory.mktemp(engine)
            made[engine] = folder, launch(engine, fitted, folder)
        return made[engine]

    return get


@pytest.fixture(scope="module")
def alone(fitted, tmp_path_factory):
    """The step lines of one process without an engine."""
    made = {}

    def get(case):
        if case not in made:
            trainer = start(tmp_path_factory.mktemp(case), fitted, "none", case)
            trainer.train()
            assert trainer.accelerator.num_processes == 1 and type(trainer.model_wrapped).__name__ != "DDP"
            made[case] = step_lines(trainer)
        return made[case]

    return get


@pytest.mark.parametrize(("engine", "case"), RUNS)
def test_two_processes_ran_in_the_engine_and_lost_what_one_loses(launched, alone, engine, case):
    found = launched(engine)[1][case]
    assert (found["processes"], found["wrapper"]) == (PROCESSES, held_by(engine, case))
    assert len(set(found["digests"])) == 1
    one = alone("full" if case == "sharded checkpoints" else case)
    assert len(found["lines"]) == len(one) == 4
    # Later steps may part: sign() and Adam amplify round-off. Rounding to bf16 is not the same in every engine, nor on
    # processors with and without products in bf16.
    # Engines that shard weights compute the plain image tower, one process the lean one.
    for step, (ours, theirs) in enumerate(zip(found["lines"][:3], one, strict=False)):
        tolerance = {"rel": (1e-2 if ON_GPU else 1e-4) if step else 1e-5, "abs": 1e-6}
        if case in HALF:
            tolerance = {"rel": 0.2, "abs": 0.02} if step else {"rel": 0, "abs": 0.01}
        assert set(ours) == set(theirs) > {"loss", *(["clean_attention"] if case == "patch tokens" else ["clean_kl"])}
        for key in set(ours) - NOT_COMPARED:
            if case not in HALF or key == "loss":
                assert ours[key] == pytest.approx(theirs[key], **tolerance), key
    if case in HALF:  # it did run in lower precision
        assert found["lines"][0]["loss"] != pytest.approx(alone("full")[0]["loss"], rel=1e-3)


def saved(folder: Path, case: str):
    """The model that a run left: a plain one, or prompts beside their base."""
    if case == "prompts":
        return load_model(str(folder / case / "final"))
    model, info = CLIPModel.from_pretrained(folder / case / "merged", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


@pytest.mark.parametrize(("engine", "case"), RUNS)
def test_the_checkpoint_is_a_plain_model_with_the_live_ones_logits(launched, engine, case):
    folder, found = launched(engine)
    model = saved(folder, case)
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float32}
    processor = make_processor()
    embeds = encode_class_names(model, processor, CLASS_NAMES, PROMPT)
    with torch.no_grad():
        logits = ZeroShotClassifier.from_model(model, processor, embeds)(probe_images())
    live = torch.tensor(found[case]["logits"])
    assert torch.allclose(logits, live, atol=0.2 if case in HALF else 1e-4, rtol=1e-5)
    if case in HALF:  # what the optimizer moves, not what the passes compute with
        assert any((p != p.to(HALF[case]).float()).any() for p in model.vision_model.encoder.parameters())


@pytest.mark.parametrize(("engine", "case"), RUNS)
def test_the_engine_evaluates_as_one_process_the_saved_model(launched, engine, case):
    folder, found = launched(engine)
    model = saved(folder, case).to("cuda" if ON_GPU else "cpu")
    data = ZeroShotDataset(make_images(13, seed=9), make_processor(), None, PROMPT, name="own")
    args = PMGAFTConfig(output_dir=str(folder), eval_eps="48/255", eval_num_steps=3, use_cpu=not ON_GPU)
    options = {"seed": args.seed, "progress": False}
    ours = evaluate_robustness(model, make_processor(), [data], [args.eval_attack_spec()], **options)
    ours, theirs = json.loads(json.dumps(ours.to_dict())), found[case]["report"]
    assert ours["sets"] == theirs["sets"]
    assert ours["protocol"] == theirs["protocol"]
    if case == "full":
        assert 0 < theirs["mean_robust_accuracy"] < theirs["mean_clean_accuracy"]


@pytest.mark.parametrize(("engine", "case"), [run for run in RUNS if run.values[1] in RESUMED])
def test_a_resumed_run_ends_bit_equal(launched, engine, case):
    found = launched(engine)[1][case]
    assert found["resumed"]["digests"] == found["digests"]
    assert found["resumed"]["lines"] == found["lines"]


@pytest.mark.skipif(PROCESSES < 2, reason="there is one GPU")
def test_ddp_and_one_process_go_on_with_each_others_checkpoints(launched, fitted, alone, tmp_path):
    folder, found = launched("ddp")
    trainer = start(tmp_path, fitted, "none", "full")
    trainer.train(resume_from_checkpoint=str(folder / "full" / "checkpoint-2"))
    lines = step_lines(trainer)
    assert trainer._initial_global_step == 2 and lines[:2] == found["full"]["lines"][:2]
    assert lines[2]["loss"] == pytest.approx(alone("full")[2]["loss"], rel=1e-5)
    assert found["handed over"]["loss"] == pytest.approx(alone("full")[2]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(PROCESSES < 2, reason="there is one GPU")
@pytest.mark.parametrize("engine", [*map(of_engine, ["zero1", "zero2", "zero3", "fsdp2"])])
def test_one_process_of_an_engine_goes_on_with_the_checkpoint_of_two(launched, fitted, alone, tmp_path, engine):
    checkpoint = launched(engine)[0] / "full" / "checkpoint-2"
    found = launch(engine, fitted, tmp_path, str(checkpoint), processes=1)
    assert (found["processes"], found["wrapper"]) == (1, held_by(engine, "full"))
    assert [line["step"] for line in found["lines"]] == [1, 2, 3, 4]
    assert found["lines"][2]["loss"] == pytest.approx(alone("full")[2]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(PROCESSES < 2, reason="there is one GPU")
@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero3", "fsdp2"])
def test_two_processes_of_an_engine_go_on_with_the_checkpoint_of_one(fitted, alone, tmp_path, engine):
    skip_what_is_not_installed(engine)
    launch(engine, fitted, tmp_path, "full", processes=1)
    found = launch(engine, fitted, tmp_path, str(tmp_path / "full" / "checkpoint-2"))
    assert (found["processes"], found["wrapper"]) == (2, held_by(engine, "full"))
    assert [line["step"] for line in found["lines"]] == [1, 2, 3, 4]
    assert found["lines"][2]["loss"] == pytest.approx(alone("full")[2]["loss"], rel=1e-5)


@pytest.mark.parametrize("engine", [of_engine(engine) for engine in ENGINES if engine != "ddp"])
def test_a_checkpoint_in_parts_is_refused_by_another_engine(launched, fitted, tmp_path, engine):
    folder, found = launched(engine)
    with pytest.raises(ValueError, match="engine: '(DeepSpeed|FSDP)"):
        start(tmp_path, fitted, "none", "full").train(resume_from_checkpoint=str(folder / "full" / "checkpoint-2"))
    assert "engine: None there" in found["handed over"]


@pytest.mark.parametrize("engine", [*map(of_engine, ENGINES)])
def test_nan_on_one_process_stops_all_and_keeps_the_last_good_checkpoint(launched, engine):
    folder, found = launched(engine)
    assert len(found["poisoned"]) == PROCESSES and all("NaN" in reason for reason in found["poisoned"])
    kept = sorted(path.parent.name for path in (folder / "poisoned").glob("checkpoint-*/complete.json"))
    assert kept == ["checkpoint-1"]


@pytest.mark.parametrize("engine", [*map(of_engine, ENGINES)])
def test_sigterm_to_one_process_stops_all_after_the_same_step_with_a_checkpoint(launched, engine):
    folder, found = launched(engine)
    assert found["terminated"] == [[True, 2]] * PROCESSES
    assert newest_complete(folder / "terminated") == (str(folder / "terminated" / "checkpoint-2"), [])


@pytest.mark.slow
@pytest.mark.parametrize("engine", COMPILED)
def test_compiled_engines_lose_what_one_plain_process_loses(fitted, alone, tmp_path, engine):
    skip_what_is_not_installed(engine)
    found = launch(engine, fitted, tmp_path, "compile")["compile"]
    assert (found["processes"], found["wrapper"]) == (PROCESSES, held_by(engine, "compile"))
    # Compiled arithmetic rounds in other places, and from the second step on sign() has amplified it.
    for ours, theirs, tolerance in zip(found["lines"], alone("full"), (1e-5, 1e-3, 1e-3), strict=False):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance)
    model = CLIPModel.from_pretrained(tmp_path / "compile" / "merged")
    embeds = encode_class_names(model, make_processor(), CLASS_NAMES, PROMPT)
    with torch.no_grad():
        logits = ZeroShotClassifier.from_model(model, make_processor(), embeds)(probe_images())
    assert torch.allclose(logits, torch.tensor(found["logits"]), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(ON_GPU, reason="the table is of the CPU")
def test_docs_show_what_is_tested():
    assert table() in (ROOT / "docs/distributed.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(table())
    else:
        engine, model, folder, *rest = sys.argv[1], *map(Path, sys.argv[2:4]), *sys.argv[4:]
        go_on(engine, model, folder, Path(rest[0])) if rest and Path(rest[0]).is_dir() else run_all(
            engine, model, folder, *rest
        )
