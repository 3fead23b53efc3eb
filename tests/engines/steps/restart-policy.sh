# engines: podman docker
# shows: 2 3

e run -d --name one --restart on-failure:2 $image sh -c 'echo run; exit 3' >/dev/null
until_has 'run run run' sh -c "echo \$($ENGINE logs one)"; until_has exited e inspect --format '{{.State.Status}}' one
e inspect --format '{{.RestartCount}} {{.State.ExitCode}}' one
