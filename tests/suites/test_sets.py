"""One set by the text that a command line names it by: plain sets, sets with captions, and sets of suites."""

from pathlib import Path

import datasets
import pytest
from support.tiny import CLASS_NAMES, SIZE, make_images

from hf_pmgaft.data import RetrievalDataset, ZeroShotDataset, sources
from hf_pmgaft.prompts import DEFAULT_PROMPT_TEMPLATES
from hf_pmgaft.suites import check_set_names, draw_sample_ids, load_captioned_set, load_set, load_suite, set_name


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a saved set of two splits, and a suite of one's own that names it."""
    captioned = make_images(8).add_column("caption", [f"the {CLASS_NAMES[i % 4]}" for i in range(8)])
    datasets.DatasetDict(test=captioned, validation=captioned.select(range(4))).save_to_disk(tmp_path / "shapes")
    (tmp_path / "own.yaml").write_text(
        "toys:\n  path: shapes\n  class_names: [a, b, c, d]\n  labels: [red disc, green disc, blue square, "
        "yellow square]\n  prompt_template: a toy, {}\n  native_size: true\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_are_those_of_the_configuration_or_of_the_last_part_of_the_path(folder):
    assert set_name("ethz/food101") == set_name("ethz/food101@validation") == "food101"
    assert set_name("examples/emoji/data:animals@test") == "animals"
    assert set_name("images/photos.parquet") == "photos"
    assert set_name("paper16:dtd") == "dtd"
    (folder / "a@b:c").mkdir()
    assert set_name("a@b:c") == "a@b:c"  # an existing path is a name


def test_a_set_is_loaded_with_its_class_names_and_the_default_template(folder, processor):
    data = load_set("shapes", processor)
    assert isinstance(data, ZeroShotDataset) and (data.name, len(data)) == ("shapes", 8)
    assert data.class_names == CLASS_NAMES and data.prompt_templates == list(DEFAULT_PROMPT_TEMPLATES)
    assert data[0]["images"].shape == (3, SIZE, SIZE) and data.sample_ids is None


def test_what_is_passed_is_used(folder, processor):
    data = load_set(
        "shapes",
        processor,
        class_names=["w", "x", "y", "z"],
        prompt_templates="one {}",
        native_size=True,
        sample_ids=[6, 1],
    )
    assert (data.class_names, data.prompt_templates) == (["w", "x", "y", "z"], ["one {}"])
    assert data[0]["images"].shape == (3, 20, 20) and data.sample_ids == [6, 1]


def test_the_split_is_the_named_one_or_the_default(folder, processor):
    assert len(load_set("shapes@validation", processor)) == 4
    assert len(load_set("shapes", processor, default_split="validation")) == 4
    assert len(load_captioned_set("shapes", processor, default_split="validation")) == 4
    assert len(load_captioned_set("shapes@test", processor, default_split="validation")) == 8


def test_a_limit_takes_the_first_of_the_order_by_hash(folder, processor):
    assert load_set("shapes", processor, limit=3).sample_ids == sorted(draw_sample_ids("shapes", 8)[:3])
    with pytest.raises(ValueError, match="limit=0"):
        load_set("shapes", processor, limit=0)
    with pytest.raises(ValueError, match="limit=2 and sample_ids, which both choose.*Pass one of them"):
        load_set("shapes", processor, limit=2, sample_ids=[0])


def test_images_and_captions_are_loaded_for_retrieval(folder, processor):
    data = load_captioned_set("shapes", processor)
    assert isinstance(data, RetrievalDataset) and data.name == "shapes"
    assert data[2]["captions"] == ["the blue square"] and data.prompt_templates == ["{}"] and data.target is None
    other = load_captioned_set(
        "shapes",
        processor,
        "label,caption",
        name="shapes captions",
        prompt_templates="a photo of {}",
        sample_ids=[2],
        target="drawn",
    )
    assert other.name == "shapes captions" and other[2]["captions"] == ["blue square", "the blue square"]
    assert (other.prompt_templates, other.sample_ids, other.target) == (["a photo of {}"], [2], "drawn")


def test_one_set_of_a_suite_is_what_the_suite_loads(folder, processor):
    (of_suite,) = load_suite("own.yaml", processor, limit=3)
    data = load_set("own.yaml:toys", processor, limit=3)
    assert data.name == "toys" and data.class_names == of_suite.class_names == ["a", "b", "c", "d"]
    assert data.prompt_templates == of_suite.prompt_templates == ["a toy, {}"]
    assert data.sample_ids == of_suite.sample_ids and data.native_size
    assert load_set("own.yaml:toys", processor, prompt_templates="my {}").prompt_templates == ["my {}"]
    assert load_set("own.yaml:toys", processor, sample_ids=[5]).sample_ids == [5]


def test_one_set_of_a_shipped_suite_is_found_where_the_suite_says(folder, processor, monkeypatch):
    asked = []

    def load_part(part):
        asked.append((part.name, part.split))
        raise FileNotFoundError(part.name)

    monkeypatch.setattr(sources, "load_part", load_part)
    with pytest.raises(FileNotFoundError):
        load_set("paper16:food101", processor)
    assert asked == [("ethz/food101", "validation")]


def test_a_folder_with_the_name_of_a_suite_is_a_set(folder, processor):
    (folder / "paper16").mkdir()
    make_images(4).to_parquet(folder / "paper16" / "test.parquet")
    assert len(load_set("paper16:default", processor)) == 4


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("own.yaml:mnist", {}, "suite 'own.yaml' has no set 'mnist'. It has: toys"),
        ("own.yaml:toys@validation", {}, "a split for own.yaml:toys.*Leave it out, or name the set by its place"),
        ("own.yaml:toys", {"class_names": CLASS_NAMES}, "class_names for own.yaml:toys"),
        ("own.yaml:toys", {"native_size": True}, "native_size for own.yaml:toys"),
    ],
)
def test_what_a_suite_states_is_not_stated_again(folder, processor, text, options, message):
    with pytest.raises(ValueError, match=message):
        load_set(text, processor, **options)


def test_sets_that_share_a_name_are_refused(folder, processor):
    images = load_set("shapes", processor)
    captions = load_captioned_set("shapes", processor)
    with pytest.raises(ValueError, match="several eval_sets of the name shapes.*Rename their folders"):
        check_set_names([images, captions])
    check_set_names([images, load_captioned_set("shapes", processor, name="shapes captions")])
