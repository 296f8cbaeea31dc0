// SPDX-License-Identifier: GPL-2.0-or-later
/* Kernel 1: from the list of edges to the list of each vertex's neighbours. */
#include "graph.h"
#include "memory.h"

static uint64_t offset_bytes(uint64_t vertices)
{
	return (vertices + 1) * sizeof(uint64_t);
}

uint64_t csr_bytes(uint64_t vertices, uint64_t edges)
{
	return offset_bytes(vertices) + 2 * edges * sizeof(uint64_t);
}

void csr_build(struct csr *csr, const struct edge *edges, uint64_t count, uint64_t vertices)
{
	uint64_t *offset, *neighbour;

	csr->vertices = vertices;
	csr->entries = 2 * count;
	csr->offset = offset = memory_take(offset_bytes(vertices), "offsets");
	csr->neighbour = neighbour = memory_take(csr->entries * sizeof(uint64_t), "neighbours");
	for (uint64_t i = 0; i < count; i++) {
		offset[edges[i].start]++;
		offset[edges[i].end]++;
	}
	for (uint64_t v = 1; v <= vertices; v++)
		offset[v] += offset[v - 1];
	/* offsets are ends now; filling from the last edge to the first makes them beginnings */
	for (uint64_t i = count; i-- > 0;) {
		struct edge e = edges[i];

		neighbour[--offset[e.start]] = e.end;
		neighbour[--offset[e.end]] = e.start;
	}
}

void csr_free(struct csr *csr)
{
	memory_give(csr->offset, offset_bytes(csr->vertices));
	memory_give(csr->neighbour, csr->entries * sizeof(uint64_t));
	csr->offset = csr->neighbour = NULL;
}
