"""A Hypothesis strategy for what may happen to a connection."""

from collections.abc import Sequence

from realtime_fsm.machine.errors import MissingExtraError
from realtime_fsm.testing.schedule import ENDINGS, PAUSES, Action, Schedule, Setting, Step

try:
    from hypothesis import strategies as st
except ImportError as missing:
    raise MissingExtraError(extra="testing", what="The Hypothesis strategies") from missing


def fault_schedules(
    *,
    settings: Sequence[Setting] = tuple(Setting),
    actions: Sequence[Action] = tuple(Action),
    endings: Sequence[Action] = ENDINGS,
    max_size: int = 20,
) -> st.SearchStrategy[Schedule]:
    """Return schedules of faults: what may happen to a connection, and how it ends.

    They shrink to few steps without pauses, on the reference dialect, that end with everything mended.

    Args:
        settings: Kinds of servers.
        actions: What may happen.
        endings: How it may end.
        max_size: Steps at most.
    """
    steps = st.builds(Step, st.sampled_from(list(actions)), st.sampled_from(PAUSES))
    return st.builds(
        Schedule,
        st.lists(steps, max_size=max_size),
        seed=st.integers(0, 2**32),
        setting=st.sampled_from(list(settings)),
        ending=st.sampled_from(list(endings)),
    )
