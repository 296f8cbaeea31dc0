/*
 * Intel Data Streaming Accelerator (DSA)
 *
 * A DSA 1.0 function as in Sapphire Rapids: registers, configuration tables,
 * portals and interrupts.  Commands are in idxd-cmd.c, what happens to
 * descriptors is in idxd-engine.c.
 *
 * Reference: Intel Data Streaming Accelerator Architecture Specification,
 * document 341204.
 *
 * Not modelled: address translation services, PASIDs in memory accesses and
 * page requests.  All accesses are untranslated, by the function's requester
 * id; a vIOMMU, if there is one, sees them.  A shared work queue's PASIDs
 * serve to tell submitters apart.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/host-utils.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/direct_store.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "idxd-engine.h"
#include "trace.h"

#define IDXD_CAP_EXP                0x40
#define IDXD_CAP_MSIX               0x80
#define IDXD_CAP_PM                 0x90
#define IDXD_CAP_AER                0x100

/* What idxd-ops.c executes */
#define IDXD_OPCAP_ALL              UINT64_C(0x1003f03ff)

/* A time property that was not set: the preset's value holds */
#define IDXD_TIME_UNSET             UINT64_MAX

/* Interrupts */

void idxd_interrupt(IDXDState *s, bool ims, uint16_t handle)
{
    PCIDevice *pci = &s->parent_obj;
    uint32_t *entry;
    MSIMessage msg;

    if (!ims) {
        if (handle > s->num_wqs ||
            FIELD_EX32(s->msixperm[handle], IDXD_MSIXPERM, IGNORE)) {
            return;
        }
        trace_idxd_interrupt("msix", handle);
        s->stats.interrupts++;
        msix_notify(pci, handle);
        return;
    }

    if (handle >= IDXD_IMS_ENTRIES) {
        return;
    }
    entry = &s->ims[handle * 4];
    if (FIELD_EX32(entry[3], IDXD_IMS_CTRL, IGNORE)) {
        return;
    }
    if (FIELD_EX32(entry[3], IDXD_IMS_CTRL, MASK)) {
        entry[3] = FIELD_DP32(entry[3], IDXD_IMS_CTRL, PENDING, 1);
        return;
    }
    trace_idxd_interrupt("ims", handle);
    s->stats.interrupts++;
    msg.address = entry[0] | (uint64_t)entry[1] << 32;
    msg.data = entry[2];
    msi_send_message(pci, msg);
}

bool idxd_handle_allowed(IDXDState *s, unsigned wq, bool ims, uint16_t handle,
                         uint32_t pasid)
{
    uint32_t perm;
    bool with_pasid;

    if (ims) {
        if (handle >= IDXD_IMS_ENTRIES) {
            return false;
        }
        perm = s->ims[handle * 4 + 3];
    } else {
        if (handle > s->num_wqs) {
            return false;
        }
        perm = s->msixperm[handle];
    }
    /* Both kinds of entry have the PASID at the same place */
    with_pasid = FIELD_EX32(perm, IDXD_MSIXPERM, PASID_EN);
    return with_pasid == idxd_wq_pasid(&s->wqs[wq]) &&
           (!with_pasid || FIELD_EX32(perm, IDXD_MSIXPERM, PASID) == pasid);
}

/* Vector 0 tells the driver to look at INTCAUSE */
void idxd_cause(IDXDState *s, uint32_t cause)
{
    s->intcause |= cause;
    idxd_interrupt(s, false, 0);
}

void idxd_occupancy_fell(IDXDState *s, unsigned index)
{
    IDXDWorkQueue *wq = &s->wqs[index];

    if (!FIELD_EX32(wq->cfg[5], IDXD_WQCFG5, INT_EN) ||
        FIELD_EX32(wq->cfg[6], IDXD_WQCFG6, INT) ||
        wq->occupancy > FIELD_EX32(wq->cfg[5], IDXD_WQCFG5, LIMIT)) {
        return;
    }
    wq->cfg[6] = FIELD_DP32(wq->cfg[6], IDXD_WQCFG6, INT, 1);
    s->intcause |= IDXD_INTC_OCCUPANCY;
    idxd_interrupt(s, FIELD_EX32(wq->cfg[4], IDXD_WQCFG4, TABLE),
                   FIELD_EX32(wq->cfg[4], IDXD_WQCFG4, HANDLE));
}

void idxd_swerr(IDXDState *s, uint8_t code, unsigned wq, const IDXDDesc *desc,
                int batch_index, uint64_t addr, uint32_t info)
{
    uint64_t q = 0;

    trace_idxd_swerr(code, wq, desc ? desc->opcode : 0, batch_index, addr);
    s->stats.sw_errors++;
    if (FIELD_EX64(s->swerr[0], IDXD_SWERR0, VALID)) {
        s->swerr[0] = FIELD_DP64(s->swerr[0], IDXD_SWERR0, OVERFLOW, 1);
        return;
    }

    q = FIELD_DP64(q, IDXD_SWERR0, VALID, 1);
    q = FIELD_DP64(q, IDXD_SWERR0, ERROR, code & ~IDXD_ST_FAULT_WRITE);
    q = FIELD_DP64(q, IDXD_SWERR0, WRITE, !!(code & IDXD_ST_FAULT_WRITE));
    if (wq < s->num_wqs) {
        q = FIELD_DP64(q, IDXD_SWERR0, WQ_VALID, 1);
        q = FIELD_DP64(q, IDXD_SWERR0, WQ, wq);
    }
    if (desc) {
        q = FIELD_DP64(q, IDXD_SWERR0, DESC_VALID, 1);
        q = FIELD_DP64(q, IDXD_SWERR0, OPERATION, desc->opcode);
        q = FIELD_DP64(q, IDXD_SWERR0, PASID, desc->pasid);
        q = FIELD_DP64(q, IDXD_SWERR0, PRIV, desc->priv);
        q = FIELD_DP64(q, IDXD_SWERR0, BATCH, batch_index >= 0);
    }
    q = FIELD_DP64(q, IDXD_SWERR0, INFO_VALID, info != 0);
    s->swerr[0] = q;
    q = FIELD_DP64(0, IDXD_SWERR1, BATCH_INDEX, MAX(batch_index, 0));
    s->swerr[1] = FIELD_DP64(q, IDXD_SWERR1, INFO, info);
    s->swerr[2] = addr;
    s->swerr[3] = 0;
    if (s->genctrl & IDXD_GENCTRL_SWERR_INT) {
        idxd_cause(s, IDXD_INTC_SWERR);
    }
}

/* Registers and tables, as 32-bit words */

static uint64_t idxd_offsets(void)
{
    uint64_t v = 0;

    v = FIELD_DP64(v, IDXD_OFFSETS, GRPCFG, IDXD_GRPCFG >> 8);
    v = FIELD_DP64(v, IDXD_OFFSETS, WQCFG, IDXD_WQCFG >> 8);
    v = FIELD_DP64(v, IDXD_OFFSETS, MSIXPERM, IDXD_MSIXPERM >> 8);
    return FIELD_DP64(v, IDXD_OFFSETS, IMS, IDXD_IMS >> 8);
}

static uint32_t idxd_gensts(const IDXDState *s)
{
    uint32_t v = FIELD_DP32(0, IDXD_GENSTS, STATE, s->state);

    return FIELD_DP32(v, IDXD_GENSTS, RESET_NEEDED, s->reset_needed);
}

static uint32_t idxd_cmdcap(const IDXDState *s)
{
    return s->cmdcap ? MAKE_64BIT_MASK(IDXD_CMD_ENABLE_DEVICE,
                                       IDXD_CMD_RELEASE_INT_HANDLE) : 0;
}

static uint32_t idxd_half(uint64_t v, hwaddr addr)
{
    return v >> (addr & 4 ? 32 : 0);
}

static uint32_t idxd_read32(IDXDState *s, hwaddr addr)
{
    switch (addr & ~7) {
    case IDXD_VERSION:
        return addr & 4 ? 0 : IDXD_VERSION_1_0;
    case IDXD_GENCAP:
        return idxd_half(s->gencap, addr);
    case IDXD_WQCAP:
        return idxd_half(s->wqcap, addr);
    case IDXD_GRPCAP:
        return idxd_half(s->grpcap, addr);
    case IDXD_ENGCAP:
        return idxd_half(s->engcap, addr);
    case IDXD_OPCAP:
        return idxd_half(s->op_cap, addr);
    case IDXD_OFFSETS:
        return idxd_half(idxd_offsets(), addr);
    case IDXD_SWERR ... IDXD_SWERR + 0x1f:
        return idxd_half(s->swerr[(addr - IDXD_SWERR) / 8], addr);
    }

    switch (addr) {
    case IDXD_GENCFG:
        return s->gencfg;
    case IDXD_GENCTRL:
        return s->genctrl;
    case IDXD_GENSTS:
        return idxd_gensts(s);
    case IDXD_INTCAUSE:
        return s->intcause;
    case IDXD_CMDSTS:
        return s->cmdsts;
    case IDXD_CMDCAP:
        return idxd_cmdcap(s);
    }

    if (addr >= IDXD_GRPCFG &&
        addr < IDXD_GRPCFG + s->num_groups * IDXD_GRPCFG_STRIDE) {
        addr -= IDXD_GRPCFG;
        return s->groups[addr / IDXD_GRPCFG_STRIDE]
               .cfg[addr % IDXD_GRPCFG_STRIDE / 4];
    }
    if (addr >= IDXD_MSIXPERM && !(addr & 4) &&
        addr < IDXD_MSIXPERM + (s->num_wqs + 1) * IDXD_MSIXPERM_STRIDE) {
        return s->msixperm[(addr - IDXD_MSIXPERM) / IDXD_MSIXPERM_STRIDE];
    }
    if (addr >= IDXD_WQCFG &&
        addr < IDXD_WQCFG + s->num_wqs * IDXD_WQCFG_STRIDE) {
        IDXDWorkQueue *wq = &s->wqs[(addr - IDXD_WQCFG) / IDXD_WQCFG_STRIDE];
        unsigned dword = (addr - IDXD_WQCFG) % IDXD_WQCFG_STRIDE / 4;
        uint32_t v = wq->cfg[dword];

        if (dword == 6) {
            v = FIELD_DP32(v, IDXD_WQCFG6, OCCUPANCY, wq->occupancy);
            v = FIELD_DP32(v, IDXD_WQCFG6, STATE, wq->state);
        }
        return v;
    }
    if (addr >= IDXD_IMS && addr < IDXD_IMS + IDXD_IMS_ENTRIES *
                                              IDXD_IMS_STRIDE) {
        return s->ims[(addr - IDXD_IMS) / 4];
    }
    return 0;
}

static uint64_t idxd_mmio_read(void *opaque, hwaddr addr, unsigned size)
{
    IDXDState *s = opaque;
    uint64_t value = idxd_read32(s, addr);

    if (size == 8) {
        value |= (uint64_t)idxd_read32(s, addr + 4) << 32;
    }
    trace_idxd_mmio_read(addr, size, value);
    return value;
}

/* Bits of a WQCFG dword that a write may change, given the states */
static uint32_t idxd_wqcfg_mask(const IDXDState *s, const IDXDWorkQueue *wq,
                                unsigned dword)
{
    static const uint32_t enabled[IDXD_WQCFG_DWORDS] = {
        [1] = R_IDXD_WQCFG1_THRESHOLD_MASK,
        [4] = R_IDXD_WQCFG4_HANDLE_MASK | R_IDXD_WQCFG4_TABLE_MASK,
        [5] = R_IDXD_WQCFG5_LIMIT_MASK | R_IDXD_WQCFG5_INT_EN_MASK,
    };
    static const uint32_t disabled[IDXD_WQCFG_DWORDS] = {
        [2] = R_IDXD_WQCFG2_DEDICATED_MASK | R_IDXD_WQCFG2_BOF_MASK |
              R_IDXD_WQCFG2_ATS_DISABLE_MASK | R_IDXD_WQCFG2_PRIORITY_MASK |
              R_IDXD_WQCFG2_PASID_MASK | R_IDXD_WQCFG2_PASID_EN_MASK |
              R_IDXD_WQCFG2_PRIV_MASK,
        [3] = R_IDXD_WQCFG3_MAX_XFER_SHIFT_MASK |
              R_IDXD_WQCFG3_MAX_BATCH_SHIFT_MASK,
    };

    if (dword == 0) {
        return s->state == IDXD_STATE_DISABLED ? R_IDXD_WQCFG0_SIZE_MASK : 0;
    }
    if (wq->state == IDXD_STATE_DISABLED) {
        return enabled[dword] | disabled[dword];
    }
    return enabled[dword];
}

static void idxd_wqcfg_write(IDXDState *s, unsigned index, unsigned dword,
                             uint32_t value)
{
    IDXDWorkQueue *wq = &s->wqs[index];
    uint32_t mask = idxd_wqcfg_mask(s, wq, dword);

    wq->cfg[dword] = (wq->cfg[dword] & ~mask) | (value & mask);
    if (dword == 6) {
        wq->cfg[6] &= ~(value & R_IDXD_WQCFG6_INT_MASK);
    }
    if (dword == 5) {
        /* May be armed when it is already so low */
        idxd_occupancy_fell(s, index);
    }
}

static void idxd_grpcfg_write(IDXDState *s, unsigned group, unsigned offset,
                              uint32_t value)
{
    uint32_t mask = 0;

    if (s->state != IDXD_STATE_DISABLED) {
        return;                 /* drivers write the tables as they were */
    }
    switch (offset) {
    case IDXD_GRPCFG_WQS:
        mask = idxd_all_wqs(s);
        break;
    case IDXD_GRPCFG_ENGINES:
        mask = MAKE_64BIT_MASK(0, s->num_engines);
        break;
    case IDXD_GRPCFG_FLAGS:
        mask = IDXD_GRPFLAGS_WRITABLE;
        break;
    }
    s->groups[group].cfg[offset / 4] = value & mask;
}

static void idxd_ims_write(IDXDState *s, unsigned index, unsigned dword,
                           uint32_t value)
{
    uint32_t *entry = &s->ims[index * 4];

    if (dword < 3) {
        entry[dword] = value;
        return;
    }
    entry[3] = (value & IDXD_IMS_CTRL_WRITABLE) |
               (entry[3] & R_IDXD_IMS_CTRL_PENDING_MASK);
    if (FIELD_EX32(entry[3], IDXD_IMS_CTRL, PENDING) &&
        !FIELD_EX32(entry[3], IDXD_IMS_CTRL, MASK)) {
        entry[3] &= ~R_IDXD_IMS_CTRL_PENDING_MASK;
        idxd_interrupt(s, true, index);
    }
}

static void idxd_swerr_clear(IDXDState *s, uint32_t value)
{
    uint64_t clear = value & (R_IDXD_SWERR0_VALID_MASK |
                              R_IDXD_SWERR0_OVERFLOW_MASK);

    s->swerr[0] &= ~clear;
}

static void idxd_write32(IDXDState *s, hwaddr addr, uint32_t value)
{
    switch (addr) {
    case IDXD_GENCFG:
        if (s->state == IDXD_STATE_DISABLED) {
            s->gencfg = value & IDXD_GENCFG_WRITABLE;
        }
        return;
    case IDXD_GENCTRL:
        s->genctrl = value & IDXD_GENCTRL_WRITABLE;
        return;
    case IDXD_INTCAUSE:
        s->intcause &= ~value;
        return;
    case IDXD_CMD:
        idxd_command(s, value);
        return;
    case IDXD_SWERR:
        idxd_swerr_clear(s, value);
        return;
    }

    if (addr >= IDXD_GRPCFG &&
        addr < IDXD_GRPCFG + s->num_groups * IDXD_GRPCFG_STRIDE) {
        addr -= IDXD_GRPCFG;
        idxd_grpcfg_write(s, addr / IDXD_GRPCFG_STRIDE,
                          addr % IDXD_GRPCFG_STRIDE, value);
    } else if (addr >= IDXD_MSIXPERM && !(addr & 4) &&
               addr < IDXD_MSIXPERM + (s->num_wqs + 1) *
                                      IDXD_MSIXPERM_STRIDE) {
        s->msixperm[(addr - IDXD_MSIXPERM) / IDXD_MSIXPERM_STRIDE] =
            value & IDXD_MSIXPERM_WRITABLE;
    } else if (addr >= IDXD_WQCFG &&
               addr < IDXD_WQCFG + s->num_wqs * IDXD_WQCFG_STRIDE) {
        addr -= IDXD_WQCFG;
        idxd_wqcfg_write(s, addr / IDXD_WQCFG_STRIDE,
                         addr % IDXD_WQCFG_STRIDE / 4, value);
    } else if (addr >= IDXD_IMS && addr < IDXD_IMS + IDXD_IMS_ENTRIES *
                                                     IDXD_IMS_STRIDE) {
        addr -= IDXD_IMS;
        idxd_ims_write(s, addr / IDXD_IMS_STRIDE,
                       addr % IDXD_IMS_STRIDE / 4, value);
    }
}

static void idxd_mmio_write(void *opaque, hwaddr addr, uint64_t value,
                            unsigned size)
{
    IDXDState *s = opaque;

    trace_idxd_mmio_write(addr, size, value);
    idxd_write32(s, addr, value);
    if (size == 8) {
        idxd_write32(s, addr + 4, value >> 32);
    }
}

static const MemoryRegionOps idxd_mmio_ops = {
    .read = idxd_mmio_read,
    .write = idxd_mmio_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 8 },
    .impl = { .min_access_size = 4, .max_access_size = 8 },
};

/* Portals */

static void idxd_drop(IDXDState *s, hwaddr addr, const char *why)
{
    trace_idxd_drop(addr / IDXD_PORTAL_SIZE, why);
    qemu_log_mask(LOG_GUEST_ERROR, "%s: descriptor dropped at portal offset "
                  "0x%" HWADDR_PRIx ": %s\n", TYPE_IDXD_DSA, addr, why);
    s->stats.dropped++;
}

/* A posted write: a dedicated work queue takes it, or it is lost */
static void idxd_portal_store(IDXDState *s, hwaddr addr, const uint8_t *raw)
{
    unsigned index = addr / IDXD_PORTAL_SIZE;
    IDXDWorkQueue *wq;
    IDXDDesc desc;

    if (index >= s->num_wqs) {
        idxd_drop(s, addr, "no such work queue");
        return;
    }
    wq = &s->wqs[index];
    if (wq->state != IDXD_STATE_ENABLED) {
        idxd_drop(s, addr, "work queue not enabled");
    } else if (!idxd_wq_dedicated(wq)) {
        idxd_drop(s, addr, "posted write to a shared work queue");
    } else if (wq->occupancy >= FIELD_EX32(wq->cfg[0], IDXD_WQCFG0, SIZE)) {
        idxd_drop(s, addr, "dedicated work queue full");
        idxd_desc_decode(&desc, raw);
        desc.pasid = 0;
        desc.priv = idxd_wq_priv(wq);
        idxd_swerr(s, IDXD_SWERR_DWQ_OVERFLOW, index, &desc, -1,
                   desc.completion_addr, 0);
    } else {
        idxd_engine_accept(s, index, raw, addr & IDXD_PORTAL_IMS);
    }
}

/* A deferrable write: a shared work queue takes it or asks to retry */
static bool idxd_portal_enqueue(IDXDState *s, hwaddr addr, const uint8_t *raw)
{
    unsigned index = addr / IDXD_PORTAL_SIZE;
    IDXDWorkQueue *wq;
    uint32_t limit;

    if (index >= s->num_wqs) {
        return false;
    }
    wq = &s->wqs[index];
    if (wq->state != IDXD_STATE_ENABLED || idxd_wq_dedicated(wq)) {
        return false;
    }
    limit = FIELD_EX32(wq->cfg[0], IDXD_WQCFG0, SIZE);
    if (addr & IDXD_PORTAL_LIMITED) {
        limit = MIN(limit, FIELD_EX32(wq->cfg[1], IDXD_WQCFG1, THRESHOLD));
    }
    if (wq->occupancy >= limit) {
        return false;
    }
    idxd_engine_accept(s, index, raw, addr & IDXD_PORTAL_IMS);
    return true;
}

static uint64_t idxd_portal_read(void *opaque, hwaddr addr, unsigned size)
{
    return UINT64_MAX;
}

/*
 * Real portals want 64 bytes at once.  Whoever cannot do that, a test or
 * another architecture's driver, writes them in order.
 */
static void idxd_portal_write(void *opaque, hwaddr addr, uint64_t value,
                              unsigned size)
{
    IDXDState *s = opaque;
    unsigned index = addr / IDXD_PORTAL_SIZE;
    IDXDWorkQueue *wq;

    if (index >= s->num_wqs) {
        idxd_drop(s, addr, "no such work queue");
        return;
    }
    wq = &s->wqs[index];
    if (wq->partial_len && (size != 8 || addr != wq->partial_addr +
                                                 wq->partial_len)) {
        wq->partial_len = 0;
        idxd_drop(s, addr, "incomplete");
    }
    if (size != 8 ||
        (!wq->partial_len && !QEMU_IS_ALIGNED(addr, IDXD_DESC_SIZE))) {
        idxd_drop(s, addr, "not 64 bytes");
        return;
    }
    if (!wq->partial_len) {
        wq->partial_addr = addr;
    }
    stq_le_p(wq->partial + wq->partial_len, value);
    wq->partial_len += size;
    if (wq->partial_len == IDXD_DESC_SIZE) {
        wq->partial_len = 0;
        idxd_portal_store(s, wq->partial_addr, wq->partial);
    }
}

static const MemoryRegionOps idxd_portal_ops = {
    .read = idxd_portal_read,
    .write = idxd_portal_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8,
               .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

static void idxd_store64(DirectStoreTarget *target, MemoryRegion *mr,
                         hwaddr addr, const uint8_t *data, MemTxAttrs attrs)
{
    IDXDState *s = IDXD_DSA(target);

    if (mr != &s->portals) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: 64-byte write to '%s', which is "
                      "no portal\n", TYPE_IDXD_DSA, memory_region_name(mr));
        return;
    }
    idxd_portal_store(s, addr, data);
}

static bool idxd_dmwr64(DirectStoreTarget *target, MemoryRegion *mr,
                        hwaddr addr, const uint8_t *data, MemTxAttrs attrs)
{
    IDXDState *s = IDXD_DSA(target);

    if (mr == &s->portals && idxd_portal_enqueue(s, addr, data)) {
        return true;
    }
    trace_idxd_retry(addr / IDXD_PORTAL_SIZE);
    s->stats.retries++;
    return false;
}

/* Configuration space and reset */

static void idxd_config_write(PCIDevice *pci, uint32_t addr, uint32_t val,
                              int len)
{
    IDXDState *s = IDXD_DSA(pci);
    bool active;

    pci_default_write_config(pci, addr, val, len);
    if (pci_is_express(pci)) {
        pcie_cap_flr_write_config(pci, addr, val, len);
    }

    active = s->state == IDXD_STATE_ENABLED || s->state == IDXD_STATE_DRAINING;
    if (active && !(pci_get_word(pci->config + PCI_COMMAND) &
                    PCI_COMMAND_MASTER)) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: bus mastering turned off while "
                      "enabled\n", TYPE_IDXD_DSA);
        idxd_swerr(s, IDXD_SWERR_CONFIG_CHANGE, UINT_MAX, NULL, -1, 0, 0);
        idxd_halt(s, IDXD_RESET_SOFT);
    }
}

static void idxd_reset_hold(Object *obj, ResetType type)
{
    IDXDState *s = IDXD_DSA(obj);

    trace_idxd_reset();
    idxd_stop_all(s);
    idxd_config_reset(s);
    idxd_device_state(s, IDXD_STATE_DISABLED);
    s->reset_needed = 0;
    s->intcause = 0;
    s->cmd = 0;
    s->cmdsts = 0;
    s->cmd_wqs = 0;
    s->cmd_seq = 0;
    memset(s->swerr, 0, sizeof(s->swerr));
}

/* Properties */

typedef struct IDXDPreset {
    const char *name;
    IDXDTiming t;
} IDXDPreset;

static const IDXDPreset idxd_presets[] = {
    {
        /*
         * Sapphire Rapids: read path and spacing as published measurements
         * of pipelined compares, the rest so that single ones fit, too.
         */
        "dsa", {
            .dispatch = 150, .batch = 300, .desc_fetch = 2, .gap = 40,
            .read = 350, .read_bandwidth = 31500, .complete = 150,
            .batch_complete = 100, .irq = 100, .coalesce = 8000,
        },
    }, {
        /* An accelerator across PCIe: 11 us for 4 KiB, 17 with software */
        "smartnic", {
            .dispatch = 1000, .batch = 2000, .desc_fetch = 8, .gap = 100,
            .read = 6700, .read_bandwidth = 12000, .complete = 3000,
            .batch_complete = 1000, .irq = 500, .coalesce = 8000,
        },
    }, {
        /* As soon as can be; batches in one go */
        "none", { .coalesce = 8000 },
    },
};

static const struct {
    const char *name;
    size_t offset;
} idxd_times[] = {
    { "t-dispatch", offsetof(IDXDTiming, dispatch) },
    { "t-batch", offsetof(IDXDTiming, batch) },
    { "t-desc-fetch", offsetof(IDXDTiming, desc_fetch) },
    { "t-gap", offsetof(IDXDTiming, gap) },
    { "t-read", offsetof(IDXDTiming, read) },
    { "t-complete", offsetof(IDXDTiming, complete) },
    { "t-batch-complete", offsetof(IDXDTiming, batch_complete) },
    { "t-irq", offsetof(IDXDTiming, irq) },
    { "t-coalesce", offsetof(IDXDTiming, coalesce) },
};

static uint64_t *idxd_time(IDXDTiming *t, size_t offset)
{
    return (uint64_t *)((char *)t + offset);
}

static bool idxd_setup_timing(IDXDState *s, Error **errp)
{
    const IDXDPreset *preset = NULL;
    uint64_t longest = NANOSECONDS_PER_SECOND;
    size_t i;

    if (!s->timing_preset) {
        s->timing_preset = g_strdup(idxd_presets[0].name);
    }
    for (i = 0; i < ARRAY_SIZE(idxd_presets); i++) {
        if (!g_strcmp0(s->timing_preset, idxd_presets[i].name)) {
            preset = &idxd_presets[i];
        }
    }
    if (!preset) {
        error_setg(errp, "timing-preset: '%s' is none of dsa, smartnic, none",
                   s->timing_preset);
        return false;
    }
    if (!s->time_scale || s->time_scale > 1000000) {
        error_setg(errp, "time-scale: %u is not between 1 and 1000000",
                   s->time_scale);
        return false;
    }
    if (s->prop.read_bandwidth == IDXD_TIME_UNSET) {
        s->prop.read_bandwidth = preset->t.read_bandwidth;
    }
    if (s->prop.read_bandwidth > UINT32_MAX) {
        error_setg(errp, "read-bandwidth: %" PRIu64 " is more than %u",
                   s->prop.read_bandwidth, UINT32_MAX);
        return false;
    }
    s->t.read_bandwidth = s->prop.read_bandwidth;
    for (i = 0; i < ARRAY_SIZE(idxd_times); i++) {
        uint64_t *time = idxd_time(&s->prop, idxd_times[i].offset);

        if (*time == IDXD_TIME_UNSET) {
            *time = *idxd_time((IDXDTiming *)&preset->t, idxd_times[i].offset);
        }
        if (*time > longest) {
            error_setg(errp, "%s: %" PRIu64 " ns is more than a second",
                       idxd_times[i].name, *time);
            return false;
        }
        *idxd_time(&s->t, idxd_times[i].offset) =
            muldiv64(*time, s->time_scale, 1000);
    }
    return true;
}

static bool idxd_check_range(const char *name, uint64_t value, uint64_t min,
                             uint64_t max, Error **errp)
{
    if (value < min || value > max) {
        error_setg(errp, "%s: %" PRIu64 " is not between %" PRIu64
                   " and %" PRIu64, name, value, min, max);
        return false;
    }
    return true;
}

static bool idxd_check_properties(IDXDState *s, Error **errp)
{
    if (!idxd_check_range("num-wqs", s->num_wqs, 1, IDXD_MAX_WQS, errp) ||
        !idxd_check_range("num-engines", s->num_engines, 1,
                          IDXD_MAX_ENGINES, errp) ||
        !idxd_check_range("num-groups", s->num_groups, 1, IDXD_MAX_GROUPS,
                          errp) ||
        !idxd_check_range("total-wq-size", s->total_wq_size, 1,
                          IDXD_MAX_WQ_SIZE, errp) ||
        !idxd_check_range("read-buffers", s->read_buffers,
                          IDXD_MIN_READ_BUFFERS, UINT8_MAX, errp) ||
        !idxd_check_range("max-batch-shift", s->max_batch_shift, 1, 15,
                          errp) ||
        !idxd_check_range("max-xfer-shift", s->max_xfer_shift, 12, 31,
                          errp) ||
        !idxd_check_range("engine-descs", s->engine_descs, 1, 255, errp) ||
        !idxd_check_range("engine-batches", s->engine_batches, 1, 255,
                          errp)) {
        return false;
    }
    if (s->op_cap & ~IDXD_OPCAP_ALL) {
        error_setg(errp, "op-cap: 0x%" PRIx64 " has operations that are not "
                   "implemented", s->op_cap & ~IDXD_OPCAP_ALL);
        error_append_hint(errp, "All that are: 0x%" PRIx64 ".\n",
                          IDXD_OPCAP_ALL);
        return false;
    }
    return idxd_setup_timing(s, errp);
}

static uint64_t idxd_make_gencap(const IDXDState *s)
{
    uint64_t v = IDXD_GENCAP_BOF | IDXD_GENCAP_OVERLAP | IDXD_GENCAP_CC_MEM |
                 IDXD_GENCAP_DRDBK;

    v = FIELD_DP64(v, IDXD_GENCAP, CMDCAP, s->cmdcap);
    v = FIELD_DP64(v, IDXD_GENCAP, MAX_XFER_SHIFT, s->max_xfer_shift);
    v = FIELD_DP64(v, IDXD_GENCAP, MAX_BATCH_SHIFT, s->max_batch_shift);
    v = FIELD_DP64(v, IDXD_GENCAP, IMS_SIZE, IDXD_IMS_ENTRIES / 256);
    v = FIELD_DP64(v, IDXD_GENCAP, CONFIG, 1);
    return FIELD_DP64(v, IDXD_GENCAP, BIT38, 1);
}

static uint64_t idxd_make_wqcap(const IDXDState *s)
{
    uint64_t v = 0;

    v = FIELD_DP64(v, IDXD_WQCAP, TOTAL_SIZE, s->total_wq_size);
    v = FIELD_DP64(v, IDXD_WQCAP, NUM_WQS, s->num_wqs);
    v = FIELD_DP64(v, IDXD_WQCAP, SHARED, s->shared_wq);
    v = FIELD_DP64(v, IDXD_WQCAP, DEDICATED, 1);
    v = FIELD_DP64(v, IDXD_WQCAP, PRIORITY, 1);
    v = FIELD_DP64(v, IDXD_WQCAP, OCCUPANCY, 1);
    return FIELD_DP64(v, IDXD_WQCAP, OCCUPANCY_INT, 1);
}

static uint64_t idxd_make_grpcap(const IDXDState *s)
{
    uint64_t v = 0;

    v = FIELD_DP64(v, IDXD_GRPCAP, NUM_GROUPS, s->num_groups);
    v = FIELD_DP64(v, IDXD_GRPCAP, READ_BUFFERS, s->read_buffers);
    v = FIELD_DP64(v, IDXD_GRPCAP, READ_BUFFER_CONTROL, 1);
    return FIELD_DP64(v, IDXD_GRPCAP, READ_BUFFER_LIMIT, 1);
}

static bool idxd_init_pci(IDXDState *s, Error **errp)
{
    PCIDevice *pci = &s->parent_obj;
    uint16_t vectors = s->num_wqs + 1;
    unsigned i;

    pci_config_set_interrupt_pin(pci->config, 0);
    /* The last one added comes first in the list: 0x40, 0x80, 0x90 */
    if (pci_pm_init(pci, IDXD_CAP_PM, errp) < 0) {
        return false;
    }
    pci_set_word(pci->config + IDXD_CAP_PM + PCI_PM_PMC, 3);
    pci_set_word(pci->config + IDXD_CAP_PM + PCI_PM_CTRL,
                 PCI_PM_CTRL_NO_SOFT_RESET);
    pci_set_word(pci->wmask + IDXD_CAP_PM + PCI_PM_CTRL,
                 PCI_PM_CTRL_STATE_MASK);
    if (msix_init(pci, vectors, &s->mmio, IDXD_BAR_MMIO, IDXD_MSIX_TABLE,
                  &s->mmio, IDXD_BAR_MMIO, IDXD_MSIX_PBA, IDXD_CAP_MSIX,
                  errp) < 0) {
        return false;
    }
    if (pci_is_express(pci)) {
        if (pcie_endpoint_cap_init(pci, IDXD_CAP_EXP) < 0) {
            error_setg(errp, "cannot add the PCI Express capability");
            goto no_exp;
        }
        pcie_cap_flr_init(pci);
        if (pcie_aer_init(pci, PCI_ERR_VER, IDXD_CAP_AER, PCI_ERR_SIZEOF,
                          errp) < 0) {
            goto no_aer;
        }
    }
    for (i = 0; i < vectors; i++) {
        msix_vector_use(pci, i);
    }
    return true;

no_aer:
    pcie_cap_exit(pci);
no_exp:
    msix_uninit(pci, &s->mmio, &s->mmio);
    return false;
}

static void idxd_realize(PCIDevice *pci, Error **errp)
{
    IDXDState *s = IDXD_DSA(pci);
    uint8_t bar = PCI_BASE_ADDRESS_SPACE_MEMORY |
                  PCI_BASE_ADDRESS_MEM_TYPE_64 |
                  PCI_BASE_ADDRESS_MEM_PREFETCH;

    if (!idxd_check_properties(s, errp)) {
        return;
    }
    s->gencap = idxd_make_gencap(s);
    s->wqcap = idxd_make_wqcap(s);
    s->grpcap = idxd_make_grpcap(s);
    s->engcap = FIELD_DP64(0, IDXD_ENGCAP, NUM_ENGINES, s->num_engines);

    memory_region_init_io(&s->mmio, OBJECT(s), &idxd_mmio_ops, s,
                          "idxd-mmio", IDXD_MMIO_SIZE);
    memory_region_init_io(&s->portals, OBJECT(s), &idxd_portal_ops, s,
                          "idxd-portals",
                          pow2ceil(s->num_wqs * IDXD_PORTAL_SIZE));
    pci_register_bar(pci, IDXD_BAR_MMIO, bar, &s->mmio);
    pci_register_bar(pci, IDXD_BAR_PORTALS, bar, &s->portals);
    if (!idxd_init_pci(s, errp)) {
        return;
    }
    idxd_engine_init(s);
}

static void idxd_exit(PCIDevice *pci)
{
    IDXDState *s = IDXD_DSA(pci);

    idxd_engine_finalize(s);
    idxd_inject_clear(&s->inject);
    msix_unuse_all_vectors(pci);
    msix_uninit(pci, &s->mmio, &s->mmio);
    if (pci_is_express(pci)) {
        pcie_aer_exit(pci);
        pcie_cap_exit(pci);
    }
}

static char *idxd_get_inject(Object *obj, Error **errp)
{
    IDXDState *s = IDXD_DSA(obj);

    return g_strdup(s->inject.text ?: "");
}

static void idxd_set_inject(Object *obj, const char *value, Error **errp)
{
    idxd_inject_parse(&IDXD_DSA(obj)->inject, value, errp);
}

static void idxd_instance_init(Object *obj)
{
    IDXDState *s = IDXD_DSA(obj);
    const struct {
        const char *name;
        const uint64_t *value;
    } counters[] = {
        { "descriptors", &s->stats.descriptors },
        { "batches", &s->stats.batches },
        { "batch-descriptors", &s->stats.batch_descriptors },
        { "completions", &s->stats.completions },
        { "errors", &s->stats.errors },
        { "bytes-read", &s->stats.bytes_read },
        { "bytes-written", &s->stats.bytes_written },
        { "interrupts", &s->stats.interrupts },
        { "sw-errors", &s->stats.sw_errors },
        { "dropped", &s->stats.dropped },
        { "retries", &s->stats.retries },
        { "injected", &s->stats.injected },
    };
    size_t i;

    s->prop.read_bandwidth = IDXD_TIME_UNSET;
    for (i = 0; i < ARRAY_SIZE(idxd_times); i++) {
        *idxd_time(&s->prop, idxd_times[i].offset) = IDXD_TIME_UNSET;
    }
    for (i = 0; i < ARRAY_SIZE(counters); i++) {
        object_property_add_uint64_ptr(obj, counters[i].name,
                                       counters[i].value, OBJ_PROP_FLAG_READ);
    }
    for (i = 0; i < ARRAY_SIZE(s->stats.ops); i++) {
        const char *name = idxd_op_name(i);

        if (name) {
            g_autofree char *property = g_strdup_printf("op-%s", name);

            object_property_add_uint64_ptr(obj, property, &s->stats.ops[i],
                                           OBJ_PROP_FLAG_READ);
        }
    }
}

static const struct {
    const char *name;
    const char *text;
} idxd_descriptions[] = {
    { "num-wqs", "work queues, 1 to 32" },
    { "num-engines", "engines, 1 to 16" },
    { "num-groups", "groups, 1 to 8" },
    { "total-wq-size", "entries that the work queues share" },
    { "read-buffers", "read buffers that the groups share" },
    { "max-batch-shift", "log2 of the most descriptors in a batch" },
    { "max-xfer-shift", "log2 of the most bytes in a descriptor" },
    { "engine-descs", "work descriptors in progress in an engine" },
    { "engine-batches", "batch descriptors in progress in an engine" },
    { "op-cap", "operations offered, one bit for each opcode" },
    { "shared-wq", "whether work queues may be shared" },
    { "cmdcap", "offer CMDCAP and the interrupt handle commands" },
    { "timing-preset", "where unset times come from: dsa, smartnic, none" },
    { "time-scale", "all times, in thousandths" },
    { "t-dispatch", "ns from portal to engine" },
    { "t-batch", "ns to read the list of a batch" },
    { "t-desc-fetch", "ns more for each descriptor in it" },
    { "t-gap", "ns from the start of a descriptor to the next one's" },
    { "t-read", "ns until the first byte of a source arrives" },
    { "read-bandwidth", "bytes a us of all engines together; 0: unlimited" },
    { "t-complete", "ns from the last byte to the record" },
    { "t-batch-complete", "ns from the last member's record to the batch's" },
    { "t-irq", "ns from record to interrupt" },
    { "t-coalesce", "ns of members of a batch that take effect together" },
    { "inject", "fault to inject: status=CODE, page-fault[=OFFSET], lost, "
      "delay=NS, wrong, halt[=RESET] or wq-disable, then ,nth=N or ,every=N, "
      "perhaps ,count=M; empty: none" },
};

/* Without a default of its own; the preset has it */
#define IDXD_PROP_TIME(_name, _field) \
    DEFINE_PROP_UNSIGNED_NODEFAULT(_name, IDXDState, prop._field, \
                                   qdev_prop_uint64, uint64_t)

static const Property idxd_properties[] = {
    DEFINE_PROP_UINT32("num-wqs", IDXDState, num_wqs, 8),
    DEFINE_PROP_UINT32("num-engines", IDXDState, num_engines, 4),
    DEFINE_PROP_UINT32("num-groups", IDXDState, num_groups, 4),
    DEFINE_PROP_UINT32("total-wq-size", IDXDState, total_wq_size, 128),
    DEFINE_PROP_UINT32("read-buffers", IDXDState, read_buffers, 96),
    DEFINE_PROP_UINT32("max-batch-shift", IDXDState, max_batch_shift, 10),
    DEFINE_PROP_UINT32("max-xfer-shift", IDXDState, max_xfer_shift, 31),
    DEFINE_PROP_UINT32("engine-descs", IDXDState, engine_descs, 32),
    DEFINE_PROP_UINT32("engine-batches", IDXDState, engine_batches, 8),
    DEFINE_PROP_UINT64("op-cap", IDXDState, op_cap, IDXD_OPCAP_ALL),
    DEFINE_PROP_BOOL("shared-wq", IDXDState, shared_wq, true),
    DEFINE_PROP_BOOL("cmdcap", IDXDState, cmdcap, false),
    DEFINE_PROP_STRING("timing-preset", IDXDState, timing_preset),
    DEFINE_PROP_UINT32("time-scale", IDXDState, time_scale, 1650),
    IDXD_PROP_TIME("t-dispatch", dispatch),
    IDXD_PROP_TIME("t-batch", batch),
    IDXD_PROP_TIME("t-desc-fetch", desc_fetch),
    IDXD_PROP_TIME("t-gap", gap),
    IDXD_PROP_TIME("t-read", read),
    IDXD_PROP_TIME("read-bandwidth", read_bandwidth),
    IDXD_PROP_TIME("t-complete", complete),
    IDXD_PROP_TIME("t-batch-complete", batch_complete),
    IDXD_PROP_TIME("t-irq", irq),
    IDXD_PROP_TIME("t-coalesce", coalesce),
};

/* Migration */

static int idxd_pre_load(void *opaque)
{
    idxd_engine_abort(opaque, UINT32_MAX, -1);
    return 0;
}

static int idxd_post_load(void *opaque, int version_id)
{
    IDXDState *s = opaque;

    return idxd_engine_loaded(s) ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_idxd_wq = {
    .name = "idxd-dsa/wq",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_ARRAY(cfg, IDXDWorkQueue, IDXD_WQCFG_DWORDS),
        VMSTATE_UINT8(state, IDXDWorkQueue),
        VMSTATE_INT32(credit, IDXDWorkQueue),
        VMSTATE_UINT32(partial_addr, IDXDWorkQueue),
        VMSTATE_UINT8(partial_len, IDXDWorkQueue),
        VMSTATE_UINT8_ARRAY(partial, IDXDWorkQueue, IDXD_DESC_SIZE),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_idxd_group = {
    .name = "idxd-dsa/group",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_ARRAY(cfg, IDXDGroup, IDXD_GRPCFG_STRIDE / 4),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_idxd_stats = {
    .name = "idxd-dsa/stats",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(descriptors, IDXDStats),
        VMSTATE_UINT64(batches, IDXDStats),
        VMSTATE_UINT64(batch_descriptors, IDXDStats),
        VMSTATE_UINT64(completions, IDXDStats),
        VMSTATE_UINT64(errors, IDXDStats),
        VMSTATE_UINT64(bytes_read, IDXDStats),
        VMSTATE_UINT64(bytes_written, IDXDStats),
        VMSTATE_UINT64(interrupts, IDXDStats),
        VMSTATE_UINT64(sw_errors, IDXDStats),
        VMSTATE_UINT64(dropped, IDXDStats),
        VMSTATE_UINT64(retries, IDXDStats),
        VMSTATE_UINT64(injected, IDXDStats),
        VMSTATE_UINT64_ARRAY(ops, IDXDStats, IDXD_OP_CFLUSH + 1),
        VMSTATE_END_OF_LIST()
    }
};

static const VMStateDescription vmstate_idxd = {
    .name = TYPE_IDXD_DSA,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = idxd_pre_load,
    .post_load = idxd_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DEVICE(parent_obj, IDXDState),
        VMSTATE_MSIX(parent_obj, IDXDState),
        /* The guest has seen these; both sides must have the same properties */
        VMSTATE_UINT64_EQUAL(gencap, IDXDState,
                             "max-batch-shift, max-xfer-shift, cmdcap"),
        VMSTATE_UINT64_EQUAL(wqcap, IDXDState,
                             "num-wqs, total-wq-size, shared-wq"),
        VMSTATE_UINT64_EQUAL(grpcap, IDXDState, "num-groups, read-buffers"),
        VMSTATE_UINT64_EQUAL(engcap, IDXDState, "num-engines"),
        VMSTATE_UINT64_EQUAL(op_cap, IDXDState, "op-cap"),
        VMSTATE_UINT32(gencfg, IDXDState),
        VMSTATE_UINT32(genctrl, IDXDState),
        VMSTATE_UINT8(state, IDXDState),
        VMSTATE_UINT8(reset_needed, IDXDState),
        VMSTATE_UINT32(intcause, IDXDState),
        VMSTATE_UINT32(cmdsts, IDXDState),
        VMSTATE_UINT64_ARRAY(swerr, IDXDState, 4),
        VMSTATE_STRUCT_ARRAY(groups, IDXDState, IDXD_MAX_GROUPS, 1,
                             vmstate_idxd_group, IDXDGroup),
        VMSTATE_STRUCT_ARRAY(wqs, IDXDState, IDXD_MAX_WQS, 1,
                             vmstate_idxd_wq, IDXDWorkQueue),
        VMSTATE_UINT32_ARRAY(msixperm, IDXDState, IDXD_MAX_VECTORS),
        VMSTATE_UINT32_ARRAY(ims, IDXDState, IDXD_IMS_ENTRIES * 4),
        VMSTATE_UINT32(cmd, IDXDState),
        VMSTATE_UINT32(cmd_wqs, IDXDState),
        VMSTATE_UINT64(cmd_seq, IDXDState),
        VMSTATE_UINT64(next_seq, IDXDState),
        VMSTATE_UINT64(next_order, IDXDState),
        VMSTATE_INT64(last_start, IDXDState),
        VMSTATE_INT64(link_free, IDXDState),
        VMSTATE_QTAILQ_V(tasks, IDXDState, 1, vmstate_idxd_task, IDXDTask,
                         all),
        VMSTATE_STRUCT(stats, IDXDState, 1, vmstate_idxd_stats, IDXDStats),
        VMSTATE_END_OF_LIST()
    }
};

static void idxd_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);
    DirectStoreTargetClass *dst = DIRECT_STORE_TARGET_CLASS(klass);
    size_t i;

    pc->realize = idxd_realize;
    pc->exit = idxd_exit;
    pc->config_write = idxd_config_write;
    pc->vendor_id = PCI_VENDOR_ID_INTEL;
    pc->device_id = IDXD_PCI_DEVICE_ID;
    pc->subsystem_vendor_id = PCI_VENDOR_ID_INTEL;
    pc->subsystem_id = 0;
    pc->class_id = PCI_CLASS_SYSTEM_OTHER;
    rc->phases.hold = idxd_reset_hold;
    dst->store64 = idxd_store64;
    dst->dmwr64 = idxd_dmwr64;

    dc->desc = "Intel Data Streaming Accelerator";
    dc->vmsd = &vmstate_idxd;
    /* A root complex integrated endpoint is there or it is not */
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, idxd_properties);
    object_class_property_add_str(klass, "inject", idxd_get_inject,
                                  idxd_set_inject);
    for (i = 0; i < ARRAY_SIZE(idxd_descriptions); i++) {
        object_class_property_set_description(klass,
                                              idxd_descriptions[i].name,
                                              idxd_descriptions[i].text);
    }
}

static const TypeInfo idxd_types[] = {
    {
        .name = TYPE_IDXD_DSA,
        .parent = TYPE_PCI_DEVICE,
        .instance_size = sizeof(IDXDState),
        .instance_init = idxd_instance_init,
        .class_init = idxd_class_init,
        .interfaces = (InterfaceInfo[]) {
            { INTERFACE_PCIE_DEVICE },
            { TYPE_DIRECT_STORE_TARGET },
            { }
        },
    },
};

DEFINE_TYPES(idxd_types)
