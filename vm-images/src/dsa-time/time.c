// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dsa-time: how long a DSA takes for pages, against the processor's own loops.
 *
 * Two operations that page deduplication needs, comparing two pages and checksumming one, in batches of several
 * sizes. A client either polls the last completion record, or sleeps for as long as the device will take and a margin
 * and then polls, as a kernel thread does that wants to leave the processor to others.
 *
 * The processor's side is compiled as the kernel is: without vector registers. Everything is printed as JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "device.h"

#define PAGE 4096u
#define PAGES 240u		/* of a kind: one huge page holds them with all records */
#define MOST 256u		/* descriptors in a batch */
#define PATIENCE 20.0

#define PLAIN __attribute__((target("general-regs-only")))
#define KERNEL_CODE PLAIN __attribute__((noipa))

struct area {
	uint8_t left[PAGES][PAGE], right[PAGES][PAGE];
	struct descriptor list[MOST];
	struct record records[MOST], last;
};

struct client {
	struct dsa dsa;
	struct dma dma;
	struct area *area;
	unsigned int repeats;
	uint64_t margin;		/* ns that a sleep is longer than what the device takes */
};

static const struct dsa_wq queue = {
	.size = 64, .priority = 10, .max_batch_shift = 10, .max_transfer_shift = 21,
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

/* --- the processor's side: by words, as lib/string.c, and XXH64, as lib/xxhash.c --- */

static KERNEL_CODE int compare(const void *left, const void *right, size_t size)
{
	const uint64_t *a = left, *b = right;
	const uint8_t *x, *y;

	for (; size >= 8 && *a == *b; size -= 8)
		a++, b++;
	for (x = (const uint8_t *)a, y = (const uint8_t *)b; size; size--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

#define P1 11400714785074694791ULL
#define P2 14029467366897019727ULL
#define P3 1609587929392839161ULL
#define P4 9650029242287828579ULL

static inline PLAIN __attribute__((always_inline)) uint64_t rotate(uint64_t x, int by)
{
	return x << by | x >> (64 - by);
}

static inline PLAIN __attribute__((always_inline)) uint64_t mix(uint64_t lane, uint64_t word)
{
	return rotate(lane + word * P2, 31) * P1;
}

/* For sizes that are multiples of 32, not 0 */
static KERNEL_CODE uint64_t checksum(const void *data, size_t size, uint64_t seed)
{
	const uint64_t *at = data, *end = at + size / 8;
	uint64_t a = seed + P1 + P2, b = seed + P2, c = seed, d = seed - P1, h;

	do {
		a = mix(a, at[0]);
		b = mix(b, at[1]);
		c = mix(c, at[2]);
		d = mix(d, at[3]);
		at += 4;
	} while (at < end);
	h = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
	h = (h ^ mix(0, a)) * P1 + P4;
	h = (h ^ mix(0, b)) * P1 + P4;
	h = (h ^ mix(0, c)) * P1 + P4;
	h = (h ^ mix(0, d)) * P1 + P4;
	h += size;
	h = (h ^ h >> 33) * P2;
	h = (h ^ h >> 29) * P3;
	return h ^ h >> 32;
}

/* --- measuring --- */

static int by_value(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static uint64_t median(uint64_t *values, unsigned int count)
{
	qsort(values, count, sizeof(*values), by_value);
	return values[count / 2];
}

static uint64_t processor(struct client *c, uint8_t opcode)
{
	uint64_t times[256];
	volatile uint64_t sink;

	for (unsigned int i = 0; i < c->repeats; i++) {
		unsigned int page = i % (PAGES);
		uint64_t start = now();

		if (opcode == OP_COMPARE)
			sink = compare(c->area->left[page], c->area->right[page], PAGE);
		else
			sink = checksum(c->area->left[page], PAGE, 0);
		times[i] = now() - start;
	}
	(void)sink;
	return median(times, c->repeats);
}

static void prepare(struct client *c, uint8_t opcode, unsigned int batch)
{
	struct area *a = c->area;

	for (unsigned int i = 0; i < batch; i++) {
		unsigned int page = i % (PAGES);
		struct descriptor *d = &a->list[i];

		memset(d, 0, sizeof(*d));
		d->flags_opcode = (uint32_t)opcode << 24 | FLAG_CR_VALID | FLAG_CR_REQUEST;
		d->record = dma_bus(&c->dma, &a->records[i]);
		d->source = dma_bus(&c->dma, a->left[page]);
		if (opcode == OP_COMPARE)
			d->target = dma_bus(&c->dma, a->right[page]);
		d->size = PAGE;
		a->records[i].status = 0;
	}
}

/*
 * One batch from the first byte of its descriptors to the last answer read; 0: the device failed.
 * A batch of one is a plain descriptor: the hardware takes no other.
 */
static uint64_t once(struct client *c, uint8_t opcode, unsigned int batch, uint64_t nap)
{
	struct area *a = c->area;
	struct record *last = batch > 1 ? &a->last : &a->records[0];
	uint64_t start = now(), end;

	prepare(c, opcode, batch);
	if (batch > 1) {
		struct descriptor d = {
			.flags_opcode = (uint32_t)OP_BATCH << 24 | FLAG_CR_VALID | FLAG_CR_REQUEST,
			.record = dma_bus(&c->dma, last),
			.source = dma_bus(&c->dma, a->list),
			.size = batch,
		};

		last->status = 0;
		dsa_submit(&c->dsa, 0, &d);
	} else {
		dsa_submit(&c->dsa, 0, &a->list[0]);
	}
	if (nap) {
		struct timespec t = { .tv_nsec = nap };

		clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
	}
	if (!dsa_wait(last, PATIENCE))
		return 0;
	for (unsigned int i = 0; i < batch; i++)
		if (a->records[i].status != ST_SUCCESS || a->records[i].result)
			return 0;
	end = now();
	return end - start;
}

static uint64_t device(struct client *c, uint8_t opcode, unsigned int batch, uint64_t nap)
{
	uint64_t times[256];

	for (unsigned int i = 0; i < c->repeats; i++) {
		times[i] = once(c, opcode, batch, nap);
		if (!times[i]) {
			fprintf(stderr, "dsa-time: a batch of %u, opcode 0x%02x, failed: status 0x%02x, result %u\n",
				batch, opcode, c->area->records[0].status, c->area->records[0].result);
			return 0;
		}
	}
	return median(times, c->repeats);
}

static bool measure(struct client *c, const char *name, uint8_t opcode, bool first)
{
	static const unsigned int batches[] = { 1, 8, 32, 256 };
	uint64_t cpu = processor(c, opcode);

	printf("%s \"%s\": {\"processor_ns\": %llu, \"batches\": [\n", first ? "" : ",\n", name,
	       (unsigned long long)cpu);
	for (unsigned int i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
		uint64_t polled = device(c, opcode, batches[i], 0);
		uint64_t slept = polled ? device(c, opcode, batches[i], polled + c->margin) : 0;

		if (!slept)
			return false;
		printf("%s  {\"batch\": %u, \"polled_ns\": %llu, \"slept_ns\": %llu}", i ? ",\n" : "", batches[i],
		       (unsigned long long)polled, (unsigned long long)slept);
	}
	printf("]}");
	return true;
}

static void fill(struct area *a)
{
	uint64_t state = 1, *left = (uint64_t *)a->left, *right = (uint64_t *)a->right;

	for (size_t i = 0; i < sizeof(a->left) / 8; i++) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		left[i] = right[i] = state;
	}
}

static const char usage[] =
	"usage: dsa-time [--device N] [--unbind] [--repeats N] [--margin NS]\n"
	"\n"
	"Compares and checksums pages of 4 KiB with the processor and with the N-th DSA (0), in batches of 1, 8, 32 and\n"
	"256, and prints the median times of so many repeats (64) in ns as JSON: for a client that polls, and for one\n"
	"that sleeps for the time the polling one measured and NS more (5600), and then polls. What the paper's Figure 7\n"
	"has besides the device is mostly such a sleep; the default is fitted to it.\n"
	"--unbind takes the device away from a kernel driver that owns it.\n"
	"Exit status: 0 measured, 1 a descriptor failed, 2 usage, 3 no usable device.\n";

int main(int argc, char **argv)
{
	struct client c = { .repeats = 64, .margin = 5600 };
	unsigned int number = 0;
	bool unbind = false, ok;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(usage, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--unbind")) {
			unbind = true;
		} else if (!strcmp(argv[i], "--device") && i + 1 < argc) {
			number = strtoul(argv[++i], NULL, 0);
		} else if (!strcmp(argv[i], "--repeats") && i + 1 < argc) {
			c.repeats = strtoul(argv[++i], NULL, 0);
		} else if (!strcmp(argv[i], "--margin") && i + 1 < argc) {
			c.margin = strtoul(argv[++i], NULL, 0);
		} else {
			fputs(usage, stderr);
			return 2;
		}
	}
	if (c.repeats < 1 || c.repeats > 256 || c.margin > 100000000) {
		fprintf(stderr, "dsa-time: --repeats takes 1 to 256, --margin up to 100000000\n");
		return 2;
	}
	prctl(PR_SET_TIMERSLACK, 1);
	_Static_assert(sizeof(struct area) <= 2UL << 20, "one huge page");
	if (!dsa_open(&c.dsa, number, unbind) || !dma_allocate(&c.dma, sizeof(struct area)) ||
	    !dsa_configure(&c.dsa, &queue, 1)) {
		dsa_close(&c.dsa);
		return 3;
	}
	c.area = (struct area *)c.dma.memory;
	fill(c.area);
	printf("{");
	ok = measure(&c, "compare", OP_COMPARE, true) && measure(&c, "checksum", OP_CRC, false);
	printf("}\n");
	dma_free(&c.dma);
	dsa_close(&c.dsa);
	return !ok;
}
