// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * plainspeed PAGES VISITS: what this processor takes for memcmp of two pages of 4 KiB and for CRC-32C of one, so many
 * times, each time with the next of so many pages. Prints "memcmp NS" and "crc32c NS", nanoseconds a visit.
 */
#define _GNU_SOURCE
#include <nmmintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);	/* this machine may have other work */
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint32_t crc32c(const uint8_t *data, size_t size)
{
	uint64_t crc = 0xffffffff, word;

	for (size_t i = 0; i < size; i += 8) {
		memcpy(&word, data + i, 8);
		crc = _mm_crc32_u64(crc, word);
	}
	return ~crc;
}

/* As QEMU has the memory of a guest: of huge pages, if there are any */
static uint8_t *memory(size_t size)
{
	uint8_t *all = aligned_alloc(HUGE, (size + HUGE - 1) / HUGE * HUGE);

	if (!all)
		return NULL;
	madvise(all, size, MADV_HUGEPAGE);
	for (size_t i = 0; i < size; i++)
		all[i] = i * 2654435761u >> 13;
	return all;
}

int main(int argc, char **argv)
{
	size_t pages = argc == 3 ? strtoul(argv[1], NULL, 0) : 0, visits = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;
	uint8_t *a = memory(pages * PAGE), *b = memory(pages * PAGE);
	volatile uint32_t sink = 0;
	uint64_t began, middle, ended;

	if (!a || !b || !pages || !visits) {
		fputs("usage: plainspeed PAGES VISITS\n", stderr);
		return 2;
	}
	began = now();
	for (size_t visit = 0; visit < visits; visit++)
		sink += memcmp(a + visit % pages * PAGE, b + visit % pages * PAGE, PAGE);
	middle = now();
	for (size_t visit = 0; visit < visits; visit++)
		sink += crc32c(a + visit % pages * PAGE, PAGE);
	ended = now();
	printf("memcmp %.1f\ncrc32c %.1f\n", (double)(middle - began) / visits, (double)(ended - middle) / visits);
	return 0;
}
