// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "oracle.h"

#define STATUS(code) (1ULL << (code))
#define DELTA_MAX (512u << 10)
#define DELTA_ENTRY 10u

const uint32_t oracle_dif_data[4] = { 512, 520, 4096, 4104 };

/* --- arithmetic -------------------------------------------------------------------------------------- */

static uint32_t reverse32(uint32_t value)
{
	uint32_t out = 0;

	for (int bit = 0; bit < 32; bit++)
		out |= (value >> bit & 1) << (31 - bit);
	return out;
}

/* CRC-32C as a register that shifts left; reflection is then the order of bits going in and coming out. */
uint32_t oracle_crc(uint32_t seed, const uint8_t *data, size_t size, uint32_t flags)
{
	static uint32_t table[256];
	static uint8_t reverse8[256];
	uint32_t crc = flags & FLAG_CRC_PLAIN_REGISTER ? seed : reverse32(~seed);

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t r = i << 24;

			for (int bit = 0; bit < 8; bit++)
				r = r << 1 ^ (r >> 31 ? 0x1edc6f41 : 0);
			table[i] = r;
			reverse8[i] = reverse32(i) >> 24;
		}
	if (flags & FLAG_CRC_PLAIN_DATA)
		for (size_t i = 0; i < size; i++)
			crc = crc << 8 ^ table[crc >> 24 ^ data[i]];
	else
		for (size_t i = 0; i < size; i++)
			crc = crc << 8 ^ table[crc >> 24 ^ reverse8[data[i]]];
	return flags & FLAG_CRC_PLAIN_REGISTER ? crc : ~reverse32(crc);
}

/* T10 DIF: polynomial 0x18bb7, not reflected. */
uint16_t oracle_guard(const uint8_t *data, size_t size, uint8_t flags)
{
	static uint16_t table[256];
	uint16_t crc = flags & DIF_INVERT_SEED ? 0xffff : 0;

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t r = i << 8;

			for (int bit = 0; bit < 8; bit++)
				r = r << 1 ^ (r & 0x8000 ? 0x18bb7 : 0);
			table[i] = r;
		}
	for (size_t i = 0; i < size; i++)
		crc = crc << 8 ^ table[crc >> 8 ^ data[i]];
	return flags & DIF_INVERT_RESULT ? ~crc : crc;
}

static uint16_t be16(const uint8_t *at)
{
	return at[0] << 8 | at[1];
}

static uint32_t be32(const uint8_t *at)
{
	return (uint32_t)be16(at) << 16 | be16(at + 2);
}

static void put_be16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static void put_be32(uint8_t *at, uint32_t value)
{
	put_be16(at, value >> 16);
	put_be16(at + 2, value);
}

/* --- is it well formed ------------------------------------------------------------------------------- */

struct errors {
	uint64_t certain, possible;	/* statuses */
	uint32_t bad_flags, doubtful_flags;
};

static bool any(const struct descriptor *d, unsigned int from, unsigned int to)
{
	const uint8_t *raw = (const uint8_t *)d;

	for (unsigned int i = from; i <= to; i++)
		if (raw[i])
			return true;
	return false;
}

static bool reserved_set(const struct descriptor *d)
{
	bool seed_in_memory = flags_of(d) & FLAG_CRC_SEED_IN_MEMORY;

	if (any(d, 38, 39))
		return true;
	switch (opcode_of(d)) {
	case OP_NOOP:
		return any(d, 16, 35) || any(d, 40, 63);
	case OP_BATCH:
		return any(d, 24, 31) || any(d, 40, 63);
	case OP_DRAIN:
		return any(d, 16, 35) || any(d, 40, 63);
	case OP_MEMMOVE:
	case OP_FILL:
		return any(d, 40, 63);
	case OP_COMPARE:
	case OP_COMPVAL:
		return any(d, 41, 63);
	case OP_CREATE_DELTA:
		return any(d, 52, 55) || any(d, 57, 63);
	case OP_APPLY_DELTA:
		return any(d, 44, 63);
	case OP_DUALCAST:
		return any(d, 48, 63);
	case OP_CRC:
		return any(d, 24, 31) || any(d, 44, 47) || (!seed_in_memory && any(d, 48, 63));
	case OP_COPY_CRC:
		return any(d, 44, 47) || (!seed_in_memory && any(d, 48, 63));
	case OP_DIF_CHECK:
		return any(d, 24, 31) || any(d, 41, 41) || any(d, 43, 47) || any(d, 56, 63);
	case OP_DIF_STRIP:
		return any(d, 41, 41) || any(d, 43, 47) || any(d, 56, 63);
	case OP_DIF_INSERT:
		return any(d, 40, 40) || any(d, 43, 55);
	case OP_DIF_UPDATE:
		return any(d, 43, 47);
	case OP_CACHE_FLUSH:
		return any(d, 16, 23) || any(d, 40, 63);
	}
	return false;
}

/* Flags that an operation must take, and those on which the specification's versions differ. */
static void flags_allowed(const struct oracle *o, const struct descriptor *d, bool in_batch, uint32_t *good,
			  uint32_t *doubtful)
{
	const uint32_t writer = FLAG_CACHE_CONTROL;
	const uint32_t classes = FLAG_TC1 | FLAG_TC2 | FLAG_TC3 | FLAG_CR_TC;

	*good = FLAG_CR_VALID | FLAG_CR_REQUEST | FLAG_INTERRUPT | (in_batch ? FLAG_FENCE : 0);
	*doubtful = classes | FLAG_CACHE_CONTROL | FLAG_STRICT_ORDER | FLAG_READBACK;
	if (o->block_on_fault)
		*doubtful |= FLAG_BLOCK_ON_FAULT;
	switch (opcode_of(d)) {
	case OP_MEMMOVE:
		*good |= writer | FLAG_TC1 | FLAG_TC2 | FLAG_CR_TC | (o->block_on_fault ? FLAG_BLOCK_ON_FAULT : 0);
		break;
	case OP_FILL:
	case OP_DUALCAST:
		*good |= writer | (o->block_on_fault ? FLAG_BLOCK_ON_FAULT : 0);
		break;
	case OP_COMPARE:
		*good |= FLAG_CHECK_RESULT | FLAG_TC1 | FLAG_TC2 | (o->block_on_fault ? FLAG_BLOCK_ON_FAULT : 0);
		break;
	case OP_COMPVAL:
		*good |= FLAG_CHECK_RESULT;
		break;
	case OP_CREATE_DELTA:
		*good |= FLAG_CHECK_RESULT | writer;
		break;
	case OP_APPLY_DELTA:
	case OP_DIF_INSERT:
	case OP_DIF_STRIP:
	case OP_DIF_UPDATE:
		*good |= writer;
		break;
	case OP_COPY_CRC:
		*good |= writer;
		/* fallthrough */
	case OP_CRC:
		*good |= FLAG_CRC_SEED_IN_MEMORY | FLAG_CRC_PLAIN_REGISTER | FLAG_CRC_PLAIN_DATA;
		break;
	}
	*doubtful &= ~*good;
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static uint64_t dif_target_size(const struct descriptor *d)
{
	uint64_t data = oracle_dif_data[d->dif.flags & 3];

	switch (opcode_of(d)) {
	case OP_DIF_INSERT:
		return d->size / data * (data + 8);
	case OP_DIF_STRIP:
		return d->size / (data + 8) * data;
	}
	return d->size;
}

static uint64_t size_errors(const struct oracle *o, const struct descriptor *d)
{
	uint64_t data = oracle_dif_data[d->dif.flags & 3], errors = 0;

	switch (opcode_of(d)) {
	case OP_NOOP:
	case OP_BATCH:
	case OP_DRAIN:
		return 0;
	case OP_CREATE_DELTA:
		if (d->size > DELTA_MAX)
			errors |= STATUS(ST_SIZE);
		if (d->size % 8)
			errors |= STATUS(ST_SIZE) | STATUS(ST_ADDRESS_ALIGN);
		if (d->create_delta.max_size % DELTA_ENTRY || d->create_delta.max_size < 80 ||
		    d->create_delta.max_size > o->max_transfer)
			errors |= STATUS(ST_DELTA_SIZE);
		if ((d->source | d->target) % 8)
			errors |= STATUS(ST_ADDRESS_ALIGN);
		if (overlap(d->source, d->size, d->create_delta.address, d->create_delta.max_size) ||
		    overlap(d->target, d->size, d->create_delta.address, d->create_delta.max_size))
			errors |= STATUS(ST_OVERLAP);
		break;
	case OP_APPLY_DELTA:
		if (d->size > DELTA_MAX)
			errors |= STATUS(ST_SIZE);
		if (d->size % 8)
			errors |= STATUS(ST_SIZE) | STATUS(ST_ADDRESS_ALIGN);
		if (d->delta_size % DELTA_ENTRY || !d->delta_size)
			errors |= STATUS(ST_DELTA_SIZE);
		if (d->target % 8)
			errors |= STATUS(ST_ADDRESS_ALIGN);
		if (overlap(d->source, d->delta_size, d->target, d->size))
			errors |= STATUS(ST_OVERLAP);
		break;
	case OP_DUALCAST:
		if ((d->target ^ d->target2) & 0xfff)
			errors |= STATUS(ST_DUALCAST);
		if (overlap(d->source, d->size, d->target, d->size) || overlap(d->source, d->size, d->target2, d->size) ||
		    overlap(d->target, d->size, d->target2, d->size))
			errors |= STATUS(ST_OVERLAP);
		break;
	case OP_COPY_CRC:
		if (overlap(d->source, d->size, d->target, d->size))
			errors |= STATUS(ST_OVERLAP);
		break;
	case OP_DIF_CHECK:
		if (d->size % (data + 8))
			errors |= STATUS(ST_SIZE);
		break;
	case OP_DIF_INSERT:
	case OP_DIF_STRIP:
	case OP_DIF_UPDATE:
		if (d->size % (opcode_of(d) == OP_DIF_INSERT ? data : data + 8))
			errors |= STATUS(ST_SIZE);
		if (overlap(d->source, d->size, d->target, dif_target_size(d)))
			errors |= STATUS(ST_OVERLAP);
		break;
	}
	if (!d->size || d->size > o->max_transfer)
		errors |= STATUS(ST_SIZE);
	return errors;
}

static bool needs_record(uint8_t opcode)
{
	return opcode == OP_COMPARE || opcode == OP_COMPVAL || opcode == OP_CREATE_DELTA || opcode == OP_CRC ||
	       opcode == OP_COPY_CRC;
}

static void find_errors(const struct oracle *o, const struct descriptor *d, bool in_batch, struct errors *e)
{
	uint8_t opcode = opcode_of(d);
	uint32_t flags = flags_of(d), good, doubtful;

	memset(e, 0, sizeof(*e));
	if (opcode > 63 || !(o->opcap >> opcode & 1) || (in_batch && (opcode == OP_BATCH || opcode == OP_DRAIN))) {
		/* of a descriptor whose opcode means nothing, only what all have in common can be looked at */
		e->certain |= STATUS(ST_OPCODE);
		e->possible |= STATUS(ST_FLAGS) | STATUS(ST_RESERVED) | STATUS(ST_INT_HANDLE);
		e->bad_flags = e->doubtful_flags = 0xffffff;
		return;
	}
	flags_allowed(o, d, in_batch, &good, &doubtful);
	e->bad_flags = flags & ~(good | doubtful);
	e->doubtful_flags = flags & doubtful;
	if (needs_record(opcode))
		e->bad_flags |= ~flags & (FLAG_CR_VALID | FLAG_CR_REQUEST);
	if (opcode == OP_DRAIN && !(flags & (FLAG_CR_REQUEST | FLAG_INTERRUPT)))
		e->bad_flags |= FLAG_CR_REQUEST | FLAG_INTERRUPT;
	if (flags & FLAG_CR_REQUEST && !(flags & FLAG_CR_VALID))
		e->doubtful_flags |= FLAG_CR_REQUEST | FLAG_CR_VALID;
	if (e->bad_flags)
		e->certain |= STATUS(ST_FLAGS);
	if (e->doubtful_flags)
		e->possible |= STATUS(ST_FLAGS);
	if (reserved_set(d))
		e->certain |= STATUS(ST_RESERVED);
	e->certain |= size_errors(o, d);
	if (flags & FLAG_INTERRUPT && d->int_handle >= o->int_handles)
		e->certain |= STATUS(ST_INT_HANDLE);
}

uint64_t oracle_batch(const struct oracle *o, const struct descriptor *d)
{
	uint64_t smallest = o->gencap >> 52 & 1 ? 1 : 2;
	struct errors e;

	find_errors(o, d, false, &e);
	if (d->source % 64)
		e.certain |= STATUS(ST_LIST_ALIGN);
	if (d->size < smallest || d->size > o->max_batch)
		e.certain |= STATUS(ST_COUNT);
	return e.certain ? e.certain | e.possible : 0;
}

/* --- what it does ------------------------------------------------------------------------------------ */

struct outcome {
	uint64_t statuses;		/* those allowed */
	bool failing;			/* memory out of reach: only the status is looked at */
	uint8_t result, result_or;	/* two allowed results */
	uint32_t completed;
	bool completed_any;
	bool completed_at_most;
	struct record specific;		/* bytes 16 to 31 */
	bool specific_any;
	struct {
		uint64_t at, size;
	} undefined[2];			/* memory that may hold anything now */
};

static uint8_t *reach(struct oracle *o, uint64_t address, uint64_t size)
{
	if (address < o->bus || address - o->bus > o->size || size > o->size - (address - o->bus))
		return NULL;
	return o->shadow + (address - o->bus);
}

static void undefined(struct outcome *out, uint64_t at, uint64_t size)
{
	int i = out->undefined[0].size ? 1 : 0;

	out->undefined[i].at = at;
	out->undefined[i].size = size;
}

/*
 * A source that nothing answers for: some error must be told. A write is posted, and its failure may go unseen.
 * What was in reach may have been written in part.
 */
static void out_of_reach(struct outcome *out, bool source)
{
	out->failing = true;
	out->statuses = STATUS(ST_HARDWARE) | STATUS(ST_TRANSLATION) | STATUS(ST_PAGE_FAULT);
	if (!source)
		out->statuses |= STATUS(ST_SUCCESS);
}

static void compare(const struct descriptor *d, const uint8_t *a, const uint8_t *b, bool pattern, struct outcome *out)
{
	uint32_t at;

	for (at = 0; at < d->size && a[at] == b[pattern ? at % 8 : at]; at++)
		;
	out->result = out->result_or = at < d->size;
	out->completed = at < d->size ? at : 0;
	out->completed_at_most = pattern;
	if (flags_of(d) & FLAG_CHECK_RESULT && (d->expected & 1) != out->result)
		out->statuses = STATUS(ST_PREDICATE_FALSE);
}

static void create_delta(const struct descriptor *d, const uint8_t *a, const uint8_t *b, uint8_t *record,
			 struct outcome *out)
{
	uint32_t used = 0;

	for (uint32_t at = 0; at < d->size; at += 8) {
		uint16_t offset = at / 8;

		if (!memcmp(a + at, b + at, 8))
			continue;
		if (used + DELTA_ENTRY > d->create_delta.max_size) {
			out->result = 2;
			out->completed = at;
			break;
		}
		memcpy(record + used, &offset, 2);
		memcpy(record + used + 2, b + at, 8);
		used += DELTA_ENTRY;
		out->result = 1;
	}
	out->result_or = out->result;
	out->specific.delta_size = used;
	if (flags_of(d) & FLAG_CHECK_RESULT && !(d->create_delta.expected_mask >> out->result & 1))
		out->statuses = STATUS(ST_PREDICATE_FALSE);
}

static void apply_delta(const struct descriptor *d, const uint8_t *record, uint8_t *target, struct outcome *out)
{
	long last = -1;

	for (uint32_t at = 0; at < d->delta_size; at += DELTA_ENTRY) {
		uint16_t offset;
		uint64_t bad = 0;

		memcpy(&offset, record + at, 2);
		if (offset <= last)
			bad |= STATUS(ST_DELTA_ORDER);
		if (offset >= d->size / 8)
			bad |= STATUS(ST_DELTA_RANGE);
		if (bad) {
			out->statuses = bad;
			out->completed_any = out->specific_any = true;
			out->result_or = 1;
			undefined(out, d->target, d->size);
			return;
		}
		memcpy(target + offset * 8, record + at + 2, 8);
		last = offset;
	}
}

static uint8_t dif_wrong(const struct descriptor *d, const uint8_t *block, uint32_t ref, uint16_t app)
{
	uint32_t data = oracle_dif_data[d->dif.flags & 3];
	uint8_t how = d->dif.source_flags, wrong = 0;
	const uint8_t *dif = block + data;
	uint16_t mask = d->dif.source_app_mask;
	bool app_f = be16(dif + 2) == 0xffff, ref_f = be32(dif + 4) == 0xffffffff, all_f = app_f && ref_f &&
		     be16(dif) == 0xffff;

	if (how & DIF_ALL_F && all_f)
		return how & DIF_ALL_F_ERROR ? DIF_BAD_ALL_F : 0;
	if ((how & DIF_APP_F && app_f) || (how & DIF_APP_REF_F && app_f && ref_f))
		return 0;
	if (!(how & DIF_NO_GUARD_CHECK) && be16(dif) != oracle_guard(block, data, d->dif.flags))
		wrong |= DIF_BAD_GUARD;
	if (!(how & DIF_NO_REF_CHECK) && be32(dif + 4) != ref)
		wrong |= DIF_BAD_REF;
	if ((be16(dif + 2) ^ app) & ~mask)
		wrong |= DIF_BAD_APP;
	return wrong;
}

static void dif(const struct descriptor *d, const uint8_t *source, uint8_t *target, struct outcome *out)
{
	uint8_t opcode = opcode_of(d), from = d->dif.source_flags, to = d->dif.target_flags;
	uint32_t data = oracle_dif_data[d->dif.flags & 3];
	uint32_t in = opcode == OP_DIF_INSERT ? data : data + 8, step = opcode == OP_DIF_STRIP ? data : data + 8;
	uint32_t source_ref = d->dif.source_ref, target_ref = d->dif.target_ref;
	uint16_t source_app = d->dif.source_app, target_app = d->dif.target_app;

	for (uint32_t block = 0; block < d->size / in; block++, source += in) {
		if (opcode != OP_DIF_INSERT) {
			uint8_t wrong = dif_wrong(d, source, source_ref, source_app);

			if (wrong) {
				out->statuses = STATUS(ST_DIF);
				out->result = out->result_or = wrong;
				out->completed = block * in;
				out->specific_any = true;
				if (target)
					undefined(out, d->target + (uint64_t)block * step, step);
				return;
			}
			source_ref += !(from & DIF_SRC_REF_FIXED);
			source_app += !!(from & DIF_SRC_APP_INCREMENT);
		}
		if (!target)
			continue;
		memmove(target, source, opcode == OP_DIF_UPDATE ? in : data);
		if (opcode != OP_DIF_STRIP) {
			uint8_t *dif = target + data;
			bool update = opcode == OP_DIF_UPDATE;

			if (!(update && to & DIF_PASS_GUARD))
				put_be16(dif, oracle_guard(source, data, d->dif.flags));
			if (!(update && to & DIF_PASS_APP))
				put_be16(dif + 2, target_app & ~d->dif.target_app_mask);
			if (!(update && to & DIF_PASS_REF))
				put_be32(dif + 4, target_ref);
			target_ref += !(to & DIF_DST_REF_FIXED);
			target_app += !!(to & DIF_DST_APP_INCREMENT);
		}
		target += step;
	}
	/* where the next blocks would go on */
	if (opcode != OP_DIF_INSERT) {
		out->specific.dif.source_ref = source_ref;
		out->specific.dif.source_app = source_app;
		out->specific.dif.source_app_mask = d->dif.source_app_mask;
	}
	if (opcode == OP_DIF_INSERT || opcode == OP_DIF_UPDATE) {
		out->specific.dif.target_ref = target_ref;
		out->specific.dif.target_app = target_app;
		out->specific.dif.target_app_mask = d->dif.target_app_mask;
	}
}

static void run(struct oracle *o, const struct descriptor *d, struct outcome *out)
{
	uint8_t opcode = opcode_of(d), pattern[8], *a = NULL, *b = NULL, *c = NULL;
	uint32_t flags = flags_of(d), seed = d->crc.seed;
	bool source_lost = false, target_lost = false;
	uint64_t target_size = d->size;

	memset(out, 0, sizeof(*out));
	out->statuses = STATUS(ST_SUCCESS);
	/* first what it reads and where it writes */
	switch (opcode) {
	case OP_NOOP:
	case OP_DRAIN:
	case OP_CACHE_FLUSH:
		return;
	case OP_FILL:
		memcpy(pattern, &d->source, 8);
		target_lost = !(b = reach(o, d->target, d->size));
		break;
	case OP_COMPARE:
		source_lost = !(a = reach(o, d->source, d->size)) || !(b = reach(o, d->target, d->size));
		break;
	case OP_COMPVAL:
		memcpy(pattern, &d->target, 8);
		source_lost = !(a = reach(o, d->source, d->size));
		break;
	case OP_CREATE_DELTA:
		source_lost = !(a = reach(o, d->source, d->size)) || !(b = reach(o, d->target, d->size));
		target_lost = !(c = reach(o, d->create_delta.address, d->create_delta.max_size));
		break;
	case OP_APPLY_DELTA:
		source_lost = !(a = reach(o, d->source, d->delta_size));
		target_lost = !(b = reach(o, d->target, d->size));
		break;
	case OP_CRC:
	case OP_DIF_CHECK:
		source_lost = !(a = reach(o, d->source, d->size));
		break;
	case OP_DUALCAST:
		source_lost = !(a = reach(o, d->source, d->size));
		target_lost = !(b = reach(o, d->target, d->size)) | !(c = reach(o, d->target2, d->size));
		break;
	default:
		if (opcode >= OP_DIF_INSERT && opcode <= OP_DIF_UPDATE)
			target_size = dif_target_size(d);
		source_lost = !(a = reach(o, d->source, d->size));
		target_lost = !(b = reach(o, d->target, target_size));
	}
	if ((opcode == OP_CRC || opcode == OP_COPY_CRC) && flags & FLAG_CRC_SEED_IN_MEMORY) {
		const uint8_t *at = reach(o, d->crc.seed_address, 4);

		if (at)
			memcpy(&seed, at, 4);
		else
			source_lost = true;
	}
	if (source_lost || target_lost) {
		out_of_reach(out, source_lost);
		/* compare may have found a difference in what is in reach, and a delta's record may be empty */
		if (opcode == OP_CREATE_DELTA && c)
			undefined(out, d->create_delta.address, d->create_delta.max_size);
		else if (opcode != OP_COMPARE && opcode != OP_CREATE_DELTA && b)
			undefined(out, d->target, target_size);
		if (opcode == OP_DUALCAST && c)
			undefined(out, d->target2, d->size);
		if (opcode == OP_CREATE_DELTA && !source_lost)
			out->statuses |= STATUS(ST_PREDICATE_FALSE);
		if (opcode >= OP_DIF_CHECK && opcode <= OP_DIF_UPDATE && !source_lost)
			out->statuses |= STATUS(ST_DIF);
		if (opcode == OP_APPLY_DELTA && !source_lost)
			out->statuses |= STATUS(ST_DELTA_ORDER) | STATUS(ST_DELTA_RANGE);
		return;
	}
	switch (opcode) {
	case OP_MEMMOVE:
		memmove(b, a, d->size);
		out->result_or = a < b && b < a + d->size;
		break;
	case OP_FILL:
		for (uint32_t i = 0; i < d->size; i++)
			b[i] = pattern[i % 8];
		break;
	case OP_COMPARE:
		compare(d, a, b, false, out);
		break;
	case OP_COMPVAL:
		compare(d, a, pattern, true, out);
		break;
	case OP_CREATE_DELTA:
		create_delta(d, a, b, c, out);
		break;
	case OP_APPLY_DELTA:
		apply_delta(d, a, b, out);
		break;
	case OP_DUALCAST:
		memcpy(b, a, d->size);
		memcpy(c, a, d->size);
		break;
	case OP_COPY_CRC:
		memcpy(b, a, d->size);
		/* fallthrough */
	case OP_CRC:
		out->specific.crc = oracle_crc(seed, a, d->size, flags);
		break;
	default:
		dif(d, a, b, out);
	}
}

/* --- what it told ------------------------------------------------------------------------------------ */

static void complain(struct judgement *j, const char *format, ...)
{
	va_list words;

	if (j->why[0])
		return;
	va_start(words, format);
	vsnprintf(j->why, sizeof(j->why), format, words);
	va_end(words);
}

static uint8_t first_of(uint64_t statuses)
{
	return statuses ? __builtin_ctzll(statuses) : 0;
}

/* Take over what is undefined from the device, so that only the rest is compared. */
static void adopt(struct oracle *o, const struct outcome *out)
{
	for (int i = 0; i < 2; i++) {
		uint8_t *at = out->undefined[i].size ? reach(o, out->undefined[i].at, out->undefined[i].size) : NULL;

		if (at)
			memcpy(at, o->memory + (at - o->shadow), out->undefined[i].size);
	}
}

static void judge_outcome(const struct outcome *out, const struct record *actual, struct judgement *j)
{
	static const uint8_t zero[16];

	if (!(out->statuses >> (actual->status & 0x3f) & 1) || actual->status & 0xc0) {
		if (!(out->failing && actual->status == (0x80 | ST_PAGE_FAULT)))
			complain(j, "status 0x%02x, expected 0x%02x", actual->status, first_of(out->statuses));
		return;
	}
	if (out->failing)
		return;
	if (actual->result != out->result && actual->result != out->result_or)
		complain(j, "result %u, expected %u", actual->result, out->result);
	if (!out->completed_any && !(out->completed_at_most && actual->completed <= out->completed) &&
	    actual->completed != out->completed)
		complain(j, "%u bytes completed, expected %u", actual->completed, out->completed);
	if (!out->specific_any && memcmp(actual->specific, out->specific.specific, 16)) {
		char seen[40], wanted[40];

		for (int i = 0; i < 16; i++) {
			sprintf(seen + 2 * i, "%02x", actual->specific[i]);
			sprintf(wanted + 2 * i, "%02x", out->specific.specific[i]);
		}
		complain(j, "bytes 16 to 31 are %s, expected %s", seen, wanted);
	}
	if (actual->status != ST_DIF && memcmp(&actual->fault_address, zero, 8))
		complain(j, "fault address 0x%llx without a fault", (unsigned long long)actual->fault_address);
}

void oracle_judge(struct oracle *o, const struct descriptor *d, bool in_batch, const struct record *actual,
		  struct judgement *j)
{
	uint32_t flags = flags_of(d);
	struct outcome out;
	struct errors e;

	memset(j, 0, sizeof(*j));
	find_errors(o, d, in_batch, &e);
	if (flags & FLAG_CR_VALID && d->record % 32) {
		e.certain |= STATUS(ST_CR_ALIGN);
		actual = NULL;
	}
	j->errors = e.certain | e.possible;
	if (e.certain && (!actual || !(flags & FLAG_CR_VALID))) {
		j->status = first_of(e.certain);	/* told through SWERROR */
		return;
	}
	if (actual && actual->status && j->errors >> (actual->status & 0x3f) & 1 && !(actual->status & 0xc0)) {
		j->status = actual->status;
		j->record_expected = true;
		if (actual->status == ST_FLAGS) {
			uint32_t told = actual->invalid_flags & 0xffffff;

			if (told & ~(e.bad_flags | e.doubtful_flags))
				complain(j, "flags 0x%06x called invalid, only 0x%06x may be", told,
					 e.bad_flags | e.doubtful_flags);
			else if (!told && (e.bad_flags | e.doubtful_flags) & flags)
				complain(j, "no flag called invalid, 0x%06x is", e.bad_flags & flags);
		}
		return;
	}
	if (e.certain) {
		j->record_expected = true;
		j->status = actual->status;
		complain(j, "status 0x%02x, expected error 0x%02x", actual->status, first_of(e.certain));
		return;
	}
	run(o, d, &out);
	adopt(o, &out);
	j->record_expected = flags & FLAG_CR_VALID &&
			     (flags & FLAG_CR_REQUEST || !(out.statuses & STATUS(ST_SUCCESS)) ||
			      (actual && actual->status && out.statuses & ~STATUS(ST_SUCCESS)));
	if (!j->record_expected || !actual) {
		j->status = first_of(out.statuses);
		j->success = j->status == ST_SUCCESS;
		if (!j->success)
			j->errors |= out.statuses;
		return;
	}
	j->status = actual->status;
	j->success = actual->status == ST_SUCCESS;
	if (!actual->status)
		complain(j, "no record, expected status 0x%02x", first_of(out.statuses));
	else
		judge_outcome(&out, actual, j);
}
