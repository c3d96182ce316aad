"""Tools to test a realtime client with: virtual time, a simulated server, and faults on real sockets.

Import what is needed from its module: ``virtual_loop``, ``simulated_server``, ``fault_proxy``.
"""
