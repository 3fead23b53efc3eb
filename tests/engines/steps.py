"""The steps: what is done with an engine, and what must be seen at least.

A step is a bash script. ``e`` is the engine's command line, ``$image`` the image, ``c`` the container's usual name; see
the prelude in engines.py for the rest. Each container is removed after its step.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    name: str
    script: str
    #: Texts that the transcript has on either runtime: a step in which nothing happens is no comparison.
    shows: tuple[str, ...]
    engines: tuple[str, ...] = field(default=("podman", "docker"))


#: What a process can see of its surroundings.
VIEW = r"""
look='exec 2>&1; id; umask; pwd; env | sort; hostname; ulimit -a
grep -E "^(Cap|NoNewPrivs|Seccomp:|Groups)" /proc/self/status
awk "\$2 != \"/\" { print \$2, \$3, \$4 }" /proc/mounts | grep -v "^/etc/" | sed "s/,*lowerdir=.*//; s/size=[0-9]*k//; /acpi\|firmware\|block/ s/nosuid,nodev,noexec,//" | sort
ls -ln /dev /dev/pts | awk "NF > 8 { print \$1, \$3, \$4, \$5, \$6, \$(NF-2), \$(NF-1), \$NF }" | sed "s/[A-Z][a-z][a-z] [0-9]*//; s/[0-9][0-9]:[0-9][0-9]//"
ls /proc/self/fd; cat /proc/self/oom_score_adj; cut -d: -f2 /proc/self/cgroup; ps -o comm; cat /proc/self/attr/current
cat /proc/sys/kernel/core_pattern >/dev/null; head -c 1 /proc/kcore; echo x >/proc/sys/kernel/hostname; ls /sys/firmware /proc/acpi
cat /proc/keys | wc -l; mount -t tmpfs tmpfs /tmp; chroot / true; mknod /tmp/disk b 8 0; unshare -U true'
"""

STEPS = (
    Step(
        "run",
        """
e run --rm $image echo hello
e run --rm $image sh -c 'echo out; sleep .1; echo err >&2; exit 7'
echo piped | e run -i --rm $image cat
e run --rm --entrypoint wc $image -c /etc/passwd
e run --rm $image printf '<%s>' 'a b' '' '*' "quote'"
""",
        ("hello", "err", "[7]", "piped", "<a b><><*>"),
    ),
    Step(
        "what a process sees",
        VIEW + "e run --rm --hostname box --network none $image sh -c \"$look\" 2>&1",
        ("uid=0", "CapEff", "/dev/shm", "permission denied"),
    ),
    Step(
        "what a privileged process sees",
        VIEW + "e run --rm --hostname box --network none --privileged $image sh -c \"$look\" 2>&1 | sed 's/.*\(unable to apply caps: operation not permitted\).*/uid=0 \1/' | grep -v -E '^[bc-].{9} |total'",
        ("uid=0",),
    ),
    Step(
        "what a user sees",
        VIEW + "e run --rm --hostname box --network none --user alice --group-add audio $image sh -c \"$look\" 2>&1",
        ("uid=1000(alice)", "CapEff:\t0000000000000000"),
    ),
    Step(
        "terminal",
        r"""
typed $'tty\nstty size\nexit 3' run -it --rm --hostname box $image
e run -d --name one --hostname box $image sleep 100 >/dev/null
typed $'tty\nuntil [ "$(stty size)" = "33 77" ]; do sleep .1; done; stty size\nexit 4' exec -it one sh
e run -t --rm $image sh -c 'test -t 0 && test -t 1 && test -t 2 && echo a terminal; ls -l /dev/console | cut -c 1-10; sleep .2'
""",
        ("/dev/pts/0", "33 77", "[3]", "[4]", "a terminal"),
    ),
    Step(
        "not found, not executable",
        r"""
said() { "$@" 2>&1 | grep -o -E '(exec: ".*|stat .*)(not found in \$PATH|no such file or directory|permission denied)' | head -1
    return ${PIPESTATUS[0]}; }
said e run --rm $image nosuch
said e run --rm $image /bin/nosuch
said e run --rm $image /etc
said e run --rm $image /bin/not-executable
e run -d --name one $image sleep 100 >/dev/null
e exec one nosuch >/dev/null 2>&1
e exec one /bin/nosuch >/dev/null 2>&1
e exec one /bin/not-executable >/dev/null 2>&1
e exec one sh -c 'exit 9'
""",
        ("not found in $PATH", "permission denied", "[127]", "[126]", "[9]"),
    ),
    Step(
        "what the runtime refuses",
        r"""
refused() { "$@" >out 2>&1 || echo "[$?]"; grep -c . out >/dev/null; }
refused e run --rm --sysctl net.no.such=1 $image true
refused e run --rm --device /dev/null:/proc/null $image true
refused e run --rm --volume /etc:/etc/passwd $image true
e ps --all --quiet | wc -l
""",
        ("[12", "\n0\n"),
    ),
    Step(
        "exec",
        r"""
e run -d --name one --env A=1 --workdir /tmp --user alice $image sleep 100 >/dev/null
e exec one sh -c 'id; pwd; echo $A $HOME; grep Cap /proc/self/status'
e exec -u root -w /etc -e A=2 -e B='x y' one sh -c 'id; pwd; echo "$A $B $HOME"; grep -E "Cap|NoNew|Seccomp:" /proc/self/status'
e exec -u 7:8 one id
e exec --privileged one grep CapEff /proc/self/status 2>&1 | grep -o -E 'CapEff.*|unable to apply caps: operation not permitted'
echo typed | e exec -i one cat
e exec -d one sh -c 'echo detached >/tmp/file; exec sleep 99' >/dev/null
until_has detached e exec one cat /tmp/file
e exec one sh -c 'cat /tmp/file; ps -o args | grep -c "sleep 9[9]"; ls /proc/self/fd; cut -d: -f2 /proc/self/cgroup | sort -u | wc -l'
e exec -w /nowhere one true >/dev/null 2>&1
e exec one sh -c 'kill -9 $$'
""",
        ("uid=1000(alice)", "uid=7 gid=8", "x y", "typed", "detached", "[137]"),
    ),
    Step(
        "logs, wait, inspect, start again",
        r"""
e create --name one $image sh -c 'echo one; sleep .1; echo two >&2; exit 5' >/dev/null
e inspect --format '{{.State.Status}} {{.State.Pid}}' one
e start one; e wait one; e logs one 2>&1 | sort
e inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' one
e start -a one 2>&1 | sort
e logs one 2>/dev/null
""",
        ("created 0", "exited 5 false", "one", "two", "5"),
    ),
    Step(
        "stop, kill, restart",
        r"""
trap_term='trap "echo bye; exit 8" TERM; trap "echo hup" HUP; echo up; while :; do sleep .1; done'
e run -d --name one $image sh -c "$trap_term" >/dev/null
until_has up e logs one
e kill --signal HUP one; until_has hup e logs one
e stop one; e inspect --format '{{.State.Status}} {{.State.ExitCode}}' one
e start one; e restart one; until_has 'up.*up.*up' sh -c "echo \$($ENGINE logs one)"
e inspect --format '{{.State.Status}}' one
e kill one; until_has exited e inspect --format '{{.State.Status}}' one
e inspect --format '{{.State.ExitCode}}' one
e run -d --name deaf $image sleep 100 >/dev/null
e stop --time 1 deaf 2>/dev/null; e inspect --format '{{.State.ExitCode}}' deaf
e kill deaf >/dev/null 2>&1
""",
        ("exited 8", "running", "137"),
    ),
    Step(
        "pause",
        r"""
e run -d --name one $image sh -c 'while sleep 0.01; do echo >>/tmp/i; done' >/dev/null
until_has / e exec one ls /tmp/i
e pause one; e inspect --format '{{.State.Status}}' one
root=/proc/$(pid one)/root; before=$(wc -l <$root/tmp/i); sleep .5; [ $before = $(wc -l <$root/tmp/i) ] && echo stands still
e exec one true >/dev/null 2>&1
e unpause one; e inspect --format '{{.State.Status}}' one
until [ $(wc -l <$root/tmp/i) -gt $before ]; do sleep .1; done; echo runs on
e pause one; e rm -f one; e ps --all --quiet | wc -l
""",
        ("paused", "stands still", "running", "runs on", "\n0\n"),
    ),
    Step(
        "limits",
        r"""
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
""",
        ("limit_in_bytes 104857600 104857600", "cpu.cfs_quota_us 50000 50000", "pids.max 50 50", "500"),
    ),
    Step(
        "limits bite",
        r"""
e run --name one --memory 32m --memory-swap 32m $image sh -c 'exec 2>&1; tail /dev/zero; echo tail ended with $?; sleep .5; exit 137'
e inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' one
e run --rm --pids-limit 10 $image sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11; do sleep 3 & done' 2>&1 | tail -1
e run --rm --cpus 0.2 $image sh -c 'timeout 1 sh -c "while :; do :; done"; grep nr_throttled /sys/fs/cgroup/cpu/cpu.stat' |
    awk '{ print $1, ($2 > 3 ? "many" : $2) }'
e run --rm --ulimit nofile=20:20 --ulimit core=0:0 --ulimit nproc=1024:1024 $image sh -c 'exec 2>&1; ulimit -n; ulimit -c; exec 3</dev/null 30</dev/null'
""",
        ("137", "can't fork", "many", "20\n"),
    ),
    Step(
        "update",
        r"""
e run -d --name one --memory 100m --memory-swap 100m $image sleep 100 >/dev/null
show() { for file in memory.limit_in_bytes memory.memsw.limit_in_bytes; do cgroup_file $(pid one) memory $file; done
    cgroup_file $(pid one) cpu cpu.cfs_quota_us; cgroup_file $(pid one) cpu cpu.shares; cgroup_file $(pid one) cpuset cpuset.cpus; }
show
e update --memory 200m --memory-swap 300m --cpus 0.7 --cpu-shares 256 --cpuset-cpus 0 one
show
e update --memory 50m --memory-swap 50m one; show
""",
        ("104857600", "209715200", "314572800", "70000", "256"),
    ),
    Step(
        "top and stats",
        r"""
e run -d --name one --pids-limit 20 $image sh -c 'sleep 100 & sleep 101 & wait' >/dev/null
until_has 'sleep 101' e top one
e top one | grep -o -E 'sleep 10[01]|sh -c' | sort
e stats --no-stream --format '{{.Name}} {{.PIDs}}' one
""",
        ("sleep 100", "sleep 101", "one 3"),
    ),
    Step(
        "capabilities and security options",
        r"""
caps='grep -E "Cap(Inh|Prm|Eff|Bnd|Amb)|NoNew|Seccomp:" /proc/self/status'
e run --rm --cap-drop ALL --cap-add NET_BIND_SERVICE --cap-add SYS_TIME $image sh -c "$caps"
e run --rm --cap-drop ALL --user alice $image sh -c "$caps"
e run --rm --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined $image sh -c "$caps"
e run --rm --security-opt no-new-privileges $image sh -c "$caps"
e run --rm --cap-drop CHOWN $image chown alice /etc/passwd
""",
        ("CapEff:\t0000000002000400", "CapEff:\t0000000000000000", "Seccomp:\t0", "NoNewPrivs:\t1", "not permitted"),
    ),
    Step(
        "seccomp profile",
        r"""
cat >profile.json <<'END'
{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
    {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
    {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71,
     "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}
END
e run --rm --cap-add SYS_ADMIN --security-opt seccomp=profile.json $image sh -c \
    'exec 2>&1; mkdir /x; hostname x; echo $?; kill -10 $$; kill -0 $$ && echo kill -0; grep Seccomp: /proc/self/status' 2>&1
e run --rm $image sh -c 'exec 2>&1; unshare -m true; echo $?'
""",
        ("Read-only file system", "159", "Protocol error", "kill -0", "Seccomp:\t2"),
    ),
    Step(
        "read-only, volumes, tmpfs",
        r"""
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
""",
        ("Read-only file system", "made", "data", "No space left", "1770", "seen"),
    ),
    Step(
        "devices",
        r"""
e run --rm --device /dev/zero:/dev/mine:r --device /dev/full $image sh -c 'exec 2>&1
ls -l /dev/mine /dev/full | cut -c 1-10; head -c 2 /dev/mine | od -An -tx1; echo x >/dev/mine; echo x >/dev/full
mknod /dev/mem2 c 1 1 && head -c 1 /dev/mem2; mknod /dev/null2 c 1 3; echo x >/dev/null2 && echo null written
for device in null zero full random urandom tty; do test -c /dev/$device && echo $device; done' 2>&1
e run --rm --device-cgroup-rule 'c 1:5 r' --cap-drop MKNOD $image mknod /dev/x c 1 5 2>&1
disk=/dev/$(ls /sys/block | grep -v -E 'loop|ram' | head -1)
e run --rm --device-write-bps $disk:1048576 --device-read-iops $disk:100 $image sh -c '
cat /sys/fs/cgroup/blkio/blkio.throttle.write_bps_device /sys/fs/cgroup/blkio/blkio.throttle.read_iops_device'
""",
        ("00 00", "null written", "urandom", "1048576"),
    ),
    Step(
        "names and namespaces",
        r"""
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
""",
        ("box", "12345\n1\n", "net own", "net the host's", "sleep 100"),
    ),
    Step(
        "init",
        r"""
e run --rm --init $image sh -c 'ps -o comm; (sleep .1 &) ; sleep .5; ps -o stat,comm | grep -c "^Z"'
e run -d --name one --init $image sleep 100 >/dev/null; e stop one >/dev/null; e inspect --format '{{.State.ExitCode}}' one
""",
        ("143",),
    ),
    Step(
        "restart policy",
        r"""
e run -d --name one --restart on-failure:2 $image sh -c 'echo run; exit 3' >/dev/null
until_has 'run run run' sh -c "echo \$($ENGINE logs one)"; until_has exited e inspect --format '{{.State.Status}}' one
e inspect --format '{{.RestartCount}} {{.State.ExitCode}}' one
""",
        ("2 3",),
    ),
    Step(
        "network",
        r"""
e run -d --name one -p 127.0.0.1:8180:80 $image sh -c 'echo served >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
until_has served curl --silent http://127.0.0.1:8180/
curl --silent http://127.0.0.1:8180/
e exec one sh -c 'ip -o addr | grep -c "inet .*eth0"; ip route | grep -c default'
""",
        ("served",),
    ),
    Step(
        "copy, diff, commit, export",
        r"""
e run -d --name one $image sh -c 'echo new >/new; sleep 100' >/dev/null; until_has new e exec one cat /new
echo copied >file; e cp file one:/tmp/file; e exec one cat /tmp/file; e cp one:/new out; cat out
e diff one | grep -E '/new|/tmp/file' | sort; e export one | tar -t | grep -c '^new'
""",
        ("copied", "new", "A /new"),
    ),
    Step(
        "healthcheck",
        r"""
e run -d --name one --health-cmd 'test -f /tmp/ok' --health-interval 1s --health-retries 1 $image sleep 100 >/dev/null
until_has unhealthy e inspect --format '{{.State.Health.Status}}' one; e inspect --format '{{.State.Health.Status}}' one
e exec one touch /tmp/ok
until_has '^healthy' e inspect --format '{{.State.Health.Status}}' one; e inspect --format '{{.State.Health.Status}}' one
""",
        ("unhealthy", "\nhealthy"),
        ("docker",),
    ),
    Step(
        "healthcheck",
        r"""
e run -d --name one --health-cmd 'test -f /tmp/ok' --health-retries 1 $image sleep 100 >/dev/null
e healthcheck run one; e exec one touch /tmp/ok; e healthcheck run one; e inspect --format '{{.State.Health.Status}}' one
""",
        ("[1]", "healthy"),
        ("podman",),
    ),
    Step(
        "user namespace",
        r"""
see='cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; id; ls -ln /bin/busybox /dev/null | cut -d" " -f 1-9 | cut -c 1-30
    touch /tmp/x; stat -c %u:%g /tmp/x; chown 5:6 /tmp/x; stat -c %u:%g /tmp/x; grep CapEff /proc/self/status; hostname x && hostname
    awk "\$2 != \"/\" { print \$2, \$3 }" /proc/mounts | grep -v ^/etc/; touch /sys/fs/cgroup/pids/tasks; ls -ln / | wc -l; mount -t tmpfs tmpfs /mnt'
e run --rm --hostname box --uidmap 0:100000:65536 --gidmap 0:200000:65536 $image sh -c "exec 2>&1; $see"
e run --rm --uidmap 0:100000:1000 --uidmap 1000:7000:1 --gidmap 0:100000:2000 --user alice $image sh -c 'id; cat /proc/self/uid_map' 2>&1
e run -d --name one --uidmap 0:100000:65536 $image sleep 100 >/dev/null
stat -c %u /proc/$(pid one); e exec one sh -c 'id -u; grep Cap /proc/self/status'; e exec -u 7 one id -u
e run --rm --userns container:one $image sh -c 'cat /proc/self/uid_map'
e exec one sh -c 'cat /proc/self/uid_map; echo x >/dev/null && echo null'
""",
        ("100000      65536", "uid=1000(alice)", "5:6"),
        ("podman",),
    ),
    Step(
        "pod",
        r"""
e pod create --name pod --hostname box --share net,ipc,uts,pid --sysctl kernel.msgmax=4321 >/dev/null
e run -d --pod pod --name one $image sh -c 'echo in-pod >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
e run --rm --pod pod $image sh -c 'hostname; until wget -q -O - http://127.0.0.1/; do sleep .1; done 2>/dev/null
    cat /proc/sys/kernel/msgmax; ps -o args | grep "http[d] -f"'
e pod ps --format '{{.Name}} {{.Status}} {{.NumberOfContainers}}'
e pod pause pod >/dev/null; e inspect --format '{{.State.Status}}' one; e pod unpause pod >/dev/null
e pod stop --time 1 pod >/dev/null 2>&1; e pod ps --format '{{.Status}}'; e pod start pod >/dev/null
e inspect --format '{{.State.Status}}' one; e pod kill pod >/dev/null; e pod rm --force pod >/dev/null; e pod ps --quiet | wc -l
""",
        ("in-pod", "4321", "pod Running 2", "paused", "\n0\n"),
        ("podman",),
    ),
    Step(
        "play kube",
        r"""
cat >pod.yaml <<END
apiVersion: v1
kind: Pod
metadata: {name: played, labels: {app: test}}
spec:
  hostname: box
  restartPolicy: Never
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: writer
    image: $image
    imagePullPolicy: Never
    command: [sh, -c, 'id -u; echo written >/shared/file; grep Cap /proc/self/status; exec sleep 100']
    securityContext: {runAsUser: 1000, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: reader
    image: $image
    imagePullPolicy: Never
    env: [{name: GREETING, value: hello there}]
    command: [sh, -c, 'echo "\$GREETING"; hostname; sleep 100']
END
mkdir -p shared; sed -i "s,emptyDir: {},hostPath: {path: $PWD/shared, type: Directory}," pod.yaml; chmod 777 shared
e play kube pod.yaml >/dev/null
until_has there e logs played-reader; e logs played-reader; until_has Cap e logs played-writer; e logs played-writer; cat shared/file
cgroup_file $(pid played-writer) memory memory.limit_in_bytes; cgroup_file $(pid played-writer) cpu cpu.cfs_quota_us
e ps --format '{{.Names}} {{.Status}}' | grep played- | sed 's/Up .*/Up/; s/.*-infra/infra/' | sort
e play kube --down pod.yaml >/dev/null; e ps --all --quiet | wc -l
""",
        ("1000", "hello there", "written", "67108864", "50000", "\n0\n"),
        ("podman",),
    ),
    Step(
        "annotations",
        r"""
e run --rm --annotation org.example.note=1 --label a=b $image echo noted
""",
        ("noted",),
        ("podman",),
    ),
    Step(
        "compose",
        r"""
cat >docker-compose.yml <<END
version: "2.4"
services:
  web:
    image: $image
    command: [sh, -c, 'echo composed >/tmp/index.html; exec httpd -f -p 80 -h /tmp']
    mem_limit: 50m
    cpus: 0.5
    cap_drop: [ALL]
    cap_add: [NET_BIND_SERVICE]
    read_only: true
    tmpfs: [/tmp]
    init: true
  client:
    image: $image
    command: [sh, -c, 'until wget -q -O - http://web/; do sleep .1; done 2>/dev/null; sleep 100']
    depends_on: [web]
    ulimits: {nofile: 100}
    volumes: ["kept:/kept"]
volumes: {kept: {}}
END
docker-compose --no-ansi --project-name project up -d >/dev/null 2>&1
until_has composed docker-compose --project-name project logs client
docker-compose --project-name project logs --no-color client | grep -o composed
docker-compose --project-name project exec -T client sh -c 'ulimit -n; touch /kept/x && ls /kept'
cgroup_file $(pid project_web_1) memory memory.limit_in_bytes; e exec project_web_1 grep CapEff /proc/self/status
docker-compose --project-name project ps --quiet | wc -l
docker-compose --project-name project down --volumes --timeout 1 >/dev/null 2>&1; e ps --all --quiet | wc -l
""",
        ("composed", "100\nx\n", "52428800", "2\n0\n"),
        ("docker",),
    ),
    Step(
        "service on a swarm of one",
        r"""
e swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377 >/dev/null
e service create --detach --name s --network host --replicas 2 --limit-memory 40m --limit-pids 30 --env A=1 --user alice --cap-drop ALL \
    --restart-condition on-failure --stop-grace-period 1s $image sh -c 'echo serving $A; id -u; grep CapEff /proc/self/status; sleep 100' >/dev/null
until_has 2/2 e service ls; e service ls --format '{{.Name}} {{.Replicas}}'
until_has 'CapEff.*CapEff' sh -c 'echo $(docker service logs --raw s)'; e service logs --raw s | sort
for c in $(e ps --quiet --filter label=com.docker.swarm.service.name=s); do cgroup_file $(pid $c) memory memory.limit_in_bytes; done
e service scale --detach s=1 >/dev/null; until_has 1/1 e service ls
until_has '^1$' sh -c 'docker ps --quiet | wc -l'
e service update --detach --limit-memory 50m s >/dev/null; until_has completed e service inspect --format '{{.UpdateStatus.State}}' s
for c in $(e ps --quiet --filter label=com.docker.swarm.service.name=s); do cgroup_file $(pid $c) memory memory.limit_in_bytes; done
e service rm s >/dev/null; until_has '^0$' sh -c 'docker ps --all --quiet | wc -l'; e swarm leave --force
""",
        ("s 2/2", "serving 1", "41943040\n41943040", "52428800"),
        ("docker",),
    ),
    Step(
        "ctr run",
        r"""
run --rm one echo hello
run --rm one sh -c 'echo err >&2; exit 7'
run --rm one nosuch 2>&1 | grep -o 'exec: .*PATH'
run --rm --memory-limit=50000000 --cpus=0.5 one sh -c 'exec 2>&1; id; grep Cap /proc/self/status; hostname x
    awk "\$2 != \"/\" { print \$2, \$3, \$4 }" /proc/mounts; ls /dev /proc/self/fd; ulimit -n' 2>&1
run --rm --privileged one grep -E 'Cap|NoNew' /proc/self/status
run --rm --read-only --seccomp --cwd=/tmp --env=A=1 one sh -c 'exec 2>&1; touch /x; id; pwd; echo $A; grep Seccomp: /proc/self/status'
typed $'tty\nexit 3' run --rm --runc-binary "$runtime" --tty "$image" one sh
""",
        ("hello", "[7]", "not found in $PATH", "uid=0", "Seccomp:\t2", "/dev/pts/0"),
        ("containerd",),
    ),
    Step(
        "ctr task",
        r"""
run -d --memory-limit=50000000 --cpu-quota=50000 --cpu-period=100000 one sleep 100
e task ls | awk '{ print $1, $3 }'
cgroup_file $(pid one) memory memory.limit_in_bytes; cgroup_file $(pid one) cpu cpu.cfs_quota_us
e task exec --exec-id x one sh -c 'id; sleep .2; exit 4'; e task exec --exec-id y --user 1000 --cwd /tmp one sh -c 'id; pwd; sleep .2'
e task ps one | wc -l
e task metrics one | awk '/^(pids.current|memory.usage_in_bytes) / { print $1, ($2 > 9 ? "some" : $2) }'
e task pause one; e task ls | awk '{ print $3 }'; e task resume one; e task ls | awk '{ print $3 }'
e task kill --signal KILL one; until_has STOPPED e task ls; e task rm one >/dev/null 2>&1; e container rm one
e task ls --quiet; e container ls --quiet
""",
        ("one RUNNING", "49999872", "50000", "[4]", "PAUSED", "uid=1000"),
        ("containerd",),
    ),
)
