# engines: podman docker
# shows: box
# shows: 12345\n1\n
# shows: net own
# shows: net the host's
# shows: sleep 100

e run --rm --hostname box $image sh -c 'hostname; cat /etc/hostname'
e run --rm --sysctl kernel.msgmax=12345 --sysctl net.ipv4.ip_forward=1 --network none $image sh -c '
cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward; ip link | grep -c :; ip addr show lo | grep -o UP | head -1'
same() { e run --rm "$@" $image sh -c 'for ns in cgroup ipc mnt net pid uts user; do echo $ns $(readlink /proc/self/ns/$ns); done' |
    while read -r ns id; do [ "$id" = "$(readlink /proc/self/ns/$ns)" ] && echo "$ns the host's" || echo "$ns own"; done; }
same
same --pid host --ipc host --uts host --network host
same --cgroupns private
e run -d --name one --ipc shareable $image sleep 100 >/dev/null
e run --rm --pid container:one --network container:one --ipc container:one $image sh -c 'ps -o args | grep "sleep 10[0]"'
e run --rm --cgroupns private $image sh -c 'cut -d: -f3 /proc/self/cgroup | sort -u'
