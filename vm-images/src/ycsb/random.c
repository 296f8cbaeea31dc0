// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random numbers by their place: the one for operation 1000 does not depend on what happened before it, so equal seeds
 * send equal bytes however long answers take.
 */
#include "mix64.h"
#include "ycsb.h"

uint64_t draw(uint64_t seed, uint64_t client, enum stream stream, uint64_t place)
{
	uint64_t key = mix64(mix64(seed + MIX64_STEP) + (client << 8 | (uint64_t)stream) * MIX64_STEP);

	return mix64(key + place * MIX64_STEP);
}

/* 0 to limit - 1, each within 2^-64 * limit of equally often. */
uint64_t below(uint64_t random, uint64_t limit)
{
	return (uint64_t)((unsigned __int128)random * limit >> 64);
}
