// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The harness's hand inside a guest: runs commands that arrive on a virtio-serial port and sends back
 * standard output, standard error and exit status, each apart and byte for byte.
 *
 * A frame is one type byte, a little-endian 32-bit payload length, and the payload.
 *
 *   to the guest    'X' run payload with /bin/sh -c    'I' standard input    'C' end of standard input
 *                   'S' signal (one byte) to the command's process group
 *   to the host     'H' ready (payload: protocol version "1")    'O' output    'E' error output
 *                   'R' the command ended (little-endian 32-bit status; 128 + N for signal N)
 *
 * One command runs at a time; the next 'X' is read after 'R' was sent.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT_NAME "org.paraksm.agent"
#define CHUNK 65536

struct command {
	pid_t pid;
	int in;			/* -1 once closed */
	int out[2];		/* standard output, standard error; -1 at their end */
};

static void pause_ms(long ms)
{
	struct timespec t = { .tv_nsec = ms * 1000000 };

	nanosleep(&t, NULL);
}

/* The port's device node is found by the name that the host gave it. */
static int open_port(void)
{
	char path[320], name[64];
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/virtio-ports");
	int fd = -1;

	while (dir && fd < 0 && (entry = readdir(dir))) {
		FILE *file;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strncmp(name, PORT_NAME, strlen(PORT_NAME))) {
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			fd = open(path, O_RDWR | O_CLOEXEC);
		}
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static void transfer(int port, void *data, size_t size, bool out)
{
	char *at = data;

	while (size) {
		ssize_t n = out ? write(port, at, size) : read(port, at, size);

		if (n > 0) {
			at += n;
			size -= n;
		} else if (n < 0 && errno != EINTR && errno != EAGAIN && errno != EPIPE) {
			exit(1);
		} else {
			pause_ms(5);	/* the host is away; it may come back */
		}
	}
}

static void send_frame(int port, char type, const void *payload, uint32_t size)
{
	static char frame[5 + CHUNK];

	frame[0] = type;
	memcpy(frame + 1, &size, 4);
	memcpy(frame + 5, payload, size);
	transfer(port, frame, 5 + size, true);
}

static char *receive_frame(int port, char *type, uint32_t *size)
{
	char head[5], *payload;

	transfer(port, head, sizeof(head), false);
	*type = head[0];
	memcpy(size, head + 1, 4);
	payload = malloc((size_t)*size + 1);
	if (!payload)
		exit(1);
	transfer(port, payload, *size, false);
	payload[*size] = 0;
	return payload;
}

static bool start(struct command *c, const char *script)
{
	int in[2], out[2], err[2];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		return false;
	c->pid = fork();
	if (c->pid < 0)
		return false;
	if (!c->pid) {
		setsid();
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		signal(SIGPIPE, SIG_DFL);
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	c->in = in[1];
	c->out[0] = out[0];
	c->out[1] = err[0];
	return true;
}

static void feed(struct command *c, const char *data, uint32_t size)
{
	while (size && c->in >= 0) {
		ssize_t n = write(c->in, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {	/* the command does not read any more */
			close(c->in);
			c->in = -1;
			return;
		}
		data += n;
		size -= n;
	}
}

static void obey(int port, struct command *c)
{
	uint32_t size;
	char type;
	char *payload = receive_frame(port, &type, &size);

	if (type == 'I') {
		feed(c, payload, size);
	} else if (type == 'C' && c->in >= 0) {
		close(c->in);
		c->in = -1;
	} else if (type == 'S' && size == 1) {
		kill(-c->pid, payload[0]);
	}
	free(payload);
}

/* Relay until the command has ended and both of its streams are drained. */
static int32_t relay(int port, struct command *c)
{
	static char chunk[CHUNK];
	int status = 0;
	bool ended = false;

	while (!ended || c->out[0] >= 0 || c->out[1] >= 0) {
		struct pollfd p[3] = {
			{ .fd = port, .events = POLLIN },
			{ .fd = c->out[0], .events = POLLIN },
			{ .fd = c->out[1], .events = POLLIN },
		};
		int i, n = poll(p, 3, ended ? 100 : 20);

		for (i = 0; n > 0 && i < 2; i++) {
			ssize_t got;

			if (c->out[i] < 0 || !p[i + 1].revents)
				continue;
			got = read(c->out[i], chunk, sizeof(chunk));
			if (got > 0) {
				send_frame(port, i ? 'E' : 'O', chunk, got);
			} else if (!got || errno != EINTR) {
				close(c->out[i]);
				c->out[i] = -1;
			}
		}
		if (n > 0 && p[0].revents & POLLIN)
			obey(port, c);
		if (ended && n == 0)
			break;	/* a daemon it left behind holds the streams open */
		if (!ended && waitpid(c->pid, &status, WNOHANG) == c->pid)
			ended = true;
	}
	for (int i = 0; i < 2; i++)
		if (c->out[i] >= 0)
			close(c->out[i]);
	if (c->in >= 0)
		close(c->in);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void wait_for_host(int port)
{
	struct pollfd p = { .fd = port, .events = POLLIN | POLLOUT };

	while (poll(&p, 1, -1) < 0 || (p.revents & (POLLHUP | POLLERR)))
		pause_ms(5);
}

int main(void)
{
	int port;

	signal(SIGPIPE, SIG_IGN);
	while ((port = open_port()) < 0)
		pause_ms(5);
	wait_for_host(port);
	send_frame(port, 'H', "1", 1);
	for (;;) {
		struct command c = { .in = -1, .out = { -1, -1 } };
		int32_t status = 127;
		uint32_t size;
		char type;
		char *script = receive_frame(port, &type, &size);

		if (type == 'X') {
			if (start(&c, script))
				status = relay(port, &c);
			send_frame(port, 'R', &status, sizeof(status));
		}
		free(script);
	}
}
