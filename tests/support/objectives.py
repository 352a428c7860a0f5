"""Objectives on the golden embeddings, and how their losses are compared with golden numbers."""

import math

import torch

from hf_pmgaft.objectives import make_objective
from hf_pmgaft.zero_shot import Views, ZeroShotClassifier

OPTIONS = {
    "agft": {"scale": 30.0},
    "capt": {"balance": 0.5},
    "caw_weight_detached": {"detach_weight": True},
    "comp_tga_released": {"normalised_over": "tokens"},
    "mpm_nce_adversarial": {"adversarial": True},
    "pmg_aft_alpha2": {"alpha": 2.0},
    "pmg_aft_released": {"kl_reduction": "sum", "scale": 1.0},
    "sim_clip_released": {"version": "released_code"},
    "tga_zsr_released": {"normalised_over": "tokens"},
    "ucat_lam1": {"lam": 1.0},
}
CASES = [
    *("tecoa", "fare", "pmg_aft", "pmg_aft_alpha2", "pmg_aft_released", "trades", "sim_clip", "sim_clip_released"),
    *("tga_zsr", "tga_zsr_released", "comp_tga", "comp_tga_released", "agft", "agft_scale180", "ucat", "ucat_lam1"),
    *("caw", "caw_weight_detached", "advflyp", "qt_aft", "qt_aft_init_scale", "mpm_nce", "mpm_nce_adversarial"),
    *("capt", "fap", "apt"),
]
CLEAN, ADVERSARIAL = torch.zeros(4, 3, 6, 6), torch.ones(4, 3, 6, 6)
IMAGE_SIDE = [f"student_{images}_{what}" for what in ("embeds", "patches") for images in ("clean", "adversarial")]
TEXTS = ["class_embeds", "caption_embeds"]


class Given(ZeroShotClassifier):
    """A classifier that knows two batches, `CLEAN` and `ADVERSARIAL`, and gives what stands in the tables for them."""

    def __init__(self, inputs, side, logit_scale, class_embeds):
        super().__init__(None, class_embeds, logit_scale, [0.0], [1.0])
        self.given = {key.removeprefix(side): value for key, value in inputs.items() if key.startswith(side)}
        self.non_class_embeds, self.caption_embeds = inputs["non_class_embeds"], inputs["caption_embeds"]
        self.learned = {"log_logit_scale": inputs["log_logit_scale"]}
        self.passes = 0

    def embed(self, images):
        self.passes += 1
        return self.given["_adversarial_embeds" if images.any() else "_clean_embeds"]

    def embed_with_patches(self, images):
        patches = self.given["_adversarial_patches" if images.any() else "_clean_patches"]
        return self.embed(images), patches.unflatten(1, (3, 3))


def build(inputs, case, dtype=torch.float64):
    """Objective, and views of student and teacher on the golden embeddings; the leaves that gradients may reach."""
    objective = make_objective(case["objective"], case.get("options"))
    scale = case["settings"].get("logit_scale", 30.0)
    inputs = {key: value if key == "labels" else value.to(dtype) for key, value in inputs.items()}
    inputs["log_logit_scale"] = torch.tensor([math.log(scale)], dtype=dtype)
    leaves = {key: inputs[key].clone().requires_grad_() for key in (*IMAGE_SIDE, *TEXTS, "log_logit_scale")}
    scale = objective.logit_scale or scale
    student = Given({**inputs, **leaves}, "student", scale, leaves["class_embeds"])
    teacher_texts = inputs["teacher_class_embeds" if case["objective"] == "capt" else "class_embeds"]
    teacher = Given(inputs, "teacher", scale, teacher_texts)
    return objective, Views(student, CLEAN, ADVERSARIAL), Views(teacher, CLEAN, ADVERSARIAL), leaves


def golden_case(golden, name):
    return {**golden["objectives"][name], "options": OPTIONS.get(name)}


def total_of(objective, terms):
    return sum(objective.weights[key] * term for key, term in terms.items())


def close(got, want, tolerance=1e-9):
    want = torch.as_tensor(want, dtype=torch.float64)
    assert (got - want).abs().max() <= tolerance * want.abs().max()
