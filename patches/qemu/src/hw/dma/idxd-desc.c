/*
 * Intel Data Streaming Accelerator: descriptors and completion records
 *
 * Decoding, checking and encoding, without a look at the memory that a
 * descriptor is about.  Follows the Intel DSA architecture specification
 * (341204) for version 1.0 of the device; "Choice:" marks what it leaves open.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "hw/dma/idxd-ops.h"

/* A set of descriptor bytes, one bit for each */
#define BYTES(first, last)  MAKE_64BIT_MASK(first, (last) - (first) + 1)

/* The same as masks for the quadwords behind the record address */
#define BYTE_MASK(set, n)   ((set) >> (n) & 1 ? 0xffull << (n) % 8 * 8 : 0)
#define QWORD_MASK(set, n) \
    (BYTE_MASK(set, n) | BYTE_MASK(set, (n) + 1) | BYTE_MASK(set, (n) + 2) | \
     BYTE_MASK(set, (n) + 3) | BYTE_MASK(set, (n) + 4) | \
     BYTE_MASK(set, (n) + 5) | BYTE_MASK(set, (n) + 6) | \
     BYTE_MASK(set, (n) + 7))
#define RESERVED(set) \
    { QWORD_MASK(set, 16), QWORD_MASK(set, 24), QWORD_MASK(set, 32), \
      QWORD_MASK(set, 40), QWORD_MASK(set, 48), QWORD_MASK(set, 56) }

/* Flags that every operation takes */
#define F_COMMON    (IDXD_FLAG_CRAV | IDXD_FLAG_RCR | IDXD_FLAG_RCI | \
                     IDXD_FLAG_CR_TCS)
/* Flags of everything that works on memory, and of all that writes it */
#define F_MEMORY    (IDXD_FLAG_FENCE | IDXD_FLAG_BOF)
#define F_WRITE     (F_MEMORY | IDXD_FLAG_CC | IDXD_FLAG_STORD | \
                     IDXD_FLAG_DRDBK)
#define F_TC1       IDXD_FLAG_ADDR1_TCS
#define F_TC2       IDXD_FLAG_ADDR2_TCS
#define F_TC3       IDXD_FLAG_ADDR3_TCS
#define F_CRC       (IDXD_FLAG_CRC_READ_SEED | IDXD_FLAG_CRC_NO_INVERT | \
                     IDXD_FLAG_CRC_NO_REFLECT)
#define F_DRAIN     (IDXD_FLAG_DRAIN_RDBK1 | IDXD_FLAG_DRAIN_RDBK2 | \
                     IDXD_FLAG_DRAIN_NO_IMPL_A | IDXD_FLAG_DRAIN_NO_IMPL_B)

typedef struct OpInfo {
    const char *name;
    uint32_t flags;             /* allowed, besides F_COMMON */
    uint64_t reserved[6];       /* bits that must be 0, from byte 16 on */
    bool needs_record;          /* pointless without a completion record */
} OpInfo;

/*
 * Choice: the steering tag flags (CRSTS, DSTS, that of dualcast's second
 * destination) are refused, because no capability of a 1.0 device offers them.
 */
static const OpInfo op_info[] = {
    [IDXD_OP_NOOP] = {
        "noop", IDXD_FLAG_FENCE,
        RESERVED(BYTES(16, 35) | BYTES(38, 63)),
    },
    [IDXD_OP_BATCH] = {
        "batch", F_TC1,
        RESERVED(BYTES(24, 31) | BYTES(38, 63)),
    },
    [IDXD_OP_DRAIN] = {
        "drain", F_TC1 | F_TC2 | F_DRAIN,
        RESERVED(BYTES(32, 35) | BYTES(38, 63)),
    },
    [IDXD_OP_MEMMOVE] = {
        "memmove", F_WRITE | F_TC1 | F_TC2,
        RESERVED(BYTES(38, 63)),
    },
    [IDXD_OP_FILL] = {
        "fill", F_WRITE | F_TC2,
        RESERVED(BYTES(38, 63)),
    },
    [IDXD_OP_COMPARE] = {
        "compare", F_MEMORY | IDXD_FLAG_CR | F_TC1 | F_TC2,
        RESERVED(BYTES(38, 39) | BYTES(41, 63)), true,
    },
    [IDXD_OP_COMPVAL] = {
        "compval", F_MEMORY | IDXD_FLAG_CR | F_TC1,
        RESERVED(BYTES(38, 39) | BYTES(41, 63)), true,
    },
    [IDXD_OP_CREATE_DELTA] = {
        "create-delta", F_WRITE | IDXD_FLAG_CR | F_TC1 | F_TC2 | F_TC3,
        RESERVED(BYTES(38, 39) | BYTES(52, 55) | BYTES(57, 63)), true,
    },
    [IDXD_OP_APPLY_DELTA] = {
        "apply-delta", F_WRITE | F_TC1 | F_TC2,
        RESERVED(BYTES(38, 39) | BYTES(44, 63)),
    },
    [IDXD_OP_DUALCAST] = {
        "dualcast", F_WRITE | F_TC1 | F_TC2 | F_TC3,
        RESERVED(BYTES(38, 39) | BYTES(48, 63)),
    },
    [IDXD_OP_CRCGEN] = {
        "crcgen", F_MEMORY | F_TC1 | F_TC3 | F_CRC,
        RESERVED(BYTES(24, 31) | BYTES(38, 39) | BYTES(44, 47) |
                 BYTES(56, 63)), true,
    },
    [IDXD_OP_COPY_CRC] = {
        "copy-crc", F_WRITE | F_TC1 | F_TC2 | F_TC3 | F_CRC,
        RESERVED(BYTES(38, 39) | BYTES(44, 47) | BYTES(56, 63)), true,
    },
    [IDXD_OP_DIF_CHECK] = {
        "dif-check", F_MEMORY | F_TC1,
        RESERVED(BYTES(24, 31) | BYTES(38, 39) | BYTES(41, 41) |
                 BYTES(43, 47) | BYTES(56, 63)),
    },
    [IDXD_OP_DIF_INSERT] = {
        "dif-insert", F_WRITE | F_TC1 | F_TC2,
        RESERVED(BYTES(38, 40) | BYTES(43, 55)),
    },
    [IDXD_OP_DIF_STRIP] = {
        "dif-strip", F_WRITE | F_TC1 | F_TC2,
        RESERVED(BYTES(38, 39) | BYTES(41, 41) | BYTES(43, 47) | BYTES(56, 63)),
    },
    [IDXD_OP_DIF_UPDATE] = {
        "dif-update", F_WRITE | F_TC1 | F_TC2,
        RESERVED(BYTES(38, 39) | BYTES(43, 47)),
    },
    [IDXD_OP_CFLUSH] = {
        "cflush", F_WRITE | F_TC2,
        RESERVED(BYTES(16, 23) | BYTES(38, 63)),
    },
};

static const OpInfo *op_lookup(uint8_t opcode)
{
    if (opcode >= ARRAY_SIZE(op_info) || !op_info[opcode].name) {
        return NULL;
    }
    return &op_info[opcode];
}

const char *idxd_op_name(uint8_t opcode)
{
    const OpInfo *info = op_lookup(opcode);

    return info ? info->name : NULL;
}

void idxd_desc_decode(IDXDDesc *desc, const uint8_t raw[IDXD_DESC_SIZE])
{
    uint32_t head = ldl_le_p(raw);
    uint32_t control = ldl_le_p(raw + 4);

    desc->pasid = extract32(head, 0, 20);
    desc->priv = extract32(head, 31, 1);
    desc->flags = control & IDXD_FLAG_MASK;
    desc->opcode = control >> 24;
    desc->completion_addr = ldq_le_p(raw + 8);
    desc->src = ldq_le_p(raw + 16);
    desc->dst = ldq_le_p(raw + 24);
    desc->size = ldl_le_p(raw + 32);
    desc->int_handle = lduw_le_p(raw + 36);
    desc->raw = raw;
}

/*
 * Checks
 */

/* Do two ranges share a byte?  Modulo 2^64, as the addresses are. */
static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a - b < b_len || b - a < a_len;
}

/* The flags that must not be as they are */
static uint32_t bad_flags(const IDXDOpEnv *env, const IDXDDesc *desc,
                          const OpInfo *info)
{
    uint64_t cc_cap = desc->opcode == IDXD_OP_CFLUSH ? IDXD_GENCAP_CC_CACHE
                                                     : IDXD_GENCAP_CC_MEM;
    uint32_t allowed = info->flags | F_COMMON;
    uint32_t bad;

    if (!env->in_batch) {
        allowed &= ~IDXD_FLAG_FENCE;
    }
    if (!env->wq_bof) {
        allowed &= ~IDXD_FLAG_BOF;
    }
    if (!(env->gen_cap & cc_cap)) {
        allowed &= ~IDXD_FLAG_CC;
    }
    if (!(env->gen_cap & IDXD_GENCAP_DRDBK)) {
        allowed &= ~IDXD_FLAG_DRDBK;
    }
    if (desc->opcode == IDXD_OP_DRAIN &&
        !(env->gen_cap & IDXD_GENCAP_DRAIN_RDBK)) {
        allowed &= ~(F_DRAIN | F_TC1 | F_TC2);
    }
    bad = desc->flags & ~allowed;

    /* A flag that is missing is as wrong as one too many */
    if (info->needs_record) {
        bad |= (IDXD_FLAG_CRAV | IDXD_FLAG_RCR) & ~desc->flags;
    }
    if ((desc->flags & IDXD_FLAG_RCR) && !(desc->flags & IDXD_FLAG_CRAV)) {
        bad |= IDXD_FLAG_CRAV;
    }
    if (desc->opcode == IDXD_OP_DRAIN &&
        !(desc->flags & (IDXD_FLAG_RCR | IDXD_FLAG_RCI))) {
        bad |= IDXD_FLAG_RCR | IDXD_FLAG_RCI;
    }
    return bad;
}

static bool reserved_clear(const IDXDDesc *desc, const OpInfo *info)
{
    uint64_t set = 0;
    uint8_t bits;

    /* Between PASID and privilege bit */
    if (extract32(ldl_le_p(desc->raw), 20, 11)) {
        return false;
    }

    for (int i = 0; i < ARRAY_SIZE(info->reserved); i++) {
        set |= ldq_le_p(desc->raw + 16 + 8 * i) & info->reserved[i];
    }
    if (set) {
        return false;
    }

    /* Addresses that a flag makes valid */
    switch (desc->opcode) {
    case IDXD_OP_DRAIN:
        if ((desc->src && !(desc->flags & IDXD_FLAG_DRAIN_RDBK1)) ||
            (desc->dst && !(desc->flags & IDXD_FLAG_DRAIN_RDBK2))) {
            return false;
        }
        break;
    case IDXD_OP_CRCGEN:
    case IDXD_OP_COPY_CRC:
        if (ldq_le_p(desc->raw + IDXD_D_CRC_SEED_ADDR) &&
            !(desc->flags & IDXD_FLAG_CRC_READ_SEED)) {
            return false;
        }
        break;
    default:
        break;
    }

    /* Bytes of which only some bits are in use */
    switch (desc->opcode) {
    case IDXD_OP_COMPARE:
    case IDXD_OP_COMPVAL:
        bits = desc->raw[IDXD_D_EXPECTED] & ~1;
        break;
    case IDXD_OP_CREATE_DELTA:
        bits = desc->raw[IDXD_D_DELTA_EXPECTED] & ~7;
        break;
    case IDXD_OP_DIF_CHECK:
    case IDXD_OP_DIF_STRIP:
        bits = desc->raw[IDXD_D_DIF_FLAGS] & IDXD_DIF_FLAGS_RESERVED;
        break;
    case IDXD_OP_DIF_INSERT:
        /* There is nothing that could pass through */
        bits = (desc->raw[IDXD_D_DIF_FLAGS] & IDXD_DIF_FLAGS_RESERVED) |
               (desc->raw[IDXD_D_DIF_DST_FLAGS] &
                (IDXD_DIF_DST_RESERVED | IDXD_DIF_APP_PASS |
                 IDXD_DIF_GUARD_OFF | IDXD_DIF_REF_OFF));
        break;
    case IDXD_OP_DIF_UPDATE:
        bits = (desc->raw[IDXD_D_DIF_FLAGS] & IDXD_DIF_FLAGS_RESERVED) |
               (desc->raw[IDXD_D_DIF_DST_FLAGS] & IDXD_DIF_DST_RESERVED);
        break;
    default:
        bits = 0;
        break;
    }
    return !bits;
}

void idxd_dif_steps(const IDXDDesc *desc, IDXDDifSteps *steps)
{
    static const uint16_t sizes[] = { 512, 520, 4096, IDXD_DIF_BLOCK_MAX };
    unsigned block = sizes[desc->raw[IDXD_D_DIF_FLAGS] & 3];

    steps->block = block;
    steps->in = desc->opcode == IDXD_OP_DIF_INSERT ? block
                                                   : block + IDXD_DIF_SIZE;
    steps->out = desc->opcode == IDXD_OP_DIF_STRIP ? block
                                                   : block + IDXD_DIF_SIZE;
}

static uint64_t dif_write_size(const IDXDDesc *desc)
{
    IDXDDifSteps steps;

    idxd_dif_steps(desc, &steps);
    return (uint64_t)desc->size / steps.in * steps.out;
}

/* Sizes, alignments and overlaps: the status, IDXD_ST_NONE if all is well */
static uint8_t check_ranges(const IDXDOpEnv *env, const IDXDDesc *desc)
{
    uint64_t record;
    uint32_t record_size;
    IDXDDifSteps steps;

    switch (desc->opcode) {
    case IDXD_OP_NOOP:
    case IDXD_OP_DRAIN:
        return IDXD_ST_NONE;
    case IDXD_OP_BATCH:
        if (desc->size < (env->gen_cap & IDXD_GENCAP_BATCH1 ? 1 : 2) ||
            desc->size > env->max_batch) {
            return IDXD_ST_DESC_COUNT;
        }
        if (desc->src % IDXD_DESC_SIZE) {
            return IDXD_ST_DESC_LIST_ALIGN;
        }
        return IDXD_ST_NONE;
    default:
        break;
    }

    if (!desc->size || desc->size > env->max_xfer) {
        return IDXD_ST_XFER_SIZE;
    }

    switch (desc->opcode) {
    case IDXD_OP_MEMMOVE:
        if (!(env->gen_cap & IDXD_GENCAP_OVERLAP) &&
            overlaps(desc->src, desc->size, desc->dst, desc->size)) {
            return IDXD_ST_OVERLAP;
        }
        break;
    case IDXD_OP_CREATE_DELTA:
        record = ldq_le_p(desc->raw + IDXD_D_DELTA_ADDR);
        record_size = ldl_le_p(desc->raw + IDXD_D_DELTA_MAX);
        if (desc->size % 8 || desc->size > IDXD_DELTA_SOURCE_MAX) {
            return IDXD_ST_XFER_SIZE;
        }
        if (record_size < IDXD_DELTA_RECORD_MIN ||
            record_size % IDXD_DELTA_ENTRY || record_size > env->max_xfer) {
            return IDXD_ST_DELTA_RECORD_SIZE;
        }
        if (desc->src % 8 || desc->dst % 8 || record % 8) {
            return IDXD_ST_ADDR_ALIGN;
        }
        if (overlaps(desc->src, desc->size, record, record_size) ||
            overlaps(desc->dst, desc->size, record, record_size)) {
            return IDXD_ST_OVERLAP;
        }
        break;
    case IDXD_OP_APPLY_DELTA:
        record_size = ldl_le_p(desc->raw + IDXD_D_DELTA_SIZE);
        if (desc->size % 8 || desc->size > IDXD_DELTA_SOURCE_MAX) {
            return IDXD_ST_XFER_SIZE;
        }
        if (!record_size || record_size % IDXD_DELTA_ENTRY ||
            record_size > env->max_xfer) {
            return IDXD_ST_DELTA_RECORD_SIZE;
        }
        if (desc->src % 8 || desc->dst % 8) {
            return IDXD_ST_ADDR_ALIGN;
        }
        if (overlaps(desc->src, record_size, desc->dst, desc->size)) {
            return IDXD_ST_OVERLAP;
        }
        break;
    case IDXD_OP_DUALCAST:
        record = ldq_le_p(desc->raw + IDXD_D_DST2);
        if ((desc->dst ^ record) & 0xfff) {
            return IDXD_ST_DUALCAST_ALIGN;
        }
        if (overlaps(desc->src, desc->size, desc->dst, desc->size) ||
            overlaps(desc->src, desc->size, record, desc->size) ||
            overlaps(desc->dst, desc->size, record, desc->size)) {
            return IDXD_ST_OVERLAP;
        }
        break;
    case IDXD_OP_COPY_CRC:
        if (overlaps(desc->src, desc->size, desc->dst, desc->size)) {
            return IDXD_ST_OVERLAP;
        }
        break;
    case IDXD_OP_DIF_CHECK:
    case IDXD_OP_DIF_INSERT:
    case IDXD_OP_DIF_STRIP:
    case IDXD_OP_DIF_UPDATE:
        idxd_dif_steps(desc, &steps);
        if (desc->size % steps.in) {
            return IDXD_ST_XFER_SIZE;
        }
        if (desc->opcode != IDXD_OP_DIF_CHECK &&
            overlaps(desc->src, desc->size, desc->dst,
                     dif_write_size(desc))) {
            return IDXD_ST_OVERLAP;
        }
        break;
    default:
        break;
    }
    return IDXD_ST_NONE;
}

/*
 * The comparisons of a batch differ in their addresses alone.  For one whose
 * opcode and flags have passed this is all there is to check; false: see what
 * is wrong, if anything.
 */
static bool compare_fit(const IDXDOpEnv *env, const IDXDDesc *desc)
{
    const uint64_t *reserved = op_info[IDXD_OP_COMPARE].reserved;
    const uint8_t *raw = desc->raw;
    uint64_t set = (ldl_le_p(raw) & MAKE_64BIT_MASK(20, 11)) |
                   (ldq_le_p(raw + 32) & reserved[2]) |
                   (ldq_le_p(raw + 40) & (reserved[3] | 0xfe)) |
                   (ldq_le_p(raw + 48) & reserved[4]) |
                   (ldq_le_p(raw + 56) & reserved[5]) |
                   desc->completion_addr % IDXD_CR_SIZE;

    return !set && desc->size && desc->size <= env->max_xfer;
}

bool idxd_op_check(const IDXDOpEnv *env, const IDXDDesc *desc,
                   IDXDOpResult *res)
{
    const OpInfo *info = op_lookup(desc->opcode);
    uint32_t control = ldl_le_p(desc->raw + 4);
    bool known = env->passed && *env->passed == control;
    uint32_t flags;

    if (known && desc->opcode == IDXD_OP_COMPARE && compare_fit(env, desc)) {
        res->status = IDXD_ST_NONE;
        return true;
    }
    *res = (IDXDOpResult) { };

    /* A batch takes neither batches nor drains */
    if (!known &&
        (!info || !extract64(env->op_cap[desc->opcode / 64],
                             desc->opcode % 64, 1) ||
         (env->in_batch && (desc->opcode == IDXD_OP_BATCH ||
                            desc->opcode == IDXD_OP_DRAIN)))) {
        res->status = IDXD_ST_BAD_OPCODE;
        return false;
    }
    if ((desc->flags & IDXD_FLAG_CRAV) &&
        desc->completion_addr % IDXD_CR_SIZE) {
        res->status = IDXD_ST_CR_ALIGN;
        return false;
    }
    flags = known ? 0 : bad_flags(env, desc, info);
    if (flags) {
        res->status = IDXD_ST_INVALID_FLAGS;
        stl_le_p(res->specific, flags);
        return false;
    }
    if (env->passed) {
        *env->passed = control;
    }
    if (!reserved_clear(desc, info)) {
        res->status = IDXD_ST_RESERVED_FIELD;
        return false;
    }
    res->status = check_ranges(env, desc);
    return res->status == IDXD_ST_NONE;
}

/*
 * Bytes for the timing model
 */

uint64_t idxd_op_read_bytes(const IDXDDesc *desc)
{
    uint64_t size = desc->size;

    switch (desc->opcode) {
    case IDXD_OP_BATCH:
        return size * IDXD_DESC_SIZE;
    case IDXD_OP_COMPARE:
    case IDXD_OP_CREATE_DELTA:
        return 2 * size;
    case IDXD_OP_APPLY_DELTA:
        return (uint32_t)ldl_le_p(desc->raw + IDXD_D_DELTA_SIZE);
    case IDXD_OP_MEMMOVE:
    case IDXD_OP_COMPVAL:
    case IDXD_OP_DUALCAST:
    case IDXD_OP_CRCGEN:
    case IDXD_OP_COPY_CRC:
    case IDXD_OP_DIF_CHECK:
    case IDXD_OP_DIF_INSERT:
    case IDXD_OP_DIF_STRIP:
    case IDXD_OP_DIF_UPDATE:
        return size;
    default:
        return 0;
    }
}

uint64_t idxd_op_write_bytes(const IDXDDesc *desc)
{
    uint64_t size = desc->size;

    switch (desc->opcode) {
    case IDXD_OP_MEMMOVE:
    case IDXD_OP_FILL:
    case IDXD_OP_COPY_CRC:
        return size;
    case IDXD_OP_DUALCAST:
        return 2 * size;
    case IDXD_OP_APPLY_DELTA:
        size = (uint32_t)ldl_le_p(desc->raw + IDXD_D_DELTA_SIZE);
        return size / IDXD_DELTA_ENTRY * 8;
    case IDXD_OP_DIF_INSERT:
    case IDXD_OP_DIF_STRIP:
    case IDXD_OP_DIF_UPDATE:
        return dif_write_size(desc);
    default:
        /* How long a delta record becomes is not known before */
        return 0;
    }
}
