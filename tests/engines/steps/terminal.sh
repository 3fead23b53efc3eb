# engines: podman docker
# shows: /dev/pts/0
# shows: 33 77
# shows: [3]
# shows: [4]
# shows: a terminal

typed $'tty\nstty size\nexit 3' run -it --rm --hostname box $image
e run -d --name one --hostname box $image sleep 100 >/dev/null
typed $'tty\nuntil [ "$(stty size)" = "33 77" ]; do sleep .1; done; stty size\nexit 4' exec -it one sh
e run -t --rm $image sh -c 'test -t 0 && test -t 1 && test -t 2 && echo a terminal; ls -l /dev/console | cut -c 1-10; sleep .2'
