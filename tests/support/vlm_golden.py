"""Golden values of the scores and attacks of vision-language models."""

import json

from support.paths import TESTS

GOLDEN = json.loads((TESTS / "golden" / "vlm.json").read_text(encoding="utf-8"))
