# engines: containerd
# shows: hello
# shows: [7]
# shows: not found in $PATH
# shows: uid=0
# shows: Seccomp:\t2
# shows: /dev/pts/0

run --rm one echo hello
run --rm one sh -c 'echo err >&2; exit 7'
run --rm one nosuch 2>&1 | grep -o 'exec: .*PATH'
run --rm --memory-limit=50000000 --cpus=0.5 one sh -c 'exec 2>&1; id; grep Cap /proc/self/status; hostname x
    awk "\$2 != \"/\" { print \$2, \$3, \$4 }" /proc/mounts | sort |
    sed "/acpi\|firmware\|keys\|timer_list/ s/ .*//"; ls /dev /proc/self/fd; ulimit -n' 2>&1
run --rm --privileged one grep -E 'Cap|NoNew' /proc/self/status
run --rm --read-only --seccomp --cwd=/tmp --env=A=1 one sh -c 'exec 2>&1; touch /x; id; pwd; echo $A; grep Seccomp: /proc/self/status'
typed $'tty\nexit 3' run --rm --runc-binary "$runtime" --tty "$image" one sh
