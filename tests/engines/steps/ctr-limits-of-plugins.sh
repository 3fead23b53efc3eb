# engines: containerd
# runtimes: mydocker-oci
# shows: \n300\n
# shows: two
# shows: \n62914560\n
# shows: not a duration

run -d --annotation=mydocker.cpu-shares=300 two sleep 100; cgroup_file $(pid two) cpu cpu.shares
$mydocker stats --no-stream; $mydocker pause two; $mydocker unpause two
$mydocker update two --memory 60m; cgroup_file $(pid two) memory memory.limit_in_bytes
run --annotation=mydocker.cpu-time=soon one true
