"""The configuration: the shipped file, every mistake at once, flags and old names."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from task_daemon import config
from task_daemon.backends.registry import find_family
from task_daemon.core.errors import ConfigError

SHIPPED = Path(__file__).parent.parent / "etc" / "task-daemon.toml"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def make(text: str) -> str:
        file = tmp_path / "task-daemon.toml"
        file.write_text(text)
        return str(file)

    return make


def load(file: str | None, **flags: Any) -> config.Config:
    return config.load(file, flags, find_family)


def mistakes(file: str | None, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, **flags)
    return list(caught.value.mistakes)


def test_the_shipped_file_says_exactly_the_built_in_defaults() -> None:
    shipped, built_in = load(str(SHIPPED)), load(None)

    assert shipped.daemon == built_in.daemon
    assert shipped.callbacks == built_in.callbacks
    assert shipped.access == built_in.access
    assert shipped.limits == built_in.limits
    assert list(shipped.zones) == list(built_in.zones) == ["local"]
    assert shipped.zones["local"].settings == built_in.zones["local"].settings


@pytest.mark.parametrize("table", ["DaemonTable", "ZoneTable", "CallbacksTable", "RegionTable", "AccessTable", "LimitsTable"])
def test_the_shipped_file_names_every_option(table: str) -> None:
    text = SHIPPED.read_text()
    names = getattr(config, table).__struct_fields__

    assert [name for name in names if name not in text and not name.startswith("mebs_")] == []


def test_examples_in_the_shipped_file_are_accepted_when_uncommented(tmp_path: Path, write: Callable[[str], str]) -> None:
    option = re.compile(r"# (\[.*|[a-z_]+ = .*)")
    left_out = ("play", "simulated", "scenario", "callback.key")
    lines = [
        found[1] if (found := option.fullmatch(line)) and not any(word in line for word in left_out) else line
        for line in SHIPPED.read_text().splitlines()
    ]
    text = "\n".join(lines).replace("/etc/task-daemon/keystone.pw", str(tmp_path / "none"))

    tomllib.loads(text)
    assert sorted(load(write(text)).zones) == ["local", "vm1"]


def test_every_mistake_is_reported_at_once_with_table_key_value_and_what_is_accepted(write: Callable[[str], str]) -> None:
    found = mistakes(
        write(
            """
            colour = "red"
            [daemon]
            workers = 0
            log_level = "loud"
            wrokspace = "/x"
            [zones.vm1]
            backend = "storage"
            poll_interval = "often"
            [zones.vm2]
            backend = "tape"
            [callbacks]
            schedule = []
            [region]
            region = "R1"
            auth_uri = "keystone"
            [access]
            admins = ["nobody-of-that-name"]
            """
        )
    )
    text = "\n".join(found)

    assert len(found) >= 10
    for part in (
        "[colour]",
        "[daemon] workers = 0: expected int >= 1",
        "[daemon] log_level = 'loud'",
        "[daemon] wrokspace: unknown option; accepted:",
        "[zones.vm1] poll_interval = 'often'",
        "[zones.vm2] backend = 'tape'",
        "[callbacks] schedule",
        "[region] auth_uri = 'keystone'",
        "[region] admin_user: is required",
        "[access] admins: 'nobody-of-that-name'",
    ):
        assert part in text


def test_a_file_that_is_not_toml_says_where(write: Callable[[str], str]) -> None:
    assert "line 2" in mistakes(write("\n[daemon]]"))[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot read the configuration" in mistakes(str(tmp_path / "none.toml"))[0]


def test_flags_win_over_the_file(write: Callable[[str], str]) -> None:
    loaded = load(write('[daemon]\nworkspace = "/a"\nlog_level = "error"'), workspace="/b", log_level="debug")

    assert loaded.daemon.workspace == "/b"
    assert loaded.daemon.log_level == "debug"
    assert loaded.unix_socket == "/b/task_daemon.socket"


def test_the_old_service_s_options_are_accepted_at_the_top_of_the_file_and_as_flags(write: Callable[[str], str]) -> None:
    old = """
    workspace = "/w"
    unix_socket = "/w/s.sock"
    region = "R1"
    port = 8080
    auth_uri = "http://127.0.0.1:5000/v3"
    admin_user = "region"
    admin_tenant_name = "service"
    enable_mebs = true
    mebs_src_dir = "/src"
    mebs_redis_config = "redis.conf"
    """
    loaded = load(write(old), admin_password="secret")

    assert loaded.region is not None
    assert loaded.region.region == "R1"
    assert loaded.region.admin_password == "secret"
    assert loaded.unix_socket == "/w/s.sock"


def test_enable_mebs_still_requires_what_it_required(write: Callable[[str], str]) -> None:
    found = mistakes(write('[region]\nservice_url = "http://127.0.0.1:1"\nenable_mebs = true'))

    assert len([line for line in found if "with enable_mebs" in line]) == 2


def test_secrets_are_hidden_when_shown_and_in_mistakes(write: Callable[[str], str]) -> None:
    file = write('[region]\nservice_url = "http://127.0.0.1:1"\nadmin_password = "hunter2"')

    assert "hunter2" not in config.shown(load(file))
    assert "hunter2" not in "\n".join(mistakes(write("[region]\nadmin_password = ['hunter2']")))


def test_credentials_of_urls_are_hidden_when_shown(write: Callable[[str], str]) -> None:
    file = write('mebs_sql_connection = "mysql://me:hunter2/@h@db/x"\n[region]\nservice_url = "http://me:hunter2@127.0.0.1:1/v2"')
    text = config.shown(load(file))

    assert "hunter2" not in text
    assert 'service_url = "http://(hidden)@127.0.0.1:1/v2"' in text


def test_what_is_shown_can_be_read_again(write: Callable[[str], str]) -> None:
    first = load(write('[zones.local]\nenabled = false\n[zones.vm1]\nbackend = "storage"\nqmp = "/q"\nroots = ["/r"]'))

    second = load(write(config.shown(first)))
    assert list(second.zones) == ["local", "vm1"]
    assert second.zones["vm1"].settings == first.zones["vm1"].settings
    assert second.daemon.workers == first.daemon.workers


def test_the_zone_local_is_there_unless_it_is_switched_off(write: Callable[[str], str]) -> None:
    assert list(load(None).zones) == ["local"]
    assert list(load(write("[zones.local]\nenabled = false")).zones) == []
