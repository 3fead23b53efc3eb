# engines: podman docker
# shows: copied
# shows: new
# shows: A /new

e run -d --name one $image sh -c 'echo new >/new; sleep 100' >/dev/null; until_has new e exec one cat /new
echo copied >file; e cp file one:/tmp/file; e exec one cat /tmp/file; e cp one:/new out; cat out
e diff one | grep -E '/new|/tmp/file' | sort; e export one | tar -t | grep -c '^new'
