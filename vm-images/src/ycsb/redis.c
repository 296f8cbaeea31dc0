// SPDX-License-Identifier: GPL-2.0-or-later
/* One connection to a Redis server, in its protocol of version 2 (RESP2). */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "ycsb.h"

#define RETRY_NS 50000000
#define INDEX "_indices"

static const char *place(const struct options *options, char *text, size_t size)
{
	if (options->host[0])
		snprintf(text, size, "%s:%u", options->host, options->port);
	else
		snprintf(text, size, "%s", options->socket);
	return text;
}

static bool try_tcp(int fd, const struct options *options)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(options->port) };

	if (inet_pton(AF_INET, options->host, &to.sin_addr) != 1)
		control_fail("%s is no IPv4 address", options->host);
	return !connect(fd, (struct sockaddr *)&to, sizeof(to));
}

static bool try_unix(int fd, const struct options *options)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	memcpy(to.sun_path, options->socket, sizeof(to.sun_path));
	return !connect(fd, (struct sockaddr *)&to, sizeof(to));
}

static void patience(int fd, double seconds)
{
	struct timeval limit = { .tv_sec = (time_t)seconds };
	int one = 1;

	limit.tv_usec = (suseconds_t)((seconds - (double)limit.tv_sec) * 1e6);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));	/* a UNIX socket knows no such thing */
}

void redis_connect(struct redis *redis, const struct options *options)
{
	uint64_t deadline = control_now_ns() + (uint64_t)(options->wait_seconds * 1e9);
	const struct timespec nap = { .tv_nsec = RETRY_NS };
	int family = options->host[0] ? AF_INET : AF_UNIX;
	char text[128];

	redis->out_used = redis->in_start = redis->in_end = 0;
	for (;;) {
		redis->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (redis->fd < 0)
			control_fail("no socket: %m");
		patience(redis->fd, options->timeout_seconds);
		if (family == AF_INET ? try_tcp(redis->fd, options) : try_unix(redis->fd, options))
			break;
		if (control_now_ns() >= deadline)
			control_fail("no server at %s: %m (waited %g s; --wait)", place(options, text, sizeof(text)),
				     options->wait_seconds);
		close(redis->fd);
		nanosleep(&nap, NULL);
	}
	redis_command(redis, 1);
	redis_word(redis, "PING", 4);
	redis_ok(redis, "PING");
}

/* --- requests --- */

void redis_flush(struct redis *redis)
{
	size_t sent = 0;

	while (sent < redis->out_used) {
		ssize_t n = send(redis->fd, redis->out + sent, redis->out_used - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			control_fail("the server takes no request (--timeout)");
		if (n < 0)
			control_fail("the server is gone: %m");
		sent += (size_t)n;
	}
	redis->out_used = 0;
}

static void put(struct redis *redis, const void *bytes, size_t size)
{
	if (redis->out_used + size > sizeof(redis->out))
		redis_flush(redis);
	memcpy(redis->out + redis->out_used, bytes, size);
	redis->out_used += size;
}

static void put_count(struct redis *redis, char kind, size_t count)
{
	char text[32];

	put(redis, text, (size_t)snprintf(text, sizeof(text), "%c%zu\r\n", kind, count));
}

void redis_command(struct redis *redis, int words)
{
	put_count(redis, '*', (size_t)words);
}

void redis_word(struct redis *redis, const char *word, size_t size)
{
	put_count(redis, '$', size);
	put(redis, word, size);
	put(redis, "\r\n", 2);
}

static void put_key(struct redis *redis, uint64_t number)
{
	char key[KEY_SIZE];
	size_t size = record_key(key, number);

	redis_word(redis, key, size);
}

static void put_field(struct redis *redis, const struct options *options, uint64_t number, int field,
		      struct stamp stamp)
{
	char name[] = "field0", value[VALUE_SIZE];

	name[FIELD_NAME_SIZE - 1] = (char)('0' + field);
	redis_word(redis, name, FIELD_NAME_SIZE);
	value_make(options, number, field, stamp, value);
	redis_word(redis, value, VALUE_SIZE);
}

void ask_record(struct redis *redis, uint64_t number)
{
	redis_command(redis, 2);
	redis_word(redis, "HGETALL", 7);
	put_key(redis, number);
}

void ask_update(struct redis *redis, const struct options *options, uint64_t number, int field, struct stamp stamp)
{
	redis_command(redis, 4);
	redis_word(redis, "HMSET", 5);
	put_key(redis, number);
	put_field(redis, options, number, field, stamp);
}

void ask_insert(struct redis *redis, const struct options *options, uint64_t number, struct stamp stamp)
{
	redis_command(redis, 2 + 2 * FIELDS);
	redis_word(redis, "HMSET", 5);
	put_key(redis, number);
	for (int field = 0; field < FIELDS; field++)
		put_field(redis, options, number, field, stamp);
}

void ask_index(struct redis *redis, uint64_t number)
{
	char key[KEY_SIZE], score[16];
	size_t size = record_key(key, number);

	redis_command(redis, 4);
	redis_word(redis, "ZADD", 4);
	redis_word(redis, INDEX, sizeof(INDEX) - 1);
	redis_word(redis, score, (size_t)snprintf(score, sizeof(score), "%" PRId32, record_score(key)));
	redis_word(redis, key, size);
}

/* --- answers --- */

/* Sees to it that so many bytes are in the buffer, in one piece. */
static const char *need(struct redis *redis, size_t size)
{
	if (size > sizeof(redis->in))
		control_fail("the server sends %zu bytes in one piece", size);
	if (redis->in_end - redis->in_start < size && redis->in_start) {
		memmove(redis->in, redis->in + redis->in_start, redis->in_end - redis->in_start);
		redis->in_end -= redis->in_start;
		redis->in_start = 0;
	}
	while (redis->in_end - redis->in_start < size) {
		ssize_t n = recv(redis->fd, redis->in + redis->in_end, sizeof(redis->in) - redis->in_end, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			control_fail("the server does not answer (--timeout)");
		if (n <= 0)
			control_fail("the server is gone: %s", n ? strerror(errno) : "it closed the connection");
		redis->in_end += (size_t)n;
	}
	return redis->in + redis->in_start;
}

/* A line without its end, terminated. */
static char *line(struct redis *redis)
{
	size_t size = 0, have;
	char *end = NULL, *start;

	redis_flush(redis);
	do {
		need(redis, size + 1);
		have = redis->in_end - redis->in_start;
		end = memchr(redis->in + redis->in_start + size, '\n', have - size);
		size = have;
	} while (!end && size < sizeof(redis->in));
	start = redis->in + redis->in_start;
	if (!end || end == start || end[-1] != '\r')
		control_fail("what answers speaks another protocol than Redis");
	end[-1] = 0;
	redis->in_start += (size_t)(end + 1 - start);
	return start;
}

/* The rest of a line that must be of this kind. */
static const char *expect(struct redis *redis, const char *command, char kind)
{
	const char *said = line(redis);

	if (said[0] == '-')
		control_fail("the server refuses %s: %s", command, said + 1);
	if (said[0] != kind)
		control_fail("the server answers %s with '%.40s'", command, said);
	return said + 1;
}

static int64_t as_number(const char *command, const char *text)
{
	char *end;
	long long value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || end == text || *end)
		control_fail("the server answers %s with '%.40s'", command, text);
	return value;
}

int64_t redis_number(struct redis *redis, const char *command)
{
	return as_number(command, expect(redis, command, ':'));
}

void redis_ok(struct redis *redis, const char *command)
{
	expect(redis, command, '+');
}

size_t redis_array(struct redis *redis, const char *command)
{
	int64_t size = as_number(command, expect(redis, command, '*'));

	return size < 0 ? 0 : (size_t)size;
}

const char *redis_bulk(struct redis *redis, const char *command, size_t *size)
{
	int64_t bytes = as_number(command, expect(redis, command, '$'));
	const char *text;

	*size = bytes < 0 ? 0 : (size_t)bytes;
	if (bytes < 0)
		return "";
	text = need(redis, *size + 2);
	redis->in_start += *size + 2;
	return text;
}
