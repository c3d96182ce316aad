"""Tells how many planted bugs were found, and shows the others. Reads what `cosmic-ray dump` prints."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

RAN = re.compile(r"\d (passed|failed)|^timeout", re.MULTILINE)
"""What stands in the output of tests that ran. A bug that cannot even be imported proves nothing."""


def verdict(result: dict[str, str]) -> str:
    """Return what became of one planted bug."""
    if result["worker_outcome"] == "skipped":
        return "skipped"
    if result["test_outcome"] == "survived":
        return "survived"
    return "killed" if RAN.search(result.get("output") or "") else "not importable"


def main(path: str) -> None:
    """Print the report on a session."""
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for line in Path(path).read_text().splitlines():
        item, result = json.loads(line)
        (mutation,) = item["mutations"]
        module = mutation["module_path"]
        found = "pending" if result is None else verdict(result)
        counts.setdefault(module, Counter())[found] += 1
        if found == "survived":
            survivors.append((module, mutation, result.get("diff") or ""))
    for module, mutation, diff in survivors:
        print(f"\n{module}:{mutation['start_pos'][0]} {mutation['operator_name']}")
        print(
            "\n".join(one for one in diff.splitlines() if one[:1] in "+-" and one[:3] not in {"+++", "---"})
        )
    print()
    for module, counted in sorted(counts.items()):
        print(f"{module}: {dict(counted)}")
    total = sum(counts.values(), Counter())
    ran = total["killed"] + total["survived"]
    share = total["killed"] / ran if ran else 0.0
    print(f"killed {total['killed']} of {ran} = {share:.1%}; {total['not importable']} not importable")


main(sys.argv[1])
