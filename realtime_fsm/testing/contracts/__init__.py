"""Suites of laws, one for each port, to be inherited by the tests of whoever implements it.

::

    class TestMyOutbox(OutboxContract):
        def make(self, folder: Path, *, max_dead_letters: int = 1000) -> Outbox:
            return MyOutbox(folder / "outbox", max_dead_letters=max_dead_letters)

pytest runs each law as a test of your class. Laws run in virtual time; an implementation that does real I/O
overrides ``run`` by ``run_in_real_time``. What an implementation cannot do is skipped.
"""
