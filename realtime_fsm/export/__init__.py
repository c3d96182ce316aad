"""How a client fares, for the systems that watch many programs: Prometheus and OpenTelemetry.

Each module needs an extra: ``realtime_fsm.export.prometheus`` needs ``[prometheus]``, and
``realtime_fsm.export.opentelemetry`` needs ``[otel]``.
"""
