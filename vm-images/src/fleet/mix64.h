/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MIX64_H
#define MIX64_H

#include <stdint.h>

/* Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection, so different keys give different words. */
static inline uint64_t mix64(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* What SplitMix64 adds to its state before each word. */
#define MIX64_STEP 0x9e3779b97f4a7c15ULL

#endif
