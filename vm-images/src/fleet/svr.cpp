// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Support vector regression by liblinear on the rows that a VM holds (the paper's first workload, section 6.1).
 *
 * The feature nodes lie in the VM's mergeable memory: 18 (index, value) pairs and a terminator a row, as
 * liblinear's own reader lays them out. They hold no pointers, so equal data make equal pages in every VM.
 */
#include <cstdlib>
#include <cstring>

#include "cpp-source/linear.h"
#include "mix64.h"
#include "svr.h"

static const size_t PAGE_BYTES = 4096;
static const size_t NODES = SUSY_FEATURES + 1;
static_assert(NODES * sizeof(feature_node) == SVR_ROW_BYTES, "a node is 16 bytes");

static void silent(const char *)
{
}

size_t svr_bytes(long rows)
{
	size_t size = rows * (SVR_ROW_BYTES + sizeof(double));

	return (size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

void svr_nodes(const struct susy_row *row, void *nodes)
{
	feature_node *node = static_cast<feature_node *>(nodes);

	memset(node, 0, SVR_ROW_BYTES);	/* padding is memory too */
	for (int i = 0; i < SUSY_FEATURES; i++) {
		node[i].index = i + 1;
		node[i].value = row->feature[i];
	}
	node[SUSY_FEATURES].index = -1;
}

void svr_place(const struct susy_row *rows, long count, void *arena)
{
	char *nodes = static_cast<char *>(arena);
	double *label = reinterpret_cast<double *>(nodes + count * SVR_ROW_BYTES);

	for (long r = 0; r < count; r++) {
		svr_nodes(&rows[r], nodes + r * SVR_ROW_BYTES);
		label[r] = rows[r].label;
	}
}

/* liblinear's own defaults, by the kind of solver */
static double tolerance(int solver)
{
	if (solver == L2R_L2LOSS_SVR)
		return 0.0001;
	return solver == L2R_L2LOSS_SVC ? 0.01 : 0.1;
}

uint64_t svr_train(void *arena, long count, int solver, int repeats)
{
	feature_node *node = static_cast<feature_node *>(arena);
	feature_node **row = new feature_node *[count];
	problem data = {};
	parameter wanted = {};
	uint64_t digest = 0;

	for (long r = 0; r < count; r++)
		row[r] = node + r * NODES;
	data.l = count;
	data.n = SUSY_FEATURES;
	data.y = reinterpret_cast<double *>(node + count * NODES);
	data.x = row;
	data.bias = -1;
	wanted.solver_type = solver;
	wanted.eps = tolerance(solver);
	wanted.C = 1;
	wanted.p = 0.1;
	wanted.nu = 0.5;
	wanted.regularize_bias = 1;
	set_print_string_function(silent);
	for (int i = 0; i < repeats; i++) {
		srand(1);
		model *trained = train(&data, &wanted);
		for (int f = 0; f < trained->nr_feature; f++) {
			uint64_t bits;

			memcpy(&bits, &trained->w[f], sizeof(bits));
			digest = mix64(digest ^ bits);
		}
		free_and_destroy_model(&trained);
	}
	delete[] row;
	return digest;
}
