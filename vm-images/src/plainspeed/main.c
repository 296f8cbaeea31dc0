// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * plainspeed BYTES ROUNDS: what this processor takes for memcmp and CRC-32C of so much memory, a 4 KiB page at a
 * time. Prints "memcmp NS" and "crc32c NS", nanoseconds a page, the best of the rounds.
 */
#include <nmmintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE 4096

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

int main(int argc, char **argv)
{
	size_t size = argc == 3 ? strtoul(argv[1], NULL, 0) / PAGE * PAGE : 0;
	int rounds = argc == 3 ? atoi(argv[2]) : 0;
	uint64_t best_compare = UINT64_MAX, best_crc = UINT64_MAX;
	uint8_t *a = size ? aligned_alloc(PAGE, size) : NULL, *b = size ? aligned_alloc(PAGE, size) : NULL;
	volatile uint32_t sink = 0;

	if (!a || !b || rounds < 1) {
		fputs("usage: plainspeed BYTES ROUNDS\n", stderr);
		return 2;
	}
	for (size_t i = 0; i < size; i++)
		a[i] = b[i] = i * 2654435761u >> 13;
	for (int round = 0; round < rounds; round++) {
		uint64_t began = now(), middle, ended;

		for (size_t at = 0; at < size; at += PAGE)
			sink += memcmp(a + at, b + at, PAGE);
		middle = now();
		for (size_t at = 0; at < size; at += PAGE)
			sink += crc32c(a + at, PAGE);
		ended = now();
		if (middle - began < best_compare)
			best_compare = middle - began;
		if (ended - middle < best_crc)
			best_crc = ended - middle;
	}
	printf("memcmp %.1f\ncrc32c %.1f\n", (double)best_compare * PAGE / size, (double)best_crc * PAGE / size);
	return 0;
}
