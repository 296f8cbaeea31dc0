// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random descriptors, alone, several at once, and in batches with fences, each judged by the oracle.
 *
 * A case is a function of (seed, number): it sets up all memory that it reads, so any case can be run again by
 * itself. The device works in an arena cut into equal slices; descriptors that may run at the same time have a slice
 * each. What lies outside of a descriptor's target must stay as it was: the slices in use are compared with the
 * oracle's copy after each case, the whole arena after every 16.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "oracle.h"

#define ARENA (2UL << 20)
#define MEMBERS 1024u
#define UNWRITTEN 0xee			/* fills records before the device does */
#define NOWHERE 0x7f0000000000ULL	/* no memory there; below the widest physical address */
#define PATIENCE 20.0

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct control {
	struct descriptor list[MEMBERS + 1];
	struct record records[MEMBERS + 1];	/* one more for the batch itself */
	uint8_t guard[4096];
};

struct fuzzer {
	struct dsa *dsa;
	struct dma arena_dma, control_dma;
	uint8_t *arena, *shadow;
	struct control *control;
	struct descriptor *direct;		/* where a descriptor stands that is not in a batch */
	struct oracle oracle;
	uint64_t random;
	uint64_t seed, number;			/* of this case */
	size_t slice;				/* bytes */
	unsigned int slices, used;		/* how many there are, how many have a descriptor */
	bool in_batch;
	bool calm;				/* nothing in this case may fail */
	long mismatches;
	uint64_t by_opcode[64], by_status[64], batches, sw_errors;
};

static const struct dsa_wq queues[] = {
	{ .size = 64, .priority = 10, .max_batch_shift = 10, .max_transfer_shift = 31, .block_on_fault = true },
	{ .size = 16, .priority = 1, .max_batch_shift = 10, .max_transfer_shift = 21 },
	{ .size = 16, .priority = 15, .max_batch_shift = 4, .max_transfer_shift = 12 },
	{ .size = 32, .priority = 5, .max_batch_shift = 10, .max_transfer_shift = 31 },
};

/* --- chance ------------------------------------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t chance(struct fuzzer *f)
{
	f->random += 0x9e3779b97f4a7c15;
	return mix(f->random);
}

static uint64_t below(struct fuzzer *f, uint64_t limit)
{
	return chance(f) % limit;
}

static bool one_in(struct fuzzer *f, unsigned int n)
{
	return !below(f, n);
}

/* --- what is told ------------------------------------------------------------------------------------ */

static void mismatch(struct fuzzer *f, const char *format, ...)
{
	va_list words;

	f->mismatches++;
	printf("mismatch --seed %" PRIu64 " --case %" PRIu64 ": ", f->seed, f->number);
	va_start(words, format);
	vprintf(format, words);
	va_end(words);
	putchar('\n');
}

static void print_descriptor(const struct descriptor *d)
{
	const uint8_t *raw = (const uint8_t *)d;

	fputs("  descriptor", stdout);
	for (int i = 0; i < 64; i++)
		printf("%s%02x", i % 8 ? "" : " ", raw[i]);
	putchar('\n');
}

/* --- one descriptor ---------------------------------------------------------------------------------- */

static uint64_t bus(struct fuzzer *f, const uint8_t *at)
{
	return dma_bus(&f->arena_dma, at);
}

static uint8_t *local(struct fuzzer *f, uint64_t address)
{
	return f->arena + (address - f->arena_dma.bus);
}

static void randomize(struct fuzzer *f, uint8_t *at, size_t size)
{
	uint64_t pattern = chance(f);
	unsigned int kind = below(f, 8);
	size_t i;

	for (i = 0; i + 8 <= size; i += 8) {
		uint64_t word = kind == 0 ? 0 : kind == 1 ? pattern : chance(f);

		memcpy(at + i, &word, 8);
	}
	for (; i < size; i++)
		at[i] = pattern;
}

/* The device's memory follows what was written into the shadow. */
static void settle(struct fuzzer *f, uint64_t address, size_t size)
{
	memcpy(local(f, address), f->shadow + (address - f->arena_dma.bus), size);
}

static uint8_t *shadow(struct fuzzer *f, uint64_t address)
{
	return f->shadow + (address - f->arena_dma.bus);
}

/* A place of so many bytes in the given quarter of the slice, aligned. */
static uint64_t place(struct fuzzer *f, uint8_t *slice, unsigned int quarter, size_t size, unsigned int align)
{
	size_t room = f->slice / 4 - size;
	size_t at = quarter * (f->slice / 4) + below(f, room + 1);

	return bus(f, slice + at) & ~(uint64_t)(align - 1);
}

static size_t some_size(struct fuzzer *f, unsigned int multiple)
{
	size_t most = f->slice / 4 - 64, size;

	switch (below(f, 16)) {
	case 0:
		size = 1 + below(f, 8);
		break;
	case 1:
		size = 4096;
		break;
	case 2:
		size = 1 + below(f, 32768);
		break;
	case 3:
		size = below(f, 5) * 1024 + below(f, 3) - 1;
		break;
	default:
		size = 1 + below(f, 1 << below(f, 13));
	}
	if (size > most || !size)
		size = 1 + below(f, most);
	return size < multiple ? multiple : size / multiple * multiple;
}

static void make_delta_record(struct fuzzer *f, struct descriptor *d, uint8_t *slice)
{
	uint32_t words = d->size / 8, entries = 1 + below(f, 24), offset = below(f, 4);
	uint8_t *at;

	if (entries * 10 > f->slice / 4 - 64)
		entries = (f->slice / 4 - 64) / 10;
	d->source = place(f, slice, 0, entries * 10, 8);
	at = shadow(f, d->source);
	d->delta_size = 0;
	for (uint32_t i = 0; i < entries; i++) {
		uint16_t index = offset;
		uint64_t value = chance(f);

		if (offset >= words && (f->calm || !one_in(f, 20)))
			break;
		if (!f->calm && one_in(f, 100))
			index = one_in(f, 2) ? below(f, offset + 1) : chance(f);
		memcpy(at + i * 10, &index, 2);
		memcpy(at + i * 10 + 2, &value, 8);
		d->delta_size += 10;
		offset += 1 + below(f, 1 + words / entries);
	}
	if (!d->delta_size) {
		memset(at, 0, 10);
		d->delta_size = 10;
	}
	settle(f, d->source, d->delta_size);
}

/* Fields and data that do not belong together, and fields of ones, which have a meaning of their own. */
static void damage(struct fuzzer *f, uint8_t *block, uint32_t data)
{
	uint8_t *dif = block + data;

	switch (below(f, 32)) {
	case 0:
		dif[below(f, 8)] ^= 1 << below(f, 8);
		break;
	case 1:
		memset(dif + 2, 0xff, 2);
		break;
	case 2:
		memset(dif + 2, 0xff, 6);
		break;
	case 3:
		memset(dif, 0xff, 8);
		break;
	case 4:
		block[below(f, data)] ^= 1 << below(f, 8);
		break;
	}
}

/* Source blocks whose fields are right, nearly always. */
static void protect(struct fuzzer *f, const struct descriptor *d, uint8_t *source)
{
	uint32_t data = oracle_dif_data[d->dif.flags & 3], ref = d->dif.source_ref;
	uint16_t app = d->dif.source_app;

	for (uint8_t *block = source; block < source + d->size; block += data + 8) {
		uint16_t guard = oracle_guard(block, data, d->dif.flags);
		uint16_t tag = (app & ~d->dif.source_app_mask) | (chance(f) & d->dif.source_app_mask);
		uint8_t *dif = block + data;

		dif[0] = guard >> 8;
		dif[1] = guard;
		dif[2] = tag >> 8;
		dif[3] = tag;
		for (int i = 0; i < 4; i++)
			dif[4 + i] = ref >> (24 - 8 * i);
		if (!f->calm)
			damage(f, block, data);
		ref += !(d->dif.source_flags & DIF_SRC_REF_FIXED);
		app += !!(d->dif.source_flags & DIF_SRC_APP_INCREMENT);
	}
}

static void make_dif(struct fuzzer *f, struct descriptor *d, uint8_t *slice)
{
	uint8_t opcode = opcode_of(d), code = below(f, f->slice / 4 > 8 * 4112 || (f->slice / 4 > 4200 && one_in(f, 2))
						   ? 4 : 2);
	uint32_t data = oracle_dif_data[code], in = opcode == OP_DIF_INSERT ? data : data + 8;
	uint32_t blocks = 1 + below(f, 6), most = (f->slice / 4 - 64) / (data + 8);

	if (blocks > most)
		blocks = most;
	d->size = blocks * in;
	d->dif.flags = code | (chance(f) & (DIF_INVERT_SEED | DIF_INVERT_RESULT));
	if (opcode != OP_DIF_INSERT) {
		d->dif.source_flags = one_in(f, 2) ? chance(f) : chance(f) & (DIF_SRC_REF_FIXED | DIF_SRC_APP_INCREMENT);
		/* what an update writes for a block that these let pass is not told */
		if (opcode == OP_DIF_UPDATE || f->calm)
			d->dif.source_flags &= ~(DIF_ALL_F | DIF_ALL_F_ERROR | DIF_APP_F | DIF_APP_REF_F);
		d->dif.source_ref = one_in(f, 8) ? 0xffffffff : chance(f);
		d->dif.source_app = one_in(f, 8) ? 0xffff : chance(f);
		/* whether a tag that counts carries into masked bits is not told */
		if (!(d->dif.source_flags & DIF_SRC_APP_INCREMENT))
			d->dif.source_app_mask = one_in(f, 2) ? 0 : one_in(f, 4) ? 0xffff : chance(f);
	}
	if (opcode == OP_DIF_INSERT || opcode == OP_DIF_UPDATE) {
		d->dif.target_flags = chance(f) & (opcode == OP_DIF_UPDATE ? 0xf8 : DIF_DST_REF_FIXED | DIF_DST_APP_INCREMENT);
		d->dif.target_ref = one_in(f, 8) ? 0xffffffff : chance(f);
		d->dif.target_app = chance(f);
		if (!(d->dif.target_flags & DIF_DST_APP_INCREMENT))
			d->dif.target_app_mask = one_in(f, 2) ? 0 : chance(f);
	}
	d->source = place(f, slice, 0, d->size, 1);
	if (opcode != OP_DIF_CHECK)
		d->target = place(f, slice, 1, blocks * (data + 8), 1);
	randomize(f, shadow(f, d->source), d->size);
	if (opcode != OP_DIF_INSERT)
		protect(f, d, shadow(f, d->source));
	settle(f, d->source, d->size);
}

static void make_pair(struct fuzzer *f, struct descriptor *d, uint8_t *slice, unsigned int align)
{
	d->source = place(f, slice, 0, d->size, align);
	d->target = place(f, slice, 1, d->size, align);
	randomize(f, shadow(f, d->source), d->size);
	settle(f, d->source, d->size);
}

static void make_similar(struct fuzzer *f, struct descriptor *d)
{
	unsigned int flips = one_in(f, 3) ? 0 : one_in(f, 2) ? 1 : 1 + below(f, 64);

	memcpy(shadow(f, d->target), shadow(f, d->source), d->size);
	while (flips--)
		shadow(f, d->target)[below(f, d->size)] ^= 1 + below(f, 255);
	settle(f, d->target, d->size);
}

/* Fill in what is particular to the operation; all of it legal. */
static void make_operands(struct fuzzer *f, struct descriptor *d, uint8_t *slice, uint32_t *flags)
{
	uint64_t pattern = one_in(f, 3) ? 0 : chance(f);

	switch (opcode_of(d)) {
	case OP_MEMMOVE:
		d->size = some_size(f, 1);
		make_pair(f, d, slice, one_in(f, 2) ? 1 : 64);
		if (one_in(f, 3)) {	/* overlapping, both ways */
			d->target = d->source + below(f, d->size);
			if (one_in(f, 2)) {
				uint64_t other = d->source;

				d->source = d->target;
				d->target = other;
			}
			randomize(f, shadow(f, d->source), d->size);
			settle(f, d->source, d->size);
		}
		break;
	case OP_FILL:
		d->size = some_size(f, 1);
		d->source = chance(f);
		d->target = place(f, slice, below(f, 4), d->size, 1);
		break;
	case OP_COMPARE:
		d->size = some_size(f, 1);
		make_pair(f, d, slice, one_in(f, 2) ? 1 : 64);
		make_similar(f, d);
		break;
	case OP_COMPVAL:
		d->size = some_size(f, 1);
		d->source = place(f, slice, 0, d->size, 1);
		d->target = pattern;
		for (uint32_t i = 0; i < d->size; i++)
			shadow(f, d->source)[i] = pattern >> i % 8 * 8;
		if (!one_in(f, 3))
			shadow(f, d->source)[below(f, d->size)] ^= 1 + below(f, 255);
		settle(f, d->source, d->size);
		break;
	case OP_CREATE_DELTA:
		d->size = some_size(f, 8);
		make_pair(f, d, slice, 8);
		make_similar(f, d);
		d->create_delta.max_size = 80 + 10 * below(f, 40);
		if (d->create_delta.max_size > f->slice / 4 - 64)
			d->create_delta.max_size = 80;
		d->create_delta.address = place(f, slice, 2, d->create_delta.max_size, 8);
		if (*flags & FLAG_CHECK_RESULT)
			d->create_delta.expected_mask = below(f, 8);
		break;
	case OP_APPLY_DELTA:
		d->size = some_size(f, 8);
		d->target = place(f, slice, 1, d->size, 8);
		make_delta_record(f, d, slice);
		break;
	case OP_DUALCAST:
		d->size = some_size(f, 1);
		if (f->slice / 4 < 8192)
			d->size = 1 + below(f, 64);
		make_pair(f, d, slice, 1);
		if (f->slice / 4 >= 8192 && d->size > f->slice / 4 - 4096)
			d->size = f->slice / 4 - 4096;
		d->target2 = 0;
		if (f->slice / 4 >= 8192) {
			/* the same place within a page, a quarter or more away */
			d->target = place(f, slice, 1, d->size, 1);
			d->target2 = d->target + f->slice / 4 + below(f, f->slice / 4 / 4096) * 4096;
			if (d->target2 + d->size > bus(f, slice + f->slice))
				d->target2 = d->target + f->slice / 4;
		}
		break;
	case OP_CRC:
	case OP_COPY_CRC:
		d->size = some_size(f, 1);
		make_pair(f, d, slice, 1);
		if (opcode_of(d) == OP_CRC)
			d->target = 0;
		if (*flags & FLAG_CRC_SEED_IN_MEMORY) {
			d->crc.seed_address = place(f, slice, 3, 8, 8);
			randomize(f, shadow(f, d->crc.seed_address), 8);
			settle(f, d->crc.seed_address, 8);
		} else {
			d->crc.seed = one_in(f, 2) ? 0 : chance(f);
		}
		break;
	case OP_DIF_CHECK:
	case OP_DIF_INSERT:
	case OP_DIF_STRIP:
	case OP_DIF_UPDATE:
		make_dif(f, d, slice);
		break;
	case OP_CACHE_FLUSH:
		d->size = some_size(f, 1);
		d->target = place(f, slice, 0, d->size, 1);
		break;
	}
}

/* One thing, or now and then several, that the device must refuse or survive. */
static void spoil(struct fuzzer *f, struct descriptor *d, uint32_t *flags)
{
	uint8_t *raw = (uint8_t *)d;
	uint32_t free = 0xffffff;	/* a seed would come from anywhere */

	if (opcode_of(d) == OP_CRC || opcode_of(d) == OP_COPY_CRC)
		free &= ~FLAG_CRC_SEED_IN_MEMORY;
	switch (below(f, 12)) {
	case 0:
		*flags ^= 1u << below(f, 24) & free;
		break;
	case 1:
		*flags ^= chance(f) & chance(f) & free;
		break;
	case 2:
		raw[38 + below(f, 2)] |= 1 << below(f, 8);
		break;
	case 3:
	case 4: {
		unsigned int at = 40 + below(f, 24);

		/* not where the specification leaves open what happens: expected results, masks of flags */
		if (opcode_of(d) == OP_COMPARE || opcode_of(d) == OP_COMPVAL || opcode_of(d) == OP_NOOP ||
		    opcode_of(d) == OP_MEMMOVE || opcode_of(d) == OP_FILL || opcode_of(d) == OP_CACHE_FLUSH)
			raw[at < 41 ? 41 : at] |= 1 << below(f, 8);
		break;
	}
	case 5:
		d->size = one_in(f, 2) ? 0 : 0x80000001u + below(f, 1000);
		break;
	case 6:
		if (opcode_of(d) >= OP_DIF_CHECK && opcode_of(d) <= OP_DIF_UPDATE)
			d->size += 1 + below(f, 500);
		else if (opcode_of(d) == OP_CREATE_DELTA)
			d->create_delta.max_size += 1 + below(f, 9);
		else if (opcode_of(d) == OP_APPLY_DELTA)
			d->delta_size += 1 + below(f, 9);
		else if (opcode_of(d) == OP_DUALCAST)
			d->target2 ^= 1 << below(f, 6);
		break;
	case 7:
		if (opcode_of(d) == OP_CREATE_DELTA || opcode_of(d) == OP_APPLY_DELTA)
			d->target += 1 + below(f, 7);
		else if (opcode_of(d) == OP_DUALCAST || opcode_of(d) == OP_COPY_CRC || opcode_of(d) == OP_DIF_INSERT)
			d->target = d->source;
		break;
	case 8:
		if (opcode_of(d) != OP_FILL && opcode_of(d) != OP_NOOP && opcode_of(d) != OP_CACHE_FLUSH)
			d->source = NOWHERE + below(f, 1 << 20) * 8;
		break;
	case 9:
		if (opcode_of(d) != OP_COMPVAL && opcode_of(d) != OP_NOOP && opcode_of(d) != OP_CRC &&
		    opcode_of(d) != OP_DIF_CHECK && opcode_of(d) != OP_CACHE_FLUSH)
			d->target = NOWHERE + (d->target & 0xfff) + below(f, 1 << 10) * 4096;
		break;
	case 10:
		*flags |= FLAG_INTERRUPT;
		d->int_handle = one_in(f, 2) ? 9 + below(f, 100) : chance(f) | 16;
		break;
	case 11: {
		/* never another operation that runs: its operands would be anywhere */
		uint8_t opcode = one_in(f, 4) ? OP_DRAIN : f->in_batch && one_in(f, 3) ? OP_BATCH : chance(f);

		if (opcode == OP_DRAIN || (opcode == OP_BATCH && f->in_batch) || opcode > 63 ||
		    !(f->oracle.opcap >> opcode & 1))
			d->flags_opcode = (uint32_t)opcode << 24;
		break;
	}
	}
}

static void make(struct fuzzer *f, struct descriptor *d, struct record *record, uint8_t *slice)
{
	static const uint8_t opcodes[] = {
		OP_NOOP, OP_MEMMOVE, OP_MEMMOVE, OP_FILL, OP_COMPARE, OP_COMPARE, OP_COMPVAL, OP_CREATE_DELTA,
		OP_APPLY_DELTA, OP_DUALCAST, OP_CRC, OP_CRC, OP_COPY_CRC, OP_DIF_CHECK, OP_DIF_INSERT, OP_DIF_STRIP,
		OP_DIF_UPDATE, OP_CACHE_FLUSH,
	};
	uint32_t flags = FLAG_CR_VALID | FLAG_CR_REQUEST;
	uint8_t opcode = opcodes[below(f, LENGTH(opcodes))];

	memset(d, 0, sizeof(*d));
	if (f->slice / 4 < 1200 && opcode >= OP_DIF_CHECK && opcode <= OP_DIF_UPDATE)
		opcode = OP_COMPARE;	/* no room for a block */
	if (f->slice / 4 < 8192 && opcode == OP_DUALCAST)
		opcode = OP_MEMMOVE;	/* targets are pages apart */
	if (!f->in_batch && one_in(f, 30))
		opcode = OP_DRAIN;
	d->flags_opcode = (uint32_t)opcode << 24;
	d->pasid_priv = chance(f) & 0x800fffff;
	if (opcode == OP_CRC || opcode == OP_COPY_CRC)
		flags |= chance(f) & (FLAG_CRC_SEED_IN_MEMORY | FLAG_CRC_PLAIN_REGISTER | FLAG_CRC_PLAIN_DATA);
	if (!f->calm && (opcode == OP_COMPARE || opcode == OP_COMPVAL || opcode == OP_CREATE_DELTA) && one_in(f, 4)) {
		flags |= FLAG_CHECK_RESULT;
		if (opcode != OP_CREATE_DELTA)
			d->expected = below(f, 2);
	}
	if (one_in(f, 4) && (opcode == OP_MEMMOVE || opcode == OP_FILL || opcode == OP_COPY_CRC))
		flags |= FLAG_CACHE_CONTROL;
	if (one_in(f, 6)) {
		flags |= FLAG_INTERRUPT;
		d->int_handle = below(f, 9);
	}
	make_operands(f, d, slice, &flags);
	/* without a record: only what is right, or wrong in one certain way */
	if (one_in(f, 12) && opcode != OP_COMPARE && opcode != OP_COMPVAL && opcode != OP_CRC &&
	    opcode != OP_COPY_CRC && opcode != OP_CREATE_DELTA && opcode != OP_APPLY_DELTA && opcode < OP_DIF_CHECK) {
		flags &= ~FLAG_CR_REQUEST;
		if (one_in(f, 3)) {
			flags &= ~FLAG_CR_VALID;
			if (!f->calm && one_in(f, 3))
				d->reserved38 = 1 << below(f, 16);
		}
	} else if (!f->calm && one_in(f, 5)) {
		spoil(f, d, &flags);
		if (one_in(f, 8))
			spoil(f, d, &flags);
		flags |= FLAG_CR_VALID;
		if (opcode != OP_COMPARE && opcode != OP_CRC)
			flags |= FLAG_CR_REQUEST;
	}
	if (!(flags & FLAG_CR_VALID))
		flags &= ~FLAG_CR_REQUEST;
	d->flags_opcode |= flags & 0xffffff;
	if (flags & FLAG_CR_VALID) {
		d->record = dma_bus(&f->control_dma, record);
		if (!f->calm && one_in(f, 300))
			d->record += 1 + below(f, 31);
	}
}

/* --- running them ------------------------------------------------------------------------------------ */

struct sw_error {
	bool valid, overflow, in_batch;
	uint8_t code, wq, operation;
};

static struct sw_error take_sw_error(struct fuzzer *f)
{
	uint64_t word = dsa_read64(f->dsa, REG_SWERROR);
	struct sw_error e = {
		.valid = word & 1, .overflow = word >> 1 & 1, .in_batch = word >> 4 & 1, .code = word >> 8,
		.wq = word >> 16, .operation = word >> 32,
	};

	if (e.valid) {
		dsa_write64(f->dsa, REG_SWERROR, 3);
		f->sw_errors++;
	}
	return e;
}

static void clear(struct record *record)
{
	memset(record, UNWRITTEN, sizeof(*record));
	record->status = 0;
}

static bool untouched(const struct record *record)
{
	const uint8_t *raw = (const uint8_t *)record;

	for (unsigned int i = 1; i < sizeof(*record); i++)
		if (raw[i] != UNWRITTEN)
			return false;
	return !raw[0];
}

/* Whether the completion of a descriptor shows in its record, so that it can be waited for. */
static bool tells(const struct descriptor *d)
{
	return flags_of(d) & FLAG_CR_VALID && flags_of(d) & FLAG_CR_REQUEST && !(d->record % 32);
}

static void compare_memory(struct fuzzer *f, size_t from, size_t size, const char *what)
{
	size_t first, last;

	if (!memcmp(f->arena + from, f->shadow + from, size))
		return;
	for (first = from; f->arena[first] == f->shadow[first]; first++)
		;
	for (last = from + size - 1; f->arena[last] == f->shadow[last]; last--)
		;
	mismatch(f, "memory of %s: bytes 0x%zx to 0x%zx of the arena (bus address 0x%" PRIx64
		 ") differ, the first is 0x%02x instead of 0x%02x", what, first, last,
		 f->arena_dma.bus + first, f->arena[first], f->shadow[first]);
	memcpy(f->shadow + from, f->arena + from, size);
}

static void use_queue(struct fuzzer *f, unsigned int wq)
{
	f->oracle.max_transfer = 1ULL << queues[wq].max_transfer_shift;
	f->oracle.max_batch = 1ULL << queues[wq].max_batch_shift;
	f->oracle.block_on_fault = queues[wq].block_on_fault;
}

static bool judge(struct fuzzer *f, const struct descriptor *d, struct record *record, struct judgement *j)
{
	bool record_valid = flags_of(d) & FLAG_CR_VALID && !(d->record % 32);

	oracle_judge(&f->oracle, d, f->in_batch, record_valid ? record : NULL, j);
	f->by_opcode[opcode_of(d) & 63]++;
	f->by_status[j->status & 63]++;
	if (!j->why[0] && !j->record_expected && !untouched(record))
		snprintf(j->why, sizeof(j->why), "a record was written (status 0x%02x), none is expected", record->status);
	if (j->why[0]) {
		mismatch(f, "opcode 0x%02x flags 0x%06x size %u%s: %s", opcode_of(d), flags_of(d), d->size,
			 f->in_batch ? " in a batch" : "", j->why);
		print_descriptor(d);
	}
	return !j->why[0];
}

/* Several descriptors at once, each in a slice of its own; 1 is several, too. */
static bool run_singles(struct fuzzer *f, unsigned int count)
{
	unsigned int wq_of[16];
	uint64_t expected_errors = 0, must = 0;
	struct sw_error sw;
	bool drain = false;

	f->in_batch = false;
	for (unsigned int i = 0; i < count; i++) {
		wq_of[i] = below(f, LENGTH(queues));
		use_queue(f, wq_of[i]);
		clear(&f->control->records[i]);
		make(f, &f->direct[i], &f->control->records[i], f->arena + i * f->slice);
		drain |= !tells(&f->direct[i]);
	}
	for (unsigned int i = 0; i < count; i++)
		dsa_submit(f->dsa, wq_of[i], &f->direct[i]);
	for (unsigned int i = 0; i < count; i++)
		if (tells(&f->direct[i]) && !dsa_wait(&f->control->records[i], PATIENCE)) {
			mismatch(f, "no completion of opcode 0x%02x within %g s", opcode_of(&f->direct[i]), PATIENCE);
			print_descriptor(&f->direct[i]);
			return false;
		}
	if (drain && dsa_command(f->dsa, CMD_DRAIN_ALL, 0))
		mismatch(f, "drain-all fails");
	for (unsigned int i = 0; i < count; i++) {
		struct judgement j;

		use_queue(f, wq_of[i]);
		judge(f, &f->direct[i], &f->control->records[i], &j);
		if (!tells(&f->direct[i]) && !j.success && !j.record_expected) {
			expected_errors |= j.errors;
			must++;
		}
	}
	sw = take_sw_error(f);
	if (sw.valid && !(expected_errors >> sw.code & 1))
		mismatch(f, "SWERROR tells of 0x%02x (queue %u, opcode 0x%02x)", sw.code, sw.wq, sw.operation);
	else if (must && !sw.valid)
		mismatch(f, "SWERROR does not tell of %" PRIu64 " errors without a record", must);
	else if (must > 1 && !sw.overflow)
		mismatch(f, "SWERROR does not tell of an overflow after %" PRIu64 " errors", must);
	else if (sw.valid && sw.in_batch)
		mismatch(f, "SWERROR tells of a batch where there is none");
	return true;
}

static void judge_members(struct fuzzer *f, unsigned int count)
{
	struct record *own = &f->control->records[MEMBERS];
	uint64_t expected_errors = 0, must = 0;
	unsigned int completed = 0;
	bool failed = false, abandoned = false;
	struct sw_error sw;

	f->in_batch = true;
	for (unsigned int i = 0; i < count; i++) {
		struct descriptor *d = &f->control->list[i];
		struct judgement j;

		if (flags_of(d) & FLAG_FENCE && failed)
			abandoned = true;
		if (abandoned) {
			if (!untouched(&f->control->records[i]))
				mismatch(f, "member %u was abandoned behind a fence, and wrote its record", i);
			continue;
		}
		completed++;
		judge(f, d, &f->control->records[i], &j);
		if (!j.success)
			failed = true;
		if (!tells(d) && !j.success && !j.record_expected) {
			expected_errors |= j.errors;
			must++;
		}
	}
	if (own->status != (failed ? ST_BATCH_MEMBER : ST_SUCCESS))
		mismatch(f, "status 0x%02x of a batch of %u, expected 0x%02x", own->status, count,
			 failed ? ST_BATCH_MEMBER : ST_SUCCESS);
	else if (own->completed != completed)
		mismatch(f, "%u of %u descriptors completed, expected %u", own->completed, count, completed);
	sw = take_sw_error(f);
	if (sw.valid && !(expected_errors >> sw.code & 1))
		mismatch(f, "SWERROR tells of 0x%02x (queue %u, opcode 0x%02x)", sw.code, sw.wq, sw.operation);
	else if (must && !sw.valid)
		mismatch(f, "SWERROR does not tell of %" PRIu64 " members' errors without a record", must);
	else if (sw.valid && !sw.in_batch)
		mismatch(f, "SWERROR does not tell that the error was in a batch");
}

/* Behind a fence: read what an earlier member wrote. */
static bool make_follower(struct fuzzer *f, unsigned int number)
{
	struct descriptor *d = &f->control->list[number], *earlier = &f->control->list[below(f, number)];
	uint8_t opcode = opcode_of(earlier);
	uint32_t size = earlier->size;

	if ((opcode != OP_MEMMOVE && opcode != OP_FILL && opcode != OP_COPY_CRC && opcode != OP_DIF_STRIP &&
	     opcode != OP_DIF_UPDATE) || !size || size > f->slice / 4 || earlier->target < f->arena_dma.bus ||
	    earlier->target - f->arena_dma.bus > ARENA - size)
		return false;
	memset(d, 0, sizeof(*d));
	d->record = dma_bus(&f->control_dma, &f->control->records[number]);
	d->flags_opcode = FLAG_FENCE | FLAG_CR_VALID | FLAG_CR_REQUEST;
	d->source = earlier->target;
	d->size = size;
	if (one_in(f, 2)) {
		d->flags_opcode |= (uint32_t)OP_CRC << 24;
	} else {
		d->flags_opcode |= (uint32_t)OP_MEMMOVE << 24;
		d->target = place(f, f->arena + number * f->slice, 1, size, 1);
	}
	return true;
}

static void make_members(struct fuzzer *f, unsigned int count)
{
	bool fences = one_in(f, 2);

	f->in_batch = true;
	for (unsigned int i = 0; i < count; i++) {
		struct descriptor *d = &f->control->list[i];

		clear(&f->control->records[i]);
		if (fences && i && one_in(f, 8) && make_follower(f, i))
			continue;
		make(f, d, &f->control->records[i], f->arena + i * f->slice);
		if (fences && one_in(f, 16))
			d->flags_opcode |= FLAG_FENCE;
	}
}

static bool run_batch(struct fuzzer *f)
{
	unsigned int wq = below(f, LENGTH(queues)), count;
	struct record *own = &f->control->records[MEMBERS];
	struct descriptor batch = { 0 };
	uint64_t errors;

	use_queue(f, wq);
	switch (below(f, 16)) {
	case 0:
		count = 2 + below(f, MEMBERS - 1);
		break;
	case 1:
		count = MEMBERS;
		break;
	case 2:
		count = 1 + below(f, 4);
		break;
	default:
		count = 2 + below(f, 62);
	}
	if (count > f->oracle.max_batch && !one_in(f, 8))
		count = f->oracle.max_batch;
	f->slices = one_in(f, 4) ? 16 : 128;
	while (f->slices < count)
		f->slices *= 2;
	f->slice = ARENA / f->slices;
	f->used = count;
	make_members(f, count);
	clear(own);
	batch.pasid_priv = chance(f) & 0x800fffff;
	batch.flags_opcode = (uint32_t)OP_BATCH << 24 | FLAG_CR_VALID | FLAG_CR_REQUEST;
	batch.source = dma_bus(&f->control_dma, f->control->list);
	batch.size = count;
	batch.record = dma_bus(&f->control_dma, own);
	if (one_in(f, 24)) {
		switch (below(f, 6)) {
		case 0:
			batch.source += 1 + below(f, 63);
			break;
		case 1:
			batch.size = below(f, 2);
			break;
		case 2:
			batch.size = f->oracle.max_batch + 1 + below(f, 1000);
			break;
		case 3:
			((uint8_t *)&batch)[24 + below(f, 8)] |= 1 << below(f, 8);
			break;
		case 4:
			((uint8_t *)&batch)[38 + below(f, 26)] |= 1 << below(f, 8);
			break;
		case 5:
			batch.flags_opcode |= FLAG_FENCE;
			break;
		}
	}
	f->direct[0] = batch;
	dsa_submit(f->dsa, wq, &f->direct[0]);
	if (!dsa_wait(own, PATIENCE)) {
		mismatch(f, "no completion of a batch of %u within %g s", batch.size, PATIENCE);
		print_descriptor(&batch);
		return false;
	}
	f->batches++;
	errors = oracle_batch(&f->oracle, &batch);
	if (!errors) {
		judge_members(f, count);
		return true;
	}
	if (!(errors >> (own->status & 63) & 1))
		mismatch(f, "status 0x%02x of a batch of %u that is malformed", own->status, batch.size);
	for (unsigned int i = 0; i < count; i++)
		if (!untouched(&f->control->records[i])) {
			mismatch(f, "member %u of a malformed batch ran", i);
			break;
		}
	return true;
}

/* --- all of it --------------------------------------------------------------------------------------- */

static bool prepare(struct fuzzer *f)
{
	if (!dma_allocate(&f->arena_dma, ARENA) || !dma_allocate(&f->control_dma, ARENA))
		return false;
	f->arena = f->arena_dma.memory;
	f->control = (struct control *)f->control_dma.memory;
	f->direct = (struct descriptor *)(f->control_dma.memory + (1 << 20));
	f->shadow = aligned_alloc(4096, ARENA);
	if (!f->shadow)
		return false;
	for (size_t i = 0; i < ARENA; i += 8) {
		uint64_t word = mix(f->seed + i);

		memcpy(f->shadow + i, &word, 8);
	}
	memcpy(f->arena, f->shadow, ARENA);
	memset(f->control->guard, UNWRITTEN, sizeof(f->control->guard));
	f->oracle.gencap = f->dsa->gencap;
	f->oracle.opcap = dsa_read64(f->dsa, REG_OPCAP);
	f->oracle.int_handles = f->dsa->wqs + 1;
	f->oracle.bus = f->arena_dma.bus;
	f->oracle.size = ARENA;
	f->oracle.shadow = f->shadow;
	f->oracle.memory = f->arena;
	return dsa_configure(f->dsa, queues, LENGTH(queues));
}

static void report(const struct fuzzer *f, uint64_t cases, uint64_t descriptors, double seconds)
{
	printf("fuzz: seed %" PRIu64 ", %" PRIu64 " cases, %" PRIu64 " descriptors, %" PRIu64 " batches, %" PRIu64
	       " software errors, %ld mismatches, %.1f s\n", f->seed, cases, descriptors, f->batches, f->sw_errors,
	       f->mismatches, seconds);
	fputs("opcodes:", stdout);
	for (int i = 0; i < 64; i++)
		if (f->by_opcode[i])
			printf(" %02x=%" PRIu64, i, f->by_opcode[i]);
	fputs("\nstatuses:", stdout);
	for (int i = 0; i < 64; i++)
		if (f->by_status[i])
			printf(" %02x=%" PRIu64, i, f->by_status[i]);
	putchar('\n');
}

static uint64_t done(const struct fuzzer *f)
{
	uint64_t sum = f->batches;

	for (int i = 0; i < 64; i++)
		sum += f->by_opcode[i];
	return sum;
}

static bool guard_holds(const struct fuzzer *f)
{
	for (size_t i = 0; i < sizeof(f->control->guard); i++)
		if (f->control->guard[i] != UNWRITTEN)
			return false;
	return true;
}

long fuzz(struct dsa *dsa, const struct fuzz_options *options)
{
	struct fuzzer f = { .dsa = dsa, .seed = options->seed };
	struct timespec began, ended;
	uint64_t cases = 0, told = 0;
	bool alive = prepare(&f);

	if (!alive)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &began);
	while (alive && done(&f) < options->count && (!options->cases || cases < options->cases) && f.mismatches < 50) {
		f.number = options->first + cases++;
		f.random = mix(options->seed * 0x9e3779b97f4a7c15 + f.number);
		f.calm = one_in(&f, 3);
		if (!one_in(&f, 4)) {
			f.slices = 32;
			f.slice = ARENA / f.slices;
			f.used = one_in(&f, 2) ? 1 : 1 + below(&f, 16);
			alive = run_singles(&f, f.used);
		} else {
			alive = run_batch(&f);
		}
		compare_memory(&f, 0, f.used * f.slice, "the slices");
		if (!(cases % 16))
			compare_memory(&f, 0, ARENA, "the arena, in one of the last 16 cases");
		if (!guard_holds(&f)) {
			mismatch(&f, "something was written behind the records");
			memset(f.control->guard, UNWRITTEN, sizeof(f.control->guard));
		}
		if (options->verbose && done(&f) - told >= 100000) {
			told = done(&f);
			printf("fuzz: %" PRIu64 " descriptors, case %" PRIu64 "\n", told, f.number);
			fflush(stdout);
		}
	}
	compare_memory(&f, 0, ARENA, "the arena, in one of the last 16 cases");
	clock_gettime(CLOCK_MONOTONIC, &ended);
	report(&f, cases, done(&f), ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) * 1e-9);
	dma_free(&f.arena_dma);
	dma_free(&f.control_dma);
	free(f.shadow);
	return f.mismatches;
}
