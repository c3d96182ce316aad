"""The outside world: Socket.IO and HTTP, behind the ports of the engine.

The only home of python-socketio and the aiohttp client. Their errors are translated here, once.
"""
