"""The page as visitors use it, through the server, with tiny models."""

import io
import shlex
import time

import pytest
import torch
from PIL import Image
from support.demo import NAMES, PGD, TEMPLATE, Visitor, ask, tiny_page
from support.tiny import CLASS_NAMES, encoded

from hf_pmgaft import cli, load_model
from hf_pmgaft.data import load_images
from hf_pmgaft.demo import Settings
from hf_pmgaft.demo.form import ATTACKS as ATTACK_NAMES
from hf_pmgaft.demo.form import attack_of
from hf_pmgaft.evaluation import PictureClassifier

pytest.importorskip("gradio")
LONG = 200_000  # steps that nobody waits for


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def server(folder):
    with tiny_page(folder, max_steps=LONG, max_pixels=1_000_000, max_upload=2_000_000) as server:
        yield server


@pytest.fixture(scope="module")
def visitor(server) -> Visitor:
    return Visitor(server.address)


@pytest.fixture(scope="module")
def classifier(folder) -> PictureClassifier:
    """The first model of the page, asked without it."""
    from transformers import AutoProcessor

    place = str(folder / "fitted")
    return PictureClassifier(load_model(place), AutoProcessor.from_pretrained(place), CLASS_NAMES, TEMPLATE)


@pytest.fixture(scope="module")
def images(folder):
    return load_images(str(folder / "shapes"))


# ---- What is shown is what the package says ----


def test_predictions_are_those_of_the_package(visitor, classifier, images):
    fitted, other = visitor.classify(visitor.draw(2))
    seen = classifier.classify(images[2]["image"])
    assert seen.prediction == "blue square" and max(other, key=other.get) in CLASS_NAMES
    assert fitted == pytest.approx(seen.probabilities, abs=1e-6)


def test_an_attack_shows_what_the_package_says_of_the_file_that_is_downloaded(visitor, classifier, images):
    shown = visitor.attack(visitor.draw(1), label="green disc", norm="l2", radius=3, num_steps=10, seed=3)
    attacked = classifier.attack(
        images[1]["image"], "pgd,eps=3,norm=l2,num_steps=10,loss=margin", label="green disc", seed=3, row=1
    )
    assert attacked.fell
    assert "**PGD-10 margin l2 3**" in shown.status
    assert shown.files[0] == attacked.png() and shown.verdicts[0] == attacked.verdict
    assert shown.before[0] == pytest.approx(attacked.before.probabilities, abs=1e-6)
    assert shown.after[0] == pytest.approx(attacked.after.probabilities, abs=1e-6)
    assert classifier.classify(shown.files[0]).probabilities == pytest.approx(shown.after[0], abs=1e-6)
    for file in shown.pictures:
        with Image.open(file) as picture:
            assert picture.width > 300


def test_radius_0_changes_nothing(visitor, classifier, images):
    shown = visitor.attack(visitor.draw(3), radius=0)
    assert shown.before == shown.after
    assert shown.files[0] == classifier.attack(images[3]["image"], "fgsm,eps=0").png()
    assert all("No pixel of the 8-bit image has changed" in verdict for verdict in shown.verdicts)


def test_the_command_on_the_page_makes_the_same_file_of_a_row(visitor, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = visitor.attack(visitor.draw(1), target="red disc", seed=5)
    run(shown.command)
    assert [file.read_bytes() for file in adversarial_files(tmp_path)] == shown.files
    assert "--row 1" in shown.command and "--label_as_predicted" in shown.command


def test_the_command_makes_the_same_file_of_an_upload_and_so_does_the_page_again(visitor, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    noisy = Image.effect_noise((30, 20), 60).convert("RGB")
    noisy.save("my cat.png")
    shown = visitor.attack(tmp_path / "my cat.png", label="green disc")
    run(shown.command)
    assert [file.read_bytes() for file in adversarial_files(tmp_path)] == shown.files
    assert visitor.attack(tmp_path / "my cat.png", label="green disc").files == shown.files


def run(line: str) -> None:
    command, *words = shlex.split(line)
    assert command == "pmgaft"
    cli.main(words)


def adversarial_files(folder) -> list:
    return sorted(file for file in folder.glob("attacked/*.png") if "perturbation" not in file.name)


ATTACKS = {
    "FGSM margin l2 0.5": {"attack": "fgsm", "norm": "l2", "radius": 0.5},
    "APGD-CE linf 8/255 (num_steps=5)": {"attack": "apgd", "loss": "ce"},
    "APGD-T linf 8/255 (num_steps=5)": {"attack": "apgd_t"},
    "CW linf 8/255 (num_steps=5)": {"attack": "cw"},
    "PGD-5 margin linf 8/255": {},
    "AutoAttack fast linf 8/255": {"attack": "autoattack"},
}


@pytest.mark.parametrize("name, options", ATTACKS.items(), ids=ATTACKS)
def test_every_attack_of_the_list_has_its_name(name, options):
    chosen = {**PGD, **options}
    spec = attack_of(*(chosen[key] for key in ("attack", "norm", "radius", "num_steps", "loss")), Settings())
    assert spec.name == name
    assert set(ATTACK_NAMES) == {"pgd", *(each["attack"] for each in ATTACKS.values() if each)}


def test_an_attack_without_steps_and_loss_runs_too(visitor):
    shown = visitor.attack(visitor.draw(1), attack="cw", loss=None)
    assert "**CW linf 8/255 (num_steps=5)**" in shown.status and len(shown.files) == 2


def test_an_image_that_replaced_a_row_is_no_row_any_more(visitor, classifier, tmp_path):
    visitor.draw(2)
    picture = Image.new("RGB", (30, 20), "red")
    picture.save(tmp_path / "mine.png")
    (fitted, _) = visitor.classify(tmp_path / "mine.png")
    assert fitted == pytest.approx(classifier.classify(picture).probabilities, abs=1e-6)


def test_a_row_is_drawn_by_its_number_or_by_the_seed(visitor):
    image, names, templates, label, target = visitor.client.predict("shapes", "1", 0, api_name="/draw")
    assert (names, templates, label["value"], target["value"]) == (NAMES, TEMPLATE, "green disc", None)
    drawn = [visitor.client.predict("shapes", "", seed, api_name="/draw")[0]["alt_text"] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    for row in ("16", "-1", "one", "1" * 20):
        with pytest.raises(Exception, match="You passed"):
            visitor.client.predict("shapes", row, 0, api_name="/draw")


# ---- Transfer ----


def test_an_image_of_one_model_is_judged_by_all(visitor, folder):
    from transformers import AutoProcessor

    shown = visitor.attack(visitor.draw(2), label="blue square")
    names = [f"{folder.name}/fitted", f"{folder.name}/other"]
    status, _, *judged = visitor.client.predict(names[0], api_name="/transfer")
    own, of_other = ({each["label"]: each["confidence"] for each in label["value"]["confidences"]} for label in judged)
    assert own == pytest.approx(shown.after[0])
    place = str(folder / "other")
    other = PictureClassifier(load_model(place), AutoProcessor.from_pretrained(place), CLASS_NAMES, TEMPLATE)
    assert of_other == pytest.approx(other.classify(shown.files[0]).probabilities, abs=1e-6)
    assert status == f"Shown: **PGD-5 margin linf 8/255**, made on {names[0]}, judged by all."


def test_there_is_nothing_to_judge_before_an_attack(server, folder):
    with pytest.raises(Exception, match="There is no adversarial image yet"):
        Visitor(server.address).client.predict(f"{folder.name}/fitted", api_name="/transfer")


# ---- Several visitors, and those who stop ----


def test_two_visitors_are_served_in_turn_with_their_own_answers(server, classifier, images):
    first, second = Visitor(server.address), Visitor(server.address)
    jobs = {1: first.start(first.draw(1), num_steps=40), 2: second.start(second.draw(2), num_steps=40)}
    waited = set()
    while not all(job.done() for job in jobs.values()):
        waited |= {job.status().rank for job in jobs.values()}
        time.sleep(0.1)
    assert any(rank is not None for rank in waited)  # somebody saw his place in the queue
    for row, job in jobs.items():
        attacked = classifier.attack(images[row]["image"], "pgd,eps=8/255,num_steps=40,loss=margin", row=row)
        assert job.result()[5] == attacked.verdict


def test_stop_stops_what_is_ones_own_and_nothing_else(server):
    first, second = Visitor(server.address), Visitor(server.address)
    job = first.start(first.draw(1), num_steps=LONG)
    while job.status().progress_data is None:
        time.sleep(0.1)
    assert second.client.predict(api_name="/stop") == "Nothing of yours was running."
    assert not job.done()

    stopped = first.client.predict(api_name="/stop")
    assert stopped.startswith("Stopped at pass ") and "of at most 200002 on" in stopped
    with pytest.raises(Exception, match="Stopped at pass"):
        job.result(timeout=10)
    assert len(second.classify(second.draw(1))) == 2


# ---- What cannot work ----

REFUSED = {
    "no class names": ({"names": " , "}, "You passed no class names"),
    "one class name": ({"names": "red disc"}, "needs at least 2"),
    "one name twice": ({"names": "red disc, red disc"}, "share the name 'red disc'"),
    "ten thousand classes": ({"names": "\n".join(f"thing {i}" for i in range(10_000))}, "10,000 class names"),
    "a template without a place": ({"templates": "a photo"}, "cannot take a class name"),
    "too many prompts": ({"templates": "\n".join(["a {}"] * 2501)}, "make 10,004 prompts"),
    "markup in a name": ({"names": "<b>x</b>, <b>x</b>"}, "&lt;b&gt;x&lt;/b&gt;"),
    "no attack": ({"attack": "square"}, "There is no attack"),
    "a norm that it does not know": ({"norm": "l1"}, "There is no norm"),
    "a radius beyond the slider": ({"radius": 17}, "no number from 0 to 16"),
    "a radius that is none": ({"radius": "4/255"}, "no number from 0 to 16"),
    "no steps": ({"num_steps": 0}, "no number from 1 to"),
    "more steps than the operator allows": ({"num_steps": LONG + 1}, "no number from 1 to"),
    "a loss that there is not": ({"loss": "hinge"}, "There is no loss"),
    "a seed that is none": ({"seed": 0.5}, "no whole number"),
    "a label that is no class": ({"label": "red disk"}, "none of the 4 class names"),
    "a target that is the label": ({"label": "red disc", "target": "red disc"}, "is the class of the picture already"),
    "a target that CW cannot reach": ({"attack": "cw", "target": "red disc"}, "goes away from the label alone"),
}


@pytest.fixture(scope="module")
def drawn(visitor) -> str:
    return visitor.draw(1)


@pytest.mark.parametrize("options, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_said_and_the_page_goes_on(visitor, drawn, options, message):
    with pytest.raises(Exception) as refused:
        visitor.attack(drawn, **options)
    assert message in str(refused.value)
    assert len(visitor.classify(drawn)) == 2


def noise(width: int, height: int) -> Image.Image:
    return Image.new("1", (width, height))


BAD_FILES = {
    "a text": ("cats.txt", b"cats, and dogs", "cannot be opened"),
    "a text that is called an image": ("cats.png", b"cats, and dogs", "cannot be opened"),
    "a broken image": ("half.png", encoded(Image.effect_noise((64, 64), 90))[:2000], "is broken"),
    "too many pixels": ("large.png", encoded(noise(8000, 5000)), "40.0 million pixels"),
    "several pictures": ("moving.gif", None, "of 2 pictures"),
    "a drawing": ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be opened"),
}


@pytest.mark.parametrize("name, content, message", BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_picture_is_refused(visitor, tmp_path, name, content, message):
    if content is None:
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 255)])
        content = file.getvalue()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Exception, match=message):
        visitor.classify(tmp_path / name)
    assert len(visitor.classify(visitor.draw(1))) == 2


def test_without_an_image_there_is_an_error(visitor):
    with pytest.raises(Exception, match="There is no image"):
        visitor.classify(None)


def test_a_file_that_is_too_large_is_not_taken(visitor, tmp_path):
    (tmp_path / "large.png").write_bytes(torch.zeros(3_000_000, dtype=torch.uint8).numpy().tobytes())
    with pytest.raises(Exception, match="413|MB|size"):
        visitor.classify(tmp_path / "large.png")
    assert len(visitor.classify(visitor.draw(1))) == 2


@pytest.mark.parametrize(
    "junk", [[], {"a": 1}, 7, [[["x"] * 3]], {"path": 3}, "x" * 300_000], ids=lambda x: str(x)[:20]
)
def test_what_no_browser_sends_is_answered_too(server, visitor, junk):
    answer = ask(server.address, "classify", [junk, junk, junk, None])
    assert answer["status"] == 200 and not answer["success"]
    assert len(visitor.classify(visitor.draw(1))) == 2
