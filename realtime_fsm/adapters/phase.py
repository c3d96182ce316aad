"""How far a connection has come, as the frames that pass through its tap tell.

::

    OPENING   until the Engine.IO OPEN packet
    JOINING   until the Socket.IO CONNECT packet; messages may come before it, and are held
    HELD      messages are held, in order, until the caller of ``open`` has learnt that it succeeded
    LIVE      messages are decoded and told to the listener, synchronously
    LEAVING   a goodbye is being said: what still comes is read, and dropped
    ENDED     the connection is lost, or was given up
"""

from enum import Enum, auto


class Phase(Enum):
    """How far a connection has come."""

    OPENING = auto()
    JOINING = auto()
    HELD = auto()
    LIVE = auto()
    LEAVING = auto()
    ENDED = auto()
