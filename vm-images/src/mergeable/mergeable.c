// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory that KSM may merge, in a program that does not ask for it: linked into it with the wraps below, this marks all
 * private anonymous memory that the program or its malloc obtains, and its variables, if the environment has
 * PARAKSM_MERGEABLE=1. In a VM the hypervisor does that for the whole guest; a process has prctl(PR_SET_MEMORY_MERGE)
 * for it, from Linux 6.4 on only. The stack of the first thread stays as it is.
 *
 *	-Wl,--wrap=mmap,--wrap=mmap64,--wrap=__mmap,--wrap=sbrk,--wrap=__sbrk
 *
 * The names with underscores are those by which malloc and the threads of a static glibc call the two.
 *
 * The first call comes while the C library sets up thread-local storage: no errno, no library function here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>

#ifndef __x86_64__
#error "system calls are made by hand here, and only for x86-64"
#endif

/* a loop that looks like strlen or memcpy must stay a loop: theirs is chosen later */
#pragma GCC optimize("no-tree-loop-distribute-patterns", "no-stack-protector")

#define PAGE 4096UL

extern char **environ;
extern char __data_start[], _end[];	/* by the linker: what holds variables, without those that become read-only */

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__real_sbrk(intptr_t more);

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap___mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_sbrk(intptr_t more);
void *__wrap___sbrk(intptr_t more);

static long system_call(long number, long a, long b, long c)
{
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(number), "D"(a), "S"(b), "d"(c)
		     : "rcx", "r11", "memory");
	return result;
}

static bool is_wanted(void)
{
	static const char wanted[] = "PARAKSM_MERGEABLE=1";
	static int known;	/* 1: no, 2: yes; what the program does to its environment later changes nothing */

	if (!known) {
		known = 1;
		for (char **word = environ; word && *word && known == 1; word++) {
			size_t i = 0;

			while (i < sizeof(wanted) && (*word)[i] == wanted[i])
				i++;
			if (i == sizeof(wanted))
				known = 2;
		}
	}
	return known == 2;
}

static void say(int fd, const char *text, size_t bytes)
{
	system_call(SYS_write, fd, (long)text, (long)bytes);
}

/* The cause goes to standard output too, where whoever runs a workload reads. */
static _Noreturn void give_up(long error)
{
	static const char words[] = "failed memory cannot be made mergeable: madvise(MADV_MERGEABLE) gives error ";
	char digits[24];
	size_t at = sizeof(digits);

	digits[--at] = '\n';
	do
		digits[--at] = (char)('0' + error % 10);
	while (error /= 10);
	for (int fd = 1; fd <= 2; fd++) {
		say(fd, words, sizeof(words) - 1);
		say(fd, digits + at, sizeof(digits) - at);
	}
	for (;;)
		system_call(SYS_exit_group, 1, 0, 0);
}

static void advise(void *at, size_t bytes)
{
	uintptr_t start = (uintptr_t)at & ~(PAGE - 1), end = ((uintptr_t)at + bytes + PAGE - 1) & ~(PAGE - 1);
	long result;

	if (!is_wanted() || start == end)
		return;
	result = system_call(SYS_madvise, (long)start, (long)(end - start), MADV_MERGEABLE);
	if (result < 0)
		give_up(-result);
}

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	void *got = __real_mmap(at, bytes, protection, flags, fd, offset);

	if (got != MAP_FAILED && (flags & MAP_TYPE) == MAP_PRIVATE && flags & MAP_ANONYMOUS)
		advise(got, bytes);
	return got;
}

void *__wrap_mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return __wrap_mmap(at, bytes, protection, flags, fd, offset);
}

void *__wrap___mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return __wrap_mmap(at, bytes, protection, flags, fd, offset);
}

void *__wrap_sbrk(intptr_t more)
{
	void *before = __real_sbrk(more);

	if (before != (void *)-1 && more > 0)
		advise(before, (size_t)more);
	return before;
}

void *__wrap___sbrk(intptr_t more)
{
	return __wrap_sbrk(more);
}

static __attribute__((constructor)) void advise_variables(void)
{
	advise(__data_start, (size_t)(_end - __data_start));
}
