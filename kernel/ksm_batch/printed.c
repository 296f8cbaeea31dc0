// SPDX-License-Identifier: GPL-2.0-only
/*
 * The paper's algorithms as printed, for tests only: each of their errors can
 * be left in, alone, to show that the rules in world.c notice it.
 */
#include <stdlib.h>
#include <string.h>

#include <linux/kernel.h>

#include "printed.h"

/* search_result of the paper */
struct result {
	struct item *cand;
	struct rb_node *pred, *succ;
	struct item *match;
	bool done;
};

static struct item *item_of(struct rb_node *rb)
{
	return container_of(rb, struct item, rb);
}

static void search(struct world *world, struct result *result)
{
	struct rb_node *rb = world->roots[result->cand->root].rb_node;

	while (rb) {
		int order = compare_items(world, result->cand, item_of(rb));

		if (!order) {
			result->pred = rb;
			result->succ = rb;
			result->match = item_of(rb);
			return;
		}
		if (order > 0) {
			result->pred = rb;
			rb = rb->rb_right;
		} else {
			result->succ = rb;
			rb = rb->rb_left;
		}
	}
}

/* Descending by content. The printed text says no more than "sort". */
static void sort_bounded(struct world *world, struct result *group, u32 nr)
{
	for (u32 i = 1; i < nr; i++)
		for (u32 k = i; k && compare_items(world, group[k].cand, group[k - 1].cand) > 0; k--) {
			struct result swap = group[k];

			group[k] = group[k - 1];
			group[k - 1] = swap;
		}
}

static int noisy(struct world *world, const struct result *a, const struct result *b)
{
	if (world->plan->lie && draw(world->chance, 1000) < world->plan->lie)
		return 1;
	return compare_items(world, b->cand, a->cand);
}

/* Quicksort as libraries have it: the pivot is a sentinel for both scans. */
static void sort_unguarded(struct world *world, struct result *group, int nr)
{
	while (nr > 1) {
		struct result pivot = group[nr / 2];
		int i = -1, k = nr;

		for (;;) {
			do
				i++;
			while (noisy(world, &pivot, &group[i]) > 0);
			do
				k--;
			while (noisy(world, &group[k], &pivot) > 0);
			if (i >= k)
				break;
			struct result swap = group[i];

			group[i] = group[k];
			group[k] = swap;
		}
		sort_unguarded(world, group + k + 1, nr - k - 1);
		nr = k + 1;
	}
}

static bool has(u32 errors, enum printed_error error)
{
	return errors >> error & 1;
}

static void insert(struct world *world, u32 errors, struct result *result)
{
	struct rb_root *root = &world->roots[result->cand->root];
	struct rb_node **link, *parent;
	bool mend_empty = !has(errors, E2) && !result->pred && !result->succ;
	bool mend_pred = !has(errors, E1) && !result->pred;

	if (mend_empty) {
		parent = NULL;
		link = &root->rb_node;
	} else if (!mend_pred && !result->pred->rb_right) {	/* line 8 */
		parent = result->pred;
		link = &parent->rb_right;			/* line 9 */
	} else {
		parent = result->succ;
		link = &parent->rb_left;			/* line 11 */
	}
	EXPECT(!*link, "the place for item %u is taken", result->cand->id);
	rb_link_node(&result->cand->rb, parent, link);
	rb_insert_color(&result->cand->rb, root);		/* line 12 */
	result->cand->linked = true;
	world->nr_linked++;
}

static u32 group_of(u32 errors, const struct result *result)
{
	if (has(errors, E5))
		return 0;	/* a table with one bucket */
	return result->pred ? item_of(result->pred)->id + 1 : 0;
}

static void merge_matches(struct world *world, u32 errors, struct result *results, u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		struct item *tree = results[i].match;

		if (!tree || results[i].done)
			continue;
		results[i].done = true;
		if (!has(errors, E7) && tree->set != NO_SET) {
			if (world->sets[tree->set].members < world->plan->max_sharing)
				join_set(world, results[i].cand, tree->set);
			else
				sequential(world, results[i].cand);
		} else {
			merge_two(world, results[i].cand, tree);
		}
	}
}

void printed_batch(struct world *world, u32 errors, u32 nr)
{
	/* of its exact size, so that a step beside it is seen */
	struct result *results = calloc(nr, sizeof(*results));

	for (u32 i = 0; i < nr; i++) {
		results[i].cand = candidate(world, i);
		search(world, &results[i]);
	}
	if (has(errors, E6))
		merge_matches(world, errors, results, nr);
	for (u32 i = 0; i < nr; i++) {
		struct result *group = calloc(nr, sizeof(*group));
		u32 size = 0;

		for (u32 k = i; k < nr; k++) {
			if (results[k].done || (results[k].match && !has(errors, E4)))
				continue;
			if (group_of(errors, &results[k]) != group_of(errors, &results[i]) ||
			    results[k].cand->root != results[i].cand->root)
				continue;
			if (results[i].match && !has(errors, E4))
				continue;
			group[size++] = results[k];
			results[k].done = true;
		}
		group = realloc(group, (size + !size) * sizeof(*group));
		if (has(errors, E10))
			sort_unguarded(world, group, size);
		else
			sort_bounded(world, group, size);
		/* equal ones merge and are removed from the group */
		for (u32 k = 1; k < size; k++) {
			struct item *first = group[k - 1].cand, *same = group[k].cand;

			if (compare_items(world, first, same))
				continue;
			if (first->page == same->page && !has(errors, E9)) {
				memmove(group + k, group + k + 1, (--size - k) * sizeof(*group));
				k--;
				continue;
			}
			first->linked = true;	/* the merge asks for a page in the tree */
			world->nr_linked++;
			rb_link_node(&first->rb, NULL, &(struct rb_node *){ NULL });
			if (first->page == same->page) {
				world->self_merges++;
			} else if (!first->volatile_merge && !same->volatile_merge) {
				world->sets[world->nr_sets] = (struct set){ same->page->value, same->root, 2 };
				first->set = same->set = world->nr_sets++;
				same->page->set = same->set;
			}
			first->linked = false;
			world->nr_linked--;
			if (first->set == NO_SET && !has(errors, E8)) {
				memmove(group + k, group + k + 1, (--size - k) * sizeof(*group));
				k--;
				continue;
			}
			memmove(group + k - 1, group + k + 1, (size - k - 1) * sizeof(*group));
			size -= 2;
			k = k > 1 ? k - 2 : 0;
		}
		for (u32 k = 0; k < size; k++) {
			if (k && !has(errors, E3))
				group[k].succ = &group[k - 1].cand->rb;		/* update_succ */
			insert(world, errors, &group[k]);
		}
		free(group);
	}
	if (!has(errors, E4))
		merge_matches(world, errors, results, nr);
	free(results);
}

/* --- Para-ksmT --- */

static u32 in_order(struct rb_node *rb, u32 levels, struct rb_node **array, u32 nr)
{
	if (!rb || !levels)
		return nr;
	nr = in_order(rb->rb_left, levels - 1, array, nr);
	array[nr++] = rb;
	return in_order(rb->rb_right, levels - 1, array, nr);
}

/*
 * One candidate against the top levels of its tree. The answers are drawn once
 * per pair, as pages may change between two comparisons. By sign: predecessor
 * is the last tree page found smaller, successor the first found larger.
 */
void printed_tree_search(struct world *world, struct item *item, u32 levels, bool by_sign)
{
	struct rb_root *root = &world->roots[item->root];
	struct rb_node *array[64], *pred = NULL, *succ = NULL, **link, *parent = NULL;
	int order[64];
	u32 nr = in_order(root->rb_node, levels, array, 0), i;

	for (i = 0; i < nr; i++) {
		order[i] = compare_items(world, item, item_of(array[i])) < 0 ? -1 : 1;
		if (draw(world->chance, 1000) < world->plan->lie)
			order[i] = -order[i];
	}
	if (by_sign) {
		for (i = 0; i < nr; i++)
			if (order[i] > 0)
				pred = array[i];
		for (i = nr; i--; )
			if (order[i] < 0)
				succ = array[i];
		/* neighbours, or the place between them is none */
		EXPECT(!pred || rb_next(pred) == succ, "predecessor and successor are no neighbours");
		EXPECT(pred || !succ || !rb_prev(succ), "successor has a predecessor");
		return;
	}
	for (link = &root->rb_node; *link; ) {
		for (i = 0; array[i] != *link; i++)
			;
		parent = *link;
		if (order[i] < 0)
			succ = parent;
		else
			pred = parent;
		link = order[i] < 0 ? &parent->rb_left : &parent->rb_right;
	}
	EXPECT(!pred || rb_next(pred) == succ, "predecessor and successor are no neighbours");
}
