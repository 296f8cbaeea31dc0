/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory that is used hard while ksmd merges it: what the parts know of each other. */
#ifndef STORM_H
#define STORM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fleet.h"

#define KSM "/sys/kernel/mm/ksm/"
#define MAX_WORKERS 32
#define MAX_HOOKS 4

/* What can happen to memory; counted, so that a run shows what it did. */
#define OPERATIONS(X) \
	X(check) X(rewrite) X(poke) X(dontneed) X(renew) X(swap_places) X(unmerge) X(pageout) X(huge) X(small) \
	X(collapse) X(migrate) X(bind) X(protect) X(lock) X(free) X(spread) X(pipe)

enum operation {
#define X(name) OP_##name,
	OPERATIONS(X)
#undef X
	OP_COUNT
};

struct options {
	uint64_t seed;
	long seconds;
	long workers;
	long pages;		/* of a worker */
	long exits;		/* processes that live for milliseconds, at a time */
	bool huge;		/* memory is of huge pages wherever the kernel has them */
	long patience;		/* seconds without progress that mean a hang */
	const char *modes;	/* of offload_mode, at random */
	const char *toggles;	/* what the meddler does: run, shape, work, knobs, backend, memory, compact, look */
	const char *sharing;	/* values of max_page_sharing */
	const char *calm;	/* modes in which still memory must be merged in the end */
	const char *hook[MAX_HOOKS];	/* scripts that are run again and again */
	int hooks;
};

/* Seen by all processes of a run. */
struct board {
	atomic_bool stop;
	atomic_ulong checked, bad, spawned, killed, writes, refused;
	atomic_ulong done[OP_COUNT];
	atomic_ulong beat[MAX_WORKERS];
	char complaint[256];	/* the first */
	atomic_bool complained;
};

extern struct options opt;
extern struct board *board;

void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* random.c */
struct random {
	uint64_t state;
};

uint64_t draw(struct random *random);
unsigned long below(struct random *random, unsigned long limit);
bool one_in(struct random *random, unsigned long n);
void choose(struct random *random, const char *list, char *out, size_t size);	/* a word of a list with commas */

/* page.c: what a page holds is known from two numbers */
struct content {
	uint32_t id;		/* 0: zeroes; ids that differ in the lowest 3 bits alone differ in the last word alone */
	uint32_t poke;		/* 0, or names a word written afterwards */
};

uint32_t content_draw(struct random *random);
void content_write(uint64_t *page, struct content content);
void content_poke(uint64_t *page, uint32_t poke);
bool content_holds(const uint64_t *page, struct content content);

/* worker.c */
void worker(long number, uint64_t seed) __attribute__((noreturn));
void mayfly(uint64_t seed) __attribute__((noreturn));

/* meddler.c */
bool put(const char *path, const char *text);
void meddler(uint64_t seed) __attribute__((noreturn));
void hook(const char *script, uint64_t seed) __attribute__((noreturn));

/* calm.c: still memory is merged as far as its contents allow, in each mode */
bool calm(void);

#endif
