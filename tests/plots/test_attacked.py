"""Pictures of one image under attack: what stands in each panel, and that figures name attack and radius."""

import numpy as np
import pytest
import torch
from support.drawn import is_drawn

from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.evaluation import AttackedImage, Seen
from hf_pmgaft.plots import attacked_picture, margin_curves

SPEC = AttackSpec.parse("pgd,eps=4/255,num_steps=2,loss=margin")


def seen(cat: float, has_attention: bool = True) -> Seen:
    attention = torch.eye(4) if has_attention else None
    return Seen({"cat": cat, "cash $ and $": 1 - cat}, attention, {"cat": cat, "cash $ and $": 1 - cat})


def make_attacked(target: str | None = None, has_attention: bool = True, margins=(2.0, 0.5, -1.0)) -> AttackedImage:
    clean = torch.full((3, 8, 8), 0.5)
    adversarial = clean.clone()
    adversarial[:, :, :4] -= 4 / 255
    adversarial[:, :, 4:] += 4 / 255
    images = torch.stack([clean, adversarial])
    return AttackedImage(
        "cat", target, SPEC, images, seen(0.9, has_attention), seen(0.25, has_attention), list(margins)
    )


def test_panels_are_clean_magnified_and_adversarial(tmp_path):
    figure = attacked_picture(make_attacked(), tmp_path / "attacked.png", model_name="tiny CLIP")
    clean, perturbation, adversarial, before, middle, after = figure.axes
    assert perturbation.get_title() == "perturbation × 32"
    pixels = perturbation.images[0].get_array()
    assert np.allclose(pixels[:, :4], 0, atol=1e-4) and np.allclose(pixels[:, 4:], 1, atol=1e-4)
    assert clean.texts[0].get_text() == "✓ 90% cat" and adversarial.texts[0].get_text() == "✗ 75% cash $ and $"
    assert len(before.images) == len(after.images) == 2
    assert "correlation 1.00" in middle.texts[0].get_text() and "'cat'" in middle.texts[0].get_text()
    assert figure.get_suptitle() == "tiny CLIP: PGD-2 margin linf 4/255"
    assert is_drawn(tmp_path / "attacked.png")


def test_an_encoder_without_patches_has_no_maps(tmp_path):
    figure = attacked_picture(make_attacked(has_attention=False), tmp_path / "attacked.png", model_name="tiny")
    assert len(figure.axes) == 3


def test_curves_have_a_line_per_model_and_end_at_the_file(tmp_path):
    attacked = {"first": make_attacked(), "second": make_attacked(margins=[3.0])}
    (axis,) = margin_curves(attacked, tmp_path / "margins.png").axes
    curves = {line.get_label(): list(line.get_ydata()) for line in axis.lines if line.get_label()[0] != "_"}
    assert curves == {"first": [2.0, 0.5, -1.0], "second": [3.0]}
    assert [list(line.get_xdata()) for line in axis.lines if line.get_marker() != "None"] == [[3], [1]]
    assert axis.get_title() == "PGD-2 margin linf 4/255" and "right class" in axis.get_ylabel()
    assert is_drawn(tmp_path / "margins.png")


@pytest.mark.parametrize("draw", [attacked_picture, margin_curves])
def test_a_target_is_named(tmp_path, draw):
    attacked = make_attacked(target="cash $ and $")
    if draw is margin_curves:
        title = margin_curves({"tiny": attacked}, tmp_path / "margins.png").axes[0].get_title()
    else:
        title = attacked_picture(attacked, tmp_path / "attacked.png", model_name="tiny").get_suptitle()
    assert "'cash $ and $'" in title
