# engines: podman docker
# shows: 137
# shows: can't fork
# shows: many
# shows: 20\n

e run --name one --memory 32m --memory-swap 32m $image sh -c 'exec 2>&1; tail /dev/zero; echo tail ended with $?; sleep .5; exit 137'
e inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' one
e run --rm --pids-limit 10 $image sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11; do sleep 3 & done' 2>&1 | tail -1
e run --rm --cpus 0.2 $image sh -c 'timeout 1 sh -c "while :; do :; done"; grep nr_throttled /sys/fs/cgroup/cpu/cpu.stat' |
    awk '{ print $1, ($2 > 3 ? "many" : $2) }'
e run --rm --ulimit nofile=20:20 --ulimit core=0:0 --ulimit nproc=1024:1024 $image sh -c 'exec 2>&1; ulimit -n; ulimit -c; exec 3</dev/null 30</dev/null'
