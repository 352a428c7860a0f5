"""State dicts in files: whole ones in any wrapping, or why they are not the model's."""

import torch
from support.borders import Refused, check, outcomes
from support.open_clip import make_clip, other_clip
from support.published import saved

from hf_pmgaft import load_model

OTHER = other_clip(make_clip())
WHOLE = OTHER.state_dict()
TOWER = OTHER.visual.state_dict()
CAUSAL = torch.full((16, 16), -torch.inf).triu(1)


def prefixed(prefix, weights=WHOLE):
    return {prefix + name: value for name, value in weights.items()}


def without(name, weights=WHOLE):
    return {key: value for key, value in weights.items() if key != name}


def changed(name, change, weights=WHOLE):
    return {**weights, name: change(weights[name])}


RIGHT = OTHER.visual.proj.T.detach().clone()
CASES = {
    "a whole one": (WHOLE, RIGHT),
    "a vision tower": (TOWER, RIGHT),
    "under state_dict": ({"epoch": 3, "state_dict": WHOLE}, RIGHT),
    "under model_state_dict": ({"model_state_dict": WHOLE, "loss": 0.5}, RIGHT),
    "under model, beside an optimizer": ({"model": TOWER, "optimizer": {"state": {}}}, RIGHT),
    "of DeepSpeed": ({"module": prefixed("module."), "dp_world_size": 1}, RIGHT),
    "in DataParallel": (prefixed("module."), RIGHT),
    "compiled": (prefixed("_orig_mod."), RIGHT),
    "compiled under DataParallel": (prefixed("module._orig_mod."), RIGHT),
    "DataParallel compiled": (prefixed("_orig_mod.module."), RIGHT),
    "inside another module": (prefixed("model."), RIGHT),
    "inside that, wrapped": (prefixed("module.model._orig_mod."), RIGHT),
    "with one tower compiled": (
        {n.replace("visual.", "visual._orig_mod.") if n.startswith("visual.") else n: v for n, v in WHOLE.items()},
        RIGHT,
    ),
    "with OpenAI's numbers": ({**WHOLE, **{n: torch.tensor(16) for n in ("input_resolution", "vocab_size")}}, RIGHT),
    "with a causal mask": ({**WHOLE, "attn_mask": CAUSAL}, RIGHT),
    "with another mask": ({**WHOLE, "attn_mask": torch.zeros(16, 16)}, Refused("unexpected: attn_mask")),
    "a moving average": ({**prefixed("module."), "n_averaged": torch.tensor(7)}, RIGHT),
    "in half precision": ({n: v.half() for n, v in WHOLE.items()}, RIGHT.half().float()),
    "quantised": (changed("visual.proj", lambda v: v.to(torch.int8)), Refused("visual.proj is torch.int8")),
    "a weight missing": (without("ln_final.bias"), Refused("missing: ln_final.bias. Every base has them")),
    "one too many": ({**WHOLE, "prompt": torch.zeros(2)}, Refused("unexpected: prompt. No base would fit")),
    "a projection transposed": (
        changed("visual.proj", torch.t),
        Refused("visual.proj is [24, 32] in place of [32, 24]. Pass as base"),
    ),
    "another width": (changed("visual.ln_pre.bias", lambda v: v[:7]), Refused("is [7] in place of [32]")),
    "with NaN": (changed("logit_scale", lambda v: v * torch.nan), Refused("logit_scale holds NaN or infinity")),
    "empty": ({}, Refused("holds no state dict")),
    "lists for tensors": ({n: v.tolist() for n, v in TOWER.items()}, Refused("holds no state dict")),
    "a list for one tensor": (changed("logit_scale", lambda v: [1.0]), Refused("holds a list under 'logit_scale'")),
    "a number beside the weights": ({**WHOLE, "epoch": 3}, Refused("holds a int under 'epoch'")),
    "two models in one": ({**WHOLE, **prefixed("module.")}, Refused("holds the weights of two models")),
    "another family": ({"layer1.0.conv1.weight": torch.zeros(2)}, Refused("No base would fit")),
    "no dict": (torch.zeros(3), Refused("holds no state dict")),
}


@outcomes(CASES)
def test_what_a_state_dict_opens_as(given, outcome, tmp_path):
    file = saved(given, tmp_path / "model.pt")
    check(lambda: load_model(str(file), make_clip()).visual_projection.weight.detach(), outcome)
