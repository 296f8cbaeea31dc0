// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * After the storm: memory that nobody writes to. How many pages KSM must share is then a matter of arithmetic, and
 * ksmd has to get there in every mode.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "storm.h"

/* a huge page and more, where that is to be found and split */
#define PAGES (opt.huge ? 768UL : 320UL)
#define MOST_PAGES 768UL
#define KINDS 50U		/* contents, most of which several pages have */
#define HUGE (2UL << 20)
#define SECONDS 300UL		/* no number of passes takes so long on a kernel that works */
#define CHAIN 8UL		/* pages of one content, of which two share a KSM page */

/* How often a content occurs: once, twice, three times, some of them hundreds of times. */
static uint32_t kind_of(unsigned long page)
{
	unsigned long die = mix64(opt.seed ^ page) % 100;

	if (die < 15)
		return 4096 + 8 * page;		/* the only one */
	if (die < 20)
		return 0;
	if (die < 40)
		return 8;			/* one page in five */
	return 16 + mix64(opt.seed ^ page << 20) % KINDS;
}

struct oracle {
	long shared, sharing, unshared;
};

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static struct oracle expect(long limit)
{
	static uint32_t kind[MOST_PAGES];
	struct oracle o = { 0 };

	for (unsigned long i = 0; i < PAGES; i++)
		kind[i] = kind_of(i);
	qsort(kind, PAGES, sizeof(kind[0]), by_value);
	for (unsigned long i = 0, n; i < PAGES; i += n) {
		for (n = 1; i + n < PAGES && kind[i + n] == kind[i]; n++)
			;
		if (n == 1) {
			o.unshared++;
			continue;
		}
		/* full KSM pages, and what is left makes another one, if it is two or more */
		o.shared += n / limit + (n % limit >= 2);
		o.sharing += n - n / limit - (n % limit >= 1);
		o.unshared += n % limit == 1;
	}
	return o;
}

static bool reached(const struct oracle *o)
{
	return ksm_read("pages_shared") == o->shared && ksm_read("pages_sharing") == o->sharing &&
	       ksm_read("pages_unshared") == o->unshared && ksm_read("pages_volatile") == 0;
}

/* Let ksmd finish so many more passes, and stop it; how many it has finished since all was taken apart. */
static long passed(long more, uint64_t give_up)
{
	long until;

	put(KSM "run", "1");
	until = ksm_read("full_scans") + more;
	while (ksm_read("full_scans") < until && now_ns() < give_up)
		usleep(1000);
	put(KSM "run", "0");
	return ksm_read("full_scans");
}

static bool intact(uint64_t *area, const char *when)
{
	for (unsigned long i = 0; i < PAGES; i++) {
		board->checked++;
		if (content_holds(area + i * PAGE_WORDS, (struct content){ .id = kind_of(i) }))
			continue;
		board->bad++;
		complain("still page %lu does not hold what was written (%s)", i, when);
		return false;
	}
	return true;
}

static bool one_mode(uint64_t *area, const char *mode, long limit)
{
	struct oracle o = expect(limit);
	uint64_t give_up = now_ns() + SECONDS * 1000000000ULL;
	long passes = 0, jobs;
	char value[32];

	snprintf(value, sizeof(value), "%ld", limit);
	if (!put(KSM "run", "2") || !put(KSM "max_page_sharing", value) || !put(KSM "merge_across_nodes", "1") ||
	    !put(KSM "use_zero_pages", "0") || !put(KSM "offload_mode", mode) || !put(KSM "pages_to_scan", "1000") ||
	    !put(KSM "sleep_millisecs", "0")) {
		complain("a setting was refused before mode %s: %m", mode);
		return false;
	}
	jobs = ksm_read("offload_jobs");
	/* counted with ksmd between two batches: in the middle of one some pages are in no tree */
	do {
		passes = passed(1, give_up);
	} while (!reached(&o) && now_ns() < give_up);
	/* and so it stays */
	passed(2, give_up);
	if (!reached(&o)) {
		complain("mode %s, max_page_sharing %ld: shared %ld sharing %ld unshared %ld volatile %ld after %ld passes, "
			 "expected %ld %ld %ld 0", mode, limit, ksm_read("pages_shared"), ksm_read("pages_sharing"),
			 ksm_read("pages_unshared"), ksm_read("pages_volatile"), ksm_read("full_scans"), o.shared,
			 o.sharing, o.unshared);
		return false;
	}
	printf("calm %s sharing=%ld passes=%ld jobs=%ld\n", mode, limit, passes, ksm_read("offload_jobs") - jobs);
	if (!intact(area, "merged") || !put(KSM "run", "2") || !intact(area, "taken apart"))
		return false;
	if (ksm_read("pages_shared") || ksm_read("pages_sharing")) {
		complain("mode %s: KSM pages are left after run=2", mode);
		return false;
	}
	return true;
}

/* All that KSM shares are CHAIN pages of one content, and these are the figures of it. */
static bool shared(long pages, long nodes, long chains)
{
	return ksm_read("pages_shared") == nodes && ksm_read("pages_sharing") == pages - nodes &&
	       ksm_read("stable_node_chains") == chains;
}

/*
 * The only node of a tree is a chain, and all of its pages go at once. The next page with that content finds it empty:
 * it has to leave the tree it is in, which for a second NUMA node is not the first one.
 */
static bool emptied(const char *mode, const char *across)
{
	char *area = mmap(NULL, CHAIN * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t give_up = now_ns() + SECONDS * 1000000000ULL;
	unsigned long second = 1UL << 1;
	bool ok = false;

	if (area == MAP_FAILED || madvise(area, CHAIN * PAGE, MADV_NOHUGEPAGE) ||
	    syscall(SYS_mbind, area, CHAIN * PAGE, MPOL_BIND, &second, 8 * sizeof(second), 0) ||
	    madvise(area, CHAIN * PAGE, MADV_MERGEABLE)) {
		complain("memory of the second node: %m");
		return false;
	}
	if (!put(KSM "run", "2") || !put(KSM "max_page_sharing", "2") || !put(KSM "merge_across_nodes", across) ||
	    !put(KSM "use_zero_pages", "0") || !put(KSM "offload_mode", mode)) {
		complain("a setting was refused before mode %s: %m", mode);
		return false;
	}
	for (unsigned long i = 0; i < CHAIN; i++)
		content_write((uint64_t *)(area + i * PAGE), (struct content){ .id = 8 });
	do {
		passed(1, give_up);
	} while (!shared(CHAIN, CHAIN / 2, 1) && now_ns() < give_up);
	if (!shared(CHAIN, CHAIN / 2, 1)) {
		complain("mode %s: no chain came of %lu equal pages", mode, CHAIN);
		goto out;
	}
	/* ksmd stands still, so that it learns of all this at once */
	madvise(area, CHAIN * PAGE, MADV_DONTNEED);
	for (unsigned long i = 0; i < 2; i++)
		content_write((uint64_t *)(area + i * PAGE), (struct content){ .id = 8 });
	do {
		passed(1, give_up);
	} while (!shared(2, 1, 0) && now_ns() < give_up);
	ok = shared(2, 1, 0);
	if (ok)
		printf("emptied %s merge_across_nodes=%s\n", mode, across);
	else
		complain("mode %s, merge_across_nodes %s: two pages after an emptied chain: shared %ld sharing %ld chains %ld",
			 mode, across, ksm_read("pages_shared"), ksm_read("pages_sharing"),
			 ksm_read("stable_node_chains"));
out:
	munmap(area, CHAIN * PAGE);
	return ok && put(KSM "run", "2");
}

/* The next word of a list with commas. */
static bool next(const char **list, char *word, size_t size)
{
	size_t length = strcspn(*list, ",");

	snprintf(word, size, "%.*s", (int)length, *list);
	*list += length + ((*list)[length] == ',');
	return length;
}

bool calm(void)
{
	char *raw = mmap(NULL, PAGES * PAGE + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *area = (uint64_t *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
	const char *modes = opt.calm;
	char mode[32];

	if (raw == MAP_FAILED || madvise(area, PAGES * PAGE, opt.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) ||
	    madvise(area, PAGES * PAGE, MADV_MERGEABLE)) {
		complain("memory for the calm: %m");
		return false;
	}
	for (unsigned long i = 0; i < PAGES; i++)
		content_write(area + i * PAGE_WORDS, (struct content){ .id = kind_of(i) });
	while (next(&modes, mode, sizeof(mode)))
		if (!one_mode(area, mode, 256) || !one_mode(area, mode, 2))
			return false;
	/* alone from here on, or these pages would be shared, too */
	munmap(area, PAGES * PAGE);
	modes = opt.calm;
	while (next(&modes, mode, sizeof(mode)))
		if (!emptied(mode, "1") || !emptied(mode, "0"))
			return false;
	return true;
}
