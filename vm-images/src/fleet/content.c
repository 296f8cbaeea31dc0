// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is in a VM's memory. Every page is a function of the seed and its coordinates, so the harness can
 * compute from the plan alone which pages are equal, and every VM can check its own memory at any time.
 */
#include "fleet.h"

long plan_pages(const struct plan *p)
{
	return p->pages_shared_all + p->pages_shared_some + p->pages_zero + p->pages_unique + p->pages_volatile;
}

/* 8 bits of class, 16 of owner, 24 of page, 16 of version: distinct coordinates give distinct keys. */
static uint64_t pack(const struct plan *plan, enum page_class class_, uint64_t owner, uint64_t page, uint64_t version)
{
	uint64_t coordinates = (uint64_t)class_ << 56 | owner << 40 | page << 16 | (version & 0xffff);

	return mix64(coordinates) ^ mix64((uint64_t)plan->seed + 0x9e3779b97f4a7c15ULL);
}

uint64_t page_key(const struct plan *p, long vm, long page, uint64_t version, enum page_class *class_)
{
	long edge = p->pages_shared_all;

	if (page < edge) {
		*class_ = CLASS_SHARED_ALL;
		return pack(p, *class_, 0, page, 0);
	}
	edge += p->pages_shared_some;
	if (page < edge) {
		*class_ = CLASS_SHARED_SOME;
		return pack(p, *class_, vm / p->shared_group, page, 0);
	}
	edge += p->pages_zero;
	if (page < edge) {
		*class_ = CLASS_ZERO;
		return 0;
	}
	edge += p->pages_unique;
	*class_ = page < edge ? CLASS_UNIQUE : CLASS_VOLATILE;
	return pack(p, *class_, vm, page, *class_ == CLASS_VOLATILE ? version : 0);
}

/*
 * A word of a page. Pages that are alike take all but the last word from one key that is nobody's (class 0), so telling
 * two of them apart takes a look at all 4096 bytes.
 */
static uint64_t word(const struct plan *plan, uint64_t key, enum page_class class_, size_t i)
{
	if (class_ == CLASS_ZERO)
		return 0;
	if (i < PAGE_WORDS - 1 && (long)(key % 100) < plan->alike_percent)
		key = pack(plan, 0, 0, 0, 0);
	return mix64(key + i * 0x9e3779b97f4a7c15ULL);
}

void page_fill(const struct plan *plan, uint64_t *page, uint64_t key, enum page_class class_)
{
	for (size_t i = 0; i < PAGE_WORDS; i++)
		page[i] = word(plan, key, class_, i);
}

bool page_check(const struct plan *plan, const uint64_t *page, uint64_t key, enum page_class class_)
{
	for (size_t i = 0; i < PAGE_WORDS; i++)
		if (page[i] != word(plan, key, class_, i))
			return false;
	return true;
}
