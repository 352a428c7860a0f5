"""Names of wrong classes on pictures: which, where, how large, and what cannot be written."""

import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from hf_pmgaft import AttackSpec
from hf_pmgaft.attacks import typographic
from hf_pmgaft.attacks.lettering import check_writable, draw, lay_out, least_height, random_letters
from hf_pmgaft.attacks.typographic import band_of, write_words

NAMES = ["tree frog", "Newt_eft", "cat", "owl"]
GREY = torch.full((6, 3, 48, 48), 0.5)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
SEEDS = torch.tensor([3, 1, 4, 1, 5, 2**40])


class Reader:
    """A classifier that never errs, and keeps what it saw."""

    def __init__(self, labels):
        self.labels, self.seen = labels, []

    def __call__(self, images):
        self.seen.append(images.clone())
        return torch.nn.functional.one_hot(self.labels[: len(images)], 4).float()


def write(images=GREY, labels=LABELS, seeds=SEEDS, classifier=None, **options):
    classifier = classifier or Reader(labels)
    return typographic(classifier, images, labels, class_names=NAMES, **{"height": 0.5, **options}, seeds=seeds)


def box(image: torch.Tensor, clean: torch.Tensor) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what changed."""
    changed = (image != clean).any(0)
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    return rows.min().item(), columns.min().item(), rows.max().item() + 1, columns.max().item() + 1


def crop(image: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = box(image, clean)
    return image[:, top:bottom, left:right]


# ---- What is written ----


def test_a_word_stands_as_pillow_draws_it_in_white_with_a_black_outline():
    layout = lay_out("cat", width=48, band=24)
    assert layout.lines == ("cat",) and layout.height <= 24 and layout.width <= 48
    face = ImageFont.load_default(layout.size)
    picture = Image.new("RGB", (layout.width, layout.height), (128, 128, 128))
    place = (-layout.left, -layout.top)
    ImageDraw.Draw(picture).text(place, "cat", "white", face, "ls", stroke_width=1, stroke_fill="black")
    wanted = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255

    grey = torch.full((1, 3, 48, 48), 128 / 255)
    found = [write(grey, torch.tensor([0]), torch.tensor([seed]), words=1, places=1)[0] for seed in range(12)]
    crops = [crop(image, grey[0]) for image in found]
    cats = [cut for cut in crops if cut.shape[1:] == (layout.height, layout.width)]
    assert 2 <= len(cats) < 12
    for cat in cats:
        assert (cat - wanted).abs().max() < 2.1 / 255  # Pillow rounds twice


def test_the_largest_letters_that_fit_are_taken_and_lines_break_at_spaces():
    wide, narrow = lay_out("tree frog", 200, 24), lay_out("tree frog", 40, 24)
    assert wide.lines == ("tree frog",) and narrow.lines == ("tree", "frog") and narrow.size < wide.size
    for layout, width in ((wide, 200), (narrow, 40)):
        assert layout.width <= width and layout.height <= 24
        larger = ImageFont.load_default(layout.size + 1)
        boxes = [larger.getbbox(line, anchor="ls", stroke_width=1) for line in layout.lines]
        lowest = (len(boxes) - 1) * (layout.size + 1) + boxes[-1][3]
        assert lowest - boxes[0][1] > 24 or max(right - left for left, _, right, _ in boxes) > width
        ink = draw(layout)[1] > 0
        assert all(edge.any() for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))
    assert lay_out("tree frog", 200, 5) is None


def test_the_words_are_those_of_other_classes_each_once_and_the_places_lie_inside():
    reader = Reader(LABELS)
    write(classifier=reader, words=9, places=2)
    assert len(reader.seen) == 3 * 2  # all wrong words
    sizes = {name: lay_out(name, 48, 24)[-2:] for name in ("tree frog", "newt eft", "cat", "owl")}
    assert len(set(sizes.values())) == 4
    for row, label in enumerate(LABELS.tolist()):
        boxes = [box(seen[row], GREY[row]) for seen in reader.seen]
        written = [(right - left, bottom - top) for top, left, bottom, right in boxes]
        others = [size for name, size in sizes.items() if name != list(sizes)[label]]
        assert sorted(written) == sorted(others * 2) and written[::2] == written[1::2]
        assert len({corners[:2] for corners in boxes}) > 3


def test_a_name_that_reads_like_the_true_one_is_not_written():
    names = ["tree frog", "tree-frog", "cat", "cat"]
    reader = Reader(torch.tensor([0, 1]))
    typographic(reader, GREY[:2], torch.tensor([0, 1]), class_names=names, height=0.5, words=4, places=1)
    assert len(reader.seen) == 1
    with pytest.raises(ValueError, match="2 class names that all read 'cat'"):
        typographic(reader, GREY[:1], LABELS[:1], class_names=["cat", "Cat"], height=0.5)


def test_of_names_that_read_the_same_one_is_written():
    names, labels = ["tree frog", "cat", "Cat", "owl"], torch.zeros(6, dtype=torch.int64)
    for start in range(4):
        reader = Reader(labels)
        seeds = torch.arange(6) + 6 * start
        typographic(reader, GREY, labels, class_names=names, height=0.5, words=3, places=1, seeds=seeds)
        first, second = reader.seen
        for clean, one, other in zip(GREY, first, second, strict=True):
            assert crop(one, clean).shape != crop(other, clean).shape


def test_random_letters_are_the_same_at_every_place():
    reader = Reader(LABELS)
    write(classifier=reader, words=2, places=2, letters="random")
    crops = [[crop(image, clean) for image, clean in zip(seen, GREY, strict=True)] for seen in reader.seen]
    assert all(torch.equal(one, other) for pair in (crops[:2], crops[2:]) for one, other in zip(*pair, strict=True))


def test_random_letters_are_others_in_the_same_box():
    words, letters = write(words=1, places=1), write(words=1, places=1, letters="random")
    for clean, word, other in zip(GREY, words, letters, strict=True):
        top, left, bottom, right = box(word, clean)
        outside = torch.ones(48, 48, dtype=torch.bool)
        outside[top:bottom, left:right] = False
        assert not torch.equal(word, other) and torch.equal(other[:, outside], clean[:, outside])
        extent = box(other, clean)
        assert extent[3] - extent[1] > 0.6 * (right - left)
    drawn = [random_letters("tree frog", seed, 0) for seed in range(100)]
    assert all(len(text) == 8 for text in drawn) and set().union(*drawn) == set("abcdefghijklmnopqrstuvwxyz")


def test_a_letter_stands_in_the_middle_of_where_its_own_stood():
    ink = draw(lay_out("w", 48, 24), letters=["i"])[1].any(0).nonzero()[0]
    width = lay_out("w", 48, 24).width
    assert len(ink) < width / 2 and abs(ink[0] - (width - 1 - ink[-1])) <= 2


def test_letters_that_replace_themselves_stand_where_they_stood():
    layout = lay_out("tree frog", 48, 24)
    same = draw(layout, letters=list("treefrog"))
    assert abs(same.astype(int) - draw(layout)).mean() < 12  # of 255: but for kerning


def test_colours_are_those_that_were_asked_for():
    red, blue = write(colour="red", words=1, places=1), write(colour="blue", words=1, places=1)
    for image, colour, outline in ((red[0], (1, 0, 0), (1, 1, 1)), (blue[0], (0, 0, 1), (1, 1, 1))):
        pixels = {tuple(pixel) for pixel in image.flatten(1).T.tolist()}
        assert colour in pixels and outline in pixels


# ---- What is kept ----


def test_the_first_that_is_misclassified_is_kept_and_the_image_leaves():
    reader = Reader(LABELS)

    def falls_for_the_third(images):
        logits = reader(images)
        return -logits if len(reader.seen) == 3 else logits

    adversarial = write(classifier=falls_for_the_third, words=2, places=2)
    assert len(reader.seen) == 3 and torch.equal(adversarial, reader.seen[2])


def test_else_the_one_with_the_smallest_margin_is_kept():
    margins, seen = [3.0, 1.0, 2.0, 1.5], []

    def classifier(images):
        seen.append(images.clone())
        return margins[len(seen) - 1] * torch.nn.functional.one_hot(LABELS, 4).float()

    adversarial = write(classifier=classifier, words=2, places=2)
    assert len(seen) == 4 and torch.equal(adversarial, seen[1])


@pytest.mark.parametrize("letters", ["word", "random"])
def test_whose_name_stands_there_and_how_much_it_covers_is_told(letters):
    options = {"class_names": NAMES, "height": 0.5, "seeds": SEEDS, "letters": letters}
    written = write_words(Reader(LABELS), GREY, LABELS, **options)
    assert torch.equal(written.images, write(letters=letters)) and (written.classes != LABELS).all()
    for image, clean, number, covered in zip(written.images, GREY, written.classes, written.covered, strict=True):
        layout = lay_out(NAMES[number].lower().replace("_", " "), 48, 24)
        top, left, bottom, right = box(image, clean)
        assert covered.item() == pytest.approx(layout.width * layout.height / 48**2)
        if letters == "word":
            assert (right - left, bottom - top) == (layout.width, layout.height)


def test_a_picture_follows_from_the_image_and_its_seed_alone():
    torch.manual_seed(0)
    images, weight = torch.rand(6, 3, 48, 48), torch.randn(3 * 48 * 48, 4)
    labels = (images.flatten(1) @ weight).argmax(1)

    def attack(rows):
        return write(images[rows], labels[rows], SEEDS[rows], lambda x: x.flatten(1) @ weight, letters="random")

    whole, rows = attack(list(range(6))), [4, 0, 3]
    assert torch.equal(attack(rows), whole[rows]) and torch.equal(attack([5]), whole[5:])
    other = write(images, labels, SEEDS + 1, lambda x: x.flatten(1) @ weight, letters="random")
    assert (other != whole).flatten(1).any(1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_of_numbers_keep_every_pixel_that_no_letter_covers(dtype):
    torch.manual_seed(0)
    images = torch.rand(6, 3, 48, 48).to(dtype)
    adversarial, exact = write(images), write(images.double())
    assert adversarial.dtype == dtype
    torch.testing.assert_close(adversarial.double(), exact, rtol=0, atol=0.01 if dtype != torch.float64 else 0)
    assert torch.equal(adversarial != images, exact != images.double()) or dtype != torch.float64
    assert ((adversarial != images) & (exact == images.double())).sum() == 0


# ---- The threat ----


def test_the_threat_is_text_in_so_many_rows():
    spec = AttackSpec.parse("typographic,height=0.125,letters=random")
    assert spec.threat == spec.name == "typographic random 12.5%" and spec.norm is None
    assert AttackSpec.parse("typographic,words=2,colour=red").name == "typographic word 20% (words=2, colour=red)"
    assert AttackSpec.of(spec.to_dict()) == spec

    four, five = GREY.clone(), GREY.clone()
    four[:, :, 20:26], five[:, :, 20:27] = 1, 1
    assert band_of(0.125, 48) == 6
    assert spec.allows(GREY, four).all() and not spec.allows(GREY, five).any() and spec.allows(GREY, GREY).all()
    assert not spec.allows(GREY, GREY + 0.7).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"height": 0.1},
            "'tree frog', which has no place in 48 x 4 pixels.*of 6 pixels.*4 of 4 class.* Pass height=0.2, the least",
        ),
        ({"height": 0.0}, "height=0.0, which is no share"),
        ({"letters": "words"}, r"no letters 'words'. Choose one of \['random', 'word'\]"),
        ({"colour": "reddish"}, "the colour 'reddish', which is none"),
        ({"font": "no.ttf"}, "the font 'no.ttf', which cannot be read"),
        ({"places": 0}, "places=0"),
        ({"images": GREY[:, :1]}, "images of 1 channels"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_model_is_asked(options, message):
    reader = Reader(LABELS)
    with pytest.raises(ValueError, match=message):
        write(classifier=reader, **options)
    assert not reader.seen


def test_characters_that_a_font_lacks_are_named_and_another_font_has_them():
    matplotlib = pytest.importorskip("matplotlib")
    names = ["crème brûlée", "日本"]
    with pytest.raises(ValueError, match="characters èéû日本, which the font of Pillow has not"):
        typographic(Reader(LABELS), GREY, LABELS, class_names=[*names, "a", "b"])
    dejavu = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    with pytest.raises(ValueError, match="characters 日本, which the font .*DejaVuSans.ttf has not"):
        typographic(Reader(LABELS), GREY, LABELS, class_names=[*names, "a", "b"], font=dejavu)
    names = ["crème", "brûlée", "a", "b"]
    adversarial = typographic(Reader(LABELS), GREY, LABELS, class_names=names, height=0.5, font=dejavu)
    assert (adversarial != GREY).flatten(1).any(1).all()


def test_without_names_there_is_nothing_to_write():
    spec = AttackSpec.parse("typographic,height=0.5")
    with pytest.raises(ValueError, match="You passed no class names, which this attack writes"):
        spec.run(Reader(LABELS), GREY, LABELS, SEEDS)


def test_a_radius_is_refused():
    with pytest.raises(ValueError, match="'typographic' takes no eps"):
        AttackSpec.parse("typographic,eps=4/255")


@pytest.mark.parametrize("names", [["tree frog", "newt"], ["a very long name of many words"]])
@pytest.mark.parametrize("size", [(40, 40), (64, 30)])
def test_the_height_that_an_error_names_is_enough_and_less_is_not(names, size):
    height = least_height(names, size)
    check_writable(names, size, height)
    with pytest.raises(ValueError, match=rf"Pass height={height:g}, the least"):
        check_writable(names, size, height - 0.1)
    assert least_height(names, size, least=0.9) == 0.9


def test_the_width_that_an_error_names_is_enough_and_less_is_not():
    names = ["hippopotamus", "newt"]
    with pytest.raises(ValueError, match="No height is enough. Attack images that are at least") as refused:
        check_writable(names, (30, 30), 1.0)
    width = int(re.search(r"at least (\d+) pixels", str(refused.value))[1])
    check_writable(names, (40, width), 0.5)
    with pytest.raises(ValueError, match=f"at least {width} pixels"):
        check_writable(names, (40, width - 1), 1.0)
