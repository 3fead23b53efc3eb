# engines: podman docker
# shows: Read-only file system
# shows: made
# shows: data
# shows: No space left
# shows: 1770
# shows: seen

mkdir -p dir/sub; echo data >dir/file; e volume create vol >/dev/null
e run --rm --read-only --tmpfs /scratch:size=1m,mode=1770,noexec --volume $PWD/dir:/rw --volume $PWD/dir:/ro:ro --volume vol:/vol \
    --volume $PWD/dir/file:/etc/one-file:ro --mount type=tmpfs,destination=/t2 $image sh -c 'exec 2>&1
touch /x; touch /rw/made; ls /rw; touch /ro/x; touch /vol/x; cat /etc/one-file; cp /bin/busybox /scratch/b; /scratch/b true
dd if=/dev/zero of=/scratch/big bs=1k count=2000 2>&1 | tail -1; stat -c %a /scratch; touch /dev/x /tmp/x
grep -E " /(rw|ro|vol|scratch|t2|etc/one-file) " /proc/self/mountinfo | cut -d" " -f5-7 | sed "s/master:[0-9]*/master/; s/shared:[0-9]*/shared/" | sort' 2>&1
ls dir; e run --rm --volume vol:/vol $image ls /vol
mkdir -p dir/late; e run -d --name one --volume $PWD/dir:/d:rslave $image sleep 100 >/dev/null
mount -t tmpfs tmpfs dir/late; touch dir/late/seen; e exec one ls /d/late; umount dir/late
e run --rm --volume $PWD/dir:/d:nosuch $image true >/dev/null 2>&1
