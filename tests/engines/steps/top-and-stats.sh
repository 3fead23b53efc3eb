# engines: podman docker
# shows: sleep 100
# shows: sleep 101
# shows: one 3

e run -d --name one --pids-limit 20 $image sh -c 'sleep 100 & sleep 101 & wait' >/dev/null
until_has 'sleep 101' e top one
e top one | grep -o -E 'sleep 10[01]|sh -c' | sort
e stats --no-stream --format '{{.Name}} {{.PIDs}}' one
