/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A program that obeys lines: a VM through its monitor, or a workload by itself (docs/workloads.md, control protocol). */
#ifndef CHILD_H
#define CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CHILD_COMMAND 4096		/* the longest line to it */
#define CHILD_LINE (1024 * 1024)	/* and from it: a load generator's histograms are long */

struct child {
	pid_t pid;
	int fd;				/* its standard input and output */
	char *text;			/* what was read: grows with its longest line */
	size_t room, used;
	size_t taken;			/* of that: the line that was handed out last */
	size_t searched;		/* of that: has no end of a line */
};

enum child_state { CHILD_LINE_READ, CHILD_LATE, CHILD_GONE };

bool child_start(struct child *child, char *const argv[]);
bool child_say(const struct child *child, const char *line);
/* The next line, without its end, good until the next call; deadline is of now_ns(). */
enum child_state child_line(struct child *child, const char **line, uint64_t deadline);
/* The value of "key=..." in a line, or NULL; it ends with a blank. */
const char *line_value(const char *line, const char *key);

#endif
