// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Damage for tests: a validation that was never seen to fail proves nothing. Each way breaks one rule, and those that
 * are checked before it stay intact.
 */
#include "graph.h"

static bool is_leaf(const struct tree *tree, uint64_t v)
{
	for (uint64_t u = 0; u < tree->vertices; u++)
		if (u != v && tree->parent[u] == (int64_t)v)
			return false;
	return true;
}

static bool are_joined(const struct csr *csr, uint64_t u, uint64_t v)
{
	for (uint64_t i = csr->offset[u]; i < csr->offset[u + 1]; i++)
		if (csr->neighbour[i] == v)
			return true;
	return false;
}

/* Another vertex of that level that v is joined to, or is not; -1: none. */
static int64_t of_level(const struct tree *tree, const struct csr *csr, uint64_t v, int64_t level, bool joined)
{
	for (uint64_t u = 0; u < tree->vertices; u++)
		if (u != v && tree->level[u] == level && are_joined(csr, v, u) == joined)
			return u;
	return -1;
}

static bool spoil_at(struct tree *tree, const struct csr *csr, unsigned check, uint64_t v)
{
	int64_t *parent = tree->parent, *level = tree->level, above = parent[v], other;

	switch (check) {
	case 1:		/* parent and child are each other's parents */
		if (level[v] < 2)
			return false;
		parent[above] = v;
		return true;
	case 2:		/* the parent is a neighbour of the same level */
	case 3:		/* and the levels below know it */
		if (level[v] < 1 || !is_leaf(tree, v))
			return false;
		other = of_level(tree, csr, v, level[v], true);
		if (other < 0)
			return false;
		parent[v] = other;
		level[v] += check == 3;
		return true;
	case 4:		/* one vertex is left out */
		if (level[v] < 1 || !is_leaf(tree, v))
			return false;
		parent[v] = level[v] = -1;
		return true;
	case 5:		/* the parent is of the right level, but no neighbour */
		if (level[v] < 2)
			return false;
		other = of_level(tree, csr, v, level[v] - 1, false);
		if (other < 0)
			return false;
		parent[v] = other;
		return true;
	}
	return false;
}

bool spoil(struct tree *tree, const struct csr *csr, unsigned check)
{
	/* from the last that was reached: there are the leaves */
	for (uint64_t i = tree->reached; i-- > 0;)
		if (spoil_at(tree, csr, check, tree->queue[i]))
			return true;
	return false;
}
