# engines: podman docker
# shows: exited 8
# shows: running
# shows: 137

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
