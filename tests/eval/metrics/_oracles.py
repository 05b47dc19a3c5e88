"""What other programs say: tests/golden/metrics/make_oracles.py."""

import json
from pathlib import Path

FILE = Path(__file__).parents[2] / "golden" / "metrics" / "oracles.json"
ORACLES = json.loads(FILE.read_text())
STATISTICS = ORACLES["statistics"]
