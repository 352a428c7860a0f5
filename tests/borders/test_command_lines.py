"""What is typed after `pmgaft gallery`, `attack-vlm`, `convert` and others: refused before a model is opened."""

import json

import pytest
from support.borders import outcomes
from support.paths import EMOJI
from support.sets import replace
from support.tiny import make_images

from hf_pmgaft import cli
from hf_pmgaft.cli import attack_vlm, gallery
from hf_pmgaft.cli.train import split_launcher_options
from hf_pmgaft.downstream import vlm

CLIP, LLAVA = str(EMOJI / "model"), str(EMOJI / "llava")

# `set` has images and labels, `broken` an image that is none in row 3.
REFUSED = {
    "no images": ("gallery --num_images 0", "num_images=0, which leaves nothing to show"),
    "no steps": ("gallery --num_steps 0", "You passed num_steps=0"),
    "a radius of grey levels": ("gallery --eps 4", "write 4/255"),
    "a model twice": (f"gallery --models {CLIP} {CLIP}", "You passed a model twice"),
    "a model twice, in two spellings": (f"gallery --models {CLIP} {CLIP}/", "You passed a model twice"),
    "a set that is not there": ("gallery --eval_set ./nowhere", "is no file or folder here"),
    "no images for a LLaVA": ("attack-vlm --num_images 0", "num_images=0, which leaves nothing to do"),
    "no tokens": ("attack-vlm --max_new_tokens 0", "max_new_tokens=0, which leaves nothing to do"),
    "a radius that is none": ("attack-vlm --eps small", "the radius 'small', which is no number"),
    "a momentum below zero": ("attack-vlm --momentum -1", "momentum=-1.0, which no walk goes on by"),
    "a momentum that is none": ("attack-vlm --momentum nan", "momentum=nan, which no walk goes on by"),
    "a tower twice": (f"attack-vlm --towers {CLIP} {CLIP}/", "You passed a tower twice"),
    "an empty target": ("attack-vlm --targets ''", "You passed an empty target"),
    "targets that are no JSON": ("attack-vlm --targets bad.json", "bad.json is no JSON"),
    "targets that are no texts": ("attack-vlm --targets numbers.json", "numbers.json holds no list of targets"),
    "no targets": ("attack-vlm --targets none.json", "none.json holds no list of targets"),
    "a file of targets that is not there": ("attack-vlm --targets gone.json", "gone.json"),
    "targets without their task": ("attack-vlm --targets red --tasks caption", "--targets without the task targeted"),
    "a question without its task": ("attack-vlm --question_column q --tasks targeted", "without the task vqa"),
    "captions of the emoji": ("attack-vlm --caption_column text", "--caption_column without --eval_set"),
    "a set without targets": ("attack-vlm --eval_set set", "You passed no targets"),
    "a CLIP in place of a LLaVA": (f"attack-vlm --model {CLIP}", "The model is a clip, but the attack goes through"),
    "a LLaVA that is not there": ("attack-vlm --model ./nowhere", "./nowhere"),
    "an empty name to convert": ("convert --from '' --output_dir new", "You passed an empty model name"),
    "a file as a folder to write": (f"convert --from {CLIP} --output_dir bad.json", "cannot be written to"),
}


@outcomes(REFUSED)
def test_command_lines_that_are_refused_before_a_model_is_opened(given, outcome, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(8).save_to_disk("set")
    for name, content in {"numbers": [1], "none": []}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "bad.json").write_text("{")
    monkeypatch.setattr(gallery, "load_one_of_several", None)
    monkeypatch.setattr(attack_vlm, "load_model", None)
    monkeypatch.setattr(vlm.AutoModelForImageTextToText, "from_pretrained", None)

    words = [word.strip("'") for word in given.split()]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    message = str(ended.value)
    assert message.startswith("error: ") and outcome in message and "\n" not in message


MEANT = {
    "hyphens": ("gallery --num-images 3", 3),
    "hyphens and a value": ("gallery --num-images=3", 3),
    "half of them": ("attack-vlm --num-images 3", 3),
    "underscores": ("attack-vlm --num_images 3", 3),
    "a hyphen in the value": ("gallery --num_images 3 --output_file a-b_c.png", 3),
    "a single dash": ("gallery -num_images 3", "did you mean num_images?"),
    "a slip": ("gallery --num_imags 3", "did you mean num_images?"),
    "a slip and a value": ("attack-vlm --num-imags=3", "did you mean num_images?"),
    "another command's": ("gallery --output-dir new", "did you mean output_file?"),
    "nothing alike": ("gallery --xyzzy", "unrecognized arguments: --xyzzy"),
    "no option": ("gallery model", "unrecognized arguments: model"),
}


@outcomes(MEANT)
def test_ways_to_write_an_option(given, outcome, capsys):
    if isinstance(outcome, int):
        assert cli.parse(given.split()).num_images == outcome
        return
    with pytest.raises(SystemExit):
        cli.parse(given.split())
    assert outcome in capsys.readouterr().err


def test_the_launchers_options_may_have_hyphens():
    options, rest = split_launcher_options(["--num-processes", "2", "--recipe", "tecoa"])
    assert options[-2:] == ["--num_processes", "2"] and rest == ["--recipe", "tecoa"]


COMMANDS_THAT_READ_ALL = {
    "gallery": "gallery --eval_set broken --num_images 1 --check_data",
    "attack-vlm": "attack-vlm --eval_set broken --tasks targeted --targets red --num_images 1 --check_data",
}


@pytest.mark.parametrize("words", COMMANDS_THAT_READ_ALL.values(), ids=COMMANDS_THAT_READ_ALL)
def test_check_data_names_broken_rows_that_are_not_drawn(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make_images(8)
    replace(data, 3, data.features, image={"bytes": b"x", "path": None}).save_to_disk("broken")
    with pytest.raises(SystemExit, match="1 of the rows cannot be used:\n.* row 3"):
        cli.main(words.split())
