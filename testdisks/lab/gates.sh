# Each gate on a real disk.
. /scripts/common.sh
A=$(disk_of WD-GATE00001)
# udev would assemble again what the test stops.
rm -f /usr/lib/udev/rules.d/*md-raid* /usr/lib/udev/rules.d/*lvm* && udevadm control --reload
usb_disk() { lsblk -dnpo NAME,TRAN | awk '$2 == "usb" { print $1 }'; }
yes="--yes WD-GATE00001"

refused consent "nobody consented" "$A"
refused half-a-serial "nobody consented" "$A" --yes GATE00001
refused unknown "no drive with this serial" serial:NOTTHERE
refused hand-id "the drive's own serial is WD-GATE00001" "$A" --drive-id WD-LABEL0001 --yes WD-LABEL0001
small=$(disk_of SMALL0000001)
by_id=/dev/disk/by-id/$(ls /dev/disk/by-id | grep WD-GATE00001 | grep -v part | head -n 1)
ln -sfn "$small" "$by_id"
refused another-link "leads to another drive than it names" "$by_id"
ln -sfn "$A" "$by_id"
refused dots "nobody consented" "/dev/disk/by-id/../../${A#/dev/}"

printf 'label: gpt\nsize=16M\nsize=16M\n' | sfdisk -q "$A" 2>/dev/null
udevadm settle
refused partition "is a partition, not a whole disk" "${A}1" $yes
mkfs.ext4 -q "${A}1" && mkdir -p /mnt/a && mount "${A}1" /mnt/a
refused mounted "is mounted" serial:WD-GATE00001
cp -r /work/source /mnt/a/
sed 's:/work/source:/mnt/a/source:' /work/dataset.csv >/tmp/on-it.csv
DATASET=/tmp/on-it.csv refused source "holds a source" "$A" $yes
mkdir -p /mnt/a/journal && ln -s /mnt/a/journal /work/journal-there
journal_there() { dray prep-import --journal /mnt/a/journal/j.jrn --logdir /mnt/a/logs --id session#1 --silent \
    --initial-driveset /work/mounted/driveset.csv --dataset /work/dataset.csv; }
out=$(journal_there 2>&1 | tr '\n' ' ' | tr -s ' ')
case $out in *"holds the journal"*"holds the logs"*) echo journal >>/work/good ;; *) echo "journal: $out" >>/work/bad ;; esac
rm -f /work/journal-there
umount /mnt/a
mkswap -q "${A}2" && swapon "${A}2"
refused swap "is in use as swap space" serial:WD-GATE00001
swapoff "${A}2"
size=$(blockdev --getsz "${A}2")
echo "0 $size linear ${A}2 0" | dmsetup create held
refused mapped "is held by device-mapper" serial:WD-GATE00001
dmsetup remove held
echo "0 $size linear ${A}2 0" | dmsetup create held -u LVM-abc
refused lvm "is part of an LVM volume group" serial:WD-GATE00001
dmsetup remove held
mdadm --create /dev/md7 --run --quiet --level=1 --raid-devices=2 "${A}2" missing >/tmp/md 2>&1
refused raid "is part of a RAID array" serial:WD-GATE00001
mdadm --stop /dev/md7 >>/tmp/md 2>&1
exec 9<"$A"
flock 9
refused locked "another program holds a lock" serial:WD-GATE00001
exec 9<&-
blockdev --setro "$A"
refused read-only "is read-only" serial:WD-GATE00001
blockdev --setrw "$A"
refused small-sectors "has logical sectors that the service does not take" serial:GATE4KN00001
refused twins "more than one" serial:TWIN00000001
refused twin "more than one attached disk has this serial" "$(disk_of TWIN00000001 | head -n 1)" --yes TWIN00000001
refused twice "is the same drive as on line 2" "$A,Format,SilentMode,Encrypt,
serial:WD-GATE00001" $yes
refused too-small "too small" serial:SMALL0000001
echo 1 >"/sys/block/$(basename "$(disk_of SMALL0000001)")/device/delete"
refused pulled "no drive with this serial" serial:SMALL0000001
ask hmp eject -f drv-d5
refused no-medium "no medium" "$(usb_disk)" $yes
# And nothing else: with its old table on it, named by its serial, it is taken. Meanwhile nobody else gets it.
session taken serial:WD-GATE00001 &
written "$A"
until_written taken "$A" "$count"
pid=$(process taken)
kill -STOP "$pid"
NO_LOOK=1 refused in-use "is in use: something holds it exclusively" "$A" $yes
kill -CONT "$pid"
wait
[ "$(cat /work/taken.exit)" = 0 ] && echo taken >>/work/good || echo "taken: $(cat /work/taken.out)" >>/work/bad
dray doctor --json >/work/doctor.json
true
