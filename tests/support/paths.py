"""Where the repository keeps what tests look at."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
EXAMPLES = ROOT / "examples"
EMOJI = EXAMPLES / "emoji"
