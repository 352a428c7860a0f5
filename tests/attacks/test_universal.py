"""One perturbation for all images: its steps and its application against golden values, and its file."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.defended import double, toy
from support.paths import ROOT

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks import UniversalPerturbation, universal
from hf_pmgaft.attacks.passes import Passes, most_passes
from hf_pmgaft.attacks.universal_steps import UniversalSteps, universal_loss

GOLDEN = json.loads((ROOT / "tests/golden/universal.json").read_text())
GREY = torch.full((2, 3, 8, 8), 0.5)


@pytest.fixture
def file(tmp_path):
    """A perturbation of 10/255 with all values between."""
    delta = torch.linspace(-1, 1, 3 * 4 * 4).view(3, 4, 4) * 10 / 255
    UniversalPerturbation(delta, eps="10/255").save(tmp_path / "noise.safetensors")
    return str(tmp_path / "noise.safetensors")


# ---- Steps ----


def test_steps_are_those_of_x_transfer():
    golden = GOLDEN["training"]
    classifier, images, labels = toy()
    settings, start = golden["settings"], double(golden["start"])[0]
    steps = UniversalSteps(start, settings["eps"], settings["step_size"])
    loss_fn = universal_loss("cosine", classifier, classifier.embed, images, labels, cap=9.0)
    losses = [steps.step([loss_fn], images) for _ in range(settings["num_steps"])]
    assert losses == pytest.approx([-loss for loss in golden["loss"]], rel=1e-9)
    torch.testing.assert_close(steps.delta, double(golden["delta"])[0], rtol=0, atol=1e-12)


def test_the_signs_of_several_models_are_averaged_and_not_their_gradients():
    slopes = torch.tensor([[[5.0, 5.0, -0.1]]]), torch.tensor([[[-0.1, 3.0, -7.0]]]), torch.tensor([[[1.0, 1.0, 1.0]]])
    losses = [lambda points, slope=slope: (points * slope).flatten(1).sum(1) for slope in slopes]
    steps = UniversalSteps(torch.zeros(1, 1, 3), eps=0.5, step_size=0.3)
    total = steps.step(losses, torch.full((2, 1, 1, 3), 0.5))
    torch.testing.assert_close(steps.delta, torch.tensor([[[0.1, 0.3, -0.1]]]))
    assert total == pytest.approx(sum(0.5 * slope.sum().item() for slope in slopes) / 3)


def test_momentum_carries_directions_of_equal_length_on_and_the_ball_holds():
    steps = UniversalSteps(torch.zeros(1, 1, 2), eps=0.25, step_size=0.1, momentum=0.5)
    images, moved = torch.full((1, 1, 1, 2), 0.5), []
    for scale in (1.0, -1e-3, -1e-3, 1.0, 1.0, 1.0):  # lengths do not count, but signs do
        steps.step([lambda points, scale=scale: scale * points.flatten(1) @ torch.tensor([1.0, 3.0])], images)
        moved.append(steps.delta.flatten().tolist())
    signs = [1, -1, -1, 1, 1, 1]  # of 1, -1 + 0.5, -1 - 0.25, 1 - 0.625, ...
    walk, wanted = 0.0, []
    for sign in signs:
        walk = max(-0.25, min(0.25, walk + 0.1 * sign))
        wanted.append([walk, walk])
    torch.testing.assert_close(torch.tensor(moved), torch.tensor(wanted))

    slow = UniversalSteps(torch.zeros(1, 1, 1), eps=0.5, step_size=0.1, momentum=0.9)
    for sign in (1, 1, -1):  # 1, 1.9, 0.71
        slow.step([lambda points, sign=sign: sign * points.flatten(1).sum(1)], torch.full((1, 1, 1, 1), 0.5))
    assert slow.delta.item() == pytest.approx(0.3)


def test_cross_entropy_counts_up_to_the_cap():
    logits = torch.tensor([[0.0, 20.0], [2.0, 0.0]], requires_grad=True)
    loss_fn = universal_loss("ce", lambda points: logits, None, GREY, torch.tensor([0, 0]), cap=9.0)
    losses = loss_fn(GREY)
    assert losses.tolist() == pytest.approx([9.0, 0.126928], rel=1e-4)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[0].abs().sum() == 0 < gradient[1].abs().sum()
    with pytest.raises(ValueError, match=r"no loss 'dlr'. Choose one of \['ce', 'cosine'\]"):
        universal_loss("dlr", None, None, GREY, torch.tensor([0, 0]), cap=9.0)


# ---- Application ----


def test_it_is_applied_as_by_x_transfer(tmp_path):
    golden, eps = GOLDEN["application"], GOLDEN["training"]["settings"]["eps"]
    save_file({"delta": double(golden["delta"])}, tmp_path / "delta.safetensors")
    options = {"file": str(tmp_path / "delta.safetensors"), "made_for": eps}
    image = double(golden["image"])
    adversarial = universal(None, image, None, eps=eps, **options)
    torch.testing.assert_close(adversarial, double(golden["adversarial_image"]), rtol=0, atol=1e-11)

    grey = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    rescaled = universal(None, grey, None, eps="4/255", **options) - grey
    torch.testing.assert_close(rescaled, double(golden["rescaled_to_4_255"]), rtol=0, atol=1e-11)


def test_it_is_the_same_on_all_images_but_for_the_box(file):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 4, 4)
    delta = UniversalPerturbation.load(file).delta
    torch.testing.assert_close(universal(None, images, None, file=file), (images + delta).clamp(0, 1))
    assert torch.equal(universal(None, images, None, file=file, eps=0), images)
    half = universal(None, GREY[:, :, :4, :4], None, file=file, eps="5/255") - GREY[:, :, :4, :4]
    torch.testing.assert_close(half, (delta / 2).expand(2, 3, 4, 4), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_of_other_types_stay_in_the_ball(file, dtype):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 8, 8).to(dtype)
    adversarial = universal(None, images, None, file=file)
    assert adversarial.dtype == dtype
    assert (adversarial.double() - images.double()).abs().max() <= 10 / 255 + 1e-7


# ---- The threat ----


def test_it_is_a_threat_of_its_own_in_the_ball(file):
    spec = AttackSpec.parse(f"universal,file={file}")
    digest = UniversalPerturbation.load(file).digest
    assert spec.options["eps"] == spec.options["made_for"] == "10/255" and spec.options["digest"] == digest
    assert (spec.name, spec.threat, spec.norm) == (
        f"universal linf 10/255 noise {digest}",
        "universal linf 10/255",
        None,
    )
    assert AttackSpec.of(spec.to_dict()) == spec and most_passes(spec, 10) == Passes(0, 0)

    small = AttackSpec.parse(f"universal,file={file},eps=4/255")
    assert small.threat == "universal linf 4/255" and small.options["made_for"] == "10/255"
    adversarial = small.run(None, GREY, torch.tensor([0, 1]), torch.tensor([5, 6]), any_iterate=True)
    assert small.allows(GREY, adversarial).all() and not small.allows(GREY, adversarial + 1 / 255).any()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    adversarial = small.run(None, images, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    rounded = small.round_to_8_bits(images, adversarial)
    assert small.allows(images, rounded).all()
    torch.testing.assert_close(rounded * 255, (rounded * 255).round(), rtol=0, atol=1e-4)


def test_a_file_that_has_changed_is_another_attack(file, tmp_path):
    spec = AttackSpec.parse(f"universal,file={file}")
    UniversalPerturbation(torch.zeros(3, 4, 4), eps="10/255").save(file)
    with pytest.raises(ValueError, match=f"not {spec.options['digest']}: the file has changed"):
        AttackSpec.of(spec)
    assert AttackSpec.parse(f"universal,file={file}").name != spec.name


# ---- Files ----


def test_what_is_saved_comes_back_with_how_it_was_made(tmp_path):
    made = UniversalPerturbation(torch.rand(3, 4, 4), "4/255", {"loss": "ce", "seed": 3}, torch.tensor([2, 5]))
    made.save(tmp_path / "a.safetensors")
    loaded = UniversalPerturbation.load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.delta, made.delta) and loaded.digest == made.digest
    assert loaded.eps == "4/255" and loaded.protocol == {"loss": "ce", "seed": 3, "eps": "4/255"}
    assert loaded.rows.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.zeros(3, 4, 4), "b": torch.zeros(3, 4, 4)}, r"holds \['a', 'b'\], of which none is delta or"),
        ({"x": torch.zeros(4, 4)}, r"'x', torch.float32 of shape \[4, 4\], which is no perturbation"),
        ({"x": torch.full((3, 4, 4), torch.nan)}, "which is no perturbation"),
        ({"x": torch.zeros(3, 4, 4, dtype=torch.uint8)}, "torch.uint8.*which is no perturbation"),
        ({"x": torch.zeros(2, 3, 4, 4)}, r"shape \[2, 3, 4, 4\], which is no perturbation"),
    ],
)
def test_files_without_a_perturbation_are_refused(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=message):
        UniversalPerturbation.load(tmp_path / "x.safetensors")


def test_a_published_tensor_needs_the_radius_that_it_was_made_for(tmp_path):
    save_file({"perturbation": torch.full((1, 3, 4, 4), 0.04), "other": torch.zeros(1)}, tmp_path / "p.safetensors")
    text = f"universal,file={tmp_path / 'p.safetensors'},eps=4/255"
    with pytest.raises(ValueError, match="does not say for which radius it was made. Add made_for"):
        AttackSpec.parse(text)
    spec = AttackSpec.parse(f"{text},made_for=12/255")
    adversarial = spec.run(None, GREY, torch.tensor([0, 1]), torch.tensor([0, 1]))
    torch.testing.assert_close(adversarial - GREY, torch.full_like(GREY, 0.04 / 3), rtol=0, atol=1e-6)


def test_what_could_run_code_is_not_read(tmp_path):
    torch.save(torch.zeros(3, 4, 4), tmp_path / "delta.pt")
    for name in ("delta.pt", "there_is_none.pt"):
        with pytest.raises(ValueError, match="can run code when they are read. Convert it.*weights_only=True"):
            AttackSpec.parse(f"universal,file={tmp_path / name}")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("text.safetensors", "none.safetensors"):
        with pytest.raises(ValueError, match="which cannot be read.*Pass a safetensors file"):
            AttackSpec.parse(f"universal,file={tmp_path / name}")
    with pytest.raises(ValueError, match="the perturbation 3, which cannot be read"):
        AttackSpec.parse("universal,file=3")
    with pytest.raises(ValueError, match="has no file. Add it"):
        AttackSpec.parse("universal")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("made_for=12/255", "was made for the radius 10/255, not 12/255"),
        ("norm=l2", "no norm 'l2'"),
        ("eps=4", "write 4/255"),
        ("digest=0", "the file has changed"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(file, option, message):
    with pytest.raises(ValueError, match=message):
        AttackSpec.parse(f"universal,file={file},{option}")


def test_images_of_other_channels_are_refused(file):
    with pytest.raises(ValueError, match="a perturbation of 3 channels, but the images have 1"):
        universal(None, GREY[:, :1], None, file=file)
