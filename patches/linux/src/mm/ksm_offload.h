/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __MM_KSM_OFFLOAD_H
#define __MM_KSM_OFFLOAD_H
/*
 * What mm/ksm.c asks of mm/ksm_offload.c: answers about page contents, without
 * having to know who finds them.
 */
#include <linux/jump_label.h>
#include <linux/types.h>

struct page;

/* how ksmd works, as /sys/kernel/mm/ksm/offload_mode names it */
enum ksm_offload_mode {
	KSM_MODE_CPU,		/* one page at a time, on the processor */
	KSM_MODE_DSA,		/* one page at a time, each question to a device */
	KSM_MODE_PARA_C,	/* batches of candidate pages */
	KSM_MODE_PARA_T,	/* batches of tree pages */
};

#define KSM_OFFLOAD_MAX_BATCH	1024
#define KSM_OFFLOAD_MAX_LEVELS	6

/**
 * struct ksm_offload_pair - a candidate page and a page of a tree
 * @slot: index of the candidate page in the batch
 * @tree: the page of the tree, referenced by the caller
 * @order: the answer: how the candidate compares, as memcmp() tells it
 */
struct ksm_offload_pair {
	unsigned int slot;
	struct page *tree;
	int order;
};

#ifdef CONFIG_KSM_OFFLOAD

DECLARE_STATIC_KEY_FALSE(ksm_offload_each);

enum ksm_offload_mode ksm_offload_mode(void);
unsigned int ksm_offload_batch_size(void);
unsigned int ksm_offload_tree_levels(void);
bool ksm_offload_by_prefix(void);

/* one page: mode "dsa" */
int __ksm_offload_memcmp(struct page *page, struct page *tree);
u32 __ksm_offload_checksum(struct page *page);

/* a batch; nothing of it may outlive the matching end */
void ksm_offload_begin(struct page **pages, unsigned int nr);
bool ksm_offload_decide(struct page *page, struct page *tree, int *order);
void ksm_offload_compare(struct ksm_offload_pair *pairs, unsigned int nr);
void ksm_offload_checksum(const u16 *slots, u32 *sums, unsigned int nr);
void ksm_offload_end(void);

bool ksm_offload_crc(u32 *zero);
u32 ksm_offload_cpu_crc(struct page *page);

/* counted by mm/ksm.c, shown by mm/ksm_offload.c; written by ksmd alone */
struct ksm_offload_stats {
	unsigned long batches;
	unsigned long rounds;
	unsigned long jobs;
	unsigned long compares;
	unsigned long checksums;
	unsigned long slots_used;
	unsigned long slots_total;
	unsigned long cpu_decided;
	unsigned long fallbacks;
	unsigned long singles;
	unsigned long errors;
	unsigned long timeouts;
	unsigned long restarts;
	unsigned long duplicates;
	unsigned long false_equal;
	unsigned long sleep_ns;
};

extern struct ksm_offload_stats ksm_offload_stats;

/* pages that were taken for equal were found not to be */
static inline void ksm_offload_false_equal(void)
{
	ksm_offload_stats.false_equal++;
}

static inline bool ksm_offload_one_by_one(void)
{
	return static_branch_unlikely(&ksm_offload_each);
}

#else

static inline enum ksm_offload_mode ksm_offload_mode(void)
{
	return KSM_MODE_CPU;
}

static inline void ksm_offload_false_equal(void)
{
}

static inline bool ksm_offload_one_by_one(void)
{
	return false;
}

static inline bool ksm_offload_crc(u32 *zero)
{
	return false;
}

static inline u32 ksm_offload_cpu_crc(struct page *page)
{
	return 0;
}

static inline int __ksm_offload_memcmp(struct page *page, struct page *tree)
{
	return 0;
}

static inline u32 __ksm_offload_checksum(struct page *page)
{
	return 0;
}

#endif /* CONFIG_KSM_OFFLOAD */
#endif /* __MM_KSM_OFFLOAD_H */
