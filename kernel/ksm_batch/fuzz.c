// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scenarios of world.c, drawn from the fuzzer's input instead of a random
 * generator. Built by clang with -fsanitize=fuzzer it looks for inputs that
 * reach new code; built without (REPLAY) it runs those that were kept:
 *
 *	replay < CORPUS		one input a line, in hexadecimal, # starts a comment
 */
#include <stdlib.h>
#include <string.h>

#include "world.h"

/* small worlds reach every branch, and more of them fit a second */
#define MOST 64

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct chance chance = { .data = data, .left = size, .from_data = true };

	scenario(&chance, MOST);
	return 0;
}

#ifdef REPLAY
int main(void)
{
	static char line[1 << 16];
	static u8 data[sizeof(line) / 2];
	unsigned int inputs = 0, byte;

	while (fgets(line, sizeof(line), stdin)) {
		size_t size = 0;

		if (line[0] == '#')
			continue;
		while (sscanf(line + 2 * size, "%2x", &byte) == 1)
			data[size++] = byte;
		LLVMFuzzerTestOneInput(data, size);
		inputs++;
	}
	printf("%u inputs\n", inputs);
	return 0;
}
#endif
