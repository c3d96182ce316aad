"""Faults of the libraries below and of the world, each with the tests that our engine stands it.

``P``: what python-socketio and aiohttp do themselves, pinned by ``simulation/test_upstream.py``.
``F``: what an acceptance suite must try.
"""

from typing import Final, NamedTuple


class KnownFault(NamedTuple):
    """A fault.

    Attributes:
        what: What happens.
        engine: Tests of our engine under it, ``path::function`` below ``tests/``.
        upstream: Pinned tests of what the libraries do.
    """

    what: str
    engine: tuple[str, ...]
    upstream: tuple[str, ...] = ()


_PINNED: Final = "simulation/test_upstream.py::test_"
_TRANSPORT: Final = "integration/test_socketio_transport.py::test_"
_DIAL: Final = "integration/test_socketio_dial.py::test_"
_ENDINGS: Final = "integration/test_socketio_endings.py::test_"
_FRAMES: Final = "integration/test_socketio_frames.py::test_"
_FAULTS: Final = "integration/test_faults.py::test_fault_"
_HOSTILE: Final = "integration/test_hostile_peers.py::test_hostile_"
_LIMITS: Final = "integration/test_hostile_limits.py::test_"
_MESSAGES: Final = "engine/test_service_messages.py::test_"
_MANAGER: Final = "engine/test_connection_manager.py::test_connection_"
_SWEEP: Final = "simulation/test_sweep.py::test_sweep_finds_no_broken_promise_and_sees_everything"
_FULL: Final = "simulation/test_full_stack.py::test_full_stack_"
_HERE: Final = "simulation/test_known_faults_in_memory.py::test_"

KNOWN_FAULTS: Final = {
    "P1": KnownFault(
        "No disconnect is reported once writes have backed up against a stalled peer.",
        (
            "engine/test_heartbeat.py::test_heartbeat_notices_a_black_hole_behind_a_stalled_writer",
            _FAULTS + "stopped_server_with_a_stalled_writer_is_noticed",
        ),
        (_PINNED + "p1_no_disconnect_is_reported_behind_a_stalled_writer",),
    ),
    "P2": KnownFault(
        "connect() never returns without an OPEN packet.",
        (
            _MANAGER + "attempt_is_bounded_by_connection_timeout",
            _DIAL + "silent_server_is_left_to_the_callers_timeout",
        ),
        (_PINNED + "p2_connect_never_returns_without_an_open_packet",),
    ),
    "P3": KnownFault(
        "A close right after the upgrade is a TypeError.",
        (_DIAL + "websocket_closed_instead_of_opened_is_told_with_its_code",),
        (_PINNED + "p3_close_after_the_upgrade_is_a_type_error",),
    ),
    "P4": KnownFault(
        "A late CONNECT_ERROR makes a zombie.",
        (_ENDINGS + "every_end_of_a_websocket_is_told_once",),
        (_PINNED + "p4_late_refusal_makes_a_zombie",),
    ),
    "P5": KnownFault(
        "After a CLOSE packet connect() is a ValueError for a while.",
        (_ENDINGS + "every_end_of_a_websocket_is_told_once", _SWEEP),
        (_PINNED + "p5_connect_during_the_closing_handshake_is_a_value_error",),
    ),
    "P6": KnownFault(
        "A failed dial leaves its session open.",
        (
            _ENDINGS + "attempts_leave_no_file_open",
            "integration/test_leaks.py::test_failing_to_connect_a_thousand_times_leaves_nothing_behind",
        ),
        (_PINNED + "p6_failed_dial_leaves_its_session_open",),
    ),
    "P7": KnownFault(
        "call() waits for its whole timeout after the connection is gone.",
        (_MESSAGES + "call_survives_a_reconnect", _MESSAGES + "call_at_most_once_ends_at_the_loss"),
        (_PINNED + "p7_and_p8_calls_and_callbacks_are_forgotten_at_a_loss",),
    ),
    "P8": KnownFault(
        "Callbacks are dropped at a disconnect.",
        (_MESSAGES + "messages_in_flight_at_a_loss_are_sent_again_in_order", _SWEEP),
        (_PINNED + "p7_and_p8_calls_and_callbacks_are_forgotten_at_a_loss",),
    ),
    "P9": KnownFault(
        "emit() from the disconnect handler is lost without a word.",
        (
            "engine/test_delivery.py::test_message_emitted_after_the_disconnect_waits_for_the_next_connection",
            "engine/test_delivery.py::test_disconnect_drains_what_waits_and_accepts_nothing_new",
        ),
        (_PINNED + "p9_emit_from_the_disconnect_handler_is_lost",),
    ),
    "P10": KnownFault(
        "The send queue has no bound.",
        (
            _TRANSPORT + "send_keeps_order_and_loses_nothing_beyond_the_room",
            _MESSAGES + "messages_beyond_the_bounds_are_refused_whole",
        ),
        (_PINNED + "p10_the_queue_of_the_client_has_no_bound",),
    ),
    "P11": KnownFault(
        "Malformed frames raise where nobody looks.",
        (
            _FRAMES + "malformed_frame_is_told_and_dropped",
            "integration/test_frame_faults.py::test_frame_malformed_is_counted_and_harmless",
        ),
        (_PINNED + "p11_malformed_frames_raise_where_nobody_looks",),
    ),
    "P12": KnownFault(
        "A binary header without its attachments wedges the client.",
        (
            _FRAMES + "malformed_attachment_is_told_and_dropped",
            "unit/test_frame.py::test_decode_refuses_too_many_attachments",
        ),
        (_PINNED + "p12_binary_header_without_attachments_wedges_the_client",),
    ),
    "P13": KnownFault(
        "A polled body of any size is read whole.",
        (
            _HOSTILE + "server_in_a_session",
            "integration/test_http_client.py::test_answer_that_is_too_large_is_not_read_to_its_end",
        ),
        (_PINNED + "p13_polling_reads_a_body_whole",),
    ),
    "P14": KnownFault(
        "The server announces whole seconds only.",
        ("unit/test_server_config.py::*",),
        (_PINNED + "p14_server_announces_whole_seconds",),
    ),
    "P15": KnownFault(
        "Headers are sent with the first dial only, and cookies are lost.",
        (
            "engine/test_authentication.py::test_token_is_fetched_anew_for_every_dial",
            _FAULTS + "expired_token_is_replaced_without_loss",
        ),
        (
            _PINNED + "p15_headers_of_extra_options_are_sent_once",
            _PINNED + "p15_cookie_is_taken_out_of_the_callers_headers",
        ),
    ),
    "P16": KnownFault(
        "Handlers overtake each other.",
        (
            _MESSAGES + "handlers_see_events_in_wire_order_one_at_a_time",
            _TRANSPORT + "events_arrive_in_wire_order",
        ),
        (_PINNED + "p16_handlers_of_events_overtake_each_other",),
    ),
    "P17": KnownFault(
        "A client takes the process's SIGINT handler.",
        (_HERE + "client_leaves_the_interrupt_to_the_program",),
        (_PINNED + "p17_constructing_a_client_takes_the_interrupt",),
    ),
    "P18": KnownFault(
        "The logs hold payloads and tokens.",
        ("integration/test_canary.py::test_canary_is_found_nowhere",),
        (_PINNED + "p18_info_logs_hold_payloads_and_tokens",),
    ),
    "P19": KnownFault(
        "Redirects carry custom headers to another origin.",
        (
            _DIAL + "redirect_is_refused_and_nothing_reaches_its_target",
            "integration/test_http_client.py::test_redirect_is_refused_and_nothing_reaches_its_target",
        ),
        (_PINNED + "p19_redirects_carry_custom_headers_elsewhere",),
    ),
    "P20": KnownFault(
        "A namespace is waited for only one second.",
        (_MANAGER + "attempt_is_bounded_by_connection_timeout",),
        (_PINNED + "p20_wait_timeout_is_one_second",),
    ),
    "P21": KnownFault(
        "A poll whose answer was lost with its connection is repeated, and its events are gone.",
        (_FULL + "loses_no_event_with_the_answer_to_a_poll",),
        (_PINNED + "p21_poll_is_repeated_after_a_reset",),
    ),
    "F1": KnownFault(
        "The websocket is accepted and silent.",
        (_DIAL + "silent_server_is_left_to_the_callers_timeout",),
    ),
    "F2": KnownFault(
        "It closes with a code instead of opening.",
        (_DIAL + "websocket_closed_instead_of_opened_is_told_with_its_code",),
    ),
    "F3": KnownFault(
        "The namespace is never answered.", (_HOSTILE + "server_instead_of_letting_the_client_in", _SWEEP)
    ),
    "F4": KnownFault(
        "The namespace is refused, with a message, data, false or an exception.",
        (
            _DIAL + "refusal_of_the_namespace_is_told_by_its_category",
            "integration/test_bad_servers.py::test_bad_namespace_is_refused_once_and_not_retried",
        ),
    ),
    "F5": KnownFault(
        "It drops between the accept and the return of connect().",
        (_DIAL + "end_in_the_middle_of_the_dial_is_never_missed",),
    ),
    "F6": KnownFault(
        "CONNECT and DISCONNECT come in one batch.",
        (_DIAL + "end_in_the_middle_of_the_dial_is_never_missed",),
    ),
    "F7": KnownFault(
        "Websockets are refused, swallowed or closed on the way.",
        (
            _DIAL + "polling_is_tried_where_websockets_are_not_let_through",
            _DIAL + "polling_is_tried_where_websockets_are_swallowed",
            "integration/test_nginx.py::test_nginx_without_upgrade_leaves_the_polling_transport",
        ),
    ),
    "F8": KnownFault("A polled body is cut.", (_ENDINGS + "every_end_of_a_polling_session_is_told_once",)),
    "F9": KnownFault(
        "More than 16 packets come at once, either way.",
        (_HERE + "client_sends_and_receives_many_packets_at_once_over_polling",),
    ),
    "F10": KnownFault(
        "Reset, black hole, close codes, CLOSE packets, garbage.",
        (
            _FAULTS + "reset_is_overcome_without_loss",
            _FAULTS + "black_hole_is_noticed_in_time_and_overcome",
            _ENDINGS + "every_end_of_a_websocket_is_told_once",
            _HOSTILE + "server_in_a_session",
        ),
    ),
    "F11": KnownFault("The link is slow, and much waits.", (_SWEEP, _FULL + "keeps_every_promise")),
    "F12": KnownFault(
        "Too much comes in, or is to go out; NaN.",
        (
            _LIMITS + "message_larger_than_the_limit_is_refused_before_it_is_accepted",
            _MESSAGES + "messages_that_cannot_be_sent_are_refused_at_once",
        ),
    ),
    "F13": KnownFault(
        "A handler raises, blocks, disconnects or is cancelled.",
        (_MESSAGES + "handlers_cannot_break_the_engine", _MESSAGES + "handlers_may_disconnect"),
    ),
    "F14": KnownFault(
        "connect() or disconnect() is cancelled at any await.",
        (
            _ENDINGS + "open_may_be_cancelled_at_any_point",
            _ENDINGS + "close_may_be_cancelled",
            _MANAGER + "cancelled_connect_leaves_nothing",
        ),
    ),
    "F15": KnownFault(
        "It is stopped in each state.",
        (
            _MANAGER + "disconnect_ends_everything_in_every_state",
            "properties/test_engine_properties.py::test_engine_closes_in_the_middle_of_anything",
        ),
    ),
    "F16": KnownFault(
        "The source of tokens is down, or slow.",
        (
            "engine/test_token.py::test_token_source_that_hangs_is_bounded",
            "engine/test_authentication.py::test_token_source_that_fails_is_tried_again_with_the_backoff",
            _SWEEP,
        ),
    ),
    "F17": KnownFault(
        "401, 403, 429, 503 with Retry-After, HTML, an empty body, a redirect.",
        (
            _DIAL + "http_refusal_is_told_by_its_status",
            "integration/test_http_client.py::test_refusal_is_told_by_its_status",
            "integration/test_bad_servers.py::test_bad_server_ends_in_failed_with_its_cause_and_remedy",
        ),
    ),
    "F18": KnownFault(
        "Acknowledgements and events of an earlier connection come late.",
        (
            _LIMITS + "late_ack_of_an_earlier_connection_settles_no_other_message",
            _MANAGER + "late_results_are_dropped_and_counted",
        ),
    ),
    "F19": KnownFault(
        "Many reconnects leave nothing behind.",
        ("integration/test_leaks.py::test_reconnecting_a_thousand_times_leaves_nothing_behind",),
    ),
    "F20": KnownFault(
        "Ctrl-C.", ("integration/test_interrupt.py::test_interrupt_ends_everything_in_every_state",)
    ),
    "F21": KnownFault(
        "Two clients in one process.", (_HERE + "two_clients_of_one_process_do_not_touch_each_other",)
    ),
}
