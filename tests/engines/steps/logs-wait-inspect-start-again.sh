# engines: podman docker
# shows: created 0
# shows: exited 5 false
# shows: one
# shows: two
# shows: 5

e create --name one $image sh -c 'echo one; sleep .1; echo two >&2; exit 5' >/dev/null
e inspect --format '{{.State.Status}} {{.State.Pid}}' one
e start one; e wait one; e logs one 2>&1 | sort
e inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}' one
e start -a one 2>&1 | sort
e logs one 2>/dev/null
