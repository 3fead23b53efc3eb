# engines: podman docker
# shows: uid=1000(alice)
# shows: CapEff:\t0000000000000000

e run --rm --hostname box --network none --user alice --group-add audio $image sh -c "$look" 2>&1
