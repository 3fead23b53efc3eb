# engines: podman docker
# shows: hello
# shows: err
# shows: [7]
# shows: piped
# shows: <a b><><*>

e run --rm $image echo hello
e run --rm $image sh -c 'echo out; sleep .1; echo err >&2; exit 7'
echo piped | e run -i --rm $image cat
e run --rm --entrypoint wc $image -c /etc/passwd
e run --rm $image printf '<%s>' 'a b' '' '*' "quote'"
