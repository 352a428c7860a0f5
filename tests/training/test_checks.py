"""Pairs that cannot work are refused before anything is computed."""

import pytest
from peft import LoraConfig
from support.trainers import make_trainer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "fare", "tuning": "text_context"}, "FARE with tuning 'text_context'.*sends no gradient"),
        ({"objective": "fare", "tuning": "peft", "tuning_kwargs": {"towers": "both"}}, "FARE with tuning 'peft'"),
        ({"tuning": "r_adapter", "peft_config": LoraConfig()}, "an adapter and tuning='r_adapter'"),
        ({"tuning": "r_adapter", "wise_ft": 0.5}, "wise_ft with tuning 'r_adapter'.*nothing to mix"),
    ],
)
def test_pairs_that_cannot_work_are_refused_with_the_reason(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options)
