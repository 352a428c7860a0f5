"""Trainer's bar with clean and robust accuracy so far, wherever it is shown."""

import importlib
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from support.clock import Clock, lines_of
from support.sets import make_data
from support.tiny import make_processor
from support.trainers import make_trainer
from transformers import TrainerControl, TrainerState

from hf_pmgaft.training.progress_bars import AccuraciesInNotebook, ProgressWithAccuracies, accuracies, show_accuracies

LOGS = {"loss": 2.0, "clean_accuracy": 0.8125, "adversarial_accuracy": 0.4}
EVALUATED = {"eval_mean_clean_accuracy": 0.75, "eval_mean_robust_accuracy": 0.5}


def test_a_log_line_is_told_in_words():
    assert accuracies(LOGS) == "batches: clean 81.2%, robust 40.0%"
    assert accuracies({**LOGS, **EVALUATED}) == "evaluated: clean 75.0%, robust 50.0%"
    assert accuracies({"adversarial_accuracy": 0.4}) == "batches: robust 40.0%"
    assert accuracies({"loss": 2.0, "learning_rate": 1e-3}) == ""


def test_a_run_shows_the_accuracies_that_it_logs(tmp_path, capsys):
    data = make_data(make_processor(), 8)
    options = {"eval_dataset": {"own": data}, "eval_strategy": "steps", "eval_steps": 2}
    trainer = make_trainer(tmp_path, disable_tqdm=False, **options)
    trainer.train()
    last = [line for line in lines_of(capsys.readouterr().err) if "3/3" in line][-1]
    (*_, newest) = filter(None, map(accuracies, trainer.state.log_history))
    assert newest.startswith("evaluated: clean ") and newest in last


def test_a_run_without_bars_has_none(tmp_path, capsys):
    trainer = make_trainer(tmp_path)
    assert trainer.pop_callback(ProgressWithAccuracies) is None
    trainer.train()
    assert "it/s" not in capsys.readouterr().err


def steps_of(callback, count: int, clock: Clock | None = None, seconds: float = 0.0):
    """Runs a callback through a training with a log line at every step; what it shows is yielded before it ends."""
    args = SimpleNamespace(eval_strategy="no")
    state, control = TrainerState(max_steps=count, epoch=0.0, num_train_epochs=1), TrainerControl()
    callback.on_train_begin(args, state, control)
    for step in range(count):
        if clock is not None:
            clock.now += seconds
        state.global_step = step + 1
        callback.on_log(args, state, control, logs=dict(LOGS))
        callback.on_step_end(args, state, control)
    return args, state, control


def test_a_log_file_has_a_line_every_30_seconds(capsys, monkeypatch):
    callback, clock = ProgressWithAccuracies(), Clock(monkeypatch)
    end = steps_of(callback, 20, clock, seconds=10)
    callback.on_train_end(*end)
    lines = lines_of(capsys.readouterr().err)
    counts = [int(count) for line in lines for count in re.findall(r"(\d+)/20", line)]
    assert counts == [0, 3, 6, 9, 12, 15, 18, 20]
    assert all("batches: clean 81.2%, robust 40.0%" in line for line in lines[1:])


def test_a_terminal_is_drawn_as_often_as_ever(capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True)
    callback, clock = ProgressWithAccuracies(), Clock(monkeypatch)
    callback.on_train_end(*steps_of(callback, 20, clock, seconds=10))
    counts = {int(count) for line in lines_of(capsys.readouterr().err) for count in re.findall(r"(\d+)/20", line)}
    assert counts == set(range(21))


@pytest.fixture
def notebook(monkeypatch):
    """Trainer's callback of notebooks, and what it displays in a stand-in for IPython."""
    shown = []

    class Display:
        def update(self, html):
            shown.append(html)

    def display(html, display_id):
        shown.append(html)
        return Display()

    module = ModuleType("IPython.display")
    module.display, module.HTML = display, str
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    sys.modules["IPython"].display = module
    monkeypatch.delitem(sys.modules, "transformers.utils.notebook", raising=False)
    yield importlib.import_module("transformers.utils.notebook").NotebookProgressCallback(), shown
    sys.modules.pop("transformers.utils.notebook", None)


def test_a_notebook_shows_one_bar_with_the_accuracies(notebook):
    callback, shown = notebook
    beside = AccuraciesInNotebook(callback)

    class Both:
        def __getattr__(self, name):
            return lambda *args, **kwargs: [getattr(each, name)(*args, **kwargs) for each in (callback, beside)]

    steps_of(Both(), 4)
    assert shown[-1].count("<progress") == 1
    assert "batches: clean 81.2%, robust 40.0%" in shown[-1] and "[4/4" in shown[-1].replace("[5/4", "[4/4")


def test_a_trainer_in_a_notebook_writes_into_the_bar_that_is_there(notebook, tmp_path):
    callback, _ = notebook
    trainer = make_trainer(tmp_path)
    trainer.add_callback(callback)
    show_accuracies(trainer)
    beside = trainer.pop_callback(AccuraciesInNotebook)
    assert beside.shown is callback
