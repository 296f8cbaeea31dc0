// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two tables of counters: rows of the whole machine, and, less often because there are many, rows of each VM.
 * A counter that this kernel lacks has no column: absent is not zero.
 */
#include <stdlib.h>
#include <string.h>

#include "fleet.h"

struct row {
	uint64_t t_ns, ksmd_ns, app_ns, idle_ns;
	long long counter[KSM_COUNTERS];
};

struct vm_row {
	uint64_t t_ns;
	struct usage usage;
};

static struct row *rows;
static struct vm_row *vm_rows;
static struct process *process;
static long room, used, lost, vm_room, vm_used, vms;

/* No page fault while the window is open. */
static void *touched(long count, size_t size)
{
	void *memory = calloc(count, size);

	if (memory)
		memset(memory, 0xff, count * size);
	return memory;
}

/* A window may last longer than planned: until VM 1 is done. Passes flat out have no planned length. */
static long periods(const struct plan *plan, long period_ms, long slack)
{
	return slack + 4 * (plan->window_ms / period_ms);
}

bool sampler_init(const struct plan *plan, const struct vm *vm)
{
	vms = plan->vms;
	room = periods(plan, plan->sample_ms, 20000);
	vm_room = periods(plan, plan->vm_sample_ms, 200 + 40000 / vms) * vms;
	rows = touched(room, sizeof(*rows));
	vm_rows = touched(vm_room, sizeof(*vm_rows));
	process = calloc(vms, sizeof(*process));
	if (!rows || !vm_rows || !process)
		return false;
	for (long i = 0; i < vms; i++)
		if (!process_open(&process[i], vm[i].pid))
			return false;
	return true;
}

void sampler_take(uint64_t start, pid_t ksmd, pid_t app)
{
	struct row *row;

	if (used == room) {
		lost++;
		return;
	}
	row = &rows[used++];
	row->t_ns = now_ns() - start;
	row->ksmd_ns = task_runtime(ksmd);
	row->app_ns = task_runtime(app);
	row->idle_ns = idle_ns();
	for (int i = 0; i < ksm_counters(); i++)
		row->counter[i] = ksm_has(i) ? ksm_counter(i) : 0;
}

void sampler_take_vms(uint64_t t_ns)
{
	if (vm_used + vms > vm_room) {
		lost += vms;
		return;
	}
	for (long i = 0; i < vms; i++) {
		struct vm_row *row = &vm_rows[vm_used++];

		row->t_ns = t_ns;
		process_usage(&process[i], &row->usage);
	}
}

long sampler_count(void)
{
	return used;
}

long sampler_lost(void)
{
	return lost;
}

void sampler_write(FILE *out)
{
	fprintf(out, "t_ns,ksmd_ns,app_ns,idle_ns");
	for (int i = 0; i < ksm_counters(); i++)
		if (ksm_has(i))
			fprintf(out, ",%s", ksm_counter_name(i));
	fputc('\n', out);
	for (long r = 0; r < used; r++) {
		fprintf(out, "%llu,%llu,%llu,%llu", (unsigned long long)rows[r].t_ns,
			(unsigned long long)rows[r].ksmd_ns, (unsigned long long)rows[r].app_ns,
			(unsigned long long)rows[r].idle_ns);
		for (int i = 0; i < ksm_counters(); i++)
			if (ksm_has(i))
				fprintf(out, ",%lld", rows[r].counter[i]);
		fputc('\n', out);
	}
}

void sampler_write_vms(FILE *out)
{
	bool merging = process[0].merging >= 0;

	fprintf(out, "t_ns,vm,runtime_ns,faults%s\n", merging ? ",ksm_merging_pages" : "");
	for (long r = 0; r < vm_used; r++) {
		const struct usage *usage = &vm_rows[r].usage;

		fprintf(out, "%llu,%ld,%lld,%lld", (unsigned long long)vm_rows[r].t_ns, r % vms + 1,
			usage->runtime_ns, usage->faults);
		if (merging)
			fprintf(out, ",%lld", usage->merging_pages);
		fputc('\n', out);
	}
}
