# engines: podman
# shows: upper only
# shows: secret words

mkdir -p dir/sub; echo data >dir/file; echo 'secret words' | e secret create words - >/dev/null
mount -t tmpfs tmpfs dir/sub; touch dir/sub/below
e run --rm --volume $PWD/dir:/d:O $image sh -c 'echo upper only >/d/new; cat /d/new'; ls dir
e run --rm --mount type=bind,source=$PWD/dir,destination=/d,bind-nonrecursive $image ls /d/sub
e run --rm --mount type=bind,source=$PWD/dir,destination=/d,ro,bind-propagation=private $image sh -c 'exec 2>&1; ls /d/sub; touch /d/x /d/sub/x'
e run --rm --mount type=devpts,destination=/pts $image stat -c '%A' /pts/ptmx
e run --rm --secret words --umask 0077 --tz Etc/UTC $image sh -c 'cat /run/secrets/words; umask; stat -c %a /run/secrets/words'
e run --rm --mount type=image,source=$image,destination=/i,rw=false $image sh -c 'ls /i; touch /i/x' 2>&1
e run --rm --volume $PWD/dir:/a/b/c/d --volume $PWD/dir/file:/new/file:ro,noexec,nosuid,nodev $image sh -c 'ls /a/b/c/d; cat /new/file; grep -E " (/a/b/c/d|/new/file) " /proc/self/mountinfo | cut -d" " -f5-6'
e run --rm --tmpfs /etc:rw,size=100k $image ls /etc/passwd; e run --rm --tmpfs /etc:notmpcopyup $image cat /etc/group
e run --rm --ipc host --uts host --shm-size 0 $image true >/dev/null 2>&1
umount dir/sub; e secret rm words >/dev/null
