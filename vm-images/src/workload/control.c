// SPDX-License-Identifier: GPL-2.0-or-later
/* The loop behind control.h. */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control.h"

uint64_t control_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Who does not hear an answer waits for ever, so a lost one ends the program. */
static void say(const char *format, ...)
{
	va_list arguments;
	int written;

	va_start(arguments, format);
	written = vprintf(format, arguments);
	va_end(arguments);
	if (written < 0 || fflush(stdout)) {
		perror("workload: standard output");
		exit(1);
	}
}

void control_fail(const char *format, ...)
{
	char cause[1000];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(cause, sizeof(cause), format, arguments);
	va_end(arguments);
	for (char *at = cause; *at; at++)
		if (iscntrl((unsigned char)*at))
			*at = ' ';
	say("failed %s\n", cause);
	exit(1);
}

void control_add(struct control_result *result, const char *key, const char *format, ...)
{
	size_t used = strlen(result->more), room = sizeof(result->more) - used;
	char *at = result->more + used;
	va_list arguments;
	int length = snprintf(at, room, " %s=", key);

	if (length > 0 && (size_t)length < room) {
		va_start(arguments, format);
		length += vsnprintf(at + length, room - length, format, arguments);
		va_end(arguments);
	}
	if (length < 0 || (size_t)length >= room)
		control_fail("no room for %s in the answer", key);
	for (at++; *at; at++)
		if (isspace((unsigned char)*at))
			control_fail("white space in the value of %s", key);
}

static void go(const struct workload *workload)
{
	static struct control_result result;
	uint64_t start, end;

	result.checksum = 0;	/* and no more: a small guest would touch all of its pages */
	result.more[0] = 0;
	start = control_now_ns();
	workload->go(workload->state, &result);
	end = control_now_ns();
	if (workload->rest)
		workload->rest(workload->state);
	say("done ns=%" PRIu64 " checksum=%016" PRIx64 "%s\n", end - start, result.checksum, result.more);
}

/* "go", or "go WORDS" for those who take some. */
static bool told_to_go(const struct workload *workload, char *line)
{
	if (!strcmp(line, "go"))
		return true;
	if (strncmp(line, "go ", 3) || !workload->order)
		return false;
	workload->order(workload->state, line + 3);
	return true;
}

static void verify(const struct workload *workload)
{
	struct control_verdict verdict = { 0, 0 };

	workload->verify(workload->state, &verdict);
	say("verified pages=%" PRIu64 " bad=%" PRIu64 "\n", verdict.pages, verdict.bad);
}

/* A line without its end; false at the end of input. */
static bool read_line(char *line, size_t size)
{
	size_t length;

	if (!fgets(line, size, stdin)) {
		if (ferror(stdin))
			control_fail("standard input: %m");
		return false;
	}
	length = strlen(line);
	if (length + 1 == size && line[length - 1] != '\n')
		control_fail("a command of more than %zu bytes", size - 2);
	while (length && isspace((unsigned char)line[length - 1]))
		line[--length] = 0;
	return true;
}

int control_serve(const struct workload *workload)
{
	static char line[256];

	say("ready bytes=%" PRIu64 "\n", workload->bytes);
	while (read_line(line, sizeof(line))) {
		if (told_to_go(workload, line))
			go(workload);
		else if (!strcmp(line, "verify"))
			verify(workload);
		else if (!strcmp(line, "quit"))
			break;
		else if (*line)
			control_fail("no command %s; there are go, verify, quit", line);
	}
	return 0;
}
