/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Caches, by line numbers: a private one for each processor, and one behind them that all share, whose ways may be
 * divided between classes of tasks. A line is looked for in all ways and put only into those of its class, as with
 * Intel's Cache Allocation Technology. Least recently used lines go first. Nothing here knows of QEMU.
 *
 * Not modelled: prefetching, writing back, and the shared cache taking lines back from the private ones.
 */
#ifndef LLC_MODEL_H
#define LLC_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_WAYS 32		/* bits of a mask */
#define MODEL_RECENT 16		/* misses that are remembered, to tell the next line of a stream */
#define MODEL_NEAR 2		/* lines between two misses of a stream */
#define MODEL_PAGE 64		/* lines; no stream crosses pages, whose neighbours are arbitrary */
#define MODEL_NONE UINT64_MAX

enum model_class { MODEL_KSMD, MODEL_VM1, MODEL_OTHER, MODEL_CLASSES };
enum model_kind { MODEL_FETCH, MODEL_LOAD, MODEL_STORE, MODEL_KINDS };

struct model_counts {
	uint64_t private_hits;
	uint64_t hits;			/* in the shared cache */
	uint64_t sequential;		/* misses next to a recent one */
	uint64_t scattered;		/* all other misses */
};

struct model_private {
	uint64_t *lines;		/* by set, the most recently used first */
	uint64_t recent[MODEL_CLASSES][MODEL_RECENT];
	unsigned int next[MODEL_CLASSES];
};

struct model {
	uint64_t private_sets, sets;
	unsigned int private_ways, ways, processors;
	uint32_t mask[MODEL_CLASSES];
	struct model_private *processor;
	uint64_t *lines, *used;		/* by set and way; when it was last used */
	uint64_t now;
	struct model_counts counts[MODEL_CLASSES][MODEL_KINDS];
};

static inline bool model_power(uint64_t number)
{
	return number && !(number & (number - 1));
}

/* Why such a model cannot be, or NULL. */
static inline const char *model_fault(const struct model *model)
{
	if (!model_power(model->private_sets) || !model_power(model->sets))
		return "the number of sets is no power of two";
	if (model->private_sets > 1 << 24 || model->sets > 1 << 24)
		return "more than 2^24 sets";
	if (!model->private_ways || model->private_ways > MODEL_WAYS || !model->ways || model->ways > MODEL_WAYS)
		return "ways are 1 to 32";
	if (!model->processors)
		return "there is no processor";
	for (int i = 0; i < MODEL_CLASSES; i++)
		if (!model->mask[i] || (uint64_t)model->mask[i] >> model->ways)
			return "a mask has no way, or ways that are not there";
	return NULL;
}

static inline uint64_t *model_nothing(uint64_t count)
{
	uint64_t *lines = malloc(count * sizeof(*lines));

	if (lines)
		memset(lines, 0xff, count * sizeof(*lines));
	return lines;
}

/* After the sizes and masks were set and found without fault. */
static inline bool model_init(struct model *model)
{
	model->processor = calloc(model->processors, sizeof(*model->processor));
	model->lines = model_nothing(model->sets * model->ways);
	model->used = calloc(model->sets * model->ways, sizeof(*model->used));
	if (!model->processor || !model->lines || !model->used)
		return false;
	for (unsigned int i = 0; i < model->processors; i++) {
		struct model_private *each = &model->processor[i];

		each->lines = model_nothing(model->private_sets * model->private_ways);
		if (!each->lines)
			return false;
		memset(each->recent, 0xff, sizeof(each->recent));
	}
	return true;
}

static inline void model_free(struct model *model)
{
	for (unsigned int i = 0; model->processor && i < model->processors; i++)
		free(model->processor[i].lines);
	free(model->processor);
	free(model->lines);
	free(model->used);
}

/* Whether the shared cache has it; it does afterwards, in one of the ways of the class if it had not. */
static inline bool model_shared(struct model *model, enum model_class class_, uint64_t line)
{
	uint64_t at = (line & (model->sets - 1)) * model->ways;
	uint64_t *lines = model->lines + at, *used = model->used + at;
	unsigned int victim = MODEL_WAYS;

	model->now++;
	for (unsigned int way = 0; way < model->ways; way++) {
		if (lines[way] == line) {
			used[way] = model->now;
			return true;
		}
	}
	/* a way that was never used was used at 0, so it goes first */
	for (unsigned int way = 0; way < model->ways; way++)
		if (model->mask[class_] >> way & 1 && (victim == MODEL_WAYS || used[way] < used[victim]))
			victim = way;
	lines[victim] = line;
	used[victim] = model->now;
	return false;
}

static inline bool model_sequential(struct model_private *own, enum model_class class_, uint64_t line)
{
	uint64_t *recent = own->recent[class_];
	bool found = false;

	for (int i = 0; i < MODEL_RECENT && !found; i++)
		found = recent[i] / MODEL_PAGE == line / MODEL_PAGE && recent[i] != line &&
			recent[i] + MODEL_NEAR >= line && line + MODEL_NEAR >= recent[i];
	recent[own->next[class_]++ % MODEL_RECENT] = line;
	return found;
}

static inline void model_invalidate(struct model *model, unsigned int processor, uint64_t line)
{
	for (unsigned int i = 0; i < model->processors; i++) {
		uint64_t *set = model->processor[i].lines + (line & (model->private_sets - 1)) * model->private_ways;

		for (unsigned int way = 0; i != processor && way < model->private_ways; way++) {
			if (set[way] != line)
				continue;
			memmove(set + way, set + way + 1, (model->private_ways - way - 1) * sizeof(*set));
			set[model->private_ways - 1] = MODEL_NONE;
			break;
		}
	}
}

static inline void model_access(struct model *model, unsigned int processor, enum model_class class_,
				enum model_kind kind, uint64_t line)
{
	struct model_counts *counts = &model->counts[class_][kind];
	struct model_private *own = &model->processor[processor];
	uint64_t *set = own->lines + (line & (model->private_sets - 1)) * model->private_ways;
	unsigned int way = 0, last = model->private_ways - 1;

	if (kind == MODEL_STORE && model->processors > 1)
		model_invalidate(model, processor, line);
	if (set[0] == line) {
		counts->private_hits++;
		return;
	}
	while (way < last && set[way] != line)
		way++;
	if (set[way] == line)
		counts->private_hits++;
	else if (model_shared(model, class_, line))
		counts->hits++;
	else if (model_sequential(own, class_, line))
		counts->sequential++;
	else
		counts->scattered++;
	memmove(set + 1, set, way * sizeof(*set));
	set[0] = line;
}

#endif
