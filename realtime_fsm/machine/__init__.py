"""The pure core: states, tables, guards, backoff, errors, records and configuration.

Nothing in here awaits, reads a clock, draws a random number, performs I/O or logs. That is what
makes it possible to explore it exhaustively, draw it, and property-test it.
"""
