/*
 * Intel Data Streaming Accelerator: device state and what its parts call
 *
 * idxd.c holds registers, portals, interrupts and properties, idxd-cmd.c
 * states and commands, idxd-engine.c work queues, engines, batches and time,
 * idxd-inject.c the faults a test may ask for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_DMA_IDXD_ENGINE_H
#define HW_DMA_IDXD_ENGINE_H

#include "hw/pci/pci_device.h"
#include "hw/dma/idxd.h"
#include "hw/dma/idxd-ops.h"
#include "qemu/queue.h"
#include "qom/object.h"

OBJECT_DECLARE_SIMPLE_TYPE(IDXDState, IDXD_DSA)

/* Read buffers that each engine of a group must be allowed */
#define IDXD_MIN_READ_BUFFERS       4

/* Where a descriptor is on its way; part of the migration stream */
typedef enum IDXDPhase {
    IDXD_PHASE_ARRIVING,        /* on its way to the engines */
    IDXD_PHASE_READY,           /* waits for room in an engine */
    IDXD_PHASE_FETCHING,        /* batch: the list is being read */
    IDXD_PHASE_RUNNING,         /* its work, or a run of members, is due */
    IDXD_PHASE_FINISHING,       /* batch: all members are done */
    IDXD_PHASE_DRAINING,        /* drain: waits for earlier descriptors */
    IDXD_PHASE_INTERRUPTING,    /* the record is written */
    IDXD_PHASE__MAX,
} IDXDPhase;

typedef enum IDXDInjectKind {
    IDXD_INJECT_NONE,
    IDXD_INJECT_STATUS,         /* value: status code, nothing is executed */
    IDXD_INJECT_PAGE_FAULT,     /* value: offset in the first buffer */
    IDXD_INJECT_LOST,           /* neither record nor interrupt */
    IDXD_INJECT_DELAY,          /* value: ns */
    IDXD_INJECT_WRONG,          /* executed, but the result is wrong */
    IDXD_INJECT_HALT,           /* value: IDXD_RESET_* */
    IDXD_INJECT_WQ_DISABLE,
    IDXD_INJECT__MAX,
} IDXDInjectKind;

typedef struct IDXDInjected {
    uint8_t kind;               /* IDXDInjectKind */
    uint64_t value;
} IDXDInjected;

/* The rule set through the property "inject" */
typedef struct IDXDInject {
    char *text;                 /* as set */
    IDXDInjected what;
    uint64_t nth;               /* the n-th descriptor from now on, or 0 */
    uint64_t every;             /* every n-th, or 0 */
    uint64_t count;             /* at most so many */
    uint64_t seen;
    uint64_t done;
} IDXDInject;

/* What the checks of a descriptor have found */
typedef struct IDXDFitness {
    bool fit;                   /* passed them */
    uint64_t reads;             /* bytes, if so */
    uint64_t writes;
} IDXDFitness;

/* A member of a batch */
typedef struct IDXDMember {
    IDXDDesc desc;
    IDXDFitness fit;
} IDXDMember;

/* A descriptor that a portal accepted, until its last effect */
typedef struct IDXDTask {
    uint64_t seq;               /* order of acceptance */
    uint64_t order;             /* order of events at the same time */
    int64_t due;                /* virtual time of the next event */
    uint8_t phase;              /* IDXDPhase */
    uint8_t wq;
    uint8_t engine;
    bool ims;                   /* interrupt handles are IMS entries */
    uint8_t raw[IDXD_DESC_SIZE];
    IDXDInjected injected;      /* for the last descriptor planned */
    /* Batches */
    uint8_t *list;
    uint32_t list_size;         /* bytes */
    uint32_t next;              /* member to be executed */
    uint32_t planned;           /* members before this one have a time */
    uint32_t completed;
    bool failed;                /* a member did not succeed */
    int64_t ready;              /* when the list arrived */
    int64_t last_done;          /* when the last planned member is done */
    /* Result that is known before the record is due; 0: none */
    uint8_t status;
    uint64_t fault_addr;
    /* Derived */
    IDXDDesc desc;
    IDXDFitness fit;
    IDXDMember *members;        /* those planned, from the next one on */
    uint32_t room;              /* for so many */
    bool timed;                 /* in the queue of events */
    QTAILQ_ENTRY(IDXDTask) all;
    QTAILQ_ENTRY(IDXDTask) queue;   /* of the work queue, or in flight */
    QTAILQ_ENTRY(IDXDTask) event;
} IDXDTask;

typedef QTAILQ_HEAD(IDXDTaskList, IDXDTask) IDXDTaskList;

typedef struct IDXDWorkQueue {
    uint32_t cfg[IDXD_WQCFG_DWORDS];    /* without state and occupancy */
    uint8_t state;              /* IDXD_STATE_* */
    uint16_t occupancy;
    int32_t credit;             /* of the arbiter */
    /* Eight 8-byte writes to one slot, in order, make a descriptor */
    uint32_t partial_addr;
    uint8_t partial_len;
    uint8_t partial[IDXD_DESC_SIZE];
    /* Derived */
    IDXDTaskList queued;        /* not yet with an engine */
    IDXDTaskList inflight;      /* with an engine, or to interrupt */
    uint32_t drains;            /* drain descriptors in flight */
} IDXDWorkQueue;

typedef struct IDXDEngine {
    uint32_t descs;             /* derived: work descriptors in progress */
    uint32_t batches;           /* derived: batch descriptors in progress */
} IDXDEngine;

typedef struct IDXDGroup {
    uint32_t cfg[IDXD_GRPCFG_STRIDE / 4];
} IDXDGroup;

/* Times in virtual ns */
typedef struct IDXDTiming {
    uint64_t dispatch;
    uint64_t batch;
    uint64_t desc_fetch;
    uint64_t gap;
    uint64_t read;
    uint64_t read_bandwidth;    /* bytes per us, 0: unlimited; not a time */
    uint64_t complete;
    uint64_t batch_complete;
    uint64_t irq;
    uint64_t coalesce;
} IDXDTiming;

typedef struct IDXDStats {
    uint64_t descriptors;
    uint64_t batches;
    uint64_t batch_descriptors;
    uint64_t completions;
    uint64_t errors;
    uint64_t bytes_read;
    uint64_t bytes_written;
    uint64_t interrupts;
    uint64_t sw_errors;
    uint64_t dropped;
    uint64_t retries;
    uint64_t injected;
    uint64_t ops[IDXD_OP_CFLUSH + 1];
} IDXDStats;

struct IDXDState {
    PCIDevice parent_obj;

    MemoryRegion mmio;
    MemoryRegion portals;

    /* Properties */
    uint32_t num_wqs;
    uint32_t num_engines;
    uint32_t num_groups;
    uint32_t total_wq_size;
    uint32_t read_buffers;
    uint32_t max_batch_shift;
    uint32_t max_xfer_shift;
    uint32_t engine_descs;
    uint32_t engine_batches;
    uint64_t op_cap;
    bool shared_wq;
    bool cmdcap;
    char *timing_preset;
    uint32_t time_scale;
    IDXDTiming prop;            /* as set */
    IDXDTiming t;               /* with time-scale applied */
    IDXDInject inject;

    /* Registers */
    uint64_t gencap;
    uint64_t wqcap;
    uint64_t grpcap;
    uint64_t engcap;
    uint32_t gencfg;
    uint32_t genctrl;
    uint8_t state;
    uint8_t reset_needed;
    uint32_t intcause;
    uint32_t cmdsts;
    uint64_t swerr[4];
    IDXDGroup groups[IDXD_MAX_GROUPS];
    IDXDWorkQueue wqs[IDXD_MAX_WQS];
    IDXDEngine engines[IDXD_MAX_ENGINES];
    uint32_t msixperm[IDXD_MAX_VECTORS];
    uint32_t ims[IDXD_IMS_ENTRIES * 4]; /* four dwords for each entry */

    /* The command being executed, if CMDSTS.ACTIVE */
    uint32_t cmd;
    uint32_t cmd_wqs;           /* waits for descriptors of these queues */
    uint64_t cmd_seq;           /* that were accepted before this one */

    /* Descriptors */
    QEMUTimer *timer;
    uint64_t next_seq;
    uint64_t next_order;
    int64_t last_start;         /* the latest start of a descriptor */
    int64_t link_free;          /* when the read path is free again */
    uint64_t transfer_bytes;    /* derived: so many take the read path */
    int64_t transfer;           /* derived: so long; most are of one size */
    IDXDTaskList tasks;         /* all */
    IDXDTaskList events;        /* those that wait for a time, in order */
    IDXDTask *running;          /* whose memory accesses are under way */
    IDXDTask *orphan;           /* that one, aborted meanwhile */

    IDXDStats stats;
};

static inline uint32_t idxd_all_wqs(const IDXDState *s)
{
    return MAKE_64BIT_MASK(0, s->num_wqs);
}

static inline bool idxd_wq_dedicated(const IDXDWorkQueue *wq)
{
    return FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, DEDICATED);
}

static inline bool idxd_wq_pasid(const IDXDWorkQueue *wq)
{
    return FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, PASID_EN);
}

static inline bool idxd_wq_priv(const IDXDWorkQueue *wq)
{
    return FIELD_EX32(wq->cfg[2], IDXD_WQCFG2, PRIV);
}

static inline uint64_t idxd_group_wqs(const IDXDState *s, unsigned group)
{
    return s->groups[group].cfg[0];     /* at most 32 work queues */
}

static inline uint32_t idxd_group_engines(const IDXDState *s, unsigned group)
{
    return s->groups[group].cfg[IDXD_GRPCFG_ENGINES / 4];
}

/*
 * idxd-engine.c: what happens to descriptors.
 */

/* Takes the descriptor of a portal write into work queue @wq */
void idxd_engine_accept(IDXDState *s, unsigned wq, const uint8_t *raw,
                        bool ims);
/*
 * Forgets the descriptors of the work queues in @wqs (a bitmap), with
 * @pasid >= 0 only those of this PASID.  They leave no record.
 */
void idxd_engine_abort(IDXDState *s, uint32_t wqs, int pasid);
/* Of those, the ones that have their record interrupt at once */
void idxd_engine_interrupt(IDXDState *s, uint32_t wqs, int pasid);
/* Are there descriptors of @wqs accepted before @seq? */
bool idxd_engine_pending(IDXDState *s, uint32_t wqs, uint64_t seq, int pasid);
/* Device reset: no descriptors, no history */
void idxd_engine_reset(IDXDState *s);
void idxd_engine_init(IDXDState *s);
void idxd_engine_finalize(IDXDState *s);
/* After loading: rebuild what is derived; false if the stream is not sane */
bool idxd_engine_loaded(IDXDState *s);

extern const VMStateDescription vmstate_idxd_task;

/*
 * idxd.c: interrupts and errors.
 */

/* Reports an error that no completion record can take */
void idxd_swerr(IDXDState *s, uint8_t code, unsigned wq, const IDXDDesc *desc,
                int batch_index, uint64_t addr, uint32_t info);
/* May a descriptor of @wq with @pasid use this interrupt handle? */
bool idxd_handle_allowed(IDXDState *s, unsigned wq, bool ims,
                         uint16_t handle, uint32_t pasid);
void idxd_interrupt(IDXDState *s, bool ims, uint16_t handle);
/* Vector 0, for the causes in @cause, IDXD_INTC_* */
void idxd_cause(IDXDState *s, uint32_t cause);
void idxd_occupancy_fell(IDXDState *s, unsigned wq);

/*
 * idxd-cmd.c: states and commands.
 */

/* A write to the command register */
void idxd_command(IDXDState *s, uint32_t value);
/* A descriptor retired: is a command waiting for it? */
void idxd_command_poll(IDXDState *s);
void idxd_device_state(IDXDState *s, uint8_t state);
/* Takes a work queue out of service, with all its descriptors */
void idxd_wq_stop(IDXDState *s, unsigned wq);
void idxd_stop_all(IDXDState *s);
void idxd_halt(IDXDState *s, uint8_t reset_needed);
/* The configuration that a device reset leaves */
void idxd_config_reset(IDXDState *s);

/*
 * idxd-inject.c: faults on request.
 */

/* Parses @text; on error *@errp is set and @rule is as before */
bool idxd_inject_parse(IDXDInject *rule, const char *text, Error **errp);
/* Counts a descriptor and says what is to happen to it */
IDXDInjected idxd_inject_next(IDXDInject *rule);
void idxd_inject_clear(IDXDInject *rule);

#endif /* HW_DMA_IDXD_ENGINE_H */
