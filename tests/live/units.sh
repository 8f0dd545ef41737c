# What test_systemd.py has done in a machine with a real systemd. $PROGRAM, $TASKCTL and $SOCKET are set.
step() { echo "== $1"; }
until_that() { for _ in $(seq 200); do if eval "$1"; then return; fi; sleep 0.1; done; echo "never: $1"; }
pid() { systemctl show --value --property=MainPID task-daemon.service; }
restarts() { systemctl show --value --property=NRestarts task-daemon.service; }
drop_in() {
    mkdir -p /run/systemd/system/task-daemon.service.d
    { echo '[Service]'; printf '%s\n' "$@"; } >/run/systemd/system/task-daemon.service.d/test.conf
    systemctl daemon-reload
}
asks() { $TASKCTL --socket $SOCKET "$@"; }
$PROGRAM install-units
systemd-sysusers /etc/sysusers.d/task-daemon.conf
systemd-tmpfiles --create /etc/tmpfiles.d/task-daemon.conf

step activation
systemctl start task-daemon.socket
systemctl is-active task-daemon.service
asks ping
systemctl is-active task-daemon.service
ps -o user= -p $(pid)

step callers
asks info --format '{you.uid} {phase}'
setpriv --reuid=4321 --regid=4321 --groups=$(getent group task-daemon | cut -d: -f3) $TASKCTL --socket $SOCKET info --format '{you.uid} {phase}' 2>&1

step journal
sleep 1000 &
uid=$(asks register watched process local --job $!)
until_that 'asks show '$uid' | grep -q running'
until_that 'journalctl --quiet --output=json TASK_UID='$uid' | grep -q PRIORITY'
journalctl --quiet --output=json TASK_UID=$uid | grep -o '"PRIORITY":"."' | head -1

step killed
old=$(pid)
kill -KILL $old
until_that '[ $(restarts) = 1 ] && asks ping >/dev/null'
asks list --open --format '{id} {state}'

step stopped
systemctl stop task-daemon.service 2>/dev/null
systemctl is-active task-daemon.service task-daemon.socket
asks list --open --format '{id} {state}'

step hung
drop_in WatchdogSec=1
systemctl restart task-daemon.service
asks ping
kill -STOP $(pid)
until_that 'journalctl --quiet --output=cat --unit=task-daemon.service | grep -q "Watchdog timeout"'
until_that '[ $(restarts) = 1 ] && asks ping >/dev/null'
asks list --open --format '{id} {state}'

step mistaken
echo 'no_such_table = 1' >/etc/mistaken.toml
drop_in ExecStart= "ExecStart=$PROGRAM --workspace=/var/lib/task-daemon --unix-socket=$SOCKET --config-file=/etc/mistaken.toml"
systemctl stop task-daemon.socket task-daemon.service
systemctl start task-daemon.service 2>/dev/null || echo refused
sleep 1.5
systemctl show --property=ExecMainStatus --property=NRestarts --property=ActiveState task-daemon.service | sort
$TASKCTL start 2>&1 | grep -o 'cannot start task-daemon.service'
rm /run/systemd/system/task-daemon.service.d/test.conf
systemctl daemon-reload
systemctl reset-failed

step demanded
$TASKCTL start
ps -o user= -p $(pid)
$TASKCTL list --open --format '{id} {state}'

step bundle
systemctl stop task-daemon.service
$TASKCTL support-bundle --json --output /root/bundle.tar.gz 2>/dev/null | grep -o '"files": [^]]*'
tar -xOf /root/bundle.tar.gz --wildcards '*/journal.txt' | grep -c 'serves /var/lib/task-daemon'

step end
