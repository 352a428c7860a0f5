"""The README and the pages of docs/ are right: their code runs, their commands parse, their links lead somewhere."""

import argparse
import contextlib
import importlib
import io
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from support.pages import PAGES, README, blocks, lines, name_of, spans, without_code
from support.paths import ROOT

import hf_pmgaft
from hf_pmgaft import OBJECTIVES, TUNINGS, cli, load_model, to_open_clip
from hf_pmgaft.cli import attack, certify, demo, few_shot, reproduce, transfer, universal

MAX_LINES, MAX_COLUMNS = 150, 7

# Which script a part of the command `pmgaft` shares its flags with.
SCRIPTS = {
    "train": "examples/run_pmgaft.py",
    "evaluate": "examples/evaluate_robustness.py",
    "gallery": "examples/gallery.py",
    "attack-vlm": "examples/attack_llava.py",
    "convert": "examples/convert.py",
}
# What a page tells its reader to make.
NOT_YET = {"hf_pmgaft/objectives/mart.py"}
# What stands for models of the Hub where a page's code is run.
STAND_INS = {
    "llava-hf/llava-1.5-7b-hf": "examples/emoji/llava",
    "openai/clip-vit-large-patch14": "examples/emoji/model",
    "user/clip-pmgaft": "examples/emoji/model",
}
# Lines of other programs that the pages may have as they stand.
OTHER_COMMANDS = {"hf auth login", ". .venv/bin/activate", "python3 -m venv .venv"}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder to work in from which the examples are reached as from the repository's root."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- Form ----


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_table_is_wide(page):
    assert wide_rows(page) == []


def wide_rows(page: Path) -> list[str]:
    rows = [line.strip() for line in without_code(page).splitlines() if line.startswith("|")]
    return [row for row in rows if len(re.split(r"(?<!\\)\|", row[1:-1])) > MAX_COLUMNS]


# ---- Links and names ----


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and Sphinx make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    assert dead_links(page) == []


def dead_links(page: Path) -> list[str]:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if re.match(r"https?://", target):
            continue
        if not file.exists() or (anchor and anchor not in slugs(file)):
            dead.append(target)
    return dead


def test_a_wide_table_a_dead_link_and_a_slow_block_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n[here](#a-page), [not](#there), [nor](other.md), [nor](page.md#there)\n\n"
        "| 1 | 2 | 3 | 4 | 5 | 6 | 7 |\n| 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |\n\n"
        "```python\nquick()\n```\n\n<!-- slow -->\n```python\nslow()\n```\n"
    )
    assert dead_links(page) == ["#there", "other.md", "page.md#there"]
    assert wide_rows(page) == ["| 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |"]
    assert blocks(page, "python") == [("quick()\n", False), ("slow()\n", True)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_is_there(page):
    named = {span for span in spans(page) if re.fullmatch(r"(examples|hf_pmgaft|tests|docs)/[\w./-]+", span)}
    assert [path for path in sorted(named - NOT_YET) if not (ROOT / path).exists()] == []


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for index in (ROOT / "docs/index.md", ROOT / "docs/results/index.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(encoding="utf-8"), re.S):
            names = [line for line in tree.split() if not line.startswith(":")]
            listed |= {(index.parent / f"{name}.md").resolve() for name in names}
    assert set(PAGES) - listed == {README, ROOT / "docs/index.md"}


def test_the_api_reference_has_every_public_name():
    public = set(hf_pmgaft.__all__)
    reference = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto(?:class|function):: (?:\w+\.)+(\w+)", reference, re.M))
    registries = {name for name in public if name.isupper()}
    methods = {method.__name__ for registry in (OBJECTIVES, TUNINGS) for method in registry.values()}
    assert (public - registries | methods) - documented == set()
    assert all(f"`{name}`" in reference for name in registries)


def test_the_paper_index_has_every_objective_and_every_recipe():
    index = set(spans(ROOT / "docs/paper_index.md"))
    recipes = {file.stem for file in (ROOT / "hf_pmgaft/recipes/tecoa.yaml").parent.glob("*.yaml")}
    assert len(recipes) > 15
    assert (set(OBJECTIVES) | recipes) - index == set()


# ---- Python ----

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
SLOW = [page for page in WITH_PYTHON if any(slow for _, slow in blocks(page, "python"))]
RUNS = [pytest.param(page, False, id=name_of(page)) for page in WITH_PYTHON]
RUNS += [pytest.param(page, True, id=name_of(page), marks=pytest.mark.slow) for page in SLOW]


@pytest.mark.parametrize("page, with_slow", RUNS)
def test_python_of_a_page_runs(page, with_slow, checkout):
    """Its blocks in order and in one namespace, as a reader would paste them."""
    if "fare_eps_2.pt" in page.read_text(encoding="utf-8"):
        torch.save(to_open_clip(load_model("examples/emoji/model")), "fare_eps_2.pt")
    namespace = {"__name__": "__main__"}
    for code, slow in blocks(page, "python"):
        if slow and not with_slow:
            continue
        for name, folder in STAND_INS.items():
            code = code.replace(f'"{name}"', f'"{folder}"')
        exec(compile(code, name_of(page), "exec"), namespace)


def test_no_snippet_reaches_deep_into_the_package():
    for page in PAGES:
        for code, _ in blocks(page, "python"):
            assert not re.search(r"(from|import) hf_pmgaft\.", code), f"{name_of(page)}: {code}"


# ---- The command line ----


@pytest.mark.parametrize("page", [page for page in PAGES if lines(page)], ids=name_of)
def test_every_shell_line_is_parsed_by_its_command(page, checkout, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")  # a push without one is refused
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    shutil.copy((ROOT / "hf_pmgaft/recipes/tecoa.yaml"), "mine.yaml")
    for line in lines(page):
        for command in re.split(r" && ", line):
            check_command(command, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "pmgaft train --recipe tecoa --learning_rat 1e-5",
        "pmgaft train --recipe nothing",
        "pmgaft evaluate --epsilon 4/255",
        "pmgaft nothing",
        "accelerate launch --processes 2 examples/run_pmgaft.py",
        "accelerate launch examples/run_pmgaft.py --objectiv fare",
        "torchrun --nproc 2 examples/run_pmgaft.py --nothing",
        "python examples/nothing.py",
        "python examples/speed/benchmark.py nothing",
        "python examples/studies/costs.py --strong",
        "python -m pytest tests/test_nothing.py",
        "make nothing",
        'pip install "hf_pmgaft[nothing]"',
        "curl example.com",
    ],
)
def test_a_wrong_shell_line_is_found(line, checkout, monkeypatch):
    with pytest.raises((AssertionError, ValueError, SystemExit)) as found:
        check_command(line, monkeypatch)
    assert getattr(found.value, "code", 1) != 0


def test_no_two_lines_keep_verdicts_in_one_file():  # which is refused when one follows the other
    files = [file for page in PAGES for line in lines(page) for file in re.findall(r"--verdict_file (\S+)", line)]
    assert files and sorted(files) == sorted(set(files))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_flag_that_a_page_names_is_one(page):
    named = {flag for span in spans(page) if span.startswith("--") for flag in re.findall(r"(?<!\S)--\w+", span)}
    assert named - known_flags() == set()


def check_command(line: str, monkeypatch) -> None:
    """Fails if the program that the line calls does not take its flags."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if " ".join(words) in OTHER_COMMANDS:
        return
    for word in words:
        path = re.match(r"(?:examples|tests)/[\w./-]+", word)
        assert path is None or (ROOT / path[0]).exists(), f"{word} is not there"

    program, *arguments = words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in arguments)
    elif program == "pip":
        check_pip(arguments)
    elif program == "pmgaft":
        parse_pmgaft(arguments)
    elif program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert arguments.pop(0) == "launch"
        launch = launch_command_parser().parse_args(arguments)
        parse_script(launch.training_script, launch.training_script_args, monkeypatch)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        launch = get_args_parser().parse_args(arguments)
        parse_script(launch.training_script, launch.training_script_args, monkeypatch)
    elif program == "python" and arguments[:2] == ["-m", "pytest"]:
        check_pytest(arguments[2:])
    else:
        assert program == "python", f"Nothing here knows how to check {line!r}"
        parse_script(arguments[0], arguments[1:], monkeypatch)


def check_pip(words: list[str]) -> None:
    assert words.pop(0) == "install"
    extras = re.findall(r'extras\["(\w+)"\] =|^    "(\w+)": \[', (ROOT / "setup.py").read_text(encoding="utf-8"), re.M)
    known = {name for pair in extras for name in pair}
    for word in words:
        named = re.search(r"\[(.*)\]", word)
        assert named is None or set(named[1].split(",")) <= known, f"{word}: setup.py has no such extra"


def check_pytest(words: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-m")
    parser.add_argument("-k")
    parser.add_argument("files", nargs="*")
    parser.parse_args(words)


def parse_pmgaft(words: list[str]) -> None:
    words = list(words)
    if "--deepspeed" in words:  # its configuration would start an engine
        place = words.index("--deepspeed")
        del words[place : place + 2]
    cli.parse(words)


def parse_script(script: str, words: list[str], monkeypatch) -> None:
    for command, name in SCRIPTS.items():
        if script == name:
            parse_pmgaft([command, *words])
            return
    module = load_script(ROOT / script)
    if hasattr(module, "parse"):
        monkeypatch.setattr(sys, "argv", [script, *words])
        module.parse()
    else:
        parse_within(module.main, [script, *words], monkeypatch)


def parse_within(main, argv: list[str], monkeypatch) -> None:
    """Runs a script until its command line is parsed."""

    class Parsed(Exception):
        pass

    def parse_and_stop(parser, args=None, namespace=None):
        parse_args(parser, args, namespace)
        raise Parsed

    parse_args = argparse.ArgumentParser.parse_args
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        with pytest.raises(Parsed):
            main()


def load_script(file: Path):
    assert file.exists(), f"{file} is not there"
    return importlib.import_module(file.stem)


@cache
def known_flags() -> frozenset[str]:
    """What the scripts, the commands without a script and `accelerate launch` take."""
    from accelerate.commands.launch import launch_command_parser

    scripts = {*SCRIPTS.values(), *(f"examples/studies/{name}.py" for name in ("compare", "costs", "leaderboard"))}
    calls = [[script] for script in sorted(scripts)]
    calls += [["examples/speed/benchmark.py", part] for part in ("step", "memory", "settings", "evaluate")]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        for script, *words in calls:
            with contextlib.suppress(SystemExit):
                parse_script(script, [*words, "--help"], patch)
        for command in (attack, demo, reproduce, few_shot, universal, certify, transfer):
            with contextlib.suppress(SystemExit):
                command.parse(["--help"])
    of_accelerate = vars(launch_command_parser().parse_args(["script.py"]))  # whose help leaves some out
    return frozenset(re.findall(r"--\w+", printed.getvalue())) | {f"--{name}" for name in (*of_accelerate, "recipe")}
