# engines: podman docker
# shows: uid=0

privileged=--privileged
refused_by_runc && privileged='--cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined'
e run --rm --hostname box --network none $privileged $image sh -c "$look" | grep -v -E '^[bc-].{9} '
