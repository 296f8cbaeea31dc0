// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A process that uses mergeable memory in every way there is, and knows at any time what each page must hold. It
 * forks others that go on with what they inherited.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE (2UL << 20)
#define CHUNK 64UL		/* most pages of an operation */
#define GENERATIONS 3
#define CHILDREN 3

struct child {
	pid_t pid;
	bool killed;
};

struct arena {
	char *base, *aside;
	size_t pages;
	struct content *holds;
	struct random random;
	long number, generation;
	struct child child[CHILDREN];
};

struct range {
	size_t first, count;
};

static uint64_t *page_at(const struct arena *a, size_t page)
{
	return (uint64_t *)(a->base + page * PAGE);
}

static struct range range_draw(struct arena *a, size_t most)
{
	struct range r = { .count = 1 + below(&a->random, most) };

	if (r.count > a->pages)
		r.count = a->pages;
	r.first = below(&a->random, a->pages - r.count + 1);
	return r;
}

static void check(struct arena *a, struct range r)
{
	for (size_t i = r.first; i < r.first + r.count; i++) {
		board->checked++;
		if (content_holds(page_at(a, i), a->holds[i]))
			continue;
		board->bad++;
		complain("worker %ld, generation %ld: page %zu of %zu does not hold content %x, poke %x: first word %llx",
			 a->number, a->generation, i, a->pages, a->holds[i].id, a->holds[i].poke,
			 (unsigned long long)*page_at(a, i));
		_exit(1);
	}
}

static void rewrite(struct arena *a, struct range r)
{
	for (size_t i = r.first; i < r.first + r.count; i++) {
		a->holds[i] = (struct content){ .id = content_draw(&a->random) };
		content_write(page_at(a, i), a->holds[i]);
	}
}

static void poke(struct arena *a, struct range r)
{
	for (size_t i = r.first; i < r.first + r.count; i++) {
		/* one word at a time is known: a second makes the page anew */
		if (a->holds[i].poke) {
			a->holds[i].poke = 0;
			content_write(page_at(a, i), a->holds[i]);
		}
		a->holds[i].poke = draw(&a->random) | 1;
		content_poke(page_at(a, i), a->holds[i].poke);
	}
}

static void emptied(struct arena *a, struct range r)
{
	memset(a->holds + r.first, 0, r.count * sizeof(*a->holds));
}

static void *start_of(const struct arena *a, struct range r)
{
	return a->base + r.first * PAGE;
}

static void advise(const struct arena *a, struct range r, int advice)
{
	/* refusals (no swap, no huge page to be had, locked memory) change no content */
	madvise(start_of(a, r), r.count * PAGE, advice);
}

static void renew(struct arena *a, struct range r)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	munmap(start_of(a, r), r.count * PAGE);
	if (mmap(start_of(a, r), r.count * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED) {
		complain("worker %ld: mmap: %m", a->number);
		_exit(1);
	}
	emptied(a, r);
	advise(a, r, MADV_MERGEABLE);
}

static bool move(void *from, void *to, size_t size)
{
	return mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
}

/* Two ranges change places. A range of several mappings cannot be moved: then all stays. */
static void swap_places(struct arena *a, struct range r)
{
	struct content held[CHUNK];
	size_t size = r.count * PAGE;
	struct range s = r;

	s.first = (r.first + r.count + below(&a->random, a->pages)) % (a->pages - r.count + 1);
	if (s.first < r.first + r.count && r.first < s.first + s.count)
		return;
	if (!move(start_of(a, r), a->aside, size))
		return;
	if (!move(start_of(a, s), start_of(a, r), size)) {
		if (!move(a->aside, start_of(a, r), size))
			goto lost;
		return;
	}
	if (!move(a->aside, start_of(a, s), size))
		goto lost;
	memcpy(held, a->holds + r.first, r.count * sizeof(*held));
	memcpy(a->holds + r.first, a->holds + s.first, r.count * sizeof(*held));
	memcpy(a->holds + s.first, held, r.count * sizeof(*held));
	return;
lost:
	complain("worker %ld: mremap back: %m", a->number);
	_exit(1);
}

static void migrate(struct arena *a, struct range r)
{
	int status[CHUNK], nodes[CHUNK];
	void *pages[CHUNK];

	for (size_t i = 0; i < r.count; i++) {
		pages[i] = page_at(a, r.first + i);
		nodes[i] = below(&a->random, 2);
	}
	syscall(SYS_move_pages, 0, r.count, pages, nodes, status, one_in(&a->random, 2) ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL);
}

static void bind_to_node(struct arena *a, struct range r)
{
	unsigned long mask = 1UL << below(&a->random, 2);
	int policy = one_in(&a->random, 3) ? MPOL_DEFAULT : MPOL_PREFERRED;

	syscall(SYS_mbind, start_of(a, r), r.count * PAGE, policy, policy == MPOL_DEFAULT ? NULL : &mask,
		policy == MPOL_DEFAULT ? 0 : 8 * sizeof(mask), MPOL_MF_MOVE);
}

static void protect(struct arena *a, struct range r)
{
	int protections[] = { PROT_NONE, PROT_READ };

	mprotect(start_of(a, r), r.count * PAGE, protections[below(&a->random, 2)]);
	usleep(below(&a->random, 2000));
	if (mprotect(start_of(a, r), r.count * PAGE, PROT_READ | PROT_WRITE)) {
		complain("worker %ld: mprotect: %m", a->number);
		_exit(1);
	}
}

static void lock_and_unlock(struct arena *a, struct range r)
{
	if (!mlock(start_of(a, r), r.count * PAGE))
		check(a, r);
	munlock(start_of(a, r), r.count * PAGE);
}

/* The kernel may free these at any time until they are written again: so they are, at once. */
static void lazily_free(struct arena *a, struct range r)
{
	advise(a, r, MADV_FREE);
	rewrite(a, r);
}

/* The same content over and over: long runs of likes in one batch. */
static void spread(struct arena *a, struct range r)
{
	struct content content = { .id = content_draw(&a->random) };

	for (size_t i = r.first; i < r.first + r.count; i++) {
		a->holds[i] = content;
		content_write(page_at(a, i), content);
	}
}

/* Pages with one more reference than they are mapped, for a moment: they must not be merged then. */
static void through_pipe(struct arena *a, struct range r)
{
	struct iovec iov = { .iov_base = page_at(a, r.first), .iov_len = PAGE };
	uint64_t copy[PAGE_WORDS];
	int ends[2];

	if (pipe(ends))
		return;
	if (vmsplice(ends[1], &iov, 1, SPLICE_F_NONBLOCK) == (ssize_t)PAGE) {
		usleep(below(&a->random, 2000));
		if (read(ends[0], copy, PAGE) == (ssize_t)PAGE && !content_holds(copy, a->holds[r.first])) {
			board->bad++;
			complain("worker %ld: a page changed in a pipe", a->number);
			_exit(1);
		}
	}
	close(ends[0]);
	close(ends[1]);
}

static void act(struct arena *a)
{
	/* what is read and written most stands most often */
	static const enum operation often[] = { OP_check, OP_check, OP_rewrite, OP_poke, OP_spread };
	enum operation op = one_in(&a->random, 2) ? often[below(&a->random, sizeof(often) / sizeof(often[0]))] :
						   below(&a->random, OP_COUNT);
	struct range r = range_draw(a, op == OP_check || op == OP_lock ? CHUNK : CHUNK / 2);

	switch (op) {
	case OP_check:		check(a, r); break;
	case OP_rewrite:	rewrite(a, r); break;
	case OP_poke:		poke(a, r); break;
	case OP_dontneed:	advise(a, r, MADV_DONTNEED); emptied(a, r); break;
	case OP_renew:		renew(a, r); break;
	case OP_swap_places:	swap_places(a, r); break;
	case OP_unmerge:	advise(a, r, MADV_UNMERGEABLE); check(a, r); advise(a, r, MADV_MERGEABLE); break;
	case OP_pageout:	advise(a, r, MADV_PAGEOUT); break;
	case OP_huge:		advise(a, r, MADV_HUGEPAGE); break;
	case OP_small:		advise(a, r, MADV_NOHUGEPAGE); break;
	case OP_collapse:	advise(a, (struct range){ 0, a->pages }, MADV_COLLAPSE); break;
	case OP_migrate:	migrate(a, r); break;
	case OP_bind:		bind_to_node(a, r); break;
	case OP_protect:	protect(a, r); break;
	case OP_lock:		lock_and_unlock(a, r); break;
	case OP_free:		lazily_free(a, r); break;
	case OP_spread:		spread(a, r); break;
	case OP_pipe:		through_pipe(a, r); break;
	case OP_COUNT:		break;
	}
	board->done[op]++;
	if (a->generation == 0)
		board->beat[a->number]++;
}

static void live(struct arena *a, unsigned long steps);

static void reap(struct arena *a, int how)
{
	for (int i = 0; i < CHILDREN; i++) {
		struct child *child = &a->child[i];
		int status;

		if (child->pid <= 0 || waitpid(child->pid, &status, how) != child->pid)
			continue;
		child->pid = 0;
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			continue;
		if (child->killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			continue;
		complain("worker %ld, generation %ld: a child ended with status %x", a->number, a->generation, status);
		_exit(1);
	}
}

static void procreate(struct arena *a)
{
	struct child *child = &a->child[below(&a->random, CHILDREN)];
	uint64_t seed = draw(&a->random);

	if (child->pid > 0) {
		child->killed = true;
		kill(child->pid, SIGKILL);
		board->killed++;
		return;
	}
	child->killed = false;
	child->pid = fork();
	if (child->pid < 0) {
		child->pid = 0;
		return;
	}
	if (child->pid) {
		board->spawned++;
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(a->child, 0, sizeof(a->child));
	a->random.state = seed;
	a->generation++;
	live(a, 10 + below(&a->random, 60));
	check(a, (struct range){ 0, a->pages });
	_exit(0);
}

static void live(struct arena *a, unsigned long steps)
{
	while (steps-- && !board->stop) {
		act(a);
		if (a->generation < GENERATIONS && one_in(&a->random, 12))
			procreate(a);
		reap(a, WNOHANG);
		if (one_in(&a->random, 40))
			usleep(below(&a->random, 20000));
	}
	for (int i = 0; i < CHILDREN; i++) {
		if (a->child[i].pid > 0) {
			a->child[i].killed = true;
			kill(a->child[i].pid, SIGKILL);
		}
	}
	reap(a, 0);
}

static char *area(size_t size)
{
	char *raw = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (raw == MAP_FAILED) {
		complain("mmap of %zu bytes: %m", size);
		_exit(1);
	}
	return (char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
}

static void arena_init(struct arena *a, size_t pages, uint64_t seed)
{
	a->pages = pages;
	a->random.state = seed;
	a->base = area(pages * PAGE);
	a->aside = area(CHUNK * PAGE);
	a->holds = calloc(pages, sizeof(*a->holds));
	if (!a->holds || madvise(a->base, pages * PAGE, MADV_MERGEABLE)) {
		complain("mergeable memory: %m");
		_exit(1);
	}
	madvise(a->base, pages * PAGE, opt.huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void worker(long number, uint64_t seed)
{
	struct arena a = { .number = number };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	arena_init(&a, opt.pages, seed);
	rewrite(&a, (struct range){ 0, a.pages });
	while (!board->stop) {
		live(&a, 100);
		check(&a, (struct range){ 0, a.pages });
	}
	_exit(0);
}

/* Born to die: fills some memory, waits for ksmd to take it up, and is gone, with or without its consent. */
void mayfly(uint64_t seed)
{
	struct arena a = { .number = -1 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	arena_init(&a, 64 + seed % 192, seed);
	rewrite(&a, (struct range){ 0, a.pages });
	usleep(below(&a.random, 800000));
	check(&a, range_draw(&a, CHUNK));
	if (one_in(&a.random, 3))
		munmap(a.base, a.pages * PAGE);
	if (one_in(&a.random, 2))
		pause();
	_exit(0);
}
