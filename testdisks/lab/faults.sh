# Drives and disks that fail while a session is on: faults.sh CASE…, all of them at once. What a case's first run said is
# in /work/CASE.first.out and .exit, what it said after the accident was mended in /work/CASE.out and .exit.
. /scripts/common.sh
often="--checkpoint-bytes 4194304 --not-for-shipping"
# For drives that the judges of the host read as a whole, and sessions of which only the words count: a key takes the
# emulated processor as long as all data.
unread="$often --read-back none"

# The first run's words move out of the second's way.
keep() { for end in out exit; do mv "/work/$1.$end" "/work/$1.first.$end"; done; }

# Waits until a session has said something, or is over: said NAME WORDS. Without a process, which costs the emulator more
# than what it looks for.
said() {
    local words=
    until [[ ${words[*]} == *"$2"* || -e /work/$1.exit ]]; do
        moment
        read -rd '' -a words <"/work/$1.out"
    done
}

again() { udevadm settle && resume "$@"; }

# A medium error on every write of one drive, in the middle of a session beside a good one.
sick() {
    modprobe scsi_debug dev_size_mb=88 delay=1
    udevadm settle
    local sick address fault serial
    sick=$(lsblk -dnpo NAME,MODEL | awk '$2 == "scsi_debug" { print $1 }')
    address=$(basename "$(readlink -f "/sys/block/${sick##*/}/device")")
    fault=/sys/kernel/debug/scsi_debug/$address/error
    # What the ATA information that scsi_debug invents says.
    serial=XXXXXXXX
    # More than goes on it.
    { cat /work/dataset.csv && echo '"/work/extra/",extra/,BlockBlob,rename,None,None'; } >/tmp/sick.csv
    DATASET=/tmp/sick.csv session sick "$sick,Format,SilentMode,Encrypt,
serial:GOOD00000001" --yes "$serial" $often &
    # Past the reserved partition, which is written too.
    streaming sick "$sick" 40000
    echo "2 1 0x2a 0 0 0x2 0x3 0x0c 0x0" >"$fault"
    wait $!
    keep sick
    echo "- 2 0x2a" >"$fault"
    again sick $often
}

# Pulled and put back.
pulled() {
    local disk host
    disk=$(disk_of PULL00000001)
    session pulled serial:PULL00000001 $unread &
    streaming pulled "$disk" 8000
    pull "$disk"
    wait $!
    keep pulled
    plug "$host"
    again pulled $unread
}

# A device that takes operations and does not answer, for a while.
hung() {
    hanging hung HUNG00000001 "$often"
    said hung "has been waiting for"
    dmsetup resume hung
    wait $running
    keep hung
}

# The same, and somebody who wants to stop: asked once it is given up, asked twice it ends at once.
stopped() {
    hanging stopped STOP00000001
    said stopped "has been waiting for"
    kill -INT "$(process stopped)"
    # It tells how it ended; the kernel lets it go when the device answers.
    said stopped "was interrupted"
    dmsetup resume stopped
    wait $running
    keep stopped
    again stopped $unread
}
twice() {
    hanging twice TWICE0000001
    local pid before=$SECONDS
    pid=$(process twice)
    kill -INT "$pid"
    moment
    kill -INT "$pid"
    wait $running
    echo $((SECONDS - before)) >/work/twice.seconds
    dmsetup resume twice
    keep twice
    again twice $unread
}

# A session on a mapping of the disk, which takes nothing any more in the middle of the data: hanging NAME SERIAL [OPTIONS]
hanging() {
    local disk
    disk=$(disk_of "$2")
    echo "0 $(blockdev --getsz "$disk") linear $disk 0" | dmsetup create "$1"
    udevadm settle
    disk=$(readlink -f "/dev/mapper/$1")
    session "$1" "/dev/mapper/$1" --drive-id "$2" --yes "$2" ${3:-$unread} &
    running=$!
    streaming "$1" "$disk" 8000
    dmsetup suspend --nolockfs "$1"
}

# No room beside the journal any more.
full() {
    mkdir -p /mnt/full
    mount -t tmpfs -o size=4M full /mnt/full
    mkdir -p /mnt/full/j
    ln -s /mnt/full/j /work/full
    session full serial:FULL00000001 $unread &
    streaming full "$(disk_of FULL00000001)" 4000
    dd if=/dev/zero of=/mnt/full/fill bs=4k 2>/dev/null
    wait $!
    keep full
    rm /mnt/full/fill
    again full $unread
    rm /work/full
    cp -r /mnt/full/j /work/full
}

# A sector that cannot be written, and one that cannot be read.
bad() { session bad serial:BADW00000001 $often; keep bad; }
unreadable() { session unreadable serial:BADR00000001 $often; keep unreadable; }

# A copy of the sources on a disk of their own, at /mnt/NAME: copied NAME DISK
copied() {
    mkfs.ext4 -q -b 4096 "$2" && mkdir -p "/mnt/$1" && mount "$2" "/mnt/$1" && cp -a /work/source "/mnt/$1/"
    sed "s:/work/source:/mnt/$1/source:" /work/dataset.csv >"/tmp/$1.csv"
}

# A source file with a place that cannot be read.
hole() {
    local disk sectors place
    disk=$(disk_of SRCHOLE00001)
    copied hole "$disk"
    place=$(filefrag -s -v /mnt/hole/source/large/0001.bin | awk '$1 == "0:" { gsub(/\.\./, "", $4); print $4 * 8 + 800 }')
    umount /mnt/hole
    sectors=$(blockdev --getsz "$disk")
    printf '0 %s linear %s 0\n%s 8 error\n%s %s linear %s %s\n' "$place" "$disk" "$place" $((place + 8)) \
        $((sectors - place - 8)) "$disk" $((place + 8)) | dmsetup create hole
    udevadm settle
    mount -o ro /dev/mapper/hole /mnt/hole
    DATASET=/tmp/hole.csv session hole serial:HOLE00000001 $often
    keep hole
}

# The sources' disk is pulled and put back.
gone() {
    local disk host
    disk=$(disk_of SRCGONE00001)
    copied gone "$disk"
    umount /mnt/gone
    mount "$disk" /mnt/gone
    DATASET=/tmp/gone.csv session gone serial:GONE00000001 --source-rate 4M $often &
    streaming gone "$(disk_of GONE00000001)" 6000
    pull "$disk"
    wait $!
    keep gone
    umount -l /mnt/gone
    plug "$host"
    mount "$(disk_of SRCGONE00001)" /mnt/gone
    again gone $often
}

for case in "$@"; do $case & done
wait
dmesg | grep -i 'error\|BUG\|panic' >/work/kernel-said
true
