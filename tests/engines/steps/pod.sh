# engines: podman
# shows: in-pod
# shows: 4321
# shows: pod Running 2
# shows: paused
# shows: \n0\n

e pod create --name pod --hostname box --share net,ipc,uts,pid --sysctl kernel.msgmax=4321 >/dev/null
e run -d --pod pod --name one $image sh -c 'echo in-pod >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
e run --rm --pod pod $image sh -c 'hostname; until wget -q -O - http://127.0.0.1/; do sleep .1; done 2>/dev/null
    cat /proc/sys/kernel/msgmax; ps -o args | grep "http[d] -f"'
e pod ps --format '{{.Name}} {{.Status}} {{.NumberOfContainers}}'
e pod pause pod >/dev/null; e inspect --format '{{.State.Status}}' one; e pod unpause pod >/dev/null
e pod stop --time 1 pod >/dev/null 2>&1; e pod ps --format '{{.Status}}'; e pod start pod >/dev/null
e inspect --format '{{.State.Status}}' one; e pod kill pod >/dev/null 2>&1; e pod rm --force pod >/dev/null 2>&1; e pod ps --quiet | wc -l
