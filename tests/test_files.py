"""Files are whole or as they were, and a disk that is full is named."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError
from support.disk import full_disk

from hf_pmgaft.files import (
    check_output_file,
    free_space,
    kept_if_used,
    save_tensors,
    whole_folder,
    write_whole,
    writing_into,
)


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    file = tmp_path / "report.json"
    write_whole(file, "first")
    with full_disk(), pytest.raises(OSError, match=f"^{tmp_path} cannot be written to .* MB are free"):
        write_whole(file, "x" * 100_000)
    assert file.read_text() == "first" and os.listdir(tmp_path) == ["report.json"]


def test_tensors_without_room_are_told_in_one_line_that_names_the_folder(tmp_path):
    with full_disk(), pytest.raises(OSError, match=f"^{tmp_path} cannot be written to .*Make room there") as caught:
        save_tensors({"weight": torch.zeros(100_000)}, tmp_path / "weights.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["disk", "quota", "safetensors"],
)
def test_every_way_to_have_no_room_names_the_folder(tmp_path, error):
    with pytest.raises(OSError, match=f"^{tmp_path} cannot be written to .*what was written before is kept"):
        with writing_into(tmp_path):
            raise error


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), ValueError("No class names.")])
def test_other_errors_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing_into(tmp_path):
        raise error
    assert caught.value is error


def test_room_is_told_of_a_folder_that_is_still_to_be_made(tmp_path):
    assert free_space(tmp_path / "new" / "run").endswith(" MB are free")


def test_a_file_in_a_new_folder_can_be_written_to(tmp_path):
    check_output_file("--output_file", tmp_path / "new" / "report.json")
    assert not (tmp_path / "new").exists()  # before there is something to write
    write_whole(tmp_path / "new" / "report.json", "{}")


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.txt").write_text("old")
    for name in ("there", "new/far/down"):
        with pytest.raises(OSError, match="disk full"), whole_folder(tmp_path / name) as folder:
            (folder / "a.txt").write_text("new")
            raise OSError("disk full")
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "a.txt"]
    assert (tmp_path / "there" / "a.txt").read_text() == "old"

    for name in ("there", "new/far/down"):
        with whole_folder(tmp_path / name) as folder:
            (folder / "below").mkdir()
            (folder / "below" / "b.txt").write_text("new")
            (folder / "a.txt").write_text("new")
        assert sorted(path.name for path in (tmp_path / name).rglob("*")) == ["a.txt", "b.txt", "below"]
        assert (tmp_path / name / "a.txt").read_text() == "new"
        assert (tmp_path / name).stat().st_mode == tmp_path.joinpath("there").stat().st_mode


def test_a_folder_that_was_made_stays_if_something_is_in_it(tmp_path):
    with kept_if_used(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "notes.md").write_text("kept")
    with kept_if_used(tmp_path / "a" / "b" / "c"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "notes.md"]


def test_what_is_no_file_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "{}")
    assert os.read(reader, 10) == b"{}" and not (tmp_path / "pipe").is_file()
    os.close(reader)
