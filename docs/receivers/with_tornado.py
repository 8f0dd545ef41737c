"""Receives callbacks with Tornado: python with_tornado.py PORT STORE; the key is in the environment, CALLBACK_KEY=whsec_..."""

import asyncio
import json
import os
import sqlite3
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from tornado.web import Application, RequestHandler

PORT, STORE = int(sys.argv[1]), sys.argv[2]
webhook = Webhook(os.environ["CALLBACK_KEY"])

with sqlite3.connect(STORE) as setup:
    setup.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY)")
    setup.execute("CREATE TABLE IF NOT EXISTS disk (id TEXT, state TEXT)")


class Hook(RequestHandler):
    async def post(self) -> None:
        try:
            webhook.verify(self.request.body, {name.lower(): value for name, value in self.request.headers.items()})
        except WebhookVerificationError:
            self.set_status(401)
            self.write("cannot accept this callback: its signature is wrong\n")
            return
        told = json.loads(self.request.body)
        await asyncio.to_thread(
            work, self.request.headers["webhook-id"], told["data"]["task"]
        )  # the loop does not wait for a disk
        self.set_status(204)  # only now: whatever went wrong above is answered with 500, and it comes again


def work(webhook_id: str, task: dict[str, str]) -> None:
    store = sqlite3.connect(STORE)
    with store:  # one transaction: remembered and done, or neither
        if store.execute("INSERT OR IGNORE INTO seen VALUES (?)", [webhook_id]).rowcount:
            store.execute("INSERT INTO disk VALUES (?, ?)", [task["id"], task["state"]])
    store.close()


async def main() -> None:
    Application([("/hook", Hook)]).listen(PORT, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
