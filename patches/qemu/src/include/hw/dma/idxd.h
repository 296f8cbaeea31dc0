/*
 * Intel Data Streaming Accelerator (DSA): what software sees of the device
 *
 * Registers, configuration tables, commands and portals of a DSA 1.0
 * function.  Descriptors and completion records are in hw/dma/idxd-desc.h.
 * Device model and tests share this file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_DMA_IDXD_H
#define HW_DMA_IDXD_H

#include "hw/registerfields.h"
#include "hw/dma/idxd-desc.h"

#define TYPE_IDXD_DSA               "idxd-dsa"

#define IDXD_PCI_DEVICE_ID          0x0b25
#define IDXD_VERSION_1_0            0x100

/* Limits of the model */
#define IDXD_MAX_WQS                32
#define IDXD_MAX_ENGINES            16
#define IDXD_MAX_GROUPS             8
#define IDXD_MAX_WQ_SIZE            4096
#define IDXD_MAX_VECTORS            (IDXD_MAX_WQS + 1)
#define IDXD_IMS_ENTRIES            2048

/* BARs */
#define IDXD_BAR_MMIO               0
#define IDXD_BAR_PORTALS            2
#define IDXD_MMIO_SIZE              0x10000

/* BAR 2: four pages for each work queue, any 64-byte slot is as good */
#define IDXD_PORTAL_SIZE            0x4000
#define IDXD_PORTAL_PAGE            0x1000
#define IDXD_PORTAL_LIMITED         0x1000  /* accepts up to the threshold */
#define IDXD_PORTAL_IMS             0x2000  /* handles are IMS entries */

/* BAR 0: registers */
#define IDXD_VERSION                0x00
#define IDXD_GENCAP                 0x10
#define IDXD_WQCAP                  0x20
#define IDXD_GRPCAP                 0x30
#define IDXD_ENGCAP                 0x38
#define IDXD_OPCAP                  0x40
#define IDXD_OFFSETS                0x60
#define IDXD_GENCFG                 0x80
#define IDXD_GENCTRL                0x88
#define IDXD_GENSTS                 0x90
#define IDXD_INTCAUSE               0x98
#define IDXD_CMD                    0xa0
#define IDXD_CMDSTS                 0xa8
#define IDXD_CMDCAP                 0xb0
#define IDXD_SWERR                  0xc0
#define IDXD_REGS_END               0x100

/* BAR 0: tables; OFFSETS tells software */
#define IDXD_GRPCFG                 0x400
#define IDXD_GRPCFG_STRIDE          64
#define IDXD_MSIXPERM               0x600
#define IDXD_MSIXPERM_STRIDE        8
#define IDXD_WQCFG                  0x800
#define IDXD_WQCFG_STRIDE           32
#define IDXD_WQCFG_DWORDS           (IDXD_WQCFG_STRIDE / 4)
#define IDXD_MSIX_TABLE             0x2000
#define IDXD_MSIX_PBA               0x3000
#define IDXD_IMS                    0x8000
#define IDXD_IMS_STRIDE             16

/* The IDXD_GENCAP_* bits that decide about descriptors are in idxd-ops.h */
FIELD(IDXD_GENCAP, CMDCAP, 4, 1)
FIELD(IDXD_GENCAP, MAX_XFER_SHIFT, 16, 5)
FIELD(IDXD_GENCAP, MAX_BATCH_SHIFT, 21, 4)
FIELD(IDXD_GENCAP, IMS_SIZE, 25, 6)         /* units of 256 entries */
FIELD(IDXD_GENCAP, CONFIG, 31, 1)           /* tables are writable */
/* Bit 38 has no published meaning; Sapphire Rapids reports it */
FIELD(IDXD_GENCAP, BIT38, 38, 1)

FIELD(IDXD_WQCAP, TOTAL_SIZE, 0, 16)
FIELD(IDXD_WQCAP, NUM_WQS, 16, 8)
FIELD(IDXD_WQCAP, WQCFG_SIZE, 24, 4)        /* stride 32 << n */
FIELD(IDXD_WQCAP, SHARED, 48, 1)
FIELD(IDXD_WQCAP, DEDICATED, 49, 1)
FIELD(IDXD_WQCAP, PRIORITY, 51, 1)
FIELD(IDXD_WQCAP, OCCUPANCY, 52, 1)
FIELD(IDXD_WQCAP, OCCUPANCY_INT, 53, 1)

FIELD(IDXD_GRPCAP, NUM_GROUPS, 0, 8)
FIELD(IDXD_GRPCAP, READ_BUFFERS, 8, 8)
FIELD(IDXD_GRPCAP, READ_BUFFER_CONTROL, 16, 1)
FIELD(IDXD_GRPCAP, READ_BUFFER_LIMIT, 17, 1)

FIELD(IDXD_ENGCAP, NUM_ENGINES, 0, 8)

FIELD(IDXD_OFFSETS, GRPCFG, 0, 16)          /* units of 256 bytes */
FIELD(IDXD_OFFSETS, WQCFG, 16, 16)
FIELD(IDXD_OFFSETS, MSIXPERM, 32, 16)
FIELD(IDXD_OFFSETS, IMS, 48, 16)

FIELD(IDXD_GENCFG, READ_BUFFER_LIMIT, 0, 8)
#define IDXD_GENCFG_WRITABLE        0x000000ff

#define IDXD_GENCTRL_SWERR_INT      (1u << 0)
#define IDXD_GENCTRL_HALT_INT       (1u << 1)
#define IDXD_GENCTRL_WRITABLE       0x00000003

FIELD(IDXD_GENSTS, STATE, 0, 2)
FIELD(IDXD_GENSTS, RESET_NEEDED, 2, 2)

/* GENSTS.STATE and WQCFG[6].STATE; only the device halts */
#define IDXD_STATE_DISABLED         0
#define IDXD_STATE_ENABLED          1
#define IDXD_STATE_DRAINING         2
#define IDXD_STATE_HALT             3

/* GENSTS.RESET_NEEDED */
#define IDXD_RESET_SOFT             0
#define IDXD_RESET_FLR              1

#define IDXD_INTC_SWERR             (1u << 0)
#define IDXD_INTC_CMD               (1u << 1)
#define IDXD_INTC_OCCUPANCY         (1u << 2)
#define IDXD_INTC_HALT              (1u << 4)

/* Commands */
FIELD(IDXD_CMD, OPERAND, 0, 20)
FIELD(IDXD_CMD, CODE, 20, 5)
FIELD(IDXD_CMD, INTERRUPT, 31, 1)

FIELD(IDXD_CMDSTS, ERROR, 0, 8)
FIELD(IDXD_CMDSTS, RESULT, 8, 16)
FIELD(IDXD_CMDSTS, ACTIVE, 31, 1)

#define IDXD_CMD_ENABLE_DEVICE      1
#define IDXD_CMD_DISABLE_DEVICE     2
#define IDXD_CMD_DRAIN_ALL          3
#define IDXD_CMD_ABORT_ALL          4
#define IDXD_CMD_RESET_DEVICE       5
#define IDXD_CMD_ENABLE_WQ          6       /* operand: index */
#define IDXD_CMD_DISABLE_WQ         7       /* from here on: bitmap */
#define IDXD_CMD_DRAIN_WQ           8
#define IDXD_CMD_ABORT_WQ           9
#define IDXD_CMD_RESET_WQ           10
#define IDXD_CMD_DRAIN_PASID        11      /* operand: PASID */
#define IDXD_CMD_ABORT_PASID        12
#define IDXD_CMD_REQUEST_INT_HANDLE 13      /* operand: table index */
#define IDXD_CMD_RELEASE_INT_HANDLE 14

/* Operand of the WQ commands that take a bitmap: 16 WQs of bank n */
FIELD(IDXD_CMD_WQS, BITMAP, 0, 16)
FIELD(IDXD_CMD_WQS, BANK, 16, 4)
/* Operand of the interrupt handle commands */
FIELD(IDXD_CMD_HANDLE, INDEX, 0, 16)
FIELD(IDXD_CMD_HANDLE, IMS, 16, 1)

#define IDXD_CMDERR_NONE            0x00
#define IDXD_CMDERR_INVALID_CMD     0x01
#define IDXD_CMDERR_INVALID_WQ      0x02
#define IDXD_CMDERR_HARDWARE        0x03
#define IDXD_CMDERR_RESERVED        0x04
#define IDXD_CMDERR_HALTED          0x05
#define IDXD_CMDERR_DEV_NOT_DISABLED 0x10
#define IDXD_CMDERR_CONFIG          0x11
#define IDXD_CMDERR_BUS_MASTER      0x12
#define IDXD_CMDERR_PASID_CONFIG    0x13
#define IDXD_CMDERR_TOTAL_WQ_SIZE   0x14
#define IDXD_CMDERR_GROUP_WQ        0x15    /* WQ in no or two groups */
#define IDXD_CMDERR_GROUP_ENGINE    0x16    /* engine in two groups */
#define IDXD_CMDERR_GROUP_PARTS     0x17    /* WQs without engine or reverse */
#define IDXD_CMDERR_READ_BUFFERS    0x18
#define IDXD_CMDERR_DEV_NOT_ENABLED_WQ 0x20 /* enable WQ */
#define IDXD_CMDERR_WQ_NOT_DISABLED 0x21
#define IDXD_CMDERR_WQ_SIZE         0x22
#define IDXD_CMDERR_WQ_PRIORITY     0x23
#define IDXD_CMDERR_WQ_MODE         0x24
#define IDXD_CMDERR_WQ_BOF          0x25
#define IDXD_CMDERR_WQ_PASID        0x26
#define IDXD_CMDERR_WQ_MAX_BATCH    0x27
#define IDXD_CMDERR_WQ_MAX_XFER     0x28
#define IDXD_CMDERR_WQ_PRIVILEGE    0x2a
#define IDXD_CMDERR_WQ_OCCUPANCY    0x2b
#define IDXD_CMDERR_WQ_ATS          0x2c
#define IDXD_CMDERR_DEV_NOT_ENABLED 0x31
#define IDXD_CMDERR_WQ_NOT_ENABLED  0x32
#define IDXD_CMDERR_HANDLE_INVALID  0x41
#define IDXD_CMDERR_HANDLE_NONE     0x42

/* SWERR, four qwords; codes are those of completion records and these */
FIELD(IDXD_SWERR0, VALID, 0, 1)
FIELD(IDXD_SWERR0, OVERFLOW, 1, 1)
FIELD(IDXD_SWERR0, DESC_VALID, 2, 1)
FIELD(IDXD_SWERR0, WQ_VALID, 3, 1)
FIELD(IDXD_SWERR0, BATCH, 4, 1)
FIELD(IDXD_SWERR0, WRITE, 5, 1)
FIELD(IDXD_SWERR0, PRIV, 6, 1)
FIELD(IDXD_SWERR0, INFO_VALID, 7, 1)
FIELD(IDXD_SWERR0, ERROR, 8, 8)
FIELD(IDXD_SWERR0, WQ, 16, 8)
FIELD(IDXD_SWERR0, OPERATION, 32, 8)
FIELD(IDXD_SWERR0, PASID, 40, 20)
FIELD(IDXD_SWERR1, BATCH_INDEX, 0, 16)
FIELD(IDXD_SWERR1, INFO, 32, 32)

#define IDXD_SWERR_CONFIG_CHANGE    0x51    /* and the device halts */
#define IDXD_SWERR_DWQ_OVERFLOW     0x53

/* MSIXPERM: who may use an MSI-X entry */
FIELD(IDXD_MSIXPERM, IGNORE, 2, 1)
FIELD(IDXD_MSIXPERM, PASID_EN, 3, 1)
FIELD(IDXD_MSIXPERM, PASID, 12, 20)
#define IDXD_MSIXPERM_WRITABLE      0xfffff00c

/* GRPCFG */
#define IDXD_GRPCFG_WQS             0       /* four qwords */
#define IDXD_GRPCFG_ENGINES         32
#define IDXD_GRPCFG_FLAGS           40
FIELD(IDXD_GRPFLAGS, TC_A, 0, 3)
FIELD(IDXD_GRPFLAGS, TC_B, 3, 3)
FIELD(IDXD_GRPFLAGS, USE_READ_BUFFER_LIMIT, 7, 1)
FIELD(IDXD_GRPFLAGS, READ_BUFFERS_RESERVED, 8, 8)
FIELD(IDXD_GRPFLAGS, READ_BUFFERS_ALLOWED, 20, 8)
#define IDXD_GRPFLAGS_WRITABLE      0x0ff0ffbf

/* WQCFG, by dword */
FIELD(IDXD_WQCFG0, SIZE, 0, 16)
FIELD(IDXD_WQCFG1, THRESHOLD, 0, 16)
FIELD(IDXD_WQCFG2, DEDICATED, 0, 1)
FIELD(IDXD_WQCFG2, BOF, 1, 1)
FIELD(IDXD_WQCFG2, ATS_DISABLE, 2, 1)
FIELD(IDXD_WQCFG2, PRIORITY, 4, 4)
FIELD(IDXD_WQCFG2, PASID, 8, 20)
FIELD(IDXD_WQCFG2, PASID_EN, 28, 1)
FIELD(IDXD_WQCFG2, PRIV, 29, 1)
FIELD(IDXD_WQCFG3, MAX_XFER_SHIFT, 0, 5)
FIELD(IDXD_WQCFG3, MAX_BATCH_SHIFT, 5, 4)
FIELD(IDXD_WQCFG4, HANDLE, 0, 16)
FIELD(IDXD_WQCFG4, TABLE, 16, 1)            /* 1: the handle is an IMS entry */
FIELD(IDXD_WQCFG5, LIMIT, 0, 16)
FIELD(IDXD_WQCFG5, INT_EN, 16, 1)
FIELD(IDXD_WQCFG6, OCCUPANCY, 0, 16)
FIELD(IDXD_WQCFG6, INT, 16, 1)              /* write 1 to clear */
FIELD(IDXD_WQCFG6, MODE_SUPPORT, 29, 1)
FIELD(IDXD_WQCFG6, STATE, 30, 2)

/* IMS entries: as MSI-X table entries, with a PASID in the control word */
FIELD(IDXD_IMS_CTRL, MASK, 0, 1)
FIELD(IDXD_IMS_CTRL, PENDING, 1, 1)
FIELD(IDXD_IMS_CTRL, IGNORE, 2, 1)
FIELD(IDXD_IMS_CTRL, PASID_EN, 3, 1)
FIELD(IDXD_IMS_CTRL, PASID, 12, 20)
#define IDXD_IMS_CTRL_WRITABLE      0xfffff00d

#endif /* HW_DMA_IDXD_H */
