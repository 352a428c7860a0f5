"""Values and gradients of every objective, against golden numbers and against the equation written out again."""

import pytest
import torch

from hf_pmgaft.objectives import OBJECTIVES, Objective, make_objective
from hf_pmgaft.zero_shot import Views, ZeroShotClassifier

OPTIONS = {"pmg_aft_alpha2": {"alpha": 2.0}, "pmg_aft_released": {"kl_reduction": "sum", "scale": 1.0}}
CASES = ["tecoa", "fare", "pmg_aft", "pmg_aft_alpha2", "pmg_aft_released"]


class Identity(ZeroShotClassifier):
    """A classifier whose "images" are embeddings already."""

    def __init__(self, class_embeds, logit_scale):
        super().__init__(lambda pixels: pixels, class_embeds, logit_scale, [0.0], [1.0])

    def embed(self, images):
        return images


@pytest.fixture
def inputs(golden):
    return {
        name: torch.tensor(value, dtype=torch.long if name == "labels" else torch.float64)
        for name, value in golden["inputs"].items()
    }


def build(inputs, case):
    """Objective, classifier, and views of student and teacher on the golden embeddings."""
    name = case["objective"]
    objective = make_objective(name, case.get("options"))
    scale = objective.logit_scale or case["settings"].get("logit_scale", 30.0)
    classifier = Identity(inputs["class_embeds"], scale)
    leaves = {
        key: inputs[key].clone().requires_grad_() for key in ("student_clean_embeds", "student_adversarial_embeds")
    }
    student = Views(classifier, leaves["student_clean_embeds"], leaves["student_adversarial_embeds"])
    teacher = Views(classifier, inputs["teacher_clean_embeds"], inputs["teacher_adversarial_embeds"])
    return objective, classifier, student, teacher, leaves


def close(got, want, tolerance=1e-9):
    want = torch.as_tensor(want, dtype=torch.float64)
    assert (got - want).abs().max() <= tolerance * want.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_terms_total_and_gradients_are_the_golden_ones(golden, inputs, name):
    case = {**golden["objectives"][name], "options": OPTIONS.get(name)}
    objective, _, student, teacher, leaves = build(inputs, case)

    terms = objective.loss(student, teacher, inputs["labels"])
    total = sum(objective.weights[key] * term for key, term in terms.items())

    assert set(terms) == set(case["terms"])
    for key, term in terms.items():
        close(term.detach(), case["terms"][key]["value"])
        assert objective.weights[key] == case["terms"][key]["weight"]
    close(total.detach(), case["total"])
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for key, gradient in zip(leaves, gradients, strict=True):
        if key in case["gradients"]:
            close(gradient, case["gradients"][key])
        else:
            assert gradient is None or not gradient.any()


@pytest.mark.parametrize("name", CASES)
def test_attack_loss_is_the_golden_inner_loss(golden, inputs, name):
    case = {**golden["objectives"][name], "options": OPTIONS.get(name)}
    objective, classifier, _, teacher, leaves = build(inputs, case)
    images = leaves["student_adversarial_embeds"]

    loss_fn = objective.attack_loss(classifier, teacher, inputs["labels"])
    if loss_fn is None:

        def loss_fn(images):
            return torch.nn.functional.cross_entropy(classifier(images), inputs["labels"], reduction="none")

    values = loss_fn(images)
    close(values.detach(), case["inner"]["per_sample"])
    gradient = torch.autograd.grad(values.sum(), images)[0]
    close(gradient, case["inner"]["gradient_of_sum"]["student_adversarial_embeds"])


def transcription(name, inputs, leaves, scale=30.0):
    """The equations of the papers, in sums and logarithms."""
    text, y = inputs["class_embeds"], inputs["labels"]

    def p(embeds):
        z = scale * (embeds / embeds.square().sum(1, keepdim=True).sqrt()) @ text.T
        return z.exp() / z.exp().sum(1, keepdim=True)

    clean, adversarial = leaves["student_clean_embeds"], leaves["student_adversarial_embeds"]
    ce = -p(adversarial)[range(len(y)), y].log().mean()
    if name == "tecoa":
        return ce
    if name == "clean":
        return -p(clean)[range(len(y)), y].log().mean()
    if name == "fare":
        return ((adversarial - inputs["teacher_clean_embeds"]) ** 2).sum(1).mean()
    p0 = p(inputs["teacher_adversarial_embeds"])
    teacher_kl = (p0 * (p0.log() - p(adversarial).log())).sum(1).mean()
    clean_kl = (p(clean) * (p(clean).log() - p(adversarial).log())).sum(1).mean()
    return ce + teacher_kl + clean_kl


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_equation_written_out_again_gives_the_same_loss_and_gradients(inputs, name):
    objective, _, student, teacher, leaves = build(inputs, {"objective": name, "settings": {"logit_scale": 30.0}})
    terms = objective.loss(student, teacher, inputs["labels"])
    total = sum(objective.weights[key] * term for key, term in terms.items())
    expected = transcription(name, inputs, leaves)

    close(total.detach(), expected.detach(), 1e-10)
    ours = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    theirs = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        if other is None:
            assert one is None
        else:
            close(one, other, 1e-9)


def test_direction_and_clean_gradient_are_options(golden, inputs):
    quirk = next(iter(golden["objectives"]["pmg_aft_released"]["quirks"].values()))
    case = {**golden["objectives"]["pmg_aft_released"], "options": {**OPTIONS["pmg_aft_released"]}}
    case["options"]["kl_direction"] = "reverse"
    objective, _, student, teacher, _ = build(inputs, case)
    terms = objective.loss(student, teacher, inputs["labels"])
    close(terms["teacher_kl"].detach(), quirk["teacher_kl"], 1e-8)
    close(terms["clean_kl"].detach(), quirk["clean_kl"], 1e-8)

    detached = {"objective": "pmg_aft", "settings": {}, "options": {"clean_gradient": False}}
    objective, _, student, teacher, leaves = build(inputs, detached)
    sum(objective.loss(student, teacher, inputs["labels"]).values()).backward()
    assert leaves["student_clean_embeds"].grad is None
    assert leaves["student_adversarial_embeds"].grad.abs().sum() > 0


def test_zero_weights_skip_the_passes_that_they_would_need(inputs):
    case = {"objective": "pmg_aft", "settings": {}, "options": {"alpha": 0.0, "beta": 0.0}}
    objective, _, student, teacher, _ = build(inputs, case)
    assert set(objective.loss(student, teacher, inputs["labels"])) == {"adversarial_ce"}
    assert "clean_embeds" not in student.computed()
    assert teacher.computed() == {}


def test_guidance_terms_range_over_the_guidance_texts(inputs):
    classifier = Identity(inputs["class_embeds"], 30.0)
    classifier.guidance_embeds = inputs["caption_embeds"]
    student = Views(classifier, inputs["student_clean_embeds"], inputs["student_adversarial_embeds"])
    teacher = Views(classifier, inputs["teacher_clean_embeds"], inputs["teacher_adversarial_embeds"])
    terms = make_objective("pmg_aft").loss(student, teacher, inputs["labels"])

    def log_p(embeds):
        return (30 * torch.nn.functional.normalize(embeds) @ inputs["caption_embeds"].T).log_softmax(1)

    p0 = log_p(inputs["teacher_adversarial_embeds"])
    expected = (p0.exp() * (p0 - log_p(inputs["student_adversarial_embeds"]))).sum(1).mean()
    close(terms["teacher_kl"], expected)
    close(terms["adversarial_ce"], 2.08936101589)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pgd_aft", None, r"no objective 'pgd_aft'.*pmg_aft"),
        ("pmg_aft", {"gamma": 1}, r"no option gamma.*alpha"),
        ("pmg_aft", {"kl_reduction": "batchmean"}, r"kl_reduction='batchmean'.*mean"),
        ("pmg_aft", {"alpha": "much"}, r"alpha='much'.*number"),
        ("pmg_aft", {"alpha": True}, r"alpha=True|alpha=1.0"),
        ("pmg_aft", {"clean_gradient": "no"}, r"clean_gradient='no'"),
    ],
)
def test_unknown_objectives_and_options_are_refused_by_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_objective(name, options)


def test_an_instance_of_ones_own_is_taken_as_it_is():
    class Mine(Objective):
        pass

    mine = Mine()
    assert make_objective(mine) is mine
    with pytest.raises(ValueError, match="would be ignored"):
        make_objective(mine, {"alpha": 1})
