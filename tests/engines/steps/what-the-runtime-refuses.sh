# engines: podman docker
# shows: [12
# shows: \n0\n

refused() { "$@" >out 2>&1 || echo "[$?]"; grep -c . out >/dev/null; }
refused e run --rm --sysctl net.no.such=1 $image true
refused e run --rm --device /dev/null:/proc/null $image true
refused e run --rm --volume /etc:/etc/passwd $image true
e ps --all --quiet | wc -l
