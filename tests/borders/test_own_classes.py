"""Models of classes of one's own: subclasses whose passes return something else, wrappers and namesakes."""

import pytest
import torch
from support.borders import Refused, check, outcomes
from support.tiny import CLASS_NAMES, make_images, make_model, make_processor
from support.trainers import make_trainer
from torch import nn
from transformers import CLIPModel

from hf_pmgaft import ZeroShotDataset, evaluate_robustness

RIGHT = "evaluated and trained"
NOT_GIVEN = Refused("whose forward pass does not give what its family's gives")
OTHER_SHAPE = Refused("in place of floating point numbers [2,24], as its configuration says")
OTHER_LOGITS = Refused("whose own logits are not the cosines of its embeddings")
NO_GRADIENT = Refused("logits without a gradient")


def own(model=None, **methods):
    """A model of a subclass with these methods."""
    model = make_model() if model is None else model
    model.__class__ = type("OwnCLIP", (CLIPModel,), methods)
    return model


def forward(change):
    """A subclass whose forward changes the output."""
    return own(forward=lambda self, *args, **options: change(CLIPModel.forward(self, *args, **options)))


def image_features(change):
    """A subclass that changes the output of the image side, as it has been since transformers 5."""

    def get_image_features(self, *args, **options):
        output = CLIPModel.get_image_features(self, *args, **options)
        output.pooler_output = change(output.pooler_output)
        return output

    return own(get_image_features=get_image_features)


def text_features(change):
    def get_text_features(self, *args, **options):
        return change(CLIPModel.get_text_features(self, *args, **options).pooler_output)

    return own(get_text_features=get_text_features)


def images_turned(output):
    """What a residual adapter behind the projection does."""
    output.image_embeds = -output.image_embeds
    output.logits_per_image = -output.logits_per_image
    return output


def halved(output):
    output.vision_model_output.pooler_output = output.vision_model_output.pooler_output.half()
    return output


def patched():
    model = make_model()
    model.get_image_features = lambda *args, **options: model.vision_model(options["pixel_values"]).pooler_output
    return model


class Wrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = make_model()
        self.config = self.model.config

    def forward(self, **inputs):
        return self.model(**inputs)


Namesake = type("CLIPModel", (Wrapper,), {"__module__": "tutorial"})

CASES = {
    "a subclass as it is": (own, RIGHT),
    "a subclass with another method": (lambda: own(describe=lambda self: "mine"), RIGHT),
    "a subclass with the same forward": (lambda: forward(lambda output: output), RIGHT),
    "a subclass of half precision": (lambda: own(make_model().half()), RIGHT),
    "features rounded to half precision": (lambda: image_features(lambda embeds: embeds.half()), NOT_GIVEN),
    "an output in half precision": (lambda: forward(halved), RIGHT),
    "features of half the length": (lambda: image_features(lambda embeds: embeds / 2), RIGHT),
    "features as a tensor": (lambda: own(get_image_features=lambda self, **options: torch.ones(1, 24)), NOT_GIVEN),
    "features as a tuple": (lambda: own(get_image_features=lambda self, **options: (torch.ones(1, 24),)), NOT_GIVEN),
    "text features as a tensor": (lambda: text_features(lambda embeds: embeds), NOT_GIVEN),
    "features by a method of the object": (patched, NOT_GIVEN),
    "forward gives a tuple": (lambda: forward(lambda output: output.to_tuple()), NOT_GIVEN),
    "forward gives logits": (lambda: forward(lambda output: output.logits_per_image), NOT_GIVEN),
    "forward gives a dict of logits": (lambda: forward(lambda output: {"logits": output.logits_per_image}), NOT_GIVEN),
    "forward takes images alone": (lambda: own(forward=lambda self, pixel_values: None), NOT_GIVEN),
    "features of another width": (lambda: image_features(lambda embeds: embeds[:, :-1]), NOT_GIVEN),
    "features of one row too few": (lambda: image_features(lambda embeds: embeds[:1]), OTHER_SHAPE),
    "features of whole numbers": (lambda: image_features(lambda embeds: (9 * embeds).long()), OTHER_SHAPE),
    "NaN": (lambda: image_features(lambda embeds: embeds * torch.nan), Refused("are NaN or infinite")),
    "forward changes the images' embeddings": (lambda: forward(images_turned), OTHER_LOGITS),
    "features without a gradient": (lambda: image_features(lambda embeds: embeds.detach()), NO_GRADIENT),
    "a wrapper": (Wrapper, Refused("You passed a Wrapper, but", TypeError)),
    "a namesake of a tutorial": (Namesake, Refused("which is of tutorial and not built like", TypeError)),
}


def evaluated(model):
    processor = make_processor()
    data = ZeroShotDataset(make_images(12), processor, CLASS_NAMES)
    report = evaluate_robustness(model, processor, [data], ["fgsm,eps=1/255"], probes=False, progress=False)
    return report.sets[0].verdicts["clean"]


@outcomes(CASES)
def test_models_of_own_classes(given, outcome, tmp_path):
    def evaluate_and_train():
        evaluated(given())
        return RIGHT

    def train():
        make_trainer(tmp_path, model=given(), max_steps=1).train()
        return RIGHT

    check(evaluate_and_train, outcome)
    check(train, outcome)


def test_a_subclass_that_changes_nothing_gives_the_same_verdicts():
    assert evaluated(own()) == evaluated(make_model())


def test_more_on_the_image_side_is_evaluated_and_neither_trained_nor_a_teacher(tmp_path):
    def given():
        return image_features(lambda embeds: embeds.roll(1, dims=1))

    assert evaluated(given()) != evaluated(make_model())
    for models in ({"model": given()}, {"teacher": given()}):
        with pytest.raises(ValueError, match="not those of its modules vision_model, visual_projection alone"):
            make_trainer(tmp_path, **models)


def test_a_pass_that_is_random_is_not_taken_for_another():
    report = evaluate_robustness(
        image_features(lambda embeds: embeds + torch.randn_like(embeds)),
        make_processor(),
        [ZeroShotDataset(make_images(12), make_processor(), CLASS_NAMES)],
        ["fgsm,eps=1/255"],
        progress=False,
    )
    assert "random" in [flag["flag"] for flag in report.flags]
