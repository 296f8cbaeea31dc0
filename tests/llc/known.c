// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * known: accesses whose misses are known beforehand, in a window. For caches of 64 sets, of which a page has one line
 * each wherever it is: 8 ways privately, 15 behind them.
 *
 *	vm1	4 pages again and again: they fit the private cache
 *	ksmd	12 pages, mapped twice, through either mapping in turn: they fit the shared cache if lines go by physical
 *		addresses, and are 24 pages otherwise
 *	walker	40 pages, which fit nothing
 *
 * One after the other, each a process of that name.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, LINE = 64, ROUNDS = 1000 };

static int walk(const char *name, long pages)
{
	int memory = memfd_create("pages", 0), status = 1;
	char *view[2];
	pid_t pid;

	if (memory < 0 || ftruncate(memory, pages * PAGE))
		return 1;
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 2; i++) {
			view[i] = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0);
			if (view[i] == MAP_FAILED)
				_exit(1);
		}
		prctl(PR_SET_NAME, name);
		usleep(1000);		/* its turn begins with its name */
		for (int round = 0; round < ROUNDS; round++)
			for (char *at = view[round % 2], *end = at + pages * PAGE; at < end; at += LINE)
				(void)*(volatile uint64_t *)at;
		_exit(0);
	}
	close(memory);
	return waitpid(pid, &status, 0) == pid ? status : 1;
}

int main(void)
{
	int status;

	prctl(PR_SET_NAME, "window open");
	status = walk("vm1", 4) | walk("ksmd", 12) | walk("walker", 40);
	prctl(PR_SET_NAME, "window closed");
	printf("rounds %d\n", ROUNDS);
	return !!status;
}
