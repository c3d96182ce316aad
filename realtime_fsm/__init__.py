"""Keeps a Socket.IO connection alive, and the data flowing by HTTP polling when it cannot."""
