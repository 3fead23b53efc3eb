# engines: podman docker
# shows: limit_in_bytes 104857600 104857600
# shows: cpu.cfs_quota_us 50000 50000
# shows: pids.max 50 50
# shows: 500

e run -d --name one --network none --memory 100m --memory-swap 200m --memory-reservation 50m --cpus 0.5 --cpu-shares 512 \
    --cpuset-cpus 0 --pids-limit 50 --blkio-weight 300 --oom-score-adj 500 --shm-size 5m $image sleep 100 >/dev/null
for file in memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory/memory.soft_limit_in_bytes \
    cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares cpuset/cpuset.cpus pids/pids.max; do
    echo $file $(cgroup_file $(pid one) ${file%/*} ${file#*/}) $(e exec one cat /sys/fs/cgroup/$file)
done
e exec one sh -c 'nproc; cat /proc/1/oom_score_adj; df -k /dev/shm | tail -1'
e stats --no-stream --format '{{.PIDs}} {{.MemUsage}}' one | sed 's, [0-9.]*[kKM]i*B */,,'
e inspect --format '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}' one
sed "s,/[^:]*/libpod-,," /proc/$(pid one)/cgroup | sort
cat /proc/$(pid one)/oom_score_adj
