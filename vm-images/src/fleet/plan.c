// SPDX-License-Identifier: GPL-2.0-or-later
/* The plan file: a version line, then one "key value" a line; a key that is missing or unknown is an error. */
#include <stdlib.h>
#include <string.h>

#include "fleet.h"

#define KEY(name) { #name, offsetof(struct plan, name) }

static const struct {
	const char *name;
	size_t offset;
} keys[] = {
	KEY(seed), KEY(vms), KEY(pages_shared_all), KEY(pages_shared_some), KEY(shared_group), KEY(pages_zero),
	KEY(pages_unique), KEY(pages_volatile), KEY(volatile_period_ms), KEY(alike_percent), KEY(dataset_rows), KEY(train),
	KEY(solver), KEY(repeats), KEY(ksm), KEY(pages_to_scan), KEY(sleep_millisecs), KEY(max_page_sharing),
	KEY(use_zero_pages), KEY(merge_across_nodes), KEY(ksmd_nice), KEY(ksmd_rt_priority), KEY(vm_weight),
	KEY(prescan_passes), KEY(converge_passes), KEY(window_ms), KEY(sample_ms), KEY(vm_sample_ms),
};

#define KEYS (sizeof(keys) / sizeof(keys[0]))

static long *field(const struct plan *plan, size_t i)
{
	return (long *)((char *)plan + keys[i].offset);
}

static bool set(struct plan *plan, bool *seen, const char *key, const char *value)
{
	char *end;

	if (!strcmp(key, "dataset")) {
		snprintf(plan->dataset, sizeof(plan->dataset), "%s", value);
		return true;
	}
	for (size_t i = 0; i < KEYS; i++) {
		if (strcmp(key, keys[i].name))
			continue;
		if (seen[i])
			return false;
		*field(plan, i) = strtol(value, &end, 10);
		seen[i] = true;
		return !*end;
	}
	return false;
}

/* Lines that may stand more than once, and whose order counts. */
static bool set_repeated(struct plan *plan, const char *line)
{
	char name[256], value[128];

	if (sscanf(line, "sysfs %255s %127[^\n]", name, value) == 2 && plan->settings < SETTINGS) {
		struct setting *setting = &plan->setting[plan->settings++];

		strcpy(setting->path, name);
		strcpy(setting->value, value);
		return true;
	}
	if (sscanf(line, "counter %63s", name) == 1 && plan->counters < COUNTERS) {
		strcpy(plan->counter[plan->counters++], name);
		return true;
	}
	return false;
}

bool plan_read(struct plan *plan, const char *path)
{
	char line[512], key[64], value[256];
	bool seen[KEYS] = { false };
	FILE *file = fopen(path, "r");

	memset(plan, 0, sizeof(*plan));
	strcpy(plan->dataset, "-");
	if (!file || !fgets(line, sizeof(line), file) || strcmp(line, "paraksm-fleet-plan 2\n")) {
		fprintf(stderr, "fleet: %s is not a plan of version 2\n", path);
		return false;
	}
	while (fgets(line, sizeof(line), file)) {
		if (set_repeated(plan, line))
			continue;
		if (sscanf(line, "%63s %255s", key, value) == 2 && set(plan, seen, key, value))
			continue;
		fprintf(stderr, "fleet: plan: cannot read: %s", line);
		return false;
	}
	fclose(file);
	for (size_t i = 0; i < KEYS; i++) {
		if (seen[i])
			continue;
		fprintf(stderr, "fleet: plan: no %s\n", keys[i].name);
		return false;
	}
	if (plan->vms < 1 || plan->shared_group < 1 || plan->sample_ms < 1 || plan->vm_sample_ms < 1 ||
	    plan->volatile_period_ms < 1) {
		fprintf(stderr, "fleet: plan: vms, shared_group and all periods are at least 1\n");
		return false;
	}
	return true;
}

void plan_write(const struct plan *plan, FILE *out)
{
	for (size_t i = 0; i < KEYS; i++)
		fprintf(out, "%s %ld\n", keys[i].name, *field(plan, i));
	fprintf(out, "dataset %s\n", plan->dataset);
	for (long i = 0; i < plan->settings; i++)
		fprintf(out, "sysfs %s %s\n", plan->setting[i].path, plan->setting[i].value);
	for (long i = 0; i < plan->counters; i++)
		fprintf(out, "counter %s\n", plan->counter[i]);
}
