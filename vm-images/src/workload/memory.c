// SPDX-License-Identifier: GPL-2.0-or-later
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "control.h"
#include "memory.h"

static bool mergeable;
static uint64_t taken, peak;

void memory_mergeable(void)
{
	mergeable = true;
}

static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + MEMORY_PAGE - 1) / MEMORY_PAGE * MEMORY_PAGE;
}

void memory_expect(uint64_t bytes, const char *what)
{
	FILE *file = fopen("/proc/meminfo", "r");
	unsigned long long kib;
	char line[128];

	/* the kernel grants more than it has, and kills who uses it: say it while somebody can still listen */
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1 && bytes / 1024 > kib)
			control_fail("%s takes %" PRIu64 " MiB of memory, %llu MiB are available", what, bytes >> 20,
				     kib >> 10);
	if (file)
		fclose(file);
}

void *memory_take(uint64_t bytes, const char *what)
{
	uint64_t size = whole_pages(bytes);
	void *array = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (array == MAP_FAILED)
		control_fail("no memory for %s, %" PRIu64 " bytes: %m", what, bytes);
	if (mergeable && madvise(array, size, MADV_MERGEABLE))
		control_fail("memory for %s cannot be merged: %m", what);
	/* huge pages would be split by the first merge, and fill memory that nobody asked for; a kernel without them is fine */
	if (mergeable)
		madvise(array, size, MADV_NOHUGEPAGE);
	taken += size;
	if (taken > peak)
		peak = taken;
	return array;
}

void memory_give(void *array, uint64_t bytes)
{
	if (!array)
		return;
	munmap(array, whole_pages(bytes));
	taken -= whole_pages(bytes);
}

uint64_t memory_peak(void)
{
	return peak;
}
