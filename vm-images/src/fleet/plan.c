// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The plan file: a version line, then one "key value" a line; a key that is missing or unknown is an error. A line
 * "checkpoint FILE" parts it in two: what stands before it decides what is in memory, the rest comes from that file.
 */
#include <stdlib.h>
#include <string.h>

#include "fleet.h"

#define KEY(name) { #name, offsetof(struct plan, name), false }
#define LOADED_KEY(name) { #name, offsetof(struct plan, name), true }

static const struct {
	const char *name;
	size_t offset;
	bool loaded;	/* the VMs go by it: it has to be known when they start */
} keys[] = {
	LOADED_KEY(seed), LOADED_KEY(vms), LOADED_KEY(pages_shared_all), LOADED_KEY(pages_shared_some),
	LOADED_KEY(shared_group), LOADED_KEY(pages_zero), LOADED_KEY(pages_unique), LOADED_KEY(pages_volatile),
	LOADED_KEY(volatile_period_ms), LOADED_KEY(alike_percent), LOADED_KEY(dataset_rows), LOADED_KEY(train),
	LOADED_KEY(solver), LOADED_KEY(repeats),
	KEY(ksm), KEY(pages_to_scan), KEY(sleep_millisecs), KEY(max_page_sharing), KEY(use_zero_pages),
	KEY(merge_across_nodes), KEY(ksmd_nice), KEY(ksmd_rt_priority), KEY(vm_weight), KEY(prescan_passes),
	KEY(converge_passes), KEY(window_ms), KEY(sample_ms), KEY(vm_sample_ms),
	/* from here on only plans with real VMs have them */
	LOADED_KEY(nested), LOADED_KEY(vm_memory_mib), LOADED_KEY(vm_kaslr), LOADED_KEY(vm_group), LOADED_KEY(vm_boots),
	LOADED_KEY(ballast_zero), LOADED_KEY(ballast_self), LOADED_KEY(ballast_inter), LOADED_KEY(ballast_unique),
	KEY(bystanders), KEY(bystander_percent),
};

#define KEYS (sizeof(keys) / sizeof(keys[0]))
#define NESTED_KEYS 11

static size_t keys_of(const struct plan *plan)
{
	return plan->nested ? KEYS : KEYS - NESTED_KEYS;
}

static bool seen[KEYS];

static long *field(const struct plan *plan, size_t i)
{
	return (long *)((char *)plan + keys[i].offset);
}

static bool set(struct plan *plan, const char *key, const char *value)
{
	char *end;

	if (!strcmp(key, "dataset") && !*plan->rest) {
		snprintf(plan->dataset, sizeof(plan->dataset), "%s", value);
		return true;
	}
	if (!strcmp(key, "checkpoint") && !*plan->rest) {
		snprintf(plan->rest, sizeof(plan->rest), "%s", value);
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
	long number;
	int at = 0;

	if (sscanf(line, "sysfs %255s %127[^\n]", name, value) == 2 && plan->settings < SETTINGS) {
		struct setting *setting = &plan->setting[plan->settings++];

		strcpy(setting->path, name);
		strcpy(setting->value, value);
		return true;
	}
	if (sscanf(line, "vm %ld %n", &number, &at) == 1 && at) {
		if (number < 1 || number > COMMANDS || plan->command[number - 1])
			return false;
		plan->command[number - 1] = strndup(line + at, strcspn(line + at, "\n"));
		return plan->command[number - 1];
	}
	if (sscanf(line, "go %ld %n", &number, &at) == 1 && at) {
		if (number < 1 || number > COMMANDS || plan->order[number - 1])
			return false;
		plan->orders++;
		plan->order[number - 1] = strndup(line + at, strcspn(line + at, "\n"));
		return plan->order[number - 1];
	}
	if (sscanf(line, "counter %63s", name) == 1 && plan->counters < COUNTERS) {
		strcpy(plan->counter[plan->counters++], name);
		return true;
	}
	return false;
}

/* Lines until the end of the file, or a line "end": a file that is longer than what is in it has one. */
static bool read_lines(struct plan *plan, FILE *file, bool *ended)
{
	char line[512], key[64], value[256];

	*ended = false;
	while (!*ended && fgets(line, sizeof(line), file)) {
		*ended = !strcmp(line, "end\n");
		if (*ended || set_repeated(plan, line))
			continue;
		if (sscanf(line, "%63s %255s", key, value) == 2 && set(plan, key, value))
			continue;
		fprintf(stderr, "fleet: plan: cannot read: %s", line);
		return false;
	}
	return true;
}

static bool complete(const struct plan *plan, bool loaded_only)
{
	for (size_t i = 0; i < keys_of(plan); i++) {
		if (seen[i] || (loaded_only && !keys[i].loaded))
			continue;
		fprintf(stderr, "fleet: plan: no %s\n", keys[i].name);
		return false;
	}
	if (plan->vms < 1 || plan->shared_group < 1 || plan->volatile_period_ms < 1 ||
	    (!loaded_only && (plan->sample_ms < 1 || plan->vm_sample_ms < 1))) {
		fprintf(stderr, "fleet: plan: vms, shared_group and all periods are at least 1\n");
		return false;
	}
	if (plan->nested && (plan->vm_boots < 1 || plan->vm_memory_mib < 1 || plan->vms > COMMANDS)) {
		fprintf(stderr, "fleet: plan: nested VMs need memory and a number that boot at a time; at most %d\n", COMMANDS);
		return false;
	}
	if (!loaded_only && plan->bystanders == BYSTANDERS_DUTY &&
	    (plan->bystander_percent < 1 || plan->bystander_percent > 100)) {
		fprintf(stderr, "fleet: plan: bystander_percent is 1 to 100\n");
		return false;
	}
	return true;
}

bool plan_read(struct plan *plan, const char *path)
{
	char line[64];
	FILE *file = fopen(path, "r");
	bool ended, ok;

	memset(plan, 0, sizeof(*plan));
	memset(seen, 0, sizeof(seen));
	strcpy(plan->dataset, "-");
	if (!file || !fgets(line, sizeof(line), file) || strcmp(line, "paraksm-fleet-plan 2\n")) {
		fprintf(stderr, "fleet: %s is not a plan of version 2\n", path);
		return false;
	}
	ok = read_lines(plan, file, &ended);
	fclose(file);
	return ok && complete(plan, *plan->rest);
}

bool plan_read_rest(struct plan *plan)
{
	FILE *file = fopen(plan->rest, "r");
	bool ended, ok;

	if (!file) {
		fprintf(stderr, "fleet: %s: %m\n", plan->rest);
		return false;
	}
	ok = read_lines(plan, file, &ended);
	fclose(file);
	if (ok && !ended) {
		fprintf(stderr, "fleet: plan: %s has no line \"end\"\n", plan->rest);
		return false;
	}
	return ok && complete(plan, false);
}

bool plan_works(const struct plan *plan, long vm)
{
	if (!plan->train)
		return false;
	return plan->orders ? vm < COMMANDS && plan->order[vm] : !vm;
}

bool plan_runs(const struct plan *plan, long vm)
{
	if (plan_works(plan, vm))
		return true;
	return plan->train && plan->bystanders != BYSTANDERS_FROZEN && vm < COMMANDS && plan->command[vm];
}

void plan_write(const struct plan *plan, FILE *out)
{
	for (size_t i = 0; i < keys_of(plan); i++)
		fprintf(out, "%s %ld\n", keys[i].name, *field(plan, i));
	fprintf(out, "dataset %s\n", plan->dataset);
	for (long i = 0; i < COMMANDS; i++)
		if (plan->command[i])
			fprintf(out, "vm %ld %s\n", i + 1, plan->command[i]);
	for (long i = 0; i < COMMANDS; i++)
		if (plan->order[i])
			fprintf(out, "go %ld %s\n", i + 1, plan->order[i]);
	for (long i = 0; i < plan->settings; i++)
		fprintf(out, "sysfs %s %s\n", plan->setting[i].path, plan->setting[i].value);
	for (long i = 0; i < plan->counters; i++)
		fprintf(out, "counter %s\n", plan->counter[i]);
}
