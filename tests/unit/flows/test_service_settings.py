"""Environment variables of the Prefect processes that we start."""

import urllib.request

import pytest

from flows.service.settings import LOOPBACK, unproxied


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "127.0.0.1,localhost"),
        ("corp.example", "corp.example,127.0.0.1,localhost"),
        ("localhost, corp.example", "localhost,corp.example,127.0.0.1"),
        ("*", "*"),
    ],
)
def test_our_own_servers_are_asked_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str, before: str, after: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(variable, before)
    added = unproxied(*LOOPBACK)
    assert added == {"no_proxy": after, "NO_PROXY": after}
    for name, value in added.items():
        monkeypatch.setenv(name, value)
    assert unproxied(*LOOPBACK) == added
    assert urllib.request.proxy_bypass("127.0.0.1:4200")
