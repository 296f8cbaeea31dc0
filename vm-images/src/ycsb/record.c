// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a record is: its key as YCSB makes it, ten fields of 100 bytes.
 *
 * A value says in its first ten characters who wrote it and when; the other ninety follow from that, the key's number,
 * the field and the seed. So any reader can tell whether a value is one that was written, whoever wrote it last.
 */
#include <inttypes.h>
#include <string.h>

#include "mix64.h"
#include "ycsb.h"

#define CHARACTERS 10			/* of six bits, out of one number */
#define WRITER_BITS 12
#define VERSION_BITS 48

/* FNV-1a over the eight bytes of the number, lowest first; YCSB prints the result as a signed number, without sign. */
size_t record_key(char key[KEY_SIZE], uint64_t number)
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (int byte = 0; byte < 8; byte++) {
		hash ^= number >> 8 * byte & 0xff;
		hash *= 0x100000001b3ULL;
	}
	if (hash >> 63)
		hash = -hash;
	return (size_t)snprintf(key, KEY_SIZE, "user%" PRIu64, hash);
}

/* The score under which YCSB's binding enters a key into its index: Java's hash code of the string. */
int32_t record_score(const char *key)
{
	uint32_t hash = 0;

	while (*key)
		hash = 31 * hash + (unsigned char)*key++;
	return (int32_t)hash;
}

/* Six bits a character, from ' ' to '_': printable, as YCSB's are. */
static void spell(uint64_t bits, char text[CHARACTERS])
{
	for (int i = 0; i < CHARACTERS; i++)
		text[i] = (char)(' ' + (bits >> 6 * i & 63));
}

void value_make(const struct options *options, uint64_t number, int field, struct stamp stamp, char value[VALUE_SIZE])
{
	uint64_t seed = options->keyed ? 0 : options->seed, packed, base;

	if (options->keyed)
		stamp = (struct stamp){ 0, 0 };
	packed = stamp.version << WRITER_BITS | stamp.writer;
	base = mix64(draw(seed, 0, STREAM_VALUE, number * FIELDS + (uint64_t)field) ^ mix64(packed));
	spell(packed, value);
	for (int block = 1; block < VALUE_SIZE / CHARACTERS; block++)
		spell(draw(base, 0, STREAM_VALUE, (uint64_t)block), value + CHARACTERS * block);
}

bool value_is_right(const struct options *options, uint64_t number, int field, const char *value, size_t size)
{
	char wanted[VALUE_SIZE];
	uint64_t packed = 0;

	if (size != VALUE_SIZE)
		return false;
	for (int i = 0; i < CHARACTERS; i++)
		packed |= (uint64_t)((unsigned char)(value[i] - ' ') & 63) << 6 * i;
	value_make(options, number, field,
		   (struct stamp){ packed & ((1 << WRITER_BITS) - 1), packed >> WRITER_BITS }, wanted);
	return !memcmp(value, wanted, VALUE_SIZE);
}

_Static_assert(WRITER_BITS + VERSION_BITS == 6 * CHARACTERS, "a stamp fills its characters");
_Static_assert(VALUE_SIZE % CHARACTERS == 0, "a value is whole blocks");
