"""What every message of the benchmarks carries."""

import json
from typing import Any, Final

PAYLOAD_BYTES: Final = 124

PAYLOAD: Final[dict[str, Any]] = {
    "id": 4711,
    "symbol": "EURUSD",
    "bid": 1.08421,
    "ask": 1.08433,
    "at": 1753800000.125,
    "venue": "lse",
    "tags": ["fx", "spot", "g10", "b2b"],
}

if len(json.dumps(PAYLOAD, separators=(",", ":"))) != PAYLOAD_BYTES:
    raise AssertionError(f"the payload must be {PAYLOAD_BYTES} bytes of JSON")
