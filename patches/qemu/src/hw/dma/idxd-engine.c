/*
 * Intel Data Streaming Accelerator: work queues, engines, batches and time
 *
 * A descriptor that a portal accepted is a task.  It waits in its work queue
 * until an engine of the group has room, then runs, then writes its record,
 * then interrupts.  Each step has a time on the virtual clock; the tasks that
 * wait for a time are in one ordered queue, for which one timer runs.
 *
 * The times follow from these rules:
 * - dispatch after a descriptor was accepted, an engine may take it;
 * - the list of a batch arrives batch + n * desc-fetch later;
 * - descriptors start at least gap apart, one after the other;
 * - the first byte arrives read later; all engines share one path to memory,
 *   which hands on read-bandwidth;
 * - the record is visible complete after the last byte, that of a batch
 *   batch-complete after its last member's, and an interrupt irq after it.
 *
 * Work is done when its result becomes visible, so nothing is ever undone.
 * The members of a batch take effect in runs of at most "coalesce": one timer
 * for each of a thousand small members would cost the simulation more than
 * their work does.  A run ends early at a member that interrupts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "migration/vmstate.h"
#include "idxd-engine.h"
#include "trace.h"

static bool idxd_task_is_batch(const IDXDTask *t)
{
    return t->desc.opcode == IDXD_OP_BATCH;
}

/* Batches have slots of their own in an engine */
static bool idxd_task_in_engine(const IDXDTask *t)
{
    return t->phase == IDXD_PHASE_FETCHING ||
           t->phase == IDXD_PHASE_RUNNING ||
           t->phase == IDXD_PHASE_FINISHING ||
           t->phase == IDXD_PHASE_DRAINING;
}

static bool idxd_task_queued(const IDXDTask *t)
{
    return t->phase == IDXD_PHASE_ARRIVING || t->phase == IDXD_PHASE_READY;
}

static uint32_t *idxd_task_slots(IDXDState *s, const IDXDTask *t)
{
    IDXDEngine *e = &s->engines[t->engine];

    return idxd_task_is_batch(t) ? &e->batches : &e->descs;
}

static void idxd_task_decode(IDXDState *s, IDXDTask *t)
{
    const IDXDWorkQueue *wq = &s->wqs[t->wq];

    idxd_desc_decode(&t->desc, t->raw);
    if (idxd_wq_dedicated(wq)) {
        /* What the descriptor says of these two does not count */
        t->desc.pasid = FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, PASID);
        t->desc.priv = idxd_wq_priv(wq);
    }
}

static void idxd_timer_update(IDXDState *s)
{
    IDXDTask *first = QTAILQ_FIRST(&s->events);

    if (!first) {
        timer_del(s->timer);
    } else if (!timer_pending(s->timer) ||
               timer_expire_time_ns(s->timer) != first->due) {
        timer_mod(s->timer, first->due);
    }
}

static void idxd_event_insert(IDXDState *s, IDXDTask *t)
{
    IDXDTask *after;

    /* Most new events are the latest */
    QTAILQ_FOREACH_REVERSE(after, &s->events, event) {
        if (after->due < t->due ||
            (after->due == t->due && after->order < t->order)) {
            break;
        }
    }
    if (after) {
        QTAILQ_INSERT_AFTER(&s->events, after, t, event);
    } else {
        QTAILQ_INSERT_HEAD(&s->events, t, event);
    }
    t->timed = true;
}

static void idxd_event_at(IDXDState *s, IDXDTask *t, IDXDPhase phase,
                          int64_t due)
{
    t->phase = phase;
    t->due = due;
    t->order = s->next_order++;
    idxd_event_insert(s, t);
}

static void idxd_event_cancel(IDXDState *s, IDXDTask *t)
{
    if (t->timed) {
        QTAILQ_REMOVE(&s->events, t, event);
        t->timed = false;
    }
}

static void idxd_task_free(IDXDTask *t)
{
    g_free(t->members);
    g_free(t->list);
    g_free(t);
}

/* Takes the task out of everything; its memory stays */
static void idxd_task_unlink(IDXDState *s, IDXDTask *t)
{
    IDXDWorkQueue *wq = &s->wqs[t->wq];

    idxd_event_cancel(s, t);
    if (idxd_task_queued(t)) {
        QTAILQ_REMOVE(&wq->queued, t, queue);
        wq->occupancy--;
    } else {
        QTAILQ_REMOVE(&wq->inflight, t, queue);
        if (idxd_task_in_engine(t)) {
            (*idxd_task_slots(s, t))--;
        }
        if (t->phase == IDXD_PHASE_DRAINING) {
            wq->drains--;
        }
    }
    QTAILQ_REMOVE(&s->tasks, t, all);
}

/* Drains that waited for nothing but what has just retired */
static void idxd_drains_poll(IDXDState *s, unsigned index, int64_t now)
{
    IDXDWorkQueue *wq = &s->wqs[index];
    IDXDTask *t, *drain;

    if (!wq->drains) {
        return;
    }
    QTAILQ_FOREACH(drain, &wq->inflight, queue) {
        bool waits = false;

        if (drain->phase != IDXD_PHASE_DRAINING) {
            continue;
        }
        QTAILQ_FOREACH(t, &wq->inflight, queue) {
            if (t->seq < drain->seq && (idxd_wq_dedicated(wq) ||
                                        t->desc.pasid == drain->desc.pasid)) {
                waits = true;
                break;
            }
        }
        if (!waits) {
            wq->drains--;
            idxd_event_at(s, drain, IDXD_PHASE_RUNNING, now + s->t.complete);
        }
    }
}

static void idxd_task_retire(IDXDState *s, IDXDTask *t, int64_t now)
{
    unsigned wq = t->wq;

    idxd_task_unlink(s, t);
    idxd_task_free(t);
    idxd_drains_poll(s, wq, now);
    idxd_command_poll(s);
}

static void idxd_op_env(IDXDState *s, unsigned index, bool in_batch,
                        IDXDOpEnv *env)
{
    const IDXDWorkQueue *wq = &s->wqs[index];

    memset(env, 0, sizeof(*env));
    env->as = pci_get_address_space(&s->parent_obj);
    env->attrs = MEMTXATTRS_UNSPECIFIED;
    env->gen_cap = s->gencap;
    env->op_cap[0] = s->op_cap;
    env->max_xfer = 1ull << FIELD_EX32(wq->cfg[3], IDXD_WQCFG3,
                                       MAX_XFER_SHIFT);
    env->max_batch = 1u << FIELD_EX32(wq->cfg[3], IDXD_WQCFG3,
                                      MAX_BATCH_SHIFT);
    env->in_batch = in_batch;
    env->wq_bof = FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, BOF);
    env->wq_pasid = idxd_wq_pasid(wq);
    env->wq_priv = idxd_wq_priv(wq);
}

/*
 * Where the members of a batch write their records: side by side, so that one
 * translation serves many.  It lasts for a run of members.
 */
typedef struct IDXDRecords {
    MemoryRegionCache cache;
    uint64_t base;
    bool valid;
    uint32_t first;             /* what has been written: from here */
    uint32_t end;               /* to here, 0: nothing */
} IDXDRecords;

#define IDXD_RECORDS_SIZE           4096

static void idxd_records_end(IDXDRecords *records)
{
    if (records->valid) {
        if (records->end) {
            address_space_cache_invalidate(&records->cache, records->first,
                                           records->end - records->first);
        }
        address_space_cache_destroy(&records->cache);
        records->valid = false;
    }
}

static void idxd_records_put(IDXDRecords *records, uint32_t offset,
                             const IDXDOpResult *res)
{
    idxd_completion_encode(records->cache.ptr + offset, res);
    records->first = MIN(records->first, offset);
    records->end = MAX(records->end, offset + IDXD_CR_SIZE);
}

/* False if the record is not in RAM, or not in one piece of it */
static bool idxd_record_fast(IDXDState *s, IDXDRecords *records,
                             uint64_t addr, const IDXDOpResult *res)
{
    uint64_t base = QEMU_ALIGN_DOWN(addr, IDXD_RECORDS_SIZE);
    uint32_t offset = addr - base;

    if (!records->valid || records->base != base) {
        idxd_records_end(records);
        records->base = base;
        records->valid = true;
        records->first = IDXD_RECORDS_SIZE;
        records->end = 0;
        if (address_space_cache_init(&records->cache,
                                     pci_get_address_space(&s->parent_obj),
                                     base, IDXD_RECORDS_SIZE, true) <
            IDXD_RECORDS_SIZE) {
            records->cache.ptr = NULL;
        }
    }
    if (!records->cache.ptr) {
        return false;
    }
    idxd_records_put(records, offset, res);
    return true;
}

static MemTxResult idxd_record_slow(IDXDState *s, IDXDTask *t, uint64_t addr,
                                    const IDXDOpResult *res)
{
    PCIDevice *pci = &s->parent_obj;
    uint8_t cr[IDXD_CR_SIZE];
    MemTxResult r;

    idxd_completion_encode(cr, res);
    r = pci_dma_write(pci, addr + 1, cr + 1, IDXD_CR_SIZE - 1);
    /* Whoever sees the status has to see the rest */
    smp_wmb();
    if (r == MEMTX_OK && s->running == t) {
        r = pci_dma_write(pci, addr, cr, 1);
    }
    return r;
}

/*
 * Writes the record, byte 0 last: another vCPU may poll it.  False if the
 * task is gone: a device can be made to reset itself by where it writes.
 */
static bool idxd_record(IDXDState *s, IDXDTask *t, const IDXDDesc *desc,
                        const IDXDOpResult *res, int batch_index,
                        IDXDRecords *records)
{
    uint8_t code = res->status & IDXD_ST_CODE_MASK;
    bool failed = code != IDXD_ST_SUCCESS;

    trace_idxd_complete(t->wq, desc->opcode, batch_index, res->status,
                        res->result, res->bytes_completed);
    if (failed && code != IDXD_ST_SUCCESS_FALSE) {
        s->stats.errors++;
    }
    if (!(desc->flags & IDXD_FLAG_CRAV)) {
        if (failed) {
            /* The flags that a record would call invalid */
            uint32_t info = code == IDXD_ST_INVALID_FLAGS ?
                            ldl_le_p(res->specific) : 0;

            idxd_swerr(s, res->status, t->wq, desc, batch_index,
                       res->fault_addr, info);
        }
        return s->running == t;
    }
    if (!QEMU_IS_ALIGNED(desc->completion_addr, IDXD_CR_SIZE)) {
        idxd_swerr(s, IDXD_ST_CR_ALIGN, t->wq, desc, batch_index,
                   desc->completion_addr, 0);
        return s->running == t;
    }
    if (!failed && !(desc->flags & IDXD_FLAG_RCR)) {
        return true;
    }

    if ((records &&
         idxd_record_fast(s, records, desc->completion_addr, res)) ||
        idxd_record_slow(s, t, desc->completion_addr, res) == MEMTX_OK) {
        s->stats.completions++;
    } else if (s->running == t) {
        idxd_swerr(s, IDXD_ST_CR_TRANSLATION | IDXD_ST_FAULT_WRITE, t->wq,
                   desc, batch_index, desc->completion_addr, 0);
    }
    return s->running == t;
}

/* Is the descriptor fit to run?  Otherwise the result says what is wrong */
static bool idxd_desc_check(IDXDState *s, const IDXDTask *t,
                            const IDXDOpEnv *env, const IDXDDesc *desc,
                            IDXDOpResult *res)
{
    if (!idxd_op_check(env, desc, res)) {
        return false;
    }
    if (desc->priv && !idxd_wq_dedicated(&s->wqs[t->wq]) && !env->wq_priv) {
        res->status = IDXD_ST_PRIVILEGE;
        return false;
    }
    if ((desc->flags & IDXD_FLAG_RCI) &&
        !idxd_handle_allowed(s, t->wq, t->ims, desc->int_handle,
                             desc->pasid)) {
        res->status = IDXD_ST_INT_HANDLE;
        return false;
    }
    return true;
}

/* The same for one that has work to do: how much, too */
static bool idxd_desc_fit(IDXDState *s, const IDXDTask *t,
                          const IDXDOpEnv *env, const IDXDDesc *desc,
                          IDXDFitness *fit, IDXDOpResult *res)
{
    fit->fit = idxd_desc_check(s, t, env, desc, res);
    if (fit->fit) {
        fit->reads = idxd_op_read_bytes(desc);
        fit->writes = idxd_op_write_bytes(desc);
    }
    return fit->fit;
}

static uint64_t idxd_first_buffer(const IDXDDesc *desc)
{
    return desc->opcode == IDXD_OP_FILL || desc->opcode == IDXD_OP_CFLUSH ?
           desc->dst : desc->src;
}

/* A wrong result that looks right: what silent corruption would be */
static void idxd_spoil(const IDXDDesc *desc, IDXDOpResult *res)
{
    uint8_t flipped = IDXD_ST_SUCCESS ^ IDXD_ST_SUCCESS_FALSE;

    switch (desc->opcode) {
    case IDXD_OP_COMPARE:
    case IDXD_OP_COMPVAL:
        res->result ^= 1;
        res->bytes_completed = 0;
        if (desc->flags & IDXD_FLAG_CR) {
            res->status ^= flipped;
        }
        break;
    case IDXD_OP_CRCGEN:
    case IDXD_OP_COPY_CRC:
        res->specific[0] ^= 1;
        break;
    default:
        break;
    }
}

/*
 * Does one descriptor: check, work, record.  *@ok tells whether it succeeded.
 * False if the task is gone.
 */
static bool idxd_execute(IDXDState *s, IDXDTask *t, const IDXDDesc *desc,
                         IDXDFitness fit, IDXDOpEnv *env,
                         IDXDInjected injected,
                         int batch_index, IDXDRecords *records, bool *ok)
{
    IDXDOpResult res = { 0 };

    if (injected.kind != IDXD_INJECT_NONE) {
        trace_idxd_inject(t->wq, desc->opcode, injected.kind, injected.value);
        s->stats.injected++;
    }
    if (desc->opcode < ARRAY_SIZE(s->stats.ops)) {
        s->stats.ops[desc->opcode]++;
    }

    if (fit.fit || idxd_desc_fit(s, t, env, desc, &fit, &res)) {
        switch (injected.kind) {
        case IDXD_INJECT_HALT:
            idxd_halt(s, injected.value);
            return false;
        case IDXD_INJECT_WQ_DISABLE:
            idxd_wq_stop(s, t->wq);
            idxd_command_poll(s);
            return false;
        case IDXD_INJECT_STATUS:
            res.status = injected.value;
            break;
        default:
            if (injected.kind == IDXD_INJECT_PAGE_FAULT) {
                env->inject_fault = true;
                env->inject_fault_addr = idxd_first_buffer(desc) +
                                         injected.value;
            }
            idxd_op_run(env, desc, &res);
            env->inject_fault = false;
            if (s->running != t) {
                return false;
            }
            s->stats.bytes_read += fit.reads;
            s->stats.bytes_written += fit.writes;
            if (injected.kind == IDXD_INJECT_WRONG) {
                idxd_spoil(desc, &res);
            }
            break;
        }
    }
    *ok = res.status == IDXD_ST_SUCCESS;
    if (injected.kind == IDXD_INJECT_LOST) {
        return true;
    }
    return idxd_record(s, t, desc, &res, batch_index, records);
}

/* Gives the descriptor its time: when its record will be visible */
static int64_t idxd_plan(IDXDState *s, const IDXDTask *t,
                         const IDXDOpEnv *env, const IDXDDesc *desc,
                         int64_t earliest, IDXDFitness *fit,
                         IDXDInjected *injected)
{
    IDXDOpResult res = { 0 };
    uint64_t bytes = 0;
    int64_t start, data;

    start = MAX(earliest, s->last_start + (int64_t)s->t.gap);
    s->last_start = start;
    data = start;
    *injected = idxd_inject_next(&s->inject);

    if (idxd_desc_fit(s, t, env, desc, fit, &res)) {
        /* Reads and writes overlap; the longer of them takes the time */
        bytes = MAX(fit->reads, fit->writes);
    }
    if (bytes) {
        data = MAX(start + (int64_t)s->t.read, s->link_free);
        if (bytes != s->transfer_bytes) {
            s->transfer_bytes = bytes;
            s->transfer = s->t.read_bandwidth ?
                muldiv64(bytes, s->time_scale, s->t.read_bandwidth) : 0;
        }
        data += s->transfer;
        s->link_free = data;
    }
    if (injected->kind == IDXD_INJECT_DELAY) {
        data += injected->value;
    }
    return data + s->t.complete;
}

/* Makes room for the @nth planned member and decodes it */
static IDXDMember *idxd_member_decode(IDXDTask *t, uint32_t nth)
{
    IDXDMember *m;

    if (nth >= t->room) {
        t->room = MAX(32, t->room * 2);
        t->members = g_renew(IDXDMember, t->members, t->room);
    }
    m = &t->members[nth];
    idxd_desc_decode(&m->desc, t->list + (t->next + nth) * IDXD_DESC_SIZE);
    m->desc.pasid = t->desc.pasid;
    m->desc.priv = t->desc.priv;
    m->fit.fit = false;
    return m;
}

/* Plans the next run of members, at least one */
static void idxd_batch_plan(IDXDState *s, IDXDTask *t, int64_t now)
{
    int64_t horizon = 0;
    uint32_t passed = IDXD_NONE_PASSED;
    IDXDMember *m;
    IDXDOpEnv env;

    idxd_op_env(s, t->wq, true, &env);
    env.passed = &passed;
    do {
        int64_t earliest = t->ready;
        int64_t done;

        m = idxd_member_decode(t, t->planned - t->next);
        if (m->desc.flags & IDXD_FLAG_FENCE) {
            earliest = MAX(earliest, t->last_done);
        }
        done = idxd_plan(s, t, &env, &m->desc, earliest, &m->fit,
                         &t->injected);
        t->last_done = MAX(t->last_done, done);
        if (t->planned++ == t->next) {
            horizon = t->last_done + s->t.coalesce;
        }
    } while (t->planned < t->desc.size && t->last_done < horizon &&
             t->injected.kind == IDXD_INJECT_NONE &&
             !(m->desc.flags & IDXD_FLAG_RCI));

    idxd_event_at(s, t, IDXD_PHASE_RUNNING, MAX(now, t->last_done));
}

/* The record is due, or written: an interrupt may follow */
static void idxd_after_record(IDXDState *s, IDXDTask *t, int64_t now)
{
    (*idxd_task_slots(s, t))--;
    if (t->desc.flags & IDXD_FLAG_RCI && t->injected.kind != IDXD_INJECT_LOST) {
        idxd_event_at(s, t, IDXD_PHASE_INTERRUPTING, now + s->t.irq);
        return;
    }
    t->phase = IDXD_PHASE_INTERRUPTING;     /* has left the engine */
    idxd_task_retire(s, t, now);
}

/* A member asks for an interrupt; the batch goes on meanwhile */
static void idxd_member_interrupt(IDXDState *s, IDXDTask *batch,
                                  const IDXDDesc *desc, int64_t now)
{
    IDXDTask *t = g_new0(IDXDTask, 1);

    t->seq = batch->seq;
    t->wq = batch->wq;
    t->engine = batch->engine;
    t->ims = batch->ims;
    memcpy(t->raw, desc->raw, IDXD_DESC_SIZE);
    memcpy(t->raw, batch->raw, 4);      /* PASID and privilege */
    t->desc = *desc;
    t->desc.raw = t->raw;
    QTAILQ_INSERT_TAIL(&s->tasks, t, all);
    QTAILQ_INSERT_TAIL(&s->wqs[t->wq].inflight, t, queue);
    idxd_event_at(s, t, IDXD_PHASE_INTERRUPTING, now + s->t.irq);
}

static const uint8_t *idxd_in_window(const IDXDWindow *window, uint64_t addr,
                                     uint32_t len)
{
    uint64_t offset = addr - window->addr;

    return offset < window->len && len <= window->len - offset ?
           window->host + offset : NULL;
}

/*
 * The comparison of equal memory, all of it where the last member's was and
 * with the record next to the last one: what most members of most batches
 * are, and nothing of what else a descriptor can be about.  False: the member
 * is still to be done.
 */
static bool idxd_member_equal(IDXDState *s, IDXDTask *t, const IDXDMember *m,
                              const IDXDWindow *window, IDXDRecords *records)
{
    static const IDXDOpResult equal = { .status = IDXD_ST_SUCCESS };
    const IDXDDesc *desc = &m->desc;
    uint64_t offset = desc->completion_addr - records->base;
    const uint8_t *p, *q;

    /* Being fit it has a valid address of a record, which it requests */
    if (desc->opcode != IDXD_OP_COMPARE || !m->fit.fit ||
        desc->flags & (IDXD_FLAG_RCI | IDXD_FLAG_CR) || !records->valid ||
        !records->cache.ptr || offset >= IDXD_RECORDS_SIZE) {
        return false;
    }
    p = idxd_in_window(window, desc->src, desc->size);
    q = idxd_in_window(window, desc->dst, desc->size);
    if (!p || !q || memcmp(p, q, desc->size)) {
        return false;
    }
    s->stats.ops[IDXD_OP_COMPARE]++;
    s->stats.bytes_read += m->fit.reads;
    s->stats.completions++;
    trace_idxd_complete(t->wq, desc->opcode, t->next, equal.status,
                        equal.result, equal.bytes_completed);
    idxd_records_put(records, offset, &equal);
    return true;
}

/* Does the members that are planned; false if the batch is gone */
static bool idxd_batch_members(IDXDState *s, IDXDTask *t, int64_t now,
                               IDXDRecords *records)
{
    const IDXDMember *m = t->members;
    IDXDWindow window = { .len = 0 };
    IDXDOpEnv env;

    RCU_READ_LOCK_GUARD();
    idxd_op_env(s, t->wq, true, &env);
    env.window = &window;
    for (; t->next < t->planned; m++) {
        const IDXDDesc *desc = &m->desc;
        IDXDInjected injected = { .kind = IDXD_INJECT_NONE };
        bool ok = false;

        if ((desc->flags & IDXD_FLAG_FENCE) && t->failed) {
            trace_idxd_batch_abandon(t->wq, t->next, t->desc.size);
            t->planned = t->next = t->desc.size;
            break;
        }
        if (t->next + 1 == t->planned) {
            injected = t->injected;
        }
        if (injected.kind == IDXD_INJECT_NONE &&
            idxd_member_equal(s, t, m, &window, records)) {
            ok = true;
        } else if (!idxd_execute(s, t, desc, m->fit, &env, injected, t->next,
                                 records, &ok)) {
            return false;
        }
        s->stats.batch_descriptors++;
        t->next++;
        t->completed++;
        t->failed |= !ok;
        if ((desc->flags & IDXD_FLAG_RCI) &&
            injected.kind != IDXD_INJECT_LOST &&
            idxd_handle_allowed(s, t->wq, t->ims, desc->int_handle,
                                desc->pasid)) {
            idxd_member_interrupt(s, t, desc, now);
        }
    }
    return true;
}

static void idxd_batch_run(IDXDState *s, IDXDTask *t, int64_t now)
{
    IDXDRecords records = { .valid = false };
    bool alive = idxd_batch_members(s, t, now, &records);

    idxd_records_end(&records);
    if (!alive) {
        return;
    }
    memset(&t->injected, 0, sizeof(t->injected));
    if (t->next < t->desc.size) {
        idxd_batch_plan(s, t, now);
    } else {
        idxd_event_at(s, t, IDXD_PHASE_FINISHING, now + s->t.batch_complete);
    }
}

static void idxd_batch_fetch(IDXDState *s, IDXDTask *t, int64_t now)
{
    t->list_size = t->desc.size * IDXD_DESC_SIZE;
    t->list = g_malloc(t->list_size);
    if (pci_dma_read(&s->parent_obj, t->desc.src, t->list,
                     t->list_size) != MEMTX_OK) {
        if (s->running == t) {
            t->status = IDXD_ST_TRANSLATION;
            t->fault_addr = t->desc.src;
            idxd_event_at(s, t, IDXD_PHASE_FINISHING, now + s->t.complete);
        }
        return;
    }
    if (s->running != t) {
        return;
    }
    s->stats.batches++;
    t->ready = now;
    t->last_done = now;
    trace_idxd_batch_list(t->wq, t->desc.size, t->desc.src);
    idxd_batch_plan(s, t, now);
}

static void idxd_batch_finish(IDXDState *s, IDXDTask *t, int64_t now)
{
    IDXDOpResult res = {
        .status = t->status ? t->status :
                  t->failed || t->completed < t->desc.size ?
                  IDXD_ST_BATCH_FAIL : IDXD_ST_SUCCESS,
        .bytes_completed = t->completed,
        .fault_addr = t->fault_addr,
    };

    if (idxd_record(s, t, &t->desc, &res, -1, NULL)) {
        idxd_after_record(s, t, now);
    }
}

static void idxd_run(IDXDState *s, IDXDTask *t, int64_t now)
{
    IDXDOpResult res = { 0 };
    IDXDOpEnv env;
    bool ok;

    idxd_op_env(s, t->wq, false, &env);
    if (idxd_task_is_batch(t)) {
        if (t->list) {
            idxd_batch_run(s, t, now);
            return;
        }
        /* One that is not fit to be run */
        s->stats.ops[IDXD_OP_BATCH]++;
        idxd_desc_check(s, t, &env, &t->desc, &res);
        if (!idxd_record(s, t, &t->desc, &res, -1, NULL)) {
            return;
        }
        if (res.status == IDXD_ST_INT_HANDLE) {
            t->desc.flags &= ~IDXD_FLAG_RCI;
        }
    } else if (!idxd_execute(s, t, &t->desc, t->fit, &env, t->injected, -1,
                             NULL, &ok)) {
        return;
    }
    if ((t->desc.flags & IDXD_FLAG_RCI) &&
        !idxd_handle_allowed(s, t->wq, t->ims, t->desc.int_handle,
                             t->desc.pasid)) {
        t->desc.flags &= ~IDXD_FLAG_RCI;
    }
    idxd_after_record(s, t, now);
}

/* An engine takes the descriptor */
static void idxd_start(IDXDState *s, IDXDTask *t, unsigned engine,
                       int64_t now)
{
    IDXDWorkQueue *wq = &s->wqs[t->wq];
    IDXDOpResult res = { 0 };
    IDXDOpEnv env;

    QTAILQ_REMOVE(&wq->queued, t, queue);
    QTAILQ_INSERT_TAIL(&wq->inflight, t, queue);
    wq->occupancy--;
    t->engine = engine;
    (*idxd_task_slots(s, t))++;
    trace_idxd_dispatch(t->wq, engine, t->desc.opcode, t->seq);

    idxd_op_env(s, t->wq, false, &env);
    if (t->desc.opcode == IDXD_OP_DRAIN &&
        idxd_desc_check(s, t, &env, &t->desc, &res)) {
        t->phase = IDXD_PHASE_DRAINING;
        wq->drains++;
        idxd_drains_poll(s, t->wq, now);
    } else if (idxd_task_is_batch(t)) {
        if (idxd_desc_check(s, t, &env, &t->desc, &res)) {
            s->stats.ops[IDXD_OP_BATCH]++;
            idxd_event_at(s, t, IDXD_PHASE_FETCHING, now + s->t.batch +
                          t->desc.size * s->t.desc_fetch);
        } else {
            idxd_event_at(s, t, IDXD_PHASE_RUNNING, now + s->t.complete);
        }
    } else {
        int64_t due = idxd_plan(s, t, &env, &t->desc, now, &t->fit,
                                &t->injected);

        idxd_event_at(s, t, IDXD_PHASE_RUNNING, due);
    }
    idxd_occupancy_fell(s, t->wq);
}

/* The engine of the group with the fewest descriptors and room for @t */
static int idxd_pick_engine(IDXDState *s, unsigned group, const IDXDTask *t)
{
    uint32_t members = idxd_group_engines(s, group);
    bool batch = idxd_task_is_batch(t);
    uint32_t least = UINT32_MAX;
    int best = -1;
    unsigned i;

    for (i = 0; i < s->num_engines; i++) {
        const IDXDEngine *e = &s->engines[i];

        if (!extract32(members, i, 1) ||
            (batch ? e->batches >= s->engine_batches :
                     e->descs >= s->engine_descs)) {
            continue;
        }
        if (e->descs + e->batches < least) {
            least = e->descs + e->batches;
            best = i;
        }
    }
    return best;
}

/*
 * Engines of a group take from its work queues.  Where several have
 * something, each gets a share in proportion to its priority.
 */
static void idxd_dispatch(IDXDState *s, unsigned group, int64_t now)
{
    for (;;) {
        IDXDWorkQueue *best = NULL;
        int best_engine = -1;
        int32_t sum = 0;
        unsigned i;

        for (i = 0; i < s->num_wqs; i++) {
            IDXDWorkQueue *wq = &s->wqs[i];
            IDXDTask *t = QTAILQ_FIRST(&wq->queued);
            int32_t priority = FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, PRIORITY);
            int engine;

            if (!t || t->phase != IDXD_PHASE_READY ||
                !extract64(idxd_group_wqs(s, group), i, 1)) {
                continue;
            }
            engine = idxd_pick_engine(s, group, t);
            if (engine < 0) {
                continue;
            }
            wq->credit += priority;
            sum += priority;
            if (!best || wq->credit > best->credit) {
                best = wq;
                best_engine = engine;
            }
        }
        if (!best) {
            return;
        }
        best->credit -= sum;
        idxd_start(s, QTAILQ_FIRST(&best->queued), best_engine, now);
    }
}

static int idxd_group_of(IDXDState *s, unsigned wq)
{
    unsigned i;

    for (i = 0; i < s->num_groups; i++) {
        if (extract64(idxd_group_wqs(s, i), wq, 1)) {
            return i;
        }
    }
    return -1;
}

static void idxd_event(IDXDState *s, IDXDTask *t)
{
    int64_t now = t->due;
    int group = idxd_group_of(s, t->wq);

    idxd_event_cancel(s, t);
    s->running = t;
    switch (t->phase) {
    case IDXD_PHASE_ARRIVING:
        t->phase = IDXD_PHASE_READY;
        break;
    case IDXD_PHASE_FETCHING:
        idxd_batch_fetch(s, t, now);
        break;
    case IDXD_PHASE_RUNNING:
        idxd_run(s, t, now);
        break;
    case IDXD_PHASE_FINISHING:
        idxd_batch_finish(s, t, now);
        break;
    case IDXD_PHASE_INTERRUPTING:
        idxd_interrupt(s, t->ims, t->desc.int_handle);
        if (s->running == t) {
            idxd_task_retire(s, t, now);
        }
        break;
    default:
        g_assert_not_reached();
    }
    s->running = NULL;
    g_clear_pointer(&s->orphan, idxd_task_free);
    if (group >= 0) {
        idxd_dispatch(s, group, now);
    }
}

static void idxd_timer(void *opaque)
{
    IDXDState *s = opaque;
    MemReentrancyGuard *guard = &DEVICE(s)->mem_reentrancy_guard;
    bool engaged = guard->engaged_in_io;
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    IDXDTask *t;

    /* Our accesses to memory may be aimed at our own BARs */
    guard->engaged_in_io = true;
    while ((t = QTAILQ_FIRST(&s->events)) && t->due <= now) {
        idxd_event(s, t);
    }
    guard->engaged_in_io = engaged;
    idxd_timer_update(s);
}

void idxd_engine_accept(IDXDState *s, unsigned index, const uint8_t *raw,
                        bool ims)
{
    IDXDWorkQueue *wq = &s->wqs[index];
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    IDXDTask *t = g_new0(IDXDTask, 1);

    t->seq = s->next_seq++;
    t->wq = index;
    t->ims = ims;
    memcpy(t->raw, raw, sizeof(t->raw));
    idxd_task_decode(s, t);
    trace_idxd_accept(index, t->desc.opcode, t->desc.flags, t->desc.size,
                      t->desc.completion_addr);
    s->stats.descriptors++;
    wq->occupancy++;
    QTAILQ_INSERT_TAIL(&s->tasks, t, all);
    QTAILQ_INSERT_TAIL(&wq->queued, t, queue);
    /*
     * Never at once, even without a timing model: two devices that write to
     * each other's portals would keep the clock from advancing.
     */
    idxd_event_at(s, t, IDXD_PHASE_ARRIVING, now + MAX(s->t.dispatch, 1));
    idxd_timer_update(s);
}

static bool idxd_task_chosen(const IDXDTask *t, uint32_t wqs, int pasid)
{
    return extract32(wqs, t->wq, 1) && (pasid < 0 || t->desc.pasid == pasid);
}

bool idxd_engine_pending(IDXDState *s, uint32_t wqs, uint64_t seq, int pasid)
{
    IDXDTask *t;

    QTAILQ_FOREACH(t, &s->tasks, all) {
        if (t->seq < seq && idxd_task_chosen(t, wqs, pasid)) {
            return true;
        }
    }
    return false;
}

void idxd_engine_interrupt(IDXDState *s, uint32_t wqs, int pasid)
{
    IDXDTask *t;

restart:
    QTAILQ_FOREACH(t, &s->tasks, all) {
        if (t->phase == IDXD_PHASE_INTERRUPTING && t != s->running &&
            idxd_task_chosen(t, wqs, pasid)) {
            bool ims = t->ims;
            uint16_t handle = t->desc.int_handle;

            idxd_task_unlink(s, t);
            idxd_task_free(t);
            idxd_interrupt(s, ims, handle);
            goto restart;       /* who knows what that has led to */
        }
    }
}

void idxd_engine_abort(IDXDState *s, uint32_t wqs, int pasid)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    IDXDTask *t, *next;
    unsigned i;

    QTAILQ_FOREACH_SAFE(t, &s->tasks, all, next) {
        if (!idxd_task_chosen(t, wqs, pasid)) {
            continue;
        }
        trace_idxd_abort(t->wq, t->desc.opcode, t->seq);
        idxd_task_unlink(s, t);
        if (t == s->running) {
            /* It is being worked on further up the stack */
            s->running = NULL;
            s->orphan = t;
        } else {
            idxd_task_free(t);
        }
    }

    /* What waited for those, or for their room */
    for (i = 0; i < s->num_wqs; i++) {
        idxd_drains_poll(s, i, now);
    }
    for (i = 0; i < s->num_groups; i++) {
        idxd_dispatch(s, i, now);
    }
    idxd_timer_update(s);
}

void idxd_engine_reset(IDXDState *s)
{
    unsigned i;

    idxd_engine_abort(s, UINT32_MAX, -1);
    for (i = 0; i < IDXD_MAX_WQS; i++) {
        s->wqs[i].credit = 0;
        s->wqs[i].partial_len = 0;
    }
    s->last_start = 0;
    s->link_free = 0;
}

void idxd_engine_init(IDXDState *s)
{
    unsigned i;

    QTAILQ_INIT(&s->tasks);
    QTAILQ_INIT(&s->events);
    for (i = 0; i < IDXD_MAX_WQS; i++) {
        QTAILQ_INIT(&s->wqs[i].queued);
        QTAILQ_INIT(&s->wqs[i].inflight);
    }
    s->timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, idxd_timer, s);
}

void idxd_engine_finalize(IDXDState *s)
{
    idxd_engine_abort(s, UINT32_MAX, -1);
    g_clear_pointer(&s->timer, timer_free);
}

/* Is the task, as loaded, one that this device could have saved? */
static bool idxd_task_sane(IDXDState *s, const IDXDTask *t)
{
    if (t->phase >= IDXD_PHASE__MAX || t->wq >= s->num_wqs ||
        t->engine >= s->num_engines ||
        t->injected.kind >= IDXD_INJECT__MAX) {
        return false;
    }
    if (!idxd_task_is_batch(t)) {
        return t->phase != IDXD_PHASE_FETCHING &&
               t->phase != IDXD_PHASE_FINISHING && !t->list_size;
    }
    if ((t->phase == IDXD_PHASE_FETCHING || idxd_task_queued(t)) &&
        t->list_size) {
        return false;
    }
    if (t->phase == IDXD_PHASE_DRAINING) {
        return false;
    }
    if (t->phase == IDXD_PHASE_FETCHING && t->desc.size > 1u << 15) {
        return false;
    }
    return !t->list_size ||
           (t->list_size == (uint64_t)t->desc.size * IDXD_DESC_SIZE &&
            t->next <= t->planned && t->planned <= t->desc.size &&
            t->completed <= t->next);
}

bool idxd_engine_loaded(IDXDState *s)
{
    IDXDTask *t;
    unsigned i;

    for (i = 0; i < IDXD_MAX_WQS; i++) {
        IDXDWorkQueue *wq = &s->wqs[i];

        QTAILQ_INIT(&wq->queued);
        QTAILQ_INIT(&wq->inflight);
        wq->occupancy = 0;
        wq->drains = 0;
        if (wq->partial_len > IDXD_DESC_SIZE || wq->partial_len % 8) {
            return false;
        }
    }
    QTAILQ_INIT(&s->events);
    memset(s->engines, 0, sizeof(s->engines));

    QTAILQ_FOREACH(t, &s->tasks, all) {
        idxd_task_decode(s, t);
        if (!idxd_task_sane(s, t)) {
            return false;
        }
        for (i = t->next; i < t->planned; i++) {
            idxd_member_decode(t, i - t->next);
        }
        if (idxd_task_queued(t)) {
            QTAILQ_INSERT_TAIL(&s->wqs[t->wq].queued, t, queue);
            s->wqs[t->wq].occupancy++;
        } else {
            QTAILQ_INSERT_TAIL(&s->wqs[t->wq].inflight, t, queue);
            if (idxd_task_in_engine(t)) {
                (*idxd_task_slots(s, t))++;
            }
        }
        if (t->phase == IDXD_PHASE_DRAINING) {
            s->wqs[t->wq].drains++;
        } else if (t->phase != IDXD_PHASE_READY) {
            idxd_event_insert(s, t);
        }
    }
    idxd_timer_update(s);
    return true;
}

static int idxd_task_pre_load(void *opaque)
{
    memset(opaque, 0, sizeof(IDXDTask));
    return 0;
}

const VMStateDescription vmstate_idxd_task = {
    .name = "idxd-dsa/task",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = idxd_task_pre_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(seq, IDXDTask),
        VMSTATE_UINT64(order, IDXDTask),
        VMSTATE_INT64(due, IDXDTask),
        VMSTATE_UINT8(phase, IDXDTask),
        VMSTATE_UINT8(wq, IDXDTask),
        VMSTATE_UINT8(engine, IDXDTask),
        VMSTATE_BOOL(ims, IDXDTask),
        VMSTATE_UINT8_ARRAY(raw, IDXDTask, IDXD_DESC_SIZE),
        VMSTATE_UINT8(injected.kind, IDXDTask),
        VMSTATE_UINT64(injected.value, IDXDTask),
        VMSTATE_UINT32(list_size, IDXDTask),
        VMSTATE_VBUFFER_ALLOC_UINT32(list, IDXDTask, 1, NULL, list_size),
        VMSTATE_UINT32(next, IDXDTask),
        VMSTATE_UINT32(planned, IDXDTask),
        VMSTATE_UINT32(completed, IDXDTask),
        VMSTATE_BOOL(failed, IDXDTask),
        VMSTATE_INT64(ready, IDXDTask),
        VMSTATE_INT64(last_done, IDXDTask),
        VMSTATE_UINT8(status, IDXDTask),
        VMSTATE_UINT64(fault_addr, IDXDTask),
        VMSTATE_END_OF_LIST()
    }
};
