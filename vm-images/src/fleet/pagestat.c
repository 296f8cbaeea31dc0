// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What KSM could merge, seen from outside: the hash of every populated page that the VMs' processes advised as mergeable.
 * It takes no reference to what KSM has done or left undone, so it is the oracle of its saving; and the hash of all pages
 * of a VM in the order of their addresses tells whether anything changed under a VM that stands still.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fleet.h"

#define AT_ONCE 64			/* pages read by one system call */
#define PRESENT (1ULL << 63)		/* Linux: Documentation/admin-guide/mm/pagemap.rst */
#define FRAME ((1ULL << 55) - 1)

struct digest {
	uint64_t low, high;		/* 128 bits: no two pages of a fleet collide by chance */
	uint32_t vm;
};

struct pages {
	uint64_t empty;			/* the kernel's zero frame */
	struct digest *digest;
	size_t used, room;
};

struct share {
	unsigned long long pages, zero, self, inter, unique;
	uint64_t hash;
};

/*
 * The kernel's own zero page: memory that was read and never written has no page of its own, so there is nothing to
 * merge. The kernel shows frames to root alone.
 */
static uint64_t zero_frame(void)
{
	volatile char *page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (page == MAP_FAILED || *page || pread(pagemap, &entry, 8, (uintptr_t)page / PAGE * 8) != 8)
		entry = 0;
	close(pagemap);
	munmap((void *)page, PAGE);
	return entry & FRAME;
}

static struct digest digest_of(const uint64_t *page, uint32_t vm)
{
	struct digest d = { .low = 0x243f6a8885a308d3ULL, .high = 0x13198a2e03707344ULL, .vm = vm };

	for (size_t i = 0; i < PAGE_WORDS; i++) {
		d.low = (d.low ^ page[i]) * 0x9fb21c651e98df25ULL;
		d.low ^= d.low >> 29;
		d.high = (d.high + page[i]) * 0xd6e8feb86659fd93ULL;
		d.high ^= d.high >> 32;
	}
	return d;
}

static bool add(struct pages *all, struct digest digest)
{
	if (all->used == all->room) {
		size_t room = all->room ? 2 * all->room : 1 << 16;
		struct digest *more = realloc(all->digest, room * sizeof(*more));

		if (!more)
			return false;
		all->digest = more;
		all->room = room;
	}
	all->digest[all->used++] = digest;
	return true;
}

/* Of a run of present pages. A page that goes away under us belongs to a VM that was not stopped. */
static bool read_run(struct pages *all, struct share *share, int memory, uint64_t start, size_t count, uint32_t vm)
{
	static uint64_t data[AT_ONCE * PAGE_WORDS];

	if (pread(memory, data, count * PAGE, start) != (ssize_t)(count * PAGE)) {
		fprintf(stderr, "fleet: memory of VM %u at %llx: %m\n", vm + 1, (unsigned long long)start);
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		struct digest digest = digest_of(data + i * PAGE_WORDS, vm);

		share->hash = mix64(share->hash ^ digest.low) + start + i * PAGE;
		share->pages++;
		if (!add(all, digest))
			return false;
	}
	return true;
}

static bool read_area(struct pages *all, struct share *share, int memory, int pagemap, uint64_t from, uint64_t to,
		      uint32_t vm)
{
	uint64_t entry[512], start = 0;
	size_t count = 0;

	for (uint64_t at = from; at < to;) {
		size_t want = (to - at) / PAGE < 512 ? (to - at) / PAGE : 512;
		ssize_t n = pread(pagemap, entry, want * 8, at / PAGE * 8);

		if (n <= 0)
			return false;
		for (size_t i = 0; i < (size_t)n / 8; i++, at += PAGE) {
			bool present = entry[i] & PRESENT && (entry[i] & FRAME) != all->empty;

			if (count && (!present || count == AT_ONCE)) {
				if (!read_run(all, share, memory, start, count, vm))
					return false;
				count = 0;
			}
			if (present && !count++)
				start = at;
		}
	}
	return !count || read_run(all, share, memory, start, count, vm);
}

/* The areas of a process with the flag "mg". */
static bool read_process(struct pages *all, struct share *share, pid_t pid, uint32_t vm)
{
	char path[64], line[512];
	unsigned long long from = 0, to = 0, a, b;
	FILE *smaps;
	int memory, pagemap;
	bool ok = true;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	memory = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	smaps = fopen(path, "re");
	if (memory < 0 || pagemap < 0 || !smaps) {
		fprintf(stderr, "fleet: memory of VM %u, process %d: %m\n", vm + 1, pid);
		return false;
	}
	while (ok && fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%llx-%llx ", &a, &b) == 2 && strchr(line, '-') < strchr(line, ' ')) {
			from = a;
			to = b;
		} else if (!strncmp(line, "VmFlags:", 8) && strstr(line, " mg")) {
			ok = read_area(all, share, memory, pagemap, from, to, vm);
		}
	}
	fclose(smaps);
	close(pagemap);
	close(memory);
	return ok;
}

static int compare(const void *a, const void *b)
{
	const struct digest *x = a, *y = b;

	if (x->low != y->low)
		return x->low < y->low ? -1 : 1;
	if (x->high != y->high)
		return x->high < y->high ? -1 : 1;
	return x->vm < y->vm ? -1 : x->vm > y->vm;
}

static int compare_counts(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* How many contents are mapped how often: what the harness computes stable nodes and their limit from. */
static void write_contents(uint32_t *mappings, size_t contents, const char *when, FILE *out)
{
	qsort(mappings, contents, sizeof(*mappings), compare_counts);
	fprintf(out, "[contents_%s]\nmappings,contents\n", when);
	for (size_t i = 0; i < contents;) {
		size_t same = i;

		while (same < contents && mappings[same] == mappings[i])
			same++;
		fprintf(out, "%u,%zu\n", mappings[i], same - i);
		i = same;
	}
}

bool pagestat(const pid_t *pid, long vms, const char *when, FILE *out)
{
	static const uint64_t zero_page[PAGE_WORDS];
	struct digest zero = digest_of(zero_page, 0);
	struct share *share = calloc(vms, sizeof(*share));
	struct pages all = { .empty = zero_frame() };
	size_t contents = 0;
	uint32_t *mappings;
	bool ok = share && all.empty;

	if (!all.empty)
		fprintf(stderr, "fleet: /proc/self/pagemap hides frames: run as root\n");
	for (long i = 0; ok && i < vms; i++)
		ok = read_process(&all, &share[i], pid[i], i);
	if (ok)
		qsort(all.digest, all.used, sizeof(*all.digest), compare);
	mappings = calloc(all.used + 1, sizeof(*mappings));
	ok = ok && mappings;
	for (size_t i = 0, end; ok && i < all.used; i = end) {
		const struct digest *first = &all.digest[i];
		bool is_zero = first->low == zero.low && first->high == zero.high, inter = false;

		for (end = i; end < all.used && all.digest[end].low == first->low && all.digest[end].high == first->high; end++)
			inter |= all.digest[end].vm != first->vm;
		mappings[contents++] = end - i;
		for (size_t at = i; at < end; at++) {
			struct share *s = &share[all.digest[at].vm];

			if (is_zero)
				s->zero++;
			else if (inter)
				s->inter++;
			else if (end - i > 1)
				s->self++;
			else
				s->unique++;
		}
	}
	if (ok) {
		fprintf(out, "[pages_%s]\nvm,pages,zero,self,inter,unique,hash\n", when);
		for (long i = 0; i < vms; i++)
			fprintf(out, "%ld,%llu,%llu,%llu,%llu,%llu,%llu\n", i + 1, share[i].pages, share[i].zero, share[i].self,
				share[i].inter, share[i].unique, (unsigned long long)share[i].hash >> 1);
		write_contents(mappings, contents, when, out);
	}
	free(mappings);
	free(all.digest);
	free(share);
	return ok;
}
