"""Checkpoints of others become folders of transformers, and one's own folders of open_clip."""

from pathlib import Path

import pytest
import torch
from support.llava import equal_weights
from support.open_clip import features, make_clip, other_clip, tecoa
from support.paths import EMOJI
from support.tiny import make_processor
from transformers import AutoModel

from hf_pmgaft import load_open_clip
from hf_pmgaft.cli import convert


def test_a_published_file_becomes_a_folder_and_that_an_open_clip_folder(tmp_path):
    base = make_clip()
    base.save_pretrained(tmp_path / "base")
    make_processor().save_pretrained(tmp_path / "base")
    other = other_clip(base)
    torch.save(tecoa(other), tmp_path / "tecoa.pth.tar")
    pixel_values = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    source, there = str(tmp_path / "tecoa.pth.tar"), str(tmp_path / "there")
    convert.main(["--from", source, "--base", str(tmp_path / "base"), "--output_dir", there])
    convert.main(["--from", there, "--to", "open_clip", "--output_dir", str(tmp_path / "back")])

    for folder in (there, tmp_path / "back"):
        for file in Path(folder).iterdir():
            assert file.stat().st_mode & 0o444 == 0o444, f"{file} cannot be read by others"
    model = AutoModel.from_pretrained(there)
    with torch.no_grad():
        torch.testing.assert_close(features(model, pixel_values), other.visual(pixel_values), rtol=1e-5, atol=1e-5)
    assert equal_weights(model, load_open_clip(tmp_path / "back", base))


def test_a_file_needs_its_base(tmp_path):
    torch.save(other_clip(make_clip()).state_dict(), tmp_path / "fare.pt")
    with pytest.raises(SystemExit, match="^error: .*fare.pt holds weights without a configuration.*--base ID"):
        convert.main(["--from", str(tmp_path / "fare.pt"), "--output_dir", str(tmp_path / "out")])


def test_a_file_that_is_not_there_ends_with_one_line(tmp_path):
    flags = ["--from", str(tmp_path / "no.pt"), "--base", str(EMOJI / "model"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="^error: .*no.pt"):
        convert.main(flags)


def of_another_size():
    processor = make_processor()
    processor.image_processor.size = processor.image_processor.crop_size = {"height": 24, "width": 24}
    return processor


def of_other_texts():
    processor = make_processor()
    processor.tokenizer.backend_tokenizer.post_processor = None  # which ends them
    return processor


@pytest.mark.parametrize(
    ("make", "message"), [(of_another_size, "images of 24 x 24"), (of_other_texts, "does not end texts")]
)
def test_a_processor_of_another_model_is_refused_and_nothing_is_written(make, message, tmp_path):
    make_clip().save_pretrained(tmp_path / "model")
    make().save_pretrained(tmp_path / "other")
    flags = ["--from", str(tmp_path / "model"), "--processor", str(tmp_path / "other")]
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        convert.main([*flags, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
