# engines: podman docker
# shows: uid=1000(alice)
# shows: uid=7 gid=8
# shows: x y
# shows: typed
# shows: detached
# shows: [137]

e run -d --name one --env A=1 --workdir /tmp --user alice $image sleep 100 >/dev/null
e exec one sh -c 'id; pwd; echo $A $HOME; grep Cap /proc/self/status'
e exec -u root -w /etc -e A=2 -e B='x y' one sh -c 'id; pwd; echo "$A $B $HOME"; grep -E "Cap|NoNew|Seccomp:" /proc/self/status'
e exec -u 7:8 one id
refused_by_runc || e exec --privileged one grep CapEff /proc/self/status
echo typed | e exec -i one cat
e exec -d one sh -c 'echo detached >/tmp/file; exec sleep 99' >/dev/null
until_has detached e exec one cat /tmp/file
e exec one sh -c 'cat /tmp/file; ps -o args | grep -c "sleep 9[9]"; ls /proc/self/fd; cut -d: -f2 /proc/self/cgroup | sort -u | wc -l'
e exec -w /nowhere one true >/dev/null 2>&1
e exec one sh -c 'kill -9 $$'
