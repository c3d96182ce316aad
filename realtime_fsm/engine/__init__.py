"""The engine: a manager, one activity per file, and the ports through which the world enters.

Nothing in here knows python-socketio, aiohttp or SQLite. The very same engine runs on a real network and
in virtual time on a simulated one.
"""
