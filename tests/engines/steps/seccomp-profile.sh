# engines: podman docker
# shows: Read-only file system
# shows: 159
# shows: Protocol error
# shows: kill -0
# shows: Seccomp:\t2

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
