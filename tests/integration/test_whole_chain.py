"""A CLIP of true size through the whole chain: trained by its Hub name, measured on sixteen sets, pushed, pulled."""

import os
import resource
import subprocess
import sys
import time

import pytest
import torch
from support.hub_server import TOKEN, own_hub
from support.hub_sets import SUITE, put_sets
from support.recipes import BASE, saved
from support.true_clip import make_true_clip
from transformers import CLIPModel

from hf_pmgaft import cli
from hf_pmgaft.evaluation.report import RobustnessReport

NAME = "user/clip-pmgaft"
SMALL = ["--max_steps", "2", "--limit", "4", "--total_train_batch_size", "8", "--use_cpu", "--report_to", "none"]
SMALL += ["--dataloader_num_workers", "0", "--logging_steps", "1"]
PULL = """
import sys, torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel, pipeline
name, file = sys.argv[1:]
names = ["goldfish", "bullfrog"]
image = Image.new("RGB", (300, 200), "orange")
model, processor = CLIPModel.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
inputs = processor(images=image, text=names, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits_per_image
answers = pipeline("zero-shot-image-classification", name)(image, candidate_labels=names, hypothesis_template="{}")
scores = torch.tensor([answer["score"] for answer in sorted(answers, key=lambda answer: names.index(answer["label"]))])
torch.testing.assert_close(scores, logits.softmax(1)[0], atol=1e-5, rtol=1e-4)
torch.save({"logits": logits, "inputs": dict(inputs)}, file)
"""


@pytest.mark.slow
def test_a_clip_of_true_size_goes_through_the_whole_chain(tmp_path, capsys):
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch, own_hub(patch, tmp_path) as hub:
        patch.chdir(tmp_path)
        hub.put(BASE, saved(*make_true_clip()))
        for repo in put_sets(hub).values():
            repo.granted.add("user")

        # Trained, measured and pushed by the command of the README
        cli.main(["train", "--recipe", "pmg_aft", *SMALL, "--push_to_hub", "--hub_model_id", NAME])
        folder = tmp_path / "outputs" / "clip-pmgaft"
        report = RobustnessReport.load(folder / "robustness.json")
        assert [result.name for result in report.sets] == list(SUITE)

        # Pulled by another process, with nothing cached
        environment = {**own_environment(), **hub.environment(tmp_path / "clean", TOKEN)}
        environment["OMP_NUM_THREADS"] = "1"  # as here: several add in another order
        call([sys.executable, "-c", PULL, NAME, "pulled.pt"], tmp_path, environment)
        pulled = torch.load(tmp_path / "pulled.pt", weights_only=True)
        with torch.no_grad():
            logits = CLIPModel.from_pretrained(folder).eval()(**pulled["inputs"]).logits_per_image
        assert torch.equal(logits, pulled["logits"])

        evaluate = ["evaluate", "--model", NAME, "--suite", "paper16", "--limit", "4", "--eps", "1/255"]
        evaluate += ["--num_steps", "20", "--seed", "42", "--output_file", "again.json"]  # the seed of the recipe
        call([sys.executable, "-m", "hf_pmgaft.cli", *evaluate], tmp_path, environment)

    again = RobustnessReport.load(tmp_path / "again.json")
    assert again.protocol == report.protocol and again.protocol_hash == report.protocol_hash
    assert again.model == report.model
    assert [result.to_dict() for result in again.sets] == [result.to_dict() for result in report.sets]
    with capsys.disabled():
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        minutes = (time.monotonic() - start) / 60
        print(f"\nThe whole chain took {minutes:.1f} minutes and {gigabytes:.1f} GB, those of the Hub among them.")


def own_environment() -> dict[str, str]:
    """This process's variables, without those by which tests keep the Hub away."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}


def call(command: list[str], folder, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
