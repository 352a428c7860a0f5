"""What lies where verdicts are to be kept: gone on with, or refused and left as it is."""

import json

import pytest
from support.borders import Refused, check, outcomes

from hf_pmgaft.evaluation.verdicts import Verdicts

HEADER = {"protocol": {"seed": 0, "attacks": ["fgsm"]}, "model": {"fingerprint": "a1"}}
FIRST = json.dumps(HEADER) + "\n"
BATCH = json.dumps({"set": "food", "attack": "clean", "rows": [3, 7], "verdicts": [1, 0]}) + "\n"


def other(**values) -> str:
    return json.dumps({**HEADER, **values}) + "\n" + BATCH


ANOTHER = "holds verdicts of another evaluation: it differs in"
NONE = Refused("holds no verdicts")

FILES = {
    "nothing": (None, {}),
    "an empty file": ("", {}),
    "the header alone": (FIRST, {}),
    "a header that was cut off": (FIRST[:20], {}),
    "a batch": (FIRST + BATCH, {3: 1, 7: 0}),
    "a batch that was cut off": (FIRST + BATCH + BATCH[:30], {3: 1, 7: 0}),
    "another model": (other(model={"fingerprint": "b2"}), Refused(f"{ANOTHER} model.fingerprint")),
    "another attack": (other(protocol={"seed": 0, "attacks": ["pgd"]}), Refused(f"{ANOTHER} protocol.attacks")),
    "another seed": (other(protocol={"seed": 1, "attacks": ["fgsm"]}), Refused(f"{ANOTHER} protocol.seed")),
    "the texts of a LLaVA": (other(model="c3"), Refused(ANOTHER)),
    "a report": (json.dumps({"protocol": HEADER["protocol"], "sets": []}, indent=1) + "\n", NONE),
    "a text": ("mine\nand mine\n", NONE),
    "a text of one line": ("mine, and in no other place", NONE),
    "JSON of one line": ('{"mine": 1}', NONE),
    "a list": ("[]\n", Refused(ANOTHER)),
    "weights": (b"\x08\x00\x00\x00\x00\x00\x00\x00{}\xff\xfe", NONE),
    "a broken line in the middle": (FIRST + BATCH[:30] + "\n" + BATCH, NONE),
    "a line without rows": (FIRST + '{"set": "food", "attack": "clean"}\n', Refused("line 2: KeyError: 'rows'")),
    "more rows than verdicts": (FIRST + BATCH.replace("[1, 0]", "[1]"), Refused("line 2: ValueError")),
    "a line that is no dict": (FIRST + "[1]\n", Refused("line 2: TypeError")),
}


@outcomes(FILES)
def test_files_that_verdicts_are_kept_in(given, outcome, tmp_path):
    file = tmp_path / "verdicts.jsonl"
    content = given.encode() if isinstance(given, str) else given
    if content is not None:
        file.write_bytes(content)

    def kept():
        verdicts = Verdicts(file, HEADER)
        verdicts.add("food", "pgd", rows=[3], values=[0])
        verdicts.close()
        assert Verdicts(file, HEADER).of("food", "pgd") == {3: 0}
        return verdicts.of("food", "clean")

    check(kept, outcome)
    if isinstance(outcome, Refused):
        assert file.read_bytes() == content


def test_a_folder_is_no_verdict_file(tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)):
        Verdicts(tmp_path, HEADER)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Verdicts(tmp_path / "file" / "verdicts.jsonl", HEADER)
