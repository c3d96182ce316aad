"""Counting attempts: an episode begins with ``connect()`` or with the loss of a stable connection."""

from attrs import define


@define
class Episode:
    """How many dials have been made since the trouble began.

    Attributes:
        dials: Dials made in this episode.
        begun_by_connect: Whether its first dial is the first connect, and so not a reconnection attempt.
        initial: Whether it has not been connected since ``connect()``.
    """

    dials: int = 0
    begun_by_connect: bool = False
    initial: bool = False

    @property
    def reconnects(self) -> int:
        """Reconnection attempts made; the first dial of ``connect()`` is not one."""
        return max(0, self.dials - self.begun_by_connect)

    @property
    def next_attempt(self) -> int:
        """Number of the attempt that comes next; 1-based."""
        return self.dials + 1

    def begin(self, *, by_connect: bool) -> None:
        """Begin anew."""
        self.dials = 0
        self.begun_by_connect = self.initial = by_connect

    def dialled(self) -> None:
        """Count a dial."""
        self.dials += 1

    def connected(self) -> None:
        """Note a success. The count stays until the connection has proved stable."""
        self.initial = False
