# engines: podman docker
# shows: 104857600
# shows: 209715200
# shows: 314572800
# shows: 70000
# shows: 256

e run -d --name one --memory 100m --memory-swap 100m $image sleep 100 >/dev/null
show() { for file in memory.limit_in_bytes memory.memsw.limit_in_bytes; do cgroup_file $(pid one) memory $file; done
    cgroup_file $(pid one) cpu cpu.cfs_quota_us; cgroup_file $(pid one) cpu cpu.shares; cgroup_file $(pid one) cpuset cpuset.cpus; }
show
e update --memory 200m --memory-swap 300m --cpus 0.7 --cpu-shares 256 --cpuset-cpus 0 one
show
e update --memory 50m --memory-swap 50m one; show
