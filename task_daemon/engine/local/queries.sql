-- name: key
SELECT fingerprint, uid FROM task WHERE owner = ?1 AND key = ?2 AND key IS NOT NULL
UNION ALL SELECT fingerprint, uid FROM idempotency WHERE owner = ?1 AND key = ?2 LIMIT 1;
-- name: other_keys
SELECT EXISTS (SELECT 1 FROM idempotency);
-- name: live
SELECT task.body, progress.body FROM task LEFT JOIN progress ON progress.task = task.n AND progress.task_seq = task.task_seq
WHERE task.id = ? AND task.zone = ? AND task.action = ? AND task.ended = 0;
-- name: task
SELECT task.body, progress.body FROM task LEFT JOIN progress ON progress.task = task.n AND progress.task_seq = task.task_seq
WHERE task.uid = ?;
-- name: last_delivery
SELECT coalesce(max(n), 0) FROM delivery;
-- name: add_task
INSERT INTO task (n, uid, id, action, zone, state, ended, task_seq, owner, region_task_id, created_at, finished_at, tidy, deleted, body,
    key, fingerprint)
VALUES [(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)];
-- name: add_event
INSERT INTO event (seq, task, uid, task_seq, type, time, detail)
SELECT column1, (SELECT n FROM task WHERE uid = column2), column2, column3, column4, column5, column6 FROM (VALUES [(?, ?, ?, ?, ?, ?)]);
-- name: add_delivery
INSERT INTO delivery (n, id, task, task_seq, part, target, owner, state, next_at, body)
SELECT column1, column2, (SELECT n FROM task WHERE uid = column3), column4, column5, column6, column7, column8, column9, column10
FROM (VALUES [(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]);
-- name: add_payload
INSERT INTO payload (delivery, body) VALUES [(?, ?)];
-- name: add_key
INSERT INTO idempotency (owner, key, fingerprint, uid) VALUES (?, ?, ?, ?);
-- name: move_task
UPDATE task SET state = column1, task_seq = column2, body = column3
FROM (VALUES [(?, ?, ?, ?, ?)]) WHERE uid = column4 AND task_seq = column5;
-- name: end_task
UPDATE task SET state = column1, task_seq = column2, body = column3, ended = n, finished_at = column6, tidy = column7, deleted = column8
FROM (VALUES [(?, ?, ?, ?, ?, ?, ?, ?)]) WHERE uid = column4 AND task_seq = column5;
-- name: save_task
INSERT INTO progress (task, task_seq, body)
SELECT n, column2, column3 FROM (VALUES [(?, ?, ?)]) CROSS JOIN task ON uid = column1 AND task_seq = column2 WHERE true
ON CONFLICT (task) DO UPDATE SET task_seq = excluded.task_seq, body = excluded.body;
-- name: record
UPDATE delivery SET state = column1, next_at = column2, body = column3
FROM (VALUES [(?, ?, ?, ?)]) WHERE id = column4 AND state = 'pending';
-- name: change_delivery
UPDATE delivery SET state = ?, next_at = ?, body = ? WHERE id = ?;
-- name: delivery
SELECT delivery.body, payload.body FROM delivery JOIN payload ON payload.delivery = delivery.n
WHERE delivery.id = ?;
-- name: group
SELECT delivery.body, payload.body FROM delivery JOIN payload ON payload.delivery = delivery.n
WHERE delivery.task = (SELECT n FROM task WHERE uid = ?) AND delivery.task_seq = ? ORDER BY delivery.part;
-- name: deliveries_of
SELECT delivery.body, payload.body FROM delivery JOIN payload ON payload.delivery = delivery.n
WHERE delivery.task = (SELECT n FROM task WHERE uid = ?) ORDER BY delivery.task_seq, delivery.part;
-- name: owner_waiting
SELECT delivery.body, payload.body FROM delivery JOIN payload ON payload.delivery = delivery.n
WHERE delivery.state = 'pending' AND delivery.owner = ? AND delivery.next_at > ? ORDER BY delivery.next_at LIMIT 1000;
-- name: last_seq
SELECT max(
    coalesce((SELECT max(n) FROM task), 0),
    coalesce((SELECT max(seq) FROM event), 0),
    coalesce((SELECT max(CAST(value AS INTEGER)) FROM meta WHERE name IN ('horizon', 'last_seq')), 0)
);
-- name: meta
SELECT value FROM meta WHERE name = ?;
-- name: set_meta
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;
-- name: paused
SELECT zone FROM paused;
-- name: pause
INSERT OR IGNORE INTO paused (zone) VALUES (?);
-- name: resume
DELETE FROM paused WHERE zone = ?;
-- name: old
SELECT n, uid FROM task WHERE ended > 0 AND tidy = 1 AND finished_at < ?
AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.task = task.n AND delivery.state = 'pending')
ORDER BY finished_at, n LIMIT ?;
-- name: newest_beyond
SELECT finished_at, n FROM task WHERE ended > 0 AND tidy = 1 ORDER BY finished_at DESC, n DESC LIMIT 1 OFFSET ?;
-- name: beyond
SELECT n, uid FROM task WHERE ended > 0 AND tidy = 1 AND (finished_at, n) <= (?, ?)
AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.task = task.n AND delivery.state = 'pending')
ORDER BY finished_at, n LIMIT ?;
-- name: last_event_of
SELECT max(?1, coalesce((SELECT max(seq) FROM event WHERE task = ?1), 0));
-- name: purge_task
DELETE FROM task WHERE n = ?;
-- name: purge_progress
DELETE FROM progress WHERE task = ?;
-- name: purge_events
DELETE FROM event WHERE task = ?;
-- name: purge_payloads
DELETE FROM payload WHERE delivery IN (SELECT n FROM delivery WHERE task = ?);
-- name: purge_deliveries
DELETE FROM delivery WHERE task = ?;
-- name: purge_keys
DELETE FROM idempotency WHERE uid = ?;
-- name: load_live
SELECT task.zone, task.n, task.body, progress.body FROM task
LEFT JOIN progress ON progress.task = task.n AND progress.task_seq = task.task_seq
WHERE task.ended = 0 AND task.zone = ? AND task.n > ? ORDER BY task.n LIMIT ?;
-- name: next_zone
SELECT min(zone) FROM task WHERE zone > ?;
-- name: load_untidy
SELECT task.n, task.body, progress.body FROM task
LEFT JOIN progress ON progress.task = task.n AND progress.task_seq = task.task_seq
WHERE task.ended > 0 AND task.tidy = 0 AND task.n > ? ORDER BY task.n LIMIT ?;
-- name: events
SELECT uid, type, time, task_seq, detail, seq FROM event WHERE seq > ?1
UNION ALL SELECT uid, 'task.registered', created_at, 1, NULL, n FROM task WHERE n > ?1 ORDER BY 6 LIMIT ?2;
-- name: events_of
SELECT uid, type, time, task_seq, detail, seq FROM event WHERE task = (SELECT n FROM task WHERE uid = ?1) AND seq > ?2
UNION ALL SELECT uid, 'task.registered', created_at, 1, NULL, n FROM task WHERE uid = ?1 AND n > ?2 ORDER BY 6 LIMIT ?3;
-- name: targets
SELECT DISTINCT target FROM delivery INDEXED BY delivery_pending WHERE state = 'pending';
-- name: lines
SELECT task, next_at FROM delivery WHERE state = 'pending' AND target = ? ORDER BY next_at LIMIT ?;
-- name: pending_of
SELECT delivery.body, payload.body FROM delivery JOIN payload ON payload.delivery = delivery.n
WHERE delivery.task = ? AND delivery.state = 'pending' ORDER BY delivery.task_seq, delivery.part;
-- name: counts_of
SELECT total(state = 'pending'), total(state IN ('delivered', 'acked')), total(state = 'dead')
FROM delivery WHERE task = (SELECT n FROM task WHERE uid = ?);
-- name: count_of
SELECT count(*) FROM delivery WHERE state = ? AND state <> 'delivered';
-- name: oldest
SELECT min(json_extract(body, '$.created_at'))
FROM (SELECT body FROM delivery WHERE state = 'pending' AND state <> 'delivered' ORDER BY n LIMIT 10000);
