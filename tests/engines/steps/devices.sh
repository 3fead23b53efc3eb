# engines: podman docker
# shows: 00 00
# shows: null written
# shows: urandom
# shows: 1048576

e run --rm --device /dev/zero:/dev/mine:r --device /dev/full $image sh -c 'exec 2>&1
ls -l /dev/mine /dev/full | cut -c 1-10; head -c 2 /dev/mine | od -An -tx1; echo x >/dev/mine; echo x >/dev/full
mknod /dev/mem2 c 1 1 && head -c 1 /dev/mem2; mknod /dev/null2 c 1 3; echo x >/dev/null2 && echo null written
for device in null zero full random urandom tty; do test -c /dev/$device && echo $device; done' 2>&1
e run --rm --device-cgroup-rule 'c 1:5 r' --cap-drop MKNOD $image mknod /dev/x c 1 5 2>&1
disk=/dev/$(ls /sys/block | grep -v -E 'loop|ram' | head -1)
e run --rm --device-write-bps $disk:1048576 --device-read-iops $disk:100 $image sh -c '
cat /sys/fs/cgroup/blkio/blkio.throttle.write_bps_device /sys/fs/cgroup/blkio/blkio.throttle.read_iops_device'
