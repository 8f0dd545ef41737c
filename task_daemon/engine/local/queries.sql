-- name: key
SELECT fingerprint, uid FROM idempotency WHERE owner = ? AND key = ?;
-- name: live
SELECT body FROM task WHERE done = 0 AND zone = ? AND action = ? AND id = ?;
-- name: task
SELECT body FROM task WHERE uid = ?;
-- name: add_task
INSERT INTO task (uid, id, action, zone, state, done, task_seq, owner, region_task_id, created_at, finished_at, tidy, deleted, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
-- name: add_event
INSERT INTO event (seq, uid, task_seq, type, time, detail) VALUES (?, ?, ?, ?, ?, ?);
-- name: add_delivery
INSERT INTO delivery (id, uid, task_seq, part, target, owner, state, next_at, payload, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
-- name: add_key
INSERT INTO idempotency (owner, key, fingerprint, uid) VALUES (?, ?, ?, ?);
-- name: change_task
UPDATE task SET state = ?, done = ?, task_seq = ?, finished_at = ?, tidy = ?, deleted = ?, body = ? WHERE uid = ? AND task_seq = ?;
-- name: save_task
UPDATE task SET body = ? WHERE uid = ? AND task_seq = ?;
-- name: record
UPDATE delivery SET state = ?, next_at = ?, body = ? WHERE id = ? AND state = 'pending';
-- name: change_delivery
UPDATE delivery SET state = ?, next_at = ?, body = ? WHERE id = ?;
-- name: delivery
SELECT body, payload FROM delivery WHERE id = ?;
-- name: group
SELECT body, payload FROM delivery WHERE uid = ? AND task_seq = ? ORDER BY part;
-- name: deliveries_of
SELECT body, payload FROM delivery WHERE uid = ? ORDER BY task_seq, part;
-- name: owner_waiting
SELECT body, payload FROM delivery WHERE state = 'pending' AND owner = ? AND next_at > ? ORDER BY next_at LIMIT 1000;
-- name: last_seq
SELECT seq FROM sqlite_sequence WHERE name = 'event';
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
SELECT uid FROM task WHERE done = 1 AND tidy = 1 AND finished_at < ?
AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.uid = task.uid AND delivery.state = 'pending')
ORDER BY finished_at, uid LIMIT ?;
-- name: newest_beyond
SELECT finished_at, uid FROM task WHERE done = 1 AND tidy = 1 ORDER BY finished_at DESC, uid DESC LIMIT 1 OFFSET ?;
-- name: beyond
SELECT uid FROM task WHERE done = 1 AND tidy = 1 AND (finished_at, uid) <= (?, ?)
AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.uid = task.uid AND delivery.state = 'pending')
ORDER BY finished_at, uid LIMIT ?;
-- name: last_event_of
SELECT max(seq) FROM event WHERE uid = ?;
-- name: purge_task
DELETE FROM task WHERE uid = ?;
-- name: purge_events
DELETE FROM event WHERE uid = ?;
-- name: purge_deliveries
DELETE FROM delivery WHERE uid = ?;
-- name: purge_keys
DELETE FROM idempotency WHERE uid = ?;
-- name: load_live
SELECT body FROM task WHERE done = 0 AND (zone, action, id) > (?, ?, ?) ORDER BY zone, action, id LIMIT ?;
-- name: load_untidy
SELECT body FROM task WHERE done = 1 AND tidy = 0 AND uid > ? ORDER BY uid LIMIT ?;
-- name: events
SELECT uid, type, time, task_seq, detail, seq FROM event WHERE seq > ? ORDER BY seq LIMIT ?;
-- name: events_of
SELECT uid, type, time, task_seq, detail, seq FROM event WHERE uid = ? AND seq > ? ORDER BY seq LIMIT ?;
-- name: targets
SELECT DISTINCT target FROM delivery INDEXED BY delivery_pending WHERE state = 'pending';
-- name: lines
SELECT uid, next_at FROM delivery WHERE state = 'pending' AND target = ? ORDER BY next_at LIMIT ?;
-- name: pending_of
SELECT body, payload FROM delivery WHERE uid = ? AND state = 'pending' ORDER BY task_seq, part;
-- name: counts_of
SELECT total(state = 'pending'), total(state IN ('delivered', 'acked')), total(state = 'dead') FROM delivery WHERE uid = ?;
-- name: count_of
SELECT count(*) FROM delivery WHERE state = ?;
-- name: oldest
SELECT min(json_extract(body, '$.created_at')) FROM (SELECT body FROM delivery WHERE state = 'pending' ORDER BY id LIMIT 10000);
