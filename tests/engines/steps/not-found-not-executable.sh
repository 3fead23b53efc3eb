# engines: podman docker
# shows: not found in $PATH
# shows: permission denied
# shows: [127]
# shows: [126]
# shows: [9]

said() { "$@" 2>&1 | grep -o -E '(exec: ".*|stat .*)(not found in \$PATH|no such file or directory|permission denied)' |
    head -1 | sed 's/is a directory: //'
    return ${PIPESTATUS[0]}; }
said e run --rm $image nosuch
said e run --rm $image /bin/nosuch
said e run --rm $image /etc
said e run --rm $image /bin/not-executable
e run -d --name one $image sleep 100 >/dev/null
e exec one nosuch >/dev/null 2>&1
e exec one /bin/nosuch >/dev/null 2>&1
e exec one /bin/not-executable >/dev/null 2>&1
e exec one sh -c 'exit 9'
