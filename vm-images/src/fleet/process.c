// SPDX-License-Identifier: GPL-2.0-or-later
/* What the kernel says of a VM's process. Three short reads a VM: they are taken while the fleet is measured. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fleet.h"

static int open_in(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

bool process_open(struct process *process, pid_t pid)
{
	process->schedstat = open_in(pid, "schedstat");
	process->stat = open_in(pid, "stat");
	process->merging = open_in(pid, "ksm_merging_pages");
	if (process->schedstat < 0 || process->stat < 0)
		fprintf(stderr, "fleet: /proc/%d: %m\n", pid);
	return process->schedstat >= 0 && process->stat >= 0;
}

/* Minor and major faults: the 10th and 12th field; the second, the name, may hold blanks but ends the brackets. */
static long long faults(int stat)
{
	char text[512], *at;
	ssize_t n = pread(stat, text, sizeof(text) - 1, 0);
	long long minor, major;

	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')');
	if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %lld %*u %lld", &minor, &major) != 2)
		return -1;
	return minor + major;
}

void process_usage(const struct process *process, struct usage *usage)
{
	usage->merging_pages = process->merging < 0 ? 0 : number_at(process->merging);
	usage->runtime_ns = number_at(process->schedstat);
	usage->faults = faults(process->stat);
}
