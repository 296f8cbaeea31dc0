/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A small world for the KSM core: pages that are numbers, trees of them, and a
 * user of the core that merges what it finds, beside the algorithm that takes
 * one candidate after the other. Everything that happens is drawn from a
 * struct chance, which is a generator for tests and the input for the fuzzer.
 */
#ifndef WORLD_H
#define WORLD_H

#include <stdio.h>

#include "../../patches/linux/src/mm/ksm_batch.h"

#define ROOTS 3
#define NO_SET (-1)

struct chance {
	u64 state;
	const u8 *data;
	size_t left;
	bool from_data;
};

u32 draw(struct chance *chance, u32 below);

/* A page: its content is a number, its address the token that the core sees. */
struct page {
	u32 value;
	int held;
	int set;		/* the KSM page of this set, or NO_SET */
	bool poisoned;
};

/* What one mapping of a page is to KSM: a rmap_item. */
struct item {
	struct rb_node rb;
	struct page *page;
	u32 id;
	u32 key;		/* as of insertion */
	int root;
	int set;
	bool linked;
	bool absent;		/* its page cannot be fetched */
	bool stale;		/* of a stable tree: the page is gone */
	bool volatile_merge;	/* a merge with it fails in the last step */
};

/* A stable node and what hangs at it. */
struct set {
	u32 value;
	int root;
	u32 members;
};

/* What a world is made of; two worlds made of the same plan are equal. */
struct plan {
	u32 roots, tree, candidates;
	u32 values;		/* contents are below this */
	u32 key_shift;		/* 32: no key */
	u32 early_shift;	/* what the first cache line tells */
	u32 max_sharing;
	u32 absent, stale, unmergeable;	/* per mille */
	u32 fading;		/* nodes that are found stale at any time, per mille of fetches */
	u32 forked;		/* candidates that share a page with an earlier item, per mille */
	u32 order;		/* of candidates: 0 random, 1 rising, 2 falling, 3 all alike */
	/* what the backend and the owners of pages do, per mille of compares */
	u32 mutate, lie, pending, retry, error;
	bool insane;		/* compare_cpu answers at random as well */
	bool no_backend;
	struct ksm_batch_params params;
};

struct world {
	const struct plan *plan;
	struct chance *chance;
	struct rb_root roots[ROOTS];
	struct item *items;
	struct page *pages;
	struct set *sets;
	u32 nr_items, nr_sets, nr_linked, nr_tree;
	u64 compares, cpu_compares, gets, self_merges;
	u32 height;		/* of the highest tree when the batch was searched */
};

struct world *world_make(const struct plan *plan, struct chance *chance);
void world_free(struct world *world);
struct item *candidate(struct world *world, u32 nth);
int compare_items(struct world *world, const struct item *a, const struct item *b);
u32 tree_height(const struct rb_node *node);
bool tree_insert(struct world *world, struct item *item);
void tree_erase(struct world *world, struct item *item);

/* The algorithm that takes one candidate after the other. */
void sequential(struct world *world, struct item *item);
int merge_two(struct world *world, struct item *late, struct item *tree);
bool join_set(struct world *world, struct item *item, int set);
int find_set(struct world *world, const struct item *item);

extern const struct ksm_batch_ops world_ops;
const struct ksm_batch_ops *ops_of(const struct plan *plan, struct ksm_batch_ops *ops);
void add_candidates(struct world *world, struct ksm_batch *b, u32 from, u32 to);
/* Search, insert and merge the candidates [from, to), as the kernel's glue does. */
void batched(struct world *world, struct ksm_batch *b, u32 from, u32 to);
void commit(struct world *world, struct ksm_batch *b);

/* The rules; each ends the program with a message if it is broken. */
void check_structure(const struct world *world, bool ordered);
void check_batch(const struct world *world, const struct ksm_batch *b);
void check_same(const struct world *one, const struct world *other);
void check_merged(const struct world *world);
void check_none_held(const struct world *world);

/* All rules over one random plan; what the property test and the fuzzer run. */
void scenario(struct chance *chance, u32 most);

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);

#define EXPECT(condition, ...) \
	do { \
		if (!(condition)) \
			fail(__VA_ARGS__); \
	} while (0)

#endif /* WORLD_H */
