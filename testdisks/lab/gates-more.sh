# Gates that need a machine of their own making: a root file system, another program's hold, a disk that becomes another
# behind its name, a volume that stays.
. /scripts/common.sh

# The program sees the disk's file system as its root.
A=$(disk_of ROOT00000001)
mkfs.ext4 -q "$A" && mkdir -p /mnt/root && mount "$A" /mnt/root
(cd /mnt/root && mkdir proc sys dev lab work)
# It stays as it is: nothing of the file system's own is written any more.
mount -o remount,ro /mnt/root
for dir in proc sys dev lab work; do mount --rbind "/$dir" "/mnt/root/$dir"; done
WRAP="chroot /mnt/root /lab/dray/ld.so --library-path /lab/dray /lab/dray/dray" \
    refused root "holds the root file system of this machine" serial:ROOT00000001

# What is on it is shown, and was not agreed to.
A=$(disk_of HELD00000001)
printf 'label: gpt\nsize=16M\n' | sfdisk -q "$A" 2>/dev/null
mkfs.ext4 -q -L precious "${A}1"
udevadm settle
refused signature "ext4" "$A"
refused signature-nobody "nobody consented" "$A"
# Another program holds it for itself alone: one that makes a file system, stopped at its first write.
strace -qq -o /tmp/held -e trace=pwrite64 -e inject=pwrite64:signal=SIGSTOP:when=1 mkfs.ext4 -q -F "$A" 2>/tmp/held.out &
until grep -q SIGSTOP /tmp/held 2>/dev/null; do moment; done
refused held "is in use: something holds it exclusively" serial:HELD00000001
refused held-by "mkfs.ext4 (pid" serial:HELD00000001
pkill -KILL -x mkfs.ext4
wait

# The disk behind the name becomes another: between planning and the first write, and while a session is interrupted.
A=$(disk_of SWAPA0000001) B=$(disk_of SWAPB0000001) first=SWAPA0000001 second=SWAPB0000001
[[ $A < $B ]] || { first=SWAPB0000001 second=SWAPA0000001 A=$B B=$A; }
exchange() {
    local mine theirs
    pull "$(disk_of $first)"
    mine=$host
    pull "$(disk_of $second)"
    theirs=$host
    plug "$theirs"
    [ "$(disk_of $second)" = "$A" ] || echo "$second is not $A" >>/work/bad
    [ -z "$1" ] || "$@"
    plug "$mine"
}
untouched=$(before)
session changed "$A" --yes $first &
until [ -d /work/changed/logs ] || [ -e /work/changed.exit ]; do moment; done
kill -STOP "$(process changed)"
exchange
kill -CONT "$(process changed)"
wait
stands changed "is not the drive that was planned for: serial was $first, is $second" "$untouched"
session swapped "$A" --yes $second --source-rate 4M &
streaming swapped "$A" 4000
kill -TERM "$(process swapped)"
wait
[ "$(cat /work/swapped.exit)" = 130 ] || echo "swapped: $(cat /work/swapped.out)" >>/work/bad
read -r first second <<<"$second $first"
# With the other alone the session does not go on; with both it finds its own, whatever that is called now.
replaced() {
    untouched=$(before)
    resume swapped
    stands swapped "another drive is in its place: serial was $first, is $second" "$untouched"
}
exchange replaced
resume swapped
[ "$(cat /work/swapped.exit)" = 0 ] && [ "$untouched" = "$(before)" ] && echo found >>/work/good ||
    echo "found: $(cat /work/swapped.out)" >>/work/bad

# A volume that stays needs no consent, and all the rest.
A=$(disk_of THERE0000001)
key=$(sed -n 's/.*<BitLockerKey>\(.*\)<.*/\1/p' /work/there.xml)
export ROW="serial:THERE0000001,AlreadyFormatted,SilentMode,AlreadyEncrypted,$key"
blockdev --setro "$A"
refused there-read-only "is read-only" -
blockdev --setrw "$A"
part=$(last_partition "$A")
echo "0 $(blockdev --getsz "$part") linear $part 0" | dmsetup create there
refused there-mapped "is held by device-mapper" -
dmsetup remove there
session there - --drive-id there --not-for-shipping
[ "$(cat /work/there.exit)" = 0 ] && echo there >>/work/good || echo "there: $(cat /work/there.out)" >>/work/bad
true
