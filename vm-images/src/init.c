// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Process 1 of the host image. Kernel words choose what it is for:
 *
 *   paraksm.mode=measured    run the sealed job that came in through fw_cfg, write its output to the second
 *                            serial port, say "paraksm: done status=N" on the console, power off
 *   paraksm.mode=functional  start the agent, and an ssh server if fw_cfg carries an authorized key
 *   paraksm.console          besides, keep a shell on the console
 *
 * Its first words are "paraksm: started": who hears nothing after them waits for a job, not for a kernel.
 *
 * fw_cfg items below opt/paraksm/: plan (for /bin/fleet), command (for /bin/sh), authorized_keys,
 * hostkey (OpenSSH private key).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define FW_CFG "/sys/firmware/qemu_fw_cfg/by_name/opt/paraksm/"

static char cmdline[4096];

static const struct {
	const char *type, *where, *options;
} mounts[] = {
	{ "proc", "/proc", NULL },
	{ "sysfs", "/sys", NULL },
	{ "devtmpfs", "/dev", "mode=0755" },
	{ "devpts", "/dev/pts", "mode=0620,ptmxmode=0666" },
	{ "tmpfs", "/dev/shm", "mode=1777" },
	{ "tmpfs", "/tmp", "mode=1777" },
	{ "tmpfs", "/run", "mode=0755" },
	{ "cgroup2", "/sys/fs/cgroup", NULL },
};

static void mount_all(void)
{
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].where, 0755);
		/* a kernel without cgroups, or devtmpfs already there: the job says so if it minds */
		mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, mounts[i].options);
	}
}

static void slurp(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buffer, size - 1);

	buffer[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
}

static bool word(const char *wanted)
{
	size_t length = strlen(wanted);
	const char *at = cmdline;

	while ((at = strstr(at, wanted))) {
		char after = at[length];

		if ((at == cmdline || at[-1] == ' ') && (after == ' ' || after == '\n' || !after))
			return true;
		at += length;
	}
	return false;
}

static void console_to(int fd)
{
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
}

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);	/* no ACPI: QEMU ends on -no-reboot */
	for (;;)
		pause();
}

/* Bytes must reach the file behind the port as they are. */
static int open_results(void)
{
	struct termios t;
	int fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);

	if (fd >= 0 && !tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		cfsetspeed(&t, B115200);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static void run_sealed(void)
{
	bool fleet = !access(FW_CFG "plan/raw", R_OK);
	int status = 0, results = open_results();
	pid_t pid = fork();

	if (!pid) {
		if (results >= 0)
			dup2(results, 1);
		if (fleet)
			execl("/bin/fleet", "fleet", "run", FW_CFG "plan/raw", NULL);
		else
			execl("/bin/sh", "sh", FW_CFG "command/raw", NULL);
		fprintf(stderr, "paraksm: exec: %s\n", strerror(errno));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) != pid)
		;
	if (results >= 0)
		tcdrain(results);
	printf("\nparaksm: done status=%d\n",
	       WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
	fflush(stdout);
	tcdrain(1);
	power_off();
}

static pid_t start(char *const argv[])
{
	pid_t pid = fork();

	if (!pid) {
		setsid();
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

static void copy(const char *from, const char *to, mode_t mode)
{
	static char buffer[65536];
	int fd;

	slurp(from, buffer, sizeof(buffer));
	fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, mode);
	if (fd < 0 || write(fd, buffer, strlen(buffer)) < 0)
		fprintf(stderr, "paraksm: %s: %s\n", to, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void set_address(struct sockaddr *where, const char *address)
{
	struct sockaddr_in in = { .sin_family = AF_INET };

	inet_pton(AF_INET, address, &in.sin_addr);
	memcpy(where, &in, sizeof(in));
}

static void interface_up(int fd, const char *name, const char *address, const char *mask)
{
	struct ifreq r = { 0 };

	strncpy(r.ifr_name, name, IFNAMSIZ - 1);
	set_address(&r.ifr_addr, address);
	ioctl(fd, SIOCSIFADDR, &r);
	set_address(&r.ifr_netmask, mask);
	ioctl(fd, SIOCSIFNETMASK, &r);
	ioctl(fd, SIOCGIFFLAGS, &r);
	r.ifr_flags |= IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, &r);
}

/* The addresses of QEMU's user network. */
static void network_up(void)
{
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	interface_up(fd, "lo", "127.0.0.1", "255.0.0.0");
	interface_up(fd, "eth0", "10.0.2.15", "255.255.255.0");
	set_address(&route.rt_dst, "0.0.0.0");
	set_address(&route.rt_genmask, "0.0.0.0");
	set_address(&route.rt_gateway, "10.0.2.2");
	ioctl(fd, SIOCADDRT, &route);
	close(fd);
}

static void start_sshd(void)
{
	char *convert[] = { "/usr/bin/dropbearconvert", "openssh", "dropbear", "/run/hostkey.openssh",
			    "/run/hostkey", NULL };
	char *sshd[] = { "/usr/sbin/dropbear", "-F", "-s", "-r", "/run/hostkey", "-P", "/run/dropbear.pid", NULL };

	network_up();
	mkdir("/root", 0700);
	mkdir("/root/.ssh", 0700);
	copy(FW_CFG "authorized_keys/raw", "/root/.ssh/authorized_keys", 0600);
	copy(FW_CFG "hostkey/raw", "/run/hostkey.openssh", 0600);
	waitpid(start(convert), NULL, 0);
	unlink("/run/hostkey.openssh");
	start(sshd);
}

static pid_t start_shell(void)
{
	pid_t pid = fork();

	if (!pid) {
		int fd;

		setsid();
		fd = open("/dev/ttyS0", O_RDWR);
		ioctl(fd, TIOCSCTTY, 1);
		console_to(fd);
		execl("/bin/sh", "-sh", NULL);
		_exit(127);
	}
	return pid;
}

/* Booting quietly is faster; from here on whole reports must reach the console, their stacks included. */
static void show_all(void)
{
	int fd = open("/proc/sys/kernel/printk", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "8", 1) < 0)
		fprintf(stderr, "paraksm: /proc/sys/kernel/printk: %s\n", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void serve(void)
{
	char *agent[] = { "/bin/agent", NULL };
	bool want_shell = word("paraksm.console");
	pid_t shell = -1, gone;

	show_all();
	start(agent);
	if (want_shell)
		shell = start_shell();
	if (!access(FW_CFG "authorized_keys/raw", R_OK))
		start_sshd();
	for (;;) {
		gone = wait(NULL);
		if (gone < 0)
			pause();
		else if (want_shell && gone == shell)
			shell = start_shell();
	}
}

int main(void)
{
	int fd;

	mount_all();
	fd = open("/dev/console", O_RDWR);
	if (fd >= 0)
		console_to(fd);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("TERM", "vt102", 1);
	if (chdir("/"))
		return 1;
	slurp("/proc/cmdline", cmdline, sizeof(cmdline));
	printf("paraksm: started\n");
	fflush(stdout);
	if (word("paraksm.mode=measured"))
		run_sealed();
	serve();
	return 0;
}
