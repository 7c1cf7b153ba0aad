"""What a server tells Prometheus of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from elemta import __version__
from elemta.control.framing import decode_answer, encode
from elemta.control.measuring import Stored
from elemta.control.messages import Measured
from elemta.metrics.catalogue import CATALOGUE
from elemta.metrics.meters import Meters
from elemta.queue import Result, State, Stats, StoreUnavailable
from elemta.readings import PERIOD, watch_loop
from elemta.supervision import Supervision
from tests.queue.mail import CONTENT, EPOCH, Disks, envelope, settle_next
from tests.test_parts import parts_of

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.control.facts import Metric
    from elemta.parts import Parts

STORED = Stored(
    Stats(
        messages=3,
        recipients={
            State.READY: 1,
            State.DEFERRED: 2,
            State.HELD: 3,
            State.FAILED: 4,
            State.EXPIRED: 5,
            State.DELETED: 6,
        },
        oldest=EPOCH - 60,
        history=8,
    ),
    2**30,
    (),
)


def values(metrics: list[Metric]) -> dict[str, float]:
    """What each sample has, its labels in the order of their names."""
    return {
        ",".join([each.name, *(value for _, value in sorted(each.labels.items()))]): each.value
        for metric in metrics
        for each in metric.samples
    }


def told(parts: Parts, stored: Stored = STORED) -> dict[str, float]:
    return values(parts.metrics(stored))


async def test_the_queues_that_people_know_are_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path) as parts:
        found = told(parts)
        sizes = {name: found[f"elemta_queue_size,{name}"] for name in
                 ("active", "deferred", "hold", "failed")}  # fmt: skip
        assert sizes == {"active": 1, "deferred": 2, "hold": 3, "failed": 15}
        assert found["elemta_queue_oldest_age_seconds"] == 60
        assert found["elemta_disk_free_bytes"] == 2**30
        assert found[f"elemta_build_info,{__version__}"] == 1


async def test_what_the_disk_does_not_tell_is_left_out(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path) as parts:
        found = told(parts, Stored(None, None, ()))
        assert found["elemta_up"] == 1
        assert not any(name.startswith("elemta_queue_size") for name in found)
        assert "elemta_disk_free_bytes" not in found


async def test_an_empty_queue_has_no_age(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path) as parts:
        stats = Stats(messages=0, recipients={}, oldest=None, history=0)
        found = told(parts, Stored(stats, None, ()))
        assert found["elemta_queue_oldest_age_seconds"] == 0
        assert found["elemta_queue_size,hold"] == 0


async def test_what_happens_in_the_queue_is_counted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path) as parts:
        for result in (Result.DELIVERED, Result.FAILED, Result.DEFERRED):
            await parts.queue.accept(envelope(), CONTENT)
            await settle_next(parts.queue, result)
        await parts.queue.accept(envelope("u@y", "v@y"), CONTENT)
        with parts.queue.events.subscribe():
            found = told(parts)
        assert found["elemta_messages_received_total"] == 4
        assert found["elemta_messages_delivered_total"] == 1
        assert found["elemta_messages_failed_total"] == 1
        assert found["elemta_messages_finished_total"] == 2
        assert found["elemta_delivery_attempts_total"] == 3
        assert found["elemta_delivery_successes_total"] == 1
        assert found["elemta_delivery_failures_total,deferred"] == 1
        assert found["elemta_delivery_failures_total,failed"] == 1
        assert found["elemta_delivery_failures_total,expired"] == 0
        assert found["elemta_events_total,Queued"] == 4
        assert found["elemta_event_subscribers"] == 1
        assert found["elemta_destinations,open"] == 1
        assert found["elemta_destination_messages,open"] == 1


async def test_a_server_in_trouble_says_so(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disks, supervision = Disks(), Supervision()
    async with parts_of(tmp_path, supervision, disks) as parts:
        found = told(parts)
        assert (found["elemta_healthy"], found["elemta_accepting"]) == (1, 1)
        disks.disk.full = True
        try:
            await parts.queue.accept(envelope(), CONTENT)
        except StoreUnavailable:
            found = told(parts)
        assert (found["elemta_healthy"], found["elemta_accepting"]) == (0, 0)
        disks.disk.full = False


async def test_a_part_that_was_started_again_is_counted(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    supervision, failures = Supervision(), [OSError("once"), OSError("twice")]

    async def run() -> None:
        if failures:
            raise failures.pop()
        await trio.sleep_forever()

    async with parts_of(tmp_path, supervision) as parts:
        nursery.start_soon(supervision.keep, "control", run)
        await trio.sleep(10)
        assert told(parts)["elemta_part_restarts_total,control"] == 2
    nursery.cancel_scope.cancel()


async def test_plugins_are_told_by_name_though_one_be_there_twice(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    more = "plugins: [{name: recipient-limit}, {name: recipient-limit}]\n"
    async with parts_of(tmp_path, more=more) as parts:
        for each in parts._house.plugins.plugins:
            each.counts.events["seen"] += 2
        found = told(parts)
        (one, _) = parts.plugins()
        assert (one.kinds, one.on_failure) == (("rcpt",), {"on_rcpt": "defer"})
        assert one.events == {"seen": 2}
    assert found["elemta_plugin_events_total,seen,recipient-limit"] == 4
    assert found["elemta_plugin_failures_total,recipient-limit"] == 0
    assert found["elemta_plugin_objections_total,recipient-limit"] == 0
    assert found["elemta_plugin_duration_seconds_count,recipient-limit"] == 0


async def test_what_mail_authentication_found_is_told_by_method_and_result(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with parts_of(tmp_path) as parts:
        parts._meters.authentication["spf", "pass"] += 2
        found = told(parts)
    assert found["elemta_authentication_results_total,spf,pass"] == 2


async def test_every_metric_is_told_unless_nothing_of_its_kind_ever_happened(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    # Those with a label that only what happens gives a value; and the API's, which counts itself.
    later = {
        "elemta_auth_exchanges_total",
        "elemta_connection_errors_total",
        "elemta_refusals_total",
        "elemta_part_restarts_total",
        "elemta_events_total",
        "elemta_delivery_duration_seconds",
        "elemta_host_connections_total",
        "elemta_host_logins_total",
        "elemta_tls_connections_total",
        "elemta_tls_certificate_expiry_seconds",
        "elemta_tls_certificate_valid",
        "elemta_dns_answers_total",
        "elemta_map_lookups_total",
        "elemta_sending_limits_messages_total",
        "elemta_map_duration_seconds",
        "elemta_clamav_scans_total",
        "elemta_rspamd_checks_total",
        "elemta_arc_seals_total",
        "elemta_dkim_signatures_total",
        "elemta_greylisting_total",
        "elemta_greylisting_triplets",
    }
    of_api = {name for name in CATALOGUE if name.startswith(("elemta_api", "elemta_websocket"))}
    by_plugins = ("elemta_plugin", "elemta_authentication")
    of_plugins = {name for name in CATALOGUE if name.startswith(by_plugins)}
    async with parts_of(tmp_path) as parts:
        metrics = parts.metrics(STORED)
    assert decode_answer(encode(Measured(metrics=metrics))) == Measured(metrics=metrics)
    found = {f"{each.name}_total" if each.kind == "counter" else each.name for each in metrics}
    assert CATALOGUE.keys() - found == later | of_api | of_plugins
    assert [each.together for each in metrics if each.name == "elemta_loop_lag_seconds"] == ["each"]


async def test_a_loop_that_was_held_up_is_measured(
    nursery: trio.Nursery, mock_clock: trio.testing.MockClock
) -> None:
    meters = Meters()
    nursery.start_soon(watch_loop, meters)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(PERIOD + 0.3)  # as if somebody had held it
    await trio.testing.wait_all_tasks_blocked()
    assert sum(meters.lags.counts) == 1
    assert abs(meters.lags.total - 0.3) < 1e-6
