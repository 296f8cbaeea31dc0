// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One client: operations one after the other, each at its time or, if the last answer came late, at once. Latencies are
 * taken twice, from when an operation was sent and from when it should have been: the first forgets what a stalled server
 * does to those that would have asked meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "control.h"
#include "mix64.h"
#include "ycsb.h"

#define SECOND_NS 1000000000ULL
#define ROUND_SHIFT 40			/* operations of the second "go" are others than those of the first */

enum kind { READ, UPDATE, INSERT, KINDS };

static const char *const kind_name[KINDS] = { "read", "update", "insert" };

/* Percent of reads, and what the others are: YCSB's core workloads. */
static const struct mixture {
	unsigned int reads;
	enum kind other;
} mixture[] = { ['a' - 'a'] = { 50, UPDATE }, { 95, UPDATE }, { 100, UPDATE }, { 95, INSERT } };

struct operation {
	enum kind kind;
	uint64_t number;		/* of the record */
	int field;			/* UPDATE */
	struct stamp stamp;
};

struct client {
	struct options *options;
	struct redis redis;
	uint64_t round;			/* how many times it was told to go */
	uint64_t inserted;		/* in all rounds */
	FILE *samples;
	struct histogram sent[KINDS], intended[KINDS];
};

static struct client client;

/* What the operation at this place is, whatever became of those before: only inserts are counted on. */
static struct operation operation_at(const struct client *own, uint64_t place)
{
	const struct options *options = own->options;
	const struct mixture *these = &mixture[options->workload - 'a'];
	uint64_t at = own->round << ROUND_SHIFT | place;
	struct operation operation = { .kind = READ, .stamp = { options->client, at } };

	if (below(draw(options->seed, options->client, STREAM_OPERATION, at), 100) >= these->reads)
		operation.kind = these->other;
	if (operation.kind == INSERT)
		operation.number = options->records + own->inserted;
	else
		operation.number = below(draw(options->seed, options->client, STREAM_KEY, at), options->records);
	operation.field = (int)below(draw(options->seed, options->client, STREAM_FIELD, at), FIELDS);
	return operation;
}

static void perform(struct client *own, const struct operation *operation)
{
	struct redis *redis = &own->redis;

	switch (operation->kind) {
	case READ:
		ask_record(redis, operation->number);
		if (!read_record(redis, own->options, operation->number, SHAPE))
			control_fail("record %" PRIu64 " has not the ten fields of 100 bytes that were loaded",
				     operation->number);
		break;
	case UPDATE:
		ask_update(redis, own->options, operation->number, operation->field, operation->stamp);
		redis_ok(redis, "HMSET");
		break;
	default:
		ask_insert(redis, own->options, operation->number, operation->stamp);
		redis_ok(redis, "HMSET");
		ask_index(redis, operation->number);
		redis_number(redis, "ZADD");
		own->inserted++;
	}
}

static uint64_t fold(uint64_t checksum, const struct operation *operation)
{
	uint64_t what = mix64(operation->number + 1) + operation->kind;

	if (operation->kind == UPDATE)
		what += (uint64_t)(operation->field + 1) << 8;
	return mix64(checksum ^ mix64(what));
}

static void sleep_until(uint64_t ns)
{
	const struct timespec at = { .tv_sec = (time_t)(ns / SECOND_NS), .tv_nsec = (long)(ns % SECOND_NS) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		;
}

static void add_histogram(struct control_result *result, const char *kind, const char *which,
			  const struct histogram *histogram)
{
	static char text[CONTROL_MORE];
	char key[48];

	snprintf(key, sizeof(key), "%s%s_p50_ns", kind, which);
	control_add(result, key, "%" PRIu64, histogram_percentile(histogram, 50));
	snprintf(key, sizeof(key), "%s%s_p99_ns", kind, which);
	control_add(result, key, "%" PRIu64, histogram_percentile(histogram, 99));
	snprintf(key, sizeof(key), "%s%s_max_ns", kind, which);
	control_add(result, key, "%" PRIu64, histogram->max);
	snprintf(key, sizeof(key), "%s%s_hist", kind, which);
	if (!histogram_text(histogram, text, sizeof(text)))
		control_fail("no room for the histogram %s", key);
	control_add(result, key, "%s", text);
}

static void go(void *state, struct control_result *result)
{
	struct client *own = state;
	const struct options *options = own->options;
	uint64_t start, intended, now, end = UINT64_MAX, done = 0, behind = 0;

	for (int kind = 0; kind < KINDS; kind++) {
		histogram_clear(&own->sent[kind]);
		histogram_clear(&own->intended[kind]);
	}
	if (!options->workload)
		control_fail("go with --workload and --operations or --seconds (ycsb --help)");
	result->checksum = 0;
	start = now = control_now_ns();
	if (options->target)	/* clients that were started together do not ask together */
		start += below(draw(options->seed, options->client, STREAM_PHASE, own->round),
			       SECOND_NS / options->target);
	if (options->seconds > 0)
		end = start + (uint64_t)(options->seconds * 1e9);
	for (;; done++) {
		struct operation operation;
		uint64_t sent;

		if (options->operations && done == options->operations)
			break;
		intended = options->target ? start + done * SECOND_NS / options->target : now;
		if (intended >= end || now >= end)
			break;
		operation = operation_at(own, done);
		if (intended > now)
			sleep_until(intended);
		sent = control_now_ns();
		perform(own, &operation);
		now = control_now_ns();
		if (!options->target)
			intended = sent;
		if (sent - intended > behind)
			behind = sent - intended;
		histogram_add(&own->sent[operation.kind], now - sent);
		histogram_add(&own->intended[operation.kind], now - intended);
		result->checksum = fold(result->checksum, &operation);
		if (own->samples)
			fprintf(own->samples, "%s %" PRIu64 " %" PRIu64 "\n", kind_name[operation.kind], now - sent,
				now - intended);
	}
	own->round++;
	if (own->samples && fflush(own->samples))
		control_fail("%s: %m", options->samples);
	control_add(result, "workload", "%c", options->workload);
	control_add(result, "operations", "%" PRIu64, done);
	control_add(result, "span_ns", "%" PRIu64, now > start ? now - start : 0);
	control_add(result, "behind_ns", "%" PRIu64, behind);
	for (int kind = 0; kind < KINDS; kind++) {
		char key[48];

		if (!own->sent[kind].total)
			continue;
		snprintf(key, sizeof(key), "%s_n", kind_name[kind]);
		control_add(result, key, "%" PRIu64, own->sent[kind].total);
		add_histogram(result, kind_name[kind], "", &own->sent[kind]);
		add_histogram(result, kind_name[kind], "_intended", &own->intended[kind]);
	}
}

static void order(void *state, char *words)
{
	struct client *own = state;

	read_order(own->options, words);
}

/* The loaded records and those this client inserted. */
static void verify(void *state, struct control_verdict *verdict)
{
	struct client *own = state;

	verdict->pages = own->options->records + own->inserted;
	verdict->bad = verify_records(&own->redis, own->options, 0, verdict->pages);
}

/* The first and the last record: a server with no data, or fewer, is not what is to be measured. */
static void find_data(struct client *own)
{
	const uint64_t numbers[] = { 0, own->options->records - 1 };

	for (int i = 0; i < 2; i++) {
		ask_record(&own->redis, numbers[i]);
		if (!read_record(&own->redis, own->options, numbers[i], CONTENT))
			control_fail("the server does not hold record %" PRIu64 " of this seed: ycsb load, with the same"
				     " --records, --seed and --values", numbers[i]);
	}
}

int run(struct options *options)
{
	const struct workload workload = { .state = &client, .go = go, .order = order, .verify = verify };

	client.options = options;
	prctl(PR_SET_TIMERSLACK, 1UL);	/* otherwise the kernel may wake it 50 us late, and every intended start is missed */
	if (options->samples[0]) {
		client.samples = fopen(options->samples, "we");
		if (!client.samples)
			control_fail("%s: %m", options->samples);
	}
	redis_connect(&client.redis, options);
	find_data(&client);
	return control_serve(&workload);
}
