# What the scripts that run inside the virtual machine share. /work is the test's directory, /lab the run's own.

# Kernel name of the disk with a serial, and its node.
disk_of() { lsblk -dno NAME,SERIAL | awk -v serial="$1" '$2 == serial { print "/dev/" $1 }'; }

# A session of its own on one target: session NAME TARGET ARGUMENTS… (output in /work/NAME.out, status in /work/NAME.exit)
session() {
    local name=$1 target=$2
    shift 2
    mkdir -p "/work/$name"
    printf 'DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n%s,Format,SilentMode,Encrypt,\n' \
        "$target" >"/work/$name/driveset.csv"
    echo "$SECONDS s: $name begins" >>/work/times
    $WRAP dray prep-import --journal "/work/$name/j.jrn" --id session#1 --initial-driveset "/work/$name/driveset.csv" \
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

# Opens the volume that session NAME made on a disk, with the kernel's own drivers, at /mnt/NAME.
open_volume() {
    local name=$1 disk=$2 part key
    part=$(lsblk -nrpo NAME "$disk" | tail -n 1)
    key=$(sed -n 's/.*<BitLockerKey>\(.*\)<.*/\1/p' "/work/$name"/*.xml)
    # Deriving a key takes half as long without the vector units that the emulator has to imitate.
    printf %s "$key" | OPENSSL_ia32cap=0:0 cryptsetup bitlkOpen --key-file - --readonly "$part" "volume-$name" || return 1
    mkdir -p "/mnt/$name"
    mount -t ntfs3 -o ro "/dev/mapper/volume-$name" "/mnt/$name"
}
