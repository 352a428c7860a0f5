"""One picture attacked from the command line, and the command that makes the same picture again."""

import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import CLASS_NAMES, fit_model, make_images, make_model, make_processor

from hf_pmgaft import AttackSpec, cli
from hf_pmgaft.cli import attack, attack_report
from hf_pmgaft.embedded import emoji_folder, find_embedded, name_embedded
from hf_pmgaft.evaluation import PictureClassifier, attack_image, command_line
from hf_pmgaft.suites.sets import load_set

PGD = "pgd,eps=32/255,num_steps=5,loss=margin"
NAME = "PGD-5 margin linf 32/255"
TEMPLATE = "a photo of the {}"


@pytest.fixture(scope="module")
def fitted():
    return fit_model()


@pytest.fixture
def folder(fitted, tmp_path, monkeypatch):
    """A folder to work in with two models, a picture of a green disc, and a set."""
    monkeypatch.chdir(tmp_path)
    for name, (model, processor) in {"fitted": fitted, "other": (make_model(seed=3), make_processor())}.items():
        model.save_pretrained(name)
        processor.save_pretrained(name)
    images = make_images(8)
    images.save_to_disk("shapes")
    images[1]["image"].save("disc.png")
    return tmp_path


def run(line: str) -> None:
    command, *words = shlex.split(line)
    assert command == "pmgaft"
    cli.main(words)


# ---- What is printed and written ----


def test_a_picture_is_attacked_on_two_models_and_each_judges_both(folder, fitted, capsys):
    names = " ".join(f"'{name}'" for name in CLASS_NAMES)
    run(f"pmgaft attack disc.png --class_names {names} --label 'green disc' --models fitted other --attack {PGD} "
        f"--prompt_template '{TEMPLATE}' --output_folder out --top 2")  # fmt: skip
    printed = capsys.readouterr().out

    options = {"label": "green disc", "prompt_templates": TEMPLATE}
    attacked = attack_image(*fitted, "disc.png", CLASS_NAMES, PGD, **options)
    assert attacked.fell and (folder / "out/fitted.png").read_bytes() == attacked.png()
    for name in ("fitted", "other"):
        with Image.open(folder / f"out/{name}-perturbation.png") as shown:
            levels = np.asarray(shown).astype(int)
        assert {levels.min(), levels.max()} <= {0, 128, 255}  # the largest change is black or white

    # Tables, of which every figure has its attack
    blue = f"{100 * attacked.after.probabilities['blue square']:.1f}"
    assert f"fitted on disc.png: {NAME}, 4 classes, seed 0" in printed and f"after {NAME}, %" in printed
    assert ["green", "disc", "(label)", "100.0", "0.0"] in [line.split() for line in printed.splitlines()]
    assert ["blue", "square", "0.0", blue] in [line.split() for line in printed.splitlines()]
    assert f"{attacked.before.margin('green disc'):.3f} before, {attacked.margins[-1]:.3f} after {NAME}" in printed
    assert f"Of the 8-bit file out/fitted.png: {attacked.verdict}" in printed
    assert f"Made by {NAME} on the model of a row" in printed

    # The report
    report = json.loads((folder / "out/attack.json").read_text())
    of_fitted, judged = report["models"]["fitted"], report["transfer"]["fitted"]
    after = pytest.approx(attacked.after.probabilities, rel=1e-4)  # weights from a file may add up in another order
    assert of_fitted["after"]["probabilities"] == after
    assert of_fitted["attack"]["name"] == NAME and of_fitted["attack"]["eps"] == "32/255"
    assert of_fitted["files"] == ["fitted.png", "fitted-perturbation.png"] and of_fitted["versions"]["torch"]
    assert judged["fitted"]["probabilities"] == after and judged["fitted"]["fooled"]
    other = PictureClassifier(make_model(seed=3), make_processor(), CLASS_NAMES, TEMPLATE)
    assert judged["other"]["probabilities"] == pytest.approx(other.classify("out/fitted.png").probabilities)
    assert str(folder) not in json.dumps(report)


def test_a_row_of_a_set_comes_with_its_classes_label_and_noise(folder, fitted, capsys):
    line = f"--models fitted --attack {PGD} --output_folder out --prompt_template '{TEMPLATE}'"
    run(f"pmgaft attack --eval_set shapes@train --row 6 {line}")
    printed = capsys.readouterr().out
    data = load_set("shapes@train", fitted[1], prompt_templates=TEMPLATE)
    classifier = PictureClassifier(*fitted, data.class_names, TEMPLATE)
    attacked = classifier.attack(data[6]["images"], PGD, label="blue square", row=6)
    assert (folder / "out/fitted.png").read_bytes() == attacked.png()
    assert "fitted on row 6 of shapes:" in printed and "blue square (label)" in printed
    assert "Made by" not in printed  # with one model, nothing transfers


def test_without_anything_it_attacks_the_embedded_model_on_an_embedded_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("pmgaft attack --attack pgd,eps=4/255,num_steps=2")
    printed = capsys.readouterr().out
    assert "emoji/model on row 0 of emoji:food@test: PGD-2 ce linf 4/255, 131 classes" in printed
    assert "grapes (label)" in printed and str(emoji_folder()) not in printed
    with Image.open("attacked/emoji-model.png") as picture:
        assert picture.size == (40, 40)


def test_a_target_and_names_from_a_file_and_a_processor_that_enlarges(folder, fitted, capsys):
    (folder / "names.txt").write_text("\n".join(CLASS_NAMES))
    fitted[1].save_pretrained("wide")
    fitted[0].save_pretrained("wide")
    config = json.loads((folder / "wide/processor_config.json").read_text())
    config["image_processor"]["size"] = {"shortest_edge": 18}
    (folder / "wide/processor_config.json").write_text(json.dumps(config))
    run(f"pmgaft attack disc.png --class_names names.txt --target 'blue square' --models wide --attack {PGD} "
        f"--prompt_template '{TEMPLATE}' --output_folder out")  # fmt: skip
    printed = capsys.readouterr().out
    assert "The attack reaches its target 'blue square'" in printed and "blue square (target)" in printed
    assert "Best other logit above that of 'blue square'" in printed
    assert "give it the file without resizing" in printed


def test_files_of_models_have_names_of_their_own():
    assert attack_report.stems_of(["a/b c", "emoji/model"]) == ["a-b-c", "emoji-model"]
    assert attack_report.stems_of(["a/b", "a-b"]) == ["1-a-b", "2-a-b"]
    assert attack_report.stems_of(["a", "a-perturbation"]) == ["1-a", "2-a-perturbation"]


# ---- The command that makes the same picture ----

SETTINGS = {
    "plain": {},
    "a target and another seed": {"target": "blue square", "seed": 7},
    "no label": {"label": None},
    "a row of a set": {"image": None, "eval_set": "shapes@train", "row": 6, "label": "blue square"},
    "a row without a label": {"image": None, "eval_set": "shapes@train", "row": 5, "label": None},
    "L2 with options": {"attack": "pgd,eps=1.5,norm=l2,num_steps=4,step_size=0.5,restarts=2,random_start=false"},
    "several templates": {"prompt_templates": ["a photo of the {}", "an image: {}"]},
    "names that look like options": {"class_names": ["-red disc", "--green", "blue, square", "it's yellow"]},
}


@pytest.mark.parametrize("changed", SETTINGS.values(), ids=SETTINGS)
def test_the_command_line_makes_the_same_picture_to_the_bit(folder, fitted, changed, capsys):
    settings = {
        "image": "disc.png",
        "attack": PGD,
        "class_names": CLASS_NAMES,
        "label": "green disc",
        "prompt_templates": TEMPLATE,
        **changed,
    }
    model, processor = fitted
    if settings["class_names"] is not CLASS_NAMES:
        settings["label"] = None
        words = [*"a photo of the red disc green blue square it s yellow - , '".split()]
        processor = make_processor(words)
        processor.save_pretrained("fitted")
    line = command_line(models=["fitted"], output_folder="out", **settings)
    parsed = cli.parse(shlex.split(line)[1:])
    assert parsed.class_names == settings["class_names"] and parsed.label == settings["label"]
    assert parsed.models == ["fitted"] and parsed.seed == settings.get("seed", 0)
    assert AttackSpec.parse(parsed.attack) == AttackSpec.of(settings["attack"])

    run(line)
    image, eval_set = settings.pop("image"), settings.pop("eval_set", None)
    row = settings.pop("row", 0)
    picture = image or load_set(eval_set, processor)[row]["images"]
    names, spec = settings.pop("class_names"), settings.pop("attack")
    attacked = attack_image(model, processor, picture, names, spec, row=row, **settings)
    assert (folder / "out/fitted.png").read_bytes() == attacked.png()
    assert not torch.equal(*attacked.images)


def test_the_embedded_model_and_sets_have_names_of_their_own():
    model, food = str(emoji_folder() / "model"), f"{emoji_folder() / 'data'}:food@test"
    line = command_line(
        "fgsm,eps=4/255", None, eval_set=food, row=3, models=[model], prompt_templates="an emoji of {}"
    )
    assert str(emoji_folder()) not in line and "--models" not in line and "--eval_set emoji:food@test --row 3" in line
    line = command_line("fgsm,eps=4/255", ["a", "b"], image="-a b.png", models=[model, "mine"])
    assert line.startswith("pmgaft attack './-a b.png'") and "--models emoji mine" in line
    assert [find_embedded(name_embedded(text)) for text in (model, food, "mine")] == [model, food, "mine"]


def test_a_folder_called_emoji_comes_before_the_embedded_model(folder):
    (folder / "emoji").mkdir()
    assert find_embedded("emoji") == "emoji" and find_embedded("emoji:food") == "emoji:food"


def test_a_command_line_says_what_it_lacks():
    with pytest.raises(ValueError, match="Pass an image with its class names, or a set"):
        command_line(PGD, None, image="cat.png")
    with pytest.raises(ValueError, match="Pass an image with its class names, or a set"):
        command_line(PGD, ["a", "b"])


@pytest.mark.parametrize(
    "text",
    [
        "pgd,eps=4/255,num_steps=20,loss=margin",
        "pgd,eps=0.01,num_steps=3,step_size=1e-2,momentum=1e-05",
        "pgd,eps=4/255,step_size=0.5eps,random_start=false,restarts=3",
        "fgsm,eps=4/255,norm=l2",
        "apgd,eps=12,norm=l1",
        "cw,eps=0.5,learning_rate=0.001",
        "autoattack,eps=4/255,version=fast",
        "corruption,kind=jpeg,severity=2",
        "patch,size=8",
    ],
)
def test_every_attack_is_written_as_a_text_that_is_read_as_the_same(text):
    spec = AttackSpec.parse(text)
    line = shlex.split(command_line(spec, ["a", "b"], image="a.png"))
    assert AttackSpec.parse(line[line.index("--attack") + 1]) == spec


# ---- What cannot work ----

REFUSED = {
    "no class names": ("disc.png", "without --class_names"),
    "one class name": ("disc.png --class_names cat", "needs at least 2"),
    "a name twice": ("disc.png --class_names cat dog Cat", "share the name"),
    "no picture": ("gone.png --class_names cat dog", "there is no file 'gone.png'"),
    "a text for a picture": ("words.png --class_names cat dog", "are no image of a kind"),
    "too many pixels": ("disc.png --class_names cat dog --max_pixels 100", "20 x 20"),
    "a picture and a set": ("disc.png --eval_set shapes@train", "Pass one of them"),
    "the picture behind the models": ("--models fitted disc.png", "Put it before all options"),
    "an attack without a target": ("disc.png --target a --attack apgd,eps=4/255", "goes away from the label alone"),
    "an attack on segmentation": ("--attack sea,eps=4/255", "SEA"),
    "a radius of grey levels": ("--attack pgd,eps=4", "write 4/255"),
    "no place for a name": ("--prompt_template photo", "cannot take a class name"),
    "two labels": ("--label a --label_as_predicted", "both say what is right"),
    "a folder that is a file": ("--output_folder disc.png", "cannot be written to"),
    "a row before the first": ("--row -1", "row"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_ends_with_one_line_before_a_model_is_opened(folder, words, message, monkeypatch):
    (folder / "words.png").write_text("cats and dogs")
    monkeypatch.setattr(attack, "load_one_of_several", None)
    with pytest.raises(SystemExit) as ended:
        run(f"pmgaft attack {words}")
    text = str(ended.value.code)
    assert text.startswith("error: ") and message in text and "\n" not in text
    assert not (folder / "attacked").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--row 8", "has the rows 0 to 7"),
        ("--label cat", "none of the 4 class names"),
        ("--target 'green disc' --row 1", "the class of the picture already"),
    ],
)
def test_what_does_not_go_with_the_set_is_refused(folder, words, message):
    with pytest.raises(SystemExit, match=message):
        run(f"pmgaft attack --eval_set shapes@train --models fitted {words}")
    assert not (folder / "attacked").exists()
