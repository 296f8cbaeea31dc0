/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a DSA must do with a descriptor, computed on a copy of the memory that the device works on.
 *
 * Where the specification leaves a choice, every legal outcome is accepted: which of several errors is reported,
 * how far a backward-copying move counts, what a block holds in which a check failed.
 */
#ifndef DSA_ORACLE_H
#define DSA_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "descriptor.h"

struct oracle {
	uint64_t gencap;
	uint64_t opcap;			/* opcodes 0 to 63 */
	uint64_t max_transfer;
	uint64_t max_batch;
	unsigned int int_handles;
	bool block_on_fault;
	/* the device's memory, as it must be, and as it is */
	uint64_t bus;
	size_t size;
	uint8_t *shadow;
	const uint8_t *memory;
};

struct judgement {
	bool success;			/* status 0x01: what fences and batches look at */
	uint8_t status;			/* as it is, or as it must be where no record is written */
	bool record_expected;
	uint64_t errors;		/* statuses that may be told through SWERROR; bit n: status n */
	char why[256];			/* what is wrong; empty: nothing */
};

/*
 * Judge one descriptor that has completed, and bring the shadow up to date.
 * actual: its completion record; NULL where none can be written (no valid address).
 * Batches are judged member by member by the caller, and as a whole by oracle_batch().
 */
void oracle_judge(struct oracle *o, const struct descriptor *d, bool in_batch, const struct record *actual,
		  struct judgement *j);

/* Errors of a batch descriptor itself: statuses; 0: its members run. */
uint64_t oracle_batch(const struct oracle *o, const struct descriptor *d);

uint32_t oracle_crc(uint32_t seed, const uint8_t *data, size_t size, uint32_t flags);
uint16_t oracle_guard(const uint8_t *data, size_t size, uint8_t flags);
extern const uint32_t oracle_dif_data[4];

#endif
