# Boots a machine whose disk is this one's with a layer on top, runs the script that stands on standard input in it as root, powers
# it off and prints what the script printed. Arguments: an empty directory, and what the script needs outside the system's places.
# In a mount namespace of its own: nothing is left behind.
set -e
home=$1 root=$1/merged; shift
mine=task-daemon-$(basename $home)
trees=$(for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do if [ -e $tree/cgroup.procs ]; then echo $tree; fi; done)
for tree in $trees; do  # a group of its own: two machines at once would share theirs
    mkdir $tree/$mine
    echo $$ >$tree/$mine/cgroup.procs
done
leave() {
    for tree in $trees; do
        echo $$ >$tree/cgroup.procs
        find $tree/$mine -depth -type d -exec rmdir {} +
    done
}
trap leave EXIT
mount --make-rprivate /
mkdir -p /run/systemd && mount -t tmpfs none /run/systemd
mount -t tmpfs none $home
mkdir $home/{lower,upper,work,merged}
mount --bind / $home/lower
mount -t overlay none -o lowerdir=$home/lower,upperdir=$home/upper,workdir=$home/work $root
: >$root/etc/machine-id
binds=
for path in "$@"; do  # what the daemon needs may lie where only its owner gets, or on a disk of its own
    binds="$binds --bind-ro=$path"
    while [ "$path" != / ]; do
        if [ -d $root$path ]; then chmod o+x $root$path; fi
        path=$(dirname $path)
    done
done
cat >$root/etc/systemd/system/test.service <<END
[Unit]
After=sysinit.target
Requires=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/bash /etc/test.sh
StandardOutput=append:/etc/test.out
StandardError=inherit
ExecStopPost=/bin/systemctl --no-block poweroff
END
cat >$root/etc/test.sh
systemd-nspawn -D $root $binds --boot --register=no --keep-unit --private-network --console=pipe \
    systemd.unit=test.service systemd.log_level=warning </dev/null >$home/console 2>&1 || true
cat $root/etc/test.out || cat $home/console >&2
