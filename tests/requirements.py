"""What was asked for, row by row, and the tests that show each: the README's table is made of it."""

from typing import Final, NamedTuple


class Requirement(NamedTuple):
    """A row of the specification.

    Attributes:
        row: Its number: stable, ``A1``.
        demand: In short.
        tests: The tests that show it, ``path::function`` below ``tests/``; ``*`` for all of a file.
    """

    row: str
    demand: str
    tests: tuple[str, ...]


_MANAGER: Final = "engine/test_connection_manager.py::test_connection_"
_FAULT: Final = "integration/test_faults.py::test_fault_"

REQUIREMENTS: Final = (
    Requirement(
        "A1",
        "`RealtimeService`: one point of entry for connection, channels, events, metrics and debug mode.",
        (
            "engine/test_service_messages.py::*",
            "engine/test_service_subscriptions.py::*",
            _MANAGER + "passes_through_connecting_to_connected_and_back",
            "unit/test_public_names.py::test_public_names_lead_to_what_the_types_say",
        ),
    ),
    Requirement(
        "A2",
        "Socket.IO under it, never a raw WebSocket; transports `websocket` and `polling`.",
        (
            "integration/test_socketio_transport.py::*",
            "integration/test_socketio_dial.py::*",
            "integration/test_socketio_endings.py::*",
            "integration/test_socketio_frames.py::*",
            "integration/test_node_interop.py::*",
            "unit/test_config.py::test_config_refuses_a_raw_websocket_and_names_the_address_to_use",
        ),
    ),
    Requirement(
        "A3",
        "`ConnectionManager`: connect, handle a loss by its reason, reconnect, authenticate, heartbeat.",
        (
            "engine/test_connection_manager.py::*",
            "engine/test_authentication.py::*",
            "engine/test_heartbeat.py::*",
        ),
    ),
    Requirement(
        "A4",
        "Four categories of error, each with its recovery; people are told of an issue with a severity.",
        (
            "unit/test_errors.py::test_errors_cover_the_four_categories",
            "unit/test_recovery.py::*",
            "engine/test_recovery_strategy.py::*",
        ),
    ),
    Requirement(
        "A5",
        "Configuration by environment, with defaults and validation.",
        ("unit/test_environment.py::*", "properties/test_config_properties.py::*"),
    ),
    Requirement(
        "B1",
        "`ExponentialBackoff`: `min(base * 2**attempt, maximum)` and jitter; other jitters beside it.",
        ("unit/test_backoff.py::*", "properties/test_backoff_properties.py::*"),
    ),
    Requirement(
        "B2",
        "Heartbeat and health of the connection: interval, timeout, latency.",
        ("engine/test_heartbeat.py::*", _FAULT + "black_hole_is_noticed_in_time_and_overcome"),
    ),
    Requirement(
        "B3",
        "`ConnectionStatusManager`: the status, who observes it, and every attempt with its end.",
        (
            "engine/test_status.py::*",
            _MANAGER + "changes_are_streamed_from_the_call_to_the_disconnect",
            _MANAGER + "metrics_tell_its_story",
        ),
    ),
    Requirement(
        "B4",
        "Indicators for people: what is wrong, what happens next, what they can do.",
        (
            "unit/test_narration.py::*",
            "engine/test_web.py::*",
            "integration/test_web_page.py::*",
            "engine/test_outage.py::*",
        ),
    ),
    Requirement(
        "C1",
        "`FallbackPollingService`: poll endpoints, synchronise subscriptions, queue and flush messages.",
        ("engine/test_fallback.py::*",),
    ),
    Requirement(
        "C2",
        "Messages emitted while offline are queued and delivered later.",
        (
            "engine/test_service_messages.py::test_messages_emitted_offline_are_delivered_in_order",
            "engine/test_durable_delivery.py::*",
            "integration/test_crashes.py::*",
        ),
    ),
    Requirement(
        "C3",
        "The fallback comes by itself, and goes by itself when the connection is back.",
        (
            _MANAGER + "falls_back_when_the_attempts_have_run_out",
            _FAULT + "blocked_socket_leads_to_fallback_and_back_without_loss",
        ),
    ),
    Requirement(
        "C4",
        "Manual retry.",
        (
            _MANAGER + "retry_now_revives_it_from_failed_with_fresh_attempts",
            _MANAGER + "retry_now_ends_the_backoff",
            _MANAGER + "retry_now_hurries_the_probe",
            "integration/test_web_page.py::*",
        ),
    ),
    Requirement(
        "D1",
        "`ConnectionMetrics`: uptime, connections, failures, latency, and what else an operator needs.",
        (_MANAGER + "metrics_tell_its_story", "engine/test_export.py::*"),
    ),
    Requirement(
        "D2",
        "Debug mode, switched at run time; log levels error, warn, info, debug.",
        (
            "engine/test_flight_recorder.py::test_debug_mode_is_switched_at_run_time",
            "unit/test_config.py::test_config_accepts_every_log_level",
        ),
    ),
    Requirement(
        "D3",
        "Health check endpoints.",
        ("engine/test_health.py::*", "integration/test_health_application.py::*"),
    ),
    Requirement(
        "D4",
        "Performance monitoring and alerting.",
        (
            "unit/test_alert_rules.py::*",
            "engine/test_alerts.py::*",
            "integration/test_webhook.py::*",
            "engine/test_metrics_database.py::*",
            "unit/test_report.py::*",
        ),
    ),
    Requirement(
        "E1",
        "Every field with its default, its variable, and its old name in milliseconds; `ws://` is refused.",
        (
            "unit/test_config.py::test_config_defaults_are_those_that_are_promised",
            "unit/test_environment.py::test_environment_old_names_are_those_of_the_specification",
            "unit/test_environment.py::test_environment_accepts_an_old_name_and_warns",
            "unit/test_environment.py::test_environment_refuses_the_old_raw_websocket_address",
        ),
    ),
    Requirement(
        "F1",
        "`WebSocketService`: a Socket.IO server with CORS, authentication, heartbeat, channels, polling.",
        (
            "integration/test_backend_connections.py::*",
            "integration/test_backend_channels.py::*",
            "integration/test_backend_messages.py::*",
            "integration/test_backend_exactly_once.py::*",
            "integration/test_backend_http.py::*",
            "unit/test_server_config.py::test_config_has_the_asked_for_defaults",
        ),
    ),
    Requirement(
        "G1",
        "The old client's interface stays functional, and warns that it is deprecated.",
        (
            "engine/test_legacy_websocket.py::*",
            "integration/test_async_client.py::*",
        ),
    ),
    Requirement(
        "G2",
        "Gradual rollout: a flag, a percentage, the new one with the old one as fallback.",
        (
            "integration/test_migration_stages.py::test_four_stages_and_back_lose_and_double_nothing",
            "unit/test_rollout_setting.py::*",
            "integration/test_rollout.py::*",
            "integration/test_migration_stages.py::test_old_client_takes_over_when_the_new_one_gives_up",
        ),
    ),
    Requirement(
        "G3",
        "Rollback by the flag, by alerts and by hand; a database compares the two.",
        (
            "integration/test_migration_guide.py::test_guide_runs_from_stage_one_to_the_rollback",
            "unit/test_rollout_rule.py::*",
            "integration/test_migration_stages.py::test_new_client_that_fails_more_often_is_rolled_back_by_itself",
            "integration/test_rollout.py::test_both_are_recorded_in_one_database_and_it_is_the_evidence",
        ),
    ),
    Requirement(
        "H1",
        "Unit tests: connection manager, fallback, errors, configuration.",
        (
            "engine/test_connection_manager.py::*",
            "engine/test_fallback.py::*",
            "unit/test_errors.py::*",
            "unit/test_config.py::*",
        ),
    ),
    Requirement(
        "H2",
        "Integration tests against a real server: the full flow, tokens, events, automatic fallback.",
        (
            "integration/test_faults.py::*",
            "integration/test_backend_connections.py::*",
            "integration/test_backend_channels.py::*",
            "integration/test_backend_messages.py::*",
            "integration/test_backend_exactly_once.py::*",
            "integration/test_backend_http.py::*",
        ),
    ),
    Requirement(
        "H3",
        "Performance tests: latency, throughput, memory across reconnections, an unstable network.",
        ("performance/test_benchmark_smoke.py::*", "performance/test_soak.py::*"),
    ),
    Requirement(
        "H4",
        "Error simulation: network failures, downtime, token expiry, malformed and corrupted data.",
        (
            "simulation/test_sweep.py::*",
            "simulation/test_full_stack.py::*",
            "integration/test_hostile_peers.py::*",
            "unit/test_known_faults.py::*",
        ),
    ),
    Requirement(
        "I1",
        "A `transitions` machine of six states; what runs in a state is attached to its entry.",
        ("unit/test_connection_machine.py::*", "unit/test_table.py::*", "simulation/test_model.py::*"),
    ),
    Requirement(
        "I2",
        "Hypothesis explores random sequences of events for illegal transitions.",
        (
            "properties/test_machine_properties.py::*",
            "unit/test_machine_rules.py::*",
            "simulation/test_connection_rules.py::*",
        ),
    ),
    Requirement(
        "I3",
        "Built on python-socketio, transitions, aiohttp, attrs, hypothesis, pytest.",
        ("unit/test_form.py::test_core_needs_four_libraries_and_extras_the_rest",),
    ),
    Requirement(
        "I4",
        "Top level: `pyproject.toml`, `realtime_fsm`, `tests`, `diagrams`, `README.md`.",
        ("unit/test_form.py::test_top_level_holds_only_what_was_asked_for",),
    ),
    Requirement(
        "I5",
        "Embedded as a library; draws its diagrams; lets users property-test transition logic.",
        (
            "unit/test_readme.py::*",
            "unit/test_diagram.py::*",
            "unit/test_diagram_machines.py::*",
            "unit/test_machine_rules.py::*",
        ),
    ),
)
