"""Known sets by their names: where they lie, what is trained on, and what is logged."""

from support.tiny import make_images

from hf_pmgaft.suites import find_known_set, hub_name, known_set_at, load_set, read_suite, training_templates


def test_every_set_that_has_a_part_of_its_own_to_train_on_states_it():
    without = {name for name, entry in read_suite("paper16").items() if "train_split" not in entry}
    assert without == {"sun397", "eurosat", "caltech101", "caltech256"}  # all of these is evaluated
    for suite in ("paper16", "natural_shift"):
        for entry in read_suite(suite).values():
            assert entry.get("train_split") not in entry.get("split", "test").split("+")


def test_the_training_part_is_the_suite_s_or_the_named_one_without_what_is_stated_of_the_other(caplog):
    entry = find_known_set("tiny_imagenet").to_train_on()
    assert entry["split"] == "train" and "num_images" not in entry and "sample_ids" not in entry
    assert entry["class_names"][0] == "goldfish" and len(entry["class_names"]) == 200
    assert find_known_set("flowers102@train+validation").to_train_on()["split"] == "train+validation"
    assert not caplog.messages
    assert find_known_set("sun397@train").to_train_on()["split"] == "train"
    assert "sun397 is read from its split 'train', whose images paper16 evaluates" in caplog.text


def test_a_revision_takes_the_place_of_the_suite_s():
    assert find_known_set("fgvc_aircraft").entry["revision"] == "refs/convert/parquet"
    assert find_known_set("fgvc_aircraft#abc").entry["revision"] == "abc"
    assert find_known_set("paper16:dtd#v1").entry["revision"] == "v1"


def test_places_on_the_hub_lead_to_names_and_back():
    assert known_set_at("ILSVRC/imagenet-1k").text == "paper16:imagenet"
    assert known_set_at("user/photos") is None
    assert hub_name("tiny_imagenet") == "zh-plus/tiny-imagenet@train" and hub_name("user/a:b@c") == "user/a:b@c"
    assert training_templates("dtd") == ["A surface with a {} texture."]
    assert training_templates("user/photos") == ["This is a photo of a {}"]


def test_a_known_set_s_hub_id_is_told_from_its_name(hub, processor, caplog):
    from support.hub_sets import put_sets

    put_sets(hub, ["dtd"], most=4)
    data = load_set("tanganke/dtd", processor)
    assert data.prompt_templates == ["This is a photo of a {}"]
    assert "tanganke/dtd is paper16:dtd" in caplog.text and "pass dtd for the names, template and size" in caplog.text


def test_a_folder_with_a_known_name_is_read_and_told(tmp_path, monkeypatch, processor, caplog):
    monkeypatch.chdir(tmp_path)
    make_images(4).save_to_disk("dtd")
    assert len(load_set("dtd", processor)) == 4
    assert "dtd is the file or folder of that name; the known set is paper16:dtd" in caplog.text
