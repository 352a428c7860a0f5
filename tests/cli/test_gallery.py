"""The gallery of where models look, as a user runs it."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.masked import NAMES, write_masked
from support.patches import tokens_by_hand, vary_layer_norms

from hf_pmgaft import plots
from hf_pmgaft.attacks.spec import AttackSpec
from hf_pmgaft.cli import gallery
from hf_pmgaft.data import ZeroShotDataset
from hf_pmgaft.zero_shot import ZeroShotClassifier, encode_class_names


@pytest.fixture
def model(model):
    return vary_layer_norms(model)


def test_a_look_holds_images_attention_and_predictions_clean_and_attacked(model, processor, images):
    data = ZeroShotDataset(images, processor, None, "a photo of the {}")
    rows, attack = [1, 6, 7], AttackSpec.of({"attack": "pgd", "eps": "8/255", "num_steps": 5, "loss": "margin"})
    for block in model.vision_model.encoder.layers:
        block.self_attn.dropout = 0.5  # which must not act
    model.train()
    seen = gallery.look(model, processor, data, rows, attack, seed=0)

    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    clean, attacked = seen["images"]
    torch.testing.assert_close(clean, torch.stack([data[row]["images"] for row in rows]))
    assert attack.allows(clean, attacked).all() and not torch.equal(clean, attacked)
    embeds = encode_class_names(model, processor, data.class_names, data.prompt_templates)
    classifier = ZeroShotClassifier.from_model(model.eval(), processor, embeds)
    mean, std = classifier.mean, classifier.std
    for view, batch in enumerate((clean, attacked)):
        assert seen["predictions"][view].tolist() == classifier(batch).argmax(1).tolist()
        tokens = F.normalize(tokens_by_hand(model, (batch - mean) / std)[:, 1:], dim=-1)
        for i, row in enumerate(rows):
            expected = (tokens[i] @ embeds[data[row]["labels"]]).view(4, 4)
            torch.testing.assert_close(seen["attention"][view, i], expected)
    losses = [
        F.cross_entropy(classifier(batch), torch.tensor([data[r]["labels"] for r in rows]))
        for batch in (clean, attacked)
    ]
    assert losses[1] > losses[0]


def test_the_command_draws_the_embedded_model(tmp_path, capsys):
    file = tmp_path / "gallery.png"
    gallery.main(["--num_images", "2", "--num_steps", "3", "--output_file", str(file)])
    assert str(file) in capsys.readouterr().out
    with Image.open(file) as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 300
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 1000


def test_of_a_set_with_masks_the_command_shows_what_pixels_are_taken_for(tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "segmentation_gallery", lambda *shown, **options: drawn.append((shown, options)))
    folder, file = write_masked(tmp_path / "scenes"), tmp_path / "gallery.png"
    options = ["--num_images", "3", "--num_steps", "2", "--eps", "16/255", "--readout", "clearclip,scale=20"]
    gallery.main(["--eval_set", str(folder), "--output_file", str(file), *options])
    assert str(file) in capsys.readouterr().out

    (((images, masks, predictions, names, _), shown),) = drawn
    assert [image.shape for image in images] == [(3, 48, 48)] * 3 and names == NAMES
    assert list(predictions) == ["emoji/model, clean", "emoji/model, attacked"]
    right = [
        sum(int((each == mask).sum()) for each, mask in zip(maps, masks, strict=True)) for maps in predictions.values()
    ]
    assert right[1] < right[0] and "PGD-2 masked_ce linf 16/255" in shown["title"]


def test_a_readout_that_is_none_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no readout 'clip'"):
        gallery.main(["--eval_set", str(write_masked(tmp_path / "scenes")), "--readout", "clip"])


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        gallery.main(["--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0 and "pmgaft gallery --models" in printed
    assert "--eval_set" in printed and "2410.21802" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_images", "0"], "leaves nothing to show. Pass 1 or more"),
        (["--eps", "4"], "write 4/255"),
        (["--eps", "0"], "at which nothing is attacked"),
        (["--eval_set", "nowhere.parquet"], "error: "),
        (["--models", "nowhere"], "error: "),
    ],
)
def test_what_cannot_work_ends_with_one_line(argv, message):
    with pytest.raises(SystemExit) as stopped:
        gallery.main(argv)
    assert str(stopped.value.code).startswith("error: ") and message in str(stopped.value.code)
