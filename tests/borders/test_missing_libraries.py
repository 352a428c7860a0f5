"""Options of a run, and the libraries and compilers that they need: what is missing is said when it is passed."""

import shutil

import pytest
from support.borders import Refused, check, outcomes
from transformers import trainer_optimizer
from transformers.integrations import integration_utils

from hf_pmgaft import PMGAFTConfig

LIBRARIES = ("bitsandbytes", "galore_torch", "apollo_torch", "lomo", "grokadamw", "torchao", "schedulefree")
CASES = {
    "no tracker": ({"report_to": "none"}, None),
    "a tracker that is there": ({"report_to": "tensorboard"}, None),
    "all trackers that are there": ({"report_to": "all"}, None),
    "wandb": ({"report_to": "wandb"}, Refused("'wandb', which is not installed, so that nothing could be logged")),
    "trackio": ({"report_to": "trackio"}, Refused("Run `pip install trackio`, or pass none or one that is there")),
    "mlflow beside one that is there": ({"report_to": ["tensorboard", "mlflow"]}, Refused("pip install mlflow")),
    "comet, whose package has another name": ({"report_to": "comet_ml"}, Refused("pip install comet-ml")),
    "a job's tracker outside of the job": ({"report_to": "kubeflow"}, Refused("inside a Kubeflow job alone")),
    "a slip": ({"report_to": "wandbb"}, Refused("wandbb")),
    "AdamW of 8 bits": ({"optim": "adamw_bnb_8bit"}, Refused("optim='adamw_bnb_8bit', whose library is not there")),
    "Lion": ({"optim": "lion_32bit"}, Refused("bitsandbytes")),
    "Lomo": ({"optim": "lomo"}, Refused("pip install lomo-optim")),
    "GrokAdamW": ({"optim": "grokadamw"}, Refused("pip install grokadamw")),
    "torchao": ({"optim": "adamw_torch_8bit"}, Refused("torchao")),
    "a schedule-free optimizer": ({"optim": "schedule_free_adamw"}, Refused("schedulefree")),
    "a built-in optimizer": ({"optim": "adafactor"}, None),
    "compilation without a compiler": ({"torch_compile": True}, Refused("the C++ compiler no-g++", ValueError)),
    "compilation that needs none": ({"torch_compile": True, "torch_compile_backend": "eager"}, None),
}


@outcomes(CASES)
def test_options_whose_library_is_not_there_are_refused(given, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["tensorboard"])
    for library in LIBRARIES:
        monkeypatch.setattr(trainer_optimizer, f"is_{library}_available", lambda *_: False)
    monkeypatch.setenv("CXX", "no-g++")
    check(lambda: PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True, **given) and None, outcome)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_compilation_with_a_compiler_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "g++")
    assert PMGAFTConfig(output_dir=str(tmp_path), use_cpu=True, torch_compile=True).torch_compile
