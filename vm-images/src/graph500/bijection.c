// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A permutation that is computed, not stored: an edge or a vertex can be placed, and checked later, without a table of
 * the graph's size. Numbers of n bits go through rounds of an odd factor and a summand modulo 2^n and a shift folded
 * onto itself; each of these can be undone, so together they permute. A count that is no power of two is permuted by
 * walking on until the number is below it.
 */
#include "graph.h"
#include "mix64.h"

void bijection_draw(struct bijection *bijection, uint64_t count, uint64_t key)
{
	unsigned bits = 1;

	while (bits < 64 && (count - 1) >> bits)
		bits++;
	bijection->count = count;
	bijection->mask = bits < 64 ? (1ULL << bits) - 1 : ~0ULL;
	bijection->shift = (bits + 1) / 2;
	for (int i = 0; i < BIJECTION_ROUNDS; i++) {
		bijection->factor[i] = mix64(key += MIX64_STEP) | 1;
		bijection->summand[i] = mix64(key += MIX64_STEP);
	}
}
