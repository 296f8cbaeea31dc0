/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work descriptors and completion records of Intel DSA, from the architecture specification (341204). These
 * definitions are independent of the emulator's: a wrong number in one of the two shows in the tests.
 */
#ifndef DSA_DESCRIPTOR_H
#define DSA_DESCRIPTOR_H

#include <assert.h>
#include <stdint.h>

enum {
	OP_NOOP = 0x00,
	OP_BATCH = 0x01,
	OP_DRAIN = 0x02,
	OP_MEMMOVE = 0x03,
	OP_FILL = 0x04,
	OP_COMPARE = 0x05,
	OP_COMPVAL = 0x06,
	OP_CREATE_DELTA = 0x07,
	OP_APPLY_DELTA = 0x08,
	OP_DUALCAST = 0x09,
	OP_CRC = 0x10,
	OP_COPY_CRC = 0x11,
	OP_DIF_CHECK = 0x12,
	OP_DIF_INSERT = 0x13,
	OP_DIF_STRIP = 0x14,
	OP_DIF_UPDATE = 0x15,
	OP_CACHE_FLUSH = 0x20,
};

#define FLAG(n) (1u << (n))
enum {
	FLAG_FENCE = FLAG(0),
	FLAG_BLOCK_ON_FAULT = FLAG(1),
	FLAG_CR_VALID = FLAG(2),
	FLAG_CR_REQUEST = FLAG(3),
	FLAG_INTERRUPT = FLAG(4),
	FLAG_CR_STEERING = FLAG(5),
	FLAG_RESERVED6 = FLAG(6),
	FLAG_CHECK_RESULT = FLAG(7),
	FLAG_CACHE_CONTROL = FLAG(8),
	FLAG_TC1 = FLAG(9),
	FLAG_TC2 = FLAG(10),
	FLAG_TC3 = FLAG(11),
	FLAG_CR_TC = FLAG(12),
	FLAG_STRICT_ORDER = FLAG(13),
	FLAG_READBACK = FLAG(14),
	FLAG_STEERING = FLAG(15),
	FLAG_CRC_SEED_IN_MEMORY = FLAG(16),
	FLAG_CRC_PLAIN_REGISTER = FLAG(17),	/* neither inverted nor reflected */
	FLAG_CRC_PLAIN_DATA = FLAG(18),		/* bits of each byte not reflected */
};

enum {
	ST_PENDING = 0x00,
	ST_SUCCESS = 0x01,
	ST_PREDICATE_FALSE = 0x02,
	ST_PAGE_FAULT = 0x03,
	ST_BATCH_MEMBER = 0x05,
	ST_BATCH_LIST_FAULT = 0x06,
	ST_DELTA_ORDER = 0x07,
	ST_DELTA_RANGE = 0x08,
	ST_DIF = 0x09,
	ST_OPCODE = 0x10,
	ST_FLAGS = 0x11,
	ST_RESERVED = 0x12,
	ST_SIZE = 0x13,
	ST_COUNT = 0x14,
	ST_DELTA_SIZE = 0x15,
	ST_OVERLAP = 0x16,
	ST_DUALCAST = 0x17,
	ST_LIST_ALIGN = 0x18,
	ST_INT_HANDLE = 0x19,
	ST_CR_TRANSLATION = 0x1a,
	ST_CR_ALIGN = 0x1b,
	ST_ADDRESS_ALIGN = 0x1c,
	ST_HARDWARE = 0x20,
	ST_TRANSLATION = 0x22,
};

enum {
	DIF_DATA_512 = 0, DIF_DATA_520, DIF_DATA_4096, DIF_DATA_4104,	/* dif_flags 1:0 */
	DIF_INVERT_SEED = FLAG(2),
	DIF_INVERT_RESULT = FLAG(3),
	/* flags of the source */
	DIF_ALL_F_ERROR = FLAG(0),
	DIF_ALL_F = FLAG(1),
	DIF_APP_F = FLAG(2),
	DIF_APP_REF_F = FLAG(3),
	DIF_SRC_APP_INCREMENT = FLAG(4),
	DIF_NO_GUARD_CHECK = FLAG(5),
	DIF_NO_REF_CHECK = FLAG(6),
	DIF_SRC_REF_FIXED = FLAG(7),
	/* flags of the destination */
	DIF_PASS_APP = FLAG(3),
	DIF_DST_APP_INCREMENT = FLAG(4),
	DIF_PASS_GUARD = FLAG(5),
	DIF_PASS_REF = FLAG(6),
	DIF_DST_REF_FIXED = FLAG(7),
	/* what is wrong, in the record's result byte */
	DIF_BAD_GUARD = FLAG(0),
	DIF_BAD_APP = FLAG(1),
	DIF_BAD_REF = FLAG(2),
	DIF_BAD_ALL_F = FLAG(3),
};

struct descriptor {
	uint32_t pasid_priv;
	uint32_t flags_opcode;		/* flags 23:0, opcode 31:24 */
	uint64_t record;
	uint64_t source;		/* first source, pattern to fill with, batch list */
	uint64_t target;		/* destination, second source, pattern to compare with */
	uint32_t size;			/* bytes; members of a batch */
	uint16_t int_handle;
	uint16_t reserved38;
	union {
		uint8_t specific[24];
		uint8_t expected;	/* compare */
		struct {
			uint64_t address;
			uint32_t max_size;
			uint32_t reserved52;
			uint8_t expected_mask;
			uint8_t reserved57[7];
		} create_delta;
		uint32_t delta_size;	/* apply delta */
		uint64_t target2;	/* dualcast */
		struct {
			uint32_t seed;
			uint32_t reserved44;
			uint64_t seed_address;
		} crc;
		struct {
			uint8_t source_flags;
			uint8_t target_flags;
			uint8_t flags;
			uint8_t reserved43[5];
			uint32_t source_ref;
			uint16_t source_app_mask;
			uint16_t source_app;
			uint32_t target_ref;
			uint16_t target_app_mask;
			uint16_t target_app;
		} dif;
	};
};

struct record {
	uint8_t status;
	uint8_t result;
	uint8_t fault_info;
	uint8_t reserved3;
	uint32_t completed;		/* bytes; members of a batch */
	uint64_t fault_address;
	union {
		uint8_t specific[16];
		uint32_t invalid_flags;	/* 23:0 */
		uint32_t delta_size;
		uint64_t crc;
		struct {
			uint32_t source_ref;
			uint16_t source_app_mask;
			uint16_t source_app;
			uint32_t target_ref;
			uint16_t target_app_mask;
			uint16_t target_app;
		} dif;
	};
};

static_assert(sizeof(struct descriptor) == 64 && sizeof(struct record) == 32, "as the device reads them");

static inline uint8_t opcode_of(const struct descriptor *d)
{
	return d->flags_opcode >> 24;
}

static inline uint32_t flags_of(const struct descriptor *d)
{
	return d->flags_opcode & 0xffffff;
}

#endif
