"""Every known fault is stood by a test, and what the libraries do wrong is pinned."""

import runpy
from pathlib import Path

from known_faults import KNOWN_FAULTS

TESTS = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(TESTS.parent / ".ci" / "proofs.py"))


def test_known_faults_have_tests_that_exist() -> None:
    """Each fault names tests of our engine, and each of the libraries' own a pinned test as well."""
    for name, fault in KNOWN_FAULTS.items():
        tests = (*fault.engine, *fault.upstream)
        assert list(SCRIPT["problems"]([SCRIPT["Row"](name, fault.what, tests)], TESTS)) == [], name
        assert fault.engine, name
        assert bool(fault.upstream) is name.startswith("P"), name


def test_known_faults_are_all_there() -> None:
    """The twenty-one of the libraries and as many of the world: none was dropped."""
    numbers = [f"P{n}" for n in range(1, 22)] + [f"F{n}" for n in range(1, 22)]
    assert list(KNOWN_FAULTS) == numbers


def test_every_pinned_test_belongs_to_a_fault() -> None:
    """No pinned behaviour is forgotten in the table."""
    pinned = SCRIPT["tests_of"](TESTS / "simulation" / "test_upstream.py")
    named = {test.partition("::")[2] for fault in KNOWN_FAULTS.values() for test in fault.upstream}
    assert pinned - named == {"test_upstream_handshake_is_what_the_scripts_speak"}
