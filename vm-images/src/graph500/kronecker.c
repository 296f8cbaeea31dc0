// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The specification's generator: each edge falls through the levels of a matrix whose quadrants have the
 * probabilities A, B, C, D, one bit of both its ends a level; vertices are then relabelled and edges put into another
 * order, both at random, so that neither numbers nor places tell anything about the graph.
 *
 * Edge k takes its random words from a generator of its own, SplitMix64 seeded by k. Nothing depends on which edge was
 * made before: any page of the list can be made again alone.
 */
#include "graph.h"
#include "memory.h"
#include "mix64.h"

/*
 * The quadrants' probabilities are whole hundredths, so a random word, read as a fraction, gives a level for each of its
 * decimal digits' pairs. Of 64 bits six pairs are good to 2^-24.
 */
#define HUNDRED 100
#define LEVELS_PER_WORD 6

/* One bit of the start from bit 32, one bit of the end from bit 0. */
#define A 0ULL
#define B 1ULL
#define C (1ULL << 32)
#define D (C | B)
static const uint64_t quadrant[HUNDRED] = { [0 ... 56] = A, [57 ... 75] = B, [76 ... 94] = C, [95 ... 99] = D };

enum stream { STREAM_EDGES = 1, STREAM_LABEL, STREAM_ORDER, STREAM_ROOTS };

static uint64_t stream_key(uint64_t seed, enum stream stream)
{
	return mix64(mix64(seed + MIX64_STEP) + stream * MIX64_STEP);
}

void kronecker_init(struct kronecker *graph, unsigned scale, uint64_t edge_factor, uint64_t seed)
{
	graph->scale = scale;
	graph->vertices = 1ULL << scale;
	graph->edges = edge_factor << scale;
	graph->key = stream_key(seed, STREAM_EDGES);
	bijection_draw(&graph->label, graph->vertices, stream_key(seed, STREAM_LABEL));
	bijection_draw(&graph->order, graph->edges, stream_key(seed, STREAM_ORDER));
	bijection_draw(&graph->roots, graph->vertices, stream_key(seed, STREAM_ROOTS));
}

struct edge kronecker_edge(const struct kronecker *graph, uint64_t position)
{
	uint64_t state = mix64(graph->key + bijection_at(&graph->order, position));
	uint64_t start = 0, end = 0;

	for (unsigned left = graph->scale; left;) {
		unsigned levels = left < LEVELS_PER_WORD ? left : LEVELS_PER_WORD;
		uint64_t fraction = mix64(state += MIX64_STEP), bits = 0;

		for (unsigned i = 0; i < levels; i++) {
			bits = 2 * bits + quadrant[(unsigned __int128)fraction * HUNDRED >> 64];
			fraction *= HUNDRED;
		}
		start = start << levels | bits >> 32;
		end = end << levels | (uint32_t)bits;
		left -= levels;
	}
	return (struct edge){ bijection_at(&graph->label, start), bijection_at(&graph->label, end) };
}

unsigned kronecker_roots(const struct kronecker *graph, const struct edge *edges, unsigned most, uint64_t *root)
{
	uint64_t size = (graph->vertices + 63) / 64 * sizeof(uint64_t);
	uint64_t *eligible = memory_take(size, "the choice of roots");
	unsigned found = 0;

	for (uint64_t i = 0; i < graph->edges; i++) {
		struct edge e = edges[i];

		if (e.start == e.end)
			continue;
		eligible[e.start / 64] |= 1ULL << e.start % 64;
		eligible[e.end / 64] |= 1ULL << e.end % 64;
	}
	for (uint64_t i = 0; i < graph->vertices && found < most; i++) {
		uint64_t v = bijection_at(&graph->roots, i);

		if (eligible[v / 64] >> v % 64 & 1)
			root[found++] = v;
	}
	memory_give(eligible, size);
	return found;
}
