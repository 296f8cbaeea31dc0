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
#include "fleet.h"

static const size_t NODES = SUSY_FEATURES + 1;

static void silent(const char *)
{
}

size_t svr_bytes(long rows)
{
	size_t size = rows * (NODES * sizeof(feature_node) + sizeof(double));

	return (size + PAGE - 1) / PAGE * PAGE;
}

void svr_place(const struct susy_row *rows, long count, void *arena)
{
	feature_node *node = static_cast<feature_node *>(arena);
	double *label = reinterpret_cast<double *>(node + count * NODES);

	for (long r = 0; r < count; r++) {
		for (int i = 0; i < SUSY_FEATURES; i++, node++) {
			memset(node, 0, sizeof(*node));	/* padding is memory too */
			node->index = i + 1;
			node->value = rows[r].feature[i];
		}
		memset(node, 0, sizeof(*node));
		node++->index = -1;
		label[r] = rows[r].label;
	}
}

uint64_t svr_train(void *arena, long count, int solver, int repeats)
{
	feature_node *node = static_cast<feature_node *>(arena);
	feature_node **row = static_cast<feature_node **>(malloc(count * sizeof(*row)));
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
	wanted.eps = solver == L2R_L2LOSS_SVR ? 0.0001 : 0.1;	/* liblinear's own defaults */
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
	free(row);
	return digest;
}
