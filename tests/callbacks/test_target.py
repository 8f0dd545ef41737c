"""Which URLs are accepted, and which addresses."""

import pytest

from task_daemon.callbacks.target import AllowList, check_target, parse_target
from task_daemon.core.errors import ConfigError
from task_daemon.core.ports import Unsendable


@pytest.mark.parametrize(
    ("url", "lane"),
    [
        ("http://127.0.0.1:8080/hook?a=b", "http://127.0.0.1:8080"),
        ("HTTP://LocalHost/", "http://localhost"),
        ("http://localhost:80", "http://localhost"),
        ("https://example.org:443/x", "https://example.org"),
        ("https://example.org:80/x", "https://example.org:80"),
        ("http://[::1]:9/x", "http://[::1]:9"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]"),
        ("http+unix://%2Frun%2Fa.sock/hook", "http+unix://%2Frun%2Fa.sock"),
        ("http+unix://%2frun%2fa.sock", "http+unix://%2Frun%2Fa.sock"),
    ],
)
def test_lane_is_scheme_and_authority_in_one_spelling_when_url_is_good(url: str, lane: str) -> None:
    assert check_target(url) == lane


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("ftp://127.0.0.1/", "its scheme is 'ftp'"),
        ("127.0.0.1/hook", "it has no scheme"),
        ("http:///hook", "it names no host"),
        ("http://127.0.0.1:0/", "port must be"),
        ("http://127.0.0.1:99999/", "Port out of range"),
        ("http://[::1/", "Invalid IPv6"),
        ("http://[fe80::1%25lo]/", "neither a host name nor an address"),
        ("http://a..b/", "neither a host name nor an address"),
        (f"http://{'a' * 64}.org/", "neither a host name nor an address"),
        ("http://127.0.0.1/a b", "percent-encode"),
        ("http://127.0.0.1/\r\nX: y", "percent-encode"),
        ("http://bücher.example/", "percent-encode"),
        ("http://127.0.0.1/#top", "fragment"),
        ("http+unix://run%2Fa.sock/hook", "must be absolute"),
        ("http+unix:///run/a.sock", "must be absolute"),
        ("http+unix://%2Frun%2Fa%00.sock/", "must be absolute"),
        ("http+unix://" + "%2F" + "a" * 107 + "/", "108 bytes"),
    ],
)
def test_url_is_refused_with_cause_and_what_is_accepted_when_it_is_bad(url: str, cause: str) -> None:
    with pytest.raises(ValueError, match="accepted is http://host") as caught:
        check_target(url)

    assert cause in str(caught.value)


def test_password_is_not_repeated_when_url_holds_one() -> None:
    with pytest.raises(ValueError, match="credentials are not sent") as caught:
        check_target("http://me:s3cret@127.0.0.1/")

    assert "s3cret" not in str(caught.value)


def test_socket_path_of_107_bytes_is_accepted() -> None:
    assert parse_target("http+unix://%2F" + "a" * 106 + "/").socket == b"/" + b"a" * 106


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://0.0.0.0/", "https://[2001:db8::1]/"])
def test_registration_is_refused_when_literal_address_is_not_in_the_list(url: str) -> None:
    with pytest.raises(ValueError, match=r"not in \[callbacks\] allow \(127.0.0.0/8, ::1/128\); add"):
        AllowList().check(url)


@pytest.mark.parametrize(
    "url", ["http://127.9.9.9/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://anything.example/", "http+unix://%2Fa/"]
)
def test_registration_is_accepted_when_address_is_listed_or_only_a_lookup_could_tell(url: str) -> None:
    assert AllowList().check(url) == check_target(url)


def test_every_address_must_be_in_a_network_when_the_name_is_not_listed() -> None:
    allow = AllowList(["127.0.0.0/8"])

    allow.permit("two.example", ["127.0.0.1", "127.0.0.2"])
    with pytest.raises(Unsendable, match=r"two.example \(10.0.0.1\)"):
        allow.permit("two.example", ["127.0.0.1", "10.0.0.1"])


def test_any_address_is_good_when_the_name_is_listed() -> None:
    allow = AllowList(["Hooks.Example"])

    allow.permit("hooks.example", ["10.0.0.1"])
    with pytest.raises(Unsendable):
        allow.permit("evil.hooks.example", ["10.0.0.1"])


def test_all_mistakes_are_reported_when_the_list_is_bad() -> None:
    with pytest.raises(ConfigError) as caught:
        AllowList(["127.0.0.0/8", "10.0.0.1/8", "*.example", "1.2.3", "::1/200", "good.example"])

    bad = ["10.0.0.1/8", "*.example", "1.2.3", "::1/200"]
    assert [mistake.split("'")[1] for mistake in caught.value.mistakes] == bad
