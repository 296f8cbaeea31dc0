// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <linux/bug.h>
#include <linux/kernel.h>

#include "world.h"

void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("broken: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	abort();
}

_Bool warned(const char *condition, const char *file, int line)
{
	fail("warning %s at %s:%d", condition, file, line);
}

/* xorshift64*: any seed but 0 is good; at the end of the fuzzer's data comes 0 */
u32 draw(struct chance *chance, u32 below)
{
	u32 word = 0;

	if (below < 2)
		return 0;
	if (chance->from_data) {
		for (u32 rest = below - 1; rest && chance->left; rest >>= 8, chance->left--)
			word = word << 8 | *chance->data++;
		return word % below;
	}
	chance->state ^= chance->state >> 12;
	chance->state ^= chance->state << 25;
	chance->state ^= chance->state >> 27;
	word = chance->state * 0x2545f4914f6cdd1dULL >> 32;
	return (u64)word * below >> 32;
}

static bool happens(struct chance *chance, u32 per_mille)
{
	return per_mille && draw(chance, 1000) < per_mille;
}

/* --- pages, items, trees --- */

static struct item *item_of(const struct rb_node *rb)
{
	return container_of(rb, struct item, rb);
}

/* Like a checksum it says nothing about the order of contents. */
static u32 key_of(const struct world *world, u32 value)
{
	return world->plan->key_shift > 31 ? 0 : value * 2654435761U >> world->plan->key_shift;
}

static int order_of(u32 a, u32 b)
{
	return (a > b) - (a < b);
}

int compare_items(struct world *world, const struct item *a, const struct item *b)
{
	world->compares++;
	if (a->key != b->key)
		return order_of(a->key, b->key);
	return order_of(a->page->value, b->page->value);
}

u32 tree_height(const struct rb_node *node)
{
	u32 left, right;

	if (!node)
		return 0;
	left = tree_height(node->rb_left);
	right = tree_height(node->rb_right);
	return 1 + (left > right ? left : right);
}

static void link_item(struct world *world, struct item *item)
{
	EXPECT(!item->linked, "item %u linked twice", item->id);
	item->linked = true;
	world->nr_linked++;
}

/* False if the tree has an equal item. */
bool tree_insert(struct world *world, struct item *item)
{
	struct rb_root *root = &world->roots[item->root];
	struct rb_node **link = &root->rb_node, *parent = NULL;

	while (*link) {
		int order = compare_items(world, item, item_of(*link));

		if (!order)
			return false;
		parent = *link;
		link = order < 0 ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&item->rb, parent, link);
	rb_insert_color(&item->rb, root);
	link_item(world, item);
	return true;
}

void tree_erase(struct world *world, struct item *item)
{
	EXPECT(item->linked, "item %u erased, but in no tree", item->id);
	rb_erase(&item->rb, &world->roots[item->root]);
	/* as the kernel does: the storage serves another purpose at once */
	memset(&item->rb, 0x6b, sizeof(item->rb));
	item->linked = false;
	world->nr_linked--;
}

struct item *candidate(struct world *world, u32 nth)
{
	return &world->items[world->plan->tree + nth];
}

struct world *world_make(const struct plan *plan, struct chance *chance)
{
	struct world *world = calloc(1, sizeof(*world));
	u32 i, nr = plan->tree + plan->candidates;

	world->plan = plan;
	world->chance = chance;
	world->nr_items = nr;
	world->items = calloc(nr + 1, sizeof(*world->items));
	world->pages = calloc(nr + 1, sizeof(*world->pages));
	world->sets = calloc(nr + 1, sizeof(*world->sets));
	for (i = 0; i < nr; i++) {
		struct item *item = &world->items[i];
		struct page *page = &world->pages[i];

		page->set = NO_SET;
		page->value = draw(chance, plan->values);
		if (i > plan->tree && plan->order == 1)
			page->value = (i - plan->tree) * (plan->values / (plan->candidates + 1) + 1);
		else if (i > plan->tree && plan->order == 2)
			page->value = (nr - i) * (plan->values / (plan->candidates + 1) + 1);
		else if (i > plan->tree && plan->order == 3)
			page->value = world->pages[plan->tree].value;
		item->id = i;
		item->page = page;
		item->set = NO_SET;
		item->root = draw(chance, plan->roots);
		if (i && happens(chance, plan->forked)) {
			const struct item *parent = &world->items[draw(chance, i)];

			item->page = parent->page;
			item->root = parent->root;
		}
		item->key = key_of(world, item->page->value);
		item->volatile_merge = happens(chance, plan->unmergeable);
		if (i < plan->tree && tree_insert(world, item)) {
			item->absent = happens(chance, plan->absent);
			item->stale = happens(chance, plan->stale);
		}
	}
	world->nr_tree = world->nr_linked;
	world->compares = 0;
	for (i = 0; i < ROOTS; i++) {
		u32 height = tree_height(world->roots[i].rb_node);

		if (height > world->height)
			world->height = height;
	}
	return world;
}

void world_free(struct world *world)
{
	free(world->items);
	free(world->pages);
	free(world->sets);
	free(world);
}

/* --- merging, with the check under write protection --- */

/* A stable node that has room for the content, the newest first as chains do. */
int find_set(struct world *world, const struct item *item)
{
	for (int i = (int)world->nr_sets - 1; i >= 0; i--) {
		const struct set *set = &world->sets[i];

		if (set->root == item->root && set->value == item->page->value)
			return set->members < world->plan->max_sharing ? i : NO_SET;
	}
	return NO_SET;
}

static void into_set(struct world *world, struct item *item, int set)
{
	item->set = set;
	world->sets[set].members++;
}

/* A candidate merges with a KSM page. */
bool join_set(struct world *world, struct item *item, int set)
{
	if (item->page->set == set) {
		into_set(world, item, set);	/* forked, it maps the page already */
		return true;
	}
	if (world->sets[set].members >= world->plan->max_sharing || item->volatile_merge ||
	    item->page->value != world->sets[set].value)
		return false;
	into_set(world, item, set);
	return true;
}

/* The later page becomes the KSM page, then the page in the tree merges into it. */
int merge_two(struct world *world, struct item *late, struct item *tree)
{
	struct set *set = &world->sets[world->nr_sets];

	if (late->page == tree->page) {
		world->self_merges++;
		return NO_SET;
	}
	if (late->volatile_merge || tree->volatile_merge || late->page->value != tree->page->value)
		return NO_SET;
	if (!tree->linked)
		fail("merge with item %u, which has left the tree", tree->id);
	tree_erase(world, tree);
	set->value = late->page->value;
	set->root = late->root;
	set->members = 0;
	late->page->set = world->nr_sets;
	into_set(world, late, world->nr_sets);
	into_set(world, tree, world->nr_sets);
	return world->nr_sets++;
}

void sequential(struct world *world, struct item *item)
{
	struct rb_root *root = &world->roots[item->root];
	struct rb_node **link = &root->rb_node, *parent = NULL;
	int set = item->page->set;

	if (set == NO_SET)
		set = find_set(world, item);
	if (set != NO_SET && join_set(world, item, set))
		return;
	while (*link) {
		struct item *at = item_of(*link);
		int order;

		if (at->absent || at->page == item->page)
			return;
		order = compare_items(world, item, at);
		if (!order) {
			merge_two(world, item, at);
			return;
		}
		parent = *link;
		link = order < 0 ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&item->rb, parent, link);
	rb_insert_color(&item->rb, root);
	link_item(world, item);
}

/* --- the callbacks --- */

static void world_get(void *context, struct ksm_batch_node **nodes, unsigned int nr)
{
	struct world *world = context;

	world->gets += nr;
	for (unsigned int i = 0; i < nr; i++) {
		struct item *item = item_of(nodes[i]->rb);

		EXPECT(item->linked, "core at item %u, which is in no tree", item->id);
		EXPECT(!nodes[i]->cookie && !nodes[i]->priv, "node of item %u is not fresh", item->id);
		if (happens(world->chance, world->plan->fading) && !item->page->held)
			item->stale = true;
		if (item->stale) {
			nodes[i]->state = KSM_NODE_STALE;
		} else if (item->absent) {
			nodes[i]->state = KSM_NODE_GIVE_UP;
		} else {
			nodes[i]->state = KSM_NODE_OK;
			nodes[i]->page = item->page;
			nodes[i]->cookie = item->id + 1;
			item->page->held++;
		}
	}
}

static void world_put(void *context, struct ksm_batch_node *node)
{
	(void)context;
	EXPECT(node->page->held > 0, "page of a node let go twice");
	EXPECT(node->cookie == item_of(node->rb)->id + 1, "cookie of a node lost");
	node->page->held--;
}

/* Owners write to their pages whenever they like. */
static void mutate(struct world *world, struct page *page)
{
	if (happens(world->chance, world->plan->mutate) && page->set == NO_SET)
		page->value = draw(world->chance, world->plan->values);
}

static int answer(struct world *world, const struct page *a, const struct page *b)
{
	int order = order_of(a->value, b->value);

	if (happens(world->chance, world->plan->lie))
		order = (int)draw(world->chance, 3) - 1;
	return order * (int)(1 + draw(world->chance, 1000));
}

static void world_early(void *context, struct ksm_batch_req *req)
{
	struct world *world = context;
	u32 a, b;

	EXPECT(req->node->page->held > 0 && req->slot->page, "early looks at a page not held");
	EXPECT(req->slot->page != req->node->page, "early looks at one page twice");
	EXPECT(!req->cookie, "cookie of a request is not fresh");
	mutate(world, req->slot->page);
	mutate(world, req->node->page);
	a = req->slot->page->value >> world->plan->early_shift;
	b = req->node->page->value >> world->plan->early_shift;
	if (a != b) {
		req->status = KSM_REQ_DONE;
		req->order = order_of(a, b);
	} else {
		req->cookie = 0xbee;
	}
}

static void world_compare(void *context, struct ksm_batch_req **reqs, unsigned int nr)
{
	struct world *world = context;
	const struct plan *plan = world->plan;

	EXPECT(nr, "empty batch of comparisons");
	for (unsigned int i = 0; i < nr; i++) {
		struct ksm_batch_req *req = reqs[i];

		EXPECT(req->status == KSM_REQ_PENDING, "submitted, but not pending");
		EXPECT(req->node->page->held > 0, "compares a page not held");
		EXPECT(req->slot->page != req->node->page, "compares a page with itself");
		EXPECT(plan->early_shift > 31 || req->cookie == 0xbee, "cookie of early lost");
		mutate(world, req->slot->page);
		mutate(world, req->node->page);
		world->compares++;
		if (happens(world->chance, plan->error))
			req->status = KSM_REQ_ERROR;
		else if (happens(world->chance, plan->retry))
			req->status = KSM_REQ_RETRY;
		else if (happens(world->chance, plan->pending))
			req->status = draw(world->chance, 2) ? KSM_REQ_PENDING : 77;
		else
			req->status = KSM_REQ_DONE;
		/* garbage unless it counts */
		req->order = (int)draw(world->chance, 3) - 1;
		if (req->status == KSM_REQ_DONE)
			req->order = answer(world, req->slot->page, req->node->page);
	}
}

static int world_compare_cpu(void *context, struct page *a, struct page *b)
{
	struct world *world = context;

	world->cpu_compares++;
	EXPECT(a != b, "the CPU compares a page with itself");
	mutate(world, a);
	mutate(world, b);
	if (world->plan->insane)
		return (int)draw(world->chance, 3) - 1;
	return order_of(a->value, b->value);
}

static void world_prune(void *context, struct rb_node *rb)
{
	struct world *world = context;
	struct item *item = item_of(rb);

	EXPECT(item->stale, "item %u pruned, but not stale", item->id);
	tree_erase(world, item);
	world->nr_tree--;
}

static void world_linked(void *context, struct ksm_batch_slot *slot)
{
	link_item(context, slot->cand);
}

const struct ksm_batch_ops world_ops = {
	.get = world_get,
	.put = world_put,
	.compare = world_compare,
	.compare_cpu = world_compare_cpu,
	.key_offset = (int)offsetof(struct item, key) - (int)offsetof(struct item, rb),
	.early = world_early,
	.prune = world_prune,
	.linked = world_linked,
};

const struct ksm_batch_ops *ops_of(const struct plan *plan, struct ksm_batch_ops *ops)
{
	*ops = world_ops;
	if (plan->no_backend)
		ops->compare = NULL;
	if (plan->key_shift > 31)
		ops->key_offset = 0;
	if (plan->early_shift > 31)
		ops->early = NULL;
	return ops;
}

/* --- the user of the core --- */

void add_candidates(struct world *world, struct ksm_batch *b, u32 from, u32 to)
{
	for (u32 i = from; i < to; i++) {
		struct item *item = candidate(world, i);
		struct ksm_batch_slot *slot;

		slot = ksm_batch_add(b, item->page, &world->roots[item->root], &item->rb, item);
		EXPECT(slot, "batch full at %u of %u", i - from, b->max);
		slot->key = item->key;
	}
}

/*
 * All candidates of a group have the content of its node, as far as the search
 * can tell. The first one that merges makes the KSM page, the others join it as
 * long as there is room. Who finds none starts again, alone.
 */
void commit(struct world *world, struct ksm_batch *b)
{
	u8 *alone = calloc(b->nr + 1, 1);

	for (struct ksm_batch_node *group = b->groups; group; group = group->next) {
		struct item *tree = item_of(group->rb);
		int set = NO_SET;

		for (struct ksm_batch_slot *slot = group->slots.head; slot; slot = slot->next) {
			struct item *item = slot->cand;

			if (slot->state != KSM_SLOT_MATCH)
				continue;
			if (item->page->set != NO_SET) {
				join_set(world, item, item->page->set);
			} else if (set != NO_SET) {
				if (world->sets[set].members >= world->plan->max_sharing)
					alone[slot->index] = 1;
				else
					join_set(world, item, set);
			} else if (tree->page == item->page) {
				continue;	/* became the same page meanwhile */
			} else {
				set = merge_two(world, item, tree);
			}
		}
	}
	for (u32 i = 0; i < b->nr; i++) {
		struct item *item = b->slots[i].cand;

		if (item && !item->linked && item->set == NO_SET &&
		    (alone[i] || b->slots[i].state == KSM_SLOT_FAILED))
			sequential(world, item);
	}
	free(alone);
}

void batched(struct world *world, struct ksm_batch *b, u32 from, u32 to)
{
	struct ksm_batch_ops ops;

	ksm_batch_reset(b);
	add_candidates(world, b, from, to);
	ksm_batch_search(b, ops_of(world->plan, &ops), world, &world->plan->params);
	ksm_batch_insert(b, &ops, world);
	check_batch(world, b);
	check_none_held(world);
	commit(world, b);
}

/* --- the rules --- */

static u32 check_red_black(const struct rb_node *node, const struct rb_node *parent, u32 *nodes)
{
	u32 left, right;
	bool red;

	if (!node)
		return 1;
	++*nodes;
	red = !(node->__rb_parent_color & 1);
	EXPECT((struct rb_node *)(node->__rb_parent_color & ~3UL) == parent, "wrong parent");
	EXPECT(!red || (parent && (parent->__rb_parent_color & 1)), "red below red, or red root");
	EXPECT(item_of(node)->linked, "item %u in a tree unaware of it", item_of(node)->id);
	left = check_red_black(node->rb_left, node, nodes);
	right = check_red_black(node->rb_right, node, nodes);
	EXPECT(left == right, "black height %u on the left, %u on the right", left, right);
	return left + !red;
}

void check_structure(const struct world *world, bool ordered)
{
	u32 nodes = 0;

	for (u32 i = 0; i < world->plan->roots; i++) {
		const struct item *last = NULL;

		check_red_black(world->roots[i].rb_node, NULL, &nodes);
		for (struct rb_node *rb = rb_first(&world->roots[i]); rb; rb = rb_next(rb)) {
			const struct item *item = item_of(rb);

			EXPECT(item->root == (int)i, "item %u in tree %u", item->id, i);
			EXPECT(!ordered || !last || last->key < item->key ||
			       (last->key == item->key && last->page->value < item->page->value),
			       "items %u and %u out of order", last->id, item->id);
			last = item;
		}
	}
	EXPECT(nodes == world->nr_linked, "%u nodes in the trees, %u were linked", nodes, world->nr_linked);
}

void check_batch(const struct world *world, const struct ksm_batch *b)
{
	const struct plan *plan = world->plan;
	bool still = !plan->mutate && !plan->lie && !plan->insane;
	u32 seen = 0, matched = 0, linked = 0;

	for (const struct ksm_batch_node *group = b->groups; group; group = group->next) {
		const struct ksm_batch_slot *last = NULL, *slot;
		u32 nr = 0;

		EXPECT(item_of(group->rb)->linked, "group at item %u, which is in no tree", item_of(group->rb)->id);
		EXPECT(group->slots.head, "empty group");
		EXPECT(group->slots.head->page != item_of(group->rb)->page, "first of a group has the page of the node");
		for (u32 i = group->slots.head->index; i < b->nr; i++)
			EXPECT(b->slots[i].rb != group->rb, "slot %u was inserted, %u comes first in the scan", i,
			       group->slots.head->index);
		for (slot = group->slots.head; slot; last = slot, slot = slot->next) {
			EXPECT(slot->state == KSM_SLOT_MATCH, "slot %u in a group has state %u", slot->index, slot->state);
			EXPECT(slot->end == group, "slot %u does not know its group", slot->index);
			EXPECT(!still || slot->page->value == item_of(group->rb)->page->value,
			       "slot %u differs from what it matches", slot->index);
			EXPECT(!last || last->index < slot->index, "slots %u and %u not in the order of the scan",
			       last->index, slot->index);
			nr++;
		}
		EXPECT(last == group->slots.tail && nr == group->slots.nr, "list of a group is damaged");
		seen += nr;
		for (const struct ksm_batch_node *other = group->next; other; other = other->next)
			EXPECT(other->rb != group->rb, "two groups for item %u", item_of(group->rb)->id);
	}
	for (u32 i = 0; i < b->nr; i++) {
		u8 state = b->slots[i].state;
		const struct item *item = b->slots[i].cand;

		EXPECT(b->slots[i].index == i, "slot %u has index %u", i, b->slots[i].index);
		EXPECT(state == KSM_SLOT_MATCH || state == KSM_SLOT_LINKED || state == KSM_SLOT_GIVE_UP ||
		       state == KSM_SLOT_FAILED, "slot %u ends in state %u", i, state);
		EXPECT(state != KSM_SLOT_FAILED || plan->error, "slot %u failed without cause", i);
		EXPECT(item->linked == (state == KSM_SLOT_LINKED), "slot %u: state %u, linked %d", i, state, item->linked);
		matched += state == KSM_SLOT_MATCH;
		linked += state == KSM_SLOT_LINKED;
	}
	EXPECT(seen == matched, "%u candidates in groups, %u matched", seen, matched);
	EXPECT(linked <= world->nr_linked, "more linked than there are");
}

/* The same items share with each other, and the same ones are in the trees. */
void check_same(const struct world *one, const struct world *other)
{
	u32 *first = calloc(2 * (one->nr_items + 1), sizeof(*first)), *second = first + one->nr_items + 1;

	for (u32 i = one->nr_items; i--; ) {
		if (one->items[i].set != NO_SET)
			first[one->items[i].set] = i;
		if (other->items[i].set != NO_SET)
			second[other->items[i].set] = i;
	}
	for (u32 i = 0; i < one->nr_items; i++) {
		const struct item *a = &one->items[i], *b = &other->items[i];

		EXPECT(a->linked == b->linked, "item %u: in the tree %d one by one, %d in batches", i, a->linked, b->linked);
		EXPECT((a->set == NO_SET) == (b->set == NO_SET), "item %u: merged %d one by one, %d in batches", i,
		       a->set != NO_SET, b->set != NO_SET);
		EXPECT(a->set == NO_SET || first[a->set] == second[b->set], "item %u: other partners in batches", i);
	}
	free(first);
}

/* Whatever the backend said: nobody shares a page of other content. */
void check_merged(const struct world *world)
{
	for (u32 i = 0; i < world->nr_items; i++) {
		const struct item *item = &world->items[i];

		EXPECT(item->set == NO_SET || !item->linked, "item %u is merged and in the tree", i);
		EXPECT(item->set == NO_SET || world->plan->mutate ||
		       item->page->value == world->sets[item->set].value, "item %u shares a page of other content", i);
	}
	EXPECT(!world->self_merges, "a page was merged with itself");
}

void check_none_held(const struct world *world)
{
	for (u32 i = 0; i < world->nr_items; i++)
		EXPECT(!world->pages[i].held, "page %u held %d times", i, world->pages[i].held);
}

/* --- one scenario --- */

static u32 one_of(struct chance *chance, const u32 *choice, u32 nr)
{
	return choice[draw(chance, nr)];
}

static u32 at_most(u32 value, u32 most)
{
	return value < most ? value : most;
}

static u32 logarithm(u32 n)
{
	u32 bits = 0;

	while (1U << bits < n)
		bits++;
	return bits;
}

static void draw_plan(struct chance *chance, struct plan *plan, u32 most)
{
	static const u32 sizes[] = { 0, 1, 2, 3, 5, 16, 17, 64, 100, 255, 256, 1000 };
	static const u32 batch[] = { 1, 2, 3, 7, 16, 33, 64, 255, 256, 1024 };
	static const u32 density[] = { 1, 2, 3, 4, 10, 100, 1000, 1000000 };
	static const u32 shifts[] = { 32, 32, 32, 0, 2, 8 };
	static const u32 sharing[] = { 2, 3, 5, 256, 1000000 };

	memset(plan, 0, sizeof(*plan));
	plan->roots = 1 + (draw(chance, 4) ? 0 : draw(chance, ROOTS));
	plan->tree = at_most(one_of(chance, sizes, 12), most);
	plan->candidates = at_most(one_of(chance, batch, 10), most);
	plan->values = one_of(chance, density, 8);
	plan->key_shift = draw(chance, 3) ? 32 : 20 + draw(chance, 12);
	plan->early_shift = one_of(chance, shifts, 6);
	plan->max_sharing = one_of(chance, sharing, 5);
	plan->forked = draw(chance, 3) ? 0 : draw(chance, 500);
	plan->order = draw(chance, 6);
	plan->pending = draw(chance, 3) ? 0 : draw(chance, 1000);
	plan->retry = draw(chance, 3) ? 0 : draw(chance, 1000);
	plan->no_backend = !draw(chance, 8);
	plan->params.levels = draw(chance, KSM_BATCH_MAX_LEVELS + 2);
	plan->params.eager = draw(chance, 2);
}

static struct ksm_batch *alloc_for(const struct plan *plan, struct chance *chance)
{
	static const u32 room[] = { 0, 1, 7, 63, 300, 1024 };
	struct ksm_batch *b = ksm_batch_alloc(plan->candidates, one_of(chance, room, 6));

	EXPECT(b, "no memory");
	return b;
}

/* Pages stand still and nobody lies: as one by one, and no more work than theory says. */
static void exact(struct chance *chance, struct plan *plan)
{
	struct chance again = *chance;
	struct world *one = world_make(plan, &again), *many = world_make(plan, chance);
	struct ksm_batch *b = alloc_for(plan, chance);
	u64 n = plan->candidates, levels = plan->params.levels;

	for (u32 i = 0; i < n; i++)
		sequential(one, candidate(one, i));
	batched(many, b, 0, n);
	check_structure(one, true);
	check_structure(many, true);
	check_same(one, many);
	check_merged(many);
	EXPECT(b->stats.cpu == 0 || plan->pending || plan->retry || plan->no_backend, "the CPU compares what is decided");
	EXPECT(b->stats.sorted <= n * logarithm(n), "%lu candidates sorted with %lu comparisons",
	       (unsigned long)n, (unsigned long)b->stats.sorted);
	EXPECT(b->stats.rounds <= (KSM_BATCH_RETRIES + 1) * (u64)many->height, "%lu rounds in a tree of height %u",
	       (unsigned long)b->stats.rounds, many->height);
	if (levels < 2)
		EXPECT(b->stats.pairs - b->stats.retries + b->stats.early <= n * many->height,
		       "%lu pairs for %lu candidates in a tree of height %u", (unsigned long)b->stats.pairs,
		       (unsigned long)n, many->height);
	ksm_batch_free(b);
	world_free(one);
	world_free(many);
}

/* Pages that cannot be fetched: who is stopped by one depends on the shape, the order does not. */
static void absent(struct chance *chance, struct plan *plan)
{
	struct world *world;
	struct ksm_batch *b = alloc_for(plan, chance);

	plan->absent = draw(chance, 1000);
	plan->unmergeable = draw(chance, 2) ? draw(chance, 1000) : 0;
	plan->error = draw(chance, 2) ? draw(chance, 1000) : 0;
	world = world_make(plan, chance);
	batched(world, b, 0, plan->candidates);
	check_structure(world, !plan->absent && !plan->error);
	check_merged(world);
	ksm_batch_free(b);
	world_free(world);
}

/* Everything moves: pages change between comparisons, the backend lies and fails. */
static void turmoil(struct chance *chance, struct plan *plan)
{
	struct world *world;
	struct ksm_batch *b = alloc_for(plan, chance);
	u64 most;

	plan->absent = draw(chance, 2) ? draw(chance, 300) : 0;
	plan->unmergeable = draw(chance, 2) ? draw(chance, 500) : 0;
	plan->mutate = draw(chance, 2) ? draw(chance, 1000) : 0;
	plan->lie = draw(chance, 2) ? draw(chance, 1001) : 0;
	plan->error = draw(chance, 2) ? draw(chance, 300) : 0;
	plan->insane = !draw(chance, 3);
	world = world_make(plan, chance);
	batched(world, b, 0, plan->candidates);
	check_structure(world, false);
	check_merged(world);
	most = (u64)plan->candidates * logarithm(plan->candidates);
	EXPECT(b->stats.sorted <= most, "sorted with %lu comparisons, %lu are enough", (unsigned long)b->stats.sorted,
	       (unsigned long)most);
	ksm_batch_free(b);
	world_free(world);
}

/*
 * A tree that is only searched, with stale nodes. Who matches is certain; the
 * survivors go on to a second tree, which is empty, together with those of
 * other batches.
 */
static void stable(struct chance *chance, struct plan *plan)
{
	struct ksm_batch_ops ops;
	struct ksm_batch *b, *next;
	struct rb_root unstable = { NULL };
	struct world *world;
	u32 n, per, from, survivors = 0, taken = 0, index;

	plan->roots = 1;
	plan->forked = 0;
	plan->stale = draw(chance, 2) ? draw(chance, 1000) : 0;
	plan->fading = draw(chance, 2) ? draw(chance, 100) : 0;
	world = world_make(plan, chance);
	n = plan->candidates;
	per = 1 + draw(chance, n);
	b = ksm_batch_alloc(per, draw(chance, 64));
	next = ksm_batch_alloc(n, 0);
	EXPECT(b && next, "no memory");
	ops_of(plan, &ops);
	for (from = 0; from < n; from += per) {
		u32 to = at_most(from + per, n);

		ksm_batch_reset(b);
		for (u32 i = from; i < to; i++) {
			struct item *item = candidate(world, i);
			struct ksm_batch_slot *slot;

			slot = ksm_batch_add(b, item->page, &world->roots[0], &item->rb, item);
			EXPECT(slot, "batch full");
			slot->key = item->key;
			slot->cookie = item->id;
		}
		ksm_batch_search(b, &ops, world, &plan->params);
		check_none_held(world);
		check_structure(world, true);
		for (const struct ksm_batch_node *group = b->groups; group; group = group->next)
			EXPECT(group->slots.head && item_of(group->rb)->linked, "group without candidates or node");
		for (u32 i = 0; i < b->nr; i++) {
			const struct ksm_batch_slot *slot = &b->slots[i];
			const struct item *item = slot->cand;
			struct item *live = NULL;

			for (u32 k = 0; k < plan->tree; k++)
				if (world->items[k].linked && !world->items[k].stale &&
				    world->items[k].page->value == item->page->value)
					live = &world->items[k];
			if (slot->state == KSM_SLOT_FAILED) {
				EXPECT(b->stats.restarts >= KSM_BATCH_RESTARTS, "failed without cause");
				continue;
			}
			EXPECT(slot->state == (live ? KSM_SLOT_MATCH : KSM_SLOT_MISS) ||
			       (plan->fading && slot->state == KSM_SLOT_MATCH), "candidate %u ends in state %u",
			       i, slot->state);
			if (slot->state == KSM_SLOT_MATCH) {
				/* it may have faded since, but nobody has freed it */
				EXPECT(item_of(slot->end->rb)->linked, "candidate %u matches what was pruned", i);
				EXPECT(item_of(slot->end->rb)->page->value == item->page->value,
				       "candidate %u matches the wrong node", i);
				continue;
			}
			survivors++;
			if (slot->end->link) {
				EXPECT(!slot->end->pred || compare_items(world, item, item_of(slot->end->pred)) > 0,
				       "pred is not smaller");
				EXPECT(!slot->end->succ || compare_items(world, item, item_of(slot->end->succ)) < 0,
				       "succ is not larger");
			}
		}
		index = ksm_batch_take(next, b, &unstable, 0);
		EXPECT(index == b->nr, "survivors left behind");
	}
	EXPECT(next->nr == survivors, "%u survivors, %u taken", survivors, next->nr);
	for (u32 i = 0; i < next->nr; i++) {
		const struct item *item = next->slots[i].cand;

		EXPECT(next->slots[i].cookie == item->id, "cookie of a survivor lost");
		EXPECT(!i || item->id > taken, "survivors not in the order of the scan");
		taken = item->id;
	}
	plan->fading = 0;
	ksm_batch_search(next, &ops, world, &plan->params);
	ksm_batch_insert(next, &ops, world);
	EXPECT(next->stats.linked + next->stats.twins == survivors, "survivors lost");
	ksm_batch_free(b);
	ksm_batch_free(next);
	world_free(world);
}

/* Batch after batch into the same tree, with forgotten candidates in between. */
static void series(struct chance *chance, struct plan *plan)
{
	struct chance again = *chance;
	struct world *one = world_make(plan, &again), *many = world_make(plan, chance);
	struct ksm_batch *b = alloc_for(plan, chance);
	u32 n = plan->candidates, per = 1 + draw(chance, n);
	struct ksm_batch_ops ops;

	ops_of(plan, &ops);
	for (u32 from = 0; from < n; from += per) {
		u32 to = at_most(from + per, n), nr;
		struct ksm_batch_slot *gone = NULL;

		/* an exiting process takes one away */
		nr = draw(chance, 3) ? n : from + draw(chance, to - from);
		ksm_batch_reset(b);
		for (u32 i = from; i < to; i++) {
			struct item *item = candidate(many, i);
			int set = item->page->set == NO_SET ? find_set(many, item) : item->page->set;
			struct ksm_batch_slot *slot;

			if (i != nr)
				sequential(one, candidate(one, i));
			else if (set != NO_SET)
				continue;
			/* the stable tree has been looked through by now */
			if (set != NO_SET && join_set(many, item, set))
				continue;
			slot = ksm_batch_add(b, item->page, &many->roots[item->root], &item->rb, item);
			slot->key = item->key;
			if (i == nr)
				gone = slot;
		}
		if (gone && draw(chance, 2)) {
			ksm_batch_drop(b, gone);
			gone = NULL;
		}
		ksm_batch_search(b, &ops, many, &plan->params);
		if (gone)
			ksm_batch_drop(b, gone);
		ksm_batch_insert(b, &ops, many);
		check_none_held(many);
		commit(many, b);
		check_structure(many, true);
	}
	check_same(one, many);
	check_merged(many);
	ksm_batch_free(b);
	world_free(one);
	world_free(many);
}

void scenario(struct chance *chance, u32 most)
{
	static void (*const kinds[])(struct chance *, struct plan *) = { exact, absent, turmoil, stable, series };
	struct plan plan;

	draw_plan(chance, &plan, most);
	kinds[draw(chance, 5)](chance, &plan);
}
