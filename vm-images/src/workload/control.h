/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a workload program is driven: lines on its standard input and output.
 *
 * Once its data are in memory the program says "ready bytes=N", then it obeys:
 *
 *   go       runs the timed part, answers "done ns=N checksum=HEX [KEY=VALUE ...]"; some programs take words behind it
 *   verify   compares its data with what they must be, answers "verified pages=N bad=M"
 *   quit     ends with status 0, as the end of input does
 *
 * What it cannot do ends it: "failed CAUSE", status 1. Every line is out before the next thing is done. Empty lines
 * and carriage returns, which a console may add, are nothing.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CONTROL_MORE (256 * 1024)	/* enough for the histograms of a load generator */

/* What one "go" came to. The time around it is taken by control_serve(). */
struct control_result {
	uint64_t checksum;		/* of the result: the same whatever the host did meanwhile */
	char more[CONTROL_MORE];	/* filled by control_add() */
};

struct control_verdict {
	uint64_t pages;			/* looked at */
	uint64_t bad;			/* that hold something else than what was loaded */
};

struct workload {
	uint64_t bytes;			/* of the data it holds between two runs */
	void *state;			/* handed to the functions */
	void (*go)(void *state, struct control_result *result);		/* the timed part and nothing else */
	void (*order)(void *state, char *words);	/* may be NULL: what stands behind "go", read before time counts */
	void (*rest)(void *state);	/* may be NULL: what follows the timed part, done before the answer */
	void (*verify)(void *state, struct control_verdict *verdict);
};

/* Says "ready", then obeys until it is told to quit; returns what main() shall return. */
int control_serve(const struct workload *workload);

/* Adds "KEY=VALUE" to the answer of "go"; neither holds white space. */
void control_add(struct control_result *result, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Says "failed CAUSE" and ends the program, at any time, before it is ready too. */
void control_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

uint64_t control_now_ns(void);		/* CLOCK_MONOTONIC */

#ifdef __cplusplus
}
#endif
#endif
