-- A registration is one row: the number of a task is the sequence of its registration, so this event needs no row of its own,
-- and the key it came with lies beside it. With every table and index less that it touches, a commit writes two pages less.

CREATE TABLE renumbered (
    old INTEGER PRIMARY KEY,
    n INTEGER NOT NULL
);
-- A registration whose event was lost (a damaged store) gets the next free sequence, and is told again.
INSERT INTO renumbered SELECT
    old, coalesce(first, last + row_number() OVER (PARTITION BY first IS NULL ORDER BY old))
FROM (
    SELECT n AS old, (SELECT min(seq) FROM event WHERE event.task = task.n AND type = 'task.registered') AS first FROM task
), (
    SELECT max(
        coalesce((SELECT max(seq) FROM event), 0),
        coalesce((SELECT max(CAST(value AS INTEGER)) FROM meta WHERE name IN ('horizon', 'last_seq')), 0)
    ) AS last
);

DROP INDEX task_uid;
DROP INDEX task_id;
DROP INDEX task_zone;
DROP INDEX task_live;
DROP INDEX task_untidy;
DROP INDEX task_finished;
DROP INDEX task_region;
ALTER TABLE task RENAME TO old_task;
ALTER TABLE progress RENAME TO old_progress;

-- `ended` is 0 while the task is live, later its `n`. What every question needs is a column of its own; the rest of a task is
-- its JSON text. `key` and `fingerprint` are those of its registration; keys that found the task there already are in
-- `idempotency`. All of them live as long as the task.
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
    body TEXT NOT NULL,
    key TEXT,
    fingerprint TEXT
);
INSERT INTO task SELECT
    renumbered.n, uid, id, action, zone, state, CASE WHEN ended > 0 THEN renumbered.n ELSE 0 END, task_seq, owner,
    region_task_id, created_at, finished_at, tidy, deleted, body, NULL, NULL
FROM old_task JOIN renumbered ON renumbered.old = old_task.n ORDER BY renumbered.n;
CREATE UNIQUE INDEX task_uid ON task (uid);
-- The same work is watched once.
CREATE UNIQUE INDEX task_id ON task (id, zone, action, ended);
-- In each zone first the live tasks (the order in which they are loaded after a start), then the others.
CREATE INDEX task_zone ON task (zone, ended);
CREATE UNIQUE INDEX task_key ON task (owner, key) WHERE key IS NOT NULL;
CREATE INDEX task_untidy ON task (n) WHERE ended > 0 AND tidy = 0;
CREATE INDEX task_finished ON task (finished_at) WHERE ended > 0 AND tidy = 1;
CREATE INDEX task_region ON task (region_task_id) WHERE region_task_id IS NOT NULL;

CREATE TABLE progress (
    task INTEGER PRIMARY KEY,
    task_seq INTEGER NOT NULL,
    body TEXT NOT NULL
);
INSERT INTO progress SELECT renumbered.n, task_seq, body FROM old_progress JOIN renumbered ON renumbered.old = old_progress.task;
UPDATE delivery SET task = coalesce((SELECT n FROM renumbered WHERE old = delivery.task), 0);
DELETE FROM event WHERE seq IN (SELECT n FROM renumbered);
UPDATE event SET task = coalesce((SELECT n FROM renumbered WHERE old = event.task), 0);

DROP TABLE old_task;
DROP TABLE old_progress;
DROP TABLE renumbered;
