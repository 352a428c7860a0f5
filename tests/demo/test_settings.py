"""What an operator decides, and what is taken where he does not."""

import pytest

from hf_pmgaft.demo import Settings
from hf_pmgaft.embedded import emoji_folder


def test_without_models_the_embedded_one_is_shown_and_the_robust_one_once_it_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Settings().places == {"embedded CLIP": str(emoji_folder() / "model")}
    robust = tmp_path / "outputs" / "clip-pmgaft-emoji"
    robust.mkdir(parents=True)
    (robust / "config.json").touch()
    assert len(Settings().places) == 1  # a run that goes on
    (robust / "model.safetensors").touch()
    assert list(Settings().places) == ["embedded CLIP", "embedded CLIP, robust"]


def test_sets_have_the_template_of_the_emoji_or_their_own():
    assert Settings().template == "an emoji of {}" and len(Settings().set_texts) == 8
    assert Settings(eval_sets=["dtd"]).template is None
    assert Settings(eval_sets=["dtd"], prompt_template="a {}").template == "a {}"


def test_places_on_the_machine_are_told_to_those_who_sit_at_it_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    models = ["emoji", str(tmp_path / "mine"), "user/clip"]
    embedded = str(emoji_folder() / "model")
    assert Settings(models=models).told_places == [embedded, str(tmp_path / "mine"), "user/clip"]
    told = Settings(models=models, shows_paths=False).told_places
    assert told == [embedded, f"{tmp_path.name}/mine", "user/clip"]


@pytest.mark.parametrize("limit", ["max_steps", "max_classes", "max_pixels", "max_upload"])
def test_a_limit_of_nothing_is_refused(limit):
    with pytest.raises(ValueError, match=f"{limit}=0"):
        Settings(**{limit: 0})


def test_a_model_twice_is_refused():
    with pytest.raises(ValueError, match="You passed a model twice"):
        Settings(models=["a", "a"])
