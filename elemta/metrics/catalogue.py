"""Every metric: its name, what it means, and what those of several nodes come to.

Names are public: users of the original program know some of them, and alerts name them. No label
names a client, an address or a destination: whoever can make new values of a label fills the memory
of whoever stores them.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
#: What the numbers of several nodes come to. ``each``: they are told apart by the label `NODE`.
Together: TypeAlias = Literal["sum", "max", "min", "each"]

#: The label that tells nodes apart.
NODE: Final = "node"


class Description(Struct, frozen=True):
    """A metric.

    Attributes:
        name: of a counter with its ``_total``.
        about: the line of help.
        labels: their names.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    together: Together = "sum"


def _counter(name: str, about: str, *labels: str) -> Description:
    return Description(name, "counter", about, labels)


def _gauge(name: str, about: str, *labels: str, together: Together = "sum") -> Description:
    return Description(name, "gauge", about, labels, together)


def _histogram(name: str, about: str, *labels: str, together: Together = "sum") -> Description:
    return Description(name, "histogram", about, labels, together)


_ALL: Final = (
    # The server.
    _gauge("elemta_build_info", "Always 1; which version runs.", "version", together="max"),
    _gauge("elemta_up", "Always 1.", together="max"),
    _gauge(
        "elemta_healthy",
        "1: nothing is wrong; 0: something is, and /health and `elemta status` say what.",
        together="min",
    ),
    _gauge("elemta_accepting", "1: mail is taken; 0: it is not, for now.", together="min"),
    _gauge(
        "elemta_start_time_seconds",
        "When the server was started, seconds since the epoch.",
        together="each",
    ),
    _gauge("elemta_nodes", "Processes that there are to be.", together="max"),
    _gauge("elemta_nodes_up", "Processes that take mail and answer."),
    _counter(
        "elemta_part_restarts_total",
        "Parts of the server that failed and were started again.",
        "part",
    ),
    _histogram(
        "elemta_loop_lag_seconds",
        "How late the event loop comes to what is due, asked ten times a second.",
        together="each",
    ),
    # Clients.
    _counter("elemta_connections_total", "Connections of clients.", "listener"),
    _gauge("elemta_connections_active", "Connections that clients hold now.", "listener"),
    _gauge("elemta_connections_limit", "Connections that clients may hold."),
    _histogram("elemta_connection_duration_seconds", "How long a client stayed."),
    _counter(
        "elemta_connection_errors_total",
        "Connections of clients that were shed, or did not end with a goodbye.",
        "reason",
    ),
    _counter("elemta_refusals_total", "What clients were refused.", "reason"),
    _counter("elemta_auth_attempts_total", "How often clients said who they are, by AUTH."),
    _counter("elemta_auth_successes_total", "How often that was true."),
    _counter("elemta_auth_failures_total", "How often that was wrong."),
    _counter("elemta_auth_exchanges_total", "What AUTH came to.", "mechanism", "result"),
    _counter("elemta_rate_limit_auth_hit_total", "Logins that came too soon after wrong ones."),
    _histogram("elemta_accept_duration_seconds", "From MAIL to the 250 after the content."),
    _histogram("elemta_message_size_bytes", "Octets of a message that came in."),
    _gauge("elemta_memory_limit_bytes", "Memory that messages on their way in may take."),
    _gauge("elemta_memory_used_bytes", "Memory that messages on their way in take now."),
    # Mail.
    _counter("elemta_messages_received_total", "Messages taken in, reports of our own among them."),
    _counter("elemta_messages_delivered_total", "Recipients to whom a message was delivered."),
    _counter("elemta_messages_failed_total", "Recipients that were given up."),
    _counter("elemta_messages_finished_total", "Messages of which nothing is left to try."),
    _counter("elemta_reports_total", "Reports to senders (RFC 3464).", "kind"),
    _counter("elemta_events_total", "What happened in the queue, by the names of events.", "event"),
    _gauge("elemta_event_subscribers", "Who listens to events, in whatever way."),
    # The queue.
    _gauge("elemta_queue_size", "Recipients of messages that are not finished.", "queue_type"),
    _gauge("elemta_queue_messages", "Messages that are not finished."),
    _gauge("elemta_queue_memory_messages", "Those of them that stand in memory."),
    _gauge("elemta_queue_history_messages", "Finished messages that are still known."),
    _gauge(
        "elemta_queue_oldest_age_seconds",
        "Age of the oldest message that is not finished; 0 if there is none.",
        together="max",
    ),
    _histogram("elemta_queue_wait_seconds", "From a message's 250 to its first attempt."),
    _histogram("elemta_queue_processing_time_seconds", "From a message's 250 to its end."),
    _histogram("elemta_commit_operations", "Operations that shared a transaction and its fsync."),
    _histogram(
        "elemta_commit_duration_seconds", "How long a transaction took, its fsync included."
    ),
    _gauge(
        "elemta_disk_free_bytes",
        "What the queue's disk has left for us.",
        together="min",
    ),
    # Destinations.
    _gauge("elemta_destinations", "Destinations that mail waits for, or that are shut.", "state"),
    _gauge("elemta_destination_messages", "Messages that stand there.", "state"),
    # Delivery.
    _counter("elemta_delivery_attempts_total", "Attempts that ended, one for each recipient."),
    _counter("elemta_delivery_successes_total", "Those that succeeded."),
    _counter(
        "elemta_delivery_failures_total", "Those that failed, for now or for good.", "outcome"
    ),
    _histogram("elemta_delivery_duration_seconds", "How long an attempt took.", "transport"),
    _gauge("elemta_delivery_workers", "Workers that deliver, or keep a connection."),
    _gauge("elemta_delivery_workers_limit", "Workers that there may be."),
    _counter("elemta_host_connections_total", "Connections to hosts.", "outcome"),
    _counter(
        "elemta_tls_connections_total", "Connections that were encrypted.", "direction", "version"
    ),
    _counter("elemta_tls_handshake_failures_total", "Handshakes that failed.", "direction"),
    _gauge(
        "elemta_tls_certificate_expiry_seconds",
        "Seconds until a certificate that clients are shown runs out.",
        *("domain", "issuer"),
        together="min",
    ),
    _gauge(
        "elemta_tls_certificate_valid",
        "1: such a certificate is good today; 0: it is not.",
        "domain",
        together="min",
    ),
    _counter(
        "elemta_tls_verified_connections_total",
        "Connections whose other side has proved who it is.",
        "direction",
    ),
    _counter(
        "elemta_host_logins_total", "Logins of ours with hosts, by what came of them.", "result"
    ),
    # Names.
    _counter("elemta_dns_questions_total", "Questions, by how they came to an answer.", "answered"),
    _counter("elemta_dns_answers_total", "What name servers answered.", "answer"),
    _histogram("elemta_dns_duration_seconds", "How long name servers took to answer."),
    _gauge("elemta_dns_remembered", "Answers in the cache."),
    # Maps.
    _counter(
        "elemta_map_lookups_total", "Look-ups, by how they came to an answer.", "map", "result"
    ),
    _histogram("elemta_map_duration_seconds", "How long a map took to answer.", "map"),
    # Plugins.
    _counter("elemta_plugin_failures_total", "Plugins that raised or took too long.", "plugin"),
    _counter("elemta_plugin_objections_total", "What plugins refused or put off.", "plugin"),
    _counter("elemta_plugin_events_total", "What plugins count themselves.", "plugin", "event"),
    _histogram("elemta_plugin_duration_seconds", "How long a plugin took to answer.", "plugin"),
    _counter("elemta_clamav_scans_total", "Messages shown to ClamAV.", "result"),
    _histogram("elemta_clamav_scan_duration_seconds", "How long ClamAV took."),
    _counter("elemta_rspamd_checks_total", "Messages shown to rspamd.", "action"),
    _histogram("elemta_rspamd_check_duration_seconds", "How long rspamd took."),
    _counter(
        "elemta_authentication_results_total",
        "What SPF, DKIM, ARC, DMARC and iprev found.",
        "method",
        "result",
    ),
    _counter(
        "elemta_dkim_signatures_total",
        "Messages that could be signed (DKIM), by whether they were, and if not, why.",
        "result",
    ),
    _counter(
        "elemta_arc_seals_total",
        "Messages that could be sealed (ARC), by what that says, or why they were not.",
        "result",
    ),
    _counter("elemta_greylisting_total", "Recipients that greylisting looked at.", "outcome"),
    # All nodes know the same of these.
    _gauge(
        "elemta_greylisting_triplets", "Triplets that greylisting knows.", "state", together="max"
    ),
    _gauge(
        "elemta_greylisting_clients",
        "Clients and domains that greylisting trusts.",
        together="max",
    ),
    _counter("elemta_rate_limit_requests_total", "What was held against limits by rate."),
    _counter("elemta_rate_limit_whitelist_hits_total", "What limits by rate did not concern."),
    _counter("elemta_rate_limit_blacklist_hits_total", "Recipients denied to listed networks."),
    _counter("elemta_rate_limit_connections_hit_total", "Connections that were too many."),
    _counter("elemta_rate_limit_messages_hit_total", "Messages that were too many."),
    _counter("elemta_rate_limit_recipients_hit_total", "Recipients that were too many."),
    _counter("elemta_rate_limit_volume_hit_total", "Messages of senders of too many octets."),
    _counter(
        "elemta_sending_limits_messages_total",
        "Messages of accounts that have sending limits.",
        "outcome",
    ),
    _counter("elemta_sending_limits_stops_total", "How often an account was stopped."),
    _gauge("elemta_sending_limits_stopped", "Accounts that are stopped.", together="max"),
    # The API.
    _counter("elemta_api_requests_total", "Requests to the API.", "route", "status"),
    _histogram("elemta_api_request_duration_seconds", "How long an answer of the API took."),
    _gauge("elemta_websocket_subscribers", "Websockets that are open.", "route"),
)

#: By name.
CATALOGUE: Final = {each.name: each for each in _ALL}


def together(name: str) -> Together:
    """What a metric of several nodes comes to, which need not be one of ours.

    What a process says of itself (``process_…``, ``python_…``) is told apart: in a sum the one
    that leaks would hide.

    Args:
        name: of a counter with or without its ``_total``.
    """
    found = CATALOGUE.get(name) or CATALOGUE.get(f"{name}_total")
    return found.together if found is not None else "each"
