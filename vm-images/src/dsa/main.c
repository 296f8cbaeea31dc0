// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dsa-check: does this DSA do what the specification says? Drives it from user space, without the kernel's driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const char usage[] =
	"usage: dsa-check fuzz [--seed S] [--count N] [--case FIRST [--cases N]] [--verbose] [--device N] [--unbind]\n"
	"       dsa-check acceptance [--device N] [--unbind]\n"
	"\n"
	"fuzz         N random descriptors, every answer and all memory compared with a software oracle; one line per\n"
	"             mismatch. --seed S --case FIRST --cases 1 repeats one case\n"
	"acceptance   capabilities, refused configurations, limits, known answers, errors, reset, as TAP\n"
	"--device N   the N-th DSA in the order of PCI addresses (0)\n"
	"--unbind     take the device away from a kernel driver that owns it\n"
	"\n"
	"Exit status: 0 all as it must be, 1 mismatches, 2 usage, 3 no usable device.\n"
	"Example: dsa-check fuzz --seed 7 --count 20000\n";

static const char *value(int argc, char **argv, int *at)
{
	if (*at + 1 >= argc) {
		fprintf(stderr, "dsa-check: %s needs a value\n%s", argv[*at], usage);
		exit(2);
	}
	return argv[++*at];
}

static uint64_t number(int argc, char **argv, int *at)
{
	const char *option = argv[*at], *text = value(argc, argv, at);
	char *end;
	uint64_t result = strtoull(text, &end, 0);

	if (!*text || *end || *text == '-') {
		fprintf(stderr, "dsa-check: %s %s is not a number\n", option, text);
		exit(2);
	}
	return result;
}

int main(int argc, char **argv)
{
	struct fuzz_options options = { .seed = 1, .count = 20000 };
	bool unbind = false, fuzzing;
	unsigned int device = 0;
	struct dsa dsa;
	long failures;

	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		fputs(usage, argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	fuzzing = !strcmp(argv[1], "fuzz");
	if (!fuzzing && strcmp(argv[1], "acceptance")) {
		fprintf(stderr, "dsa-check: no command %s\n%s", argv[1], usage);
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--unbind")) {
			unbind = true;
		} else if (!strcmp(argv[i], "--device")) {
			device = number(argc, argv, &i);
		} else if (fuzzing && !strcmp(argv[i], "--seed")) {
			options.seed = number(argc, argv, &i);
		} else if (fuzzing && !strcmp(argv[i], "--count")) {
			options.count = number(argc, argv, &i);
		} else if (fuzzing && !strcmp(argv[i], "--case")) {
			options.first = number(argc, argv, &i);
		} else if (fuzzing && !strcmp(argv[i], "--cases")) {
			options.cases = number(argc, argv, &i);
		} else if (fuzzing && !strcmp(argv[i], "--verbose")) {
			options.verbose = true;
		} else {
			fprintf(stderr, "dsa-check: what is %s?\n%s", argv[i], usage);
			return 2;
		}
	}
	if (!dsa_open(&dsa, device, unbind)) {
		dsa_close(&dsa);
		return 3;
	}
	failures = fuzzing ? fuzz(&dsa, &options) : acceptance(&dsa);
	dsa_close(&dsa);
	return failures < 0 ? 3 : failures > 0;
}
