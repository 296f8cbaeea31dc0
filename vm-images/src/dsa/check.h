/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DSA_CHECK_H
#define DSA_CHECK_H

#include "device.h"

struct fuzz_options {
	uint64_t seed;
	uint64_t count;			/* descriptors */
	uint64_t first;			/* number of the first case */
	uint64_t cases;			/* at most so many; 0: as many as count takes */
	bool verbose;
};

/* Number of mismatches; -1: the device cannot be used. */
long fuzz(struct dsa *dsa, const struct fuzz_options *options);
long acceptance(struct dsa *dsa);

#endif
