// SPDX-License-Identifier: GPL-2.0-or-later
/* Loads the records, before it says that it is ready; "go" tells what that took. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "mix64.h"
#include "ycsb.h"

struct loader {
	const struct options *options;
	struct redis redis;
	uint64_t ns;
};

static struct loader loader;

/* What the server says of itself: INFO memory, used_memory. */
static uint64_t server_memory(struct redis *redis)
{
	static const char key[] = "\nused_memory:";
	char text[16384];
	const char *said, *at;
	size_t size;

	redis_command(redis, 2);
	redis_word(redis, "INFO", 4);
	redis_word(redis, "memory", 6);
	said = redis_bulk(redis, "INFO", &size);
	if (size >= sizeof(text))
		size = sizeof(text) - 1;
	memcpy(text, said, size);
	text[size] = 0;
	at = strstr(text, key);
	return at ? strtoull(at + sizeof(key) - 1, NULL, 10) : 0;
}

static void insert_all(struct redis *redis, const struct options *options)
{
	uint64_t asked = 0;

	for (uint64_t answered = 0; answered < options->records; answered++) {
		for (; asked < options->records && asked < answered + options->pipeline; asked++) {
			ask_insert(redis, options, asked, (struct stamp){ 0, 0 });
			ask_index(redis, asked);
		}
		redis_ok(redis, "HMSET");
		redis_number(redis, "ZADD");
	}
}

static void go(void *state, struct control_result *result)
{
	const struct loader *own = state;

	result->checksum = mix64(own->options->records) ^ mix64(own->options->keyed ? 0 : own->options->seed);
	control_add(result, "records", "%" PRIu64, own->options->records);
	control_add(result, "load_ns", "%" PRIu64, own->ns);
	control_add(result, "server_bytes", "%" PRIu64, server_memory(&loader.redis));
}

static void verify(void *state, struct control_verdict *verdict)
{
	const struct loader *own = state;

	verdict->pages = own->options->records;
	verdict->bad = verify_records(&loader.redis, own->options, 0, own->options->records);
}

int load(const struct options *options)
{
	struct workload workload = { .state = &loader, .go = go, .verify = verify };
	uint64_t start;
	int status;

	loader.options = options;
	if (options->program[0])
		server_start(options);
	redis_connect(&loader.redis, options);
	start = control_now_ns();
	insert_all(&loader.redis, options);
	loader.ns = control_now_ns() - start;
	workload.bytes = server_memory(&loader.redis);
	if (options->listen_port)
		server_listen(&loader.redis, options);
	status = control_serve(&workload);
	if (options->program[0])
		server_stop();
	return status;
}
