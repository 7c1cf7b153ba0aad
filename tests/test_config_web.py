from __future__ import annotations

import pytest

from elemta.config import HostPort, WebAddress


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://a", WebAddress(HostPort("a", 80), "a", "/", secure=False)),
        ("https://a:8443/b?c=d", WebAddress(HostPort("a", 8443), "a:8443", "/b?c=d", secure=True)),
        ("https://[::1]/?x", WebAddress(HostPort("::1", 443), "[::1]", "/?x", secure=True)),
    ],
)
def test_an_url_is_taken_apart(text: str, found: WebAddress) -> None:
    assert WebAddress.parse(text) == found
    assert str(found.service) == str(found.where)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "//a/", "ftp://a/", "https:///x", "http://:80/", "http://a:0/", "http://a:x/"),
        *("http://u@a/", "http://u:p@a/", "http://a/#b", "http://a/ b", "http://a/\n", "http://ä/"),
        *("http://a_b!/", "http://[::1/", "http://[x]/", "http://1.2.3/"),
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected http://HOST:PORT/PATH or https://HOST/PATH"):
        WebAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        *(("https://a/", True), ("http://a/", False), ("http://localhost/", True)),
        *(("http://127.1.2.3/", True), ("http://[::1]:80/", True), ("http://192.0.2.1/", False)),
    ],
)
def test_secrets_go_in_tls_or_nowhere(text: str, keeps: bool) -> None:
    assert WebAddress.parse(text).keeps_secrets is keeps
