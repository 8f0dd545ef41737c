"""Receives callbacks with Flask: python with_flask.py PORT STORE; the key is in the environment, CALLBACK_KEY=whsec_..."""

import json
import os
import sqlite3
import sys

from flask import Flask, Response, request
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

PORT, STORE = int(sys.argv[1]), sys.argv[2]
webhook = Webhook(os.environ["CALLBACK_KEY"])
app = Flask(__name__)

with sqlite3.connect(STORE) as setup:
    setup.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY)")
    setup.execute("CREATE TABLE IF NOT EXISTS disk (id TEXT, state TEXT)")


@app.post("/hook")
def hook() -> Response:
    try:
        webhook.verify(request.data, {name.lower(): value for name, value in request.headers.items()})
    except WebhookVerificationError:
        return Response("cannot accept this callback: its signature is wrong\n", 401)
    told = json.loads(request.data)
    store = sqlite3.connect(STORE)
    with store:  # one transaction: remembered and done, or neither
        if store.execute("INSERT OR IGNORE INTO seen VALUES (?)", [request.headers["webhook-id"]]).rowcount:
            task = told["data"]["task"]
            store.execute("INSERT INTO disk VALUES (?, ?)", [task["id"], task["state"]])
    store.close()
    return Response(status=204)  # only now: whatever went wrong above is answered with 500, and it comes again


if __name__ == "__main__":
    app.run("127.0.0.1", PORT)
