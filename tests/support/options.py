"""What the options of our own do to a run of the tests."""

import hashlib
from collections.abc import Sequence


def is_in_third(item, commit: str) -> bool:
    """Whether a test is in the third of all tests that a commit's hash decides. Those of one group stay together."""
    group = item.get_closest_marker("xdist_group")
    name = group.args[0] if group else item.nodeid
    of_test = int(hashlib.sha256(name.encode()).hexdigest(), 16)
    return of_test % 3 == int(commit, 16) % 3


def fail_if_it_lacks(report, modules: Sequence[str]):
    """Turns a skip for want of one of the modules into a failure."""
    reason = str(report.longrepr)
    if report.skipped and any(module in reason for module in modules):
        report.outcome = "failed"
        report.longrepr = f"It may not skip here: {reason}"
    return report
