// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Process 1 of a VM of the fleet. The kernel hands it the words behind "--": a workload program and its arguments, or
 * nothing. Lines that come in over /dev/hvc0 go to that program, its lines go out; init itself answers two of them:
 *
 *   ping MS     sleep so long, say "pong NS" with what the sleep took by the VM's own clock: its timers are alive
 *   facts       "facts key=value ...": kernel, uptime, free memory, where its own stack and a new mapping lie
 *
 * Before anything else it says "up"; when the program ends, "exited STATUS".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "mix64.h"

#define LINE 4096
#define PAGE 4096UL
#define PAGE_WORDS (PAGE / 8)

struct lines {
	int fd;
	size_t used;
	char text[LINE];
};

static int out;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "guest: %s: %s\n", what, strerror(errno));
	for (;;)
		reboot(RB_AUTOBOOT);
}

static void mount_all(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/tmp", 0777);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
		must(false, "devtmpfs");
}

/* The value of a word of the kernel's command line, or NULL. */
static const char *word(const char *name)
{
	static char text[4096];
	char *at;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n > 0 ? n : 0] = 0;
	for (at = strtok(text, " \n"); at; at = strtok(NULL, " \n")) {
		if (!strcmp(at, "--"))
			return NULL;
		if (!strncmp(at, name, strlen(name)) && at[strlen(name)] == '=')
			return at + strlen(name) + 1;
	}
	return NULL;
}

static void interface_up(int fd, const char *name, const char *address)
{
	struct ifreq request = { 0 };
	struct sockaddr_in in = { .sin_family = AF_INET };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	must(inet_pton(AF_INET, address, &in.sin_addr) == 1, address);
	memcpy(&request.ifr_addr, &in, sizeof(in));
	must(!ioctl(fd, SIOCSIFADDR, &request), name);
	inet_pton(AF_INET, "255.255.255.0", &in.sin_addr);
	memcpy(&request.ifr_netmask, &in, sizeof(in));
	if (strcmp(name, "lo"))
		must(!ioctl(fd, SIOCSIFNETMASK, &request), name);
	must(!ioctl(fd, SIOCGIFFLAGS, &request), name);
	request.ifr_flags |= IFF_UP | IFF_RUNNING;
	must(!ioctl(fd, SIOCSIFFLAGS, &request), name);
}

static void network_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *address;

	must(fd >= 0, "socket");
	interface_up(fd, "lo", "127.0.0.1");
	address = word("fleet.address");
	if (address)
		interface_up(fd, "eth0", address);
	close(fd);
}

static int open_channel(void)
{
	struct termios t;
	int fd = open("/dev/hvc0", O_RDWR | O_NOCTTY | O_CLOEXEC);

	must(fd >= 0 && !tcgetattr(fd, &t), "/dev/hvc0");
	cfmakeraw(&t);
	must(!tcsetattr(fd, TCSANOW, &t), "/dev/hvc0");
	return fd;
}

static void say(const char *text, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = write(out, text + done, size - done);

		must(n >= 0 || errno == EINTR, "/dev/hvc0");
		done += n > 0 ? n : 0;
	}
}

static void sayf(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void sayf(const char *format, ...)
{
	char text[LINE];
	va_list list;
	int n;

	va_start(list, format);
	n = vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	say(text, n);
}

static unsigned long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void ping(long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
	unsigned long long start = now_ns();

	nanosleep(&t, NULL);
	sayf("pong %llu\n", now_ns() - start);
}

static void facts(void)
{
	struct utsname name;
	struct sysinfo info;
	void *map = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(map != MAP_FAILED, "mmap");
	munmap(map, PAGE);
	uname(&name);
	sysinfo(&info);
	sayf("facts release=%s uptime_ns=%llu free_kb=%lu processes=%u stack=%p map=%p\n", name.release, now_ns(),
	     (unsigned long)(info.freeram * info.mem_unit / 1024), info.procs, (void *)&name, map);
}

/*
 * Memory that belongs to no program here, and stays: zero pages, pages that each have one equal in this VM, pages that are
 * the same in every VM, and pages like no other. Seed and VM come from the host.
 */
static void ballast(void)
{
	enum { ZERO, SELF, INTER, UNIQUE, KINDS };
	const char *text = word("fleet.ballast");
	unsigned long long seed, vm, count[KINDS], pages = 0;
	uint64_t *page;

	if (!text)
		return;
	must(sscanf(text, "%llu,%llu,%llu,%llu,%llu,%llu", &seed, &vm, &count[ZERO], &count[SELF], &count[INTER],
		    &count[UNIQUE]) == 6, "fleet.ballast");
	for (int kind = 0; kind < KINDS; kind++)
		pages += count[kind];
	page = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED, "memory for ballast");
	for (uint64_t kind = 0; kind < KINDS; kind++)
		for (uint64_t i = 0; i < count[kind]; i++, page += PAGE_WORDS) {
			uint64_t owner = kind == INTER ? 0 : vm + 1, content = i;
			uint64_t key;

			if (kind == SELF)	/* the last of an odd number makes a pair one of three */
				content = i / 2 < count[SELF] / 2 ? i / 2 : count[SELF] / 2 - 1;
			key = mix64(kind << 56 | owner << 40 | content) ^ mix64(seed + MIX64_STEP);
			for (size_t at = 0; at < PAGE_WORDS; at++)
				((volatile uint64_t *)page)[at] = kind == ZERO ? 0 : mix64(key + at * MIX64_STEP);
		}
}

static pid_t start(char **argv, int *in, int *from)
{
	int to_child[2], to_us[2];
	pid_t pid;

	must(!pipe2(to_child, O_CLOEXEC) && !pipe2(to_us, O_CLOEXEC), "pipe");
	pid = fork();
	if (!pid) {
		dup2(to_child[0], 0);
		dup2(to_us[1], 1);
		execv(argv[0], argv);
		dprintf(1, "failed %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	must(pid > 0, "fork");
	close(to_child[0]);
	close(to_us[1]);
	*in = to_child[1];
	*from = to_us[0];
	return pid;
}

/* Read what there is, hand out whole lines with their end; false when the host is gone. */
static bool take_lines(struct lines *lines, void (*use)(char *line, size_t size))
{
	ssize_t n = read(lines->fd, lines->text + lines->used, LINE - lines->used);
	size_t from = 0;
	char *end;

	if (n <= 0)
		return n < 0 && errno == EINTR;
	lines->used += n;
	while ((end = memchr(lines->text + from, '\n', lines->used - from))) {
		use(lines->text + from, end + 1 - (lines->text + from));
		from = end + 1 - lines->text;
	}
	memmove(lines->text, lines->text + from, lines->used - from);
	lines->used -= from;
	must(lines->used < LINE, "a line without an end");
	return true;
}

static int workload_in = -1;

static void command(char *line, size_t size)
{
	if (!strncmp(line, "ping ", 5))
		ping(strtol(line + 5, NULL, 10));
	else if (!strncmp(line, "facts\n", size))
		facts();
	else if (workload_in < 0 || write(workload_in, line, size) != (ssize_t)size)
		sayf("failed there is no program for: %.*s", (int)size, line);
}

/*
 * What the workload says goes out as it comes: a line may be longer than any buffer here, and copying it in whole would
 * write memory that the workload did not. False when it has ended; amid tells whether the end of a line is still to come.
 */
static bool relay(int from, bool *amid)
{
	static char text[LINE];
	ssize_t n = read(from, text, sizeof(text));

	if (n <= 0)
		return n < 0 && errno == EINTR;
	say(text, n);
	*amid = text[n - 1] != '\n';
	return true;
}

int main(int argc, char **argv)
{
	static struct lines host;
	int workload_out = -1, status;
	pid_t pid = -1;
	bool amid = false;

	mount_all();
	signal(SIGPIPE, SIG_IGN);
	network_up();
	host.fd = out = open_channel();
	sayf("up\n");
	ballast();
	if (argc > 1)
		pid = start(argv + 1, &workload_in, &workload_out);
	for (;;) {
		/* an answer of our own must not stand in the middle of a line of the workload's: the host waits */
		struct pollfd p[2] = { { .fd = amid ? -1 : host.fd, .events = POLLIN },
				       { .fd = workload_out, .events = POLLIN } };

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			must(false, "poll");
		if (p[0].revents & POLLIN)
			take_lines(&host, command);
		if (p[1].revents && !relay(workload_out, &amid)) {
			workload_out = -1;
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			sayf("%sexited %d\n", amid ? "\n" : "", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
			amid = false;
		}
	}
}
