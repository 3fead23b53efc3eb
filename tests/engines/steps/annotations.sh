# engines: podman
# shows: noted

e run --rm --annotation org.example.note=1 --label a=b $image echo noted
