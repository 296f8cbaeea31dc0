// SPDX-License-Identifier: GPL-2.0-or-later
/* Rows of counters. A counter that this kernel lacks has no column: absent is not zero. */
#include <stdlib.h>
#include <string.h>

#include "fleet.h"

struct row {
	uint64_t t_ns, ksmd_ns, app_ns;
	long long counter[KSM_COUNTERS];
};

static struct row *rows;
static long room, used, lost;

bool sampler_init(long capacity)
{
	room = capacity;
	rows = calloc(capacity, sizeof(*rows));
	if (rows)
		memset(rows, 0xff, capacity * sizeof(*rows));	/* no page fault while the window is open */
	return rows;
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
	for (int i = 0; i < KSM_COUNTERS; i++)
		row->counter[i] = ksm_has(i) ? ksm_counter(i) : 0;
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
	fprintf(out, "t_ns,ksmd_ns,app_ns");
	for (int i = 0; i < KSM_COUNTERS; i++)
		if (ksm_has(i))
			fprintf(out, ",%s", ksm_counter_names[i]);
	fputc('\n', out);
	for (long r = 0; r < used; r++) {
		fprintf(out, "%llu,%llu,%llu", (unsigned long long)rows[r].t_ns, (unsigned long long)rows[r].ksmd_ns,
			(unsigned long long)rows[r].app_ns);
		for (int i = 0; i < KSM_COUNTERS; i++)
			if (ksm_has(i))
				fprintf(out, ",%lld", rows[r].counter[i]);
		fputc('\n', out);
	}
}
