/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * liblinear on rows that lie in memory as it wants them: SVR_ROW_BYTES of nodes a row, all rows, then 8 bytes of label a
 * row, padded to whole pages.
 */
#ifndef SVR_H
#define SVR_H

#include <stddef.h>
#include <stdint.h>

#include "susy.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SVR_ROW_BYTES ((SUSY_FEATURES + 1) * (size_t)16)

size_t svr_bytes(long rows);
void svr_nodes(const struct susy_row *row, void *nodes);	/* the SVR_ROW_BYTES of a row */
void svr_place(const struct susy_row *rows, long count, void *arena);
uint64_t svr_train(void *arena, long count, int solver, int repeats);

#ifdef __cplusplus
}
#endif
#endif
