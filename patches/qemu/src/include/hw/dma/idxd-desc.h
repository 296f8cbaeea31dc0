/*
 * Intel Data Streaming Accelerator: work descriptors and completion records
 *
 * What software and device exchange in memory: opcodes, flags, status codes
 * and the layout of the two structures.  Device model and tests share it, so
 * it depends on nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_DMA_IDXD_DESC_H
#define HW_DMA_IDXD_DESC_H

#define IDXD_DESC_SIZE              64
#define IDXD_CR_SIZE                32

/* Opcodes; each is also the number of its bit in OPCAP */
#define IDXD_OP_NOOP                0x00
#define IDXD_OP_BATCH               0x01
#define IDXD_OP_DRAIN               0x02
#define IDXD_OP_MEMMOVE             0x03
#define IDXD_OP_FILL                0x04
#define IDXD_OP_COMPARE             0x05
#define IDXD_OP_COMPVAL             0x06
#define IDXD_OP_CREATE_DELTA        0x07
#define IDXD_OP_APPLY_DELTA         0x08
#define IDXD_OP_DUALCAST            0x09
#define IDXD_OP_CRCGEN              0x10
#define IDXD_OP_COPY_CRC            0x11
#define IDXD_OP_DIF_CHECK           0x12
#define IDXD_OP_DIF_INSERT          0x13
#define IDXD_OP_DIF_STRIP           0x14
#define IDXD_OP_DIF_UPDATE          0x15
#define IDXD_OP_CFLUSH              0x20

/* Flags, bits 23:0 of the 32-bit word at byte 4 */
#define IDXD_FLAG_FENCE             (1u << 0)
#define IDXD_FLAG_BOF               (1u << 1)   /* block on fault */
#define IDXD_FLAG_CRAV              (1u << 2)   /* record address valid */
#define IDXD_FLAG_RCR               (1u << 3)   /* request record */
#define IDXD_FLAG_RCI               (1u << 4)   /* request interrupt */
#define IDXD_FLAG_CRSTS             (1u << 5)   /* record steering */
#define IDXD_FLAG_RESERVED6         (1u << 6)
#define IDXD_FLAG_CR                (1u << 7)   /* check result */
#define IDXD_FLAG_CC                (1u << 8)   /* cache control */
#define IDXD_FLAG_ADDR1_TCS         (1u << 9)
#define IDXD_FLAG_ADDR2_TCS         (1u << 10)
#define IDXD_FLAG_ADDR3_TCS         (1u << 11)
#define IDXD_FLAG_CR_TCS            (1u << 12)
#define IDXD_FLAG_STORD             (1u << 13)  /* strict ordering */
#define IDXD_FLAG_DRDBK             (1u << 14)  /* destination readback */
#define IDXD_FLAG_DSTS              (1u << 15)  /* destination steering */
#define IDXD_FLAG_MASK              0x00ffffffu

/* Operation specific flags */
#define IDXD_FLAG_CRC_READ_SEED     (1u << 16)
#define IDXD_FLAG_CRC_NO_INVERT     (1u << 17)  /* no inversion, reflection */
#define IDXD_FLAG_CRC_NO_REFLECT    (1u << 18)  /* data bits not reflected */
#define IDXD_FLAG_DRAIN_RDBK1       (1u << 16)
#define IDXD_FLAG_DRAIN_RDBK2       (1u << 17)
#define IDXD_FLAG_DRAIN_NO_IMPL_A   (1u << 18)
#define IDXD_FLAG_DRAIN_NO_IMPL_B   (1u << 19)

/* Status codes, bits 5:0 of completion record byte 0 */
#define IDXD_ST_NONE                0x00
#define IDXD_ST_SUCCESS             0x01
#define IDXD_ST_SUCCESS_FALSE       0x02    /* check result: not as expected */
#define IDXD_ST_PAGE_FAULT          0x03
#define IDXD_ST_PAGE_FAULT_INVALID  0x04    /* page request not served */
#define IDXD_ST_BATCH_FAIL          0x05
#define IDXD_ST_BATCH_PAGE_FAULT    0x06
#define IDXD_ST_DELTA_OFFSET_ORDER  0x07
#define IDXD_ST_DELTA_OFFSET_RANGE  0x08
#define IDXD_ST_DIF_ERROR           0x09
#define IDXD_ST_BAD_OPCODE          0x10
#define IDXD_ST_INVALID_FLAGS       0x11
#define IDXD_ST_RESERVED_FIELD      0x12
#define IDXD_ST_XFER_SIZE           0x13
#define IDXD_ST_DESC_COUNT          0x14
#define IDXD_ST_DELTA_RECORD_SIZE   0x15
#define IDXD_ST_OVERLAP             0x16
#define IDXD_ST_DUALCAST_ALIGN      0x17
#define IDXD_ST_DESC_LIST_ALIGN     0x18
#define IDXD_ST_INT_HANDLE          0x19
#define IDXD_ST_CR_TRANSLATION      0x1a
#define IDXD_ST_CR_ALIGN            0x1b
#define IDXD_ST_ADDR_ALIGN          0x1c
#define IDXD_ST_PRIVILEGE           0x1d
#define IDXD_ST_TRAFFIC_CLASS       0x1e
#define IDXD_ST_RDBK_FAULT          0x1f
#define IDXD_ST_HW_ERROR            0x20
#define IDXD_ST_RDBK_TIMEOUT        0x21
#define IDXD_ST_TRANSLATION         0x22
#define IDXD_ST_CODE_MASK           0x3f
#define IDXD_ST_FAULT_WRITE         0x80    /* the faulting access: a write */

/* Offsets of operation specific fields in a descriptor */
#define IDXD_D_EXPECTED             40      /* compare, compare pattern */
#define IDXD_D_DELTA_ADDR           40      /* create delta record */
#define IDXD_D_DELTA_MAX            48
#define IDXD_D_DELTA_EXPECTED       56      /* one bit for each result */
#define IDXD_D_DELTA_SIZE           40      /* apply delta record */
#define IDXD_D_DST2                 40      /* dualcast */
#define IDXD_D_CRC_SEED             40      /* CRC, copy with CRC */
#define IDXD_D_CRC_SEED_ADDR        48
#define IDXD_D_DIF_SRC_FLAGS        40
#define IDXD_D_DIF_DST_FLAGS        41
#define IDXD_D_DIF_FLAGS            42
#define IDXD_D_DIF_SRC_TAGS         48
#define IDXD_D_DIF_DST_TAGS         56

/* Delta records: what an entry is, the limits, results of creating one */
#define IDXD_DELTA_ENTRY            10      /* 2: offset / 8, 8: data */
#define IDXD_DELTA_SOURCE_MAX       (512 * 1024)
#define IDXD_DELTA_RECORD_MIN       80
#define IDXD_DELTA_EQUAL            0
#define IDXD_DELTA_DIFFERENT        1
#define IDXD_DELTA_NO_ROOM          2

/* Data integrity field: guard, application tag, reference tag; big endian */
#define IDXD_DIF_SIZE               8
#define IDXD_DIF_BLOCK_MAX          4104

/* DIF tags in descriptors and completion records; little endian */
#define IDXD_DIF_TAG_REF            0
#define IDXD_DIF_TAG_APP_MASK       4       /* bits that are not in use */
#define IDXD_DIF_TAG_APP            6

/* DIF flags; bits 1:0 are the block size: 512, 520, 4096, 4104 */
#define IDXD_DIF_INVERT_SEED        0x04
#define IDXD_DIF_INVERT_RESULT      0x08
#define IDXD_DIF_FLAGS_RESERVED     0xf0

/* Source and destination DIF flags */
#define IDXD_DIF_ALL_F_ERROR        0x01    /* source only */
#define IDXD_DIF_ALL_F_DETECT       0x02    /* source only */
#define IDXD_DIF_APP_F_DETECT       0x04    /* source only */
#define IDXD_DIF_TAGS_F_DETECT      0x08    /* source only */
#define IDXD_DIF_DST_RESERVED       0x07
#define IDXD_DIF_APP_PASS           0x08    /* destination only */
#define IDXD_DIF_APP_INCREMENT      0x10
#define IDXD_DIF_GUARD_OFF          0x20    /* not checked; passed through */
#define IDXD_DIF_REF_OFF            0x40    /* not checked; passed through */
#define IDXD_DIF_REF_FIXED          0x80

/* What a DIF check found: the result byte */
#define IDXD_DIF_BAD_GUARD          0x01
#define IDXD_DIF_BAD_APP            0x02
#define IDXD_DIF_BAD_REF            0x04
#define IDXD_DIF_BAD_ALL_F          0x08

#endif
