# engines: podman
# shows: 1     300000      65536
# shows: uid=5
# shows: limited
# shows: 137
# shows: host

# A plain user with subordinate ids, who can reach the programs: in this pen only.
home=/run/home; export XDG_RUNTIME_DIR=/run/user/65534
mkdir -p $home $XDG_RUNTIME_DIR; cp ../../image*/busybox.tar $home/
case $runtime in */mydocker-oci) runtime=${mydocker%/*}/mydocker-oci;; esac
printf '[engine]\nruntime = "plain"\nruntime_supports_json = ["plain"]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"
[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine.runtimes]\nplain = ["%s"]\n' $runtime >$home/containers.conf
chown -R nobody $home $XDG_RUNTIME_DIR
for file in subuid subgid; do echo nobody:300000:65536 >/run/$file; mount --bind /run/$file /etc/$file; done
closed=
for program in $runtime $(readlink -f ${mydocker%/*}/python); do
    while [ $program != / ]; do
        program=$(dirname $program)
        [ $((0$(stat -c %a $program) & 1)) = 1 ] || mountpoint -q $program || case " $closed " in *" $program "*) ;; *) closed="$program $closed";; esac
    done
done
for directory in $closed; do
    mkdir -p /run/opened$directory/{upper,work}
    mount -t overlay -o lowerdir=$directory,upperdir=/run/opened$directory/upper,workdir=/run/opened$directory/work opened $directory
    chmod o+x $directory
done
plain() {
    setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH=$PATH HOME=$home XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR USER=nobody \
        CONTAINERS_CONF=$home/containers.conf DISABLE_HC_SYSTEMD=true sh -c 'cd; exec podman "$@"' sh "$@"
}
plain load --quiet --input $home/busybox.tar
plain run --rm --network none --hostname box $image sh -c 'exec 2>&1; id; cat /proc/self/uid_map; grep -E "Cap|NoNew|Seccomp:" /proc/self/status
    ls -l /dev | cut -d" " -f 1,3-8 | cut -c 1-30 | sort; touch /x /dev/shm/y && echo written; hostname; mount -t tmpfs tmpfs /tmp; cat /proc/kcore | head -c 1'
plain run -d --name one --network none $image sleep 100 >/dev/null
plain exec one id; plain exec --user 5 one id; plain pause one >/dev/null 2>&1
plain stop --time 1 one >/dev/null 2>&1; plain inspect --format '{{.State.ExitCode}}' one; plain rm one
plain run --rm --network host --pid host $image echo host
plain run --rm --network none --memory 50m $image echo limited 2>&1 | grep -v 'Resource limits'
plain run --rm --network none --user alice --read-only --tmpfs /t $image sh -c 'id; touch /t/x /x' 2>&1
plain run --rm --network none --userns keep-id $image id
plain run --rm --network none $image nosuch >/dev/null 2>&1
plain run --rm --network none --tty $image tty
plain ps --all --quiet | wc -l; plain system migrate; plain info --format '{{.Host.Security.Rootless}}'
for directory in $closed /etc/subuid /etc/subgid; do umount --lazy $directory; done
