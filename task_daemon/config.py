"""Configuration: one TOML file and a few flags become frozen structs, one for each table.

The only reader of configuration files. Every mistake is found in one go and said with its table, key, value and what
would be accepted; `etc/task-daemon.toml` explains each option. Options of the service this one replaces keep their names:
as flags, in `[region]`, or at the top level of the file.
"""

import grp
import pwd
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from task_daemon.core.backoff import CALLBACK_SCHEDULE
from task_daemon.core.errors import ConfigError
from task_daemon.core.ports import Family

Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Interval = Annotated[float, Meta(ge=0.1, le=3600)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

SOCKET_NAME = "task_daemon.socket"
HIDDEN = "(hidden)"
NUMBER = re.compile("[0-9]{1,10}")  # of a user or a group
CREDENTIALS = re.compile(r"(?<=://)\S*@")  # of URLs such as mysql://user:password@host/
SECRETS = frozenset({"admin_password"})
KEPT_QUIET = SECRETS | {"keys"}  # in messages; somebody may have put a key where the name of its file belongs
OLD_WITHOUT_EFFECT = frozenset(
    {"port", "mebs_src_dir", "mebs_bin_dir", "mebs_log_config", "mebs_log_dir"}
    | {"mebs_manager_config", "mebs_redis_config", "mebs_sql_connection"}
)
OLD_REGION = frozenset({"region", "auth_uri", "admin_user", "admin_password", "admin_tenant_name"})
OLD_OPTIONS = OLD_REGION | OLD_WITHOUT_EFFECT | {"enable_mebs"}


class DaemonTable(Struct, frozen=True, kw_only=True):
    workspace: str = "/var/lib/task-daemon"
    unix_socket: str = ""
    socket_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = "0660"
    socket_group: str = ""
    workers: Annotated[int, Meta(ge=1, le=64)] = 4
    poll_interval: Interval = 10.0
    timeout: Annotated[float, Meta(ge=1, le=31_536_000)] = 43_200.0
    retention_days: Annotated[float, Meta(ge=0, le=3650)] = 7.0
    retention_tasks: Annotated[int, Meta(ge=0)] = 10_000
    idle_exit: Annotated[float, Meta(ge=0, le=31_536_000)] = 0.0
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    log_format: Annotated[str, Meta(pattern="^(text|json)$")] = "text"


class ZoneTable(Struct, frozen=True, kw_only=True):
    """What every zone may have; the rest of its table belongs to its backend."""

    backend: str
    enabled: bool = True
    poll_interval: Interval | None = None
    poll_timeout: Annotated[float, Meta(ge=0.1, le=600)] = 5.0
    stall_after: Seconds = 600.0
    labels: dict[str, str] = {}


class CallbacksTable(Struct, frozen=True, kw_only=True):
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1")
    timeout: Annotated[float, Meta(ge=0.1, le=300)] = 10.0
    connect_timeout: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 32
    per_target: Annotated[int, Meta(ge=1, le=100)] = 4
    schedule: Annotated[tuple[Annotated[float, Meta(ge=0, le=604_800)], ...], Meta(min_length=1, max_length=100)] = (
        CALLBACK_SCHEDULE
    )
    socket_users: tuple[str | int, ...] = ()
    keys: dict[str, str] = {}


class RegionTable(Struct, frozen=True, kw_only=True):
    region: str = ""
    auth_uri: str = ""
    admin_user: str = ""
    admin_password: str = ""
    admin_password_file: str = ""
    admin_tenant_name: str = ""
    service: str = "compute"
    service_url: str = ""
    token_file: str = ""
    words: dict[str, str] = {}
    routes: list[dict[str, Any]] = []
    enable_mebs: bool = False
    port: int | str | None = None
    mebs_src_dir: str = ""
    mebs_bin_dir: str = ""
    mebs_log_config: str = ""
    mebs_log_dir: str = ""
    mebs_manager_config: str = ""
    mebs_redis_config: str = ""
    mebs_sql_connection: str = ""


class AccessTable(Struct, frozen=True, kw_only=True):
    admins: list[str | int] = []
    operators: list[str | int] = []
    readers: list[str | int] = []


class LimitsTable(Struct, frozen=True, kw_only=True):
    live_tasks: Count = 1_000_000
    live_tasks_per_uid: Count = 100_000
    connections: Count = 1024
    connections_per_uid: Count = 256
    streams: Count = 512
    streams_per_uid: Count = 128


class ZoneConfig(Struct, frozen=True):
    name: str
    table: ZoneTable
    family: Family
    settings: Any


class Config(Struct, frozen=True):
    """Everything the daemon was told. `file` is None when the built-in defaults alone are in force."""

    file: str | None
    daemon: DaemonTable
    zones: Mapping[str, ZoneConfig]
    callbacks: CallbacksTable
    region: RegionTable | None
    access: AccessTable
    limits: LimitsTable

    @property
    def workspace(self) -> Path:
        return Path(self.daemon.workspace)

    @property
    def unix_socket(self) -> str:
        return self.daemon.unix_socket or str(self.workspace / SOCKET_NAME)

    def poll_interval(self, zone: str) -> float:
        own = self.zones[zone].table.poll_interval
        return self.daemon.poll_interval if own is None else own


FindFamily = Callable[[str], Family]
"""Raises LookupError for an unknown kind of backend."""

T = TypeVar("T", bound=Struct)


def default_file() -> str | None:
    """`etc/task-daemon.toml` beside the installation, if it is there."""
    candidate = Path(sys.prefix) / "etc" / "task-daemon.toml"
    return str(candidate) if candidate.is_file() else None


def load(file: str | None, flags: Mapping[str, Any], find_family: FindFamily) -> Config:
    """The configuration from a file (None: built-in defaults) and flags, which win. Raises ConfigError with every mistake."""
    return checked(file, read_file(file), flags, find_family, [])


def checked(
    file: str | None, data: dict[str, Any], flags: Mapping[str, Any], find_family: FindFamily, mistakes: list[str]
) -> Config:
    """The same from what was read; `mistakes` are those known already."""
    _adopt_old_names(data, flags)
    tables = {"daemon", "zones", "callbacks", "region", "access", "limits"}
    mistakes += [
        f"[{key}]: unknown {'table' if isinstance(value, dict) else 'option'}; accepted tables: {', '.join(sorted(tables))}"
        for key, value in data.items()
        if key not in tables
    ]
    daemon = read_table("daemon", data.get("daemon", {}), DaemonTable, mistakes)
    callbacks = read_table("callbacks", data.get("callbacks", {}), CallbacksTable, mistakes)
    region = read_table("region", data["region"], RegionTable, mistakes) if "region" in data else None
    access = read_table("access", data.get("access", {}), AccessTable, mistakes)
    limits = read_table("limits", data.get("limits", {}), LimitsTable, mistakes)
    zones = _zones(data.get("zones", {}), find_family, mistakes)
    if region is not None:
        mistakes += _region_mistakes(region)
    if daemon is not None:
        mistakes += _path_mistakes(daemon)
    if access is not None:
        mistakes += (m for key in AccessTable.__struct_fields__ for m in _people_mistakes("access", key, getattr(access, key)))
    if callbacks is not None:
        mistakes += _people_mistakes("callbacks", "socket_users", callbacks.socket_users)
    if mistakes or daemon is None or callbacks is None or access is None or limits is None:
        raise ConfigError([f"{file or 'flags'}: {mistake}" for mistake in mistakes])
    return Config(file, daemon, zones, callbacks, region, access, limits)


def shown(config: Config) -> str:
    """The effective configuration as TOML, secrets hidden."""
    parts = [
        *_toml("daemon", msgspec.to_builtins(config.daemon) | {"unix_socket": config.unix_socket}),
        *(line for zone in config.zones.values() for line in _zone_toml(config, zone)),
        *_toml("callbacks", msgspec.to_builtins(config.callbacks)),
        *(_toml("region", msgspec.to_builtins(config.region)) if config.region else ["# [region] is not configured", ""]),
        *_toml("access", msgspec.to_builtins(config.access)),
        *_toml("limits", msgspec.to_builtins(config.limits)),
    ]
    return "\n".join(parts)


def members(names: Sequence[str | int]) -> tuple[frozenset[int], frozenset[int]]:
    """uids and gids of people given by name or number; a group has an @ before it: `@backup`, `@100`.

    Raises KeyError for what this host does not know.
    """
    uids: set[int] = set()
    gids: set[int] = set()
    for name in names:
        text = str(name)
        if text.startswith("@"):
            gids.add(_number(text[1:], lambda group: grp.getgrnam(group).gr_gid))
        else:
            uids.add(_number(text, lambda user: pwd.getpwnam(user).pw_uid))
    return frozenset(uids), frozenset(gids)


def _number(text: str, look_up: Callable[[str], int]) -> int:
    if NUMBER.fullmatch(text):
        return int(text)
    try:
        return look_up(text)
    except ValueError:  # a zero byte in it
        raise KeyError(text) from None


# --------------------------------------------------------------------------- reading


def read_file(file: str | None) -> dict[str, Any]:
    """The file as it is. Raises ConfigError."""
    if file is None:
        return {}
    try:
        raw = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError([f"cannot read the configuration {file}: {error.strerror}"]) from None
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # also: not UTF-8, and a number of more digits than Python reads
        raise ConfigError([f"{file}: not TOML: {error}"]) from None


def _adopt_old_names(data: dict[str, Any], flags: Mapping[str, Any]) -> None:
    """Flags win over the file; the old service's options go where they live now."""
    old = {key: data.pop(key) for key in list(data) if key in OLD_OPTIONS and not isinstance(data[key], dict)}
    old |= {key: value for key, value in flags.items() if key in OLD_OPTIONS and value is not None}
    if old:
        region = data.setdefault("region", {})
        if isinstance(region, dict):
            region.update(old)
    own = {key: data.pop(key) for key in ("workspace", "unix_socket") if isinstance(data.get(key), str)}
    own |= {key: flags[key] for key in ("workspace", "unix_socket", "log_level") if flags.get(key) is not None}
    daemon = data.setdefault("daemon", {})
    if isinstance(daemon, dict):
        daemon.update(own)


def read_table(name: str, data: Any, kind: type[T], mistakes: list[str]) -> T | None:
    """One table as a struct; None (and sentences in `mistakes`) if anything in it is wrong."""
    if not isinstance(data, dict):
        mistakes.append(f"[{name}]: must be a table, not {_said(name, data)}")
        return None
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    good: dict[str, Any] = {}
    before = len(mistakes)
    for key, value in data.items():
        field = fields.get(key)
        if field is None:
            mistakes.append(f"[{name}] {key}: unknown option; accepted: {', '.join(sorted(fields))}")
            continue
        try:
            good[key] = msgspec.convert(value, field.type, strict=True)
        except msgspec.ValidationError as error:
            mistakes.append(f"[{name}] {key} = {_said(key, value)}: {_accepted(error)}")
    missing = [key for key, field in fields.items() if field.required and key not in data]
    mistakes += [f"[{name}] {key}: is required" for key in missing]
    return kind(**good) if len(mistakes) == before else None


def _said(key: str, value: Any) -> str:
    """A value in a message, without what may be secret in it."""
    if key in KEPT_QUIET:
        return HIDDEN
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    return CREDENTIALS.sub(HIDDEN + "@", repr(value))


def _accepted(error: msgspec.ValidationError) -> str:
    text = str(error).replace("`", "")
    return text[:1].lower() + text[1:]


def _zones(data: Any, find_family: FindFamily, mistakes: list[str]) -> dict[str, ZoneConfig]:
    if not isinstance(data, dict):
        mistakes.append(f"[zones]: must hold tables like [zones.vm1], not {_said('zones', data)}")
        return {}
    tables = {"local": {"backend": "process"}} | data
    if isinstance(data.get("local"), dict):
        tables["local"] = {"backend": "process"} | data["local"]
    found: dict[str, ZoneConfig] = {}
    for name, table in tables.items():
        zone = _zone(name, table, find_family, mistakes)
        if zone is not None and zone.table.enabled:
            found[name] = zone
    return found


def _zone(name: str, data: Any, find_family: FindFamily, mistakes: list[str]) -> ZoneConfig | None:
    label = f"zones.{name}"
    if not isinstance(data, dict):
        mistakes.append(f"[zones] {name}: must be a table [zones.{name}], not {_said(name, data)}")
        return None
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        mistakes.append(f"[{label}]: a zone's name is 1-64 letters, digits, dots, dashes and underscores")
    common = {key: value for key, value in data.items() if key in ZoneTable.__struct_fields__}
    table = read_table(label, common, ZoneTable, mistakes)
    if table is None:
        return None
    try:
        family = find_family(table.backend)
    except (LookupError, ConfigError) as error:
        mistakes.append(f"[{label}] backend = {table.backend!r}: {error.args[0] if error.args else error}")
        return None
    own = {key: value for key, value in data.items() if key not in ZoneTable.__struct_fields__}
    settings = read_table(label, own, family.settings, mistakes)
    return None if settings is None else ZoneConfig(name, table, family, settings)


# --------------------------------------------------------------------------- checks beyond types


def _region_mistakes(region: RegionTable) -> Iterator[str]:
    if not region.service_url:
        needed = ("region", "auth_uri", "admin_user", "admin_tenant_name")
        for key in needed:
            if not getattr(region, key):
                yield f"[region] {key}: is required (or set service_url to go without Keystone)"
        if not region.admin_password and not region.admin_password_file:
            yield "[region] admin_password_file: is required (admin_password is accepted too)"
    for key in ("auth_uri", "service_url"):
        value = getattr(region, key)
        if value and not value.startswith(("http://", "https://")):
            yield f"[region] {key} = {_said(key, value)}: must start with http:// or https://"
    if region.enable_mebs:
        for key in ("mebs_src_dir", "mebs_redis_config"):
            if not getattr(region, key):
                yield f"[region] {key}: is required with enable_mebs"


def _path_mistakes(daemon: DaemonTable) -> Iterator[str]:
    for key in ("workspace", "unix_socket"):
        path = getattr(daemon, key)
        if (path or key == "workspace") and (not path.startswith("/") or "\0" in path):
            yield f"[daemon] {key} = {path!r}: must be an absolute path"
    if daemon.socket_group:
        try:
            grp.getgrnam(daemon.socket_group)
        except (KeyError, ValueError):
            yield f"[daemon] socket_group = {daemon.socket_group!r}: no such group on this host"


def _people_mistakes(table: str, key: str, names: Sequence[str | int]) -> Iterator[str]:
    for name in names:
        try:
            members([name])
        except KeyError:
            accepted = "users by name or number, groups by name or number after an @"
            yield f"[{table}] {key}: {name!r} is not known on this host; accepted: {accepted}"


# --------------------------------------------------------------------------- showing


def _zone_toml(config: Config, zone: ZoneConfig) -> list[str]:
    values = msgspec.to_builtins(zone.table) | {"poll_interval": config.poll_interval(zone.name)}
    return _toml(f"zones.{zone.name}", values | msgspec.to_builtins(zone.settings))


def _toml(name: str, values: Mapping[str, Any]) -> list[str]:
    lines = [f"[{name}]"]
    for key, value in values.items():
        if value is None or value == {}:
            continue
        lines.append(f"{key} = {_value(HIDDEN if key in SECRETS and value else value)}")
    return [*lines, ""]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{msgspec.json.encode(k).decode()} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str):
        value = CREDENTIALS.sub(HIDDEN + "@", value)
    return msgspec.json.encode(value).decode()
