# What the scripts that run inside the virtual machine share. /work is the test's directory, /lab the run's own.

# Kernel name of the disk with a serial, and its node.
disk_of() { lsblk -dno NAME,SERIAL | awk -v serial="$1" '$2 == serial { print "/dev/" $1 }'; }

# A session of its own on one target: session NAME TARGET ARGUMENTS… (output in /work/NAME.out, status in /work/NAME.exit;
# ROW is the driveset's row if it is not to be formatted, DATASET another dataset, WRAP what runs the program)
session() {
    local name=$1 target=$2
    shift 2
    mkdir -p "/work/$name"
    printf 'DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n%s\n' \
        "${ROW:-$target,Format,SilentMode,Encrypt,}" >"/work/$name/driveset.csv"
    echo "$SECONDS s: $name begins" >>/work/times
    ${WRAP:-dray} prep-import --journal "/work/$name/j.jrn" --id session#1 --initial-driveset "/work/$name/driveset.csv" \
        --dataset "${DATASET:-/work/dataset.csv}" --logdir "/work/$name/logs" --silent "$@" >"/work/$name.out" 2>&1
    echo $? >"/work/$name.exit"
    echo "$SECONDS s: $name is over" >>/work/times
}

# The session NAME goes on: resume NAME ARGUMENTS…
resume() {
    local name=$1
    shift
    echo "$SECONDS s: $name goes on" >>/work/times
    dray prep-import --journal "/work/$name/j.jrn" --id session#1 --silent --resume "$@" >"/work/$name.out" 2>&1
    echo $? >"/work/$name.exit"
    echo "$SECONDS s: $name is over" >>/work/times
}

# Sectors that were written to a disk since the machine started, into $count: a process less for those who ask often.
written() {
    local fields
    read -ra fields <"/sys/block/${1##*/}/stat"
    count=${fields[6]}
}

# A moment, without a process.
[ -p /tmp/never ] || mkfifo /tmp/never
exec {never}<>/tmp/never
moment() { read -rt 0.05 -u "$never"; }

# Waits until a session has written more than that many sectors to a disk, or is over: until_written NAME DISK SECTORS
until_written() {
    written "$2"
    until ((count > $3)) || [ -e "/work/$1.exit" ]; do
        moment
        written "$2"
    done
}

# Waits until a session's data stream and that many more sectors are written to a disk: streaming NAME DISK SECTORS
streaming() {
    local text=
    until [[ $text == *': data,'* || -e /work/$1.exit ]]; do
        moment
        [ ! -e "/work/$1.out" ] || read -rd '' text <"/work/$1.out"
    done
    written "$2"
    until_written "$1" "$2" $((count + $3))
}

# The process of a session.
process() { pgrep -f "^/lab/dray/ld.so .*/work/$1/j.jrn"; }

# Pulls a disk as somebody's hand does: pull DISK (the port is in $host then); puts it back: plug HOST
pull() {
    host=$(readlink -f "/sys/block/${1##*/}/device" | grep -o 'host[0-9]*' | head -n 1)
    echo 1 >"/sys/block/${1##*/}/device/delete"
}
plug() {
    echo "- - -" >"/sys/class/scsi_host/$1/scan"
    udevadm settle
}

# What a gate must do: refused NAME WORDS TARGET ARGUMENTS… wants exit 2, the words, and the disk $A as it was; tells it in
# /work/good or /work/bad.
before() { [ -n "$NO_LOOK" ] || head -c 4M "$A" | sha256sum; }
refused() {
    local name=$1 words=$2 target=$3 untouched
    shift 3
    untouched=$(before)
    session "$name" "$target" "$@"
    stands "$name" "$words" "$untouched"
}
stands() {
    local status
    status=$(cat "/work/$1.exit")
    if [ "$status" = 2 ] && tr '\n' ' ' <"/work/$1.out" | tr -s ' ' | grep -qF "$2" && [ "$3" = "$(before)" ]; then
        echo "$1" >>/work/good
    else
        echo "$1: exit $status, wanted \"$2\": $(cat "/work/$1.out")" >>/work/bad
    fi
}

# A disk's last partition as its table tells it: udev, when a disk was let go, takes the nodes away and brings them back one
# by one.
last_partition() { sfdisk --dump "$1" | sed -n 's,^\(/dev/[^ ]*\) :.*,\1,p' | tail -n 1; }

# Opens the volume that session NAME made on a disk, with the kernel's own drivers, at /mnt/NAME.
open_volume() {
    local name=$1 disk=$2 part key lock
    # udev lets the nodes be while this is held.
    exec {lock}<"$disk"
    flock --shared "$lock"
    part=$(last_partition "$disk")
    [ -n "$part" ] || return 1
    until [ -b "$part" ]; do moment; done
    key=$(sed -n 's/.*<BitLockerKey>\(.*\)<.*/\1/p' "/work/$name"/*.xml)
    # Deriving a key takes half as long without the vector units that the emulator has to imitate.
    printf %s "$key" | OPENSSL_ia32cap=0:0 cryptsetup bitlkOpen --key-file - --readonly "$part" "volume-$name" || return 1
    mkdir -p "/mnt/$name"
    mount -t ntfs3 -o ro "/dev/mapper/volume-$name" "/mnt/$name"
}
