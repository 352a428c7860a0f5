"""What is the same of all reports on disk; each has its own tests of what it holds."""

import json

import pytest

from hf_pmgaft import RobustnessReport
from hf_pmgaft.evaluation.certificate_report import CertificateReport, CertifiedSet
from hf_pmgaft.evaluation.report import SetResult
from hf_pmgaft.evaluation.transfer_report import TransferReport, TransferSet

ATTACK = {"attack": "fgsm", "eps": "4/255"}
right = {"linf 4/255": {source: {target: [1, 0] for target in "ab"} for source in "ab"}}
REPORTS = [
    RobustnessReport({"attacks": [ATTACK], "headline": "linf 4/255"}, [SetResult("food", 3, 2, 0.5, 0.5, {})]),
    TransferReport({"attacks": [ATTACK]}, [TransferSet("food", 3, [0, 1], {"a": [1, 1], "b": [1, 1]}, right)], {}),
    CertificateReport({"radii": [0.1]}, [CertifiedSet("food", 3, 0.25, [0, 1], [2, 0], [1, 1], [2, -1], [0.4, 0.0])]),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_comes_back_and_what_is_none_is_refused(report, tmp_path):
    file = tmp_path / report.FILE
    report.save(file)
    assert type(report).load(file) == report
    file.write_text("\ufeff" + file.read_text())  # as editors of Windows write it
    assert type(report).load(file) == report

    data = json.loads(file.read_text(encoding="utf-8-sig"))
    wrong = {
        "was changed": {**data, "protocol": {**data["protocol"], "seed": 1}},
        "has no sets": {**data, "sets": []},
        f"no whole {report.KIND}": {"protocol": {}},
    }
    for reason, content in wrong.items():
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=reason):
            type(report).load(file)
    with pytest.raises(ValueError, match=f"is a folder and no report. Pass the file, such as .*{report.FILE}"):
        type(report).load(tmp_path)
