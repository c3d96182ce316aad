"""Counting attempts: an episode begins with a connect, a manual retry, or the loss of a stable connection."""

from attrs import define


@define
class Episode:
    """How many dials have been made since the trouble began.

    Attributes:
        dials: Dials made in this episode.
        begun_by_hand: Whether the user began it, so that its first dial is not a reconnection attempt.
        initial: Whether it has not been connected since ``connect()``.
    """

    dials: int = 0
    begun_by_hand: bool = False
    initial: bool = False

    @property
    def reconnects(self) -> int:
        """Reconnection attempts made; the first dial of the user's is not one."""
        return max(0, self.dials - self.begun_by_hand)

    @property
    def next_attempt(self) -> int:
        """Number of the attempt that comes next; 1-based."""
        return self.dials + 1

    def begin(self, *, by_connect: bool = False, by_retry: bool = False) -> None:
        """Begin anew, by the user's connect or manual retry, or by itself."""
        self.dials = 0
        self.begun_by_hand = by_connect or by_retry
        self.initial = by_connect

    def dialled(self) -> None:
        """Count a dial."""
        self.dials += 1

    def connected(self) -> None:
        """Note a success. The count stays until the connection has proved stable."""
        self.initial = False
