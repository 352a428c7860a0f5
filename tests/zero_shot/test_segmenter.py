"""Pixels from patch tokens: names, synonyms and background; windows; golden values."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support.tiny import SIZE, make_model

from hf_pmgaft.models.readouts import READOUTS, patch_embeds
from hf_pmgaft.zero_shot import encode_class_names
from hf_pmgaft.zero_shot.segmenter import Segmenter

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "segmentation.json").read_text())["readouts"]
TEMPLATES = ["a photo of the {}", "an image of the {}"]
SYNONYMS = [["red disc", "red"], ["green disc"], ["blue square", "blue image", "blue"]]


def scenes(synonyms=SYNONYMS, background_threshold=None) -> SimpleNamespace:
    return SimpleNamespace(synonyms=synonyms, prompt_templates=TEMPLATES, background_threshold=background_threshold)


def images(height: int = SIZE, width: int = SIZE, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def on_given_patches(patches: torch.Tensor, embeds: torch.Tensor, num_names: list[int], **options) -> Segmenter:
    values = dict(image_mean=[0.0] * 3, image_std=[1.0] * 3, window=6, readout="sclip", scale=40.0, **options)
    return Segmenter(lambda pixel_values: patches, embeds, num_names, **values)


# ---- Golden values ----


@pytest.mark.parametrize("readout", sorted(READOUTS))
def test_pixels_of_golden_patches_are_the_golden_ones(readout):
    case = {key: torch.tensor(value, dtype=torch.float64) for key, value in GOLDEN["cases"][readout].items()}
    patches = case["patch_embeds"].unflatten(1, (3, 3))
    embeds = torch.tensor(GOLDEN["query_embeds"], dtype=torch.float64)
    labels = torch.tensor(GOLDEN["labels"])
    blank = torch.zeros(len(patches), 3, 6, 6).double()
    num_names = torch.tensor(GOLDEN["query_class"]).bincount().tolist()

    segmenter = on_given_patches(patches, embeds, num_names)
    cosines = segmenter.cosines(blank)
    torch.testing.assert_close(cosines[:1], case["pixel_cosines"], rtol=1e-9, atol=1e-9)
    logits = segmenter(blank)
    torch.testing.assert_close(logits[:1].exp(), case["class_probabilities"], rtol=1e-8, atol=1e-9)
    assert segmenter.predict(logits).tolist() == case["prediction"].tolist()
    with_background = on_given_patches(patches, embeds, num_names, background_threshold=0.6)
    assert with_background.predict(with_background(blank)).tolist() == case["prediction_background_below_0_6"].tolist()

    # The loss is that of the first name of each class, over labelled pixels.
    first = [GOLDEN["query_class"].index(number) for number in range(len(num_names))]
    of_first_names = on_given_patches(patches, embeds[first], [1] * len(first))
    loss = F.cross_entropy(of_first_names(blank), labels, ignore_index=-1)
    torch.testing.assert_close(loss, case["loss"], rtol=1e-9, atol=0)


def test_windows_that_overlap_are_averaged_as_in_the_golden_values():
    case = GOLDEN["sliding_window"]
    image, expected = (torch.tensor(case[key], dtype=torch.float64) for key in ("image", "averaged"))

    class OfWindows(Segmenter):
        """What a window is read out as there: different from the next one's."""

        def _of_windows(self, windows):
            return windows * windows - windows.mean((2, 3), keepdim=True)

    segmenter = OfWindows(
        None, torch.eye(3), [1] * 3, [0.0] * 3, [1.0] * 3, window=4, readout="sclip", scale=1, window_stride=2
    )
    torch.testing.assert_close(segmenter.cosines(image), expected, rtol=1e-9, atol=1e-9)
    pair = torch.cat([image, image.flip(1)])
    torch.testing.assert_close(segmenter.cosines(pair), torch.cat([expected, expected.flip(1)]), rtol=1e-9, atol=1e-9)


# ---- Names ----


def test_logits_are_of_the_likeliest_name_among_all_names(processor):
    model = make_model()
    segmenter = Segmenter.from_model(model, processor, scenes(), "sclip")
    names = [name for names in SYNONYMS for name in names]
    embeds = encode_class_names(model, processor, names, TEMPLATES)

    x = (images() - segmenter.mean) / segmenter.std
    patches = F.normalize(patch_embeds(model, x, "sclip"), dim=-1)
    cosines = F.interpolate((patches @ embeds.T).permute(0, 3, 1, 2), (SIZE, SIZE), mode="bilinear")
    p = (40 * cosines).softmax(1)
    expected = torch.stack([p[:, :2].amax(1), p[:, 2], p[:, 3:].amax(1)], dim=1)
    torch.testing.assert_close(segmenter(images()).exp(), expected, rtol=1e-4, atol=1e-5)
    assert segmenter.num_classes == 3 and segmenter.device == torch.device("cpu")


def test_a_threshold_makes_background_of_what_no_name_fits(processor):
    model = make_model()
    named = Segmenter.from_model(model, processor, scenes(background_threshold=0.5), "vanilla")
    logits = named(images())
    unsure = logits.amax(1) < math.log(0.5)
    assert unsure.any() and not unsure.all()
    assert torch.equal(named.predict(logits), logits.argmax(1).masked_fill(unsure, 0))

    # A background without names is what is left.
    nameless = Segmenter.from_model(model, processor, scenes([[], *SYNONYMS], background_threshold=0.5), "vanilla")
    logits = nameless(images())
    assert logits.shape[1] == 4 and nameless.num_classes == 4
    assert torch.equal(nameless.predict(logits), logits.argmax(1))
    assert torch.equal(logits.argmax(1) == 0, unsure)
    torch.testing.assert_close(logits[:, 1:], named(images()))


# ---- Windows ----


def test_larger_images_are_seen_in_windows_each_as_it_is_alone(processor):
    segmenter = Segmenter.from_model(make_model(), processor, scenes(), "sclip", window_stride=SIZE)
    large = images(2 * SIZE, 3 * SIZE)
    logits = segmenter(large)
    assert logits.shape == (2, 3, 2 * SIZE, 3 * SIZE)
    for top in (0, SIZE):
        for left in (0, SIZE, 2 * SIZE):
            window = (..., slice(top, top + SIZE), slice(left, left + SIZE))
            torch.testing.assert_close(logits[window], segmenter(large[window]), rtol=1e-4, atol=1e-4)


def test_windows_overlap_by_half_and_the_last_ones_end_with_the_image(processor):
    segmenter = Segmenter.from_model(make_model(), processor, scenes(), "maskclip")
    assert segmenter.describe() == {"readout": "maskclip", "scale": 100.0, "window": SIZE, "window_stride": SIZE // 2}
    large = images(SIZE + 1, SIZE + 11, count=1)
    starts = [(top, left) for top in (0, 1) for left in (0, 8, 11)]
    total, count = torch.zeros(1, 6, SIZE + 1, SIZE + 11), torch.zeros(SIZE + 1, SIZE + 11)
    for top, left in starts:
        window = (..., slice(top, top + SIZE), slice(left, left + SIZE))
        total[window] += segmenter.cosines(large[window])
        count[window] += 1
    torch.testing.assert_close(segmenter.cosines(large), total / count, rtol=1e-4, atol=1e-5)


def test_an_image_fares_in_company_as_it_does_alone_and_has_a_gradient(processor):
    segmenter = Segmenter.from_model(make_model(), processor, scenes(), "clearclip", scale=30)
    large = images(SIZE, 2 * SIZE, count=3).requires_grad_()
    together = segmenter(large)
    gradient = torch.autograd.grad(together.square().sum(), large)[0]
    assert (gradient.abs().amax(1) > 0).float().mean() > 0.9
    for number in range(3):
        alone = segmenter(large[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-4, atol=1e-4)


# ---- What is refused ----


def test_images_smaller_than_a_window_are_refused(processor):
    segmenter = Segmenter.from_model(make_model(), processor, scenes(), "sclip")
    with pytest.raises(ValueError, match=f"images of 12 x 40, .* are {SIZE} x {SIZE}. .*short_edge={SIZE}"):
        segmenter(images(12, 40))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (scenes(), {"window_stride": 17}, "window_stride=17, which leaves pixels out between windows of 16"),
        (scenes(), {"window_stride": 0}, "window_stride=0"),
        (scenes(), {"scale": 0}, "scale=0"),
        (scenes(background_threshold=1.5), {}, "background_threshold=1.5, which is no probability"),
        (scenes([[], ["red"], ["blue"]]), {}, "Class 0 has no name"),
        (scenes([[], ["red"], []], 0.5), {}, "Class 2 has no name"),
        (scenes([["red"], ["blue", "red"]]), {}, "share the name 'red'"),
    ],
)
def test_what_cannot_be_segmented_by_is_refused(processor, data, options, message):
    with pytest.raises(ValueError, match=message):
        Segmenter.from_model(make_model(), processor, data, "sclip", **options)
