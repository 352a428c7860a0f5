"""The embedded default is found wherever the package was installed from."""

from pathlib import Path

import pytest
from support.paths import EMOJI

from hf_pmgaft import embedded


def write_model(folder: Path) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    return folder


def test_a_checkout_has_the_model_and_the_sets_of_its_examples():
    folder = embedded.emoji_folder()
    assert folder == EMOJI
    assert (folder / "model" / "config.json").is_file() and (folder / "data" / "finetune").is_dir()


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGE", tmp_path / "hf_pmgaft")
    inside = write_model(tmp_path / "hf_pmgaft" / "emoji")
    assert embedded.emoji_folder() == inside


def test_the_checkout_comes_before_what_a_build_left_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGE", tmp_path / "hf_pmgaft")
    write_model(tmp_path / "hf_pmgaft" / "emoji")
    outside = write_model(tmp_path / "examples" / "emoji")
    assert embedded.emoji_folder() == outside


def test_a_package_without_them_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGE", tmp_path / "hf_pmgaft")
    (tmp_path / "examples" / "emoji").mkdir(parents=True)  # a folder without a model does not do
    with pytest.raises(FileNotFoundError, match="neither .*examples/emoji nor .*hf_pmgaft/emoji.*pass a model and"):
        embedded.emoji_folder()
