# engines: podman docker
# shows: served

e run -d --name one -p 127.0.0.1:8180:80 $image sh -c 'echo served >/tmp/index.html; exec httpd -f -p 80 -h /tmp' >/dev/null
until_has served curl --silent http://127.0.0.1:8180/
curl --silent http://127.0.0.1:8180/
e exec one sh -c 'ip -o addr | grep -c "inet .*eth0"; ip route | grep -c default'
