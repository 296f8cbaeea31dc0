/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Training data: seeded, or rows of the real file. */
#ifndef SUSY_H
#define SUSY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SUSY_FEATURES 18
struct susy_row {
	double label;
	double feature[SUSY_FEATURES];
};

void susy_generate(uint64_t seed, long row, struct susy_row *out);

/* The real file, row by row, so that nobody needs to hold it besides the data made of it. */
struct susy_file {
	FILE *file;
	const char *path;
	long row;			/* that were read */
	char cause[400];		/* why there is no next one; empty: the file ends here */
};

bool susy_open(struct susy_file *in, const char *path);
bool susy_next(struct susy_file *in, struct susy_row *out);
void susy_close(struct susy_file *in);

/* Its first rows at once; says on standard error why it cannot. */
bool susy_load(const char *path, long rows, struct susy_row *out);

#ifdef __cplusplus
}
#endif
#endif
