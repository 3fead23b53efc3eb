# engines: podman docker
# shows: 143

e run --rm --init $image sh -c 'ps -o comm; (sleep .1 &) ; sleep .5; ps -o stat,comm | grep -c "^Z"'
e run -d --name one --init $image sleep 100 >/dev/null; e stop one >/dev/null; e inspect --format '{{.State.ExitCode}}' one
