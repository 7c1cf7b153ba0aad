"""Reads, for Prometheus, what the parts of a running server know of themselves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import asdict

from elemta import __version__
from elemta.control.measuring import told
from elemta.metrics.collecting import Reading, registry_of
from elemta.metrics.meters import LATENCY, RATES, Distributions
from elemta.queue import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from elemta.control.facts import Metric
    from elemta.control.measuring import Stored
    from elemta.delivery.reports import Reporter
    from elemta.listener.accept import Listeners
    from elemta.listener.reception import House
    from elemta.metrics.meters import Distribution, Meters
    from elemta.net.dns import DnsResolver
    from elemta.privileges import Files
    from elemta.queue import Queue
    from elemta.supervision import Supervision

#: Seconds between two looks at how late the loop is.
PERIOD: Final = 0.1
#: The queues that people know, and the states of recipients in them.
_QUEUES: Final = {
    "active": (State.READY,),
    "deferred": (State.DEFERRED,),
    "hold": (State.HELD,),
    "failed": (State.FAILED, State.EXPIRED, State.DELETED),
}
#: How it can stand with a destination, so that each is told of when there is none, too.
_CONDITIONS: Final = ("open", "parked", "suspended", "throttled")
#: By the names of events.
_FAILURES: Final = {"Deferred": "deferred", "Failed": "failed", "Expired": "expired"}


class Readings:
    """All that a server in one process tells Prometheus.

    Args:
        meters: what was counted on mail's way.
        queue: its mail.
        listeners: who take it in.
        house: what these share just now.
        reporter: writes to senders.
        resolver: asks name servers.
        supervision: of all parts.
        files: how many workers there may be.
        troubles: what is wrong.
        nodes: how many processes there are to be.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        meters: Meters,
        queue: Queue,
        listeners: Listeners,
        house: Callable[[], House],
        reporter: Reporter,
        resolver: DnsResolver,
        supervision: Supervision,
        files: Files,
        *,
        troubles: Callable[[], list[str]],
        nodes: int,
        clock: Callable[[], float],
    ) -> None:
        self._meters = meters
        self._queue = queue
        self._listeners = listeners
        self._house = house
        self._reporter = reporter
        self._resolver = resolver
        self._supervision = supervision
        self._files = files
        self._troubles = troubles
        self._nodes = nodes
        self._clock = clock
        self._started_at = clock()
        self._stored: Stored | None = None
        self._registry = registry_of(self._read)

    def metrics(self, stored: Stored) -> list[Metric]:
        """All of it.

        Args:
            stored: what takes a thread to find out.
        """
        self._stored = stored
        return [*told(self._registry.collect()), *stored.process]

    def _read(self) -> Iterator[Reading]:
        yield from self._of_server()
        yield from self._of_clients()
        yield from self._of_events()
        yield from self._of_queue()
        yield from self._of_destinations()
        yield from self._of_delivery()
        yield from self._of_names()
        yield from self._of_maps()
        yield from self._of_plugins()

    def _of_server(self) -> Iterator[Reading]:
        queue = self._queue
        yield Reading("elemta_build_info", 1, (__version__,))
        yield Reading("elemta_up", 1)
        yield Reading("elemta_healthy", not self._troubles())
        yield Reading("elemta_accepting", queue.healthy and queue.room())
        yield Reading("elemta_start_time_seconds", self._started_at)
        yield Reading("elemta_nodes", self._nodes)
        yield Reading("elemta_nodes_up", 1)
        restarts: dict[str, int] = {}
        for part in self._supervision.parts:
            restarts[part.name] = restarts.get(part.name, 0) + part.restarts
        yield from _each("elemta_part_restarts_total", restarts)
        yield Reading("elemta_loop_lag_seconds", self._meters.lags)

    def _of_clients(self) -> Iterator[Reading]:
        meters, house, listeners = self._meters, self._house(), self._listeners
        names = listeners.names
        yield from _each(
            "elemta_connections_total", {name: meters.connections[name] for name in names}
        )
        yield from _each(
            "elemta_connections_active", {name: listeners.connections(name) for name in names}
        )
        yield Reading("elemta_connections_limit", house.roster.places)
        yield Reading("elemta_connection_duration_seconds", meters.conversations)
        yield from _each("elemta_connection_errors_total", meters.connection_errors)
        yield from _each("elemta_refusals_total", meters.refusals)
        yield Reading("elemta_auth_attempts_total", meters.logins["tried"])
        yield Reading("elemta_auth_successes_total", meters.logins["granted"])
        yield Reading("elemta_auth_failures_total", meters.logins["refused"])
        for (mechanism, result), count in meters.mechanisms.items():
            yield Reading("elemta_auth_exchanges_total", count, (mechanism, result))
        yield Reading("elemta_rate_limit_auth_hit_total", meters.logins["locked"])
        yield Reading("elemta_accept_duration_seconds", meters.accepts)
        yield Reading("elemta_message_size_bytes", meters.octets)
        yield Reading("elemta_memory_limit_bytes", house.budget.total)
        yield Reading("elemta_memory_used_bytes", house.budget.total - house.budget.free)

    def _of_events(self) -> Iterator[Reading]:
        events = self._queue.events
        counts = events.counts
        delivered, failed = counts["Delivered"], counts["Failed"] + counts["Expired"]
        yield Reading("elemta_messages_received_total", counts["Queued"])
        yield Reading("elemta_messages_delivered_total", delivered)
        yield Reading("elemta_messages_failed_total", failed)
        yield Reading("elemta_messages_finished_total", counts["Finished"])
        reports: dict[str, int] = asdict(self._reporter.counts)
        yield from _each("elemta_reports_total", reports)
        yield from _each("elemta_events_total", counts)
        yield Reading("elemta_event_subscribers", events.subscribers)
        yield Reading("elemta_delivery_attempts_total", delivered + failed + counts["Deferred"])
        yield Reading("elemta_delivery_successes_total", delivered)
        yield from _each(
            "elemta_delivery_failures_total",
            {outcome: counts[event] for event, outcome in _FAILURES.items()},
        )

    def _of_queue(self) -> Iterator[Reading]:
        meters, stored = self._meters, self._stored
        yield Reading("elemta_queue_memory_messages", self._queue.waiting)
        yield Reading("elemta_queue_wait_seconds", meters.waits)
        yield Reading("elemta_queue_processing_time_seconds", meters.stays)
        yield Reading("elemta_commit_operations", meters.groups)
        yield Reading("elemta_commit_duration_seconds", meters.commits)
        if stored is not None and (stats := stored.stats) is not None:
            sizes = {
                name: sum(stats.recipients.get(state, 0) for state in states)
                for name, states in _QUEUES.items()
            }
            age = 0.0 if stats.oldest is None else max(0.0, self._clock() - stats.oldest)
            yield from _each("elemta_queue_size", sizes)
            yield Reading("elemta_queue_messages", stats.messages)
            yield Reading("elemta_queue_history_messages", stats.history)
            yield Reading("elemta_queue_oldest_age_seconds", age)
        if stored is not None and stored.free is not None:
            yield Reading("elemta_disk_free_bytes", stored.free)

    def _of_destinations(self) -> Iterator[Reading]:
        census = self._queue.census()
        for condition in _CONDITIONS:
            count, label = census.destinations.get(condition, 0), (condition,)
            yield Reading("elemta_destinations", count, label)
            messages = census.messages.get(condition, 0)
            yield Reading("elemta_destination_messages", messages, label)
        yield Reading("elemta_delivery_workers", census.workers)
        yield Reading("elemta_delivery_workers_limit", self._files.deliveries)

    def _of_delivery(self) -> Iterator[Reading]:
        meters = self._meters
        yield from _each("elemta_delivery_duration_seconds", meters.attempts)
        yield from _each("elemta_host_connections_total", meters.hosts)
        for way, versions in (("in", meters.tls_in), ("out", meters.tls)):
            for version, count in versions.items():
                yield Reading("elemta_tls_connections_total", count, (way, version))
        yield Reading("elemta_tls_handshake_failures_total", meters.tls_in_failures, ("in",))
        yield Reading("elemta_tls_handshake_failures_total", meters.tls_failures, ("out",))
        yield Reading("elemta_tls_verified_connections_total", meters.tls_verified, ("out",))
        yield from _each("elemta_host_logins_total", meters.host_logins)
        now = self._clock()
        # One a name: of several certificates of one, which is shown, the first.
        for each in {
            each.name: each for each in reversed(self._house().certificates.known)
        }.values():
            label = (each.name, each.issuer)
            yield Reading("elemta_tls_certificate_expiry_seconds", each.ends - now, label)
            yield Reading("elemta_tls_certificate_valid", each.is_good(now), (each.name,))

    def _of_names(self) -> Iterator[Reading]:
        resolver = self._resolver
        answered = {
            "remembered": resolver.hits,
            "joined": resolver.joined,
            "asked": resolver.misses,
        }
        yield from _each("elemta_dns_questions_total", answered)
        yield from _each("elemta_dns_answers_total", resolver.answers)
        yield Reading("elemta_dns_duration_seconds", resolver.seconds)
        yield Reading("elemta_dns_remembered", resolver.remembered)

    def _of_maps(self) -> Iterator[Reading]:
        for (name, result), count in self._meters.maps.items():
            yield Reading("elemta_map_lookups_total", count, (name, result))
        yield from _each("elemta_map_duration_seconds", self._meters.map_seconds)

    def _of_plugins(self) -> Iterator[Reading]:
        failures, objections = Counter[str](), Counter[str]()
        events = Counter[tuple[str, str]]()
        seconds = Distributions(LATENCY)
        for each in self._house().plugins.plugins:  # one name may be there several times
            failures[each.name] += each.counts.failed
            objections[each.name] += each.counts.objected
            for word, count in each.counts.events.items():
                events[each.name, word] += count
            seconds[each.name].add(each.counts.seconds)
        yield from _each("elemta_plugin_failures_total", failures)
        yield from _each("elemta_plugin_objections_total", objections)
        for (name, word), count in events.items():
            yield Reading("elemta_plugin_events_total", count, (name, word))
        yield from _each("elemta_plugin_duration_seconds", seconds)
        meters = self._meters
        yield from _each("elemta_clamav_scans_total", meters.scans)
        yield Reading("elemta_clamav_scan_duration_seconds", meters.scan_seconds)
        yield from _each("elemta_rspamd_checks_total", meters.checks)
        yield Reading("elemta_rspamd_check_duration_seconds", meters.check_seconds)
        for result, count in self._meters.signatures.items():
            yield Reading("elemta_dkim_signatures_total", count, (result,))
        for result, count in self._meters.seals.items():
            yield Reading("elemta_arc_seals_total", count, (result,))
        for (method, result), count in self._meters.authentication.items():
            yield Reading("elemta_authentication_results_total", count, (method, result))
        yield from _each("elemta_greylisting_total", meters.greylisting)
        yield from _each("elemta_greylisting_triplets", meters.greylisted)
        yield Reading("elemta_greylisting_clients", meters.greylisting_clients)
        for what in RATES:
            yield Reading(f"elemta_rate_limit_{what}_total", meters.rate_limits[what])
        yield from _each("elemta_sending_limits_messages_total", meters.sending)
        yield Reading("elemta_sending_limits_stops_total", meters.sending_stops)
        yield Reading("elemta_sending_limits_stopped", meters.sending_stopped)


def _each(name: str, values: Mapping[str, float] | Mapping[str, Distribution]) -> Iterator[Reading]:
    """A metric with one label."""
    for label, value in values.items():
        yield Reading(name, value, (label,))


async def watch_loop(meters: Meters) -> None:
    """Measure for ever how late the loop comes to what is due: whatever holds it holds mail."""
    while True:
        due = trio.current_time() + PERIOD
        await trio.sleep_until(due)
        meters.lags.observe(trio.current_time() - due)
