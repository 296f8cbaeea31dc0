// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The specification's five checks of a tree:
 *
 *   1  it is a tree and holds no cycle
 *   2  each of its edges joins vertices whose levels differ by exactly one
 *   3  every edge of the list joins vertices whose levels differ by at most one, or that both are outside
 *   4  it spans the whole component of its root
 *   5  a vertex and its parent are joined by an edge of the list
 *
 * Levels are counted twice: the search says how far it thinks a vertex is, and parents are followed to the root here.
 * An edge with one end outside breaks 3 and 4 alike, and is told as what it means, 4.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph.h"
#include "memory.h"

struct complaint {
	char *cause;
	size_t size;
};

static bool complain(const struct complaint *to, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool complain(const struct complaint *to, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(to->cause, to->size, format, arguments);
	va_end(arguments);
	return false;
}

static uint64_t depth_bytes(uint64_t vertices)
{
	return vertices * sizeof(int64_t);
}

static uint64_t joined_bytes(uint64_t vertices)
{
	return (vertices + 63) / 64 * sizeof(uint64_t);
}

uint64_t validator_bytes(uint64_t vertices)
{
	return depth_bytes(vertices) + joined_bytes(vertices);
}

void validator_take(struct validator *validator, uint64_t vertices)
{
	validator->vertices = vertices;
	validator->depth = memory_take(depth_bytes(vertices), "depths");
	validator->joined = memory_take(joined_bytes(vertices), "joined vertices");
}

void validator_free(struct validator *validator)
{
	memory_give(validator->depth, depth_bytes(validator->vertices));
	memory_give(validator->joined, joined_bytes(validator->vertices));
	validator->depth = NULL;
	validator->joined = NULL;
}

/* Check 1: every vertex of the tree leads to the root, in fewer steps than there are vertices. */
static bool measure_depths(const struct validator *its, const struct tree *tree, uint64_t root,
			   const struct complaint *to)
{
	const int64_t *parent = tree->parent;
	int64_t *depth = its->depth, vertices = its->vertices;

	for (int64_t v = 0; v < vertices; v++)
		depth[v] = -1;
	if (parent[root] != (int64_t)root)
		return complain(to, "check 1: the root's parent is %" PRId64, parent[root]);
	depth[root] = 0;
	for (int64_t v = 0; v < vertices; v++) {
		int64_t u = v, steps = 0;

		if (parent[v] < 0)
			continue;
		while (depth[u] < 0) {
			int64_t above = parent[u];

			if (above < 0 || above >= vertices || parent[above] < 0)
				return complain(to, "check 1: vertex %" PRId64 " hangs below %" PRId64
						", which is not in the tree", u, above);
			if (++steps >= vertices)
				return complain(to, "check 1: vertex %" PRId64 " is below itself", u);
			u = above;
		}
		steps += depth[u];
		for (u = v; depth[u] < 0; u = parent[u])
			depth[u] = steps--;
	}
	return true;
}

/* Check 2, and that the search has a level for what is in the tree and for nothing else. */
static bool compare_levels(const struct validator *its, const struct tree *tree, uint64_t root,
			   const struct complaint *to)
{
	const int64_t *parent = tree->parent, *level = tree->level;

	if (level[root])
		return complain(to, "check 2: the root's level is %" PRId64, level[root]);
	for (uint64_t v = 0; v < its->vertices; v++) {
		if (parent[v] < 0 && level[v] >= 0)
			return complain(to, "check 2: vertex %" PRIu64 " has level %" PRId64 " outside of the tree", v,
					level[v]);
		if (parent[v] >= 0 && v != root && level[v] != level[parent[v]] + 1)
			return complain(to, "check 2: vertex %" PRIu64 " of level %" PRId64 " hangs below %" PRId64
					" of level %" PRId64, v, level[v], parent[v], level[parent[v]]);
	}
	return true;
}

static void join(uint64_t *joined, uint64_t v)
{
	joined[v / 64] |= 1ULL << v % 64;
}

/* Checks 3 and 4, notes for check 5, and the number of edges that the search should have counted. */
static bool walk_edges(const struct validator *its, const struct tree *tree, const struct edge *edges, uint64_t count,
		       const struct complaint *to)
{
	const int64_t *parent = tree->parent, *depth = its->depth;
	uint64_t inside = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t u = edges[i].start, v = edges[i].end;
		int64_t du = depth[u], dv = depth[v];

		if (du < 0 && dv < 0)
			continue;
		if (du < 0 || dv < 0)
			return complain(to, "check 4: vertex %" PRIu64 " is in the tree, its neighbour %" PRIu64
					" is not", du < 0 ? v : u, du < 0 ? u : v);
		if (du - dv > 1 || dv - du > 1)
			return complain(to, "check 3: an edge joins vertex %" PRIu64 " of level %" PRId64 " and %" PRIu64
					" of level %" PRId64, u, du, v, dv);
		if (parent[u] == (int64_t)v)
			join(its->joined, u);
		if (parent[v] == (int64_t)u)
			join(its->joined, v);
		inside++;
	}
	if (inside != tree->edges)
		return complain(to, "the search counted %" PRIu64 " edges, the component has %" PRIu64, tree->edges,
				inside);
	return true;
}

/* Check 5, and the number of vertices that the search should have counted. */
static bool find_joins(const struct validator *its, const struct tree *tree, uint64_t root, const struct complaint *to)
{
	uint64_t inside = 0;

	for (uint64_t v = 0; v < its->vertices; v++) {
		if (tree->parent[v] < 0)
			continue;
		inside++;
		if (v != root && !(its->joined[v / 64] >> v % 64 & 1))
			return complain(to, "check 5: no edge joins vertex %" PRIu64 " and its parent %" PRId64, v,
					tree->parent[v]);
	}
	if (inside != tree->reached)
		return complain(to, "the search counted %" PRIu64 " vertices, the tree has %" PRIu64, tree->reached,
				inside);
	return true;
}

bool validate(const struct validator *validator, const struct tree *tree, uint64_t root, const struct edge *edges,
	      uint64_t count, char *cause, size_t size)
{
	struct complaint to = { cause, size };

	memset(validator->joined, 0, joined_bytes(validator->vertices));
	return measure_depths(validator, tree, root, &to) && compare_levels(validator, tree, root, &to) &&
	       walk_edges(validator, tree, edges, count, &to) && find_joins(validator, tree, root, &to);
}
