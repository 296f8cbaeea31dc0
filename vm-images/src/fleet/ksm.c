// SPDX-License-Identifier: GPL-2.0-or-later
/* sysfs and procfs. Files that are read often are opened once. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fleet.h"

#define KSM_DIR "/sys/kernel/mm/ksm/"

/*
 * The last three are there with our series, or (pages_scanned) from Linux 6.6 on; the plan may name more.
 * They are read in this order, and a real-time ksmd may run in between: what cannot exceed another one is read before
 * it, or a sample would contradict itself.
 */
static const char *counter_name[KSM_COUNTERS] = {
	"pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans", "stable_node_chains",
	"stable_node_dups", "run", "pages_to_scan", "page_checksums", "pages_scanned", "page_comparisons",
};

static int counter_fd[KSM_COUNTERS], counters = KSM_COUNTERS - COUNTERS;

bool ksm_open(const struct plan *plan)
{
	char path[128];

	for (long i = 0; i < plan->counters; i++)
		counter_name[counters++] = plan->counter[i];
	for (int i = 0; i < counters; i++) {
		snprintf(path, sizeof(path), KSM_DIR "%s", counter_name[i]);
		counter_fd[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (counter_fd[0] < 0)
		fprintf(stderr, "fleet: no " KSM_DIR ": this kernel has no KSM\n");
	return counter_fd[0] >= 0;
}

int ksm_counters(void)
{
	return counters;
}

const char *ksm_counter_name(int counter)
{
	return counter_name[counter];
}

bool ksm_has(int counter)
{
	return counter_fd[counter] >= 0;
}

long long number_at(int fd)
{
	char text[64];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return strtoll(text, NULL, 10);
}

long long ksm_counter(int counter)
{
	return number_at(counter_fd[counter]);
}

bool ksm_write(const char *name, long value)
{
	char path[128], text[32];
	int fd, size;
	bool ok;

	snprintf(path, sizeof(path), KSM_DIR "%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	size = snprintf(text, sizeof(text), "%ld\n", value);
	ok = fd >= 0 && write(fd, text, size) == size;
	if (!ok)
		fprintf(stderr, "fleet: cannot write %ld to %s: %m\n", value, path);
	if (fd >= 0)
		close(fd);
	return ok;
}

long ksm_read(const char *name)
{
	char path[128];
	long value;
	int fd;

	snprintf(path, sizeof(path), KSM_DIR "%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	value = number_at(fd);
	close(fd);
	return value;
}

pid_t ksmd_pid(void)
{
	char path[300], name[32] = "";
	struct dirent *entry;
	DIR *dir = opendir("/proc");
	pid_t found = -1;

	while (dir && found < 0 && (entry = readdir(dir))) {
		FILE *file;

		if (!isdigit(entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strcmp(name, "ksmd\n"))
			found = atoi(entry->d_name);
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Nanoseconds on a CPU: the first number of schedstat, exact where the clock counts instructions. */
uint64_t task_runtime(pid_t pid)
{
	static struct {
		pid_t pid;
		int fd;
	} open_files[4];
	char path[64];

	if (pid <= 0)
		return 0;
	for (int i = 0; i < 4; i++) {
		if (!open_files[i].pid) {
			snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
			open_files[i].fd = open(path, O_RDONLY | O_CLOEXEC);
			open_files[i].pid = pid;
		}
		if (open_files[i].pid == pid)
			return number_at(open_files[i].fd);
	}
	return 0;
}

/* Of all processors together, in steps of 10 ms: /proc/uptime is the cheapest file that says it. */
uint64_t idle_ns(void)
{
	static int fd = -1;
	char text[64], *at;
	ssize_t n;
	uint64_t seconds, hundredths = 0;

	if (fd < 0)
		fd = open("/proc/uptime", O_RDONLY | O_CLOEXEC);
	n = pread(fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = 0;
	at = strchr(text, ' ');
	seconds = at ? strtoull(at, &at, 10) : 0;
	if (at && *at == '.')
		hundredths = strtoull(at + 1, NULL, 10);
	return (seconds * 100 + hundredths) * 10000000ULL;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + t.tv_nsec;
}
