"""One picture before and after an attack: the saved file is what the verdict is about."""

import copy
import io

import numpy as np
import pytest
import torch
from PIL import Image
from support.attacked import length
from support.families import DUAL
from support.families import make as make_of_family
from support.sets import make_data
from support.tiny import CLASS_NAMES, make_images
from support.tuned import shake
from transformers import pipeline

from hf_pmgaft import AttackSpec, evaluate_robustness, load_model
from hf_pmgaft.data import open_picture
from hf_pmgaft.evaluation import PictureClassifier, attack_image, classify_image
from hf_pmgaft.models import get_backbone
from hf_pmgaft.tuning import make_tuning
from hf_pmgaft.tuning.saved import save_weights
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names
from hf_pmgaft.zero_shot.views import text_attention

TEMPLATE = "a photo of the {}"
PGD = "pgd,eps=32/255,num_steps=5,loss=margin"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return make_images(8)[1]["image"]  # a green disc, of 20 x 20


@pytest.fixture(scope="module")
def classifier(fitted) -> PictureClassifier:
    return PictureClassifier(*fitted, CLASS_NAMES, TEMPLATE)


def levels(attacked) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(attacked.png())))


# ---- The saved file ----


@pytest.mark.parametrize("attack", [PGD, "pgd,eps=1,norm=l2,num_steps=5"])
def test_transformers_says_of_the_saved_file_what_the_verdict_says(classifier, fitted, picture, attack, tmp_path):
    model, processor = fitted
    attacked = classifier.attack(picture, attack)
    assert attacked.fell and attacked.before.prediction == attacked.label == "green disc" and attacked.reads_back

    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    classify = pipeline("zero-shot-image-classification", str(tmp_path / "model"))
    for seen, file in ((attacked.after, attacked.png()), (attacked.before, picture)):
        file = Image.open(io.BytesIO(file)) if isinstance(file, bytes) else file
        said = classify(file, candidate_labels=CLASS_NAMES, hypothesis_template=TEMPLATE)
        assert said[0]["label"] == seen.prediction
        assert {each["label"]: each["score"] for each in said} == pytest.approx(seen.probabilities, abs=1e-4)


def test_both_images_lie_on_levels_and_the_file_holds_them(classifier, picture):
    attacked = classifier.attack(picture, PGD)
    assert attacked.images.shape == (2, 3, 16, 16) and attacked.images.dtype == torch.float32
    torch.testing.assert_close(255 * attacked.images, (255 * attacked.images).round(), rtol=0, atol=1e-4)
    shown = torch.tensor(levels(attacked)).permute(2, 0, 1)
    assert torch.equal(shown, (255 * attacked.images[1]).round().byte())
    assert classifier.classify(attacked.picture).logits == attacked.after.logits
    assert classifier.classify(picture).logits == attacked.before.logits


@pytest.mark.parametrize(
    ("attack", "norm", "radius"),
    [
        ("pgd,eps=8/255", "linf", 8 / 255),
        ("pgd,eps=2.7/255", "linf", 2 / 255),  # whole levels alone
        ("pgd,eps=0.4,norm=l2", "l2", 0.4),
        ("fgsm,eps=3/255,norm=l2", "l2", 3 / 255),
        ("apgd,eps=6,norm=l1,num_steps=10", "l1", 6),
    ],
)
def test_rounding_stays_inside_the_ball(classifier, picture, attack, norm, radius):
    clean, adversarial = (255 * classifier.attack(picture, attack).images).round()
    change = (adversarial - clean).flatten().double()
    assert torch.linalg.vector_norm(change, {"linf": torch.inf, "l2": 2, "l1": 1}[norm]) <= 255 * radius + 1e-9
    assert change.any()


def test_radius_0_changes_nothing(classifier, picture):
    for attack in ("pgd,eps=0", "pgd,eps=0,norm=l2", "autoattack,eps=0"):
        attacked = classifier.attack(picture, attack)
        assert torch.equal(*attacked.images) and attacked.after.logits == attacked.before.logits
        assert not attacked.fell and "No pixel of the 8-bit image has changed" in attacked.verdict
        assert attacked.margins == [attacked.before.margin(attacked.label)]


def test_the_same_arguments_give_the_same_image_and_another_seed_another(classifier, picture):
    first, again, other = (classifier.attack(picture, PGD, seed=seed) for seed in (3, 3, 4))
    assert first.png() == again.png() and first.margins == again.margins
    assert first.png() != other.png()


# ---- The same as an evaluation ----


def test_an_evaluation_of_the_set_attacks_the_same_row_to_the_same_image(fitted, attacked):
    model, processor = fitted
    data = make_data(processor, size=8)
    options = {"verdict": "last_iterate", "eight_bit": True, "probes": False, "progress": False, "seed": 5}
    report = evaluate_robustness(model, processor, [data], ["pgd,eps=20/255,num_steps=5"], **options)
    (whole,) = attacked
    rounded = AttackSpec.parse("pgd,eps=20/255").round_to_8_bits(whole.images, whole.adversarial)

    classifier = PictureClassifier(model, processor, data.class_names, data.prompt_templates)
    stood = []
    for row in range(8):
        label = data.class_names[data[row]["labels"]]
        one = classifier.attack(data.dataset[row]["image"], "pgd,eps=20/255,num_steps=5", label=label, seed=5, row=row)
        assert torch.equal(one.images[0], data[row]["images"]) and torch.equal(one.images[1], rounded[row])
        stood.append(not one.fell)
        of_set = classifier.attack(data[row]["images"], "pgd,eps=20/255,num_steps=5", label=label, seed=5, row=row)
        assert of_set.png() == one.png()
    assert sum(stood) / 8 == report.sets[0].robust_8bit_accuracy and 0 < sum(stood) < 8


def test_what_is_seen_is_what_the_classifier_says(classifier, fitted, picture):
    model, processor = fitted
    seen = classify_image(model, processor, picture, CLASS_NAMES, TEMPLATE, label="blue square")
    embeds = encode_class_names(model, processor, CLASS_NAMES, TEMPLATE)
    zero_shot = ZeroShotClassifier.from_model(model, processor, embeds)
    image = processor.image_processor(picture, return_tensors="pt", do_normalize=False)["pixel_values"]
    with torch.no_grad():
        logits = zero_shot(image)[0]
        _, patches = get_backbone(model).image_and_patch_embeds(model, zero_shot.pixel_values(image))
    assert list(seen.probabilities) == CLASS_NAMES
    assert torch.equal(torch.tensor(list(seen.logits.values())), logits)
    assert torch.equal(torch.tensor(list(seen.probabilities.values())), logits.softmax(0))
    torch.testing.assert_close(seen.attention, text_attention(patches, embeds[2:3])[0])
    assert classify_image(model, processor, picture, CLASS_NAMES, TEMPLATE).attention is None


def test_a_model_in_half_precision_is_judged_in_float32_and_left_as_it_was(fitted, picture):
    model, processor = copy.deepcopy(fitted[0]).half(), fitted[1]
    attacked = attack_image(model, processor, picture, CLASS_NAMES, PGD, prompt_templates=TEMPLATE)
    whole = attack_image(copy.deepcopy(model).float(), processor, picture, CLASS_NAMES, PGD, prompt_templates=TEMPLATE)
    assert attacked.png() == whole.png() and model.dtype == torch.float16


@pytest.mark.parametrize("name", sorted(DUAL))
def test_every_family_is_attacked_and_shows_attention_where_it_has_patches(name, processor, picture):
    model = make_of_family(name)
    attacked = attack_image(model, processor, picture, CLASS_NAMES, "fgsm,eps=16/255", prompt_templates=TEMPLATE)
    has_patches = get_backbone(model).patches is not None
    for seen in (attacked.before, attacked.after):
        assert sum(seen.probabilities.values()) == pytest.approx(1)
        assert (seen.attention.shape == (4, 4)) if has_patches else (seen.attention is None)
    assert attacked.after.margin(attacked.label) < attacked.before.margin(attacked.label)
    assert has_patches == (name != "VisionTextDualEncoderModel")


TUNED = {
    "text_context": {"num_tokens": 2},
    "deep_prompts": {"num_tokens": 2, "depth": 1},
    "peft": {"r": 2, "target_modules": ["q_proj", "v_proj"]},
}


@pytest.mark.parametrize("name", TUNED)
def test_what_a_tuning_saved_is_attacked_as_it_was_loaded(name, fitted, picture, tmp_path):
    fitted[0].save_pretrained(tmp_path / "base")
    tuned = make_tuning(name, TUNED[name]).prepare(copy.deepcopy(fitted[0]))
    shake(tuned)
    save_weights(tuned, tmp_path / "tuned", base_model=str(tmp_path / "base"))
    model = load_model(tmp_path / "tuned", str(tmp_path / "base"))

    attacked = attack_image(model, fitted[1], picture, CLASS_NAMES, PGD, prompt_templates=TEMPLATE)
    plain = attack_image(*fitted, picture, CLASS_NAMES, PGD, prompt_templates=TEMPLATE)
    as_tuned = attack_image(tuned, fitted[1], picture, CLASS_NAMES, PGD, prompt_templates=TEMPLATE)
    assert attacked.before.attention.shape == (4, 4) and attacked.margins[-1] < attacked.margins[0]
    assert attacked.before.logits == pytest.approx(as_tuned.before.logits, abs=1e-4)
    assert attacked.before.logits != pytest.approx(plain.before.logits, abs=1e-2)


# ---- The way there ----


def test_margins_begin_at_the_clean_image_and_end_at_the_saved_one(classifier, picture):
    told = []
    attacked = classifier.attack(
        picture, PGD + ",random_start=false", on_pass=lambda number, margin: told.append((number, margin))
    )
    assert attacked.margins[0] == pytest.approx(attacked.before.margin("green disc"))
    assert attacked.margins[-1] == attacked.after.margin("green disc") < 0
    assert told == list(enumerate(attacked.margins[:-1], start=1))
    assert 5 <= len(told) <= classifier.most_passes(PGD)


def test_a_targeted_attack_goes_to_its_target(classifier, picture):
    attack = "pgd,eps=64/255,num_steps=5"
    for target in ("red disc", "blue square"):
        attacked = classifier.attack(picture, attack, target=target)
        assert attacked.fell and attacked.after.prediction == target != attacked.label
        assert attacked.margins[-1] == -attacked.after.margin(target) < 0 < attacked.margins[0]
        assert f"reaches its target '{target}'" in attacked.verdict
    missed = classifier.attack(picture, "pgd,eps=8/255", target="red disc")
    assert not missed.fell and "does not reach its target" in missed.verdict


def test_without_a_label_it_is_what_the_model_says_and_a_wrong_one_is_wrong_without_an_attack(classifier, picture):
    assert classifier.attack(picture, "fgsm,eps=1/255").label == "green disc"
    attacked = classifier.attack(picture, "fgsm,eps=1/255", label="red disc")
    assert attacked.fell and "wrong without an attack: 'red disc' is right" in attacked.verdict


class Stopped(Exception):
    """Raised by whoever watches."""


@pytest.mark.parametrize("attack", ["pgd,eps=8/255", "apgd,eps=8/255", "autoattack,eps=8/255", "fab,eps=8/255"])
def test_what_a_watcher_raises_ends_the_attack_at_once_and_leaves_the_model_as_it_was(fitted, picture, attack):
    model, processor = copy.deepcopy(fitted[0]).train(), fitted[1]
    model.vision_model.eval()
    model.visual_projection.weight.requires_grad_(False)
    classifier = PictureClassifier(model, processor, CLASS_NAMES, TEMPLATE)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    numbers = []

    def stop(number, margin):
        numbers.append(number)
        if number == 3:
            raise Stopped

    with pytest.raises(Stopped):
        classifier.attack(picture, attack, on_pass=stop)
    assert numbers == [1, 2, 3]
    assert [module.training for module in model.modules()] == modes and not model.vision_model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_of_autoattack_the_attack_that_fools_is_kept(classifier, picture):
    attacked = classifier.attack(picture, "autoattack,eps=32/255,version=fast")
    first = classifier.attack(picture, "apgd,eps=32/255")
    assert attacked.fell and attacked.png() == first.png()
    assert attacked.attack.name == "AutoAttack fast linf 32/255"


def test_of_several_attacks_that_fail_the_one_that_leaves_least_is_kept(classifier, picture, monkeypatch):
    parts = [AttackSpec.parse(text) for text in ("fgsm,eps=1/255", "pgd,eps=4/255", "fgsm,eps=4/255")]
    alone = [classifier.attack(picture, part) for part in parts]
    monkeypatch.setattr(AttackSpec, "expand", lambda spec, num_classes: parts)
    attacked = classifier.attack(picture, "autoattack,eps=4/255")
    assert not attacked.fell and attacked.png() == alone[1].png()
    assert len(attacked.margins) - 1 == sum(len(each.margins) - 1 for each in alone)
    assert alone[1].margins[-1] == attacked.margins[-1] < min(alone[0].margins[-1], alone[2].margins[-1])


@pytest.mark.parametrize("attack", ["corruption,kind=gaussian_noise,severity=3", "patch,size=4,places=2,num_steps=3"])
def test_attacks_without_a_ball_are_served(classifier, picture, attack):
    attacked = classifier.attack(picture, attack)
    assert not torch.equal(*attacked.images) and attacked.attack.allows(*attacked.images.split(1)).all()


# ---- What cannot work ----


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least 2"),
        (["cat"], "at least 2"),
        (["red disc", "Red_Disc"], "share the name"),
        (["n01443537", "n01629819"], "ids of WordNet"),
    ],
)
def test_class_names_that_name_no_classes_are_refused(fitted, names, message):
    with pytest.raises(ValueError, match=message):
        PictureClassifier(*fitted, names)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (PGD, {"label": "gren disc"}, "label 'gren disc'.*none of the 4 class names.*such as 'green disc'"),
        (PGD, {"target": "cat"}, "target 'cat'.*none of the 4 class names"),
        (PGD, {"label": "red disc", "target": "red disc"}, "the class of the picture already"),
        ("apgd,eps=4/255", {"target": "red disc"}, "APGD-CE linf 4/255, which goes away from the label alone"),
        ("sea,eps=4/255", {}, "SEA"),
        ("pgd,eps=4/255,loss=masked_ce", {}, "masked_ce"),
        ("pgd,eps=4/255,source=other", {}, "Leave source"),
        ("pgd,eps=4/255,attacker=through", {}, "Leave source, attacker and eot out"),
        ("pgd,eps=4", {}, "write 4/255"),
        ("pgq,eps=4/255", {}, "no attack 'pgq'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_pass(classifier, picture, attack, options, message, monkeypatch):
    monkeypatch.setattr(PictureClassifier, "_look", None)
    with pytest.raises(ValueError, match=message):
        classifier.attack(picture, attack, **options)


def test_a_target_that_the_model_says_anyway_is_refused(classifier, picture):
    with pytest.raises(ValueError, match="the class of the picture already"):
        classifier.attack(picture, PGD, target="green disc")


def test_a_processor_of_another_size_and_a_model_without_texts_are_refused(fitted):
    model, processor = fitted
    other = copy.deepcopy(processor)
    other.image_processor.size, other.image_processor.crop_size = {"shortest_edge": 24}, {"height": 24, "width": 24}
    with pytest.raises(ValueError, match="makes images of 24 x 24, but the model takes 16 x 16"):
        PictureClassifier(model, other, CLASS_NAMES)
    with pytest.raises(TypeError, match="text tower"):
        PictureClassifier(model.vision_model, processor, CLASS_NAMES)


def test_a_processor_that_enlarges_the_file_is_told_of(fitted, picture):
    model, processor = fitted[0], copy.deepcopy(fitted[1])
    processor.image_processor.size = {"shortest_edge": 18}
    attacked = attack_image(model, processor, picture, CLASS_NAMES, PGD, prompt_templates=TEMPLATE)
    assert attacked.images.shape == (2, 3, 16, 16) and not attacked.reads_back


def test_a_broken_picture_is_refused_by_all(classifier):
    with pytest.raises(ValueError, match=r"a tensor of shape \(1, 3, 16, 16\) and torch.float32.*one image"):
        classifier.classify(torch.zeros(1, 3, 16, 16))
    for call in (classifier.classify, lambda value: classifier.attack(value, PGD)):
        with pytest.raises(ValueError, match="no image"):
            call(b"cats and dogs")
    assert open_picture(classifier.attack(make_images(2)[0]["image"], PGD).png()).size == (16, 16)


def test_length_of_l2_in_the_report_is_that_of_the_images(classifier, picture):
    attacked = classifier.attack(picture, "pgd,eps=0.4,norm=l2")
    entry = attacked.to_dict()
    change = attacked.images[1:] - attacked.images[:1]
    assert entry["perturbation"]["l2"] == pytest.approx(length(change, "l2").item(), rel=1e-6)
    assert entry["attack"]["name"] == "PGD-10 ce l2 0.4" and entry["versions"]["hf_pmgaft"]
