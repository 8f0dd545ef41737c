"""Takes one delivery out of the house, to a registrant's receiver or to the region. What the answer means is judged elsewhere."""

from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Raw, Struct, json

from task_daemon.callbacks.http import HttpClient, PeerCheck
from task_daemon.callbacks.keystone import RegionAccess
from task_daemon.callbacks.message import Form, encoded
from task_daemon.callbacks.signing import Key, sign_all
from task_daemon.callbacks.target import AllowList, Target, parse_target
from task_daemon.core.model import Delivery
from task_daemon.core.ports import Answer, Unsendable
from task_daemon.core.view import rfc3339

ROOT = 0
DEFAULT_KEY = "default"
"""The key of callbacks that name none, if it is configured."""
SIGNED = ("Idempotency-Key", "Task-Daemon-Attempt", "webhook-id", "webhook-timestamp", "webhook-signature")
"""Headers of a webhook that differ from one to the next; the last only if there is a key."""
FORMS = 1024  # receivers whose requests are half-written already


class Notice(Struct, frozen=True):
    """The body of a webhook."""

    type: str
    timestamp: str | None
    data: Raw
    seq: int
    task_seq: int


class HttpSender:
    """The Sender port over HTTP/1.1.

    `keys`: by the name a registrant may give. `allow`: where webhooks may go; the region's address is configuration and is
    not checked. `socket_uids`: whose Unix sockets may receive besides root's and the task's owner's. Times in seconds.
    """

    def __init__(
        self,
        version: str,
        keys: Mapping[str, Sequence[Key]] | None = None,
        allow: AllowList | None = None,
        socket_uids: Collection[int] = (),
        connect_timeout: float = 2.0,
        timeout: float = 10.0,
        region: RegionAccess | None = None,
    ) -> None:
        self._agent = f"task-daemon/{version}"
        self._keys: Mapping[str, Sequence[Key]] = {} if keys is None else keys  # read anew for each delivery: it may change
        self._socket_uids = frozenset({ROOT, *socket_uids})
        self._region = region
        # Two pools: a connection that was made to the region unchecked must never carry a webhook.
        self._webhooks = HttpClient(connect_timeout, timeout, permit=(allow or AllowList()).permit)
        self._calls = HttpClient(connect_timeout, timeout)
        self._form = lru_cache(FORMS)(self._webhook_form)

    def send(self, delivery: Delivery, attempt: int, now: float) -> Coroutine[Any, Any, Answer]:
        if delivery.via == "region":
            return self._call_region(delivery, attempt, now)
        return self._send_webhook(delivery, attempt, now)

    async def close(self) -> None:
        await self._webhooks.close()
        await self._calls.close()

    def _send_webhook(self, delivery: Delivery, attempt: int, now: float) -> Coroutine[Any, Any, Answer]:
        keys = self._keys_of(delivery)
        body, stamp = compose(delivery), int(now)
        values = (delivery.id, str(attempt), delivery.id, str(stamp))
        try:
            target, form = self._form(delivery.method, delivery.url, bool(keys))
            request = form.filled((*values, sign_all(keys, delivery.id, stamp, body)) if keys else values, body)
        except ValueError as error:
            raise Unsendable(str(error)) from None
        check = self._peer_check(delivery, target) if target.socket else None
        return self._webhooks.request(target, delivery.method, request, now=now, peer_check=check)

    def _webhook_form(self, method: str, url: str, signed: bool) -> tuple[Target, Form]:
        """Raises ValueError."""
        target = parse_target(url)
        return target, Form(method, target.path, self._fixed_headers(target), SIGNED if signed else SIGNED[:-1])

    async def _call_region(self, delivery: Delivery, attempt: int, now: float) -> Answer:
        """A 401 renews the token once and repeats; the answer to that is the answer."""
        if self._region is None:
            raise Unsendable(
                "cannot call the region: none is configured; set [region] auth_uri, admin_user, admin_password_file and region, "
                "or service_url, then replay this"
            )
        access = await self._region.headers_and_url()
        answer = await self._call(delivery, attempt, now, *access)
        if answer.status == 401:
            renewed = await self._region.headers_and_url(refused=access[0])
            if renewed[0] != access[0]:
                answer = await self._call(delivery, attempt, now, *renewed)
        return answer

    async def _call(self, delivery: Delivery, attempt: int, now: float, token: Mapping[str, str], service_url: str) -> Answer:
        try:
            target = parse_target(service_url.rstrip("/") + delivery.url)
        except ValueError as error:
            # The catalogue or the configuration may be mended, so this is worth another try.
            raise OSError(f"cannot call the region: its service URL is not usable: {error}") from None
        own = {"Idempotency-Key": delivery.id, "Task-Daemon-Attempt": str(attempt)}
        try:
            request = encoded(delivery.method, target.path, {**self._fixed_headers(target), **own, **token}, delivery.body)
        except ValueError as error:  # its text holds nothing that may be a secret
            raise Unsendable(str(error)) from None
        return await self._calls.request(target, delivery.method, request, now=now)

    def _fixed_headers(self, target: Target) -> dict[str, str]:
        return {"Host": target.authority, "Content-Type": "application/json", "User-Agent": self._agent}

    def _keys_of(self, delivery: Delivery) -> Sequence[Key]:
        if delivery.secret is None:
            return self._keys.get(DEFAULT_KEY, ())
        if delivery.secret not in self._keys:
            known = ", ".join(sorted(self._keys)) or "none"
            raise Unsendable(
                f"cannot sign the callback: no key is named {delivery.secret!r} (configured: {known}); "
                "add it under [callbacks.keys] and replay this"
            )
        return self._keys[delivery.secret]

    def _peer_check(self, delivery: Delivery, target: Target) -> PeerCheck:
        """Whoever may write to a directory can put a socket there; only the owner's, root's and listed uids are told."""
        accepted = {delivery.owner_uid, *self._socket_uids}

        def check(uid: int) -> None:
            if uid not in accepted:
                raise Unsendable(
                    f"cannot tell {target.lane}: uid {uid} listens there; accepted are sockets of the task's owner and root "
                    f"(uids {', '.join(map(str, sorted(accepted)))}); let one of them listen there and replay this"
                )

        return check


def compose(delivery: Delivery) -> bytes:
    """The body of a webhook; the same bytes for every attempt, because only the headers know the attempt."""
    notice = Notice(
        type=delivery.type,
        timestamp=rfc3339(delivery.created_at),
        data=Raw(delivery.body),
        seq=delivery.seq,
        task_seq=delivery.task_seq,
    )
    return json.encode(notice)
