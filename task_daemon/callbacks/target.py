"""Where a callback may go: receivers' URLs, and the list of networks and host names a registrant may name."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, unquote_to_bytes, urlsplit

from msgspec import Struct

from task_daemon.core.errors import ConfigError
from task_daemon.core.ports import Unsendable

DEFAULT_ALLOW = ("127.0.0.0/8", "::1")
SOCKET_PATH_LIMIT = 107  # bytes; sockaddr_un of Linux holds 108 with the final zero
ACCEPTED = "http://host[:port]/path, https://host[:port]/path or http+unix://<percent-encoded socket path>/path"

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-~]+")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HEX = re.compile(r"0[xX][0-9a-fA-F]*")
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")


class Target(Struct, frozen=True):
    """A receiver's URL, taken apart. `host` is a name or an address without brackets, `socket` a path; one of them is set."""

    lane: str  # scheme and authority: receivers are counted, pooled and probed by it
    authority: str  # for the Host header
    path: str  # with the query
    host: str = ""
    port: int = 0
    tls: bool = False
    socket: bytes = b""


@lru_cache(maxsize=1024)
def parse_target(url: str) -> Target:
    """Take a URL apart. Raises ValueError with a sentence saying what is accepted."""
    if not _PRINTABLE.fullmatch(url):
        raise _refusal(url, "it holds a space, a control character or a character outside ASCII; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refusal(url, str(error)) from None
    if "@" in parts.netloc:
        raise _refusal("with a user name or a password in it", "credentials are not sent; leave out everything up to the @")
    if "#" in url:
        raise _refusal(url, "a fragment (#...) is never sent; leave it out")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "http+unix":
        return _socket_target(url, parts.netloc, path)
    if parts.scheme not in _PORTS:
        raise _refusal(url, f"its scheme is {parts.scheme!r}" if parts.scheme else "it has no scheme")
    return _network_target(url, parts.scheme, parts.hostname or "", port, path)


def check_target(url: str) -> str:
    """The lane of a callback URL: scheme and authority, normalised. Pure: looks nothing up, connects to nothing.

    Raises ValueError with a sentence saying what is accepted.
    """
    return parse_target(url).lane


class AllowList:
    """The networks and host names a registrant may name.

    An address must lie in one of the networks. A listed name may have any address; every address of any other name must
    lie in one of the networks. Raises ConfigError naming all entries that are neither network nor name.
    """

    def __init__(self, entries: Sequence[str] = DEFAULT_ALLOW) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: set[str] = set()
        mistakes = [sentence for entry in entries if (sentence := self._add(entry))]
        if mistakes:
            raise ConfigError(mistakes)

    def check(self, url: str) -> str:
        """The lane of a callback URL, at registration: like `check_target`, and refuses an address that is not in the list.

        Names are not looked up here, because that would block and the answer may change; they are checked when a
        connection is made. Raises ValueError.
        """
        target = parse_target(url)
        address = _address(target.host)
        if address is not None and not self._holds(address):
            raise ValueError(f"cannot use the URL {url}: {self._not_allowed(target.host)}")
        return target.lane

    def permit(self, host: str, addresses: Iterable[str]) -> None:
        """Look at every address a host turned out to have, before connecting to one of them. Raises Unsendable."""
        if host.rstrip(".") in self._names:
            return
        for text in addresses:
            address = _address(text)
            if address is None or not self._holds(address):
                named = host if text == host else f"{host} ({text})"
                raise Unsendable(f"cannot connect to {named}: {self._not_allowed(text)}")

    def _add(self, entry: str) -> str | None:
        try:
            self._networks.append(ip_network(entry))
        except ValueError as error:
            name = entry.lower().rstrip(".")
            if "/" in entry or ":" in entry or _numeric(name) or not _NAME.fullmatch(name):
                return (
                    f"cannot use {entry!r} in [callbacks] allow: {error}; accepted are an address, a network (10.0.0.0/8, ::1) "
                    "and a host name without wildcards"
                )
            self._names.add(name)
        return None

    def _holds(self, address: IPv4Address | IPv6Address) -> bool:
        # ::ffff:10.0.0.1 reaches 10.0.0.1, so it is judged as what it reaches.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)

    def _not_allowed(self, what: str) -> str:
        listed = ", ".join([*map(str, self._networks), *sorted(self._names)]) or "nothing"
        return f"{what} is not in [callbacks] allow ({listed}); add its network or the host name there, or use http+unix"


def _socket_target(url: str, netloc: str, path: str) -> Target:
    socket = unquote_to_bytes(netloc)
    if not socket.startswith(b"/") or b"\0" in socket:
        raise _refusal(url, "the socket path must be absolute and percent-encoded, its slashes too (%2Frun%2Fapp.sock)")
    if len(socket) > SOCKET_PATH_LIMIT:
        raise _refusal(url, f"the socket path has {len(socket)} bytes and the kernel takes {SOCKET_PATH_LIMIT}")
    return Target(lane=f"http+unix://{quote(socket, safe='')}", authority="localhost", path=path, socket=socket)


def _network_target(url: str, scheme: str, host: str, port: int | None, path: str) -> Target:
    address = _address(host)
    if address is not None:
        host = address.compressed
    elif _numeric(host.rstrip(".")) or not _NAME.fullmatch(host):
        cause = f"{host!r} is neither a host name nor an address (international names in their xn-- form)"
        raise _refusal(url, cause if host else "it names no host")
    if port == 0:
        raise _refusal(url, "the port must be 1 to 65535")
    authority = f"[{host}]" if isinstance(address, IPv6Address) else host
    if port is not None and port != _PORTS[scheme]:
        authority += f":{port}"
    return Target(
        lane=f"{scheme}://{authority}",
        authority=authority,
        path=path,
        host=host,
        port=port or _PORTS[scheme],
        tls=scheme == "https",
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return None if "%" in text else ip_address(text)
    except ValueError:
        return None


def _numeric(name: str) -> bool:
    """Looks like an address: the C library takes `127.1`, `0177.0.0.1`, `0x7f000001` and `2130706433` for one; no name then."""
    last = name.rpartition(".")[2]
    return last.isdigit() or _HEX.fullmatch(last) is not None


def _refusal(url: str, cause: str) -> ValueError:
    return ValueError(f"cannot use the URL {url}: {cause}; accepted is {ACCEPTED}")
