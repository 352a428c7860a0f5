"""What a user passes as `model=` and `teacher=`."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.borders import Refused, check, outcomes
from support.tiny import make_model, make_processor
from support.trainers import LORA, make_trainer
from torch import nn
from transformers import CLIPModel, CLIPVisionModel, pipeline

MADE = "CLIPModel"
NO_MODEL = "which is no model. Pass a model such as"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)
    return folder


def empty():
    with torch.device("meta"):
        return CLIPModel(make_model().config)


def half_empty():
    model = make_model()
    model.text_projection.to("meta")
    return model


def quantised():
    """As a library leaves it: a weight of whole numbers, which scales beside it bring back."""
    model = make_model()
    weight = torch.ones(24, 32, dtype=torch.int8)
    model.visual_projection.weight = nn.Parameter(weight, requires_grad=False)
    return model


def packed():
    """As torch leaves it: a layer whose weights are no parameters."""
    layer = type("Linear", (nn.Module,), {"__module__": "torch.ao.nn.quantized.dynamic.modules.linear"})
    model = make_model()
    model.visual_projection = layer()
    return model


def marked_as_quantised():
    model = make_model()
    model.is_quantized = True
    return model


def in_a_pipeline():
    processor = make_processor()
    return pipeline(
        "zero-shot-image-classification",
        model=make_model(),
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
    )


def vision_tower():
    return CLIPVisionModel(make_model().config.vision_config)


CASES = {
    "a model": (make_model, MADE),
    "a model in train mode": (lambda: make_model().train(), MADE),
    "a frozen model": (lambda: make_model().requires_grad_(False), MADE),
    "a model in half precision": (lambda: make_model().half(), MADE),
    "a model in float8": (lambda: make_model().to(torch.float8_e4m3fn), MADE),
    "a folder as a path": (lambda: Path("FOLDER"), MADE),
    "an adapted model": (lambda: get_peft_model(make_model(), LoraConfig(**LORA)), "PeftModel"),
    "weights without values": (empty, Refused("is on the meta device, where weights have no values")),
    "one weight without values": (half_empty, Refused("text_projection.weight is on the meta device")),
    "a quantised model": (quantised, Refused("You passed a quantised CLIPModel")),
    "a model of packed weights": (packed, Refused("You passed a quantised CLIPModel")),
    "a model that says so": (marked_as_quantised, Refused("You passed a quantised CLIPModel")),
    "a compiled model": (lambda: torch.compile(make_model()), Refused("around a CLIPModel", TypeError)),
    "a model in DataParallel": (lambda: nn.DataParallel(make_model()), Refused("as a DataParallel", TypeError)),
    "a pipeline": (in_a_pipeline, Refused("of a pipeline its `model`", TypeError)),
    "a class": (lambda: CLIPModel, Refused(NO_MODEL, TypeError)),
    "a configuration": (lambda: make_model().config, Refused(NO_MODEL, TypeError)),
    "a state dict": (lambda: make_model().state_dict(), Refused(NO_MODEL, TypeError)),
    "a processor": (make_processor, Refused(NO_MODEL, TypeError)),
    "a layer": (lambda: nn.Linear(2, 2), Refused("You passed a Linear, but", TypeError)),
    "a vision tower": (vision_tower, Refused("which has no text tower to compare images with")),
    "a folder that is not there": (lambda: "no/folder/here", Refused("no/folder/here", OSError)),
}


def made(given, folder):
    model = given()
    return folder if model == Path("FOLDER") else model


@outcomes(CASES)
def test_models(given, outcome, tmp_path, folder):
    check(lambda: type(make_trainer(tmp_path, model=made(given, folder)).model).__name__, outcome)


TEACHERS = {
    **{
        name: (given, outcome if isinstance(outcome, Refused) else "FrozenTower")
        for name, (given, outcome) in CASES.items()
    },
    "an adapted model": (lambda: get_peft_model(make_model(), LoraConfig(**LORA)), "FrozenTower"),
    "a vision tower": (vision_tower, Refused("You passed a CLIPVisionModel, but zero-shot", TypeError)),
}


@outcomes(TEACHERS)
def test_teachers(given, outcome, tmp_path, folder):
    check(lambda: type(make_trainer(tmp_path, teacher=made(given, folder)).teacher.tower).__name__, outcome)
