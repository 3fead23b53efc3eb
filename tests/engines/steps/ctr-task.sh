# engines: containerd
# shows: one RUNNING
# shows: 49999872
# shows: 50000
# shows: [4]
# shows: PAUSED
# shows: uid=1000

run -d --memory-limit=50000000 --cpu-quota=50000 --cpu-period=100000 one sleep 100
e task ls | awk '{ print $1, $3 }'
cgroup_file $(pid one) memory memory.limit_in_bytes; cgroup_file $(pid one) cpu cpu.cfs_quota_us
e task exec --exec-id x one sh -c 'id; sleep .2; exit 4'; e task exec --exec-id y --user 1000 --cwd /tmp one sh -c 'id; pwd; sleep .2'
e task ps one | wc -l
e task metrics one | awk '/^(pids.current|memory.usage_in_bytes) / { print $1, ($2 > 9 ? "some" : $2) }'
e task pause one; e task ls | awk '{ print $3 }'; e task resume one; e task ls | awk '{ print $3 }'
e task kill --signal KILL one; until_has STOPPED e task ls; e task rm one >/dev/null 2>&1; e container rm one
e task ls --quiet; e container ls --quiet
