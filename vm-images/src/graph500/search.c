// SPDX-License-Identifier: GPL-2.0-or-later
/* Kernel 2: breadth-first search with one queue, neighbours in their order, so equal graphs give equal trees. */
#include "graph.h"
#include "memory.h"
#include "mix64.h"

static uint64_t array_bytes(uint64_t vertices)
{
	return vertices * sizeof(uint64_t);
}

uint64_t tree_bytes(uint64_t vertices)
{
	return 3 * array_bytes(vertices);
}

void tree_take(struct tree *tree, uint64_t vertices)
{
	tree->vertices = vertices;
	tree->parent = memory_take(array_bytes(vertices), "parents");
	tree->level = memory_take(array_bytes(vertices), "levels");
	tree->queue = memory_take(array_bytes(vertices), "the queue");
}

void tree_free(struct tree *tree)
{
	memory_give(tree->parent, array_bytes(tree->vertices));
	memory_give(tree->level, array_bytes(tree->vertices));
	memory_give(tree->queue, array_bytes(tree->vertices));
	tree->parent = tree->level = NULL;
	tree->queue = NULL;
}

void tree_search(struct tree *tree, const struct csr *csr, uint64_t root)
{
	int64_t *parent = tree->parent, *level = tree->level;
	uint64_t *queue = tree->queue, head = 0, tail = 0, entries = 0;

	for (uint64_t v = 0; v < tree->vertices; v++)
		parent[v] = level[v] = -1;
	parent[root] = root;
	level[root] = 0;
	queue[tail++] = root;
	while (head < tail) {
		uint64_t u = queue[head++], end = csr->offset[u + 1];

		entries += end - csr->offset[u];
		for (uint64_t i = csr->offset[u]; i < end; i++) {
			uint64_t v = csr->neighbour[i];

			if (parent[v] >= 0)
				continue;
			parent[v] = u;
			level[v] = level[u] + 1;
			queue[tail++] = v;
		}
	}
	tree->reached = tail;
	tree->edges = entries / 2;
}

uint64_t tree_digest(const struct tree *tree, uint64_t digest)
{
	digest = mix64(digest ^ tree->reached);
	digest = mix64(digest ^ tree->edges);
	for (uint64_t v = 0; v < tree->vertices; v++)
		digest = mix64(digest ^ (uint64_t)tree->parent[v]);
	return digest;
}
