"""Who may use a dashboard: the browser that opens its link first, from then on with a cookie, and at its own address only.

A page on loopback has neighbours: other users' programs on the same machine, and every web page that the same browser shows.
Against the former stand the token of the link, good for one use, and the cookie. Cookies are not kept apart by port, so its path
is a secret of its own: the browser sends it to nobody who does not know the path. Against the latter stand the checks of
Host (a foreign name that was made to point to loopback), of Origin and of Sec-Fetch-Site (a foreign page that sends requests).
"""

import secrets
import threading
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

COOKIE = "task_dashboard"


class Gate:
    """`port` is where the bridge listens on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self.link = f"http://{self.hosts[0]}/open?token="
        self.base = f"/{secrets.token_urlsafe(16)}/"
        self._token: str | None = secrets.token_urlsafe(24)
        self.link += self._token
        self._cookie = secrets.token_urlsafe(32)
        self._lock = threading.Lock()

    def refusal(self, method: str, headers: Mapping[str, str], entering: bool = False) -> str | None:
        """Why a request is not let in, wherever it goes; None: it is.

        `entering`: it follows the link, so it may come from anywhere.
        """
        host = headers.get("Host", "")
        if host not in self.hosts:
            return f"cannot answer for host {host!r}: this dashboard is http://{self.hosts[0]}"
        origin = headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return f"cannot take a request of a page from {origin}: only the dashboard's own page may send them"
        if origin is None and method != "GET":
            return f"cannot take a {method} without an Origin: only the dashboard's own page may send them"
        site = headers.get("Sec-Fetch-Site")
        if not entering and site not in (None, "same-origin", "none"):
            return f"cannot take a {site} request: only the dashboard's own page may send them"
        return None

    def enter(self, token: str) -> str | None:
        """The `Set-Cookie` for the first who brings the token; None for anybody else."""
        with self._lock:
            if self._token is None or not secrets.compare_digest(token.encode(), self._token.encode()):
                return None
            self._token = None
        return f"{COOKIE}={self._cookie}; Path={self.base}; HttpOnly; SameSite=Strict"

    def admits(self, cookies: str | None) -> bool:
        """Whether a `Cookie` header holds the dashboard's cookie."""
        try:
            found = SimpleCookie(cookies or "").get(COOKIE)
        except CookieError:
            return False
        return found is not None and secrets.compare_digest(found.value.encode(), self._cookie.encode())
