// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the KSM core in userspace; driven by tests/unit/test_ksm_core.py.
 *
 *	test scenarios FIRST COUNT MOST	random plans, numbered by seed
 *	test printed ERROR yes|no	a case for one error of the printed algorithm, with the error or mended
 *	test ours ERROR			the same case, by our core
 *	test work			what a search costs, by size and shape, one JSON object a line
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "printed.h"

static u64 blocks;

#ifdef COUNT_BLOCKS
/* gcc calls it at each basic block of the core when built with -fsanitize-coverage=trace-pc */
void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
	blocks++;
}
#endif

static u64 seed_now;

static void tell_seed(int signal)
{
	(void)signal;
	fprintf(stderr, "seed %lu\n", (unsigned long)seed_now);
}

static void scenarios(u64 first, u64 count, u32 most)
{
	signal(SIGABRT, tell_seed);
	for (seed_now = first; seed_now < first + count; seed_now++) {
		struct chance chance = { .state = (seed_now + 1) * 0x9e3779b97f4a7c15ULL };

		scenario(&chance, most);
	}
	printf("%lu scenarios\n", (unsigned long)count);
}

/* --- one case per error --- */

struct instance {
	struct plan plan;
	struct chance chance;
	u32 tree[4], cand[8];
	u32 nr_tree, nr_cand;
	int forked;	/* candidate that has the page of candidate 0 */
	int volatile_merge;
};

static const char *const names[] = { "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9", "E10", "ET" };

static const struct instance instances[PRINTED_ERRORS] = {
	[E1] = { .tree = { 50 }, .nr_tree = 1, .cand = { 10, 60 }, .nr_cand = 2 },
	[E2] = { .nr_tree = 0, .cand = { 10 }, .nr_cand = 1 },
	/* both above all of the tree: the second finds the first at pred.right */
	[E3] = { .tree = { 50 }, .nr_tree = 1, .cand = { 60, 70 }, .nr_cand = 2 },
	/* 50 matches, 60 belongs right of it */
	[E4] = { .tree = { 50, 90 }, .nr_tree = 2, .cand = { 50, 60 }, .nr_cand = 2 },
	/* two gaps in one bucket */
	[E5] = { .tree = { 20, 40, 60 }, .nr_tree = 3, .cand = { 50, 10, 30, 70 }, .nr_cand = 4 },
	/* 60 hangs itself to 50, which was merged and is another object by now */
	[E6] = { .tree = { 50 }, .nr_tree = 1, .cand = { 50, 60 }, .nr_cand = 2 },
	[E7] = { .tree = { 50 }, .nr_tree = 1, .cand = { 50, 50, 50 }, .nr_cand = 3 },
	[E8] = { .tree = { 50 }, .nr_tree = 1, .cand = { 70, 70, 60 }, .nr_cand = 3, .volatile_merge = 2 },
	[E9] = { .tree = { 50 }, .nr_tree = 1, .cand = { 70, 70 }, .nr_cand = 2, .forked = 1 },
	[E10] = { .tree = { 5 }, .nr_tree = 1, .cand = { 50, 10, 70, 30, 60, 20, 80, 40 }, .nr_cand = 8 },
	[ET] = { .tree = { 20, 40, 60, 80 }, .nr_tree = 4, .cand = { 50 }, .nr_cand = 1 },
};

static struct world *world_for(struct instance *instance, u32 lie)
{
	struct plan *plan = &instance->plan;
	struct world *world;

	*plan = (struct plan){
		.roots = 1, .values = 1, .key_shift = 32, .early_shift = 32,
		.max_sharing = 256, .lie = lie, .insane = lie, .params = { .levels = 1 },
	};
	instance->chance.state = 4711;
	plan->candidates = instance->nr_cand;
	world = calloc(1, sizeof(*world));
	world->plan = plan;
	world->chance = &instance->chance;
	plan->tree = instance->nr_tree;
	world->nr_items = instance->nr_tree + instance->nr_cand;
	world->items = calloc(world->nr_items, sizeof(*world->items));
	world->pages = calloc(world->nr_items, sizeof(*world->pages));
	world->sets = calloc(world->nr_items, sizeof(*world->sets));
	for (u32 i = 0; i < world->nr_items; i++) {
		struct item *item = &world->items[i];

		world->pages[i].value = i < instance->nr_tree ? instance->tree[i] : instance->cand[i - instance->nr_tree];
		world->pages[i].set = NO_SET;
		item->id = i;
		item->page = &world->pages[i];
		item->set = NO_SET;
		if (i < instance->nr_tree)
			tree_insert(world, item);
	}
	if (instance->forked)
		candidate(world, instance->forked)->page = candidate(world, 0)->page;
	if (instance->volatile_merge)
		candidate(world, instance->volatile_merge - 1)->volatile_merge = true;
	world->nr_tree = world->nr_linked;
	world->height = tree_height(world->roots[0].rb_node);
	return world;
}

static int error_named(const char *name)
{
	for (int i = 0; i < PRINTED_ERRORS; i++)
		if (!strcmp(names[i], name))
			return i;
	fprintf(stderr, "no error %s\n", name);
	exit(2);
}

static void judge(struct instance *instance, struct world *world, bool still)
{
	struct instance copy = *instance;
	struct world *one;

	check_structure(world, still);
	check_merged(world);
	if (!still)
		return;
	one = world_for(&copy, 0);
	for (u32 i = 0; i < instance->nr_cand; i++)
		sequential(one, candidate(one, i));
	check_same(one, world);
	world_free(one);
}

static void printed(int error, bool with)
{
	struct instance instance = instances[error];
	u32 rounds = error == E10 || error == ET ? 2000 : 1;

	for (u32 i = 0; i < rounds; i++) {
		struct world *world = world_for(&instance, rounds > 1 ? 400 : 0);

		instance.chance.state = (i + 1) * 0x9e3779b97f4a7c15ULL;
		if (error == ET) {
			printed_tree_search(world, candidate(world, 0), 3, with);
		} else {
			printed_batch(world, with ? 1U << error : 0, instance.nr_cand);
			judge(&instance, world, rounds == 1);
		}
		world_free(world);
	}
	printf("passed\n");
}

static void ours(int error)
{
	struct instance instance = instances[error];
	u32 rounds = error == E10 || error == ET ? 2000 : 1;

	for (u32 i = 0; i < rounds; i++) {
		struct world *world = world_for(&instance, rounds > 1 ? 400 : 0);
		struct ksm_batch *b = ksm_batch_alloc(instance.nr_cand, 7);

		instance.chance.state = (i + 1) * 0x9e3779b97f4a7c15ULL;
		instance.plan.params.levels = error == ET ? 3 : 1;
		batched(world, b, 0, instance.nr_cand);
		judge(&instance, world, rounds == 1);
		ksm_batch_free(b);
		world_free(world);
	}
	printf("passed\n");
}

/* --- what it costs --- */

static void measure(const char *shape, struct plan *plan, u32 n)
{
	struct chance chance = { .state = 12345 };
	struct world *world;
	struct ksm_batch *b;
	struct ksm_batch_ops ops;
	u64 before;

	plan->candidates = n;
	world = world_make(plan, &chance);
	b = ksm_batch_alloc(n, KSM_BATCH_MAX_REQS);
	ops_of(plan, &ops);
	add_candidates(world, b, 0, n);
	before = blocks;
	ksm_batch_search(b, &ops, world, &plan->params);
	ksm_batch_insert(b, &ops, world);
	printf("{\"shape\": \"%s\", \"n\": %u, \"levels\": %u, \"height\": %u, \"blocks\": %lu, \"rounds\": %lu, "
	       "\"pairs\": %lu, \"room\": %lu, \"early\": %lu, \"sorted\": %lu, \"gets\": %lu, \"linked\": %lu, "
	       "\"twins\": %lu}\n",
	       shape, n, plan->params.levels, world->height, (unsigned long)(blocks - before),
	       (unsigned long)b->stats.rounds, (unsigned long)b->stats.pairs, (unsigned long)b->stats.room,
	       (unsigned long)b->stats.early, (unsigned long)b->stats.sorted, (unsigned long)b->stats.gets,
	       (unsigned long)b->stats.linked, (unsigned long)b->stats.twins);
	ksm_batch_free(b);
	world_free(world);
}

static void work(void)
{
	static const struct {
		const char *name;
		struct plan plan;
	} shapes[] = {
		{ "unique", { .tree = 20000, .values = 1U << 31, .order = 0 } },
		{ "empty tree", { .tree = 0, .values = 1U << 31, .order = 0 } },
		{ "empty tree, rising", { .tree = 0, .values = 1U << 31, .order = 1 } },
		{ "empty tree, falling", { .tree = 0, .values = 1U << 31, .order = 2 } },
		{ "all alike", { .tree = 0, .values = 1U << 31, .order = 3 } },
		{ "all alike, in the tree", { .tree = 1, .values = 1 } },
		{ "half duplicates", { .tree = 1000, .values = 4000 } },
		{ "one page", { .tree = 0, .values = 1, .forked = 1000 } },
		{ "eager", { .tree = 20000, .values = 1U << 31, .early_shift = 16, .params = { .eager = true } } },
		{ "eager, duplicates", { .tree = 1000, .values = 2000, .early_shift = 3, .params = { .eager = true } } },
		{ "by key", { .tree = 20000, .values = 1U << 31, .key_shift = 8, } },
	};

	for (u32 i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		for (u32 n = 256; n <= 4096; n *= 2) {
			struct plan plan = shapes[i].plan;

			plan.roots = 1;
			plan.max_sharing = 256;
			plan.key_shift = plan.key_shift ? plan.key_shift : 32;
			plan.early_shift = plan.early_shift ? plan.early_shift : 32;
			plan.params.levels = 1;
			measure(shapes[i].name, &plan, n);
		}
	}
	for (u32 levels = 1; levels <= KSM_BATCH_MAX_LEVELS; levels++) {
		struct plan plan = {
			.roots = 1, .tree = 20000, .values = 1U << 31, .key_shift = 32,
			.early_shift = 32, .max_sharing = 256, .params = { .levels = levels },
		};

		measure("levels", &plan, 1);
	}
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "scenarios"))
		scenarios(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0), atoi(argv[4]));
	else if (argc == 4 && !strcmp(argv[1], "printed"))
		printed(error_named(argv[2]), !strcmp(argv[3], "yes"));
	else if (argc == 3 && !strcmp(argv[1], "ours"))
		ours(error_named(argv[2]));
	else if (argc == 2 && !strcmp(argv[1], "work"))
		work();
	else
		return 2;
	return 0;
}
