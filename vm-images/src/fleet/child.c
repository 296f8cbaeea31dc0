// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fleet.h"

bool child_start(struct child *child, char *const argv[])
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		fprintf(stderr, "fleet: socketpair: %m\n");
		return false;
	}
	memset(child, 0, sizeof(*child));
	child->fd = pair[0];
	child->pid = fork();
	if (!child->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(pair[1], 0);
		dup2(pair[1], 1);
		execv(argv[0], argv);
		fprintf(stderr, "fleet: %s: %m\n", argv[0]);
		_exit(127);
	}
	close(pair[1]);
	return child->pid > 0;
}

bool child_say(const struct child *child, const char *line)
{
	char text[CHILD_COMMAND];
	int size = snprintf(text, sizeof(text), "%s\n", line);

	return size < (int)sizeof(text) && send(child->fd, text, size, MSG_NOSIGNAL) == size;
}

/* A whole line of what was read, if there is one. */
static const char *cut(struct child *child)
{
	char *end = NULL;

	if (child->used > child->searched)
		end = memchr(child->text + child->searched, '\n', child->used - child->searched);
	child->searched = child->used;
	if (!end)
		return NULL;
	*end = 0;
	child->taken = end + 1 - child->text;
	return child->text;
}

static void drop_taken(struct child *child)
{
	child->used -= child->taken;
	if (child->taken)
		memmove(child->text, child->text + child->taken, child->used);
	child->taken = child->searched = 0;
}

static bool make_room(struct child *child)
{
	size_t room = child->room ? 2 * child->room : 4096;
	char *text;

	if (child->used < child->room)
		return true;
	text = room <= CHILD_LINE ? realloc(child->text, room) : NULL;
	if (!text)
		return false;
	child->text = text;
	child->room = room;
	return true;
}

enum child_state child_line(struct child *child, const char **line, uint64_t deadline)
{
	drop_taken(child);
	while (!(*line = cut(child))) {
		struct pollfd p = { .fd = child->fd, .events = POLLIN };
		uint64_t now = now_ns();
		uint64_t left = deadline > now ? deadline - now : 0;
		struct timespec wait = { .tv_sec = left / 1000000000ULL, .tv_nsec = left % 1000000000ULL };
		int ready = ppoll(&p, 1, &wait, NULL);
		ssize_t n;

		if (!ready)
			return CHILD_LATE;
		if (ready < 0 && errno == EINTR)
			continue;
		if (ready < 0 || !make_room(child))
			return CHILD_GONE;
		n = read(child->fd, child->text + child->used, child->room - child->used);
		if (n <= 0)
			return CHILD_GONE;
		child->used += n;
	}
	return CHILD_LINE_READ;
}

const char *line_value(const char *line, const char *key)
{
	size_t size = strlen(key);

	for (const char *at = line; (at = strstr(at, key)); at += size)
		if (at > line && at[-1] == ' ' && at[size] == '=')
			return at + size + 1;
	return NULL;
}
