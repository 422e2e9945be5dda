#!/bin/busybox sh
# First program: devices, shares, the command, its status, the end.
B=/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B mkdir -p /dev/shm /dev/pts /run /tmp /lab
$B mount -t tmpfs tmp /run
$B mount -t tmpfs tmp /tmp
$B mount -t debugfs debug /sys/kernel/debug
word() { $B sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
/usr/lib/systemd/systemd-udevd --daemon 2>/dev/null
/sbin/modprobe -a 9p 9pnet_virtio
for share in lab $(word shares | $B tr , ' '); do
    $B mkdir -p /$share
    # With a cache the 6.12 kernel leaves holes in files that are appended to.
    $B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none $share /$share
done
for dir in /sys/class/virtio-ports/*; do
    $B ln -s /dev/${dir##*/} /run/port-$($B cat $dir/name)
done
modules=$(word modules | $B tr , ' ')
[ -n "$modules" ] && /sbin/modprobe -a $modules
# Disks answer in their own time.
want=$(word disks)
tries=0
while [ $tries -lt 200 ]; do
    have=0
    for disk in /sys/block/sd* /sys/block/nvme*n* /sys/block/vd*; do [ -e $disk ] && have=$((have + 1)); done
    [ $have -ge $want ] && break
    tries=$((tries + 1))
    $B usleep 50000
done
/usr/bin/udevadm settle
cd /lab
/usr/bin/bash /lab/command </dev/null >/run/port-out 2>/run/port-err
status=$?
echo $status >/lab/status
$B timeout 20 $B sync
$B poweroff -f
