"""The migration guide of the README keeps what it promises (SPEC G1 to G3)."""

import re
import subprocess
import sys
from pathlib import Path

from realtime_fsm.migration import RollbackLimits, Rollout, RolloutConfig
from realtime_fsm.rollout.setting import RolloutSetting, place_of

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GUIDE = README.partition("## Migration guide\n")[2].partition("\n## ")[0]


def test_guide_runs_from_stage_one_to_the_rollback() -> None:
    """The guide's program runs as it stands, in a fresh interpreter, and leaves nothing on stderr."""
    (program,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = "".join(line for line in run.stderr.splitlines(True) if not line.startswith("Executing <"))
    assert (run.returncode, said) == (0, "")
    half = "new" if place_of("user-42") < 50 else "legacy"
    assert run.stdout == f"legacy 3\nshadow 3\n{half} 3\nnew 3\nlegacy 7\n"


def test_settings_and_names_of_the_guide_exist() -> None:
    """Every setting that the guide shows is one, and so is every name."""
    for text in re.findall(r"`(\{.*?\})`", GUIDE):
        assert RolloutSetting.of_text(text) is not None or text == "{}"
    for name in re.findall(r"rollout\.(\w+)", GUIDE.replace("rollout.json", "")):
        assert hasattr(Rollout, name), name
    config = RolloutConfig()
    for name in ("fallback_after", "poll_interval", "drain_timeout"):
        assert f"`{name}`" in GUIDE
        assert hasattr(config, name)
    assert hasattr(RollbackLimits(), "threshold")
