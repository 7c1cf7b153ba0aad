from __future__ import annotations

import re
from pathlib import Path

from elemta.listener.refusals import REASONS
from elemta.metrics.catalogue import CATALOGUE
from elemta.metrics.collecting import process_registry

TEXT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def test_every_metric_is_documented_as_it_is_and_no_other() -> None:
    rows = re.findall(r"^\| `(elemta_\w+)` \| (\w+) \| (.*?) ?\| .+ \|$", TEXT, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert len(rows) == len(told)
    assert told == {each.name: (each.kind, each.labels) for each in CATALOGUE.values()}


def test_what_a_process_tells_is_documented() -> None:
    for each in process_registry().collect():
        name = f"{each.name}_total" if each.type == "counter" else each.name
        assert f"`{name}`" in TEXT


def test_every_reason_of_a_refusal_is_documented_and_no_other() -> None:
    (line,) = re.findall(r"^The reasons of `elemta_refusals_total`: (.*)$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == REASONS


def test_queries_name_only_what_there_is() -> None:
    for name in re.findall(r"(?:rate|deriv|expr:|sum)[ (]*(?:sum\(|rate\()*(elemta_\w+)", TEXT):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in CATALOGUE or CATALOGUE[base].kind == "histogram"
