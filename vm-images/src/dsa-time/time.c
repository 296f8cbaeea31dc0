// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dsa-time: how long a DSA takes for pages, against the processor's own loops.
 *
 * Two operations that page deduplication needs, comparing two pages and checksumming one, in batches of several
 * sizes. A client either polls the last completion record, or sleeps for as long as the device will take and a margin
 * and then polls, as a kernel thread does that wants to leave the processor to others.
 *
 * The processor's side is compiled as the kernel is: without vector registers. Beside it stand loops that fill no
 * cache, with MOVNTDQA, between saving and restoring all vector state, as a kernel must that uses any.
 *
 * Times are elapsed ones, split where descriptors are handed over and where the last answer is there; processor_ns is
 * what the scheduler charged the client with. Everything is printed as JSON.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include <immintrin.h>

#include "device.h"

#define PAGE 4096u
#define PAGES 240u		/* of a kind: one huge page holds them with all records */
#define MOST 1024u		/* descriptors in a batch */
#define PATIENCE 20.0

#define PLAIN __attribute__((target("general-regs-only")))
#define KERNEL_CODE PLAIN __attribute__((noipa))
#define STREAMING __attribute__((target("sse4.1"), noipa))
#define STATE 16384u		/* bytes that all vector state fits in */

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

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static uint64_t now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
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

/* --- the same with streaming loads --- */

static bool state_by_xsave;

/* Whether saving and restoring can be done as the kernel does it; otherwise SSE's state alone is. */
static void choose_state(void)
{
	unsigned int a, b, c = 0, d;

	state_by_xsave = __get_cpuid(1, &a, &b, &c, &d) && c & bit_OSXSAVE &&
			 __get_cpuid_count(0xd, 0, &a, &b, &c, &d) && b <= STATE;
}

static void state_save(uint8_t *to)
{
	if (state_by_xsave)
		__asm__ volatile("xsave64 %0" : "=m"(*(uint8_t (*)[STATE])to) : "a"(-1), "d"(-1));
	else
		__asm__ volatile("fxsave64 %0" : "=m"(*(uint8_t (*)[STATE])to));
}

static void state_restore(const uint8_t *from)
{
	if (state_by_xsave)
		__asm__ volatile("xrstor64 %0" : : "m"(*(const uint8_t (*)[STATE])from), "a"(-1), "d"(-1));
	else
		__asm__ volatile("fxrstor64 %0" : : "m"(*(const uint8_t (*)[STATE])from));
}

static inline __attribute__((always_inline, target("sse4.1"))) __m128i stream(const void *from)
{
	return _mm_stream_load_si128((__m128i *)from);
}

static STREAMING int compare_streaming(const void *left, const void *right, size_t size)
{
	const __m128i *a = left, *b = right;

	for (size_t i = 0; i < size / 16; i++) {
		unsigned int differ = ~_mm_movemask_epi8(_mm_cmpeq_epi8(stream(a + i), stream(b + i))) & 0xffff;

		if (differ) {
			unsigned int at = 16 * i + __builtin_ctz(differ);

			return ((const uint8_t *)left)[at] - ((const uint8_t *)right)[at];
		}
	}
	return 0;
}

/* The same sum as checksum() makes */
static STREAMING uint64_t checksum_streaming(const void *data, size_t size, uint64_t seed)
{
	const __m128i *at = data, *end = at + size / 16;
	uint64_t lane[4] = { seed + P1 + P2, seed + P2, seed, seed - P1 }, h;

	do {
		__m128i low = stream(at), high = stream(at + 1);

		lane[0] = rotate(lane[0] + (uint64_t)_mm_cvtsi128_si64(low) * P2, 31) * P1;
		lane[1] = rotate(lane[1] + (uint64_t)_mm_extract_epi64(low, 1) * P2, 31) * P1;
		lane[2] = rotate(lane[2] + (uint64_t)_mm_cvtsi128_si64(high) * P2, 31) * P1;
		lane[3] = rotate(lane[3] + (uint64_t)_mm_extract_epi64(high, 1) * P2, 31) * P1;
		at += 2;
	} while (at < end);
	h = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
	for (unsigned int i = 0; i < 4; i++)
		h = (h ^ rotate(lane[i] * P2, 31) * P1) * P1 + P4;
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

/* What the processor takes for one page, or pair of pages. */
static uint64_t one(uint8_t opcode, bool streaming, const uint8_t *left, const uint8_t *right)
{
	static _Alignas(64) uint8_t state[STATE];
	volatile uint64_t sink;
	uint64_t start = now();

	if (streaming)
		state_save(state);
	if (opcode == OP_COMPARE)
		sink = streaming ? compare_streaming(left, right, PAGE) : compare(left, right, PAGE);
	else
		sink = streaming ? checksum_streaming(left, PAGE, 0) : checksum(left, PAGE, 0);
	if (streaming)
		state_restore(state);
	(void)sink;
	return now() - start;
}

static uint64_t processor(struct client *c, uint8_t opcode, bool streaming)
{
	uint64_t times[256];

	for (unsigned int i = 0; i < c->repeats; i++)
		times[i] = one(opcode, streaming, c->area->left[i % PAGES], c->area->right[i % PAGES]);
	return median(times, c->repeats);
}

/* Both loops must say the same, of equal pages and of some that differ late. */
static bool loops_agree(const uint8_t (*pages)[PAGE])
{
	static _Alignas(16) uint8_t other[PAGE];
	bool good = true;

	for (unsigned int i = 0; i < PAGES && good; i++) {
		const uint8_t *page = pages[i];
		unsigned int at = i * 17 % PAGE;

		memcpy(other, page, PAGE);
		good = checksum(page, PAGE, i) == checksum_streaming(page, PAGE, i) &&
		       !compare(page, other, PAGE) && !compare_streaming(page, other, PAGE);
		other[at] ^= 0x55;
		good = good && compare(page, other, PAGE) == compare_streaming(page, other, PAGE);
	}
	if (!good)
		fprintf(stderr, "dsa-time: the streaming loops do not compute what the plain ones do\n");
	return good;
}

/* The loops alone, on pages that are in no cache: of so much memory, at random places, each looked at once. */
static int without_device(size_t mib)
{
	size_t pages = mib << 8, half = pages / 2;
	uint8_t *memory = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *times = calloc(half / 4, sizeof(*times));
	uint32_t *order = calloc(half, sizeof(*order));
	uint64_t state = 1, found[4];

	if (memory == MAP_FAILED || !times || !order) {
		fprintf(stderr, "dsa-time: no memory for %zu MiB: %s\n", mib, strerror(errno));
		return 3;
	}
	for (size_t i = 0; i < half * PAGE / 8; i++) {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		((uint64_t *)memory)[i] = ((uint64_t *)(memory + half * PAGE))[i] = state;
	}
	for (size_t i = 0; i < half; i++) {
		size_t other;

		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		other = (state >> 33) % (i + 1);
		order[i] = order[other];
		order[other] = i;
	}
	if (!loops_agree((const uint8_t (*)[PAGE])memory))
		return 1;
	/* a quarter of the pairs for each of the four */
	for (unsigned int kind = 0; kind < 4; kind++) {
		for (size_t i = 0; i < half / 4; i++) {
			const uint8_t *left = memory + (size_t)order[4 * i + kind] * PAGE;

			times[i] = one(kind < 2 ? OP_COMPARE : OP_CRC, kind % 2, left, left + half * PAGE);
		}
		found[kind] = median(times, half / 4);
	}
	printf("{\"state\": \"%s\",\n \"compare\": {\"processor_ns\": %llu, \"streaming_ns\": %llu},\n", state_by_xsave ?
	       "xsave" : "fxsave", (unsigned long long)found[0], (unsigned long long)found[1]);
	printf(" \"checksum\": {\"processor_ns\": %llu, \"streaming_ns\": %llu}}\n", (unsigned long long)found[2],
	       (unsigned long long)found[3]);
	return 0;
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

/* Where the time of a batch went, in ns; all of it 0: the device failed */
struct spent {
	uint64_t submit, wait, read;
};

/*
 * One batch from the first byte of its descriptors to the last answer read.
 * A batch of one is a plain descriptor: the hardware takes no other.
 */
static struct spent once(struct client *c, uint8_t opcode, unsigned int batch, uint64_t nap)
{
	struct area *a = c->area;
	struct record *last = batch > 1 ? &a->last : &a->records[0];
	uint64_t start = now(), handed_over, answered;

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
	handed_over = now();
	if (nap) {
		struct timespec t = { .tv_nsec = nap };

		clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
	}
	if (!dsa_wait(last, PATIENCE))
		return (struct spent){ 0 };
	answered = now();
	for (unsigned int i = 0; i < batch; i++)
		if (a->records[i].status != ST_SUCCESS || a->records[i].result)
			return (struct spent){ 0 };
	return (struct spent){ handed_over - start, answered - handed_over, now() - answered };
}

static uint64_t total(const struct spent *s)
{
	return s->submit + s->wait + s->read;
}

static int by_total(const void *left, const void *right)
{
	uint64_t a = total(left), b = total(right);

	return (a > b) - (a < b);
}

/* The repeat of median length, and what the processor spent on each, in the mean; false: the device failed. */
static bool device(struct client *c, uint8_t opcode, unsigned int batch, uint64_t nap, struct spent *middle,
		   uint64_t *charged)
{
	struct spent each[256];
	uint64_t before = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	for (unsigned int i = 0; i < c->repeats; i++) {
		each[i] = once(c, opcode, batch, nap);
		if (!total(&each[i])) {
			fprintf(stderr, "dsa-time: a batch of %u, opcode 0x%02x, failed: status 0x%02x, result %u\n",
				batch, opcode, c->area->records[0].status, c->area->records[0].result);
			return false;
		}
	}
	*charged = (clock_ns(CLOCK_THREAD_CPUTIME_ID) - before) / c->repeats;
	qsort(each, c->repeats, sizeof(each[0]), by_total);
	*middle = each[c->repeats / 2];
	return true;
}

static void tell(const char *name, const struct spent *s, uint64_t charged)
{
	printf("\"%s\": {\"submit_ns\": %llu, \"wait_ns\": %llu, \"read_ns\": %llu, \"processor_ns\": %llu}", name,
	       (unsigned long long)s->submit, (unsigned long long)s->wait, (unsigned long long)s->read,
	       (unsigned long long)charged);
}

static bool measure(struct client *c, const char *name, uint8_t opcode, bool first)
{
	uint64_t plain = processor(c, opcode, false), streaming = processor(c, opcode, true);

	printf("%s \"%s\": {\"processor_ns\": %llu, \"streaming_ns\": %llu, \"batches\": [\n", first ? "" : ",\n", name,
	       (unsigned long long)plain, (unsigned long long)streaming);
	for (unsigned int batch = 1; batch <= MOST; batch *= 2) {
		struct spent polled, slept;
		uint64_t polling, sleeping;

		if (!device(c, opcode, batch, 0, &polled, &polling) ||
		    !device(c, opcode, batch, total(&polled) + c->margin, &slept, &sleeping))
			return false;
		printf("%s  {\"batch\": %u, \"polled_ns\": %llu, \"slept_ns\": %llu,\n   ", batch > 1 ? ",\n" : "",
		       batch, (unsigned long long)total(&polled), (unsigned long long)total(&slept));
		tell("polled", &polled, polling);
		printf(",\n   ");
		tell("slept", &slept, sleeping);
		printf("}");
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
	"       dsa-time --processor MIB\n"
	"\n"
	"Compares and checksums pages of 4 KiB with the processor, by plain and by streaming loads, and with the N-th DSA\n"
	"(0), in batches of 1, 2, 4 up to 1024, and prints the median times of so many repeats (64) in ns as JSON: for a\n"
	"client that polls, and for one that sleeps for the time the polling one measured and NS more (5600), and then\n"
	"polls. What the paper's Figure 7 has besides the device is mostly such a sleep; the default is fitted to it.\n"
	"--unbind takes the device away from a kernel driver that owns it.\n"
	"--processor does without a device: the processor's loops alone, on pages of so many MiB (8 to 65536) at random\n"
	"places, each looked at once: more than the caches hold and they come from memory. For real machines.\n"
	"Exit status: 0 measured, 1 a descriptor failed or loops that must agree do not, 2 usage, 3 no usable device.\n";

int main(int argc, char **argv)
{
	struct client c = { .repeats = 64, .margin = 5600 };
	unsigned int number = 0;
	size_t mib = 0;
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
		} else if (!strcmp(argv[i], "--processor") && i + 1 < argc) {
			mib = strtoul(argv[++i], NULL, 0);
			if (mib < 8 || mib > 65536) {
				fprintf(stderr, "dsa-time: --processor takes 8 to 65536\n");
				return 2;
			}
		} else {
			fputs(usage, stderr);
			return 2;
		}
	}
	if (c.repeats < 1 || c.repeats > 256 || c.margin > 100000000) {
		fprintf(stderr, "dsa-time: --repeats takes 1 to 256, --margin up to 100000000\n");
		return 2;
	}
	choose_state();
	if (mib)
		return without_device(mib);
	prctl(PR_SET_TIMERSLACK, 1);
	_Static_assert(sizeof(struct area) <= 2UL << 20, "one huge page");
	if (!dsa_open(&c.dsa, number, unbind) || !dma_allocate(&c.dma, sizeof(struct area)) ||
	    !dsa_configure(&c.dsa, &queue, 1)) {
		dsa_close(&c.dsa);
		return 3;
	}
	c.area = (struct area *)c.dma.memory;
	fill(c.area);
	printf("{\"state\": \"%s\",\n", state_by_xsave ? "xsave" : "fxsave");
	ok = loops_agree(c.area->left) && measure(&c, "compare", OP_COMPARE, true) && measure(&c, "checksum", OP_CRC, false);
	printf("}\n");
	dma_free(&c.dma);
	dsa_close(&c.dsa);
	return !ok;
}
