"""The guarantees of the library, numbered, and the tests that hold each: the README's table is made of it."""

from typing import Final, NamedTuple


class Guarantee(NamedTuple):
    """A promise to the users.

    Attributes:
        subject: What it is about.
        promise: In one sentence.
        tests: The tests that hold it, ``path::function`` below ``tests/``.
    """

    subject: str
    promise: str
    tests: tuple[str, ...]


_ENGINE: Final = "properties/test_engine_properties.py::test_engine_"
_SWEEP: Final = "simulation/test_sweep.py::test_sweep_finds_no_broken_promise_and_sees_everything"
_PLANTED: Final = "simulation/test_planted_bugs.py::test_sweep_finds_a_planted_bug_and_shrinks_it"
_FULL: Final = "simulation/test_full_stack.py::test_full_stack_keeps_every_promise"
_MODEL: Final = "simulation/test_model.py::test_model_"
_MANAGER: Final = "engine/test_connection_manager.py::test_connection_"
_MESSAGES: Final = "engine/test_service_messages.py::test_"
_DURABLE: Final = "engine/test_durable_delivery.py::test_"
_DELIVERY: Final = "engine/test_delivery.py::test_"
_REPLAY: Final = "engine/test_replay.py::test_"
_TOKEN: Final = "engine/test_token.py::test_token_"
_AUTH: Final = "engine/test_authentication.py::test_token_"
_FILE: Final = "unit/test_outbox_file.py::test_"
_SUBSCRIPTIONS: Final = "engine/test_service_subscriptions.py::test_"
_FALLBACK: Final = "engine/test_fallback.py::test_"
_WORDS: Final = "engine/test_first_words.py::test_"
_PACING: Final = "engine/test_pacing.py::test_"
_PLANTED: Final = "simulation/test_planted_bugs.py::test_sweep_finds_a_planted_bug_and_shrinks_it"
_FORBIDDEN: Final = "::test_forbidden_refuses_an_identity_only_where_a_server_says_so"
_ENDING: Final = "engine/test_ending.py::test_"
_LOOPS: Final = "integration/test_event_loops.py::test_"
_PRESSURE: Final = "engine/test_back_pressure.py::test_"
_FAULT: Final = "integration/test_faults.py::test_fault_"

GUARANTEES: Final = (
    Guarantee(
        "State",
        "One value at any time, which moves only by a row of the table.",
        ("properties/test_machine_properties.py::test_machine_never_leaves_the_table", _SWEEP),
    ),
    Guarantee(
        "State",
        "Every change reaches every observer, in order, with none skipped.",
        (
            "properties/test_machine_properties.py::test_machine_chain_of_changes_never_breaks",
            _MANAGER + "changes_are_streamed_from_the_call_to_the_disconnect",
            _SWEEP,
        ),
    ),
    Guarantee(
        "State",
        "No promise depends on callbacks that take no time: any near timer may go off between two of them.",
        ("simulation/test_sweep.py::test_sweep_finds_no_broken_promise_while_timers_cut_in",),
    ),
    Guarantee(
        "State",
        "User code runs after the transition, and can never break it.",
        (
            _MESSAGES + "handlers_cannot_break_the_engine",
            "engine/test_status.py::test_observer_that_raises_disturbs_nobody",
        ),
    ),
    Guarantee(
        "State",
        "`connected` and `lost` come strictly in pairs.",
        ("unit/test_record.py::test_status_change_pairs_connected_with_lost_along_every_path", _SWEEP),
    ),
    Guarantee(
        "Liveness",
        "In every state but DISCONNECTED and a resting FAILED something runs that will end it.",
        (
            _MODEL + "always_has_something_running_that_will_end_the_state",
            _MODEL + "comes_to_a_happy_end_from_everywhere",
            _ENGINE + "never_rests_without_something_running",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Liveness",
        "A dead link is noticed within `heartbeat_interval + heartbeat_timeout`.",
        (
            "engine/test_heartbeat.py::test_heartbeat_notices_a_black_hole_in_time",
            "engine/test_heartbeat.py::test_heartbeat_notices_a_black_hole_behind_a_stalled_writer",
            _FAULT + "black_hole_is_noticed_in_time_and_overcome",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Liveness",
        "That holds for a way up that alone is dead, too: only an answer to a probe proves both ways.",
        (
            "engine/test_heartbeat.py::test_heartbeat_notices_a_dead_way_up_under_events",
            "engine/test_heartbeat.py::test_heartbeat_gives_a_slow_way_up_up_once_it_stands_still",
            "engine/test_heartbeat.py::test_check_now_asks_at_once",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Liveness",
        "No live link is called dead: not on a slow way up that moves, nor after the program's own stall.",
        (
            "engine/test_heartbeat.py::test_heartbeat_leaves_a_slow_way_up_alone",
            "engine/test_heartbeat.py::test_heartbeat_asks_once_more_after_an_own_stall",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Liveness",
        "Mended, everything leads to CONNECTED with an empty outbox.",
        (
            _ENGINE + "loses_nothing_and_repeats_nothing_when_everything_is_healed",
            _MODEL + "comes_to_a_happy_end_from_everywhere",
            _FULL,
        ),
    ),
    Guarantee(
        "Liveness",
        "A fault that nobody mends leads to FALLBACK or FAILED, and the client stays responsive.",
        (
            _ENGINE + "keeps_its_promises_when_a_fault_is_never_mended",
            "simulation/test_full_stack.py::test_full_stack_leaves_each_fault_for_ever",
        ),
    ),
    Guarantee(
        "Delivery",
        "VOLATILE: dropped offline, and the receipt says so; never twice.",
        (_MESSAGES + "messages_volatile_are_dropped_offline", _SWEEP),
    ),
    Guarantee(
        "Delivery",
        "AT_MOST_ONCE: queued offline, never twice; what may be lost is reported.",
        (
            _MESSAGES + "messages_at_most_once_are_never_sent_twice",
            _DURABLE + "message_at_most_once_is_forgotten_before_it_is_sent",
            _DELIVERY + "message_that_may_be_published_already_is_not_published_twice_at_most_once",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Delivery",
        "AT_LEAST_ONCE: queued offline, sent again with the same id until it is acknowledged.",
        (_MESSAGES + "messages_in_flight_at_a_loss_are_sent_again_in_order", _SWEEP),
    ),
    Guarantee(
        "Delivery",
        "EXACTLY_ONCE: takes effect once, over the socket and over HTTP, also through crashes.",
        (
            _DELIVERY + "exactly_once_over_the_fallback_and_back",
            "integration/test_crashes.py::test_accepted_messages_survive_every_kill",
            _SWEEP,
            _FULL,
        ),
    ),
    Guarantee(
        "Delivery",
        "EXACTLY_ONCE is refused where the server does not drop repeats.",
        (_DELIVERY + "exactly_once_needs_a_server_that_deduplicates",),
    ),
    Guarantee(
        "Delivery",
        "With `outbox_path`, what `emit` accepted survives `kill -9`.",
        (
            _DURABLE + "messages_accepted_before_a_crash_are_delivered_by_the_next_start",
            "integration/test_crashes.py::test_accepted_messages_survive_every_kill",
        ),
    ),
    Guarantee(
        "Delivery",
        "A copied outbox, or one put back from a backup, never lends a number twice: each message takes "
        "effect once, and gets its own answer.",
        (
            _DURABLE + "outbox_put_back_from_a_backup_lends_no_number_twice",
            _DURABLE + "two_machines_on_copies_of_an_outbox_lose_nothing_and_double_nothing",
            "unit/test_server_ledger.py::test_number_of_another_message_is_refused",
            "simulation/test_planted_bugs.py::test_sweep_finds_a_planted_bug_and_shrinks_it",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Delivery",
        "A file that is not ours is never changed, renamed or followed; a corrupt one of ours is set aside, "
        "and saved what can be.",
        (
            _FILE + "file_of_somebody_else_is_left_alone",
            _FILE + "hard_link_is_named",
            _FILE + "corrupt_file_is_set_aside_and_saved_what_can_be",
            "engine/test_metrics_database.py::test_file_of_somebody_else_is_left_alone",
        ),
    ),
    Guarantee(
        "Delivery",
        "A message whose bytes have changed on the disk is never sent: it is a dead letter, and told.",
        (
            _FILE + "flipped_bit_is_buried_and_the_rest_is_good",
            "integration/test_durable_outbox.py::test_message_that_changed_on_the_disk_is_told_and_stays_dead",
        ),
    ),
    Guarantee(
        "Delivery",
        "While the outbox keeps nothing `health()` is not ready, and says why; a file that is lost in use is "
        "noticed.",
        (
            "engine/test_health.py::test_health_is_not_ready_while_the_outbox_keeps_nothing",
            "integration/test_durable_outbox.py::test_full_disk_is_told_until_there_is_room",
            _FILE + "file_that_is_lost_in_use_is_noticed",
        ),
    ),
    Guarantee(
        "Delivery",
        "The outbox is bounded in messages and bytes, with a declared policy at its bounds.",
        (
            _DELIVERY + "full_outbox_rejects_and_keeps_what_it_holds",
            _DELIVERY + "full_outbox_drops_the_oldest_and_says_so",
            _DELIVERY + "full_outbox_blocks_until_there_is_room_in_order",
        ),
    ),
    Guarantee(
        "Delivery",
        "A message has a time to live; a poison message goes to the dead letters and blocks nobody.",
        (
            _DELIVERY + "message_expires_in_its_time_wherever_it_waits",
            _DELIVERY + "poison_message_dies_alone_and_the_others_pass",
        ),
    ),
    Guarantee(
        "Delivery",
        "Unacknowledged is only what the server must have had: it has answered a probe behind it.",
        (
            "engine/test_heartbeat.py::test_heartbeat_that_is_not_answered_settles_nothing",
            "engine/test_heartbeat.py::test_message_of_exactly_once_is_asked_about_again_before_it_is_given_up",
            "unit/test_link.py::test_link_late_pong_is_no_answer_to_a_later_probe",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Delivery",
        "A dead letter that is retried takes no effect that it has taken before.",
        (
            "engine/test_heartbeat.py::test_retried_dead_letter_takes_no_effect_again",
            "engine/test_heartbeat.py::test_retried_dead_letter_that_was_passed_over_is_not_called_delivered",
        ),
    ),
    Guarantee(
        "Delivery",
        "A call waits for its own `timeout`, and leaves nothing behind.",
        (
            "engine/test_heartbeat.py::test_call_is_left_to_its_own_time",
            "engine/test_heartbeat.py::test_calls_that_timed_out_leave_nothing_behind",
        ),
    ),
    Guarantee(
        "Delivery",
        "No message expires before its time to live is over, whatever expires beside it.",
        (_SWEEP, _PLANTED),
    ),
    Guarantee(
        "Delivery",
        "What `SqliteLedger` commits is on the disk before it is acknowledged, on every connection of it.",
        ("unit/test_server_sqlite_ledger.py::test_every_connection_waits_for_the_disk",),
    ),
    Guarantee(
        "Delivery",
        "Accepted messages are delivered, stored, or reported: the books always balance.",
        (_MESSAGES + "messages_of_all_kinds_are_accounted_for", _SWEEP),
    ),
    Guarantee(
        "Delivery",
        "After `disconnect()` what is called SENT was read by the server; the rest is returned.",
        (
            _ENDING + "disconnect_waits_until_the_server_has_read_all",
            _ENDING + "disconnect_takes_sent_back_where_nobody_has_seen_that_it_was_read",
            _ENDING + "disconnect_takes_sent_back_that_an_earlier_connection_left_open",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Delivery",
        "In FALLBACK messages are published over HTTP, in order, with the same ids.",
        ("engine/test_fallback.py::test_fallback_publishes_the_outbox_in_order_with_the_same_ids",),
    ),
    Guarantee(
        "Order",
        "Messages leave in the order of `emit`.",
        (_MESSAGES + "messages_emitted_offline_are_delivered_in_order", _SWEEP),
    ),
    Guarantee(
        "Order",
        "Handlers see events in wire order, one at a time.",
        (_MESSAGES + "handlers_see_events_in_wire_order_one_at_a_time",),
    ),
    Guarantee(
        "Order",
        "No handler is called for what comes over a connection that was given up.",
        (_SWEEP, _PLANTED),
    ),
    Guarantee(
        "Order",
        "An error of a handler is caught, logged, counted, and stops nothing.",
        (_MESSAGES + "handlers_cannot_break_the_engine",),
    ),
    Guarantee(
        "Order",
        "The wire is always read: a handler may await a call, a receipt or room, however many events wait.",
        (
            _PRESSURE + "handler_may_call_the_server_however_many_events_wait",
            _PRESSURE + "handler_may_await_a_receipt_and_room_in_the_outbox",
            "engine/test_heartbeat.py::test_heartbeat_judges_also_while_handlers_are_behind",
            _PLANTED,
            _SWEEP,
        ),
    ),
    Guarantee(
        "Order",
        "Events that the handlers have no room for are replayed, or dropped as declared, counted and told.",
        (
            _REPLAY + "events_of_a_channel_that_find_no_room_are_replayed_by_themselves",
            _REPLAY + "polls_do_not_wait_for_handlers_and_take_what_fits",
            _REPLAY + "events_that_a_disconnect_drops_come_with_the_next_connect",
            _PRESSURE + "events_without_room_are_told_to_the_resync_hook",
            _PRESSURE + "latest_of_each_name_outlives_a_flood",
            _PRESSURE + "overflow_may_close_the_connection_and_a_recovered_session_brings_the_rest",
            "unit/test_dispatcher.py::*",
            _PLANTED,
            _SWEEP,
        ),
    ),
    Guarantee(
        "Catch-up",
        "After a reconnect: first the subscriptions, then what was missed, then the outbox.",
        (
            "engine/test_service_subscriptions.py::test_subscriptions_are_repeated_on_every_connection",
            _REPLAY + "missed_events_come_over_every_way_once_and_in_order",
        ),
    ),
    Guarantee(
        "Catch-up",
        "Whatever was subscribed bit by bit comes back: in requests that fit, each decided by itself.",
        (
            _SUBSCRIPTIONS + "subscriptions_that_do_not_fit_into_one_request_come_back_in_several",
            _SUBSCRIPTIONS + "each_request_of_many_is_decided_by_itself",
            _FALLBACK + "fallback_polls_many_channels_by_addresses_that_every_server_takes",
        ),
    ),
    Guarantee(
        "Catch-up",
        "After `subscribe()` has returned, in FALLBACK as well, each event is heard or reported as missed.",
        (_FALLBACK + "subscribe_in_fallback_learns_at_once_where_the_channel_stands", _SWEEP),
    ),
    Guarantee(
        "Catch-up",
        "After `unsubscribe()` neither the server nor the handlers know the channel, whenever it was called.",
        (
            _SUBSCRIPTIONS + "unsubscribe_is_the_last_word_whenever_it_is_called",
            _SUBSCRIPTIONS + "unsubscribed_channel_is_silent_at_once",
            _SUBSCRIPTIONS + "unsubscribed_while_nobody_could_be_told_is_told_to_a_recovered_session",
            _FALLBACK + "fallback_answer_for_a_channel_that_was_unsubscribed_meanwhile_is_dropped",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Catch-up",
        "The program's own first words (`on_connect`) are alone until the hook has ended; its error decides "
        "what becomes of the connection.",
        (
            _WORDS + "first_words_overtake_all_that_waits_on_every_connection",
            _WORDS + "first_words_are_alone_until_the_hook_has_ended",
            _WORDS + "first_words_take_effect_once_beside_what_they_overtake",
            _WORDS + "hook_that_raises_decides_what_becomes_of_the_connection",
            _WORDS + "hook_that_does_not_end_is_given_up_in_its_time",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Catch-up",
        "Where the server recovers sessions, what was missed comes from there.",
        (
            "engine/test_session_recovery.py::test_client_hears_what_it_missed_and_loads_nothing",
            "integration/test_node_recovery.py::*",
        ),
    ),
    Guarantee(
        "Catch-up",
        "What cannot be replayed is loaded anew by the resync hook, in its turn among the events.",
        (
            _REPLAY + "lost_log_is_loaded_anew_once",
            _REPLAY + "plain_server_is_loaded_anew_after_every_reconnect",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Catch-up",
        "The change between socket and fallback loses nothing and delivers nothing twice.",
        (
            "engine/test_fallback.py::test_fallback_of_the_reference_dialect_misses_and_repeats_nothing",
            _FAULT + "blocked_socket_leads_to_fallback_and_back_without_loss",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Catch-up",
        "A polled answer counts as seen only once its events have been taken.",
        ("engine/test_fallback.py::test_fallback_keeps_no_etag_of_what_was_not_delivered",),
    ),
    Guarantee(
        "Auth",
        "Tokens are fetched before the connection opens, and refreshed before they expire.",
        (
            _AUTH + "is_renewed_before_it_expires_on_the_live_connection",
            _AUTH + "travels_in_the_connect_packet",
        ),
    ),
    Guarantee(
        "Auth",
        "One fetch at a time, however many wait for it.",
        (
            _TOKEN + "fetch_is_shared_by_all_who_wait",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Auth",
        "A refused token is renewed and tried once more, at once; refused again, it is FAILED.",
        (
            _AUTH + "that_is_refused_is_renewed_and_retried_once_at_once",
            _AUTH + "refused_twice_is_failed_until_a_new_one_is_tried_by_hand",
            _ENGINE + "never_storms_a_server_that_refuses_for_good",
        ),
    ),
    Guarantee(
        "Auth",
        "A refresh that fails keeps the live connection.",
        (_AUTH + "renewal_that_fails_keeps_the_connection",),
    ),
    Guarantee(
        "Auth",
        "A wrong clock, or an expiry that makes no sense, causes no storm of fetches; a token that tells "
        "its beginning lives as long as it says.",
        (
            _TOKEN + "of_a_clock_that_is_ahead_is_not_fetched_all_the_time",
            _TOKEN + "that_tells_its_beginning_lives_as_long_as_it_says",
            _TOKEN + "with_an_end_that_makes_no_sense_is_no_storm_and_no_bug",
            _PLANTED,
        ),
    ),
    Guarantee(
        "Auth",
        "A 403 refuses an identity only where one was given and a server says so; else it is retried.",
        (
            "integration/test_socketio_dial.py" + _FORBIDDEN,
            "integration/test_http_client.py" + _FORBIDDEN,
        ),
    ),
    Guarantee(
        "Retry",
        "Exponential backoff with jitter, within its bounds.",
        (
            "properties/test_backoff_properties.py::test_exponential_stays_in_its_bounds",
            _MANAGER + "backs_off_as_specified_and_says_so",
        ),
    ),
    Guarantee(
        "Retry",
        "`Retry-After` is obeyed.",
        (
            _MANAGER + "obeys_retry_after_and_spreads_it",
            "engine/test_fallback.py::test_fallback_obeys_retry_after",
        ),
    ),
    Guarantee(
        "Retry",
        "Messages are not published again before the server's `Retry-After` is over.",
        (_SWEEP, _PLANTED),
    ),
    Guarantee(
        "Retry",
        "Attempts are counted anew only after a stable connection.",
        (_MANAGER + "that_flaps_is_dialled_ever_more_slowly",),
    ),
    Guarantee(
        "Retry",
        "`retry_now()` ends any wait.",
        (
            _MANAGER + "retry_now_ends_the_backoff",
            _MANAGER + "retry_now_hurries_the_probe",
            _MANAGER + "retry_now_revives_it_from_failed_with_fresh_attempts",
        ),
    ),
    Guarantee(
        "Retry",
        "Polling, where it can, takes over after `fallback_after` of outage, whatever attempts are left, and "
        "at once where a `Retry-After` is longer than what is left of it.",
        (
            _PACING + "fallback_comes_when_the_outage_has_lasted_whatever_attempts_are_left",
            _PACING + "retry_after_that_is_longer_than_the_fallback_is_waited_for_leads_there_at_once",
            _PLANTED,
        ),
    ),
    Guarantee(
        "Retry",
        "`max_reconnect_attempts=None` goes on for ever, at the pace of the backoff's cap; attempts that "
        "have run out without a fallback say that nothing is tried any more, and what would help.",
        (
            _PACING + "attempts_without_a_limit_go_on_for_ever_at_the_pace_of_the_cap",
            _PACING + "attempts_that_have_run_out_say_so_and_name_the_ways_out",
        ),
    ),
    Guarantee(
        "Retry",
        "No dial, probe, poll or publication comes before a `Retry-After` is over, unless the user asks for "
        "it or `max_retry_after` ends it, which is told.",
        (
            _PACING + "probing_waits_for_what_the_dial_before_the_fallback_was_told",
            _PACING + "polling_never_comes_before_a_retry_after_is_over",
            _PACING + "publishing_never_comes_before_a_retry_after_is_over",
            _PACING + "retry_after_has_a_cap_and_is_told_when_it_bites",
            _PLANTED,
        ),
    ),
    Guarantee(
        "Retry",
        "Who refuses the client for good while it polls is asked ever more rarely, and the program is told.",
        (_PACING + "probing_of_who_refuses_for_good_becomes_rare_and_is_told",),
    ),
    Guarantee(
        "Resources",
        "After `disconnect()`, which is bounded, nothing is left: no task, socket, thread or file.",
        (
            _ENGINE + "closes_in_the_middle_of_anything",
            _MANAGER + "disconnect_ends_everything_in_every_state",
            _FAULT + "black_hole_does_not_hold_a_disconnect",
            "integration/test_interrupt.py::test_interrupt_ends_everything_in_every_state",
        ),
    ),
    Guarantee(
        "Resources",
        "No poll begins after FALLBACK was left, in whichever turn of the loop that happened.",
        (_FALLBACK + "no_poll_begins_after_the_fallback_was_left", _SWEEP),
    ),
    Guarantee(
        "Resources",
        "One ending for all who ask: cancelled anywhere, it still ends, and `connect()` begins after it.",
        (
            _ENDING + "disconnect_that_is_cancelled_at_any_turn_ends_all_the_same",
            _ENDING + "connect_that_is_cancelled_at_any_turn_leaves_nothing_or_all",
            _ENDING + "connect_during_a_disconnect_begins_after_it",
            _ENDING + "body_does_not_run_on_a_client_that_was_disconnected_while_it_dialled",
            _ENDING + "disconnect_over_many_messages_lets_the_loop_turn",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Resources",
        "A handler may wait for `disconnect()` in any way: it is not cancelled, and nothing waits for it.",
        (
            _ENDING + "handler_may_wait_for_the_disconnect_in_any_way",
            _ENDING + "handler_that_joins_an_end_is_let_go",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Resources",
        "A client belongs to one event loop; another loop or thread is told the remedy at once.",
        (
            _LOOPS + "coroutine_on_another_loop_is_refused_at_once",
            _LOOPS + "function_in_another_thread_is_refused_at_once",
            _LOOPS + "client_whose_loop_was_closed_says_so_and_connects_on_another_one",
        ),
    ),
    Guarantee(
        "Resources",
        "Nothing grows over thousands of reconnects.",
        (
            "performance/test_soak.py::*",
            "integration/test_leaks.py::test_reconnecting_a_thousand_times_leaves_nothing_behind",
        ),
    ),
    Guarantee(
        "Resources",
        "All buffers are bounded; what is dropped is counted, and says why.",
        (
            "integration/test_hostile_limits.py::*",
            _SWEEP,
        ),
    ),
    Guarantee(
        "Secrets",
        "No token or credential in logs, `repr`, errors or metrics.",
        (
            "integration/test_canary.py::test_canary_is_found_nowhere",
            _AUTH + "never_shows_in_what_people_see",
            "properties/test_config_properties.py::test_config_never_shows_a_password",
        ),
    ),
    Guarantee(
        "Secrets",
        "A token goes only to the server's own origin.",
        ("engine/test_fallback.py::test_fallback_sends_the_token_only_to_its_own_origin",),
    ),
)
