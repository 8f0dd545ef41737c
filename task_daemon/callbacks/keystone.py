"""Where the region's service is and what opens it: a fixed URL and token, or Keystone's catalogue and tokens."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Protocol

from msgspec import Struct

from task_daemon.callbacks.secret_file import read_secret
from task_daemon.callbacks.target import parse_target
from task_daemon.core.errors import ConfigError

log = logging.getLogger("task_daemon.callbacks")

TOKEN_HEADER = "X-Auth-Token"  # noqa: S105 - the name of a header
NOT_INSTALLED = (
    "cannot use [region] auth_uri: the package keystoneauth1 is not installed; run pip install 'task-daemon[keystone]', "
    "or set service_url and token_file instead"
)
INTERFACES = ["public", "internal", "admin"]  # of the service in the catalogue, best first
RENEW_BEFORE = 60.0  # seconds before a token ends

Access = tuple[Mapping[str, str], str]
"""Headers that prove who calls, and the service URL."""


class RegionAccess(Protocol):
    """How calls to the region are authorised. Event loop; never blocks it."""

    async def headers_and_url(self, refused: Mapping[str, str] | None = None) -> Access:
        """The headers to send and the service URL. `refused`: headers that were answered with 401; newer ones are fetched,
        unless that has been done already.

        Raises OSError or TimeoutError when they cannot be had now; a wrong password is that too, because a callback must
        not be dropped for a mistake that somebody will correct.
        """
        ...


class FixedAccess:
    """A configured service URL; the token, if one is needed, is in a file that is read again when it was refused.

    Raises ConfigError when the URL is not one.
    """

    def __init__(self, service_url: str, token_file: str | None = None) -> None:
        try:
            parse_target(service_url)
        except ValueError as error:
            raise ConfigError([f"cannot use service_url of [region]: {error}"]) from None
        self._url = service_url
        self._token_file = token_file
        self._headers: Mapping[str, str] = {}

    async def headers_and_url(self, refused: Mapping[str, str] | None = None) -> Access:
        if self._token_file and (not self._headers or self._headers == refused):
            token = await asyncio.to_thread(_read_token, self._token_file)
            self._headers = {TOKEN_HEADER: token}
        return self._headers, self._url


class Granted(Struct, frozen=True):
    """What Keystone gave. `until`: wall time. Its repr would show the token, so it has a shorter one."""

    token: str
    url: str
    until: float

    def __repr__(self) -> str:
        return f"Granted(url={self.url!r}, until={self.until})"


class KeystoneAccess:
    """Tokens and the service URL of one region from Keystone v3.

    keystoneauth1 blocks, so it runs on a thread of its own: one at a time, however many callers wait, and a daemon thread,
    so that a hung Keystone cannot delay the end of the process. `timeout` in seconds, for each fetch as a whole (half of it for
    each silence in it); `now` is wall time.
    Raises ConfigError when keystoneauth1 is not installed.
    """

    def __init__(
        self,
        auth_uri: str,
        user: str,
        password: str,
        tenant: str,
        region: str,
        service: str = "compute",
        timeout: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        if find_spec("keystoneauth1") is None:
            raise ConfigError([NOT_INSTALLED])
        self._auth_url = _v3(auth_uri)
        self._user = user
        self._password = password
        self._tenant = tenant
        self._region = region
        self._service = service
        self._timeout = timeout
        self._now = now
        self._granted: Granted | None = None
        self._fetching: asyncio.Future[Granted] | None = None

    async def headers_and_url(self, refused: Mapping[str, str] | None = None) -> Access:
        granted = self._granted
        if granted is None or self._now() >= granted.until or refused == {TOKEN_HEADER: granted.token}:
            granted = await self._renewed()
        return {TOKEN_HEADER: granted.token}, granted.url

    async def _renewed(self) -> Granted:
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._fetch_into, args=(self._fetching,), name="keystone", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(self._fetching)
        except TimeoutError:
            raise TimeoutError(f"cannot get a token from {self._auth_url}: no answer within {self._timeout:g} s") from None

    def _fetch_into(self, future: asyncio.Future[Granted]) -> None:
        """On the thread: hand what `_fetch` gives or raises to the event loop."""
        try:
            outcome: Granted | Exception = self._fetch()
        except Exception as error:
            outcome = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(self._settle, future, outcome)

    def _settle(self, future: asyncio.Future[Granted], outcome: Granted | Exception) -> None:
        self._fetching = None
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            future.exception()  # counts as read, even when everybody who waited has given up
            return
        self._granted = outcome
        log.info("got a token from %s; the region's service is at %s", self._auth_url, outcome.url)
        future.set_result(outcome)

    def _fetch(self) -> Granted:
        """Blocking. Raises OSError, never with the exception of keystoneauth1 behind it."""
        import requests
        from keystoneauth1 import exceptions, session
        from keystoneauth1.identity import v3

        auth = v3.Password(
            auth_url=self._auth_url,
            username=self._user,
            password=self._password,
            project_name=self._tenant,
            user_domain_id="default",
            project_domain_id="default",
        )
        try:
            with requests.Session() as http:
                http.trust_env = False  # neither proxies nor a .netrc of the environment
                access = auth.get_access(session.Session(auth=auth, session=http, timeout=self._timeout / 2))
            url = access.service_catalog.url_for(service_type=self._service, interface=INTERFACES, region_name=self._region)
            if access.auth_token is None or access.expires is None or url is None:
                raise ValueError("no token, no end of it or no URL")
            return Granted(access.auth_token, url, access.expires.timestamp() - RENEW_BEFORE)
        except exceptions.Unauthorized:
            cause = (
                f"Keystone refused user {self._user!r} or its password; correct admin_user and admin_password_file in [region]"
            )
        except exceptions.CatalogException:
            cause = f"there is no service {self._service!r} in region {self._region!r}; correct service and region in [region]"
        except exceptions.ClientException as error:
            cause = str(error)
        except Exception as error:
            cause = f"the answer made no sense ({type(error).__name__})"  # its text could hold anything, the token too
        raise ConnectionError(f"cannot get a token from {self._auth_url}: {cause}")


def _v3(auth_uri: str) -> str:
    """The v3 address of a Keystone, which old configurations give without a version or with an older one."""
    base = auth_uri.rstrip("/")
    return base if base.endswith("/v3") else base.removesuffix("/v2.0") + "/v3"


def _read_token(path: str) -> str:
    try:
        token = read_secret(path).strip()
    except OSError as error:
        raise OSError(f"cannot read the region's token from {path}: {error.strerror}") from None
    except ValueError as error:
        raise OSError(f"cannot use the region's token from {path}: {error}") from None
    if not token.isascii() or not token.isprintable() or not token:
        raise OSError(f"cannot use the region's token from {path}: accepted is one line of printable ASCII")
    return token
