/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Batched searches of KSM's trees.
 *
 * A search of a KSM tree is a chain of page comparisons, each of which decides
 * where the next one takes place. This is what keeps a comparison engine from
 * being used well: it gets one pair at a time. The code behind this header
 * walks many candidates down a tree side by side (Para-ksmC), or one candidate
 * through several levels at once (Para-ksmT), or both, so that every round
 * yields an array of independent pairs. It also inserts a batch of candidates
 * into a tree although they were searched for in one and the same shape of it.
 *
 * It knows red-black trees and nothing of memory management: pages are tokens,
 * all that concerns them is done by the callbacks of struct ksm_batch_ops. The
 * same file is built in the kernel, under KUnit and in userspace.
 *
 * Life of a batch::
 *
 *	b = ksm_batch_alloc(max_slots, max_reqs);
 *	for each pass over a tree:
 *		ksm_batch_reset(b);
 *		ksm_batch_add(b, page, root, rb, cand) ...
 *		ksm_batch_search(b, ops, ctx, &params);
 *		ksm_batch_insert(b, ops, ctx);		(unstable tree only)
 *		for (group = b->groups; group; group = group->next)
 *			for (slot = group->slots.head; slot; slot = slot->next)
 *				merge slot->page with what hangs at group->rb
 *		for (i = 0; i < b->nr; i++)
 *			look at b->slots[i].state
 *
 * Nothing may be linked into, or erased from, the trees of a batch by anybody
 * else between the begin of ksm_batch_search() and the end of
 * ksm_batch_insert(). Erase only afterwards: until then gaps are known by
 * their neighbours, and a neighbour that is erased and reused would be written
 * to.
 */
#ifndef __MM_KSM_BATCH_H
#define __MM_KSM_BATCH_H

#include <linux/rbtree.h>
#include <linux/types.h>

struct page;

/* A batch has at most so many candidates and requests: they have u16 indices */
#define KSM_BATCH_MAX_SLOTS	4096U
#define KSM_BATCH_MAX_REQS	4096U
/* Most levels of a tree that one round can look at */
#define KSM_BATCH_MAX_LEVELS	6U
/* How often a pair that the backend asks to have again is submitted again */
#define KSM_BATCH_RETRIES	3U
/* How often candidates start anew because a node on their way was stale */
#define KSM_BATCH_RESTARTS	4U

/**
 * enum ksm_slot_state - what has become of a candidate
 * @KSM_SLOT_READY:	added, not yet searched for
 * @KSM_SLOT_MATCH:	equal to the node of its group, which is &slot->end; a
 *			hint that must be checked on write-protected pages
 * @KSM_SLOT_MISS:	nothing equal in the tree; it belongs between
 *			slot->end->pred and slot->end->succ
 * @KSM_SLOT_LINKED:	inserted by ksm_batch_insert()
 * @KSM_SLOT_GIVE_UP:	a search one by one would have ended without a result
 *			as well: nothing to do for this candidate in this pass
 * @KSM_SLOT_FAILED:	no result for reasons of batching or of the backend;
 *			to be handled alone, as without batching
 * @KSM_SLOT_DROPPED:	taken out by ksm_batch_drop()
 */
enum ksm_slot_state {
	KSM_SLOT_READY,
	KSM_SLOT_MATCH,
	KSM_SLOT_MISS,
	KSM_SLOT_LINKED,
	KSM_SLOT_GIVE_UP,
	KSM_SLOT_FAILED,
	KSM_SLOT_DROPPED,
};

/**
 * enum ksm_node_state - what &ksm_batch_ops.get found at a node
 * @KSM_NODE_OK:	a page, which stays as it is until &ksm_batch_ops.put
 * @KSM_NODE_STALE:	the node is to be removed; candidates that come across
 *			it start anew once &ksm_batch_ops.prune was called
 * @KSM_NODE_GIVE_UP:	no page, and nothing is wrong with the node; candidates
 *			that come across it end as KSM_SLOT_GIVE_UP
 */
enum ksm_node_state {
	KSM_NODE_OK,
	KSM_NODE_STALE,
	KSM_NODE_GIVE_UP,
};

/**
 * enum ksm_req_status - state of a comparison
 * @KSM_REQ_PENDING:	not answered. Left so by &ksm_batch_ops.compare: the CPU
 *			compares the pair
 * @KSM_REQ_DONE:	&ksm_batch_req.order is valid
 * @KSM_REQ_RETRY:	not answered, submit it once more (a few times at most)
 * @KSM_REQ_ERROR:	cannot be answered, and the CPU must not try either (a
 *			poisoned page); the candidate ends as KSM_SLOT_FAILED
 * @KSM_REQ_SKIP:	the core's own: not on the way of the candidate
 */
enum ksm_req_status {
	KSM_REQ_PENDING,
	KSM_REQ_DONE,
	KSM_REQ_RETRY,
	KSM_REQ_ERROR,
	KSM_REQ_SKIP,
};

struct ksm_batch_node;
struct ksm_batch_slot;

/**
 * struct ksm_batch_list - candidates that wait at, or ended at, a node
 * @head:	first slot
 * @tail:	last slot, undefined if the list is empty
 * @nr:		number of slots
 */
struct ksm_batch_list {
	struct ksm_batch_slot *head;
	struct ksm_batch_slot *tail;
	unsigned int nr;
};

/**
 * struct ksm_batch_slot - a candidate
 * @page:	its page, never looked into by the core; two candidates with
 *		the same @page are the same physical page
 * @root:	the tree it is searched for in
 * @rb:		what is linked if it is inserted; %NULL in a tree that is only
 *		searched
 * @cand:	the caller's, for instance the rmap_item
 * @cookie:	the caller's, for instance a DMA address; 0 after add
 * @key:	its key, from the caller, where &ksm_batch_ops.key_offset says that
 *		nodes have keys; 0 after add
 * @end:	where the search ended, valid in the states MATCH and MISS
 * @next:	next slot of the same group
 * @index:	position in the batch, which is the order of the scan
 * @state:	one of enum ksm_slot_state
 */
struct ksm_batch_slot {
	struct page *page;
	struct rb_root *root;
	struct rb_node *rb;
	void *cand;
	u64 cookie;
	struct ksm_batch_node *end;
	struct ksm_batch_slot *next;
	/* private: the way down by keys */
	struct rb_node **link;
	struct rb_node *pred;
	struct rb_node *succ;
	/* private: equal candidates found by ksm_batch_insert() */
	struct ksm_batch_list twins;
	u16 carry;
	/* public: */
	u32 key;
	u16 index;
	u8 state;
};

/**
 * struct ksm_batch_node - a tree node in the current round, or where a group ended
 * @rb:		the node; %NULL where a search left the tree
 * @root:	the tree
 * @page:	the node's page, set by &ksm_batch_ops.get
 * @priv:	the caller's, for instance which duplicate of a chain was taken
 * @cookie:	the caller's, for instance a DMA address; 0 before get
 * @pred:	the next smaller node in the tree on the way to this one
 * @succ:	the next larger node in the tree on the way to this one
 * @slots:	the candidates
 * @next:	next node of a list
 * @state:	one of enum ksm_node_state, set by &ksm_batch_ops.get
 */
struct ksm_batch_node {
	struct rb_node *rb;
	struct rb_root *root;
	struct page *page;
	void *priv;
	u64 cookie;
	struct rb_node *pred;
	struct rb_node *succ;
	struct ksm_batch_list slots;
	struct ksm_batch_node *next;
	/* private: */
	struct rb_node **link;
	const void *key;
	struct ksm_batch_node *exit[2];
	struct ksm_batch_node *aside;
	u16 sub[2];
	u16 first;
	u16 nr_sub;
	u16 up;
	u8 dir;
	bool mixed;
	/* public: */
	u8 state;
};

/**
 * struct ksm_batch_req - one pair to be compared
 * @slot:	the candidate, left side of the comparison
 * @node:	the tree node, right side of the comparison
 * @order:	result as of memcmp(@slot->page, @node->page): only its sign counts
 * @status:	one of enum ksm_req_status
 * @cookie:	the caller's, from &ksm_batch_ops.early to
 *		&ksm_batch_ops.compare; for instance the offset up to which the
 *		pages are known to be equal. 0 before early.
 */
struct ksm_batch_req {
	struct ksm_batch_slot *slot;
	struct ksm_batch_node *node;
	int order;
	u16 status;
	u16 cookie;
};

/**
 * struct ksm_batch_ops - what the core asks of its user
 * @get:	Find and hold the pages of @nr nodes, in any order. Sets state
 *		and, if that is %KSM_NODE_OK, page. Gets every node of a round
 *		at once, so that it can prefetch, and take each mm's lock once.
 *		Must not change a tree. May sleep.
 * @put:	Let go of a page that get found. Called for each node that is
 *		%KSM_NODE_OK, before the next round.
 * @compare:	Compare @nr pairs: set status, and order where that is
 *		%KSM_REQ_DONE. May sleep.
 * @compare_cpu: Compare two held pages here and now, like memcmp(). Used for
 *		what compare left pending and to sort candidates for the same
 *		gap. Its answers may contradict each other.
 * @key_offset:	Optional. The tree is ordered by a key first, a u32, and by
 *		content where keys are equal; this is where a node has its key,
 *		in bytes from its rb_node. Comparisons that keys decide need no
 *		page, and no more of a node than its cache line.
 * @early:	Optional. Try to decide a pair on the CPU, for instance from
 *		the first cache line of both pages: set status to
 *		%KSM_REQ_DONE and order, or leave it pending.
 * @prune:	Remove a stale node from the tree and free it. Called after all
 *		cursors are gone. May free @rb and must not free or replace any
 *		other node. Needed only if get says %KSM_NODE_STALE.
 * @linked:	Told that the candidate is in the tree now. Must not erase.
 *
 * Every callback gets the context pointer of ksm_batch_search() or
 * ksm_batch_insert().
 */
struct ksm_batch_ops {
	void (*get)(void *ctx, struct ksm_batch_node **nodes, unsigned int nr);
	void (*put)(void *ctx, struct ksm_batch_node *node);
	void (*compare)(void *ctx, struct ksm_batch_req **reqs,
			unsigned int nr);
	int (*compare_cpu)(void *ctx, struct page *a, struct page *b);
	int key_offset;
	void (*early)(void *ctx, struct ksm_batch_req *req);
	void (*prune)(void *ctx, struct rb_node *rb);
	void (*linked)(void *ctx, struct ksm_batch_slot *slot);
};

/**
 * struct ksm_batch_params - how to search
 * @levels:	how many levels of the tree a round looks at: 1 is Para-ksmC,
 *		more is Para-ksmT. A round takes fewer if the pairs would not
 *		fit the request array; 0 is taken as 1.
 * @eager:	candidates whose comparisons &ksm_batch_ops.early decides go on
 *		down the tree while others wait for compare. Fewer and fuller
 *		calls of compare, more calls of get. Without it all candidates
 *		stay on the same level.
 */
struct ksm_batch_params {
	unsigned int levels;
	bool eager;
};

/**
 * struct ksm_batch_stats - what was done, since ksm_batch_alloc()
 * @searches:	calls of ksm_batch_search() with at least one candidate
 * @rounds:	calls of compare
 * @pairs:	pairs handed to compare, those submitted again included
 * @room:	pairs that these calls had room for: candidates in the batch
 *		times pairs per candidate; @pairs / @room is the utilisation
 * @early:	pairs decided by early
 * @keyed:	comparisons decided by keys
 * @cpu:	pairs that compare left pending
 * @retries:	pairs submitted again
 * @errors:	pairs that ended in an error
 * @gets:	nodes handed to get
 * @restarts:	candidates that started anew
 * @sorted:	comparisons of two candidates for the same gap
 * @linked:	candidates inserted
 * @twins:	candidates found equal to one inserted with them
 */
struct ksm_batch_stats {
	u64 searches;
	u64 rounds;
	u64 pairs;
	u64 room;
	u64 early;
	u64 keyed;
	u64 cpu;
	u64 retries;
	u64 errors;
	u64 gets;
	u64 restarts;
	u64 sorted;
	u64 linked;
	u64 twins;
};

/**
 * struct ksm_batch - candidates on their way through one tree, or one per NUMA node
 * @slots:	the candidates, in the order of the scan
 * @nr:		how many there are
 * @max:	how many there can be
 * @groups:	after search: candidates that match the same node; after insert
 *		also those that match one inserted with them
 * @stats:	counters
 */
struct ksm_batch {
	struct ksm_batch_slot *slots;
	unsigned int nr;
	unsigned int max;
	struct ksm_batch_node *groups;
	struct ksm_batch_stats stats;
	/* private: */
	const struct ksm_batch_ops *ops;
	void *ctx;
	struct ksm_batch_params params;
	struct ksm_batch_node *gaps;
	struct ksm_batch_node *moving;
	struct ksm_batch_node *parked;
	struct ksm_batch_node *stale;
	struct ksm_batch_node *pool;
	struct ksm_batch_node *free;
	struct ksm_batch_node **nodes;
	struct ksm_batch_node **sub;
	struct ksm_batch_req *reqs;
	struct ksm_batch_req **pending;
	u16 *hash;
	unsigned int max_reqs;
	unsigned int max_pool;
	unsigned int nr_pool;
	unsigned int nr_sub;
	unsigned int nr_live;
	unsigned int hash_bits;
	bool searched;
};

struct ksm_batch *ksm_batch_alloc(unsigned int max_slots,
				  unsigned int max_reqs);
void ksm_batch_free(struct ksm_batch *b);
void ksm_batch_reset(struct ksm_batch *b);
struct ksm_batch_slot *ksm_batch_add(struct ksm_batch *b, struct page *page,
				     struct rb_root *root, struct rb_node *rb,
				     void *cand);
void ksm_batch_drop(struct ksm_batch *b, struct ksm_batch_slot *slot);
unsigned int ksm_batch_take(struct ksm_batch *to, struct ksm_batch *from,
			    struct rb_root *root, unsigned int start);
void ksm_batch_search(struct ksm_batch *b, const struct ksm_batch_ops *ops,
		      void *ctx, const struct ksm_batch_params *params);
void ksm_batch_insert(struct ksm_batch *b, const struct ksm_batch_ops *ops,
		      void *ctx);

/* Whether a batch takes no more candidates */
static inline bool ksm_batch_full(const struct ksm_batch *b)
{
	return b->nr == b->max;
}

#endif /* __MM_KSM_BATCH_H */
