/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A load generator with the core workloads of YCSB for a Redis server: what its parts know of each other. */
#ifndef YCSB_H
#define YCSB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* main.c: what is asked for */
struct options {
	char host[64];			/* numeric IPv4 address; empty: socket is used */
	uint16_t port;
	char socket[108];
	double wait_seconds;		/* for a server that is not there yet */
	double timeout_seconds;		/* for an answer */
	uint64_t records;
	uint64_t seed;
	bool keyed;			/* values are a function of key and field alone */
	uint64_t pipeline;		/* load, verify: requests under way */
	char workload;			/* run: 'a' to 'd' */
	uint64_t operations;		/* 0: no limit */
	double seconds;			/* 0: no limit */
	uint64_t target;		/* operations a second; 0: as fast as answers come */
	uint64_t client;		/* which of the clients of one server this is */
	char samples[256];		/* file for every single latency */
	bool later;			/* run: what to do comes with "go" */
	char program[108];		/* load: the server, to be started; empty: it runs */
	char listen_host[64];		/* where that server listens once the records are there */
	uint16_t listen_port;		/* 0: nowhere but at socket */
};

/* random.c: numbers by their place, not by how many were drawn before */
enum stream { STREAM_OPERATION = 1, STREAM_KEY, STREAM_FIELD, STREAM_PHASE, STREAM_VALUE };

uint64_t draw(uint64_t seed, uint64_t client, enum stream stream, uint64_t place);
uint64_t below(uint64_t random, uint64_t limit);

/* record.c: what a record is */
#define FIELDS 10
#define FIELD_NAME_SIZE 6
#define VALUE_SIZE 100
#define KEY_SIZE 24			/* "user", 19 digits, the end */

/* Who wrote a value: the loader is writer 0 with version 0, client K writes at its operation number. */
struct stamp {
	uint64_t writer;		/* 12 bits */
	uint64_t version;		/* 48 bits */
};

size_t record_key(char key[KEY_SIZE], uint64_t number);
int32_t record_score(const char *key);
void value_make(const struct options *options, uint64_t number, int field, struct stamp stamp, char value[VALUE_SIZE]);
bool value_is_right(const struct options *options, uint64_t number, int field, const char *value, size_t size);

/* redis.c: one connection; what goes wrong ends the program with the cause */
struct redis {
	int fd;
	size_t out_used;
	size_t in_start, in_end;
	char out[65536];
	char in[65536];
};

void redis_connect(struct redis *redis, const struct options *options);
void redis_command(struct redis *redis, int words);		/* begins a request of so many words */
void redis_word(struct redis *redis, const char *word, size_t size);
void redis_flush(struct redis *redis);

/* Parts of the next answer; the text is good until the next call. */
int64_t redis_number(struct redis *redis, const char *command);
void redis_ok(struct redis *redis, const char *command);
size_t redis_array(struct redis *redis, const char *command);
const char *redis_bulk(struct redis *redis, const char *command, size_t *size);

void ask_record(struct redis *redis, uint64_t number);		/* HGETALL */
void ask_update(struct redis *redis, const struct options *options, uint64_t number, int field, struct stamp stamp);
void ask_insert(struct redis *redis, const struct options *options, uint64_t number, struct stamp stamp);
void ask_index(struct redis *redis, uint64_t number);		/* ZADD */

/* histogram.c: latencies in nanoseconds with three significant digits, as HdrHistogram counts them */
#define HISTOGRAM_HALF 1024
#define HISTOGRAM_DOUBLINGS 32
#define HISTOGRAM_BUCKETS ((HISTOGRAM_DOUBLINGS + 1) * HISTOGRAM_HALF)

struct histogram {
	uint64_t total, max;
	unsigned int first, last;	/* filled buckets: the others' pages are never touched */
	uint64_t count[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t ns);
uint64_t histogram_percentile(const struct histogram *histogram, unsigned int percent);
bool histogram_text(const struct histogram *histogram, char *text, size_t size);

/* load.c, run.c: the two commands, driven as control.h says; they return what main() shall */
int load(const struct options *options);
int run(struct options *options);

/* main.c: options of run that stand behind "go" */
void read_order(struct options *options, char *words);

/* server.c: a server of our own, which lives as long as we do */
void server_start(const struct options *options);
void server_listen(struct redis *redis, const struct options *options);
void server_stop(void);

/* read.c: the answer to ask_record() */
enum depth { SHAPE, CONTENT };

bool read_record(struct redis *redis, const struct options *options, uint64_t number, enum depth depth);
uint64_t verify_records(struct redis *redis, const struct options *options, uint64_t first, uint64_t count);

#endif
