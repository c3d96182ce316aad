"""The outside world: Socket.IO, HTTP and SQLite, behind the ports of the engine.

The only home of python-socketio, the aiohttp client and sqlite3. Their errors are translated here, once.
"""
