"""A proxy on real sockets that does to connections what networks do."""
