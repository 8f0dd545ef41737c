-- What every later question needs is a column of its own; the rest of a task is its JSON text.
CREATE TABLE task (
    uid TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    action TEXT NOT NULL,
    zone TEXT NOT NULL,
    state TEXT NOT NULL,
    done INTEGER NOT NULL,
    task_seq INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    region_task_id TEXT,
    created_at REAL NOT NULL,
    finished_at REAL,
    tidy INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;

-- The same work is watched once (and the order in which live tasks are loaded after a start: zone by zone).
CREATE UNIQUE INDEX task_live ON task (zone, action, id) WHERE done = 0;
CREATE INDEX task_untidy ON task (uid) WHERE done = 1 AND tidy = 0;
CREATE INDEX task_finished ON task (finished_at, uid) WHERE done = 1 AND tidy = 1;
CREATE INDEX task_zone ON task (zone, uid);
CREATE INDEX task_id ON task (id, uid);
CREATE INDEX task_region ON task (region_task_id, uid) WHERE region_task_id IS NOT NULL;

CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL,
    task_seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    time REAL NOT NULL,
    detail TEXT
);
CREATE INDEX event_task ON event (uid, seq);

-- `body` is the delivery but for its payload, which is kept as it will be sent.
CREATE TABLE delivery (
    id TEXT PRIMARY KEY,
    uid TEXT NOT NULL,
    task_seq INTEGER NOT NULL,
    part INTEGER NOT NULL,
    target TEXT NOT NULL,
    owner INTEGER NOT NULL,
    state TEXT NOT NULL,
    next_at REAL NOT NULL,
    payload BLOB NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX delivery_pending ON delivery (target, next_at) WHERE state = 'pending';
CREATE INDEX delivery_owner ON delivery (owner, next_at) WHERE state = 'pending';
CREATE INDEX delivery_task ON delivery (uid, task_seq, part);
CREATE INDEX delivery_state ON delivery (state, id);

-- Idempotency keys live as long as their task.
CREATE TABLE idempotency (
    owner INTEGER NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    uid TEXT NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_task ON idempotency (uid);

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE paused (
    zone TEXT PRIMARY KEY
) WITHOUT ROWID;
