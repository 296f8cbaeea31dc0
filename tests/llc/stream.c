// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stream PRIVATE_SETS PRIVATE_WAYS SETS WAYS PROCESSORS MASK MASK MASK: the model on what comes in, "PROCESSOR CLASS
 * KIND LINE" a line; its counts go out.
 */
#include <inttypes.h>
#include <stdio.h>

#include "llc_model.h"

int main(int argc, char **argv)
{
	struct model model = { 0 };
	unsigned int processor, class_, kind;
	uint64_t line;

	if (argc != 9)
		return 2;
	model.private_sets = strtoull(argv[1], NULL, 0);
	model.private_ways = strtoul(argv[2], NULL, 0);
	model.sets = strtoull(argv[3], NULL, 0);
	model.ways = strtoul(argv[4], NULL, 0);
	model.processors = strtoul(argv[5], NULL, 0);
	for (int i = 0; i < MODEL_CLASSES; i++)
		model.mask[i] = strtoul(argv[6 + i], NULL, 0);
	if (model_fault(&model)) {
		fprintf(stderr, "%s\n", model_fault(&model));
		return 1;
	}
	if (!model_init(&model))
		return 1;
	while (scanf("%u %u %u %" SCNu64, &processor, &class_, &kind, &line) == 4)
		model_access(&model, processor, class_, kind, line);
	for (int i = 0; i < MODEL_CLASSES; i++)
		for (int k = 0; k < MODEL_KINDS; k++)
			printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", model.counts[i][k].private_hits,
			       model.counts[i][k].hits, model.counts[i][k].sequential, model.counts[i][k].scattered);
	model_free(&model);
	return 0;
}
