// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The end of a run with real VMs, judged from outside while all of them stand still: whether anything in memory changes
 * when what the run has merged is taken apart, what KSM holds after it has seen everything anew, what the contents of
 * memory allow, and whether that comes apart unchanged as well.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "fleet.h"

#define SEEN_PASSES 3			/* one may be under way, one stores checksums, one merges */
#define PATIENCE_NS (3600ULL * 1000000000ULL)

static bool stop_all(const struct vm *vm, long vms)
{
	for (long i = 0; i < vms; i++)
		if (!nested_alive(&vm[i]) || kill(vm[i].pid, SIGSTOP)) {
			return false;
		}
	return true;
}

static bool scan_all(void)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	long wanted = ksm_read("full_scans") + SEEN_PASSES;
	uint64_t give_up = now_ns() + PATIENCE_NS;

	if (!ksm_write("sleep_millisecs", 0) || !ksm_write("run", 1))
		return false;
	while (ksm_read("full_scans") < wanted) {
		nanosleep(&nap, NULL);
		if (now_ns() > give_up) {
			fprintf(stderr, "fleet: ksmd did not finish %d passes\n", SEEN_PASSES);
			return false;
		}
	}
	return ksm_write("run", 0);
}

static void write_counters(const char *section, FILE *out)
{
	static const char *const names[] = { "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
					     "stable_node_chains", "stable_node_dups" };

	fprintf(out, "[%s]\n", section);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		fprintf(out, "%s %ld\n", names[i], ksm_read(names[i]));
}

bool witness_write(const struct plan *plan, const struct vm *vm, FILE *out)
{
	pid_t *pid = calloc(plan->vms, sizeof(*pid));
	bool ok = pid && stop_all(vm, plan->vms);

	for (long i = 0; ok && i < plan->vms; i++)
		pid[i] = vm[i].pid;
	/* What the run has made of memory: pages were merged while VMs wrote to them. */
	ok = ok && pagestat(pid, plan->vms, "found", out) && ksm_write("run", 2);
	if (ok)
		write_counters("loose", out);
	/*
	 * Counters are judged when all was merged anew: a stable node whose other pages were written since stays one
	 * with a single page, which no content demands. What is reached from nothing depends on the contents alone.
	 */
	ok = ok && (!plan->ksm || scan_all());
	if (ok) {
		write_counters("settled", out);
		ok = pagestat(pid, plan->vms, "merged", out) && ksm_write("run", 2);
	}
	if (ok) {
		write_counters("apart", out);
		ok = pagestat(pid, plan->vms, "unmerged", out) && ksm_write("run", 0);
	}
	for (long i = 0; ok && i < plan->vms; i++)
		ok = nested_alive(&vm[i]);
	free(pid);
	return ok;
}
