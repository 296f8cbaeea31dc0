// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Counts of latencies with three significant digits. The buckets are HdrHistogram's for 1 ns to an hour: up to 2047 ns
 * one each; from there every power of two is divided into 1024 buckets of equal width, at most a thousandth of the value.
 *
 *	value < 2048:	bucket = value
 *	otherwise:	shift = position of the highest bit - 10, bucket = 1024 * shift + (value >> shift)
 *
 * A percentile is, as there, the highest value of the bucket that holds the sample of rank n * percent / 100, rounded
 * half up and at least 1.
 */
#include <inttypes.h>
#include <string.h>

#include "ycsb.h"

static unsigned int bucket_of(uint64_t value)
{
	unsigned int shift = value < 2 * HISTOGRAM_HALF ? 0 : 63 - __builtin_clzll(value) - 10;

	return HISTOGRAM_HALF * shift + (unsigned int)(value >> shift);
}

static uint64_t highest_of(unsigned int bucket)
{
	unsigned int shift = bucket < 2 * HISTOGRAM_HALF ? 0 : bucket / HISTOGRAM_HALF - 1;

	return ((uint64_t)(bucket - HISTOGRAM_HALF * shift + 1) << shift) - 1;
}

void histogram_clear(struct histogram *histogram)
{
	if (histogram->total)
		memset(histogram->count + histogram->first, 0,
		       (histogram->last - histogram->first + 1) * sizeof(*histogram->count));
	histogram->total = histogram->max = 0;
}

/* What is longer than the last bucket's four thousand seconds counts there; the exact maximum is kept. */
void histogram_add(struct histogram *histogram, uint64_t ns)
{
	unsigned int bucket = ns > highest_of(HISTOGRAM_BUCKETS - 1) ? HISTOGRAM_BUCKETS - 1 : bucket_of(ns);

	if (!histogram->total || bucket < histogram->first)
		histogram->first = bucket;
	if (!histogram->total || bucket > histogram->last)
		histogram->last = bucket;
	histogram->count[bucket]++;
	histogram->total++;
	if (ns > histogram->max)
		histogram->max = ns;
}

uint64_t histogram_percentile(const struct histogram *histogram, unsigned int percent)
{
	uint64_t rank = (2 * histogram->total * percent + 100) / 200, seen = 0;

	if (!rank)
		rank = 1;
	for (unsigned int bucket = histogram->first; histogram->total && bucket <= histogram->last; bucket++) {
		seen += histogram->count[bucket];
		if (seen >= rank)
			return highest_of(bucket);
	}
	return 0;
}

/*
 * "BUCKET[xCOUNT],STEP[xCOUNT],...": the first filled bucket, then the distance from each to the next, with its count
 * unless that is one. Texts of several runs are pooled by adding counts. False if there is no room for it.
 */
bool histogram_text(const struct histogram *histogram, char *text, size_t size)
{
	unsigned int last = 0;
	size_t used = 0;

	text[0] = 0;
	for (unsigned int bucket = histogram->first; histogram->total && bucket <= histogram->last; bucket++) {
		uint64_t count = histogram->count[bucket];

		if (!count)
			continue;
		used += (size_t)snprintf(text + used, size - used, "%s%u", used ? "," : "", bucket - last);
		if (count > 1 && used < size)
			used += (size_t)snprintf(text + used, size - used, "x%" PRIu64, count);
		if (used >= size)
			return false;
		last = bucket;
	}
	return true;
}
