// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the batched searches of KSM's trees. A page is a number here,
 * its address the token that the core handles.
 */
#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/rbtree.h>

#include "ksm_batch.h"

#define TEST_NODES	500U
#define TEST_CANDS	256U

struct test_item {
	struct rb_node rb;
	struct page *page;
	u32 content;
	u32 id;
	bool linked;
	bool stale;
	bool absent;
};

struct test_tree {
	struct kunit *test;
	struct rb_root root;
	struct rnd_state rnd;
	struct test_item *nodes;
	struct test_item *cands;
	struct ksm_batch *b;
	struct ksm_batch_ops ops;
	struct ksm_batch_params params;
	unsigned int linked;
	unsigned int pruned;
	int held;
	/* per cent of comparisons */
	unsigned int noise;
	unsigned int unanswered;
	enum ksm_req_status unanswered_as;
};

static u32 test_random(struct test_tree *tree, u32 below)
{
	return prandom_u32_state(&tree->rnd) % below;
}

static struct test_item *test_item(const struct rb_node *rb)
{
	return rb_entry(rb, struct test_item, rb);
}

static int test_order(u32 a, u32 b)
{
	return a < b ? -1 : a > b;
}

static u32 test_content(struct page *page)
{
	return ((struct test_item *)page)->content;
}

static void test_get(void *ctx, struct ksm_batch_node **nodes, unsigned int nr)
{
	struct test_tree *tree = ctx;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct test_item *item = test_item(nodes[i]->rb);

		if (item->stale) {
			nodes[i]->state = KSM_NODE_STALE;
		} else if (item->absent) {
			nodes[i]->state = KSM_NODE_GIVE_UP;
		} else {
			nodes[i]->state = KSM_NODE_OK;
			nodes[i]->page = item->page;
			tree->held++;
		}
	}
}

static void test_put(void *ctx, struct ksm_batch_node *node)
{
	struct test_tree *tree = ctx;

	tree->held--;
}

static int test_compare_cpu(void *ctx, struct page *a, struct page *b)
{
	struct test_tree *tree = ctx;

	if (test_random(tree, 100) < tree->noise)
		return (int)test_random(tree, 3) - 1;
	return test_order(test_content(a), test_content(b));
}

static void test_compare(void *ctx, struct ksm_batch_req **reqs,
			 unsigned int nr)
{
	struct test_tree *tree = ctx;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (test_random(tree, 100) < tree->unanswered) {
			reqs[i]->status = tree->unanswered_as;
			reqs[i]->order = 0;
			continue;
		}
		reqs[i]->status = KSM_REQ_DONE;
		reqs[i]->order = test_compare_cpu(tree, reqs[i]->slot->page,
						  reqs[i]->node->page);
	}
}

/* The upper half of a content stands for the first cache line of a page */
static void test_early(void *ctx, struct ksm_batch_req *req)
{
	u32 a = test_content(req->slot->page) >> 8;
	u32 b = test_content(req->node->page) >> 8;

	if (a == b)
		return;
	req->status = KSM_REQ_DONE;
	req->order = test_order(a, b);
}

static void test_prune(void *ctx, struct rb_node *rb)
{
	struct test_tree *tree = ctx;

	KUNIT_EXPECT_TRUE(tree->test, test_item(rb)->stale);
	KUNIT_EXPECT_TRUE(tree->test, test_item(rb)->linked);
	rb_erase(rb, &tree->root);
	memset(rb, 0x6b, sizeof(*rb));
	test_item(rb)->linked = false;
	tree->linked--;
	tree->pruned++;
}

static void test_linked(void *ctx, struct ksm_batch_slot *slot)
{
	struct test_tree *tree = ctx;
	struct test_item *item = slot->cand;

	item->linked = true;
	tree->linked++;
}

static void test_insert_one(struct test_tree *tree, struct test_item *item)
{
	struct rb_node **link = &tree->root.rb_node, *parent = NULL;
	int order;

	while (*link) {
		order = test_order(item->content, test_item(*link)->content);
		if (!order)
			return;
		parent = *link;
		link = order < 0 ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&item->rb, parent, link);
	rb_insert_color(&item->rb, &tree->root);
	item->linked = true;
	tree->linked++;
}

/* A tree of @nodes with contents below @range */
static void test_grow(struct test_tree *tree, unsigned int nodes, u32 range)
{
	unsigned int i;

	for (i = 0; i < nodes; i++) {
		tree->nodes[i].content = test_random(tree, range);
		test_insert_one(tree, &tree->nodes[i]);
	}
}

static struct ksm_batch_slot *test_add(struct test_tree *tree, u32 content)
{
	struct test_item *item = &tree->cands[tree->b->nr];

	item->content = content;
	return ksm_batch_add(tree->b, item->page, &tree->root, &item->rb, item);
}

static void test_go(struct test_tree *tree)
{
	ksm_batch_search(tree->b, &tree->ops, tree, &tree->params);
	KUNIT_EXPECT_EQ(tree->test, tree->held, 0);
	ksm_batch_insert(tree->b, &tree->ops, tree);
}

static unsigned int test_check_node(struct kunit *test, struct rb_node *rb,
				    unsigned int *nr)
{
	unsigned int left, right;
	bool red;

	if (!rb)
		return 1;
	red = !(rb->__rb_parent_color & 1);
	if (red) {
		KUNIT_ASSERT_NOT_NULL(test, rb_parent(rb));
		KUNIT_EXPECT_TRUE(test, rb_parent(rb)->__rb_parent_color & 1);
	}
	(*nr)++;
	left = test_check_node(test, rb->rb_left, nr);
	right = test_check_node(test, rb->rb_right, nr);
	KUNIT_EXPECT_EQ(test, left, right);
	return left + !red;
}

/* A red-black tree of all that was linked, in order if contents stood still */
static void test_check(struct test_tree *tree, bool in_order)
{
	struct kunit *test = tree->test;
	struct rb_node *rb, *next;
	unsigned int nr = 0;

	test_check_node(test, tree->root.rb_node, &nr);
	KUNIT_EXPECT_EQ(test, nr, tree->linked);
	for (rb = rb_first(&tree->root); rb; rb = next) {
		next = rb_next(rb);
		if (next && in_order)
			KUNIT_EXPECT_LT(test, test_item(rb)->content,
					test_item(next)->content);
	}
}

static struct test_tree *test_tree(struct kunit *test)
{
	return test->priv;
}

static int ksm_batch_test_init(struct kunit *test)
{
	struct test_tree *tree;
	unsigned int i;

	tree = kunit_kzalloc(test, sizeof(*tree), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, tree);
	test->priv = tree;
	tree->test = test;
	tree->root = RB_ROOT;
	prandom_seed_state(&tree->rnd, 4711);
	tree->nodes = kunit_kcalloc(test, TEST_NODES, sizeof(*tree->nodes),
				    GFP_KERNEL);
	tree->cands = kunit_kcalloc(test, TEST_CANDS, sizeof(*tree->cands),
				    GFP_KERNEL);
	tree->b = ksm_batch_alloc(TEST_CANDS, 0);
	KUNIT_ASSERT_NOT_NULL(test, tree->b);
	KUNIT_ASSERT_NOT_NULL(test, tree->nodes);
	KUNIT_ASSERT_NOT_NULL(test, tree->cands);
	for (i = 0; i < TEST_NODES; i++)
		tree->nodes[i].page = (struct page *)&tree->nodes[i];
	for (i = 0; i < TEST_CANDS; i++) {
		tree->cands[i].page = (struct page *)&tree->cands[i];
		tree->cands[i].id = i;
	}
	tree->ops = (struct ksm_batch_ops) {
		.get = test_get,
		.put = test_put,
		.compare = test_compare,
		.compare_cpu = test_compare_cpu,
		.prune = test_prune,
		.linked = test_linked,
	};
	tree->params.levels = 1;
	return 0;
}

static void ksm_batch_test_exit(struct kunit *test)
{
	struct test_tree *tree = test->priv;

	if (tree)
		ksm_batch_free(tree->b);
}

static void test_limits(struct kunit *test)
{
	struct ksm_batch *b;

	KUNIT_EXPECT_NULL(test, ksm_batch_alloc(0, 0));
	KUNIT_EXPECT_NULL(test, ksm_batch_alloc(KSM_BATCH_MAX_SLOTS + 1, 0));
	KUNIT_EXPECT_NULL(test, ksm_batch_alloc(1, KSM_BATCH_MAX_REQS + 1));
	b = ksm_batch_alloc(1, 63);
	KUNIT_ASSERT_NOT_NULL(test, b);
	KUNIT_EXPECT_NOT_NULL(test, ksm_batch_add(b, NULL, NULL, NULL, NULL));
	KUNIT_EXPECT_TRUE(test, ksm_batch_full(b));
	KUNIT_EXPECT_NULL(test, ksm_batch_add(b, NULL, NULL, NULL, NULL));
	ksm_batch_free(b);
	ksm_batch_free(NULL);
}

/* Of two neighbours exactly one has a free link towards the gap */
static void test_neighbours(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	struct rb_node *rb, *next;
	unsigned int i;

	for (i = 0; i < TEST_NODES; i++) {
		tree->nodes[i].content = test_random(tree, 100000);
		test_insert_one(tree, &tree->nodes[i]);
		if (i % 16)
			continue;
		for (rb = rb_first(&tree->root); rb; rb = next) {
			next = rb_next(rb);
			if (next)
				KUNIT_EXPECT_NE(test, !rb->rb_right,
						!next->rb_left);
		}
	}
}

/* The three places where the printed algorithm has no neighbour to go by */
static void test_ends(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	unsigned int i;

	for (i = 0; i < 20; i++)
		test_add(tree, 1000 + i);
	test_go(tree);
	KUNIT_EXPECT_EQ(test, tree->linked, 20);
	test_check(tree, true);

	tree->root = RB_ROOT;
	tree->linked = 0;
	test_grow(tree, 100, 1000);
	ksm_batch_reset(tree->b);
	i = tree->linked;
	test_add(tree, 5000);
	test_add(tree, 6000);
	test_add(tree, 5500);
	test_go(tree);
	KUNIT_EXPECT_EQ(test, tree->linked, i + 3);
	test_check(tree, true);
}

static void test_twins(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	struct ksm_batch_slot *slot;
	unsigned int i, nr = 0;

	test_grow(tree, 10, 100);
	for (i = 0; i < TEST_CANDS; i++)
		test_add(tree, 200 + i % 2);
	test_go(tree);
	test_check(tree, true);
	KUNIT_EXPECT_EQ(test, tree->b->slots[0].state, KSM_SLOT_LINKED);
	KUNIT_EXPECT_EQ(test, tree->b->slots[1].state, KSM_SLOT_LINKED);
	for (i = 2; i < TEST_CANDS; i++) {
		slot = &tree->b->slots[i];
		KUNIT_ASSERT_EQ(test, slot->state, KSM_SLOT_MATCH);
		KUNIT_EXPECT_PTR_EQ(test, slot->end->rb,
				    &tree->cands[i % 2].rb);
	}
	KUNIT_ASSERT_NOT_NULL(test, tree->b->groups);
	for (slot = tree->b->groups->slots.head; slot; slot = slot->next) {
		if (slot->next)
			KUNIT_EXPECT_LT(test, slot->index, slot->next->index);
		nr++;
	}
	KUNIT_EXPECT_EQ(test, nr, TEST_CANDS / 2 - 1);
	KUNIT_EXPECT_EQ(test, tree->b->stats.twins, TEST_CANDS - 2);
}

/* Several candidates for one node, one of them on the very page of the node */
static void test_same_page(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	struct page *page;

	test_grow(tree, 1, 1);
	page = tree->nodes[0].page;
	tree->cands[0].page = page;
	tree->cands[2].page = page;
	test_add(tree, 0);
	test_add(tree, 0);
	test_add(tree, 0);
	test_go(tree);
	/* before the first with another page: as one by one */
	KUNIT_EXPECT_EQ(test, tree->b->slots[0].state, KSM_SLOT_GIVE_UP);
	KUNIT_EXPECT_EQ(test, tree->b->slots[1].state, KSM_SLOT_MATCH);
	/* after it: will find the merged page */
	KUNIT_EXPECT_EQ(test, tree->b->slots[2].state, KSM_SLOT_MATCH);
	KUNIT_EXPECT_PTR_EQ(test, tree->b->slots[2].end, tree->b->groups);
	KUNIT_EXPECT_EQ(test, tree->linked, 1);
}

/* All ways of searching find the same */
static void test_ways(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	unsigned int levels, way, i, rounds[KSM_BATCH_MAX_LEVELS + 1];
	struct test_item *item;
	struct ksm_batch_slot *slot;
	u64 before;

	for (levels = 1; levels <= KSM_BATCH_MAX_LEVELS; levels++) {
		for (way = 0; way < 4; way++) {
			tree->root = RB_ROOT;
			tree->linked = 0;
			prandom_seed_state(&tree->rnd, 1);
			test_grow(tree, TEST_NODES, 1 << 12);
			tree->params.levels = levels;
			tree->params.eager = way & 1;
			tree->ops.early = way & 2 ? test_early : NULL;
			ksm_batch_reset(tree->b);
			for (i = 0; i < 2; i++)
				test_add(tree, test_random(tree, 1 << 12));
			before = tree->b->stats.rounds;
			ksm_batch_search(tree->b, &tree->ops, tree,
					 &tree->params);
			if (!way)
				rounds[levels] = tree->b->stats.rounds - before;
			for (i = 0; i < 2; i++) {
				slot = &tree->b->slots[i];
				item = slot->cand;
				if (slot->state == KSM_SLOT_MATCH) {
					KUNIT_EXPECT_EQ(test, item->content,
							test_item(slot->end->rb)->content);
					continue;
				}
				KUNIT_ASSERT_EQ(test, slot->state, KSM_SLOT_MISS);
				if (slot->end->pred)
					KUNIT_EXPECT_GT(test, item->content,
							test_item(slot->end->pred)->content);
				if (slot->end->succ)
					KUNIT_EXPECT_LT(test, item->content,
							test_item(slot->end->succ)->content);
			}
		}
		if (levels > 1)
			KUNIT_EXPECT_LE(test, rounds[levels],
					rounds[levels - 1]);
	}
	KUNIT_EXPECT_GE(test, rounds[1], 2 * rounds[KSM_BATCH_MAX_LEVELS]);
}

/* Nodes that are gone are pruned once each, and the search starts anew */
static void test_stale(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	struct ksm_batch_slot *slot;
	unsigned int i, k;
	bool there;

	test_grow(tree, TEST_NODES, 700);
	for (i = 0; i < TEST_NODES; i++)
		tree->nodes[i].stale = !test_random(tree, 8);
	for (i = 0; i < TEST_CANDS; i++)
		test_add(tree, test_random(tree, 700));
	ksm_batch_search(tree->b, &tree->ops, tree, &tree->params);
	KUNIT_EXPECT_EQ(test, tree->held, 0);
	KUNIT_EXPECT_GT(test, tree->pruned, 0);
	test_check(tree, true);
	for (i = 0; i < TEST_CANDS; i++) {
		slot = &tree->b->slots[i];
		if (slot->state == KSM_SLOT_FAILED)
			continue;
		for (k = 0, there = false; k < TEST_NODES; k++) {
			if (tree->nodes[k].linked && !tree->nodes[k].stale &&
			    tree->nodes[k].content == tree->cands[i].content)
				there = true;
		}
		KUNIT_EXPECT_EQ(test, slot->state,
				there ? KSM_SLOT_MATCH : KSM_SLOT_MISS);
	}
}

static void test_backend_fails(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	static const enum ksm_req_status status[] = {
		KSM_REQ_PENDING, KSM_REQ_RETRY, KSM_REQ_ERROR,
	};
	unsigned int i, k, nodes;

	for (k = 0; k < ARRAY_SIZE(status); k++) {
		tree->root = RB_ROOT;
		tree->linked = 0;
		tree->unanswered = 100;
		tree->unanswered_as = status[k];
		test_grow(tree, 100, 1000000);
		nodes = tree->linked;
		ksm_batch_reset(tree->b);
		for (i = 0; i < 100; i++)
			test_add(tree, 1000000 + i);
		test_go(tree);
		test_check(tree, true);
		if (status[k] == KSM_REQ_ERROR) {
			KUNIT_EXPECT_EQ(test, tree->linked, nodes);
			KUNIT_EXPECT_EQ(test, tree->b->stats.errors, 100);
			KUNIT_EXPECT_EQ(test, tree->b->slots[0].state,
					KSM_SLOT_FAILED);
		} else {
			KUNIT_EXPECT_EQ(test, tree->linked, nodes + 100);
		}
	}
}

/* Whatever comparisons say, the outcome is a red-black tree with all in it */
static void test_noise(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	unsigned int i, run, nodes, matched;

	for (run = 0; run < 50; run++) {
		tree->root = RB_ROOT;
		tree->linked = 0;
		tree->noise = 2 * run + 2;
		tree->params.levels = 1 + run % KSM_BATCH_MAX_LEVELS;
		tree->params.eager = run & 1;
		tree->ops.early = run & 2 ? test_early : NULL;
		test_grow(tree, run * 10, 10000);
		nodes = tree->linked;
		ksm_batch_reset(tree->b);
		for (i = 0; i < TEST_CANDS; i++)
			test_add(tree, test_random(tree, 10000));
		test_go(tree);
		test_check(tree, false);
		for (i = 0, matched = 0; i < TEST_CANDS; i++)
			matched += tree->b->slots[i].state == KSM_SLOT_MATCH;
		KUNIT_EXPECT_EQ(test, tree->linked - nodes,
				TEST_CANDS - matched);
		cond_resched();
	}
}

static void test_survivors(struct kunit *test)
{
	struct test_tree *tree = test_tree(test);
	struct ksm_batch *next = ksm_batch_alloc(100, 0);
	struct rb_root other = RB_ROOT;
	unsigned int i, at;

	KUNIT_ASSERT_NOT_NULL(test, next);
	tree->nodes[0].content = 7;
	test_insert_one(tree, &tree->nodes[0]);
	for (i = 0; i < TEST_CANDS; i++)
		test_add(tree, i % 2 ? 7 : 1000 + i)->cookie = i;
	ksm_batch_search(tree->b, &tree->ops, tree, &tree->params);
	at = ksm_batch_take(next, tree->b, &other, 0);
	KUNIT_EXPECT_TRUE(test, ksm_batch_full(next));
	for (i = 0; i < 100; i++)
		KUNIT_EXPECT_EQ(test, next->slots[i].cookie, 2 * i);
	ksm_batch_reset(next);
	at = ksm_batch_take(next, tree->b, &other, at);
	KUNIT_EXPECT_EQ(test, at, TEST_CANDS);
	KUNIT_EXPECT_EQ(test, next->nr, TEST_CANDS / 2 - 100);
	ksm_batch_free(next);
}

static struct kunit_case ksm_batch_test_cases[] = {
	KUNIT_CASE(test_limits),
	KUNIT_CASE(test_neighbours),
	KUNIT_CASE(test_ends),
	KUNIT_CASE(test_twins),
	KUNIT_CASE(test_same_page),
	KUNIT_CASE(test_ways),
	KUNIT_CASE(test_stale),
	KUNIT_CASE(test_backend_fails),
	KUNIT_CASE(test_noise),
	KUNIT_CASE(test_survivors),
	{}
};

static struct kunit_suite ksm_batch_test_suite = {
	.name = "ksm_batch",
	.init = ksm_batch_test_init,
	.exit = ksm_batch_test_exit,
	.test_cases = ksm_batch_test_cases,
};

kunit_test_suite(ksm_batch_test_suite);

MODULE_LICENSE("GPL");
