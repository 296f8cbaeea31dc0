/*
 * Intel Data Streaming Accelerator: states and commands
 *
 * Enabling, disabling, draining, aborting and resetting the device and its
 * work queues, and what has to be right for that.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/log.h"
#include "hw/pci/pci.h"
#include "idxd-engine.h"
#include "trace.h"

/* Device and work queue states */

static void idxd_wq_state(IDXDState *s, unsigned wq, uint8_t state)
{
    if (s->wqs[wq].state != state) {
        trace_idxd_wq_state(wq, s->wqs[wq].state, state);
        s->wqs[wq].state = state;
        s->wqs[wq].partial_len = 0;
    }
}

void idxd_device_state(IDXDState *s, uint8_t state)
{
    if (s->state != state) {
        trace_idxd_state(s->state, state);
        s->state = state;
    }
}

void idxd_wq_stop(IDXDState *s, unsigned wq)
{
    idxd_wq_state(s, wq, IDXD_STATE_DISABLED);
    idxd_engine_abort(s, 1u << wq, -1);
}

void idxd_stop_all(IDXDState *s)
{
    unsigned i;

    for (i = 0; i < s->num_wqs; i++) {
        idxd_wq_state(s, i, IDXD_STATE_DISABLED);
    }
    idxd_engine_reset(s);
}

/* The configuration that a device reset leaves */
void idxd_config_reset(IDXDState *s)
{
    unsigned i;

    s->gencfg = FIELD_DP32(0, IDXD_GENCFG, READ_BUFFER_LIMIT,
                           s->read_buffers);
    s->genctrl = 0;
    for (i = 0; i < s->num_groups; i++) {
        IDXDGroup *g = &s->groups[i];

        memset(g, 0, sizeof(*g));
        g->cfg[IDXD_GRPCFG_FLAGS / 4] =
            FIELD_DP32(0, IDXD_GRPFLAGS, READ_BUFFERS_ALLOWED,
                       s->read_buffers);
    }
    for (i = 0; i < s->num_wqs; i++) {
        memset(s->wqs[i].cfg, 0, sizeof(s->wqs[i].cfg));
    }
    memset(s->msixperm, 0, sizeof(s->msixperm));
    for (i = 0; i < IDXD_IMS_ENTRIES; i++) {
        memset(&s->ims[i * 4], 0, 12);
        s->ims[i * 4 + 3] = FIELD_DP32(0, IDXD_IMS_CTRL, MASK, 1);
    }
}

static void idxd_command_finish(IDXDState *s, uint8_t error, uint16_t result)
{
    trace_idxd_command_done(FIELD_EX32(s->cmd, IDXD_CMD, CODE), error, result);
    s->cmdsts = FIELD_DP32(0, IDXD_CMDSTS, ERROR, error);
    s->cmdsts = FIELD_DP32(s->cmdsts, IDXD_CMDSTS, RESULT, result);
    if (FIELD_EX32(s->cmd, IDXD_CMD, INTERRUPT)) {
        idxd_cause(s, IDXD_INTC_CMD);
    }
}

void idxd_halt(IDXDState *s, uint8_t reset_needed)
{
    if (s->state == IDXD_STATE_HALT) {
        return;
    }
    idxd_stop_all(s);
    idxd_device_state(s, IDXD_STATE_HALT);
    s->reset_needed = reset_needed;
    if (FIELD_EX32(s->cmdsts, IDXD_CMDSTS, ACTIVE)) {
        idxd_command_finish(s, IDXD_CMDERR_HALTED, 0);
    }
    if (s->genctrl & IDXD_GENCTRL_HALT_INT) {
        idxd_cause(s, IDXD_INTC_HALT);
    }
}

/* Commands */

/* The group configuration as a whole: 0 or the command's error */
static uint8_t idxd_check_device(IDXDState *s)
{
    unsigned wq, engine, group, reserved = 0;
    uint32_t size = 0;

    if (!(pci_get_word(s->parent_obj.config + PCI_COMMAND) &
          PCI_COMMAND_MASTER)) {
        return IDXD_CMDERR_BUS_MASTER;
    }
    for (wq = 0; wq < s->num_wqs; wq++) {
        uint32_t wq_size = FIELD_EX32(s->wqs[wq].cfg[0], IDXD_WQCFG0, SIZE);
        unsigned groups = 0;

        size += wq_size;
        for (group = 0; group < s->num_groups; group++) {
            groups += extract64(idxd_group_wqs(s, group), wq, 1);
        }
        if (groups > 1 || (wq_size && !groups)) {
            return IDXD_CMDERR_GROUP_WQ;
        }
    }
    if (size > s->total_wq_size) {
        return IDXD_CMDERR_TOTAL_WQ_SIZE;
    }
    for (engine = 0; engine < s->num_engines; engine++) {
        unsigned groups = 0;

        for (group = 0; group < s->num_groups; group++) {
            groups += extract32(idxd_group_engines(s, group), engine, 1);
        }
        if (groups > 1) {
            return IDXD_CMDERR_GROUP_ENGINE;
        }
    }
    for (group = 0; group < s->num_groups; group++) {
        uint32_t flags = s->groups[group].cfg[IDXD_GRPCFG_FLAGS / 4];
        unsigned engines = ctpop32(idxd_group_engines(s, group));
        unsigned allowed = FIELD_EX32(flags, IDXD_GRPFLAGS,
                                      READ_BUFFERS_ALLOWED);

        if (!engines != !idxd_group_wqs(s, group)) {
            return IDXD_CMDERR_GROUP_PARTS;
        }
        if (!engines) {
            continue;
        }
        reserved += FIELD_EX32(flags, IDXD_GRPFLAGS, READ_BUFFERS_RESERVED);
        if (allowed < engines * IDXD_MIN_READ_BUFFERS ||
            allowed > s->read_buffers || reserved > s->read_buffers ||
            FIELD_EX32(flags, IDXD_GRPFLAGS, READ_BUFFERS_RESERVED) >
            allowed) {
            return IDXD_CMDERR_READ_BUFFERS;
        }
    }
    return IDXD_CMDERR_NONE;
}

static uint8_t idxd_check_wq(IDXDState *s, const IDXDWorkQueue *wq)
{
    unsigned batch = FIELD_EX32(wq->cfg[3], IDXD_WQCFG3, MAX_BATCH_SHIFT);
    unsigned handle = FIELD_EX32(wq->cfg[4], IDXD_WQCFG4, HANDLE);
    bool ims = FIELD_EX32(wq->cfg[4], IDXD_WQCFG4, TABLE);

    if (s->state != IDXD_STATE_ENABLED) {
        return IDXD_CMDERR_DEV_NOT_ENABLED_WQ;
    }
    if (wq->state != IDXD_STATE_DISABLED) {
        return IDXD_CMDERR_WQ_NOT_DISABLED;
    }
    if (!FIELD_EX32(wq->cfg[0], IDXD_WQCFG0, SIZE)) {
        return IDXD_CMDERR_WQ_SIZE;
    }
    if (!FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, PRIORITY)) {
        return IDXD_CMDERR_WQ_PRIORITY;
    }
    if (!idxd_wq_dedicated(wq) && !s->shared_wq) {
        return IDXD_CMDERR_WQ_MODE;
    }
    if (FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, BOF) &&
        !(s->gencap & IDXD_GENCAP_BOF)) {
        return IDXD_CMDERR_WQ_BOF;
    }
    /* There is no PASID capability that could be enabled */
    if (idxd_wq_dedicated(wq) == idxd_wq_pasid(wq)) {
        return IDXD_CMDERR_WQ_PASID;
    }
    if (FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, ATS_DISABLE)) {
        return IDXD_CMDERR_WQ_ATS;
    }
    if (batch > s->max_batch_shift ||
        (!batch && (s->op_cap & (1ull << IDXD_OP_BATCH)))) {
        return IDXD_CMDERR_WQ_MAX_BATCH;
    }
    if (FIELD_EX32(wq->cfg[3], IDXD_WQCFG3, MAX_XFER_SHIFT) >
        s->max_xfer_shift) {
        return IDXD_CMDERR_WQ_MAX_XFER;
    }
    if (FIELD_EX32(wq->cfg[5], IDXD_WQCFG5, INT_EN) &&
        handle >= (ims ? IDXD_IMS_ENTRIES : s->num_wqs + 1)) {
        return IDXD_CMDERR_WQ_OCCUPANCY;
    }
    return IDXD_CMDERR_NONE;
}

/* The work queues that an operand names; 0 if it is not a sane one */
static uint32_t idxd_operand_wqs(IDXDState *s, uint32_t operand)
{
    unsigned bank = FIELD_EX32(operand, IDXD_CMD_WQS, BANK);
    uint64_t wqs = (uint64_t)FIELD_EX32(operand, IDXD_CMD_WQS, BITMAP)
                   << (bank < 3 ? 16 * bank : 48);

    return bank < 3 && !(wqs & ~(uint64_t)idxd_all_wqs(s)) ? wqs : 0;
}

/* Those of @wqs that are neither enabled nor draining */
static bool idxd_some_disabled(IDXDState *s, uint32_t wqs)
{
    unsigned i;

    for (i = 0; i < s->num_wqs; i++) {
        if (extract32(wqs, i, 1) &&
            s->wqs[i].state == IDXD_STATE_DISABLED) {
            return true;
        }
    }
    return false;
}

/* After the last descriptor that the active command waited for */
static void idxd_command_drained(IDXDState *s)
{
    unsigned code = FIELD_EX32(s->cmd, IDXD_CMD, CODE);
    unsigned i;

    if (code == IDXD_CMD_DISABLE_DEVICE || code == IDXD_CMD_DISABLE_WQ) {
        for (i = 0; i < s->num_wqs; i++) {
            if (extract32(s->cmd_wqs, i, 1)) {
                idxd_wq_state(s, i, IDXD_STATE_DISABLED);
            }
        }
    }
    if (code == IDXD_CMD_DISABLE_DEVICE) {
        idxd_device_state(s, IDXD_STATE_DISABLED);
    }
    idxd_command_finish(s, IDXD_CMDERR_NONE, 0);
}

void idxd_command_poll(IDXDState *s)
{
    int pasid = -1;

    if (!FIELD_EX32(s->cmdsts, IDXD_CMDSTS, ACTIVE)) {
        return;
    }
    if (FIELD_EX32(s->cmd, IDXD_CMD, CODE) == IDXD_CMD_DRAIN_PASID) {
        pasid = FIELD_EX32(s->cmd, IDXD_CMD, OPERAND);
    }
    if (!idxd_engine_pending(s, s->cmd_wqs, s->cmd_seq, pasid)) {
        idxd_command_drained(s);
    }
}

/* The command ends when all descriptors accepted until now have retired */
static void idxd_command_drain(IDXDState *s, uint32_t wqs, bool disable)
{
    unsigned i;

    for (i = 0; disable && i < s->num_wqs; i++) {
        if (extract32(wqs, i, 1) &&
            s->wqs[i].state == IDXD_STATE_ENABLED) {
            idxd_wq_state(s, i, IDXD_STATE_DRAINING);
        }
    }
    s->cmd_wqs = wqs;
    s->cmd_seq = s->next_seq;
    s->cmdsts = FIELD_DP32(0, IDXD_CMDSTS, ACTIVE, 1);
    idxd_command_poll(s);
}

/* Whoever has a record gets the interrupt, too */
static void idxd_command_abort(IDXDState *s, uint32_t wqs, int pasid)
{
    idxd_engine_interrupt(s, wqs, pasid);
    idxd_engine_abort(s, wqs, pasid);
}

static void idxd_reset_wqs(IDXDState *s, uint32_t wqs)
{
    unsigned i;

    idxd_engine_abort(s, wqs, -1);
    for (i = 0; i < s->num_wqs; i++) {
        if (extract32(wqs, i, 1)) {
            idxd_wq_state(s, i, IDXD_STATE_DISABLED);
            /* All but the size */
            memset(&s->wqs[i].cfg[1], 0,
                   sizeof(s->wqs[i].cfg) - sizeof(s->wqs[i].cfg[0]));
        }
    }
}

/* Commands that take a bitmap of work queues */
static uint8_t idxd_command_wqs(IDXDState *s, unsigned code, uint32_t operand)
{
    uint32_t wqs = idxd_operand_wqs(s, operand);

    if (!wqs) {
        return IDXD_CMDERR_INVALID_WQ;
    }
    if (code == IDXD_CMD_RESET_WQ) {
        idxd_reset_wqs(s, wqs);
        return IDXD_CMDERR_NONE;
    }
    if (idxd_some_disabled(s, wqs)) {
        return IDXD_CMDERR_WQ_NOT_ENABLED;
    }
    if (code == IDXD_CMD_ABORT_WQ) {
        idxd_command_abort(s, wqs, -1);
    } else {
        idxd_command_drain(s, wqs, code == IDXD_CMD_DISABLE_WQ);
    }
    return IDXD_CMDERR_NONE;
}

/* Handles are indices; a vector or IMS entry has just one */
static uint8_t idxd_command_handle(IDXDState *s, uint32_t operand)
{
    unsigned index = FIELD_EX32(operand, IDXD_CMD_HANDLE, INDEX);
    bool ims = FIELD_EX32(operand, IDXD_CMD_HANDLE, IMS);

    if (operand >> 17) {
        return IDXD_CMDERR_RESERVED;
    }
    if (index >= (ims ? IDXD_IMS_ENTRIES : s->num_wqs + 1)) {
        return IDXD_CMDERR_HANDLE_INVALID;
    }
    return IDXD_CMDERR_NONE;
}

/* Returns the error; a command that goes on has set CMDSTS.ACTIVE */
static uint8_t idxd_command_start(IDXDState *s, unsigned code,
                                  uint32_t operand)
{
    uint8_t error;

    if (s->state == IDXD_STATE_HALT &&
        (code != IDXD_CMD_RESET_DEVICE ||
         s->reset_needed != IDXD_RESET_SOFT)) {
        return IDXD_CMDERR_HALTED;
    }

    switch (code) {
    case IDXD_CMD_ENABLE_DEVICE ... IDXD_CMD_RESET_DEVICE:
        if (operand) {
            return IDXD_CMDERR_RESERVED;
        }
        break;
    case IDXD_CMD_REQUEST_INT_HANDLE:
    case IDXD_CMD_RELEASE_INT_HANDLE:
        if (!s->cmdcap) {
            return IDXD_CMDERR_INVALID_CMD;
        }
        return idxd_command_handle(s, operand);
    }

    switch (code) {
    case IDXD_CMD_ENABLE_DEVICE:
        if (s->state != IDXD_STATE_DISABLED) {
            return IDXD_CMDERR_DEV_NOT_DISABLED;
        }
        error = idxd_check_device(s);
        if (!error) {
            idxd_device_state(s, IDXD_STATE_ENABLED);
        }
        return error;
    case IDXD_CMD_RESET_DEVICE:
        idxd_stop_all(s);
        idxd_config_reset(s);
        idxd_device_state(s, IDXD_STATE_DISABLED);
        return IDXD_CMDERR_NONE;
    case IDXD_CMD_ENABLE_WQ:
        if (operand >= s->num_wqs) {
            return IDXD_CMDERR_INVALID_WQ;
        }
        error = idxd_check_wq(s, &s->wqs[operand]);
        if (!error) {
            idxd_wq_state(s, operand, IDXD_STATE_ENABLED);
        }
        return error;
    case IDXD_CMD_DISABLE_WQ ... IDXD_CMD_RESET_WQ:
        return idxd_command_wqs(s, code, operand);
    case IDXD_CMD_DISABLE_DEVICE:
    case IDXD_CMD_DRAIN_ALL:
    case IDXD_CMD_ABORT_ALL:
    case IDXD_CMD_DRAIN_PASID:
    case IDXD_CMD_ABORT_PASID:
        break;
    default:
        return IDXD_CMDERR_INVALID_CMD;
    }

    if (s->state != IDXD_STATE_ENABLED) {
        return IDXD_CMDERR_DEV_NOT_ENABLED;
    }
    switch (code) {
    case IDXD_CMD_DISABLE_DEVICE:
        idxd_device_state(s, IDXD_STATE_DRAINING);
        idxd_command_drain(s, idxd_all_wqs(s), true);
        break;
    case IDXD_CMD_DRAIN_ALL:
    case IDXD_CMD_DRAIN_PASID:
        idxd_command_drain(s, idxd_all_wqs(s), false);
        break;
    case IDXD_CMD_ABORT_ALL:
        idxd_command_abort(s, idxd_all_wqs(s), -1);
        break;
    case IDXD_CMD_ABORT_PASID:
        idxd_command_abort(s, idxd_all_wqs(s), operand);
        break;
    }
    return IDXD_CMDERR_NONE;
}

static bool idxd_command_drains(unsigned code)
{
    return code == IDXD_CMD_DISABLE_DEVICE || code == IDXD_CMD_DRAIN_ALL ||
           code == IDXD_CMD_DISABLE_WQ || code == IDXD_CMD_DRAIN_WQ ||
           code == IDXD_CMD_DRAIN_PASID;
}

void idxd_command(IDXDState *s, uint32_t value)
{
    unsigned code = FIELD_EX32(value, IDXD_CMD, CODE);
    uint32_t operand = FIELD_EX32(value, IDXD_CMD, OPERAND);
    uint16_t result = 0;
    uint8_t error;

    if (FIELD_EX32(s->cmdsts, IDXD_CMDSTS, ACTIVE)) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: command 0x%08x while command "
                      "0x%08x is active\n", TYPE_IDXD_DSA, value, s->cmd);
        return;
    }
    trace_idxd_command(code, operand, FIELD_EX32(value, IDXD_CMD, INTERRUPT));
    s->cmd = value;
    error = idxd_command_start(s, code, operand);
    if (!error && idxd_command_drains(code)) {
        return;                 /* ended, or will, in idxd_command_drained() */
    }
    if (error) {
        qemu_log_mask(LOG_GUEST_ERROR, "%s: command 0x%08x fails with 0x%02x\n",
                      TYPE_IDXD_DSA, value, error);
    } else if (code == IDXD_CMD_REQUEST_INT_HANDLE) {
        result = FIELD_EX32(operand, IDXD_CMD_HANDLE, INDEX);
    }
    idxd_command_finish(s, error, result);
}
