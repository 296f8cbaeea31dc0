/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PRINTED_H
#define PRINTED_H

#include "world.h"

/*
 * Where the algorithm as printed in the paper (section 5.2.2, Algorithm 1) is
 * wrong or silent. An error that is not in the set is mended.
 */
enum printed_error {
	E1,	/* no predecessor: NULL is dereferenced */
	E2,	/* empty tree: neither neighbour */
	E3,	/* no successor and a stale pair: NULL is dereferenced */
	E4,	/* matches, written down as (T, T), mix with the group whose predecessor is T */
	E5,	/* groups are made by the hash of the predecessor */
	E6,	/* matched nodes are erased before the gaps are filled */
	E7,	/* each of several candidates merges with the tree page itself */
	E8,	/* equal candidates leave the group, whether their merge succeeds or not */
	E9,	/* equal candidates may be one physical page */
	E10,	/* the sort trusts its comparisons */
	ET,	/* Para-ksmT: neighbours by sign in the array of in-order results */
	PRINTED_ERRORS,
};

void printed_batch(struct world *world, u32 errors, u32 nr);
void printed_tree_search(struct world *world, struct item *item, u32 levels, bool by_sign);

#endif /* PRINTED_H */
