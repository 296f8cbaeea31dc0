// SPDX-License-Identifier: GPL-2.0-only
/*
 * Batched searches of KSM's trees, see ksm_batch.h.
 *
 * Why a batch may be searched for in one shape of a tree and inserted later:
 *
 * The way of a candidate from the root to where it leaves the tree is a path in
 * the shape of the tree. It identifies exactly one gap between two neighbours
 * in the order of the tree, pred (the node of the last turn to the right) and
 * succ (that of the last turn to the left), whatever the comparisons on the
 * way said, and even if pages change meanwhile. Hence two candidates have the
 * same gap if and only if they leave the tree through the same link, whose
 * address therefore names the gap; no hash of a neighbour's address is needed,
 * and candidates of different trees never meet.
 *
 * Of two neighbours always exactly one has a free link towards the gap: if
 * pred has a right child then succ is the leftmost node of that subtree and has
 * no left child, otherwise succ is an ancestor of pred, and pred is the
 * rightmost node of its left subtree. Rotations and recolouring keep the order
 * and so the neighbours. An insertion into the gap is the only thing in
 * ksm_batch_insert() that changes them, so candidates for one gap are sorted
 * and inserted from the largest down, each becoming the successor of the next.
 */
#include <linux/bug.h>
#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/prefetch.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "ksm_batch.h"

/* 2^12 candidates make runs of 2^0 .. 2^12 */
#define KSM_SORT_RUNS	13

typedef int (*ksm_sort_fn)(struct ksm_batch *b, struct ksm_batch_slot *x,
			   struct ksm_batch_slot *y);

static void slot_add(struct ksm_batch_list *list, struct ksm_batch_slot *slot)
{
	slot->next = NULL;
	if (list->head)
		list->tail->next = slot;
	else
		list->head = slot;
	list->tail = slot;
	list->nr++;
}

static void slots_splice(struct ksm_batch_list *to, struct ksm_batch_list *from)
{
	if (!from->head)
		return;
	if (to->head)
		to->tail->next = from->head;
	else
		to->head = from->head;
	to->tail = from->tail;
	to->nr += from->nr;
	from->head = NULL;
	from->nr = 0;
}

static void slots_end(struct ksm_batch_list *list, enum ksm_slot_state state)
{
	struct ksm_batch_slot *slot;

	for (slot = list->head; slot; slot = slot->next)
		slot->state = state;
}

static void node_push(struct ksm_batch_node **list, struct ksm_batch_node *node)
{
	node->next = *list;
	*list = node;
}

/*
 * Nodes with candidates are never more than candidates. Beside them live only,
 * within a round, the nodes that candidates are just leaving, again not more
 * than candidates, and the nodes below these, fewer than requests.
 */
static struct ksm_batch_node *node_new(struct ksm_batch *b,
				       struct rb_root *root, struct rb_node *rb)
{
	struct ksm_batch_node *node = b->free;

	if (node)
		b->free = node->next;
	else
		node = &b->pool[b->nr_pool++];

	memset(node, 0, sizeof(*node));
	node->root = root;
	node->rb = rb;
	return node;
}

static void node_free(struct ksm_batch *b, struct ksm_batch_node *node)
{
	node_push(&b->free, node);
}

/* A node of its own for candidates that end here */
static struct ksm_batch_node *node_aside(struct ksm_batch *b,
					 struct ksm_batch_node *node,
					 struct ksm_batch_node **list)
{
	struct ksm_batch_node *aside = node->aside;

	if (!aside) {
		aside = node_new(b, node->root, node->rb);
		aside->key = node->rb;
		aside->page = node->page;
		aside->pred = node->pred;
		aside->succ = node->succ;
		node->aside = aside;
		node_push(list, aside);
	}
	return aside;
}

/* Let a candidate go on from a node, or end there, as its comparison says */
static void slot_move(struct ksm_batch *b, struct ksm_batch_node *node,
		      struct ksm_batch_slot *slot, int order)
{
	struct ksm_batch_node *to;

	if (!order) {
		to = node_aside(b, node, &b->groups);
		/* some may be here already, decided earlier than others */
		if (to->slots.head && to->slots.tail->index > slot->index)
			to->mixed = true;
	} else if (node->exit[order > 0]) {
		to = node->exit[order > 0];
	} else if (order < 0) {
		to = node_new(b, node->root, node->rb->rb_left);
		to->link = &node->rb->rb_left;
		to->pred = node->pred;
		to->succ = node->rb;
	} else {
		to = node_new(b, node->root, node->rb->rb_right);
		to->link = &node->rb->rb_right;
		to->pred = node->rb;
		to->succ = node->succ;
	}

	if (order && !to->slots.head) {
		if (to->rb)
			prefetch(to->rb);
		to->key = to->link;
		node->exit[order > 0] = to;
		node_push(&b->moving, to);
	}
	slot_add(&to->slots, slot);
}

static void hash_reset(struct ksm_batch *b, unsigned int nr)
{
	b->hash_bits = ilog2(roundup_pow_of_two(nr)) + 1;
	memset(b->hash, 0, sizeof(*b->hash) << b->hash_bits);
}

/* Where the table has, or would have, the node with this key */
static u16 *hash_find(struct ksm_batch *b, const void *key)
{
	unsigned int i = hash_ptr(key, b->hash_bits);

	while (b->hash[i] && b->pool[b->hash[i] - 1].key != key)
		i = (i + 1) & ((1U << b->hash_bits) - 1);
	return &b->hash[i];
}

/* Make one of the nodes with the same key */
static void nodes_unite(struct ksm_batch *b, struct ksm_batch_node **list)
{
	struct ksm_batch_node *node, *next, *all = NULL;
	u16 *at;

	if (!*list || !(*list)->next)
		return;

	hash_reset(b, b->nr);
	for (node = *list; node; node = next) {
		next = node->next;
		at = hash_find(b, node->key);
		if (*at) {
			b->pool[*at - 1].mixed = true;
			slots_splice(&b->pool[*at - 1].slots, &node->slots);
			node_free(b, node);
			continue;
		}
		*at = node - b->pool + 1;
		node_push(&all, node);
	}
	*list = all;
}

/*
 * Merge two sorted lists. Elements that compare equal become one: the one that
 * comes first in the scan, the other its twin. @x and its successors come
 * before @y in a tie that is none (by index there is no tie).
 */
static struct ksm_batch_slot *slots_merge(struct ksm_batch *b,
					  struct ksm_batch_slot *x,
					  struct ksm_batch_slot *y,
					  ksm_sort_fn fn)
{
	struct ksm_batch_slot *head = NULL, **tail = &head, *low, *twin;
	int order;

	while (x && y) {
		order = fn(b, x, y);
		if (order < 0) {
			low = x;
			x = x->next;
		} else if (order > 0) {
			low = y;
			y = y->next;
		} else {
			low = x->index < y->index ? x : y;
			twin = low == x ? y : x;
			x = x->next;
			y = y->next;
			slot_add(&low->twins, twin);
			slots_splice(&low->twins, &twin->twins);
		}
		*tail = low;
		tail = &low->next;
	}
	*tail = x ? x : y;
	return head;
}

/*
 * Merge sort from the bottom up. It ends after the same number of comparisons
 * whatever they say, which matters as pages change while they are compared.
 */
static struct ksm_batch_slot *slots_sort(struct ksm_batch *b,
					 struct ksm_batch_slot *list,
					 ksm_sort_fn fn)
{
	struct ksm_batch_slot *run[KSM_SORT_RUNS] = {}, *slot;
	unsigned int i;

	while (list) {
		slot = list;
		list = slot->next;
		slot->next = NULL;
		for (i = 0; run[i]; i++) {
			slot = slots_merge(b, run[i], slot, fn);
			run[i] = NULL;
		}
		run[i] = slot;
	}
	for (i = 0, slot = NULL; i < KSM_SORT_RUNS; i++) {
		if (run[i])
			slot = slots_merge(b, run[i], slot, fn);
	}
	return slot;
}

static int order_by_index(struct ksm_batch *b, struct ksm_batch_slot *x,
			  struct ksm_batch_slot *y)
{
	return (int)x->index - (int)y->index;
}

/* How two keys compare, counted if that decides; 0 also where there are none */
static int order_by_key(struct ksm_batch *b, u32 x, u32 y)
{
	if (!b->ops->key_offset || x == y)
		return 0;
	b->stats.keyed++;
	return x < y ? -1 : 1;
}

static int order_by_content(struct ksm_batch *b, struct ksm_batch_slot *x,
			    struct ksm_batch_slot *y)
{
	int order;

	if (x->page == y->page)
		return 0;
	order = order_by_key(b, x->key, y->key);
	if (order)
		return order;
	b->stats.sorted++;
	cond_resched();
	return b->ops->compare_cpu(b->ctx, x->page, y->page);
}

/* Put the ready candidates of a list at the roots of their trees */
static void search_start(struct ksm_batch *b, struct ksm_batch_list *list)
{
	struct ksm_batch_slot *slot, *next;
	struct ksm_batch_node *node = NULL;
	u16 *at;

	if (!list->head)
		return;

	hash_reset(b, list->nr);
	for (slot = list->head; slot; slot = next) {
		next = slot->next;
		if (!node || node->root != slot->root) {
			at = hash_find(b, &slot->root->rb_node);
			if (*at) {
				node = &b->pool[*at - 1];
			} else {
				node = node_new(b, slot->root,
						slot->root->rb_node);
				node->link = &slot->root->rb_node;
				node->key = node->link;
				node_push(&b->moving, node);
				*at = node - b->pool + 1;
			}
		}
		slot_add(&node->slots, slot);
	}
}

/* How a candidate and a node of the tree compare by their keys */
static int slot_order(struct ksm_batch *b, const struct ksm_batch_slot *slot,
		      const struct rb_node *rb)
{
	const char *key = (const char *)rb + b->ops->key_offset;

	return order_by_key(b, slot->key, *(const u32 *)key);
}

/* One step down the tree; false if there is none, or if keys do not decide */
static bool slot_step(struct ksm_batch *b, struct ksm_batch_slot *slot)
{
	struct rb_node *rb = *slot->link;
	int order;

	order = rb ? slot_order(b, slot, rb) : 0;
	if (!order)
		return false;
	if (order < 0) {
		slot->succ = rb;
		slot->link = &rb->rb_left;
	} else {
		slot->pred = rb;
		slot->link = &rb->rb_right;
	}
	if (*slot->link)
		prefetch(*slot->link);
	return true;
}

/*
 * Take the candidates of all moving nodes down the tree as far as keys lead
 * them. They take turns, a step each, so that the nodes of the next steps are
 * on their way to the cache meanwhile.
 */
static void search_by_key(struct ksm_batch *b)
{
	struct ksm_batch_slot *slot, *next, *list = NULL, *still;
	struct ksm_batch_node *node, *next_node;

	for (node = b->moving; node; node = next_node) {
		next_node = node->next;
		for (slot = node->slots.head; slot; slot = next) {
			next = slot->next;
			slot->link = node->link;
			slot->pred = node->pred;
			slot->succ = node->succ;
			slot->next = list;
			list = slot;
		}
		node_free(b, node);
	}
	b->moving = NULL;

	while (list) {
		for (still = NULL, slot = list; slot; slot = next) {
			next = slot->next;
			if (slot_step(b, slot)) {
				slot->next = still;
				still = slot;
				continue;
			}
			node = node_new(b, slot->root, *slot->link);
			node->link = slot->link;
			node->pred = slot->pred;
			node->succ = slot->succ;
			node->key = node->rb ? (void *)node->rb :
					       (void *)node->link;
			slot_add(&node->slots, slot);
			node_push(node->rb ? &b->moving : &b->gaps, node);
		}
		list = still;
		cond_resched();
	}
	nodes_unite(b, &b->moving);
}

/* Likewise, on whose comparison the CPU can decide at once */
static void node_split_early(struct ksm_batch *b, struct ksm_batch_node *node)
{
	struct ksm_batch_list list = node->slots;
	struct ksm_batch_slot *slot, *next;

	memset(&node->slots, 0, sizeof(node->slots));
	for (slot = list.head; slot; slot = next) {
		struct ksm_batch_req req = {
			.slot = slot,
			.node = node,
			.status = KSM_REQ_PENDING,
		};

		next = slot->next;
		if (slot->page == node->page) {
			slot_move(b, node, slot, 0);
			continue;
		}
		b->ops->early(b->ctx, &req);
		if (req.status == KSM_REQ_DONE) {
			b->stats.early++;
			slot_move(b, node, slot, req.order);
		} else if (req.status == KSM_REQ_ERROR) {
			b->stats.errors++;
			slot->state = KSM_SLOT_FAILED;
		} else {
			slot->carry = req.cookie;
			slot_add(&node->slots, slot);
		}
	}
	/* who stays leaves later, when those who left may have gone further */
	node->exit[0] = NULL;
	node->exit[1] = NULL;
}

static bool early_goes_on(const struct ksm_batch *b)
{
	return b->params.eager && b->ops->early;
}

/*
 * Take all candidates to the next node whose comparison with them is open, or
 * to their end. If nothing can be decided without the backend this is the node
 * at hand, and all stay on the same level.
 */
static void search_descend(struct ksm_batch *b)
{
	struct ksm_batch_node *node, *next;
	unsigned int nr, i;

	do {
		if (b->ops->key_offset)
			search_by_key(b);
		nr = 0;
		node = b->moving;
		b->moving = NULL;
		for (; node; node = next) {
			next = node->next;
			if (node->rb)
				b->nodes[nr++] = node;
			else
				node_push(&b->gaps, node);
		}
		if (nr) {
			b->stats.gets += nr;
			b->ops->get(b->ctx, b->nodes, nr);
		}
		for (i = 0; i < nr; i++) {
			node = b->nodes[i];
			if (node->state == KSM_NODE_STALE) {
				node->key = node->rb;
				node_push(&b->stale, node);
				continue;
			}
			if (node->state != KSM_NODE_OK) {
				slots_end(&node->slots, KSM_SLOT_GIVE_UP);
				node_free(b, node);
				continue;
			}
			if (early_goes_on(b)) {
				node_split_early(b, node);
				if (!node->slots.head) {
					b->ops->put(b->ctx, node);
					node_free(b, node);
					continue;
				}
			}
			node_push(&b->parked, node);
		}
		cond_resched();
	} while (b->moving);
}

static struct ksm_batch_node *node_below(struct ksm_batch *b,
					 struct ksm_batch_node *node,
					 unsigned int nth)
{
	return nth ? b->sub[node->first + nth - 1] : node;
}

static void node_add_below(struct ksm_batch *b, struct ksm_batch_node *node,
			   unsigned int nth, unsigned int dir)
{
	struct ksm_batch_node *up = node_below(b, node, nth), *sub;
	struct rb_node *rb = dir ? up->rb->rb_right : up->rb->rb_left;

	if (!rb)
		return;
	sub = node_new(b, node->root, rb);
	sub->pred = dir ? up->rb : up->pred;
	sub->succ = dir ? up->succ : up->rb;
	sub->up = nth;
	sub->dir = dir;
	b->sub[b->nr_sub++] = sub;
	up->sub[dir] = ++node->nr_sub;
}

/* Find the nodes below a node, level by level */
static void node_expand(struct ksm_batch *b, struct ksm_batch_node *node,
			unsigned int levels)
{
	unsigned int nth = 0, end;

	node->first = b->nr_sub;
	while (--levels) {
		for (end = node->nr_sub; nth <= end; nth++) {
			node_add_below(b, node, nth, 0);
			node_add_below(b, node, nth, 1);
		}
	}
}

/*
 * Look further down than one level, if so wanted and as far as there is room
 * for the pairs: all candidates at a node are compared with all nodes below.
 */
static void search_expand(struct ksm_batch *b)
{
	unsigned int levels = clamp(b->params.levels, 1U, KSM_BATCH_MAX_LEVELS);
	struct ksm_batch_node *node;
	unsigned int nr = 0;

	b->nr_sub = 0;
	for (node = b->parked; node; node = node->next)
		nr += node->slots.nr;
	while (levels > 1 && nr * ((1U << levels) - 1) > b->max_reqs)
		levels--;

	b->stats.room += b->nr_live * ((1U << levels) - 1);
	if (levels == 1)
		return;
	for (node = b->parked; node; node = node->next)
		node_expand(b, node, levels);
	if (b->nr_sub) {
		b->stats.gets += b->nr_sub;
		b->ops->get(b->ctx, b->sub, b->nr_sub);
	}
}

/* Whether a comparison can matter, given what is known of the one above */
static bool req_wanted(const struct ksm_batch_req *up, unsigned int dir)
{
	switch (up->status) {
	case KSM_REQ_PENDING:
		return true;
	case KSM_REQ_DONE:
		return up->order && (up->order > 0) == dir;
	default:
		return false;
	}
}

/* Write down a pair; returns whether it is for the backend */
static bool req_prepare(struct ksm_batch *b, struct ksm_batch_req *req,
			bool looked_at)
{
	const struct ksm_batch_ops *ops = b->ops;

	req->status = KSM_REQ_DONE;
	req->order = slot_order(b, req->slot, req->node->rb);
	req->cookie = 0;
	if (req->order || req->slot->page == req->node->page)
		return false;
	req->status = KSM_REQ_PENDING;
	if (looked_at) {
		req->cookie = req->slot->carry;
	} else if (ops->early) {
		ops->early(b->ctx, req);
		if (req->status == KSM_REQ_DONE)
			b->stats.early++;
		else if (req->status == KSM_REQ_ERROR)
			b->stats.errors++;
		else
			req->status = KSM_REQ_PENDING;
	}
	return req->status == KSM_REQ_PENDING;
}

/* All pairs of this round; returns how many are for the backend */
static unsigned int search_prepare(struct ksm_batch *b)
{
	struct ksm_batch_req *reqs = b->reqs;
	struct ksm_batch_node *node;
	struct ksm_batch_slot *slot;
	unsigned int nth, pending = 0;

	for (node = b->parked; node; node = node->next) {
		for (slot = node->slots.head; slot; slot = slot->next) {
			for (nth = 0; nth <= node->nr_sub; nth++) {
				struct ksm_batch_req *req = reqs + nth;
				struct ksm_batch_node *at;

				at = node_below(b, node, nth);
				req->slot = slot;
				req->node = at;
				if ((nth && !req_wanted(reqs + at->up, at->dir)) ||
				    at->state != KSM_NODE_OK)
					req->status = KSM_REQ_SKIP;
				else if (req_prepare(b, req,
						     !nth && early_goes_on(b)))
					b->pending[pending++] = req;
			}
			reqs += nth;
		}
	}
	return pending;
}

static void search_compare(struct ksm_batch *b, unsigned int nr)
{
	unsigned int again, try, i;

	for (try = 0; nr; try++) {
		if (b->ops->compare) {
			b->stats.rounds++;
			b->stats.pairs += nr;
			b->ops->compare(b->ctx, b->pending, nr);
		}
		for (i = 0, again = 0; i < nr; i++) {
			struct ksm_batch_req *req = b->pending[i];

			if (req->status == KSM_REQ_DONE)
				continue;
			if (req->status == KSM_REQ_ERROR) {
				b->stats.errors++;
				continue;
			}
			if (req->status == KSM_REQ_RETRY &&
			    try < KSM_BATCH_RETRIES) {
				b->stats.retries++;
				req->status = KSM_REQ_PENDING;
				b->pending[again++] = req;
				continue;
			}
			b->stats.cpu++;
			req->status = KSM_REQ_DONE;
			req->order = b->ops->compare_cpu(b->ctx,
							 req->slot->page,
							 req->node->page);
		}
		nr = again;
	}
}

/*
 * Follow the answers in the shape of the tree. They need not agree with each
 * other, as pages change: looking for the first larger node among all that were
 * compared could name neighbours that are none.
 */
static void slot_follow(struct ksm_batch *b, struct ksm_batch_node *node,
			struct ksm_batch_slot *slot,
			const struct ksm_batch_req *reqs)
{
	struct ksm_batch_node *at = node;
	unsigned int nth = 0;

	for (;;) {
		if (at->state == KSM_NODE_STALE) {
			slot_add(&node_aside(b, at, &b->stale)->slots, slot);
			return;
		}
		if (at->state != KSM_NODE_OK) {
			slot->state = KSM_SLOT_GIVE_UP;
			return;
		}
		if (reqs[nth].status != KSM_REQ_DONE) {
			slot->state = KSM_SLOT_FAILED;
			return;
		}
		if (!reqs[nth].order || !at->sub[reqs[nth].order > 0]) {
			slot_move(b, at, slot, reqs[nth].order);
			return;
		}
		nth = at->sub[reqs[nth].order > 0];
		at = node_below(b, node, nth);
	}
}

static void search_follow(struct ksm_batch *b)
{
	const struct ksm_batch_req *reqs = b->reqs;
	struct ksm_batch_node *node, *next_node;
	struct ksm_batch_slot *slot, *next;
	unsigned int i;

	for (node = b->parked; node; node = next_node) {
		next_node = node->next;
		for (slot = node->slots.head; slot; slot = next) {
			next = slot->next;
			slot_follow(b, node, slot, reqs);
			reqs += node->nr_sub + 1;
		}
		b->ops->put(b->ctx, node);
		node_free(b, node);
	}
	b->parked = NULL;

	for (i = 0; i < b->nr_sub; i++) {
		if (b->sub[i]->state == KSM_NODE_OK)
			b->ops->put(b->ctx, b->sub[i]);
		node_free(b, b->sub[i]);
	}
}

static void search_rounds(struct ksm_batch *b)
{
	while (b->moving) {
		search_descend(b);
		if (!b->parked)
			break;
		search_expand(b);
		search_compare(b, search_prepare(b));
		search_follow(b);
	}
}

/*
 * Remove what was found stale; @again gets the candidates that came across it.
 * No cursor is alive, but the gaps found so far may have had one of these nodes
 * for a neighbour: they are forgotten, and their candidates keep the bare
 * knowledge that the tree has nothing equal. Who matched one of these nodes
 * while it still had a page starts anew as well.
 */
static void search_prune(struct ksm_batch *b, struct ksm_batch_list *again)
{
	struct ksm_batch_node *node, *gap, **at;
	u16 *matched;

	gap = b->gaps;
	if (gap) {
		while ((node = gap->next)) {
			gap->next = node->next;
			slots_splice(&gap->slots, &node->slots);
			node_free(b, node);
		}
		gap->rb = NULL;
		gap->link = NULL;
		gap->key = NULL;
		gap->pred = NULL;
		gap->succ = NULL;
	}

	/* two that found the same node stale must not have it freed twice */
	nodes_unite(b, &b->stale);
	nodes_unite(b, &b->groups);
	hash_reset(b, b->nr);
	for (node = b->groups; node; node = node->next)
		*hash_find(b, node->key) = node - b->pool + 1;

	for (node = b->stale; node; node = node->next) {
		slots_splice(again, &node->slots);
		matched = hash_find(b, node->key);
		if (*matched)
			slots_splice(again, &b->pool[*matched - 1].slots);
	}
	at = &b->groups;
	while ((node = *at)) {
		if (node->slots.head) {
			at = &node->next;
		} else {
			*at = node->next;
			node_free(b, node);
		}
	}

	while ((node = b->stale)) {
		b->stale = node->next;
		if (!WARN_ON_ONCE(!b->ops->prune))
			b->ops->prune(b->ctx, node->rb);
		node_free(b, node);
	}
}

static void search_finish(struct ksm_batch *b)
{
	struct ksm_batch_slot *slot;
	struct ksm_batch_node *node;

	nodes_unite(b, &b->groups);
	for (node = b->groups; node; node = node->next) {
		if (node->mixed)
			node->slots.head = slots_sort(b, node->slots.head,
						      order_by_index);
		for (slot = node->slots.head; slot; slot = slot->next) {
			slot->end = node;
			slot->state = KSM_SLOT_MATCH;
			node->slots.tail = slot;
		}
	}

	nodes_unite(b, &b->gaps);
	for (node = b->gaps; node; node = node->next) {
		for (slot = node->slots.head; slot; slot = slot->next) {
			slot->end = node;
			slot->state = KSM_SLOT_MISS;
		}
	}
}

/**
 * ksm_batch_search - look for all candidates of a batch
 * @b:		a batch with candidates, not searched since ksm_batch_reset()
 * @ops:	callbacks
 * @ctx:	handed to them
 * @params:	how to search
 *
 * Takes as many rounds as the longest way down the tree has comparisons that
 * only the backend decides. Every candidate ends in one of the states MATCH,
 * MISS, GIVE_UP and FAILED. The groups of candidates that match the same node
 * are in @b->groups, ordered within by the scan.
 */
void ksm_batch_search(struct ksm_batch *b, const struct ksm_batch_ops *ops,
		      void *ctx, const struct ksm_batch_params *params)
{
	struct ksm_batch_list list = {};
	unsigned int i, restarts;

	if (WARN_ON_ONCE(b->searched))
		return;
	b->searched = true;
	b->ops = ops;
	b->ctx = ctx;
	b->params = *params;

	for (i = 0; i < b->nr; i++) {
		if (b->slots[i].state == KSM_SLOT_READY)
			slot_add(&list, &b->slots[i]);
	}
	b->nr_live = list.nr;
	if (list.nr)
		b->stats.searches++;

	for (restarts = 0; list.nr; restarts++) {
		search_start(b, &list);
		search_rounds(b);

		memset(&list, 0, sizeof(list));
		if (!b->stale)
			break;
		search_prune(b, &list);
		if (restarts == KSM_BATCH_RESTARTS) {
			slots_end(&list, KSM_SLOT_FAILED);
			break;
		}
		b->stats.restarts += list.nr;
	}
	search_finish(b);
}

/*
 * The free link of a gap is on the right of its lower neighbour, or, if there
 * is none or it has a right child, on the left of its upper neighbour. Only an
 * empty tree has neither. Anything else means that somebody changed the tree:
 * leave it alone.
 */
static bool gap_link(struct ksm_batch_node *gap, struct rb_node *rb)
{
	struct rb_node *parent = NULL, **link = &gap->root->rb_node;

	if (gap->pred && !gap->pred->rb_right) {
		parent = gap->pred;
		link = &parent->rb_right;
	} else if (gap->succ) {
		parent = gap->succ;
		link = &parent->rb_left;
	}
	if (WARN_ON_ONCE(*link))
		return false;

	rb_link_node(rb, parent, link);
	rb_insert_color(rb, gap->root);
	return true;
}

/* Twins are to their first what candidates are to the tree node they match */
static void slot_settle_twins(struct ksm_batch *b, struct ksm_batch_slot *slot,
			      struct rb_root *root)
{
	struct ksm_batch_node *group;
	struct ksm_batch_slot *twin;

	if (!slot->twins.head)
		return;
	group = node_new(b, root, slot->rb);
	group->page = slot->page;
	group->slots = slot->twins;
	memset(&slot->twins, 0, sizeof(slot->twins));
	group->slots.head = slots_sort(b, group->slots.head, order_by_index);
	for (twin = group->slots.head; twin; twin = twin->next) {
		twin->end = group;
		twin->state = slot->state == KSM_SLOT_LINKED ? KSM_SLOT_MATCH :
							       KSM_SLOT_FAILED;
		group->slots.tail = twin;
	}
	if (slot->state == KSM_SLOT_LINKED) {
		b->stats.twins += group->slots.nr;
		node_push(&b->groups, group);
	} else {
		node_free(b, group);
	}
}

static void gap_insert(struct ksm_batch *b, struct ksm_batch_node *gap)
{
	struct ksm_batch_slot *slot, *next, *descending = NULL;
	struct ksm_batch_list list = {};

	for (slot = gap->slots.head; slot; slot = next) {
		next = slot->next;
		if (slot->state != KSM_SLOT_MISS)
			continue;
		if (gap->link)
			slot_add(&list, slot);
		else
			slot->state = KSM_SLOT_FAILED;
	}

	for (slot = slots_sort(b, list.head, order_by_content); slot;
	     slot = next) {
		next = slot->next;
		slot->next = descending;
		descending = slot;
	}

	for (slot = descending; slot; slot = next) {
		next = slot->next;
		slot->next = NULL;
		slot->end = NULL;
		slot->state = KSM_SLOT_FAILED;
		if (!WARN_ON_ONCE(!slot->rb) && gap_link(gap, slot->rb)) {
			slot->state = KSM_SLOT_LINKED;
			b->stats.linked++;
			gap->succ = slot->rb;
			if (b->ops->linked)
				b->ops->linked(b->ctx, slot);
		}
		slot_settle_twins(b, slot, gap->root);
	}
}

/*
 * A candidate whose page is the very page it matches, mapped a second time
 * after a fork, is left alone, unless one before it in the scan has another
 * page: then the two are about to be merged, and a search one by one would have
 * found the result in the stable tree. True if nobody stays.
 */
static bool group_drop_same(struct ksm_batch_node *group)
{
	struct ksm_batch_slot *slot;

	while ((slot = group->slots.head)) {
		if (slot->state == KSM_SLOT_MATCH) {
			if (slot->page != group->page)
				return false;
			slot->state = KSM_SLOT_GIVE_UP;
		}
		group->slots.head = slot->next;
		group->slots.nr--;
		slot->end = NULL;
	}
	return true;
}

/**
 * ksm_batch_insert - insert what the tree has nothing equal to
 * @b:		the batch, after ksm_batch_search() in trees that did not change
 *		since
 * @ops:	callbacks
 * @ctx:	handed to them
 *
 * Candidates in state MISS are inserted. Of those that are equal to each other
 * the first one is, and the others end in state MATCH, in a group of @b->groups
 * whose node is the one just inserted: to the caller there is no difference
 * between a match in the tree and one in the batch. Candidates that missed
 * before a stale node was pruned have lost their gap and end in state FAILED.
 *
 * All insertions are made before the caller gets to erase anything. The pages
 * of the candidates must still be held.
 */
void ksm_batch_insert(struct ksm_batch *b, const struct ksm_batch_ops *ops,
		      void *ctx)
{
	struct ksm_batch_node *gap, **at, *group;

	if (WARN_ON_ONCE(!b->searched))
		return;
	b->ops = ops;
	b->ctx = ctx;

	while ((gap = b->gaps)) {
		b->gaps = gap->next;
		gap_insert(b, gap);
		node_free(b, gap);
		cond_resched();
	}

	at = &b->groups;
	while ((group = *at)) {
		if (group_drop_same(group)) {
			*at = group->next;
			node_free(b, group);
		} else {
			at = &group->next;
		}
	}
}

/**
 * ksm_batch_add - add a candidate
 * @b:		the batch, before ksm_batch_search()
 * @page:	its page
 * @root:	the tree to search
 * @rb:		what to link if it is inserted, or %NULL
 * @cand:	the caller's
 *
 * Return: the slot, or %NULL if the batch is full.
 */
struct ksm_batch_slot *ksm_batch_add(struct ksm_batch *b, struct page *page,
				     struct rb_root *root, struct rb_node *rb,
				     void *cand)
{
	struct ksm_batch_slot *slot;

	if (b->nr == b->max || WARN_ON_ONCE(b->searched))
		return NULL;

	slot = &b->slots[b->nr];
	memset(slot, 0, sizeof(*slot));
	slot->index = b->nr++;
	slot->page = page;
	slot->root = root;
	slot->rb = rb;
	slot->cand = cand;
	slot->state = KSM_SLOT_READY;
	return slot;
}

/**
 * ksm_batch_drop - forget a candidate, for instance because it is being freed
 * @b:		its batch, not in a search or an insertion
 * @slot:	the candidate
 *
 * A slot that is in a group stays there: look at its state.
 */
void ksm_batch_drop(struct ksm_batch *b, struct ksm_batch_slot *slot)
{
	slot->state = KSM_SLOT_DROPPED;
	slot->cand = NULL;
	slot->page = NULL;
	slot->rb = NULL;
}

/**
 * ksm_batch_take - collect the survivors of one search for the next one
 * @to:		a batch that is being filled
 * @from:	a batch that was searched, without insertion
 * @root:	the tree to search next, or %NULL if the caller sets the root of
 *		each slot
 * @start:	the first slot to look at
 *
 * Moves the candidates in state MISS, in the order of the scan and with the
 * caller's cookie, until @to is full or @from has no more. In @from they end
 * as DROPPED.
 *
 * Return: the slot to go on with, @from->nr if there is nothing left.
 */
unsigned int ksm_batch_take(struct ksm_batch *to, struct ksm_batch *from,
			    struct rb_root *root, unsigned int start)
{
	struct ksm_batch_slot *old, *new;
	unsigned int i;

	for (i = start; i < from->nr; i++) {
		old = &from->slots[i];
		if (old->state != KSM_SLOT_MISS)
			continue;
		new = ksm_batch_add(to, old->page, root, old->rb, old->cand);
		if (!new)
			break;
		new->cookie = old->cookie;
		new->key = old->key;
		old->cookie = 0;
		ksm_batch_drop(from, old);
	}
	return i;
}

/**
 * ksm_batch_reset - empty a batch, keep its memory and counters
 * @b:		the batch
 */
void ksm_batch_reset(struct ksm_batch *b)
{
	b->nr = 0;
	b->nr_pool = 0;
	b->nr_sub = 0;
	b->nr_live = 0;
	b->free = NULL;
	b->groups = NULL;
	b->gaps = NULL;
	b->moving = NULL;
	b->parked = NULL;
	b->stale = NULL;
	b->searched = false;
}

/**
 * ksm_batch_alloc - allocate a batch; nothing is allocated later
 * @max_slots:	most candidates, 1 to %KSM_BATCH_MAX_SLOTS
 * @max_reqs:	most pairs in a round, at most %KSM_BATCH_MAX_REQS; raised to
 *		@max_slots. One candidate and M levels need 2^M - 1.
 *
 * Return: the empty batch, or %NULL if a limit is not kept or memory is short.
 */
struct ksm_batch *ksm_batch_alloc(unsigned int max_slots, unsigned int max_reqs)
{
	struct ksm_batch *b;

	max_reqs = max(max_reqs, max_slots);
	if (!max_slots || max_slots > KSM_BATCH_MAX_SLOTS ||
	    max_reqs > KSM_BATCH_MAX_REQS)
		return NULL;

	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return NULL;

	b->max = max_slots;
	b->max_reqs = max_reqs;
	b->max_pool = 2 * max_slots + max_reqs;
	b->slots = kvcalloc(max_slots, sizeof(*b->slots), GFP_KERNEL);
	b->pool = kvcalloc(b->max_pool, sizeof(*b->pool), GFP_KERNEL);
	b->nodes = kvcalloc(max_slots, sizeof(*b->nodes), GFP_KERNEL);
	b->sub = kvcalloc(max_reqs, sizeof(*b->sub), GFP_KERNEL);
	b->reqs = kvcalloc(max_reqs, sizeof(*b->reqs), GFP_KERNEL);
	b->pending = kvcalloc(max_reqs, sizeof(*b->pending), GFP_KERNEL);
	b->hash = kvcalloc(2 * roundup_pow_of_two(max_slots), sizeof(*b->hash),
			   GFP_KERNEL);
	if (!b->slots || !b->pool || !b->nodes || !b->sub || !b->reqs ||
	    !b->pending || !b->hash) {
		ksm_batch_free(b);
		return NULL;
	}
	ksm_batch_reset(b);
	return b;
}

/**
 * ksm_batch_free - free a batch
 * @b:		the batch, or %NULL
 */
void ksm_batch_free(struct ksm_batch *b)
{
	if (!b)
		return;
	kvfree(b->slots);
	kvfree(b->pool);
	kvfree(b->nodes);
	kvfree(b->sub);
	kvfree(b->reqs);
	kvfree(b->pending);
	kvfree(b->hash);
	kfree(b);
}
