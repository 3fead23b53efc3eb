# engines: podman docker
# shows: paused
# shows: stands still
# shows: running
# shows: runs on
# shows: \n0\n

e run -d --name one $image sh -c 'while sleep 0.01; do echo >>/tmp/i; done' >/dev/null
until_has / e exec one ls /tmp/i
e pause one; e inspect --format '{{.State.Status}}' one
root=/proc/$(pid one)/root; before=$(wc -l <$root/tmp/i); sleep .5; [ $before = $(wc -l <$root/tmp/i) ] && echo stands still
e exec one true >/dev/null 2>&1
e unpause one; e inspect --format '{{.State.Status}}' one
until [ $(wc -l <$root/tmp/i) -gt $before ]; do sleep .1; done; echo runs on
e pause one; e rm -f one; e ps --all --quiet | wc -l
