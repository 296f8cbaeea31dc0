/*
 * Intel Data Streaming Accelerator: the operations
 *
 * Decoding, checking and executing one work descriptor.  Everything here is a
 * function of its arguments and of guest memory: no device state, no timers,
 * no batches.  The caller decides when a descriptor runs and what happens to
 * its result.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_DMA_IDXD_OPS_H
#define HW_DMA_IDXD_OPS_H

#include "exec/memory.h"
#include "hw/dma/idxd-desc.h"

/* A work descriptor in host order */
typedef struct IDXDDesc {
    uint32_t pasid;             /* byte 0, bits 19:0 */
    bool priv;                  /* byte 0, bit 31 */
    uint32_t flags;             /* byte 4, bits 23:0: IDXD_FLAG_* */
    uint8_t opcode;             /* byte 7: IDXD_OP_* */
    uint64_t completion_addr;   /* byte 8 */
    uint64_t src;               /* byte 16: source, pattern, list, ... */
    uint64_t dst;               /* byte 24: destination, source 2, ... */
    uint32_t size;              /* byte 32: bytes, or descriptors of a batch */
    uint16_t int_handle;        /* byte 36 */
    const uint8_t *raw;         /* as submitted: operation specific bytes */
} IDXDDesc;

/* A stretch of RAM that was read last: spares the next one a translation */
typedef struct IDXDWindow {
    hwaddr addr;
    hwaddr len;                 /* 0: none yet */
    const uint8_t *host;
} IDXDWindow;

#define IDXD_NONE_PASSED    UINT32_MAX

/* Where and under which rules a descriptor runs */
typedef struct IDXDOpEnv {
    AddressSpace *as;           /* the device's DMA address space */
    MemTxAttrs attrs;
    /*
     * For descriptors that run one after the other, or NULL.  Good for as
     * long as the caller holds the RCU read lock and the BQL.
     */
    IDXDWindow *window;
    /*
     * For descriptors that are checked one after the other, or NULL: opcode
     * and flags of the last that was fit, IDXD_NONE_PASSED at first.
     */
    uint32_t *passed;
    uint64_t gen_cap;           /* GENCAP as the guest reads it */
    uint64_t op_cap[4];         /* OPCAP as the guest reads it */
    uint64_t max_xfer;          /* bytes: the work queue's limit */
    uint32_t max_batch;         /* descriptors: the work queue's limit */
    bool in_batch;              /* a member of a batch */
    bool wq_bof;                /* WQCFG block on fault enable */
    bool wq_pasid;              /* WQCFG PASID enable */
    bool wq_priv;               /* WQCFG privileged mode enable */
    /*
     * Fault injection: the byte at this address is not present.  An operation
     * that reaches it ends with a page fault (0x03, with BOF 0x04), as with a
     * PASID.
     */
    bool inject_fault;
    uint64_t inject_fault_addr;
} IDXDOpEnv;

/* What a completion record says */
typedef struct IDXDOpResult {
    uint8_t status;             /* byte 0: IDXD_ST_*, | IDXD_ST_FAULT_WRITE */
    uint8_t result;             /* byte 1 */
    uint8_t fault_info;         /* byte 2 */
    uint32_t bytes_completed;   /* byte 4; descriptors of a batch */
    uint64_t fault_addr;        /* byte 8 */
    uint8_t specific[16];       /* bytes 16 to 31, as in memory */
} IDXDOpResult;

/* GENCAP bits that decide about descriptors */
#define IDXD_GENCAP_BOF             (1ull << 0)
#define IDXD_GENCAP_OVERLAP         (1ull << 1)
#define IDXD_GENCAP_CC_MEM          (1ull << 2)
#define IDXD_GENCAP_CC_CACHE        (1ull << 3)
#define IDXD_GENCAP_DRDBK           (1ull << 8)
#define IDXD_GENCAP_DRAIN_RDBK      (1ull << 9)
#define IDXD_GENCAP_BATCH1          (1ull << 52)

/* Split the bytes of a submitted descriptor into fields; @raw has to stay */
void idxd_desc_decode(IDXDDesc *desc, const uint8_t raw[IDXD_DESC_SIZE]);

/*
 * Is the descriptor well formed?  Opcode, flags, reserved fields, sizes and
 * alignments, also those of batch and drain.  Not looked at, because they
 * depend on the device's state: interrupt handle and privilege.
 *
 * Returns false and fills @res (status, for 0x11 the offending flags) if not.
 * Where several things are wrong the first of this order is reported: opcode,
 * record address, flags, reserved fields, sizes, alignments, overlaps.
 */
bool idxd_op_check(const IDXDOpEnv *env, const IDXDDesc *desc,
                   IDXDOpResult *res);

/*
 * Execute a descriptor that passed idxd_op_check() and fill @res.  Batch and
 * drain do nothing here and succeed.  Does not write the completion record.
 */
void idxd_op_run(const IDXDOpEnv *env, const IDXDDesc *desc,
                 IDXDOpResult *res);

/* Bytes a descriptor reads and writes if it runs to its end, for timing */
uint64_t idxd_op_read_bytes(const IDXDDesc *desc);
uint64_t idxd_op_write_bytes(const IDXDDesc *desc);

/*
 * The 32 bytes of a completion record, byte 0 last: software polls it, and
 * @cr may be guest memory.
 */
static inline void idxd_completion_encode(uint8_t cr[IDXD_CR_SIZE],
                                          const IDXDOpResult *res)
{
    cr[1] = res->result;
    cr[2] = res->fault_info;
    cr[3] = 0;
    stl_le_p(cr + 4, res->bytes_completed);
    stq_le_p(cr + 8, res->fault_addr);
    memcpy(cr + 16, res->specific, sizeof(res->specific));
    /* Whoever sees the status has to see the rest */
    smp_wmb();
    qatomic_set(cr, res->status);
}

/* Bytes of one block of a DIF operation: its data, in source, in destination */
typedef struct IDXDDifSteps {
    unsigned block;
    unsigned in;
    unsigned out;
} IDXDDifSteps;

void idxd_dif_steps(const IDXDDesc *desc, IDXDDifSteps *steps);

/* "compare", "crcgen", ... for counters and traces; NULL: no such operation */
const char *idxd_op_name(uint8_t opcode);

#endif
