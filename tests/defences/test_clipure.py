"""CLIPure: golden values and gradients, the text of no class, and whom it cannot serve."""

import math

import pytest
import torch
import torch.nn.functional as F
from support import families, tiny
from support.defended import GOLDEN, double, is_golden, loss_and_gradient, toy
from support.sets import CE, make_data

from hf_pmgaft import AttackSpec, evaluate_robustness
from hf_pmgaft.defences import ATTACKERS, CLIPure, CLIPureReleased
from hf_pmgaft.defences.spec import DefenceSpec
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names

CASES = {name: case for name, case in GOLDEN["clipure_cos"]["cases"].items() if name != "released_batch_norm"}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def clipure(case: dict, classifier) -> CLIPure:
    null = F.normalize(double(GOLDEN["inputs"]["null_embeds"]), dim=1).mean(0)
    settings = case["settings"]
    return CLIPure(classifier, null, num_steps=settings["num_steps"], step_size=settings["step_size"])


@every_case
def test_values_and_gradients_are_the_golden_ones(case):
    classifier, images, labels = toy()
    defence = clipure(case, classifier)
    is_golden(defence.embed(images), case["embeds"])
    loss, gradient = loss_and_gradient(defence, images, labels)
    is_golden(loss, case["loss"])
    is_golden(gradient, case["gradient_through"], 1e-8)
    _, replaced = loss_and_gradient(defence.seen_by("straight_through"), images, labels)
    is_golden(replaced, case["gradient_identity_backward"])


def test_the_released_setting_changes_nothing():
    classifier, images, labels = toy()
    case = CASES["released_ten_steps_of_30"]
    defence = CLIPureReleased(classifier, F.normalize(double(GOLDEN["inputs"]["null_embeds"]), dim=1).mean(0))
    is_golden(defence.embed(images), case["embeds"])
    torch.testing.assert_close(defence(images), classifier(images))
    _, gradient = loss_and_gradient(defence, images, labels)
    torch.testing.assert_close(gradient, loss_and_gradient(classifier, images, labels)[1])
    is_golden(gradient, case["gradient_through"], 1e-8)


def test_attacks_leave_of_the_released_setting_what_they_leave_of_the_bare_model(monkeypatch):
    model, processor = tiny.fit_model()
    data = make_data(processor, 16)
    class_embeds = encode_class_names(model, processor, tiny.CLASS_NAMES)
    classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
    with torch.no_grad():
        embeds = F.normalize(classifier.embed(torch.stack([data[row]["images"] for row in range(16)])), dim=1)
    near = torch.linalg.lstsq(embeds, torch.ones(16, 1)).solution[:, 0]  # a text that all images are near
    monkeypatch.setattr("hf_pmgaft.defences.clipure.encode_prompts", lambda model, prompts: near[None])

    attack = {**CE, "num_steps": 4}
    options = {"probes": False, "progress": False, "verdict": "last_iterate"}
    bare = evaluate_robustness(model, processor, [data], [attack], **options).sets[0]
    report = evaluate_robustness(model, processor, [data], [attack], defence="clipure_released", **options)
    defended = report.sets[0]
    assert 0 < bare.robust_accuracy < bare.clean_accuracy == defended.clean_accuracy
    for attacker in ATTACKERS:
        assert defended.verdicts[AttackSpec.of(attack).by(attacker).name] == bare.verdicts["robust"]
    assert report.defence[0].startswith("Defended at test time by CLIPure as released.")


def test_a_step_turns_the_embedding_by_its_arc_tangent():
    defence = CLIPure(None, torch.tensor([0.0, 2.0]), num_steps=1, step_size=0.1)
    turned = defence.purify(torch.tensor([[1.0, 0.0]]))
    assert math.atan2(turned[0, 1], turned[0, 0]) == pytest.approx(math.atan(0.1), rel=1e-6)
    turned = CLIPure(None, torch.tensor([0.0, 2.0])).purify(torch.tensor([[1.0, 0.0]]))
    assert math.degrees(math.atan2(turned[0, 1], turned[0, 0])) == pytest.approx(5.73, abs=0.01)

    at_text = torch.tensor([[0.0, 1.0]])
    assert torch.equal(defence.purify(at_text), at_text)


def test_the_text_of_no_class_is_the_mean_over_templates_by_the_models_own_text_tower():
    model, processor = tiny.make_model(), tiny.make_processor()
    templates = ["a photo of the {}", "an image of {} disc"]
    defence = DefenceSpec.parse("clipure").wrap(None, model, processor, None, templates)

    expected = []
    for text in ("a photo of the ", "an image of  disc"):
        tokens = processor.tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            expected.append(F.normalize(model.get_text_features(**tokens).pooler_output, dim=1))
    mean = F.normalize(torch.cat(expected).mean(0), dim=0)
    torch.testing.assert_close(F.normalize(defence.null_embed, dim=0), mean)


def test_logits_are_those_of_the_classifier_with_its_own_scale_and_bias():
    model, processor = families.make("SiglipModel"), tiny.make_processor()
    class_embeds = encode_class_names(model, processor, tiny.CLASS_NAMES)
    classifier = ZeroShotClassifier.from_model(model, processor, class_embeds)
    defence = CLIPure.of(classifier, model, processor, prompt_templates="a photo of the {}")
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    torch.testing.assert_close(defence(images), classifier.logits(defence.embed(images)))


def test_whom_it_cannot_serve_is_refused():
    processor, spec = tiny.make_processor(), DefenceSpec.parse("clipure")
    spec.check(tiny.make_model(), processor, has_head=True)
    with pytest.raises(ValueError, match="a Dinov2Model has no text tower. Pass a model with one"):
        spec.check(families.make("Dinov2Model"), processor, has_head=True)
    with pytest.raises(ValueError, match="learned prompts for class names"):
        spec.check(make_tuning("text_context").prepare(tiny.make_model()), processor, has_head=False)
    with pytest.raises(ValueError, match="must be above 0"):
        DefenceSpec.parse("clipure,step_size=0")
