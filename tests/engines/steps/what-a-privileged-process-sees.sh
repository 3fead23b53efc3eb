# engines: podman docker
# shows: uid=0

e run --rm --hostname box --network none --privileged $image sh -c "$look" 2>&1 | sed 's/.*\(unable to apply caps: operation not permitted\).*/uid=0 \1/' | grep -v -E '^[bc-].{9} |total'
