# engines: podman
# shows: 100000      65536
# shows: uid=1000(alice)
# shows: 5:6

see='cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id; ls -ln /bin/busybox /dev/null | cut -d" " -f 1-9 | cut -c 1-30
    touch /tmp/x; stat -c %u:%g /tmp/x; chown 5:6 /tmp/x; stat -c %u:%g /tmp/x; grep CapEff /proc/self/status; hostname x && hostname
    awk "\$2 != \"/\" { print \$2, \$3 }" /proc/mounts | grep -v -e ^/etc/ -e cgroup/unified | sort; touch /sys/fs/cgroup/pids/tasks; ls -ln / | wc -l; mount -t tmpfs tmpfs /tmp'
e run --rm --hostname box --uidmap 0:100000:65536 --gidmap 0:200000:65536 $image sh -c "exec 2>&1; $see"
e run --rm --uidmap 0:100000:65536 --user alice $image sh -c 'id; cat /proc/self/uid_map' 2>&1
e run -d --name one --uidmap 0:100000:65536 $image sleep 100 >/dev/null
stat -c %u /proc/$(pid one); e exec one sh -c 'id -u; grep Cap /proc/self/status'; e exec -u 7 one id -u
e run --rm --userns container:one $image sh -c 'cat /proc/self/uid_map'
e exec one sh -c 'cat /proc/self/uid_map; echo x >/dev/null && echo null'
