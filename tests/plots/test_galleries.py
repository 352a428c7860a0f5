"""Galleries: what each panel shows, read from the figure and from the file."""

import numpy as np
import torch
from PIL import Image
from support.drawn import is_drawn

from hf_pmgaft.plots import answer_gallery, attention_gallery, gallery


def make_gallery(file, count=3, **options):
    clean = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    sign = torch.ones(count, 3, 8, 8)
    sign[..., :4] = -1
    names = ["cat", "cash $ and $", "a class whose name is very long"]
    labels = [i % 3 for i in range(count)]
    predictions = {"before": [2] * count, "after": labels}
    return gallery(clean, clean + sign * 4 / 255, names, labels, predictions, file, eps="4/255", **options)


def test_gallery_has_three_rows_and_spans_the_radius_around_mid_grey(tmp_path):
    figure = make_gallery(tmp_path / "gallery.png")
    assert len(figure.axes) == 9
    assert [figure.axes[i].get_ylabel() for i in (0, 3, 6)] == ["clean", "perturbation × 32", "adversarial"]
    pixels = figure.axes[3].images[0].get_array()
    assert np.allclose(pixels[:, :4], 0, atol=1e-4) and np.allclose(pixels[:, 4:], 1, atol=1e-4)
    assert "4/255" in figure.get_suptitle()
    assert is_drawn(tmp_path / "gallery.png")


def test_gallery_marks_right_and_wrong_by_sign_and_colour(tmp_path):
    figure = make_gallery(tmp_path / "gallery.png")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["cat", "cash $ and $"]
    wrong, right = figure.axes[6].texts
    assert wrong.get_text() == "✗ before: a class whose nam…" and right.get_text() == "✓ after: cat"
    assert wrong.get_color() != right.get_color()
    assert [text.get_text()[0] for text in figure.axes[8].texts] == ["✓", "✓"]


def test_gallery_predictions_lie_inside_the_picture(tmp_path):
    make_gallery(tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    border = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
    assert (border > 250).all()


def test_gallery_shows_the_first_columns_only(tmp_path):
    assert len(make_gallery(tmp_path / "gallery.png", count=5, columns=2).axes) == 6
    assert len(make_gallery(tmp_path / "gallery.png", count=1).axes) == 3


def test_gallery_of_an_l2_attack_magnifies_to_its_largest_value(tmp_path):
    clean = torch.full((1, 3, 8, 8), 0.5)
    adversarial = clean.clone()
    adversarial[0, :, 0, 0] += 0.1
    figure = gallery(clean, adversarial, ["cat", "dog"], [0], {}, tmp_path / "gallery.png", eps=2.0, norm="l2")
    pixels = figure.axes[1].images[0].get_array()
    assert np.allclose(pixels[0, 0], 1) and np.allclose(pixels[4, 4], 0.5)


NAMES = ["cat", "cash $ and $", "a class whose name is very long"]


def make_attention(file, **options):
    """Two models, three images of 8 x 8; the first model's attention moves from top left to bottom right."""
    images = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    moving, staying = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    moving[0, :, 0, 0] = moving[1, :, 1, 1] = 0.3
    staying[:, :, 0, 0] = torch.tensor([0.3, 0.1])[:, None]
    predictions = {"plain": torch.tensor([[0, 1, 2], [2, 1, 0]]), "robust": torch.tensor([[0, 1, 2], [0, 1, 2]])}
    maps = {"plain": moving, "robust": staying}
    drawn = attention_gallery(dict.fromkeys(maps, images), maps, predictions, NAMES, [0, 1, 2], file, **options)
    panels = np.array(drawn.axes[:24], dtype=object).reshape(2, 3, 2, 2)
    return drawn, panels, images


def test_attention_gallery_has_image_and_map_side_by_side_clean_and_attacked(tmp_path):
    figure, panels, images = make_attention(tmp_path / "gallery.png", title="Where they look")
    for view in range(2):
        for column in range(3):
            image = panels[0, column, 0, view].images[0].get_array()
            assert np.allclose(image, images[view, column].permute(1, 2, 0))
            grey, heat = panels[1, column, 1, view].images
            assert np.allclose(grey.get_array(), images[view, column].mean(0), atol=1e-6)
            assert heat.get_array().shape == (8, 8) and 0 < heat.get_alpha() < 1
    assert [axis.get_title() for axis in panels[0, 1, 0]] == ["clean", "attacked"]
    assert "Where they look" in [text.get_text() for text in figure.texts]
    assert {text.get_text() for row in (0, 1) for text in panels[row, 0, 0, 0].texts} >= {"cat", "plain", "robust"}
    assert is_drawn(tmp_path / "gallery.png")


def test_attention_is_hot_where_the_map_is_and_scaled_to_its_own_range(tmp_path):
    _, panels, _ = make_attention(tmp_path / "gallery.png")
    hottest = {(0, 0): (0, 0), (0, 1): (7, 7), (1, 0): (0, 0), (1, 1): (0, 0)}
    for (row, view), place in hottest.items():
        heat = np.asarray(panels[row, 0, 1, view].images[1].get_array())
        assert heat[place] == 1 == heat.max() and heat[7 - place[0], 7 - place[1]] == 0 == heat.min()
        assert panels[row, 0, 1, view].images[1].get_clim() == (0, 1)


def test_attention_gallery_says_how_far_the_attention_moved(tmp_path):
    _, panels, _ = make_attention(tmp_path / "gallery.png")
    found = [panels[row, 0, 1, 0].texts[0].get_text() for row in (0, 1)]
    assert found == ["correlation -0.33", "correlation 1.00"]


def test_attention_gallery_marks_right_and_wrong_clean_and_attacked(tmp_path):
    _, panels, _ = make_attention(tmp_path / "gallery.png")

    def verdicts(row, column):
        return [axis.texts[0] for axis in panels[row, column, 0]]

    clean, attacked = verdicts(0, 0)
    assert [clean.get_text(), attacked.get_text()] == ["✓ cat", "✗ a class whose nam…"]
    assert [text.get_text()[0] for column in range(3) for text in verdicts(0, column)] == list("✓✗✓✓✓✗")
    assert all(text.get_color() == clean.get_color() for column in range(3) for text in verdicts(1, column))
    assert clean.get_color() != attacked.get_color()


def test_a_constant_attention_map_is_drawn_as_nothing(tmp_path):
    images, flat = torch.rand(2, 1, 3, 8, 8), torch.full((2, 1, 2, 2), 0.2)
    options = {"predictions": {"a": torch.zeros(2, 1, dtype=torch.long)}, "class_names": NAMES, "labels": [0]}
    figure = attention_gallery({"a": images}, {"a": flat}, file=tmp_path / "gallery.png", **options)
    assert np.abs(figure.axes[2].images[1].get_array()).max() == 0


def test_answer_gallery_has_two_rows_per_tower_and_a_text_below_each_image(tmp_path):
    images = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    texts = [["a cat", "a dog", "a cow"], ["a car", "a long answer that takes more than one line", "a cow"]]
    figure = answer_gallery({"CLIP": (images, texts), "robust": (images, texts)}, tmp_path / "a.png", "What it sees")
    assert len(figure.axes) == 12
    assert [figure.axes[i].get_ylabel() for i in (0, 3, 6, 9)] == [
        f"{name}\n{kind}" for name in ("CLIP", "robust") for kind in ("clean", "attacked")
    ]
    assert [axis.get_xlabel().replace("\n", " ") for axis in figure.axes[3:6]] == texts[1]
    assert figure.get_suptitle() == "What it sees" and is_drawn(tmp_path / "a.png")
