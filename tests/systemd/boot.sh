# Boots systemd as process 1 of new namespaces, over a throw-away layer on this machine's files.
# Arguments: an empty directory for the layer, and a directory that the machine shows at /srv/kafka.
# To be started by `unshare --mount --pid --fork --uts --ipc --cgroup --net`, in a control group of its own.
set -eu
layer=$1
kafka=$2
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
cd "$layer/root"

mount -t proc proc proc
mount -o bind,ro /proc/sys proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p srv/kafka
mount --bind "$kafka" srv/kafka

# A clean machine: nothing that this one has enabled, and nothing of an outboxd.
rm -rf etc/systemd/system/* etc/rc?.d/S* etc/outboxd etc/credstore opt/outboxd usr/local/bin/outboxd
hostname outboxd-test
echo outboxd-test >etc/hostname
: >etc/machine-id

mkdir former
pivot_root . former
umount -l former
# Credentials are mounted by a child of process 1 and have to reach the others.
mount --make-rshared /
exec env -i container=outboxd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_time,-sys_module,-sys_rawio,-syslog \
    /lib/systemd/systemd --unit=multi-user.target
