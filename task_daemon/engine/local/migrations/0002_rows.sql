-- Tables of rows by number instead of by text: a new row goes to the end of its table, and an index holds a short number.

DROP INDEX task_live;
DROP INDEX task_untidy;
DROP INDEX task_finished;
DROP INDEX task_zone;
DROP INDEX task_id;
DROP INDEX task_region;
DROP INDEX event_task;
DROP INDEX delivery_pending;
DROP INDEX delivery_owner;
DROP INDEX delivery_task;
DROP INDEX delivery_state;
ALTER TABLE task RENAME TO old_task;
ALTER TABLE event RENAME TO old_event;
ALTER TABLE delivery RENAME TO old_delivery;

-- `n` rises in the order of registration and is never shown. `ended` is 0 while the task is live, later its `n`. What every
-- question needs is a column of its own; the rest of a task is its JSON text.
CREATE TABLE task (
    n INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    id TEXT NOT NULL,
    action TEXT NOT NULL,
    zone TEXT NOT NULL,
    state TEXT NOT NULL,
    ended INTEGER NOT NULL,
    task_seq INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    region_task_id TEXT,
    created_at REAL NOT NULL,
    finished_at REAL,
    tidy INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    body TEXT NOT NULL
);
INSERT INTO task SELECT
    row_number() OVER (ORDER BY uid), uid, id, action, zone, state, done * row_number() OVER (ORDER BY uid), task_seq, owner,
    region_task_id, created_at, finished_at, tidy, deleted, body
FROM old_task ORDER BY uid;
CREATE UNIQUE INDEX task_uid ON task (uid);
-- The same work is watched once.
CREATE UNIQUE INDEX task_id ON task (id, zone, action, ended);
CREATE INDEX task_zone ON task (zone);
-- The order in which live tasks are loaded after a start: zone by zone.
CREATE INDEX task_live ON task (zone) WHERE ended = 0;
CREATE INDEX task_untidy ON task (n) WHERE ended > 0 AND tidy = 0;
CREATE INDEX task_finished ON task (finished_at) WHERE ended > 0 AND tidy = 1;
CREATE INDEX task_region ON task (region_task_id) WHERE region_task_id IS NOT NULL;

-- What a live task showed since its last event; counts only while the task still has that `task_seq`.
CREATE TABLE progress (
    task INTEGER PRIMARY KEY,
    task_seq INTEGER NOT NULL,
    body TEXT NOT NULL
);

CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    task INTEGER NOT NULL,
    uid TEXT NOT NULL,
    task_seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    time REAL NOT NULL,
    detail TEXT
);
INSERT INTO event SELECT seq, coalesce((SELECT n FROM task WHERE task.uid = old_event.uid), 0), uid, task_seq, type, time, detail
FROM old_event ORDER BY seq;
CREATE INDEX event_task ON event (task);
-- Sequences go on above every one that was given, also above those of events that were removed.
INSERT OR IGNORE INTO meta (name, value) SELECT 'last_seq', seq FROM sqlite_sequence WHERE name = 'old_event';

-- `body` is the delivery but for its payload, which is kept as it will be sent, and is not written again with each attempt.
CREATE TABLE delivery (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    task INTEGER NOT NULL,
    task_seq INTEGER NOT NULL,
    part INTEGER NOT NULL,
    target TEXT NOT NULL,
    owner INTEGER NOT NULL,
    state TEXT NOT NULL,
    next_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE payload (
    delivery INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);
INSERT INTO delivery SELECT
    row_number() OVER (ORDER BY id), id, coalesce((SELECT n FROM task WHERE task.uid = old_delivery.uid), 0), task_seq, part, target,
    owner, state, next_at, body
FROM old_delivery ORDER BY id;
CREATE UNIQUE INDEX delivery_id ON delivery (id);
INSERT INTO payload SELECT delivery.n, old_delivery.payload FROM old_delivery JOIN delivery ON delivery.id = old_delivery.id;
CREATE INDEX delivery_task ON delivery (task, task_seq, part);
CREATE INDEX delivery_pending ON delivery (target, next_at) WHERE state = 'pending';
CREATE INDEX delivery_owner ON delivery (owner, next_at) WHERE state = 'pending';
CREATE INDEX delivery_state ON delivery (state) WHERE state <> 'delivered';

DROP TABLE old_task;
DROP TABLE old_event;
DROP TABLE old_delivery;
