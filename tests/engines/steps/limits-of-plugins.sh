# engines: podman
# runtimes: mydocker-oci
# shows: begins\n[137]
# shows: soon
# shows: cpu_time
# shows: 52428800
# shows: \n300\n
# shows: / 50M

e run --rm --annotation mydocker.cpu-time=300ms $image sh -c 'echo begins; while :; do :; done'
e run --rm --annotation mydocker.cpu-time=10s $image echo in time
e run --rm --annotation mydocker.cpu-time=soon $image true
e run --rm --annotation mydocker.no-such-field=1 $image true
e run -d --name one --memory 50m --annotation mydocker.cpu-time=100s --annotation mydocker.cpu-shares=300 $image sleep 100 >/dev/null
cgroup_file $(pid one) memory memory.limit_in_bytes; cgroup_file $(pid one) cpu cpu.shares
$mydocker stats --no-stream
$runtime list --format json | grep -o '"status": *"[a-z]*"'
