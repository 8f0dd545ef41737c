"""Receives callbacks with FastAPI: python with_fastapi.py PORT STORE; the key is in the environment, CALLBACK_KEY=whsec_..."""

import json
import os
import sqlite3
import sys

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

PORT, STORE = int(sys.argv[1]), sys.argv[2]
webhook = Webhook(os.environ["CALLBACK_KEY"])
app = FastAPI()

with sqlite3.connect(STORE) as setup:
    setup.execute("CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY)")
    setup.execute("CREATE TABLE IF NOT EXISTS disk (id TEXT, state TEXT)")


@app.post("/hook", status_code=204)
async def hook(request: Request) -> Response:
    body = await request.body()  # the bytes as they came: the signature is over them, not over parsed JSON
    try:
        webhook.verify(body, dict(request.headers))
    except WebhookVerificationError:
        raise HTTPException(401, "cannot accept this callback: its signature is wrong") from None
    await run_in_threadpool(work, request.headers["webhook-id"], json.loads(body)["data"]["task"])
    return Response(status_code=204)  # only now: whatever went wrong above is answered with 500, and it comes again


def work(webhook_id: str, task: dict[str, str]) -> None:
    store = sqlite3.connect(STORE)
    with store:  # one transaction: remembered and done, or neither
        if store.execute("INSERT OR IGNORE INTO seen VALUES (?)", [webhook_id]).rowcount:
            store.execute("INSERT INTO disk VALUES (?, ?)", [task["id"], task["state"]])
    store.close()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
