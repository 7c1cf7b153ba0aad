"""The test suite of RFC 7208 that openspf.org has published: each case, by our resolver."""

from __future__ import annotations

from typing import Final

import trio
import yaml

from elemta.mailauth import check_spf
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.testing import at_once
from tests.mailauth import suites

#: Where pyspf decides otherwise than the suite wants, and why we let it.
DEVIATIONS: Final[dict[str, tuple[str, str]]] = {}


class Zone:
    """Name servers with the records of a scenario."""

    def __init__(self, records: dict[str, list[object]]) -> None:
        self._records = {name.lower(): found for name, found in records.items()}

    async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
        await trio.lowlevel.checkpoint()
        return self._ask(name, kind, 0)

    def _ask(self, name: str, kind: Kind, depth: int) -> Found | Absent | Failed:
        records = self._records.get(name.lower())
        if records is None or depth > 8:
            return Absent(domain=True, ttl=60)
        found: list[str] = []
        copied: list[str] = []
        has_texts = False
        silent = False
        for record in records:
            if record == "TIMEOUT":
                silent = True
                continue
            assert isinstance(record, dict)
            for key, value in record.items():
                if value == "TIMEOUT":
                    if key == kind.value:
                        return Failed("timeout")
                    continue
                if key == "CNAME":
                    return self._ask(str(value), kind, depth + 1)
                has_texts |= key == "TXT"
                if value == "NONE":
                    continue
                if key == kind.value:
                    found.append(shown(key, value))
                elif key == "SPF" and kind is Kind.TXT:
                    copied.append(shown("TXT", value))
        if kind is Kind.TXT and not has_texts:
            found = copied  # the suite leaves it to its driver to say it in TXT records, too
        if found:
            return Found(tuple(found), 60)
        return Failed("timeout") if silent else Absent(domain=False, ttl=60)


def shown(kind: str, value: object) -> str:
    """A record in the text form of a zone file."""
    if kind == "TXT":
        strings = value if isinstance(value, list) else [value]
        return " ".join(f'"{escaped(str(each))}"' for each in strings)
    if kind == "MX":
        assert isinstance(value, list)
        return f"{value[0]} {value[1]}."
    return str(value)


def escaped(text: str) -> str:
    return "".join(
        chr(octet) if 32 <= octet < 127 and octet not in b'"\\' else f"\\{octet:03d}"
        for octet in text.encode("utf-8")
    )


def scenarios() -> list[dict[str, dict[str, object]]]:
    return list(yaml.safe_load_all(suites.read("pyspf", "test/rfc7208-tests.yml")))


async def judged(case: dict[str, object], zone: Zone) -> tuple[str, str]:
    found = await check_spf(
        str(case["host"]),
        str(case["mailfrom"] or ""),
        str(case["helo"] or ""),
        resolver=DnsResolver(backend=zone),
        in_thread=at_once,
    )
    return found.result, found.explanation or "DEFAULT"


async def test_every_case() -> None:
    number = 0
    wrong: list[str] = []
    for scenario in scenarios():
        zone = Zone(scenario["zonedata"])  # type: ignore[arg-type] # what the suite has there
        for name, case in scenario["tests"].items():
            assert isinstance(case, dict)
            number += 1
            result, explanation = await judged(case, zone)
            allowed = case["result"]
            allowed = allowed if isinstance(allowed, list) else [allowed]
            if name in DEVIATIONS:
                allowed = [DEVIATIONS[name][0]]
            if result not in allowed:
                wrong.append(f"{name}: {result}, not {allowed}")
            elif case.get("explanation") not in (None, explanation):
                wrong.append(f"{name}: {explanation!r}, not {case['explanation']!r}")
    assert wrong == []
    assert number > 200
