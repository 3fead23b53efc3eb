# engines: podman docker
# shows: CapEff:\t0000000002000400
# shows: CapEff:\t0000000000000000
# shows: Seccomp:\t0
# shows: NoNewPrivs:\t1
# shows: not permitted

caps='grep -E "Cap(Inh|Prm|Eff|Bnd|Amb)|NoNew|Seccomp:" /proc/self/status'
e run --rm --cap-drop ALL --cap-add NET_BIND_SERVICE --cap-add SYS_TIME $image sh -c "$caps"
e run --rm --cap-drop ALL --user alice $image sh -c "$caps"
e run --rm --cap-add ALL --cap-drop SYS_RESOURCE --security-opt seccomp=unconfined $image sh -c "$caps"
e run --rm --security-opt no-new-privileges $image sh -c "$caps"
e run --rm --cap-drop CHOWN $image chown alice /etc/passwd
