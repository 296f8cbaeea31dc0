/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Breadth-first search as the Graph500 specification (2.x) defines it: what the parts know of each other. */
#ifndef GRAPH_H
#define GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_SCALE 42U		/* the specification's largest class */
#define MAX_EDGE_FACTOR 1024U
#define MAX_ROOTS 64U		/* searches of a run, by the specification */

struct edge {
	uint64_t start, end;
};

/* bijection.c: a permutation of 0 .. count - 1 that needs no memory, drawn by a key; in line, for every edge takes three */
#define BIJECTION_ROUNDS 4

struct bijection {
	uint64_t count, mask;
	unsigned shift;
	uint64_t factor[BIJECTION_ROUNDS], summand[BIJECTION_ROUNDS];
};

void bijection_draw(struct bijection *bijection, uint64_t count, uint64_t key);

static inline uint64_t bijection_at(const struct bijection *bijection, uint64_t x)
{
	do {
#pragma GCC unroll 4
		for (int i = 0; i < BIJECTION_ROUNDS; i++) {
			x = (x * bijection->factor[i] + bijection->summand[i]) & bijection->mask;
			x ^= x >> bijection->shift;
		}
	} while (x >= bijection->count);
	return x;
}

/* kronecker.c: the edge list, each edge a function of the seed and its position */
struct kronecker {
	unsigned scale;
	uint64_t vertices, edges;
	uint64_t key;			/* of the edges' random words */
	struct bijection label;		/* of the vertices */
	struct bijection order;		/* of the edges */
	struct bijection roots;		/* the vertices in the order in which they are candidates */
};

void kronecker_init(struct kronecker *graph, unsigned scale, uint64_t edge_factor, uint64_t seed);
struct edge kronecker_edge(const struct kronecker *graph, uint64_t position);

/* The first vertices, in the order of candidates, that have a neighbour other than themselves; returns how many. */
unsigned kronecker_roots(const struct kronecker *graph, const struct edge *edges, unsigned most, uint64_t *root);

/* csr.c, kernel 1: neighbours of v are neighbour[offset[v]] .. neighbour[offset[v + 1] - 1], in the edge list's order */
struct csr {
	uint64_t vertices, entries;	/* every edge makes two entries, a loop too */
	uint64_t *offset;
	uint64_t *neighbour;
};

uint64_t csr_bytes(uint64_t vertices, uint64_t edges);
void csr_build(struct csr *csr, const struct edge *edges, uint64_t count, uint64_t vertices);
void csr_free(struct csr *csr);

/* search.c, kernel 2 */
struct tree {
	uint64_t vertices;
	int64_t *parent;		/* the root's is itself; -1: not reached */
	int64_t *level;			/* edges from the root; -1: not reached */
	uint64_t *queue;		/* vertices in the order they were reached */
	uint64_t reached;
	uint64_t edges;			/* of the edge list that lie in the component, repeated ones and loops counted */
};

uint64_t tree_bytes(uint64_t vertices);
void tree_take(struct tree *tree, uint64_t vertices);
void tree_free(struct tree *tree);
void tree_search(struct tree *tree, const struct csr *csr, uint64_t root);
uint64_t tree_digest(const struct tree *tree, uint64_t digest);

/* validate.c: a tree is judged by the edge list alone, with nothing of what found it */
struct validator {
	uint64_t vertices;
	int64_t *depth;			/* of a vertex in the tree, by following parents; -1: not in it */
	uint64_t *joined;		/* bit by vertex: an edge joins it and its parent */
};

uint64_t validator_bytes(uint64_t vertices);
void validator_take(struct validator *validator, uint64_t vertices);
void validator_free(struct validator *validator);
/* True if all is well; otherwise cause begins with "check N", N being one of the specification's five. */
bool validate(const struct validator *validator, const struct tree *tree, uint64_t root, const struct edge *edges,
	      uint64_t count, char *cause, size_t size);

/* spoil.c: damages a tree so that one check must notice; false if this tree cannot be damaged so */
bool spoil(struct tree *tree, const struct csr *csr, unsigned check);

#endif
