# Prepares one drive on each bus, and lets the kernel's dm-crypt and ntfs3 open them. The SATA disk has sectors of 512 bytes
# on physical ones of 4096; `buses.sh 512e` has another such disk on a bus of its own.
. /scripts/common.sh
# The kernel reads every file of them.
unread="--read-back none"
# Leave `devices` a trace of what it saw before.
dray devices --json >/work/devices.json
# This program stops behind each rename until it is told to go on: time to keep what a power cut would leave beside its
# journal, and how long the log of its disk's writes was then.
mkdir -p /work/marks
touch /tmp/renames
hold=rename,renameat,renameat2
WRAP="strace -f -qq -e signal=none -o /tmp/renames -e trace=$hold -e inject=$hold:signal=SIGSTOP dray" \
    session ahci serial:WD-AHCI00001 --checkpoint-bytes 8388608 &
traced=$!
(
    seen=0 kept=0
    while kill -0 $traced 2>/dev/null; do
        moment
        mapfile -t told </tmp/renames
        # A call's line is there from its beginning, and ends when it does.
        now=0 last=
        for line in "${told[@]}"; do
            [[ $line == *'= 0' ]] && now=$((now + 1)) last=$line
        done
        ((now > seen)) || continue
        seen=$now
        if [[ $last == *'checkpoint") = 0' ]]; then
            kept=$((kept + 1))
            cp -a /work/ahci "/work/marks/$kept"
            stat -c %s /work/writes.log >"/work/marks/$kept.at"
        fi
        pkill -CONT -f '^/lab/dray/ld.so .*/work/ahci/j.jrn'
    done
) &
session scsi "$(disk_of SCSI4KN00001)" --yes SCSI4KN00001 --not-for-shipping &
[ "$1" != 512e ] || session 512e serial:SCSI512E0001 --not-for-shipping &
session usb serial:USB000000001 $unread &
session nvme "/dev/disk/by-id/$(ls /dev/disk/by-id | grep 'NVME00000001$' | head -n 1)" $unread &
wait
dray devices --json >/work/devices-after.json
# Five at once that each load it on their own get in each other's way.
modprobe -a dm_mod dm_crypt
udevadm settle
for name in ahci:WD-AHCI00001 scsi:SCSI4KN00001 ${1:+512e:SCSI512E0001} usb:USB000000001 nvme:NVME00000001; do
    (
        disk=$(disk_of "${name#*:}")
        name=${name%%:*}
        if ! open_volume "$name" "$disk"; then
            echo "the kernel does not open it"
        elif ! (cd "/mnt/$name/session#1/data" && sha256sum --check --quiet /work/sums); then
            echo "other files"
        elif [ "$(cd "/mnt/$name/session#1/data" && find . -type f | wc -l)" != "$(wc -l </work/sums)" ]; then
            echo "more files or fewer"
        else
            echo "all files"
        fi
    ) >"/work/${name%%:*}.verdict" 2>&1 &
done
wait
dmesg | grep -i 'ntfs3\|I/O error' >/work/kernel-said
true
