# engines: podman docker
# shows: uid=0
# shows: CapEff
# shows: /dev/shm
# shows: permission denied

e run --rm --hostname box --network none $image sh -c "$look" 2>&1
