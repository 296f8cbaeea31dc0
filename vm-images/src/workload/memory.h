/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Big arrays of a workload program: each is a mapping of its own, page aligned and zeroed, so that what a page holds
 * depends on the array alone and equal arrays are equal pages in every VM.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMORY_PAGE 4096UL

/* Advises what is taken from now on as mergeable: for a program that stands for a VM itself. */
void memory_mergeable(void);

/* control_fail() if the machine has less than this available, before any of it is taken. */
void memory_expect(uint64_t bytes, const char *what);

void *memory_take(uint64_t bytes, const char *what);	/* control_fail() if there is none */
void memory_give(void *array, uint64_t bytes);		/* gives it back; NULL is nothing */
uint64_t memory_peak(void);				/* the most bytes that were taken at a time */

#ifdef __cplusplus
}
#endif
#endif
