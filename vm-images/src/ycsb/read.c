// SPDX-License-Identifier: GPL-2.0-or-later
/* Reading records: their shape while time is taken, every byte when they are verified. */
#include <string.h>

#include "ycsb.h"

/* Ten fields of the right names and sizes; with CONTENT also values that were written to this very place. */
bool read_record(struct redis *redis, const struct options *options, uint64_t number, enum depth depth)
{
	size_t parts = redis_array(redis, "HGETALL");
	unsigned int seen = 0;
	bool right = parts == 2 * FIELDS;

	for (size_t part = 0; part + 1 < parts; part += 2) {
		size_t size;
		const char *text = redis_bulk(redis, "HGETALL", &size);
		int field = -1;

		if (size == FIELD_NAME_SIZE && !memcmp(text, "field", FIELD_NAME_SIZE - 1))
			field = text[FIELD_NAME_SIZE - 1] - '0';
		text = redis_bulk(redis, "HGETALL", &size);
		if (field < 0 || field >= FIELDS || size != VALUE_SIZE) {
			right = false;
			continue;
		}
		seen |= 1U << field;
		if (depth == CONTENT && right)
			right = value_is_right(options, number, field, text, size);
	}
	return right && seen == (1U << FIELDS) - 1;
}

uint64_t verify_records(struct redis *redis, const struct options *options, uint64_t first, uint64_t count)
{
	uint64_t asked = 0, bad = 0;

	for (uint64_t answered = 0; answered < count; answered++) {
		for (; asked < count && asked < answered + options->pipeline; asked++)
			ask_record(redis, first + asked);
		if (!read_record(redis, options, first + answered, CONTENT))
			bad++;
	}
	return bad;
}
