# Sessions on disks that are cut off with the machine: kills.sh HOW NAME:SERIAL:SECTORS…
#   begin   starts a session on each disk; the machine is killed as soon as all are being written
#   kill    goes on with each; the machine is killed when that many sectors are written
#   finish  goes on with each to its end; /work/NAME.sectors is what it wrote
. /scripts/common.sh
how=$1
shift
# A checkpoint as often as the slots allow.
often="--checkpoint-bytes 1048576 --not-for-shipping"
declare -A nodes sectors
for one in "$@"; do
    IFS=: read -r name serial from <<<"$one"
    nodes[$name]=$(disk_of "$serial")
    sectors[$name]=${from:-0}
    rm -f "/work/$name.exit"
    if [ "$how" = begin ]; then
        session "$name" "${nodes[$name]}" --yes "$serial" $often &
    else
        resume "$name" $often &
    fi
done
if [ "$how" = finish ]; then
    wait
    for name in "${!nodes[@]}"; do
        written "${nodes[$name]}"
        echo "$count" >"/work/$name.sectors"
    done
    exit 0
fi
for name in "${!nodes[@]}"; do until_written "$name" "${nodes[$name]}" "${sectors[$name]}"; done
ask kill
