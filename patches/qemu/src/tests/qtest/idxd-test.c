/*
 * QTest testcase for the emulated Intel Data Streaming Accelerator
 *
 * Written from the architecture specification (Intel document 341204), with
 * constants of its own: what the device's headers have wrong shows here.
 *
 * Between two portal writes no time passes unless the test lets it, so that
 * queues fill and batches are caught half done at will.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "libqtest.h"
#include "libqos/pci.h"
#include "libqos/pci-pc.h"
#include "hw/pci/pci_regs.h"

/* Registers */
#define VERSION             0x00
#define GENCAP              0x10
#define WQCAP               0x20
#define GRPCAP              0x30
#define ENGCAP              0x38
#define OPCAP               0x40
#define OFFSETS             0x60
#define GENCFG              0x80
#define GENCTRL             0x88
#define GENSTS              0x90
#define INTCAUSE            0x98
#define CMD                 0xa0
#define CMDSTS              0xa8
#define CMDCAP              0xb0
#define SWERROR             0xc0

#define CMDSTS_ACTIVE       (1u << 31)
#define CMD_INTERRUPT       (1u << 31)

enum {
    ENABLE_DEVICE = 1, DISABLE_DEVICE, DRAIN_ALL, ABORT_ALL, RESET_DEVICE,
    ENABLE_WQ, DISABLE_WQ, DRAIN_WQ, ABORT_WQ, RESET_WQ, DRAIN_PASID,
    ABORT_PASID, REQUEST_INT_HANDLE, RELEASE_INT_HANDLE,
};

#define CAUSE_SWERROR       (1u << 0)
#define CAUSE_COMMAND       (1u << 1)
#define CAUSE_OCCUPANCY     (1u << 2)
#define CAUSE_HALT          (1u << 4)

#define STATE_DISABLED      0
#define STATE_ENABLED       1
#define STATE_HALT          3

/* WQCFG dwords 2 and 3 */
#define WQ_DEDICATED        (1u << 0)
#define WQ_BOF              (1u << 1)
#define WQ_PRIORITY(n)      ((n) << 4)
#define WQ_PASID_EN         (1u << 28)
#define WQ_PRIV             (1u << 29)
#define WQ_LIMITS(xfer, batch)  ((xfer) | (batch) << 5)
#define WQ_GOOD             (WQ_DEDICATED | WQ_PRIORITY(10))

/* Descriptors */
enum {
    NOOP = 0x00, BATCH, DRAIN, MEMMOVE, FILL, COMPARE, COMPVAL, CREATE_DELTA,
    APPLY_DELTA, DUALCAST, CRCGEN = 0x10, COPY_CRC, DIF_CHECK, DIF_INSERT,
    DIF_STRIP, DIF_UPDATE, CFLUSH = 0x20,
};

#define F_FENCE             (1u << 0)
#define F_BOF               (1u << 1)
#define F_CRAV              (1u << 2)
#define F_RCR               (1u << 3)
#define F_RCI               (1u << 4)
#define F_CR                (1u << 7)
#define F_SEED              (1u << 16)
#define F_NO_INVERT         (1u << 17)
#define F_NO_REFLECT        (1u << 18)
#define F_RECORD            (F_CRAV | F_RCR)

typedef struct QEMU_PACKED {
    uint32_t pasid;
    uint32_t flags_op;
    uint64_t cr;
    uint64_t src;
    uint64_t dst;
    uint32_t size;
    uint16_t handle;
    uint16_t reserved;
    uint8_t specific[24];
} Desc;

typedef struct QEMU_PACKED {
    uint8_t status;
    uint8_t result;
    uint8_t fault_info;
    uint8_t reserved;
    uint32_t completed;
    uint64_t fault_addr;
    uint8_t specific[16];
} Record;

QEMU_BUILD_BUG_ON(sizeof(Desc) != 64);
QEMU_BUILD_BUG_ON(sizeof(Record) != 32);

/* Guest memory: 256 MiB; what is above answers nothing */
#define MSI_ADDR            0x00f00000
#define LIST                0x01000000
#define RECORDS             0x01100000
#define SRC                 0x02000000
#define DST                 0x03000000
#define DST2                0x04000000
#define DELTA               0x05000000
#define NOWHERE             0x4000000000ull

#define CR(n)               (RECORDS + 32 * (n))
#define PAGE                4096

typedef struct {
    QTestState *qts;
    QPCIBus *bus;
    QPCIDevice *pci;
    QPCIBar regs;
    QPCIBar portals;
    uint32_t grpcfg, wqcfg, msixperm;
} Dsa;

/* --- access ------------------------------------------------------------- */

static uint32_t rd32(Dsa *d, uint32_t at)
{
    return qtest_readl(d->qts, d->regs.addr + at);
}

static uint64_t rd64(Dsa *d, uint32_t at)
{
    return qtest_readq(d->qts, d->regs.addr + at);
}

static void wr32(Dsa *d, uint32_t at, uint32_t value)
{
    qtest_writel(d->qts, d->regs.addr + at, value);
}

static void wr64(Dsa *d, uint32_t at, uint64_t value)
{
    qtest_writeq(d->qts, d->regs.addr + at, value);
}

static void step(Dsa *d, uint64_t ns)
{
    /* a step of nothing is refused */
    if (ns) {
        qtest_clock_step(d->qts, ns);
    }
}

static uint32_t wqcfg(Dsa *d, int wq, int dword)
{
    return rd32(d, d->wqcfg + 32 * wq + 4 * dword);
}

static void set_wqcfg(Dsa *d, int wq, int dword, uint32_t value)
{
    wr32(d, d->wqcfg + 32 * wq + 4 * dword, value);
}

static int wq_state(Dsa *d, int wq)
{
    return wqcfg(d, wq, 6) >> 30;
}

static void attach(Dsa *d, int devfn)
{
    uint64_t offsets;
    int i;

    d->pci = qpci_device_find(d->bus, devfn);
    g_assert_nonnull(d->pci);
    qpci_device_enable(d->pci);
    qpci_msix_enable(d->pci);
    d->regs = d->pci->msix_table_bar;
    d->portals = qpci_iomap(d->pci, 2, NULL);
    for (i = 0; i < qpci_msix_table_size(d->pci); i++) {
        uint64_t entry = d->regs.addr + d->pci->msix_table_off +
                         i * PCI_MSIX_ENTRY_SIZE;

        qtest_writel(d->qts, entry, MSI_ADDR + 4 * i);
        qtest_writel(d->qts, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
        qtest_writel(d->qts, entry + PCI_MSIX_ENTRY_DATA, 0x1000 + i);
        qtest_writel(d->qts, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
    }
    offsets = rd64(d, OFFSETS);
    d->grpcfg = (offsets & 0xffff) << 8;
    d->wqcfg = (offsets >> 16 & 0xffff) << 8;
    d->msixperm = (offsets >> 32 & 0xffff) << 8;
}

#define MACHINE "-machine q35 -m 256M -nodefaults -display none "

/* One device at 04.0; the constants of time are such that all sums are whole */
#define EXACT   ",time-scale=1000,read-bandwidth=32000"

static Dsa *start_with(const char *properties, const char *more)
{
    Dsa *d = g_new0(Dsa, 1);

    d->qts = qtest_initf(MACHINE "-device idxd-dsa,id=dsa0,addr=04.0%s %s",
                         properties, more);
    d->bus = qpci_new_pc(d->qts, NULL);
    attach(d, QPCI_DEVFN(4, 0));
    return d;
}

static Dsa *start(const char *properties)
{
    return start_with(properties, "");
}

static void stop(Dsa *d)
{
    g_free(d->pci);
    qpci_free_pc(d->bus);
    qtest_quit(d->qts);
    g_free(d);
}

/* Was this MSI-X entry signalled since the last time? */
static bool interrupted(Dsa *d, int entry)
{
    uint32_t data = qtest_readl(d->qts, MSI_ADDR + 4 * entry);

    if (!data) {
        return false;
    }
    g_assert_cmphex(data, ==, 0x1000 + entry);
    qtest_writel(d->qts, MSI_ADDR + 4 * entry, 0);
    return true;
}

static void issue(Dsa *d, int command, uint32_t operand)
{
    wr32(d, CMD, (uint32_t)command << 20 | operand);
}

/* Run a command to its end; CMDSTS */
static uint32_t run(Dsa *d, int command, uint32_t operand)
{
    int i;

    issue(d, command, operand);
    for (i = 0; rd32(d, CMDSTS) & CMDSTS_ACTIVE; i++) {
        g_assert_cmpint(i, <, 10000);
        step(d, 1000);
    }
    return rd32(d, CMDSTS);
}

static uint32_t wq_bit(int wq)
{
    return 1u << wq % 16 | wq / 16 << 16;
}

static void set_group(Dsa *d, int group, uint64_t wqs, uint64_t engines)
{
    wr64(d, d->grpcfg + 64 * group, wqs);
    wr64(d, d->grpcfg + 64 * group + 32, engines);
}

static void set_wq(Dsa *d, int wq, int size)
{
    set_wqcfg(d, wq, 0, size);
    set_wqcfg(d, wq, 1, 0);
    set_wqcfg(d, wq, 2, WQ_GOOD);
    set_wqcfg(d, wq, 3, WQ_LIMITS(21, 10));
}

/* Queue 0 with so many entries, all engines, everything enabled */
static void configure(Dsa *d, int size)
{
    set_wq(d, 0, size);
    set_group(d, 0, 1, (1 << (rd64(d, ENGCAP) & 0xff)) - 1);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
}

static Dsa *start_configured(const char *properties)
{
    Dsa *d = start(properties);

    configure(d, 64);
    return d;
}

static Desc desc(int opcode, uint32_t flags, int record)
{
    Desc desc = {
        .flags_op = cpu_to_le32((uint32_t)opcode << 24 | flags),
        .cr = cpu_to_le64(flags & F_CRAV ? CR(record) : 0),
    };

    return desc;
}

static Desc op(int opcode, uint64_t src, uint64_t dst, uint32_t size)
{
    Desc d = desc(opcode, F_RECORD, 0);

    d.src = cpu_to_le64(src);
    d.dst = cpu_to_le64(dst);
    d.size = cpu_to_le32(size);
    return d;
}

static uint64_t portal(Dsa *d, int wq, int page)
{
    return d->portals.addr + wq * 4 * PAGE + page * PAGE;
}

static void submit_at(Dsa *d, uint64_t at, const Desc *desc)
{
    const uint8_t *raw = (const uint8_t *)desc;
    int i;

    for (i = 0; i < 8; i++) {
        qtest_writeq(d->qts, at + 8 * i, ldq_le_p(raw + 8 * i));
    }
}

static void submit(Dsa *d, int wq, Desc desc)
{
    submit_at(d, portal(d, wq, 1), &desc);
}

static void put_desc(Dsa *d, int n, Desc desc)
{
    qtest_memwrite(d->qts, LIST + 64 * n, &desc, sizeof(desc));
}

static Record record(Dsa *d, int n)
{
    Record r;

    qtest_memread(d->qts, CR(n), &r, sizeof(r));
    r.completed = le32_to_cpu(r.completed);
    r.fault_addr = le64_to_cpu(r.fault_addr);
    return r;
}

static uint8_t status(Dsa *d, int n)
{
    return qtest_readb(d->qts, CR(n));
}

static void clear_records(Dsa *d, int count)
{
    qtest_memset(d->qts, RECORDS, 0, 32 * count);
}

/* Run one descriptor with record 0 to its end */
static Record execute(Dsa *d, Desc desc)
{
    int i;

    clear_records(d, 1);
    submit(d, 0, desc);
    for (i = 0; !status(d, 0); i++) {
        g_assert_cmpint(i, <, 10000);
        step(d, 1000);
    }
    return record(d, 0);
}

static uint8_t execute_status(Dsa *d, Desc desc)
{
    return execute(d, desc).status;
}

static Desc batch(uint64_t list, uint32_t count, int record)
{
    Desc b = desc(BATCH, F_RECORD, record);

    b.src = cpu_to_le64(list);
    b.size = cpu_to_le32(count);
    return b;
}

static uint64_t counter_of(Dsa *d, const char *id, const char *name)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);
    QDict *answer = qtest_qmp(d->qts, "{'execute': 'qom-get', 'arguments':"
                              "{'path': %s, 'property': %s}}", path, name);
    uint64_t value;

    g_assert(qdict_haskey(answer, "return"));
    value = qdict_get_int(answer, "return");
    qobject_unref(answer);
    return value;
}

static uint64_t counter(Dsa *d, const char *name)
{
    return counter_of(d, "dsa0", name);
}

static void inject(Dsa *d, const char *what)
{
    qtest_qmp_assert_success(d->qts, "{'execute': 'qom-set', 'arguments':"
                             "{'path': '/machine/peripheral/dsa0',"
                             " 'property': 'inject', 'value': %s}}", what);
}

typedef struct {
    bool valid, overflow, desc_valid, wq_valid, in_batch;
    uint8_t code, wq, opcode;
    uint16_t batch_index;
    uint64_t address;
} SwError;

static SwError sw_error(Dsa *d)
{
    uint64_t a = rd64(d, SWERROR), b = rd64(d, SWERROR + 8);

    return (SwError) {
        .valid = a & 1, .overflow = a >> 1 & 1, .desc_valid = a >> 2 & 1,
        .wq_valid = a >> 3 & 1, .in_batch = a >> 4 & 1, .code = a >> 8,
        .wq = a >> 16, .opcode = a >> 32, .batch_index = b,
        .address = rd64(d, SWERROR + 16),
    };
}

/* --- identity and registers --------------------------------------------- */

static void test_identity(void)
{
    Dsa *d = start("");
    uint8_t express, msix;
    uint64_t size;

    g_assert_cmphex(qpci_config_readw(d->pci, PCI_VENDOR_ID), ==, 0x8086);
    g_assert_cmphex(qpci_config_readw(d->pci, PCI_DEVICE_ID), ==, 0x0b25);
    g_assert_cmphex(qpci_config_readl(d->pci, PCI_CLASS_REVISION) >> 8, ==,
                    0x088000);
    g_assert_cmphex(qpci_config_readb(d->pci, PCI_INTERRUPT_PIN), ==, 0);
    g_assert_cmphex(qpci_config_readb(d->pci, PCI_CAPABILITY_LIST), ==, 0x40);

    /* a root complex integrated endpoint that can be reset by itself */
    express = qpci_find_capability(d->pci, PCI_CAP_ID_EXP, 0);
    g_assert_cmphex(express, ==, 0x40);
    g_assert_cmphex(qpci_config_readw(d->pci, express + PCI_EXP_FLAGS) >> 4 &
                    0xf, ==, PCI_EXP_TYPE_RC_END);
    g_assert_cmphex(qpci_config_readl(d->pci, express + PCI_EXP_DEVCAP) &
                    PCI_EXP_DEVCAP_FLR, !=, 0);

    msix = qpci_find_capability(d->pci, PCI_CAP_ID_MSIX, 0);
    g_assert_cmphex(msix, ==, 0x80);
    g_assert_cmpint(qpci_msix_table_size(d->pci), ==, 9);
    g_assert_cmphex(qpci_config_readl(d->pci, msix + PCI_MSIX_TABLE), ==,
                    0x2000);
    g_assert_cmphex(qpci_config_readl(d->pci, msix + PCI_MSIX_PBA), ==,
                    0x3000);

    /* both memory, 64 bits, prefetchable */
    g_assert_cmphex(qpci_config_readl(d->pci, PCI_BASE_ADDRESS_0) & 0xf, ==,
                    0xc);
    g_assert_cmphex(qpci_config_readl(d->pci, PCI_BASE_ADDRESS_2) & 0xf, ==,
                    0xc);
    qpci_iomap(d->pci, 2, &size);
    g_assert_cmphex(size, ==, 8 * 4 * PAGE);
    qpci_iomap(d->pci, 0, &size);
    g_assert_cmphex(size, ==, 64 * KiB);
    stop(d);
}

static void test_reset_values(void)
{
    static const struct {
        uint32_t at;
        uint64_t value;
    } caps[] = {
        { GENCAP, 0x40915f0107 },
        { WQCAP, 0x003b000000080080 },
        { GRPCAP, 0x36004 },
        { OPCAP, 0x1003f03ff },
        { OPCAP + 8, 0 },
        { OPCAP + 16, 0 },
        { OPCAP + 24, 0 },
        { OFFSETS + 8, 0 },
    };
    Dsa *d = start("");
    int i, group;

    g_assert_cmphex(rd32(d, VERSION), ==, 0x100);
    for (i = 0; i < ARRAY_SIZE(caps); i++) {
        g_assert_cmphex(rd64(d, caps[i].at), ==, caps[i].value);
        g_assert_cmphex(rd32(d, caps[i].at), ==, (uint32_t)caps[i].value);
        g_assert_cmphex(rd32(d, caps[i].at + 4), ==, caps[i].value >> 32);
        /* read only */
        wr64(d, caps[i].at, ~caps[i].value);
        g_assert_cmphex(rd64(d, caps[i].at), ==, caps[i].value);
    }
    g_assert_cmphex(rd64(d, ENGCAP) & 0xff, ==, 4);
    g_assert_cmphex(rd32(d, GENCFG), ==, 96);
    g_assert_cmphex(rd32(d, GENCTRL), ==, 0);
    g_assert_cmphex(rd32(d, GENSTS), ==, 0);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, 0);
    g_assert_cmphex(rd32(d, CMDSTS), ==, 0);
    g_assert_cmphex(rd32(d, CMDCAP), ==, 0);
    for (i = 0; i < 4; i++) {
        g_assert_cmphex(rd64(d, SWERROR + 8 * i), ==, 0);
    }
    wr32(d, GENSTS, 1);
    g_assert_cmphex(rd32(d, GENSTS), ==, 0);

    /* the tables lie in the BAR, apart from each other and from MSI-X */
    g_assert_cmphex(d->grpcfg, >=, 0x100);
    g_assert_cmphex(d->wqcfg, >=, 0x100);
    g_assert_cmphex(d->msixperm, >=, 0x100);
    g_assert(d->grpcfg + 4 * 64 <= d->wqcfg || d->wqcfg + 8 * 32 <= d->grpcfg);
    g_assert(d->grpcfg + 4 * 64 <= d->msixperm ||
             d->msixperm + 9 * 8 <= d->grpcfg);
    g_assert(d->wqcfg + 8 * 32 <= d->msixperm ||
             d->msixperm + 9 * 8 <= d->wqcfg);
    g_assert_cmphex(MAX(d->grpcfg + 4 * 64, d->wqcfg + 8 * 32), <=, 0x2000);
    for (i = 0; i < 8; i++) {
        int dword;

        for (dword = 0; dword < 6; dword++) {
            g_assert_cmphex(wqcfg(d, i, dword), ==, 0);
        }
        g_assert_cmphex(wq_state(d, i), ==, STATE_DISABLED);
    }
    for (group = 0; group < 4; group++) {
        for (i = 0; i < 5; i++) {
            g_assert_cmphex(rd64(d, d->grpcfg + 64 * group + 8 * i), ==, 0);
        }
        g_assert_cmphex(rd64(d, d->grpcfg + 64 * group + 40) >> 20 & 0xff, ==,
                        96);
    }
    stop(d);
}

static void test_properties(void)
{
    Dsa *d = start(",num-wqs=2,num-engines=1,num-groups=1,total-wq-size=32,"
                   "read-buffers=16,max-batch-shift=5,max-xfer-shift=20,"
                   "op-cap=0x67,shared-wq=off");
    uint64_t size;

    g_assert_cmphex(rd64(d, WQCAP) & 0xffffff, ==, 0x020020);
    g_assert_cmphex(rd64(d, WQCAP) >> 48 & 3, ==, 2);
    g_assert_cmphex(rd64(d, GRPCAP) & 0xffff, ==, 0x1001);
    g_assert_cmphex(rd64(d, ENGCAP) & 0xff, ==, 1);
    g_assert_cmphex(rd64(d, GENCAP) >> 16 & 0x1f, ==, 20);
    g_assert_cmphex(rd64(d, GENCAP) >> 21 & 0xf, ==, 5);
    g_assert_cmphex(rd64(d, OPCAP), ==, 0x67);
    g_assert_cmpint(qpci_msix_table_size(d->pci), >=, 3);

    /* what these exclude */
    set_group(d, 0, 1, 1);
    set_wqcfg(d, 0, 0, 33);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0x14);
    set_wqcfg(d, 0, 0, 32);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    set_wqcfg(d, 0, 3, WQ_LIMITS(20, 5));
    set_wqcfg(d, 0, 2, WQ_PRIORITY(1));
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0x24);
    set_wqcfg(d, 0, 2, WQ_GOOD);
    set_wqcfg(d, 0, 3, WQ_LIMITS(21, 5));
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0x28);
    set_wqcfg(d, 0, 3, WQ_LIMITS(20, 6));
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0x27);
    set_wqcfg(d, 0, 3, WQ_LIMITS(20, 5));
    g_assert_cmphex(run(d, ENABLE_WQ, 2), ==, 0x02);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    g_assert_cmphex(execute_status(d, op(FILL, 0, DST, 8)), ==, 0x10);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, 8)), ==, 0x01);
    qpci_iomap(d->pci, 2, &size);
    g_assert_cmphex(size, ==, 2 * 4 * PAGE);
    stop(d);
}

/* --- tables -------------------------------------------------------------- */

static void test_tables(void)
{
    Dsa *d = start("");
    uint64_t flags;
    int i;

    /* everything but state and mode support can be written while disabled */
    set_wqcfg(d, 3, 0, 16);
    set_wqcfg(d, 3, 1, 5);
    set_wqcfg(d, 3, 2, WQ_GOOD | WQ_PRIV);
    set_wqcfg(d, 3, 3, WQ_LIMITS(12, 4));
    set_wqcfg(d, 3, 4, 2);
    set_wqcfg(d, 3, 5, 8);
    set_wqcfg(d, 3, 6, 0xffffffff);
    g_assert_cmphex(wqcfg(d, 3, 0), ==, 16);
    g_assert_cmphex(wqcfg(d, 3, 1), ==, 5);
    g_assert_cmphex(wqcfg(d, 3, 2), ==, WQ_GOOD | WQ_PRIV);
    g_assert_cmphex(wqcfg(d, 3, 3), ==, WQ_LIMITS(12, 4));
    g_assert_cmphex(wqcfg(d, 3, 4), ==, 2);
    g_assert_cmphex(wqcfg(d, 3, 5), ==, 8);
    g_assert_cmphex(wq_state(d, 3), ==, STATE_DISABLED);
    g_assert_cmphex(wqcfg(d, 3, 6) & 0xffff, ==, 0);
    g_assert_cmphex(wqcfg(d, 3, 7), ==, 0);
    g_assert_cmphex(wqcfg(d, 2, 0), ==, 0);
    set_wqcfg(d, 3, 0, 0);
    set_wqcfg(d, 3, 4, 0);
    set_wqcfg(d, 3, 5, 0);

    wr32(d, GENCFG, 40);
    g_assert_cmphex(rd32(d, GENCFG) & 0xff, ==, 40);
    wr32(d, GENCFG, 96);
    wr32(d, GENCTRL, 3);
    g_assert_cmphex(rd32(d, GENCTRL) & 3, ==, 3);
    wr64(d, d->msixperm + 8, 0xabcde008);
    g_assert_cmphex(rd32(d, d->msixperm + 8), ==, 0xabcde008);
    wr64(d, d->msixperm + 8, 0);

    /* also by halves */
    wr32(d, d->grpcfg, 3);
    wr32(d, d->grpcfg + 4, 0);
    g_assert_cmphex(rd64(d, d->grpcfg), ==, 3);
    flags = rd64(d, d->grpcfg + 40);
    wr64(d, d->grpcfg + 40, flags | 011);
    g_assert_cmphex(rd64(d, d->grpcfg + 40), ==, flags | 011);

    set_wq(d, 0, 32);
    set_wq(d, 1, 16);
    set_group(d, 0, 3, 0xf);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_ENABLED);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    g_assert_cmphex(wq_state(d, 0), ==, STATE_ENABLED);

    /* now groups, sizes, and all of an enabled queue stand fast */
    for (i = 0; i < 6; i++) {
        wr64(d, d->grpcfg + 8 * i, 0);
        wr64(d, d->grpcfg + 64 + 8 * i, 0xff);
    }
    g_assert_cmphex(rd64(d, d->grpcfg), ==, 3);
    g_assert_cmphex(rd64(d, d->grpcfg + 32), ==, 0xf);
    g_assert_cmphex(rd64(d, d->grpcfg + 40), ==, flags | 011);
    g_assert_cmphex(rd64(d, d->grpcfg + 64), ==, 0);
    wr32(d, GENCFG, 1);
    g_assert_cmphex(rd32(d, GENCFG) & 0xff, ==, 96);
    for (i = 0; i < 8; i++) {
        set_wqcfg(d, 0, i, 0xffffffff);
    }
    g_assert_cmphex(wqcfg(d, 0, 0), ==, 32);
    g_assert_cmphex(wqcfg(d, 0, 2), ==, WQ_GOOD);
    g_assert_cmphex(wqcfg(d, 0, 3), ==, WQ_LIMITS(21, 10));
    g_assert_cmphex(wq_state(d, 0), ==, STATE_ENABLED);
    /* of a disabled queue only the size */
    set_wqcfg(d, 1, 0, 99);
    set_wqcfg(d, 1, 2, WQ_DEDICATED | WQ_PRIORITY(3));
    g_assert_cmphex(wqcfg(d, 1, 0), ==, 16);
    g_assert_cmphex(wqcfg(d, 1, 2), ==, WQ_DEDICATED | WQ_PRIORITY(3));

    /* the threshold, whatever it was set to above, may change any time */
    set_wqcfg(d, 0, 1, 7);
    g_assert_cmphex(wqcfg(d, 0, 1), ==, 7);
    set_wqcfg(d, 0, 5, 0);

    /* reset of a queue keeps its size, of the device nothing */
    g_assert_cmphex(run(d, RESET_WQ, wq_bit(0)), ==, 0);
    g_assert_cmphex(wqcfg(d, 0, 0), ==, 32);
    for (i = 1; i < 6; i++) {
        g_assert_cmphex(wqcfg(d, 0, i), ==, 0);
    }
    g_assert_cmphex(wq_state(d, 0), ==, STATE_DISABLED);
    g_assert_cmphex(wqcfg(d, 1, 2), ==, WQ_DEDICATED | WQ_PRIORITY(3));
    wr32(d, GENCTRL, 3);
    g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_DISABLED);
    for (i = 0; i < 6; i++) {
        g_assert_cmphex(wqcfg(d, 0, i), ==, 0);
        g_assert_cmphex(wqcfg(d, 1, i), ==, 0);
    }
    g_assert_cmphex(rd64(d, d->grpcfg), ==, 0);
    g_assert_cmphex(rd64(d, d->grpcfg + 32), ==, 0);
    g_assert_cmphex(rd64(d, d->grpcfg + 40), ==, flags);
    g_assert_cmphex(rd32(d, GENCTRL), ==, 0);
    /* but MSI-X is PCI's */
    g_assert_cmphex(qtest_readl(d->qts, d->regs.addr + d->pci->msix_table_off),
                    ==, MSI_ADDR);
    stop(d);
}

/* --- commands ------------------------------------------------------------ */

static void fresh(Dsa *d)
{
    int i;

    g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
    for (i = 0; i < 2; i++) {
        set_wq(d, i, 16);
    }
    set_group(d, 0, 1, 1);
    set_group(d, 1, 2, 2);
}

static uint32_t refused_device(Dsa *d)
{
    uint32_t error = run(d, ENABLE_DEVICE, 0);

    g_assert_cmphex(error, <=, 0xff);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_DISABLED);
    fresh(d);
    return error;
}

static void group_error(uint32_t error)
{
    g_assert_cmphex(error, >=, 0x15);
    g_assert_cmphex(error, <=, 0x17);
}

static void test_enable_device(void)
{
    Dsa *d = start("");
    uint16_t command = qpci_config_readw(d->pci, PCI_COMMAND);
    uint64_t flags;

    fresh(d);
    qpci_config_writew(d->pci, PCI_COMMAND, command & ~PCI_COMMAND_MASTER);
    g_assert_cmphex(refused_device(d), ==, 0x12);
    qpci_config_writew(d->pci, PCI_COMMAND, command);

    set_wqcfg(d, 0, 0, 100);
    set_wqcfg(d, 1, 0, 29);
    g_assert_cmphex(refused_device(d), ==, 0x14);
    /* a group with a queue and no engine, an engine and no queue */
    set_group(d, 0, 1, 0);
    group_error(refused_device(d));
    set_group(d, 0, 0, 1);
    set_wqcfg(d, 0, 0, 0);
    group_error(refused_device(d));
    /* a queue in no group, in two; an engine in two */
    set_wqcfg(d, 2, 0, 4);
    group_error(refused_device(d));
    set_group(d, 1, 3, 2);
    group_error(refused_device(d));
    set_group(d, 1, 2, 3);
    group_error(refused_device(d));
    /* fewer read buffers than four for each engine, more than there are */
    flags = rd64(d, d->grpcfg + 40) & ~0x0ff00000ull;
    wr64(d, d->grpcfg + 40, flags | 3ull << 20);
    g_assert_cmphex(refused_device(d), ==, 0x18);
    wr64(d, d->grpcfg + 40, flags | 97ull << 20);
    g_assert_cmphex(refused_device(d), ==, 0x18);
    wr64(d, d->grpcfg + 40, flags | 96ull << 20 | 60 << 8);
    wr64(d, d->grpcfg + 64 + 40, flags | 96ull << 20 | 60 << 8);
    g_assert_cmphex(refused_device(d), ==, 0x18);

    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0x10);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_ENABLED);
    g_assert_cmphex(run(d, DISABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(run(d, DISABLE_DEVICE, 0), ==, 0x31);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_DISABLED);
    stop(d);
}

static uint32_t refused_wq(Dsa *d, uint32_t dword2, uint32_t dword3)
{
    uint32_t error;

    set_wqcfg(d, 0, 2, dword2);
    set_wqcfg(d, 0, 3, dword3);
    error = run(d, ENABLE_WQ, 0);
    g_assert_cmphex(wq_state(d, 0), ==, STATE_DISABLED);
    set_wqcfg(d, 0, 2, WQ_GOOD);
    set_wqcfg(d, 0, 3, WQ_LIMITS(21, 10));
    return error;
}

static void test_enable_wq(void)
{
    Dsa *d = start("");

    fresh(d);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0x20);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(run(d, ENABLE_WQ, 8), ==, 0x02);
    g_assert_cmphex(run(d, ENABLE_WQ, 5), ==, 0x22);
    g_assert_cmphex(refused_wq(d, WQ_DEDICATED, WQ_LIMITS(21, 10)), ==, 0x23);
    /* shared without a PASID; dedicated with one, which PCI does not have */
    g_assert_cmphex(refused_wq(d, WQ_PRIORITY(1), WQ_LIMITS(21, 10)), ==,
                    0x26);
    g_assert_cmphex(refused_wq(d, WQ_GOOD | WQ_PASID_EN, WQ_LIMITS(21, 10)),
                    ==, 0x26);
    g_assert_cmphex(refused_wq(d, WQ_GOOD, WQ_LIMITS(21, 11)), ==, 0x27);
    /* privileged mode means something with a PASID only */
    set_wqcfg(d, 0, 2, WQ_GOOD | WQ_PRIV | WQ_BOF);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    g_assert_cmphex(wq_state(d, 0), ==, STATE_ENABLED);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0x21);
    g_assert_cmphex(run(d, DISABLE_WQ, wq_bit(1)), ==, 0x32);
    g_assert_cmphex(run(d, DRAIN_WQ, wq_bit(1)), ==, 0x32);
    g_assert_cmphex(run(d, ABORT_WQ, wq_bit(1)), ==, 0x32);
    g_assert_cmphex(run(d, DISABLE_WQ, wq_bit(0)), ==, 0);
    g_assert_cmphex(wq_state(d, 0), ==, STATE_DISABLED);
    g_assert_cmphex(run(d, DISABLE_WQ, wq_bit(0)), ==, 0x32);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    g_assert_cmphex(run(d, ENABLE_WQ, 1), ==, 0);

    /* both at once; then with the device */
    g_assert_cmphex(run(d, DISABLE_WQ, wq_bit(0) | wq_bit(1)), ==, 0);
    g_assert_cmphex(wq_state(d, 0), ==, STATE_DISABLED);
    g_assert_cmphex(wq_state(d, 1), ==, STATE_DISABLED);
    g_assert_cmphex(run(d, ENABLE_WQ, 1), ==, 0);
    g_assert_cmphex(run(d, DISABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(wq_state(d, 1), ==, STATE_DISABLED);
    stop(d);
}

static void test_commands(void)
{
    static const int in_vain[] = {
        DRAIN_ALL, ABORT_ALL, DISABLE_WQ, DRAIN_WQ, ABORT_WQ,
    };
    Dsa *d = start("");
    int i;

    for (i = 0; i < ARRAY_SIZE(in_vain); i++) {
        uint32_t operand = in_vain[i] >= DISABLE_WQ ? wq_bit(0) : 0;

        g_assert_cmphex(run(d, in_vain[i], operand) & 0xff, !=, 0);
    }
    g_assert_cmphex(run(d, 0, 0), ==, 0x01);
    g_assert_cmphex(run(d, 0x3f, 0), ==, 0x01);
    /* without command capabilities there is nothing about handles */
    g_assert_cmphex(run(d, REQUEST_INT_HANDLE, 1) & 0xff, !=, 0);
    fresh(d);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 1), ==, 0x04);
    g_assert_cmphex(run(d, RESET_DEVICE, 1), ==, 0x04);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    g_assert_cmphex(run(d, DISABLE_WQ, 1u << 16 | 1) & 0xff, !=, 0);
    g_assert_cmphex(run(d, DRAIN_ALL, 0), ==, 0);
    g_assert_cmphex(run(d, ABORT_ALL, 0), ==, 0);
    g_assert_cmphex(run(d, DRAIN_WQ, wq_bit(0)), ==, 0);
    g_assert_cmphex(run(d, ABORT_WQ, wq_bit(0)), ==, 0);
    g_assert_cmphex(run(d, DRAIN_PASID, 1), ==, 0);
    g_assert_cmphex(run(d, ABORT_PASID, 1), ==, 0);

    /* no interrupt, and no cause, that was not asked for */
    step(d, 10000);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, 0);
    g_assert_false(interrupted(d, 0));
    issue(d, DRAIN_ALL, CMD_INTERRUPT);
    step(d, 100000);
    g_assert_cmphex(rd32(d, CMDSTS), ==, 0);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_COMMAND);
    g_assert_true(interrupted(d, 0));
    wr32(d, INTCAUSE, ~CAUSE_COMMAND);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_COMMAND);
    wr32(d, INTCAUSE, CAUSE_COMMAND);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, 0);
    /* an error is told the same way */
    issue(d, ENABLE_DEVICE, CMD_INTERRUPT);
    step(d, 100000);
    g_assert_cmphex(rd32(d, CMDSTS), ==, 0x10);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_COMMAND);
    g_assert_true(interrupted(d, 0));
    stop(d);
}

static void test_int_handles(void)
{
    Dsa *d = start(",cmdcap=on");

    g_assert_cmphex(rd64(d, GENCAP) >> 4 & 1, ==, 1);
    g_assert_cmphex(rd32(d, CMDCAP) >> REQUEST_INT_HANDLE & 3, ==, 3);
    g_assert_cmphex(rd32(d, CMDCAP) >> ENABLE_DEVICE & 0x3ff, ==, 0x3ff);
    /* the handle is the index, which is also what Linux gives back */
    g_assert_cmphex(run(d, REQUEST_INT_HANDLE, 3), ==, 3 << 8);
    g_assert_cmphex(run(d, RELEASE_INT_HANDLE, 3), ==, 0);
    g_assert_cmphex(run(d, REQUEST_INT_HANDLE, 9) & 0xff, ==, 0x41);
    g_assert_cmphex(run(d, RELEASE_INT_HANDLE, 9) & 0xff, ==, 0x41);
    stop(d);
}

static void test_msix_masked(void)
{
    Dsa *d = start("");
    uint64_t control = d->regs.addr + d->pci->msix_table_off +
                       PCI_MSIX_ENTRY_VECTOR_CTRL;

    fresh(d);
    qtest_writel(d->qts, control, PCI_MSIX_ENTRY_CTRL_MASKBIT);
    issue(d, ENABLE_DEVICE, CMD_INTERRUPT);
    step(d, 100000);
    g_assert_false(interrupted(d, 0));
    g_assert_true(qpci_msix_pending(d->pci, 0));
    qtest_writel(d->qts, control, 0);
    g_assert_true(interrupted(d, 0));
    g_assert_false(qpci_msix_pending(d->pci, 0));
    stop(d);
}

/* --- portals ------------------------------------------------------------- */

static void test_portal(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    Desc fill = op(FILL, 0x1122334455667788, DST, 8);
    const uint8_t *raw = (const uint8_t *)&fill;
    uint64_t at = portal(d, 0, 1);
    int i;

    /* any of the four pages, any slot */
    for (i = 0; i < 8; i++) {
        clear_records(d, 1);
        submit_at(d, portal(d, 0, i % 4) + 64 * (i * 9 % 64), &fill);
        step(d, 10000);
        g_assert_cmphex(status(d, 0), ==, 1);
    }
    g_assert_cmpint(counter(d, "descriptors"), ==, 8);

    /* too narrow, in the wrong order, incomplete: nothing */
    clear_records(d, 1);
    for (i = 0; i < 16; i++) {
        qtest_writel(d->qts, at + 4 * i, ldl_le_p(raw + 4 * i));
    }
    for (i = 0; i < 64; i++) {
        qtest_writeb(d->qts, at + i, raw[i]);
    }
    for (i = 7; i >= 0; i--) {
        qtest_writeq(d->qts, at + 8 * i, ldq_le_p(raw + 8 * i));
    }
    for (i = 0; i < 7; i++) {
        qtest_writeq(d->qts, at + 8 * i, ldq_le_p(raw + 8 * i));
    }
    /* the eighth comes to another slot, then the sequence starts again */
    qtest_writeq(d->qts, at + 64 + 56, ldq_le_p(raw + 56));
    for (i = 0; i < 4; i++) {
        qtest_writeq(d->qts, at + 8 * i, ldq_le_p(raw + 8 * i));
    }
    step(d, 100000);
    g_assert_cmphex(status(d, 0), ==, 0);
    g_assert_cmpint(counter(d, "descriptors"), ==, 8);
    submit_at(d, at, &fill);
    step(d, 10000);
    g_assert_cmphex(status(d, 0), ==, 1);
    g_assert_cmpint(counter(d, "descriptors"), ==, 9);

    /* reads mean nothing and disturb nothing */
    g_assert(qtest_readq(d->qts, at) + 1 <= 1);

    /* a queue that is disabled, or does not exist in a group */
    clear_records(d, 1);
    submit(d, 1, fill);
    g_assert_cmphex(run(d, DISABLE_WQ, wq_bit(0)), ==, 0);
    submit(d, 0, fill);
    step(d, 100000);
    g_assert_cmphex(status(d, 0), ==, 0);
    g_assert_cmpint(counter(d, "completions"), ==, 9);
    stop(d);
}

static void test_overflow(void)
{
    Dsa *d = start("");
    SwError e;
    int i, sent, done = 0;

    configure(d, 8);
    wr32(d, GENCTRL, 1);
    qtest_memset(d->qts, SRC, 0x11, PAGE);
    for (sent = 0; sent < 200 && !sw_error(d).valid; sent++) {
        Desc move = op(MEMMOVE, SRC, DST, PAGE);

        move.cr = cpu_to_le64(CR(sent));
        submit(d, 0, move);
    }
    /* what was sent in no time cannot have left the queue, to the engines */
    g_assert_cmpint(sent, >, 8);
    g_assert_cmpint(sent, <, 200);
    e = sw_error(d);
    g_assert_cmphex(e.code, ==, 0x53);
    g_assert_true(e.wq_valid);
    g_assert_cmpint(e.wq, ==, 0);
    g_assert_false(e.overflow);
    g_assert_cmpint(counter(d, "dropped"), ==, 1);
    step(d, 1000);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_SWERROR);
    g_assert_true(interrupted(d, 0));
    step(d, 1000000);
    for (i = 0; i < sent; i++) {
        done += status(d, i) == 1;
    }
    g_assert_cmpint(done, ==, sent - 1);
    g_assert_cmphex(status(d, sent - 1), ==, 0);
    g_assert_cmpint(counter(d, "completions"), ==, sent - 1);

    /* there is room again */
    wr64(d, SWERROR, 3);
    g_assert_cmphex(execute_status(d, op(MEMMOVE, SRC, DST, PAGE)), ==, 1);
    g_assert_false(sw_error(d).valid);
    stop(d);
}

static void test_occupancy(void)
{
    Dsa *d = start_configured("");
    int i;

    g_assert_cmphex(wqcfg(d, 0, 6) & 0xffff, ==, 0);
    for (i = 0; i < 32; i++) {
        submit(d, 0, op(MEMMOVE, SRC, DST, PAGE));
    }
    g_assert_cmphex(wqcfg(d, 0, 6) & 0xffff, >, 0);
    g_assert_cmphex(wqcfg(d, 0, 6) & 0xffff, <=, 32);
    step(d, 1000000);
    g_assert_cmphex(wqcfg(d, 0, 6) & 0xffff, ==, 0);
    stop(d);
}

/* --- errors -------------------------------------------------------------- */

static void test_software_error(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    Desc bad = desc(NOOP, F_RECORD, 1);
    SwError e;

    /* without the interrupt */
    bad.cr = cpu_to_le64(CR(1) + 8);
    submit(d, 0, bad);
    step(d, 100000);
    e = sw_error(d);
    g_assert_true(e.valid);
    g_assert_false(e.overflow);
    g_assert_cmphex(e.code, ==, 0x1b);
    g_assert_true(e.wq_valid);
    g_assert_cmpint(e.wq, ==, 0);
    g_assert_false(e.in_batch);
    g_assert_cmphex(e.opcode, ==, NOOP);
    g_assert_false(interrupted(d, 0));

    /* the first one stays; that there were more is told */
    bad = desc(FILL, 0, 0);
    submit(d, 0, bad);
    step(d, 100000);
    g_assert_true(sw_error(d).overflow);
    g_assert_cmphex(sw_error(d).code, ==, 0x1b);
    wr64(d, SWERROR, 0);
    g_assert_true(sw_error(d).valid);
    wr64(d, SWERROR, 3);
    g_assert_false(sw_error(d).valid);
    g_assert_false(sw_error(d).overflow);
    wr32(d, INTCAUSE, CAUSE_SWERROR);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, 0);

    /* an error that has no record to go to, here size 0, with interrupt */
    wr32(d, GENCTRL, 1);
    submit(d, 0, bad);
    step(d, 100000);
    e = sw_error(d);
    g_assert_true(e.valid);
    g_assert_cmphex(e.code, ==, 0x13);
    g_assert_cmphex(e.opcode, ==, FILL);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_SWERROR);
    g_assert_true(interrupted(d, 0));
    wr64(d, SWERROR, 3);
    wr32(d, INTCAUSE, CAUSE_SWERROR);

    /* which flags are wrong is told here, too */
    bad = op(FILL, 0, DST, 8);
    bad.flags_op = cpu_to_le32((uint32_t)FILL << 24 | 1u << 20);
    submit(d, 0, bad);
    step(d, 100000);
    g_assert_cmphex(sw_error(d).code, ==, 0x11);
    g_assert_cmphex(rd64(d, SWERROR) >> 7 & 1, ==, 1);
    g_assert_cmphex(rd64(d, SWERROR + 8) >> 32, ==, 1u << 20);
    wr64(d, SWERROR, 3);

    /* a record where there is no memory */
    bad = op(FILL, 0, DST, 8);
    bad.cr = cpu_to_le64(NOWHERE);
    submit(d, 0, bad);
    step(d, 100000);
    e = sw_error(d);
    g_assert_true(e.valid);
    g_assert_cmphex(e.code & 0x3f, ==, 0x1a);
    g_assert_cmphex(e.address & ~31ull, ==, NOWHERE);
    wr64(d, SWERROR, 3);

    /* a member of a batch */
    put_desc(d, 0, op(FILL, 0, DST, 8));
    put_desc(d, 1, desc(FILL, 0, 0));
    clear_records(d, 4);
    submit(d, 0, batch(LIST, 2, 3));
    step(d, 100000);
    g_assert_cmphex(status(d, 3), ==, 0x05);
    e = sw_error(d);
    g_assert_true(e.valid);
    g_assert_true(e.in_batch);
    g_assert_cmphex(e.code, ==, 0x13);
    g_assert_cmpint(e.batch_index, ==, 1);
    g_assert_cmpint(counter(d, "sw-errors"), >=, 5);

    /* a reset of the device leaves it to be read */
    g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
    g_assert_true(sw_error(d).valid);
    stop(d);
}

static void expect_flags(Dsa *d, int opcode, uint32_t flags, uint32_t bad)
{
    Desc x = op(opcode, SRC, DST, 64);
    Record r;

    x.flags_op = cpu_to_le32((uint32_t)opcode << 24 | flags);
    r = execute(d, x);
    g_assert_cmphex(r.status, ==, 0x11);
    g_assert_cmphex(ldl_le_p(r.specific) & bad, ==, bad);
}

static void reserved(Dsa *d, int opcode, int byte)
{
    Desc x = op(opcode, opcode == CFLUSH || opcode == NOOP ? 0 : SRC,
                opcode == NOOP || opcode == CRCGEN ? 0 : DST,
                opcode == NOOP ? 0 : 64);

    g_assert_cmphex(execute_status(d, x), ==, 0x01);
    ((uint8_t *)&x)[byte] |= 0x80;
    g_assert_cmphex(execute_status(d, x), ==, 0x12);
}

static void test_descriptor_errors(void)
{
    static const struct {
        int opcode, byte;
    } zeroes[] = {
        { NOOP, 16 }, { NOOP, 35 }, { NOOP, 38 }, { NOOP, 63 },
        { MEMMOVE, 38 }, { MEMMOVE, 40 }, { MEMMOVE, 63 },
        { FILL, 39 }, { FILL, 40 }, { FILL, 63 },
        { COMPARE, 38 }, { COMPARE, 41 }, { COMPARE, 63 },
        { COMPVAL, 39 }, { COMPVAL, 41 }, { COMPVAL, 63 },
        { CRCGEN, 24 }, { CRCGEN, 38 }, { CRCGEN, 44 }, { CRCGEN, 63 },
        { COPY_CRC, 38 }, { COPY_CRC, 47 }, { COPY_CRC, 48 },
        { CFLUSH, 16 }, { CFLUSH, 38 }, { CFLUSH, 40 }, { CFLUSH, 63 },
    };
    Dsa *d = start_configured(",timing-preset=none");
    Desc x;
    int i;

    /* opcodes that do not exist */
    for (i = 0x0a; i < 0x100; i++) {
        if (!(i < 64 && 0x1003f03ffull >> i & 1)) {
            g_assert_cmphex(execute_status(d, op(i, 0, 0, 0)), ==, 0x10);
        }
    }
    for (i = 0; i < ARRAY_SIZE(zeroes); i++) {
        reserved(d, zeroes[i].opcode, zeroes[i].byte);
    }

    expect_flags(d, MEMMOVE, F_RECORD | 1u << 6, 1u << 6);
    expect_flags(d, MEMMOVE, F_RECORD | 1u << 16, 1u << 16);
    expect_flags(d, MEMMOVE, F_RECORD | 1u << 23, 1u << 23);
    expect_flags(d, MEMMOVE, F_RECORD | F_CR, F_CR);
    expect_flags(d, MEMMOVE, F_RECORD | F_FENCE, F_FENCE);
    expect_flags(d, MEMMOVE, F_RECORD | F_BOF, F_BOF);
    expect_flags(d, FILL, F_RECORD | 1u << 18, 1u << 18);
    /* those must have a record */
    expect_flags(d, COMPARE, F_CRAV, 0);
    expect_flags(d, COMPVAL, F_CRAV, 0);
    expect_flags(d, CREATE_DELTA, F_CRAV, 0);
    expect_flags(d, CRCGEN, F_CRAV, 0);

    /* sizes: none, more than this queue takes */
    g_assert_cmphex(execute_status(d, op(MEMMOVE, SRC, DST, 0)), ==, 0x13);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, 0)), ==, 0x13);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, 2 * MiB)), ==, 1);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, 2 * MiB + 1)),
                    ==, 0x13);

    /* interrupt handles */
    x = op(FILL, 0, DST, 8);
    x.flags_op |= cpu_to_le32(F_RCI);
    x.handle = cpu_to_le16(9);
    g_assert_cmphex(execute_status(d, x), ==, 0x19);
    x.handle = cpu_to_le16(8);
    g_assert_cmphex(execute_status(d, x), ==, 0x01);
    wr32(d, d->msixperm + 8 * 8, 1u << 3 | 5u << 12);
    g_assert_cmphex(execute_status(d, x), ==, 0x19);

    /* no memory at the source */
    x = op(MEMMOVE, NOWHERE, DST, 64);
    i = execute_status(d, x);
    g_assert(i == 0x20 || i == 0x22);
    x = op(CRCGEN, NOWHERE, 0, 64);
    i = execute_status(d, x);
    g_assert(i == 0x20 || i == 0x22);

    /* nothing of all that stops it */
    g_assert_cmphex(execute_status(d, op(FILL, 0, DST, 8)), ==, 0x01);
    g_assert_cmpint(counter(d, "errors"), >, 200);
    stop(d);
}

/* --- operations ---------------------------------------------------------- */

static void put(Dsa *d, uint64_t at, const void *data, size_t size)
{
    qtest_memwrite(d->qts, at, data, size);
}

static void random_bytes(uint8_t *data, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        data[i] = g_test_rand_int();
    }
}

static void expect_memory(Dsa *d, uint64_t at, const void *data, size_t size)
{
    g_autofree uint8_t *seen = g_malloc(size);

    qtest_memread(d->qts, at, seen, size);
    g_assert_cmpmem(seen, size, data, size);
}

static void expect_plain_success(Record r)
{
    Record plain = { .status = 1 };

    g_assert_cmpmem(&r, sizeof(r), &plain, sizeof(plain));
}

static void test_move_and_fill(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    uint8_t data[3 * PAGE], after[3 * PAGE];
    static const int shifts[] = { 1, 8, 100, PAGE, -1, -8, -100, -PAGE };
    Record r;
    Desc x;
    int i;

    random_bytes(data, sizeof(data));
    put(d, SRC, data, sizeof(data));
    qtest_memset(d->qts, DST, 0xee, sizeof(data));
    memset(after, 0xee, sizeof(after));
    memcpy(after + 13, data + 7, 5001);
    expect_plain_success(execute(d, op(MEMMOVE, SRC + 7, DST + 13, 5001)));
    expect_memory(d, DST, after, sizeof(after));
    for (i = 0; i < ARRAY_SIZE(shifts); i++) {
        put(d, SRC, data, sizeof(data));
        memcpy(after, data, sizeof(data));
        memmove(after + PAGE + shifts[i], after + PAGE, PAGE);
        r = execute(d, op(MEMMOVE, SRC + PAGE, SRC + PAGE + shifts[i], PAGE));
        g_assert_cmphex(r.status, ==, 1);
        g_assert_cmpint(r.result, <=, shifts[i] > 0 ? 1 : 0);
        g_assert_cmpint(r.completed, ==, 0);
        expect_memory(d, SRC, after, sizeof(after));
    }

    for (i = 0; i < sizeof(after); i++) {
        after[i] = i < 3 || i >= 3 + 1003 ? 0xee :
                   0x8877665544332211ull >> (i - 3) % 8 * 8;
    }
    qtest_memset(d->qts, DST, 0xee, sizeof(after));
    expect_plain_success(execute(d, op(FILL, 0x8877665544332211, DST + 3,
                                       1003)));
    expect_memory(d, DST, after, sizeof(after));

    memcpy(after, data, sizeof(data));
    put(d, SRC, data, sizeof(data));
    x = op(DUALCAST, SRC + 5, DST + 0x123, 2000);
    stq_le_p(x.specific, DST2 + 0x5123);
    expect_plain_success(execute(d, x));
    expect_memory(d, DST + 0x123, data + 5, 2000);
    expect_memory(d, DST2 + 0x5123, data + 5, 2000);
    stq_le_p(x.specific, DST2 + 0x5124);
    g_assert_cmphex(execute_status(d, x), ==, 0x17);
    x = op(DUALCAST, SRC, SRC + 0x1000, 0x1800);
    stq_le_p(x.specific, DST2);
    g_assert_cmphex(execute_status(d, x), ==, 0x16);

    expect_plain_success(execute(d, op(CFLUSH, 0, DST, 4000)));
    expect_plain_success(execute(d, op(NOOP, 0, 0, 0)));
    expect_plain_success(execute(d, desc(DRAIN, F_RECORD, 0)));
    stop(d);
}

static void test_compare(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    static const int places[] = { 0, 1, 7, 8, 63, 64, 4094, 4095 };
    uint8_t data[PAGE];
    Record r;
    Desc x;
    int i;

    random_bytes(data, sizeof(data));
    put(d, SRC, data, sizeof(data));
    put(d, DST, data, sizeof(data));
    expect_plain_success(execute(d, op(COMPARE, SRC, DST, PAGE)));
    for (i = 0; i < ARRAY_SIZE(places); i++) {
        qtest_writeb(d->qts, DST + places[i], data[places[i]] ^ 0x40);
        r = execute(d, op(COMPARE, SRC, DST, PAGE));
        g_assert_cmphex(r.status, ==, 1);
        g_assert_cmpint(r.result, ==, 1);
        g_assert_cmpint(r.completed, ==, places[i]);
        /* a difference behind the end is none */
        if (places[i]) {
            r = execute(d, op(COMPARE, SRC, DST, places[i]));
            g_assert_cmpint(r.result, ==, 0);
        }
        qtest_writeb(d->qts, DST + places[i], data[places[i]]);
    }

    /* result against expectation */
    x = op(COMPARE, SRC, DST, PAGE);
    x.flags_op |= cpu_to_le32(F_CR);
    g_assert_cmphex(execute_status(d, x), ==, 1);
    x.specific[0] = 1;
    g_assert_cmphex(execute_status(d, x), ==, 2);
    qtest_writeb(d->qts, DST + 100, data[100] ^ 1);
    r = execute(d, x);
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.result, ==, 1);
    x.specific[0] = 0;
    r = execute(d, x);
    g_assert_cmphex(r.status, ==, 2);
    g_assert_cmpint(r.completed, ==, 100);

    for (i = 0; i < PAGE; i++) {
        data[i] = 0xabcdef0123456789ull >> i % 8 * 8;
    }
    put(d, SRC, data, sizeof(data));
    expect_plain_success(execute(d, op(COMPVAL, SRC, 0xabcdef0123456789,
                                       PAGE)));
    qtest_writeb(d->qts, SRC + 4001, 0);
    r = execute(d, op(COMPVAL, SRC, 0xabcdef0123456789, PAGE));
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.result, ==, 1);
    g_assert_cmpint(r.completed, <=, 4001);
    r = execute(d, op(COMPVAL, SRC, 0xabcdef0123456789, 4001));
    g_assert_cmpint(r.result, ==, 0);
    stop(d);
}

static void test_delta(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    uint8_t a[PAGE], b[PAGE], entry[10];
    Record r;
    Desc x, y;
    int i;

    random_bytes(a, sizeof(a));
    memcpy(b, a, sizeof(b));
    put(d, SRC, a, PAGE);
    put(d, DST, b, PAGE);
    x = op(CREATE_DELTA, SRC, DST, PAGE);
    stq_le_p(x.specific, DELTA);
    stl_le_p(x.specific + 8, 100);
    expect_plain_success(execute(d, x));

    for (i = 0; i < 10; i++) {
        b[400 * i + 3] ^= 1;
    }
    put(d, DST, b, PAGE);
    qtest_memset(d->qts, DELTA, 0xee, 200);
    r = execute(d, x);
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.result, ==, 1);
    g_assert_cmpint(ldl_le_p(r.specific), ==, 100);
    for (i = 0; i < 10; i++) {
        int at = (400 * i + 3) & ~7;

        stw_le_p(entry, at / 8);
        memcpy(entry + 2, b + at, 8);
        expect_memory(d, DELTA + 10 * i, entry, 10);
    }
    g_assert_cmphex(qtest_readb(d->qts, DELTA + 100), ==, 0xee);

    /* apply it: the first source becomes the second */
    y = op(APPLY_DELTA, DELTA, SRC, PAGE);
    stl_le_p(y.specific, 100);
    expect_plain_success(execute(d, y));
    expect_memory(d, SRC, b, PAGE);

    /* an eleventh difference does not fit */
    put(d, SRC, a, PAGE);
    qtest_writeb(d->qts, DST + 4090, b[4090] ^ 1);
    r = execute(d, x);
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.result, ==, 2);
    g_assert_cmpint(r.completed, ==, 4088);
    g_assert_cmpint(ldl_le_p(r.specific), ==, 100);
    x.flags_op |= cpu_to_le32(F_CR);
    x.specific[16] = 1 << 2;
    g_assert_cmphex(execute_status(d, x), ==, 1);
    x.specific[16] = 1 << 1;
    g_assert_cmphex(execute_status(d, x), ==, 2);

    /* refused */
    x = op(CREATE_DELTA, SRC, DST, PAGE);
    stq_le_p(x.specific, DELTA);
    stl_le_p(x.specific + 8, 70);
    g_assert_cmphex(execute_status(d, x), ==, 0x15);
    stl_le_p(x.specific + 8, 101);
    g_assert_cmphex(execute_status(d, x), ==, 0x15);
    stl_le_p(x.specific + 8, 100);
    x.size = cpu_to_le32(512 * KiB + 8);
    g_assert_cmphex(execute_status(d, x), ==, 0x13);
    x.size = cpu_to_le32(PAGE);
    x.src = cpu_to_le64(SRC + 4);
    g_assert_cmphex(execute_status(d, x), ==, 0x1c);
    x.src = cpu_to_le64(SRC);
    stq_le_p(x.specific, DST + 8);
    g_assert_cmphex(execute_status(d, x), ==, 0x16);
    y.dst = cpu_to_le64(SRC + 1);
    g_assert_cmphex(execute_status(d, y), ==, 0x1c);
    y.dst = cpu_to_le64(DELTA + 80);
    g_assert_cmphex(execute_status(d, y), ==, 0x16);
    y.dst = cpu_to_le64(SRC);
    stl_le_p(y.specific, 99);
    g_assert_cmphex(execute_status(d, y), ==, 0x15);
    /* a record that is out of order, or of range */
    stl_le_p(y.specific, 20);
    qtest_writew(d->qts, DELTA, 5);
    qtest_writew(d->qts, DELTA + 10, 5);
    g_assert_cmphex(execute_status(d, y), ==, 0x07);
    qtest_writew(d->qts, DELTA + 10, PAGE / 8);
    g_assert_cmphex(execute_status(d, y), ==, 0x08);
    qtest_writew(d->qts, DELTA + 10, PAGE / 8 - 1);
    g_assert_cmphex(execute_status(d, y), ==, 0x01);
    stop(d);
}

/* One bit at a time, as the definition has it */
static uint32_t crc32c(uint32_t seed, const uint8_t *data, size_t size)
{
    uint32_t crc = ~seed;
    int bit;

    while (size--) {
        crc ^= *data++;
        for (bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
        }
    }
    return ~crc;
}

static uint32_t reverse(uint32_t x)
{
    uint32_t out = 0;
    int bit;

    for (bit = 0; bit < 32; bit++) {
        out |= (x >> bit & 1) << (31 - bit);
    }
    return out;
}

static uint64_t crc_of(Dsa *d, Desc x)
{
    Record r = execute(d, x);

    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.completed, ==, 0);
    g_assert_cmphex(ldq_le_p(r.specific + 8), ==, 0);
    return ldq_le_p(r.specific);
}

static void test_crc(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    uint8_t data[PAGE];
    uint32_t first;
    Desc x;
    int i;

    put(d, SRC, "123456789", 9);
    g_assert_cmphex(crc_of(d, op(CRCGEN, SRC, 0, 9)), ==, 0xe3069283);
    qtest_memset(d->qts, SRC, 0, PAGE);
    g_assert_cmphex(crc_of(d, op(CRCGEN, SRC, 0, 32)), ==, 0x8a9136aa);
    g_assert_cmphex(crc_of(d, op(CRCGEN, SRC, 0, PAGE)), ==, 0x98f94189);
    qtest_memset(d->qts, SRC, 0xff, PAGE);
    g_assert_cmphex(crc_of(d, op(CRCGEN, SRC, 0, 32)), ==, 0x62a8ab43);
    g_assert_cmphex(crc_of(d, op(CRCGEN, SRC, 0, PAGE)), ==, 0x25c1fe13);
    for (i = 0; i < PAGE; i++) {
        data[i] = i;
    }
    put(d, SRC, data, PAGE);
    g_assert_cmphex(crc_of(d, op(CRCGEN, SRC, 0, PAGE)), ==, 0x9c71fe32);

    random_bytes(data, PAGE);
    put(d, SRC, data, PAGE);
    x = op(CRCGEN, SRC, 0, 1000);
    stl_le_p(x.specific, 0x12345678);
    first = crc_of(d, x);
    g_assert_cmphex(first, ==, crc32c(0x12345678, data, 1000));
    /* the rest, with the seed from memory */
    x = op(CRCGEN, SRC + 1000, 0, PAGE - 1000);
    x.flags_op |= cpu_to_le32(F_SEED);
    qtest_writel(d->qts, DELTA, first);
    stq_le_p(x.specific + 8, DELTA);
    g_assert_cmphex(crc_of(d, x), ==, crc32c(0x12345678, data, PAGE));

    /* the register as it is: what goes in and comes out is turned round */
    x = op(CRCGEN, SRC, 0, PAGE);
    x.flags_op |= cpu_to_le32(F_NO_INVERT);
    stl_le_p(x.specific, reverse(~0x12345678u));
    g_assert_cmphex(crc_of(d, x), ==,
                    reverse(~crc32c(0x12345678, data, PAGE)));
    /* the bits of each byte the other way round */
    for (i = 0; i < PAGE; i++) {
        data[i] = reverse(data[i]) >> 24;
    }
    put(d, DST, data, PAGE);
    x = op(CRCGEN, DST, 0, PAGE);
    x.dst = 0;
    x.flags_op |= cpu_to_le32(F_NO_REFLECT);
    for (i = 0; i < PAGE; i++) {
        data[i] = reverse(data[i]) >> 24;
    }
    g_assert_cmphex(crc_of(d, x), ==, crc32c(0, data, PAGE));

    qtest_memset(d->qts, DST2, 0, PAGE);
    g_assert_cmphex(crc_of(d, op(COPY_CRC, SRC, DST2 + 3, 777)), ==,
                    crc32c(0, data, 777));
    expect_memory(d, DST2 + 3, data, 777);
    g_assert_cmphex(qtest_readb(d->qts, DST2 + 3 + 777), ==, 0);
    g_assert_cmphex(execute_status(d, op(COPY_CRC, SRC, SRC + 9, 10)), ==,
                    0x16);
    stop(d);
}

static uint16_t t10(const uint8_t *data, size_t size)
{
    uint16_t crc = 0;
    int bit;

    while (size--) {
        crc ^= *data++ << 8;
        for (bit = 0; bit < 8; bit++) {
            crc = crc << 1 ^ (crc & 0x8000 ? 0x8bb7 : 0);
        }
    }
    return crc;
}

static void test_dif(void)
{
    static const int sizes[] = { 512, 520, 4096, 4104 };
    Dsa *d = start_configured(",timing-preset=none");
    uint8_t data[3 * 4104], whole[3 * 4112];
    int code, block;
    Record r;
    Desc x;

    g_assert_cmphex(t10((const uint8_t *)"123456789", 9), ==, 0xd0db);
    for (code = 0; code < 4; code++) {
        int size = sizes[code];

        random_bytes(data, 3 * size);
        put(d, SRC, data, 3 * size);
        for (block = 0; block < 3; block++) {
            uint8_t *to = whole + block * (size + 8);

            memcpy(to, data + block * size, size);
            stw_be_p(to + size, t10(data + block * size, size));
            stw_be_p(to + size + 2, 0xface);
            stl_be_p(to + size + 4, 0xabba + block);
        }
        x = op(DIF_INSERT, SRC, DST, 3 * size);
        x.specific[2] = code;
        stl_le_p(x.specific + 16, 0xabba);
        stw_le_p(x.specific + 22, 0xface);
        r = execute(d, x);
        g_assert_cmphex(r.status, ==, 1);
        g_assert_cmphex(ldl_le_p(r.specific + 8), ==, 0xabba + 3);
        g_assert_cmphex(lduw_le_p(r.specific + 14), ==, 0xface);
        expect_memory(d, DST, whole, 3 * (size + 8));
        x.size = cpu_to_le32(3 * size + 1);
        g_assert_cmphex(execute_status(d, x), ==, 0x13);

        x = op(DIF_CHECK, DST, 0, 3 * (size + 8));
        x.specific[2] = code;
        stl_le_p(x.specific + 8, 0xabba);
        stw_le_p(x.specific + 14, 0xface);
        r = execute(d, x);
        g_assert_cmphex(r.status, ==, 1);
        g_assert_cmphex(r.result, ==, 0);
        g_assert_cmphex(ldl_le_p(r.specific), ==, 0xabba + 3);

        x.flags_op = cpu_to_le32((uint32_t)DIF_STRIP << 24 | F_RECORD);
        x.dst = cpu_to_le64(DST2);
        qtest_memset(d->qts, DST2, 0, 3 * size + 1);
        g_assert_cmphex(execute_status(d, x), ==, 1);
        expect_memory(d, DST2, data, 3 * size);
        g_assert_cmphex(qtest_readb(d->qts, DST2 + 3 * size), ==, 0);

        /* new tags; guards stay right */
        x.flags_op = cpu_to_le32((uint32_t)DIF_UPDATE << 24 | F_RECORD);
        stl_le_p(x.specific + 16, 0x1000);
        stw_le_p(x.specific + 22, 0x2000);
        g_assert_cmphex(execute_status(d, x), ==, 1);
        for (block = 0; block < 3; block++) {
            uint8_t *to = whole + block * (size + 8);

            stw_be_p(to + size + 2, 0x2000);
            stl_be_p(to + size + 4, 0x1000 + block);
        }
        expect_memory(d, DST2, whole, 3 * (size + 8));

        /* what is wrong, and in which block */
        x = op(DIF_CHECK, DST, 0, 3 * (size + 8));
        x.specific[2] = code;
        stl_le_p(x.specific + 8, 0xabba);
        stw_le_p(x.specific + 14, 0xface);
        qtest_writeb(d->qts, DST + 2 * (size + 8) + 9,
                     data[2 * size + 9] ^ 1);
        r = execute(d, x);
        g_assert_cmphex(r.status, ==, 0x09);
        g_assert_cmphex(r.result, ==, 1 << 0);
        g_assert_cmpint(r.completed, ==, 2 * (size + 8));
        qtest_writew(d->qts, DST + size + 8 + size + 2, 0);
        r = execute(d, x);
        g_assert_cmphex(r.status, ==, 0x09);
        g_assert_cmphex(r.result, ==, 1 << 1);
        g_assert_cmpint(r.completed, ==, size + 8);
        stw_le_p(x.specific + 12, 0xffff);
        g_assert_cmphex(execute(d, x).result, ==, 1 << 0);
        x.specific[0] = 1 << 5;
        g_assert_cmphex(execute_status(d, x), ==, 1);
        stl_le_p(x.specific + 8, 1);
        r = execute(d, x);
        g_assert_cmphex(r.status, ==, 0x09);
        g_assert_cmphex(r.result, ==, 1 << 2);
        g_assert_cmpint(r.completed, ==, 0);
        x.specific[0] |= 1 << 6;
        g_assert_cmphex(execute_status(d, x), ==, 1);
        x.size = cpu_to_le32(3 * (size + 8) - 8);
        g_assert_cmphex(execute_status(d, x), ==, 0x13);
    }
    stop(d);
}

/* --- batches ------------------------------------------------------------- */

static void fill_list(Dsa *d, int count)
{
    int i;

    for (i = 0; i < count; i++) {
        Desc x = op(FILL, i, DST + 8 * i, 8);

        x.cr = cpu_to_le64(CR(i));
        put_desc(d, i, x);
    }
}

static void test_batch_sizes(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    static const struct {
        int count;
        uint8_t status;
    } sizes[] = {
        { 0, 0x14 }, { 1, 0x14 }, { 2, 1 }, { 3, 1 }, { 64, 1 }, { 256, 1 },
        { 1024, 1 }, { 1025, 0x14 },
    };
    Desc x;
    int i, k;

    fill_list(d, 1025);
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        int count = sizes[i].count;
        uint64_t before = counter(d, "batches");
        Record r;

        clear_records(d, 1027);
        qtest_memset(d->qts, DST, 0xee, 8 * 1025);
        submit(d, 0, batch(LIST, count, 1026));
        step(d, 10000000);
        r = record(d, 1026);
        g_assert_cmphex(r.status, ==, sizes[i].status);
        if (r.status != 1) {
            count = 0;
        } else {
            g_assert_cmpint(r.completed, ==, count);
            g_assert_cmpint(counter(d, "batches"), ==, before + 1);
        }
        for (k = 0; k < 1025; k++) {
            g_assert_cmphex(status(d, k), ==, k < count);
            g_assert_cmphex(qtest_readq(d->qts, DST + 8 * k), ==,
                            k < count ? k : 0xeeeeeeeeeeeeeeeeull);
        }
    }

    /* the queue's own limit */
    g_assert_cmphex(run(d, DISABLE_WQ, wq_bit(0)), ==, 0);
    set_wqcfg(d, 0, 3, WQ_LIMITS(21, 3));
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    clear_records(d, 16);
    x = batch(LIST, 8, 0);
    x.cr = cpu_to_le64(CR(15));
    submit(d, 0, x);
    step(d, 1000000);
    g_assert_cmphex(status(d, 15), ==, 1);
    clear_records(d, 16);
    x.size = cpu_to_le32(9);
    submit(d, 0, x);
    step(d, 1000000);
    g_assert_cmphex(status(d, 15), ==, 0x14);

    /* list alignment, reserved bytes, a fence on the batch itself */
    g_assert_cmphex(execute_status(d, batch(LIST + 32, 2, 0)), ==, 0x18);
    x = batch(LIST, 2, 0);
    x.dst = cpu_to_le64(1);
    g_assert_cmphex(execute_status(d, x), ==, 0x12);
    x = batch(LIST, 2, 0);
    x.specific[23] = 1;
    g_assert_cmphex(execute_status(d, x), ==, 0x12);
    x = batch(LIST, 2, 0);
    x.flags_op |= cpu_to_le32(F_FENCE);
    g_assert_cmphex(execute_status(d, x), ==, 0x11);

    /* no list at all: nothing ran */
    i = execute_status(d, batch(NOWHERE, 2, 0)) & 0x3f;
    g_assert(i == 0x06 || i == 0x20 || i == 0x22);
    stop(d);
}

static void test_batch_members(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    Record r;
    Desc x;
    int i;

    /* an error of one is no other's */
    fill_list(d, 8);
    x = op(FILL, 3, DST + 24, 0);
    x.cr = cpu_to_le64(CR(3));
    put_desc(d, 3, x);
    clear_records(d, 10);
    submit(d, 0, batch(LIST, 8, 9));
    step(d, 1000000);
    r = record(d, 9);
    g_assert_cmphex(r.status, ==, 0x05);
    g_assert_cmpint(r.completed, ==, 8);
    for (i = 0; i < 8; i++) {
        g_assert_cmphex(status(d, i), ==, i == 3 ? 0x13 : 1);
    }

    /* behind a fence it is the end */
    for (i = 5; i < 8; i++) {
        x = op(FILL, 0x55, DST + 8 * i, 8);
        x.cr = cpu_to_le64(CR(i));
        if (i == 5) {
            x.flags_op |= cpu_to_le32(F_FENCE);
        }
        put_desc(d, i, x);
    }
    qtest_memset(d->qts, DST, 0, 64);
    clear_records(d, 10);
    submit(d, 0, batch(LIST, 8, 9));
    step(d, 1000000);
    r = record(d, 9);
    g_assert_cmphex(r.status, ==, 0x05);
    g_assert_cmpint(r.completed, ==, 5);
    for (i = 0; i < 8; i++) {
        g_assert_cmphex(status(d, i), ==, i == 3 ? 0x13 : i < 5);
    }
    g_assert_cmphex(qtest_readq(d->qts, DST + 40), ==, 0);

    /* a comparison that finds a difference has not failed, unless asked */
    qtest_memset(d->qts, SRC, 1, 64);
    qtest_memset(d->qts, DST, 2, 64);
    fill_list(d, 3);
    x = op(COMPARE, SRC, DST2, 64);
    x.cr = cpu_to_le64(CR(0));
    put_desc(d, 0, x);
    x = op(FILL, 7, DST + 8, 8);
    x.cr = cpu_to_le64(CR(1));
    x.flags_op |= cpu_to_le32(F_FENCE);
    put_desc(d, 1, x);
    clear_records(d, 10);
    submit(d, 0, batch(LIST, 3, 9));
    step(d, 1000000);
    g_assert_cmphex(status(d, 9), ==, 1);
    g_assert_cmpint(record(d, 0).result, ==, 1);
    x = op(COMPARE, SRC, DST2, 64);
    x.cr = cpu_to_le64(CR(0));
    x.flags_op |= cpu_to_le32(F_CR);
    put_desc(d, 0, x);
    clear_records(d, 10);
    submit(d, 0, batch(LIST, 3, 9));
    step(d, 1000000);
    r = record(d, 9);
    g_assert_cmphex(r.status, ==, 0x05);
    g_assert_cmpint(r.completed, ==, 1);
    g_assert_cmphex(status(d, 0), ==, 2);
    g_assert_cmphex(status(d, 1), ==, 0);
    g_assert_cmphex(status(d, 2), ==, 0);

    /* no batch and no drain in a batch */
    fill_list(d, 3);
    x = batch(LIST, 2, 0);
    put_desc(d, 0, x);
    put_desc(d, 1, desc(DRAIN, F_RECORD, 1));
    clear_records(d, 10);
    submit(d, 0, batch(LIST, 3, 9));
    step(d, 1000000);
    g_assert_cmphex(status(d, 0), ==, 0x10);
    g_assert_cmphex(status(d, 1), ==, 0x10);
    g_assert_cmphex(status(d, 2), ==, 1);
    g_assert_cmphex(status(d, 9), ==, 0x05);

    /* members that tell nobody are done when the batch is */
    for (i = 0; i < 4; i++) {
        x = op(FILL, 0x77, DST + 8 * i, 8);
        x.flags_op = cpu_to_le32((uint32_t)FILL << 24);
        x.cr = 0;
        put_desc(d, i, x);
    }
    clear_records(d, 10);
    submit(d, 0, batch(LIST, 4, 9));
    step(d, 1000000);
    r = record(d, 9);
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.completed, ==, 4);
    g_assert_cmphex(qtest_readq(d->qts, DST + 24), ==, 0x77);
    g_assert_false(sw_error(d).valid);
    stop(d);
}

/* A fence is the only order in a batch: a chain of 200 links needs them all */
static void test_fences(void)
{
    Dsa *d = start_configured("");
    int i;

    qtest_writeq(d->qts, DST, 0x1234);
    for (i = 0; i < 200; i++) {
        Desc x = op(MEMMOVE, DST + 8 * i, DST + 8 * (i + 1), 8);

        x.flags_op |= cpu_to_le32(i ? F_FENCE : 0);
        x.cr = cpu_to_le64(CR(i));
        put_desc(d, i, x);
    }
    submit(d, 0, batch(LIST, 200, 300));
    step(d, 10000000);
    g_assert_cmphex(status(d, 300), ==, 1);
    g_assert_cmphex(qtest_readq(d->qts, DST + 8 * 200), ==, 0x1234);
    stop(d);
}

static void test_batch_interrupt(void)
{
    Dsa *d = start_configured("");
    Desc x = batch(LIST, 4, 9);

    fill_list(d, 4);
    x.flags_op |= cpu_to_le32(F_RCI);
    x.handle = cpu_to_le16(3);
    submit(d, 0, x);
    step(d, 1000000);
    g_assert_cmphex(status(d, 9), ==, 1);
    g_assert_true(interrupted(d, 3));
    g_assert_false(interrupted(d, 0));
    g_assert_cmphex(rd32(d, INTCAUSE), ==, 0);
    g_assert_cmpint(counter(d, "interrupts"), ==, 1);

    /* an entry that is to be ignored is, when the time comes */
    submit(d, 0, x);
    wr32(d, d->msixperm + 3 * 8, 1u << 2);
    step(d, 1000000);
    g_assert_false(interrupted(d, 3));
    stop(d);
}

/* --- work in flight ------------------------------------------------------ */

#define FLIGHT 16

static void take_off(Dsa *d)
{
    int i;

    clear_records(d, 64);
    fill_list(d, FLIGHT);
    for (i = 0; i < FLIGHT; i++) {
        Desc x = op(MEMMOVE, SRC, DST2, 64 * KiB);

        x.cr = cpu_to_le64(CR(32 + i));
        submit(d, 0, x);
    }
    submit(d, 0, batch(LIST, FLIGHT, 63));
}

static int landed(Dsa *d)
{
    int i, count = 0;

    for (i = 0; i < 64; i++) {
        g_assert_cmphex(status(d, i), <=, 1);
        count += status(d, i);
    }
    return count;
}

static void test_drain(void)
{
    Dsa *d = start_configured("");
    static const struct {
        int command;
        uint32_t operand;
    } ways[] = {
        { DRAIN_WQ, 1 }, { DRAIN_ALL, 0 }, { DISABLE_WQ, 1 },
        { DISABLE_DEVICE, 0 },
    };
    Desc drain;
    int i;

    for (i = 0; i < ARRAY_SIZE(ways); i++) {
        if (wq_state(d, 0) == STATE_DISABLED) {
            g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
        }
        take_off(d);
        step(d, 1000);
        issue(d, ways[i].command, ways[i].operand | CMD_INTERRUPT);
        g_assert_cmphex(rd32(d, CMDSTS) & CMDSTS_ACTIVE, !=, 0);
        g_assert_cmpint(landed(d), <, 2 * FLIGHT + 1);
        while (rd32(d, CMDSTS) & CMDSTS_ACTIVE) {
            step(d, 100);
        }
        g_assert_cmphex(rd32(d, CMDSTS), ==, 0);
        g_assert_cmpint(landed(d), ==, 2 * FLIGHT + 1);
        step(d, 10000);
        g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_COMMAND);
        wr32(d, INTCAUSE, CAUSE_COMMAND);
        g_assert_true(interrupted(d, 0));
    }
    g_assert_cmphex(wq_state(d, 0), ==, STATE_DISABLED);

    /* by a descriptor: it completes last */
    g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
    configure(d, 64);
    take_off(d);
    drain = desc(DRAIN, F_RECORD | F_RCI, 31);
    drain.handle = cpu_to_le16(1);
    submit(d, 0, drain);
    while (!status(d, 31)) {
        step(d, 100);
    }
    g_assert_cmpint(landed(d), ==, 2 * FLIGHT + 2);
    step(d, 1000);
    g_assert_true(interrupted(d, 1));
    g_assert_cmphex(execute_status(d, desc(DRAIN, F_CRAV, 0)), ==, 0x11);
    stop(d);
}

/* Once the command is done, nothing is written any more */
static void nothing_lands(Dsa *d)
{
    int count = landed(d);

    g_assert_cmpint(count, <, 2 * FLIGHT + 1);
    qtest_memset(d->qts, DST2, 0xee, 64 * KiB);
    step(d, 10000000);
    g_assert_cmpint(landed(d), ==, count);
    g_assert_cmphex(qtest_readb(d->qts, DST2 + 0x8000), ==, 0xee);
}

static void test_abort_and_reset(void)
{
    static const struct {
        int command;
        uint32_t operand;
        bool enabled;
    } ways[] = {
        { ABORT_WQ, 1, true }, { ABORT_ALL, 0, true }, { RESET_WQ, 1, false },
        { RESET_DEVICE, 0, false },
    };
    Dsa *d = start("");
    uint64_t bars[4];
    uint16_t pci_command;
    int i, after;

    for (i = 0; i < ARRAY_SIZE(ways); i++) {
        for (after = 0; after < 6000; after += 1500) {
            g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
            configure(d, 64);
            take_off(d);
            step(d, after);
            g_assert_cmphex(run(d, ways[i].command, ways[i].operand), ==, 0);
            nothing_lands(d);
            g_assert_cmphex(wq_state(d, 0), ==, ways[i].enabled);
            if (ways[i].enabled) {
                g_assert_cmphex(execute_status(d, op(FILL, 1, DST, 8)), ==,
                                1);
            }
        }
    }

    /* function level reset */
    g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
    configure(d, 64);
    take_off(d);
    step(d, 2000);
    for (i = 0; i < 4; i++) {
        bars[i] = qpci_config_readl(d->pci, PCI_BASE_ADDRESS_0 + 4 * i);
    }
    pci_command = qpci_config_readw(d->pci, PCI_COMMAND);
    qpci_config_writew(d->pci, 0x40 + PCI_EXP_DEVCTL,
                       PCI_EXP_DEVCTL_BCR_FLR);
    step(d, 100000000);
    for (i = 0; i < 4; i++) {
        qpci_config_writel(d->pci, PCI_BASE_ADDRESS_0 + 4 * i, bars[i]);
    }
    qpci_config_writew(d->pci, PCI_COMMAND, pci_command);
    nothing_lands(d);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_DISABLED);
    g_assert_cmphex(wqcfg(d, 0, 0), ==, 0);
    g_assert_cmphex(rd64(d, d->grpcfg), ==, 0);
    configure(d, 64);
    g_assert_cmphex(execute_status(d, op(FILL, 1, DST, 8)), ==, 1);
    stop(d);
}

static void test_system_reset(void)
{
    Dsa *d = start_configured("");

    take_off(d);
    step(d, 2000);
    qtest_system_reset(d->qts);
    nothing_lands(d);
    g_free(d->pci);
    attach(d, QPCI_DEVFN(4, 0));
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_DISABLED);
    configure(d, 64);
    g_assert_cmphex(execute_status(d, op(FILL, 1, DST, 8)), ==, 1);
    stop(d);
}

/*
 * Queues of two groups do not wait for each other's setup: the second one is
 * written to, and enabled, while the first one works.
 */
static void test_second_queue(void)
{
    Dsa *d = start("");
    Desc x;
    int i;

    set_wq(d, 0, 32);
    set_wq(d, 1, 32);
    set_group(d, 0, 3, 0xf);
    g_assert_cmphex(run(d, ENABLE_DEVICE, 0), ==, 0);
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    take_off(d);
    step(d, 500);
    for (i = 0; i < 8; i++) {
        set_wqcfg(d, 0, i, wqcfg(d, 0, i));
        set_wqcfg(d, 1, i, wqcfg(d, 1, i));
    }
    for (i = 0; i < 6; i++) {
        wr64(d, d->grpcfg + 8 * i, rd64(d, d->grpcfg + 8 * i));
    }
    g_assert_cmphex(run(d, ENABLE_WQ, 1), ==, 0);
    x = op(FILL, 9, DELTA, 8);
    x.cr = cpu_to_le64(CR(100));
    submit(d, 1, x);
    step(d, 1000000);
    g_assert_cmpint(landed(d), ==, 2 * FLIGHT + 1);
    g_assert_cmphex(status(d, 100), ==, 1);
    stop(d);
}

/* --- time ---------------------------------------------------------------- */

/* The record is written in the last of so many nanoseconds */
static void completes_in(Dsa *d, int n, uint64_t ns)
{
    uint64_t took = ns - 1;

    step(d, ns - 1);
    g_assert_cmphex(status(d, n), ==, 0);
    while (!status(d, n)) {
        step(d, 1);
        g_assert_cmpint(++took, <, ns + 10000);
    }
    g_assert_cmpint(took, ==, ns);
}

static void test_timing(void)
{
    Dsa *d = start_configured(EXACT);
    Desc x = op(COMPARE, SRC, DST, PAGE);
    int i;

    /* dispatch 150, read latency 350, 8192 bytes at 32 a ns, record 150 */
    submit(d, 0, x);
    completes_in(d, 0, 150 + 350 + 256 + 150);
    step(d, 100000);

    /* half of that is read */
    clear_records(d, 1);
    submit(d, 0, op(CRCGEN, SRC, 0, PAGE));
    completes_in(d, 0, 150 + 350 + 128 + 150);
    step(d, 100000);

    /* an interrupt comes 100 later */
    clear_records(d, 1);
    x.flags_op |= cpu_to_le32(F_RCI);
    x.handle = cpu_to_le16(2);
    submit(d, 0, x);
    completes_in(d, 0, 906);
    step(d, 99);
    g_assert_false(interrupted(d, 2));
    step(d, 1);
    g_assert_true(interrupted(d, 2));
    step(d, 100000);

    /* two at once: the second reads when the first has */
    clear_records(d, 2);
    x = op(COMPARE, SRC, DST, PAGE);
    submit(d, 0, x);
    x.cr = cpu_to_le64(CR(1));
    submit(d, 0, x);
    completes_in(d, 0, 906);
    completes_in(d, 1, 256);
    step(d, 100000);

    /* small ones start 40 apart */
    clear_records(d, 4);
    for (i = 0; i < 4; i++) {
        x = op(COMPARE, SRC, DST, 32);
        x.cr = cpu_to_le64(CR(i));
        submit(d, 0, x);
    }
    completes_in(d, 0, 150 + 350 + 2 + 150);
    completes_in(d, 1, 40);
    completes_in(d, 2, 40);
    completes_in(d, 3, 40);
    stop(d);
}

static void test_batch_timing(void)
{
    Dsa *d = start_configured(EXACT ",t-coalesce=0");
    int i;

    /*
     * dispatch 150, list 300 + 2 for each, then one compare after another;
     * the batch's own record 100 behind the last member's
     */
    for (i = 0; i < 8; i++) {
        Desc x = op(COMPARE, SRC, DST, PAGE);

        x.cr = cpu_to_le64(CR(i));
        put_desc(d, i, x);
    }
    submit(d, 0, batch(LIST, 8, 20));
    completes_in(d, 0, 150 + 300 + 16 + 350 + 256 + 150);
    for (i = 1; i < 8; i++) {
        completes_in(d, i, 256);
    }
    completes_in(d, 20, 100);
    stop(d);

    /* whose records come together does not change when the batch's does */
    d = start_configured(EXACT);
    for (i = 0; i < 8; i++) {
        Desc x = op(COMPARE, SRC, DST, PAGE);

        x.cr = cpu_to_le64(CR(i));
        put_desc(d, i, x);
    }
    submit(d, 0, batch(LIST, 8, 20));
    completes_in(d, 20, 150 + 300 + 16 + 350 + 8 * 256 + 150 + 100);
    for (i = 0; i < 8; i++) {
        g_assert_cmphex(status(d, i), ==, 1);
    }
    stop(d);
}

static void test_time_scale(void)
{
    static const struct {
        const char *properties;
        uint64_t ns;
    } machines[] = {
        { ",time-scale=2000,read-bandwidth=32000", 2 * 906 },
        { EXACT ",t-dispatch=1000", 906 + 850 },
        { EXACT ",t-read=1000", 906 + 650 },
        { EXACT ",t-complete=1000", 906 + 850 },
        { ",time-scale=1000,read-bandwidth=16000", 906 + 256 },
    };
    uint64_t ns;
    int i;
    Dsa *d;

    for (i = 0; i < ARRAY_SIZE(machines); i++) {
        d = start_configured(machines[i].properties);
        submit(d, 0, op(COMPARE, SRC, DST, PAGE));
        completes_in(d, 0, machines[i].ns);
        stop(d);
    }

    /* as it comes: the sum of the constants, times 1.65 */
    d = start_configured("");
    submit(d, 0, op(COMPARE, SRC, DST, PAGE));
    for (ns = 0; !status(d, 0); ns++) {
        step(d, 1);
    }
    g_assert_cmpint(ns, >=, 1.65 * (150 + 350 + 260 + 150) - 2);
    g_assert_cmpint(ns, <=, 1.65 * (150 + 350 + 261 + 150) + 4);
    stop(d);
}

/* --- injected faults, counters ------------------------------------------- */

static void test_inject(void)
{
    Dsa *d = start_configured(EXACT);
    Record r;
    int i, failed = 0;

    qtest_memset(d->qts, SRC, 1, PAGE);
    qtest_memset(d->qts, DST, 1, PAGE);

    inject(d, "status=0x20,nth=2");
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 1);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 0x20);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 1);
    g_assert_cmpint(counter(d, "injected"), ==, 1);

    inject(d, "status=0x20,every=3,count=2");
    for (i = 0; i < 12; i++) {
        failed += execute_status(d, op(COMPARE, SRC, DST, PAGE)) == 0x20;
    }
    g_assert_cmpint(failed, ==, 2);
    g_assert_cmpint(counter(d, "injected"), ==, 3);

    inject(d, "page-fault,nth=1");
    r = execute(d, op(COMPARE, SRC, DST, PAGE));
    g_assert_cmphex(r.status & 0x3f, ==, 0x03);
    g_assert((r.fault_addr >= SRC && r.fault_addr < SRC + PAGE) ||
             (r.fault_addr >= DST && r.fault_addr < DST + PAGE));
    g_assert_cmpint(r.completed, <, PAGE);

    inject(d, "page-fault,nth=1");
    r = execute(d, op(FILL, 0, DST2, PAGE));
    g_assert_cmphex(r.status, ==, 0x83);
    g_assert(r.fault_addr >= DST2 && r.fault_addr < DST2 + PAGE);

    inject(d, "wrong,nth=1");
    r = execute(d, op(COMPARE, SRC, DST, PAGE));
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.result, ==, 1);
    qtest_writeb(d->qts, DST + 77, 0);
    inject(d, "wrong,nth=1");
    r = execute(d, op(COMPARE, SRC, DST, PAGE));
    g_assert_cmphex(r.status, ==, 1);
    g_assert_cmpint(r.result, ==, 0);
    qtest_writeb(d->qts, DST + 77, 1);

    step(d, 100000);
    clear_records(d, 1);
    inject(d, "delay=5000,nth=1");
    submit(d, 0, op(COMPARE, SRC, DST, PAGE));
    completes_in(d, 0, 906 + 5000);

    /* a record that never comes does not hold up what follows */
    clear_records(d, 2);
    inject(d, "lost,nth=1");
    submit(d, 0, op(COMPARE, SRC, DST, PAGE));
    step(d, 1000000);
    g_assert_cmphex(status(d, 0), ==, 0);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 1);
    g_assert_cmphex(run(d, DRAIN_WQ, wq_bit(0)), ==, 0);

    inject(d, "");
    for (i = 0; i < 5; i++) {
        g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 1);
    }

    inject(d, "wq-disable,nth=1");
    clear_records(d, 1);
    submit(d, 0, op(COMPARE, SRC, DST, PAGE));
    step(d, 1000000);
    g_assert_cmphex(wq_state(d, 0), ==, STATE_DISABLED);
    inject(d, "");
    g_assert_cmphex(run(d, ENABLE_WQ, 0), ==, 0);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 1);

    /* halted: says so, refuses, comes back by a reset */
    wr32(d, GENCTRL, 3);
    inject(d, "halt,nth=1");
    submit(d, 0, op(COMPARE, SRC, DST, PAGE));
    step(d, 1000000);
    g_assert_cmphex(rd32(d, GENSTS) & 3, ==, STATE_HALT);
    g_assert_cmphex(rd32(d, GENSTS) >> 2 & 3, ==, 0);
    g_assert_cmphex(rd32(d, INTCAUSE) & CAUSE_HALT, !=, 0);
    g_assert_true(interrupted(d, 0));
    g_assert_cmphex(run(d, DRAIN_ALL, 0), ==, 0x05);
    g_assert_cmphex(run(d, RESET_DEVICE, 0), ==, 0);
    g_assert_cmphex(rd32(d, GENSTS), ==, STATE_DISABLED);
    inject(d, "");
    configure(d, 64);
    g_assert_cmphex(execute_status(d, op(COMPARE, SRC, DST, PAGE)), ==, 1);
    stop(d);
}

static void test_inject_refused(void)
{
    static const char *const nonsense[] = {
        "status", "status=0x20", "status=,nth=1", "status=0x20,nth=0",
        "status=0x20,nth=1,every=2", "delay,nth=1", "what,nth=1",
        "lost,nth=x", "lost,nth=1,", "lost,count=1",
    };
    Dsa *d = start("");
    int i;

    for (i = 0; i < ARRAY_SIZE(nonsense); i++) {
        QDict *answer = qtest_qmp(d->qts, "{'execute': 'qom-set', 'arguments':"
                                  "{'path': '/machine/peripheral/dsa0',"
                                  " 'property': 'inject', 'value': %s}}",
                                  nonsense[i]);

        g_test_message("inject=%s", nonsense[i]);
        g_assert(qdict_haskey(answer, "error"));
        qobject_unref(answer);
    }
    stop(d);
}

static void test_counters(void)
{
    Dsa *d = start_configured(",timing-preset=none");
    int i;

    fill_list(d, 10);
    for (i = 0; i < 3; i++) {
        execute(d, op(COMPARE, SRC, DST, PAGE));
    }
    execute(d, op(CRCGEN, SRC, 0, PAGE));
    execute(d, op(MEMMOVE, SRC, DST, PAGE));
    execute(d, op(MEMMOVE, SRC, DST, 0));
    submit(d, 0, batch(LIST, 10, 20));
    step(d, 1000000);
    g_assert_cmphex(status(d, 20), ==, 1);
    g_assert_cmpint(counter(d, "op-compare"), ==, 3);
    g_assert_cmpint(counter(d, "op-crcgen"), ==, 1);
    g_assert_cmpint(counter(d, "op-memmove"), ==, 2);
    g_assert_cmpint(counter(d, "op-fill"), ==, 10);
    g_assert_cmpint(counter(d, "batches"), ==, 1);
    g_assert_cmpint(counter(d, "batch-descriptors"), ==, 10);
    g_assert_cmpint(counter(d, "errors"), ==, 1);
    g_assert_cmpint(counter(d, "dropped"), ==, 0);
    g_assert_cmpint(counter(d, "sw-errors"), ==, 0);
    g_assert_cmpint(counter(d, "interrupts"), ==, 0);
    /* 8192 a compare, 4096 the rest; the list is read besides */
    g_assert_cmpint(counter(d, "bytes-read"), >=, 3 * 2 * PAGE + 2 * PAGE);
    g_assert_cmpint(counter(d, "bytes-read"), <=,
                    3 * 2 * PAGE + 2 * PAGE + 10 * 64);
    g_assert_cmpint(counter(d, "bytes-written"), >=, PAGE + 80);
    stop(d);
}

/* --- the device's own address space as a target -------------------------- */

static void test_into_itself(void)
{
    Dsa *d = start_configured("");
    uint64_t targets[] = {
        portal(d, 0, 1), d->regs.addr + CMD, d->regs.addr + d->wqcfg,
        d->regs.addr + d->pci->msix_table_off, d->regs.addr + INTCAUSE,
    };
    Desc x;
    int i;

    /* whatever it does, it goes on living; a reset brings it back */
    fill_list(d, 2);
    x = op(FILL, 0x0050000000500000, DST, 64);
    put(d, SRC, &x, sizeof(x));
    for (i = 0; i < ARRAY_SIZE(targets); i++) {
        submit(d, 0, op(MEMMOVE, SRC, targets[i], 64));
        submit(d, 0, op(FILL, 0x0050000000500000, targets[i], 64));
        submit(d, 0, op(COMPARE, targets[i], SRC, 64));
        submit(d, 0, batch(targets[i] & ~63ull, 2, 0));
        x = op(FILL, 0, DST, 8);
        x.cr = cpu_to_le64(targets[i] & ~31ull);
        submit(d, 0, x);
        step(d, 1000000);
        run(d, RESET_DEVICE, 0);
        wr64(d, SWERROR, 3);
        configure(d, 64);
        g_assert_cmphex(execute_status(d, op(FILL, 1, DST, 8)), ==, 1);
    }
    stop(d);
}

/* --- save and restore ---------------------------------------------------- */

static void wait_for_migration(QTestState *qts)
{
    for (;;) {
        QDict *answer = qtest_qmp_assert_success_ref(
            qts, "{'execute': 'query-migrate'}");
        const char *state = qdict_get_try_str(answer, "status");
        bool done = state && !strcmp(state, "completed");

        g_assert(!state || strcmp(state, "failed"));
        qobject_unref(answer);
        if (done) {
            return;
        }
        g_usleep(1000);
    }
}

/* Save, and go on in a new machine with the same devices at the same places */
static Dsa *travel(Dsa *d, const char *properties)
{
    g_autofree char *file = NULL, *uri = NULL;
    Dsa *there = g_new0(Dsa, 1);
    int fd = g_file_open_tmp("idxd-test-XXXXXX", &file, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    uri = g_strdup_printf("file:%s", file);
    qtest_qmp_assert_success(d->qts, "{'execute': 'migrate',"
                             "'arguments': {'uri': %s}}", uri);
    wait_for_migration(d->qts);

    *there = *d;
    there->qts = qtest_initf(MACHINE "-device idxd-dsa,id=dsa0,addr=04.0%s "
                             "-incoming defer", properties);
    qtest_qmp_assert_success(there->qts, "{'execute': 'migrate-incoming',"
                             "'arguments': {'uri': %s}}", uri);
    wait_for_migration(there->qts);
    there->bus = qpci_new_pc(there->qts, NULL);
    there->pci = g_memdup2(d->pci, sizeof(*d->pci));
    there->pci->bus = there->bus;
    stop(d);
    unlink(file);
    return there;
}

static void test_migration(void)
{
    static const int when[] = { 0, 100, 400, 1500, 2600, 4000, 100000 };
    int i, k;

    for (i = 0; i < ARRAY_SIZE(when); i++) {
        Dsa *d = start_configured(EXACT);
        Desc x;
        int before;

        for (k = 0; k < 8; k++) {
            qtest_writeq(d->qts, SRC + PAGE * k, k + 1);
            x = op(MEMMOVE, SRC + PAGE * k, DST + PAGE * k, PAGE);
            x.cr = cpu_to_le64(CR(k));
            put_desc(d, k, x);
        }
        x = batch(LIST, 8, 10);
        x.flags_op |= cpu_to_le32(F_RCI);
        x.handle = cpu_to_le16(4);
        submit(d, 0, x);
        for (k = 0; k < 8; k++) {
            x = op(FILL, 0x99, DST2 + PAGE * k, PAGE);
            x.cr = cpu_to_le64(CR(20 + k));
            submit(d, 0, x);
        }
        /* half a descriptor at the portal travels, too */
        x = op(FILL, 0x77, DELTA, 8);
        x.cr = cpu_to_le64(CR(40));
        for (k = 0; k < 4; k++) {
            qtest_writeq(d->qts, portal(d, 0, 1) + 8 * k,
                         ldq_le_p((uint8_t *)&x + 8 * k));
        }
        /* and an error to be read */
        submit(d, 0, desc(FILL, 0, 0));
        step(d, when[i]);
        before = counter(d, "completions");

        d = travel(d, EXACT);
        g_assert_cmphex(rd32(d, GENSTS), ==, STATE_ENABLED);
        g_assert_cmphex(wq_state(d, 0), ==, STATE_ENABLED);
        g_assert_cmphex(wqcfg(d, 0, 0), ==, 64);
        g_assert_cmphex(wqcfg(d, 0, 2), ==, WQ_GOOD);
        g_assert_cmphex(rd64(d, d->grpcfg), ==, 1);
        g_assert_cmphex(rd64(d, d->grpcfg + 32), ==, 0xf);
        g_assert_cmpint(counter(d, "completions"), ==, before);
        step(d, 10000000);
        for (k = 0; k < 8; k++) {
            g_assert_cmphex(status(d, k), ==, 1);
            g_assert_cmphex(status(d, 20 + k), ==, 1);
            g_assert_cmphex(qtest_readq(d->qts, DST + PAGE * k), ==, k + 1);
            g_assert_cmphex(qtest_readq(d->qts, DST2 + PAGE * k), ==, 0x99);
        }
        g_assert_cmphex(status(d, 10), ==, 1);
        g_assert_cmpint(record(d, 10).completed, ==, 8);
        g_assert_true(interrupted(d, 4));
        g_assert_true(sw_error(d).valid);
        g_assert_cmphex(sw_error(d).code, ==, 0x13);
        g_assert_cmphex(execute_status(d, op(FILL, 1, DST, 8)), ==, 1);
        g_assert_cmphex(run(d, DRAIN_ALL, 0), ==, 0);
        stop(d);
    }
}

/* A command that waits for work goes on waiting where it arrives */
static void test_migration_of_a_drain(void)
{
    Dsa *d = start_configured(EXACT);

    take_off(d);
    step(d, 1000);
    issue(d, DRAIN_WQ, wq_bit(0) | CMD_INTERRUPT);
    g_assert_cmphex(rd32(d, CMDSTS) & CMDSTS_ACTIVE, !=, 0);
    d = travel(d, EXACT);
    g_assert_cmphex(rd32(d, CMDSTS) & CMDSTS_ACTIVE, !=, 0);
    step(d, 10000000);
    g_assert_cmphex(rd32(d, CMDSTS), ==, 0);
    g_assert_cmphex(rd32(d, INTCAUSE), ==, CAUSE_COMMAND);
    g_assert_true(interrupted(d, 0));
    g_assert_cmpint(landed(d), ==, 2 * FLIGHT + 1);
    stop(d);
}

/* --- several devices ----------------------------------------------------- */

static void test_two_devices(void)
{
    Dsa *a = start_with(",timing-preset=none",
                        "-device idxd-dsa,id=dsa1,addr=05.0,num-wqs=4");
    Dsa b = *a;

    attach(&b, QPCI_DEVFN(5, 0));
    configure(a, 64);
    g_assert_cmphex(rd32(&b, GENSTS), ==, STATE_DISABLED);
    configure(&b, 16);
    g_assert_cmphex(execute_status(a, op(FILL, 1, DST, 8)), ==, 1);
    g_assert_cmphex(execute_status(&b, op(FILL, 2, DST + 8, 8)), ==, 1);
    g_assert_cmphex(execute_status(&b, op(FILL, 3, DST + 16, 8)), ==, 1);
    g_assert_cmphex(qtest_readq(a->qts, DST), ==, 1);
    g_assert_cmphex(qtest_readq(a->qts, DST + 8), ==, 2);
    g_assert_cmpint(counter_of(a, "dsa0", "descriptors"), ==, 1);
    g_assert_cmpint(counter_of(a, "dsa1", "descriptors"), ==, 2);
    g_assert_cmphex(run(&b, RESET_DEVICE, 0), ==, 0);
    g_assert_cmphex(rd32(a, GENSTS), ==, STATE_ENABLED);
    g_free(b.pci);
    stop(a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("/idxd/identity", test_identity);
    qtest_add_func("/idxd/reset-values", test_reset_values);
    qtest_add_func("/idxd/properties", test_properties);
    qtest_add_func("/idxd/tables", test_tables);
    qtest_add_func("/idxd/enable-device", test_enable_device);
    qtest_add_func("/idxd/enable-wq", test_enable_wq);
    qtest_add_func("/idxd/commands", test_commands);
    qtest_add_func("/idxd/int-handles", test_int_handles);
    qtest_add_func("/idxd/msix-masked", test_msix_masked);
    qtest_add_func("/idxd/portal", test_portal);
    qtest_add_func("/idxd/overflow", test_overflow);
    qtest_add_func("/idxd/occupancy", test_occupancy);
    qtest_add_func("/idxd/software-error", test_software_error);
    qtest_add_func("/idxd/descriptor-errors", test_descriptor_errors);
    qtest_add_func("/idxd/op/move-and-fill", test_move_and_fill);
    qtest_add_func("/idxd/op/compare", test_compare);
    qtest_add_func("/idxd/op/delta", test_delta);
    qtest_add_func("/idxd/op/crc", test_crc);
    qtest_add_func("/idxd/op/dif", test_dif);
    qtest_add_func("/idxd/batch/sizes", test_batch_sizes);
    qtest_add_func("/idxd/batch/members", test_batch_members);
    qtest_add_func("/idxd/batch/fences", test_fences);
    qtest_add_func("/idxd/batch/interrupt", test_batch_interrupt);
    qtest_add_func("/idxd/flight/drain", test_drain);
    qtest_add_func("/idxd/flight/abort-and-reset", test_abort_and_reset);
    qtest_add_func("/idxd/flight/system-reset", test_system_reset);
    qtest_add_func("/idxd/flight/second-queue", test_second_queue);
    qtest_add_func("/idxd/time/single", test_timing);
    qtest_add_func("/idxd/time/batch", test_batch_timing);
    qtest_add_func("/idxd/time/scale", test_time_scale);
    qtest_add_func("/idxd/inject", test_inject);
    qtest_add_func("/idxd/inject-refused", test_inject_refused);
    qtest_add_func("/idxd/counters", test_counters);
    qtest_add_func("/idxd/into-itself", test_into_itself);
    qtest_add_func("/idxd/migration/batch", test_migration);
    qtest_add_func("/idxd/migration/drain", test_migration_of_a_drain);
    qtest_add_func("/idxd/two-devices", test_two_devices);
    return g_test_run();
}
