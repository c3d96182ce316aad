"""The engine's ports, simulated: a server, an HTTP side, a disk."""
