"""Settings: one table, and errors that say what to do."""

from __future__ import annotations

import pytest

from postbackd.settings import Settings, find_setting, list_settings
from postbackd.settings_passing import as_environment
from postbackd.settings_sources import load_settings
from postbackd.settings_values import SettingsError, read_hmac_key


def test_the_command_line_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"POSTBACKD_NODE": "7", "POSTBACKD_LISTEN": "127.0.0.1:1"}
    settings = load_settings({"listen": "127.0.0.1:2", "data": None}, environ)
    assert settings == Settings(listen="127.0.0.1:2", node=7)
    assert settings.data == "./data"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings({}, {"POSTBACKD_PUBLIC_URL": "", "POSTBACKD_NODE": ""}) == Settings()


@pytest.mark.parametrize(
    ("overrides", "environ", "named"),
    [
        ({"listen": "8080"}, {}, "--listen '8080' is not usable; write it as HOST:PORT"),
        ({"listen": "127.0.0.1:70000"}, {}, "--listen"),
        ({}, {"POSTBACKD_LISTEN": "http://x:80"}, "POSTBACKD_LISTEN"),
        (
            {},
            {"POSTBACKD_NODE": "1024"},
            "POSTBACKD_NODE '1024' is not usable; node is whole number, 0 to 1023",
        ),
        ({}, {"POSTBACKD_NODE": "one"}, "POSTBACKD_NODE"),
        ({"batch_limit": 0}, {}, "--batch-limit"),
        ({"log_format": "xml"}, {}, "text or json"),
        ({"public_url": "track.example"}, {}, "--public-url"),
        ({"public_url": "https://user@track.example"}, {}, "--public-url"),
        ({"colour": "red"}, {}, "there is no setting 'colour'"),
        ({"domain": "localhost"}, {}, "--domain 'localhost' is no name"),
        ({"domain": "10.0.0.1"}, {}, "write it like track.example.com"),
        ({"domain": "a.example,*.b.example"}, {}, "'*.b.example' is no name"),
        ({"domain": "a.example", "cert": "c"}, {}, "not both"),
        ({"domain": "a.example", "http_listen": "off"}, {}, "give --acme-challenge tls-alpn-01"),
        ({"acme_challenge": "dns-01"}, {}, "acme_challenge is http-01 or tls-alpn-01"),
        ({"acme_eab_kid": "k"}, {}, "--acme-eab-kid needs acme_eab_hmac_key"),
        ({}, {"POSTBACKD_ACME_EAB_HMAC_KEY": "A" * 43}, "POSTBACKD_ACME_EAB_HMAC_KEY needs acme_eab_kid"),
        ({"acme_eab_kid": "k"}, {"POSTBACKD_ACME_EAB_HMAC_KEY": "A" * 43}, "--acme-directory"),
        (
            {"acme_eab_kid": "k", "acme_directory": "https://acme.example/dir"},
            {"POSTBACKD_ACME_EAB_HMAC_KEY": "not base64!"},
            "POSTBACKD_ACME_EAB_HMAC_KEY is not usable; it is the HMAC key (base64)",
        ),
        ({"key": "k"}, {}, "--key needs --cert"),
        ({"tls": "self-signed", "cert": "c"}, {}, "not both"),
        ({"acme_directory": "http://a.example/"}, {}, "letsencrypt or staging, or an https address"),
        ({"https_listen": "443"}, {}, "--https-listen '443'"),
        ({}, {"POSTBACKD_HTTP_LISTEN": "no"}, "POSTBACKD_HTTP_LISTEN 'no'"),
        ({"email": "me"}, {}, "--email 'me' is no address"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_where_it_came_from(
    overrides: dict[str, object], environ: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides, environ)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:80", ("::1", 80)),
        (":0", ("", 0)),
        ("a.b:1", ("a.b", 1)),
    ],
)
def test_addresses_are_read(listen: str, address: tuple[str, int]) -> None:
    assert load_settings({"listen": listen}, {}).address == address


def test_the_base_url_is_the_public_one_without_its_last_slash_or_the_address() -> None:
    assert load_settings({"public_url": "https://t.example/x/"}, {}).base_url == "https://t.example/x"
    assert Settings().base_url == "http://127.0.0.1:8080"


def test_domains_are_read_once_each_and_are_what_printed_addresses_begin_with() -> None:
    settings = load_settings({"domain": "Track.Example.com., b.example,track.example.com"}, {})
    assert settings.domains == ("track.example.com", "b.example")
    assert settings.base_url == "https://track.example.com"
    assert settings.serves_tls
    assert settings.acme_url == "https://acme-v02.api.letsencrypt.org/directory"
    assert not Settings().serves_tls


def test_every_setting_has_help_and_a_variable() -> None:
    names = [setting.name for setting in list_settings()]
    assert sorted(names) == sorted(Settings.__struct_fields__)
    assert names[0] == "data"
    assert all(setting.help.endswith(".") for setting in list_settings())
    assert find_setting("busy_timeout_ms").variable == "POSTBACKD_BUSY_TIMEOUT_MS"


def test_a_process_of_ours_is_given_the_settings_and_takes_none_from_anywhere_else() -> None:
    given = load_settings({"data": "/there", "secret_key": "a" * 43 + "="}, {})
    assert as_environment(given, ("data", "store", "secret_key")) == {
        "POSTBACKD_CONFIG": "/dev/null",
        "POSTBACKD_DATA": "/there",
        "POSTBACKD_STORE": "",
        "POSTBACKD_STORE_FILE": "",
        "POSTBACKD_SECRET_KEY": "a" * 43 + "=",
        "POSTBACKD_SECRET_KEY_FILE": "",
    }


@pytest.mark.parametrize(
    "text", ["-_-_" * 8, "+/+/" * 8, "-_-_" * 8 + "-w", "-_-_" * 8 + "-w==", " " + "-_-_" * 8 + "\n"]
)
def test_the_key_that_binds_an_account_is_read_in_every_spelling_of_base64(text: str) -> None:
    assert read_hmac_key(text)[:24] == b"\xfb\xff\xbf" * 8


@pytest.mark.parametrize(
    "other",
    [
        {"acme_challenge": "tls-alpn-01"},
        {"store": "postgresql://u@h/d"},
        {"tls": "self-signed"},
    ],
)
def test_without_port_80_a_certificate_is_had_in_another_way(other: dict[str, str]) -> None:
    assert load_settings({"domain": "a.example", "http_listen": "off", **other}, {}).http_listen == "off"
