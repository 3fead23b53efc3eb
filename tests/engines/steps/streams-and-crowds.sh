# engines: podman docker
# shows: same
# shows: 1 2 3 4 5 6 7 8 9 10
# shows: waited
# shows: 100000

head -c 3000000 /dev/urandom >big
[ "$(e run --rm -i --network none $image cat <big | md5sum)" = "$(md5sum <big)" ] && echo same
e run --rm --network none $image sh -c 'yes | head -c 1000000' | wc -c
e run --rm --network none -e "A=$(head -c 100000 /dev/zero | tr '\0' x)" $image sh -c 'echo ${#A} $#' x $(seq 5000)
e run --rm --network none --memory 6m --memory-swap 6m $image echo small
for i in 1 2 3 4; do e run --rm --network none $image echo parallel $i & done | sort; wait
e run -d --name one --network none $image sleep 100 >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do e exec one echo $i; done | paste -s -d ' '
for i in 1 2 3 4; do e exec one sh -c 'sleep .2; echo at once' & done | sort; wait
e exec one sh -c 'for i in $(seq 100); do sleep .5 & done; wait; echo waited'
