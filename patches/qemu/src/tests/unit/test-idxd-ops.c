/*
 * Intel Data Streaming Accelerator: tests of descriptors and operations
 *
 * The memory core is replaced by a small guest of its own: pages that lie side
 * by side, or apart as behind an IOMMU, or that are answered for in odd pieces;
 * each of them may be device memory or missing.  Expectations come from
 * byte-wise code that shares nothing with the device.
 *
 * "-m perf" also measures what a descriptor costs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/crc32c.h"
#include "qemu/host-utils.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/dma/idxd-ops.h"
#include "hw/dma/idxd-crc.h"

/*
 * The guest
 */

#define PAGE        4096
#define PAGES       160
#define GUEST_SIZE  (PAGES * PAGE)
#define BASE        0x123400000ull

typedef enum Layout {
    FLAT,                       /* one range of RAM */
    PAGED,                      /* pages apart, each a translation of its own */
    ODD,                        /* the same, in pieces of any size */
    LAYOUTS,
} Layout;

static Layout layout;
static uint8_t *flat;
static uint8_t *page_ram[PAGES];
static MemoryRegion flat_mr = { .ram = true };
static MemoryRegion page_mr[PAGES];
static MemoryRegion io_mr, missing_mr;
static bool missing[PAGES], is_io[PAGES], read_only[PAGES];
static bool ends_mapped;            /* RAM also where addresses wrap */
static hwaddr all_ram;              /* size of a guest for measurements */
static unsigned io_accesses, translations;
static AddressSpace guest_as;
static uint32_t odd_state;

static uint8_t *page_host(unsigned page)
{
    return layout == FLAT ? flat + page * PAGE : page_ram[page];
}

/* The page at an address, PAGES if there is none */
static unsigned page_at(hwaddr addr)
{
    if (ends_mapped && (addr < PAGE || addr >= -(hwaddr)PAGE)) {
        return addr < PAGE ? 1 : 0;
    }
    return addr < BASE ? PAGES : MIN((addr - BASE) / PAGE, PAGES);
}

static uint32_t odd_piece(void)
{
    odd_state = odd_state * 1103515245 + 12345;
    return 1 + (odd_state >> 16) % 300;
}

MemoryRegion *flatview_translate(FlatView *fv, hwaddr addr, hwaddr *xlat,
                                 hwaddr *plen, bool is_write,
                                 MemTxAttrs attrs)
{
    unsigned page = page_at(addr);
    hwaddr room;

    if (all_ram) {
        *xlat = addr - BASE;
        *plen = MIN(*plen, all_ram - *xlat);
        return &flat_mr;
    }

    translations++;
    *xlat = addr;
    if (page == PAGES || missing[page] || (is_write && read_only[page])) {
        return &missing_mr;
    }
    if (is_io[page]) {
        /* Not limited to what the region covers, as for real ones */
        return &io_mr;
    }
    if (layout == FLAT && addr - BASE < GUEST_SIZE) {
        unsigned end = page + 1;

        while (end < PAGES && !missing[end] && !is_io[end] &&
               !(is_write && read_only[end])) {
            end++;
        }
        *xlat = addr - BASE;
        *plen = MIN(*plen, BASE + end * PAGE - addr);
        return &flat_mr;
    }
    room = PAGE - addr % PAGE;
    if (layout == ODD) {
        room = MIN(room, odd_piece());
    }
    *xlat = addr % PAGE;
    *plen = MIN(*plen, room);
    return &page_mr[page];
}

bool memory_region_is_ram_device(MemoryRegion *mr)
{
    return false;
}

void *memory_region_get_ram_ptr(MemoryRegion *mr)
{
    return mr->ram_block;
}

static MemTxResult guest_rw(hwaddr addr, uint8_t *buf, hwaddr len,
                            bool is_write)
{
    MemTxResult result = MEMTX_OK;

    while (len) {
        unsigned page = page_at(addr);
        hwaddr n = MIN(len, PAGE - addr % PAGE);

        if (page == PAGES || missing[page] || (is_write && read_only[page])) {
            result = MEMTX_DECODE_ERROR;
        } else if (is_write) {
            memmove(page_host(page) + addr % PAGE, buf, n);
            io_accesses += is_io[page];
        } else {
            memcpy(buf, page_host(page) + addr % PAGE, n);
            io_accesses += is_io[page];
        }
        addr += n;
        buf += n;
        len -= n;
    }
    return result;
}

MemTxResult address_space_read_full(AddressSpace *as, hwaddr addr,
                                    MemTxAttrs attrs, void *buf, hwaddr len)
{
    return guest_rw(addr, buf, len, false);
}

MemTxResult address_space_write(AddressSpace *as, hwaddr addr,
                                MemTxAttrs attrs, const void *buf, hwaddr len)
{
    return guest_rw(addr, (uint8_t *)buf, len, true);
}

/* The test's own hand in guest memory: always there */
static void guest_copy(uint64_t addr, void *buf, size_t len, bool to_guest)
{
    uint8_t *p = buf;

    g_assert_cmpuint(addr, >=, BASE);
    g_assert_cmpuint(addr + len, <=, BASE + GUEST_SIZE);
    while (len) {
        size_t n = MIN(len, PAGE - addr % PAGE);
        uint8_t *host = page_host((addr - BASE) / PAGE) + addr % PAGE;

        if (to_guest) {
            memcpy(host, p, n);
        } else {
            memcpy(p, host, n);
        }
        addr += n;
        p += n;
        len -= n;
    }
}

static void guest_put(uint64_t addr, const void *buf, size_t len)
{
    guest_copy(addr, (void *)buf, len, true);
}

static void guest_get(uint64_t addr, void *buf, size_t len)
{
    guest_copy(addr, buf, len, false);
}

static void guest_poke8(uint64_t addr, uint8_t value)
{
    guest_put(addr, &value, 1);
}

static void guest_reset(Layout how)
{
    layout = how;
    memset(missing, 0, sizeof(missing));
    memset(is_io, 0, sizeof(is_io));
    memset(read_only, 0, sizeof(read_only));
    for (unsigned i = 0; i < PAGES; i++) {
        memset(page_host(i), 0, PAGE);
    }
}

static void guest_init(void)
{
    flat = g_malloc(GUEST_SIZE);
    flat_mr.ram_block = (RAMBlock *)flat;
    for (unsigned i = 0; i < PAGES; i++) {
        page_ram[i] = g_malloc(PAGE);
        page_mr[i].ram = true;
        page_mr[i].ram_block = (RAMBlock *)page_ram[i];
    }
}

/*
 * Descriptors
 */

#define CRAV_RCR    (IDXD_FLAG_CRAV | IDXD_FLAG_RCR)
#define GEN_CAP     0x00000040915f0107ull
#define OP_CAP      0x00000001003f03ffull

static IDXDOpEnv env;
static IDXDWindow window;           /* env's, where a test uses one */

static void env_reset(void)
{
    env = (IDXDOpEnv) {
        .as = &guest_as,
        .gen_cap = GEN_CAP,
        .op_cap = { OP_CAP },
        .max_xfer = 2 * MiB,
        .max_batch = 32,
    };
}

static void desc_init(uint8_t *raw, uint8_t opcode, uint64_t src, uint64_t dst,
                      uint32_t size)
{
    memset(raw, 0, IDXD_DESC_SIZE);
    stl_le_p(raw + 4, CRAV_RCR | opcode << 24);
    stq_le_p(raw + 8, 0x1000);
    stq_le_p(raw + 16, src);
    stq_le_p(raw + 24, dst);
    stl_le_p(raw + 32, size);
}

static uint32_t desc_flags(const uint8_t *raw)
{
    return ldl_le_p(raw + 4) & IDXD_FLAG_MASK;
}

static void desc_set_flags(uint8_t *raw, uint32_t flags)
{
    stl_le_p(raw + 4, (ldl_le_p(raw + 4) & ~IDXD_FLAG_MASK) | flags);
}

/* Run without a check first, as the rest of a descriptor that faulted may be */
static void run_unchecked(const uint8_t *raw, uint8_t *cr)
{
    IDXDDesc desc;
    IDXDOpResult res;

    idxd_desc_decode(&desc, raw);
    memset(&res, 0xa5, sizeof(res));
    idxd_op_run(&env, &desc, &res);
    idxd_completion_encode(cr, &res);
}

static uint8_t check(const uint8_t *raw, uint32_t *flags)
{
    IDXDDesc desc;
    IDXDOpResult res;
    bool good;

    idxd_desc_decode(&desc, raw);
    memset(&res, 0xa5, sizeof(res));
    good = idxd_op_check(&env, &desc, &res);
    g_assert_cmpint(good, ==, res.status == IDXD_ST_NONE);
    if (flags) {
        *flags = ldl_le_p(res.specific);
    }
    return res.status;
}

static uint8_t run(const uint8_t *raw, uint8_t *cr)
{
    g_assert_cmphex(check(raw, NULL), ==, IDXD_ST_NONE);
    run_unchecked(raw, cr);
    return cr[0];
}

/* ldl_le_p() has a sign */
#define U32(p)          ((uint32_t)ldl_le_p(p))
#define CR_BYTES(cr)    U32((cr) + 4)
#define CR_FAULT(cr)    ldq_le_p((cr) + 8)

/*
 * Naive code: one bit, one byte at a time
 */

static uint8_t naive_mirror(uint8_t byte)
{
    uint8_t out = 0;

    for (int i = 0; i < 8; i++) {
        out |= ((byte >> i) & 1) << (7 - i);
    }
    return out;
}

static uint32_t naive_mirror32(uint32_t word)
{
    uint32_t out = 0;

    for (int i = 0; i < 32; i++) {
        out |= ((word >> i) & 1) << (31 - i);
    }
    return out;
}

/* As the specification puts it: most significant bit first, data mirrored */
static uint32_t naive_crc(uint32_t flags, uint32_t seed, const uint8_t *p,
                          size_t len)
{
    bool bypass = flags & IDXD_FLAG_CRC_NO_INVERT;
    uint32_t crc = bypass ? seed : naive_mirror32(~seed);

    while (len--) {
        uint8_t byte = *p++;

        if (!(flags & IDXD_FLAG_CRC_NO_REFLECT)) {
            byte = naive_mirror(byte);
        }
        crc ^= (uint32_t)byte << 24;
        for (int i = 0; i < 8; i++) {
            crc = (crc << 1) ^ (crc & 0x80000000 ? 0x1edc6f41 : 0);
        }
    }
    return bypass ? crc : ~naive_mirror32(crc);
}

static uint16_t naive_t10(uint16_t crc, const uint8_t *p, size_t len)
{
    while (len--) {
        crc ^= *p++ << 8;
        for (int i = 0; i < 8; i++) {
            crc = (crc << 1) ^ (crc & 0x8000 ? 0x8bb7 : 0);
        }
    }
    return crc;
}

static const unsigned dif_blocks[] = { 512, 520, 4096, 4104 };

static uint16_t naive_guard(uint8_t flags, const uint8_t *p, size_t len)
{
    uint16_t crc = naive_t10(flags & 4 ? 0xffff : 0, p, len);

    return flags & 8 ? ~crc : crc;
}

/* The oracle: what a descriptor does to @mem and what its record says */
static void oracle(const uint8_t *raw, uint8_t *mem, uint8_t *cr)
{
    uint32_t flags = desc_flags(raw);
    uint64_t src = ldq_le_p(raw + 16) - BASE, dst = ldq_le_p(raw + 24) - BASE;
    uint64_t dst2 = ldq_le_p(raw + 40) - BASE;
    uint32_t size = U32(raw + 32), seed, n;
    bool expected = true;
    uint8_t *copy;

    memset(cr, 0, IDXD_CR_SIZE);
    cr[0] = IDXD_ST_SUCCESS;

    switch (raw[7]) {
    case IDXD_OP_NOOP:
    case IDXD_OP_CFLUSH:
        break;
    case IDXD_OP_MEMMOVE:
        cr[1] = dst > src && dst < src + size;
        copy = g_memdup2(mem + src, size);
        memcpy(mem + dst, copy, size);
        g_free(copy);
        break;
    case IDXD_OP_FILL:
        for (n = 0; n < size; n++) {
            mem[dst + n] = raw[16 + n % 8];
        }
        break;
    case IDXD_OP_COMPARE:
    case IDXD_OP_COMPVAL:
        for (n = 0; n < size; n++) {
            if (mem[src + n] != (raw[7] == IDXD_OP_COMPARE ? mem[dst + n]
                                                           : raw[24 + n % 8])) {
                cr[1] = 1;
                stl_le_p(cr + 4, n);
                break;
            }
        }
        expected = cr[1] == raw[40];
        break;
    case IDXD_OP_CREATE_DELTA: {
        uint32_t max = U32(raw + 48), used = 0;

        for (n = 0; n < size; n += 8) {
            if (memcmp(mem + src + n, mem + dst + n, 8)) {
                if (used + 10 > max) {
                    cr[1] = 2;
                    stl_le_p(cr + 4, n);
                    break;
                }
                cr[1] = 1;
                mem[dst2 + used] = n / 8;
                mem[dst2 + used + 1] = n / 8 >> 8;
                memcpy(mem + dst2 + used + 2, mem + dst + n, 8);
                used += 10;
            }
        }
        stl_le_p(cr + 16, used);
        expected = raw[56] >> cr[1] & 1;
        break;
    }
    case IDXD_OP_APPLY_DELTA:
        for (n = 0; n < U32(raw + 40); n += 10) {
            memcpy(mem + dst + 8 * lduw_le_p(mem + src + n), mem + src + n + 2,
                   8);
        }
        break;
    case IDXD_OP_DUALCAST:
        memcpy(mem + dst, mem + src, size);
        memcpy(mem + dst2, mem + src, size);
        break;
    case IDXD_OP_CRCGEN:
    case IDXD_OP_COPY_CRC:
        seed = U32(raw + 40);
        if (flags & IDXD_FLAG_CRC_READ_SEED) {
            seed = U32(mem + ldq_le_p(raw + 48) - BASE);
        }
        stl_le_p(cr + 16, naive_crc(flags, seed, mem + src, size));
        if (raw[7] == IDXD_OP_COPY_CRC) {
            memcpy(mem + dst, mem + src, size);
        }
        break;
    case IDXD_OP_DIF_CHECK:
    case IDXD_OP_DIF_INSERT:
    case IDXD_OP_DIF_STRIP:
    case IDXD_OP_DIF_UPDATE: {
        uint8_t op = raw[7], sf = raw[40], df = raw[41], f = raw[42];
        unsigned block = dif_blocks[f & 3];
        uint32_t sref = U32(raw + 48), dref = U32(raw + 56);
        uint16_t smask = lduw_le_p(raw + 52), dmask = lduw_le_p(raw + 60);
        uint16_t sapp = lduw_le_p(raw + 54), dapp = lduw_le_p(raw + 62);

        n = 0;
        while (n < size) {
            uint8_t *p = mem + src + n, *dif = p + block, *q = mem + dst;
            uint8_t bad = 0;

            if (op != IDXD_OP_DIF_INSERT) {
                uint16_t app = lduw_be_p(dif + 2);
                uint32_t ref = ldl_be_p(dif + 4);
                bool f_app = app == 0xffff, f_ref = ref == 0xffffffff;
                bool f_all = f_app && f_ref && lduw_be_p(dif) == 0xffff;

                if ((sf & 2) && f_all) {
                    bad = sf & 1 ? 8 : 0;
                } else if (!((sf & 4) && f_app) &&
                           !((sf & 8) && f_app && f_ref)) {
                    if (!(sf & 0x20) &&
                        lduw_be_p(dif) != naive_guard(f, p, block)) {
                        bad |= 1;
                    }
                    if ((app & ~smask & 0xffff) != (sapp & ~smask & 0xffff)) {
                        bad |= 2;
                    }
                    if (!(sf & 0x40) && ref != sref) {
                        bad |= 4;
                    }
                }
            }
            if (bad) {
                cr[0] = IDXD_ST_DIF_ERROR;
                cr[1] = bad;
                stl_le_p(cr + 4, n);
                break;
            }
            if (op != IDXD_OP_DIF_CHECK) {
                memcpy(q, p, block);
                dst += block;
            }
            if (op == IDXD_OP_DIF_INSERT || op == IDXD_OP_DIF_UPDATE) {
                uint8_t out[8];

                memcpy(out, dif, 8);
                if (!(df & 0x20)) {
                    stw_be_p(out, naive_guard(f, p, block));
                }
                if (!(df & 8)) {
                    stw_be_p(out + 2, dapp & ~dmask);
                }
                if (!(df & 0x40)) {
                    stl_be_p(out + 4, dref);
                }
                memcpy(q + block, out, 8);
                dst += 8;
            }
            n += block + (op == IDXD_OP_DIF_INSERT ? 0 : 8);
            sref += !(sf & 0x80);
            sapp += !!(sf & 0x10);
            dref += !(df & 0x80);
            dapp += !!(df & 0x10);
        }
        if (op != IDXD_OP_DIF_INSERT) {
            stl_le_p(cr + 16, sref);
            stw_le_p(cr + 20, smask);
            stw_le_p(cr + 22, sapp);
        }
        if (op == IDXD_OP_DIF_INSERT || op == IDXD_OP_DIF_UPDATE) {
            stl_le_p(cr + 24, dref);
            stw_le_p(cr + 28, dmask);
            stw_le_p(cr + 30, dapp);
        }
        break;
    }
    default:
        g_assert_not_reached();
    }
    if ((flags & IDXD_FLAG_CR) && !expected) {
        cr[0] = IDXD_ST_SUCCESS_FALSE;
    }
}

static void assert_mem(const uint8_t *expected)
{
    static uint8_t is[GUEST_SIZE];

    guest_get(BASE, is, GUEST_SIZE);
    if (memcmp(is, expected, GUEST_SIZE)) {
        for (size_t i = 0; i < GUEST_SIZE; i++) {
            if (is[i] != expected[i]) {
                g_test_message("guest memory differs first at +0x%zx: "
                               "is %02x, must be %02x", i, is[i], expected[i]);
                break;
            }
        }
        g_assert_not_reached();
    }
}

static void assert_cr(const uint8_t *cr, const uint8_t *expected)
{
    if (memcmp(cr, expected, IDXD_CR_SIZE)) {
        for (int i = 0; i < IDXD_CR_SIZE; i++) {
            if (cr[i] != expected[i]) {
                g_test_message("record byte %d: is %02x, must be %02x", i,
                               cr[i], expected[i]);
            }
        }
    }
    g_assert_cmpmem(cr, IDXD_CR_SIZE, expected, IDXD_CR_SIZE);
}

/* Run a descriptor and let the oracle judge it */
static void run_and_judge(const uint8_t *raw, uint8_t *cr)
{
    static uint8_t mem[GUEST_SIZE];
    uint8_t expected[IDXD_CR_SIZE];

    guest_get(BASE, mem, GUEST_SIZE);
    oracle(raw, mem, expected);
    run(raw, cr);
    if (memcmp(cr, expected, IDXD_CR_SIZE)) {
        g_test_message("layout %d, %s of %u bytes", layout,
                       idxd_op_name(raw[7]), U32(raw + 32));
    }
    assert_cr(cr, expected);
    assert_mem(mem);
}

static void random_bytes(uint8_t *p, size_t len)
{
    while (len--) {
        *p++ = g_test_rand_int();
    }
}

static void guest_randomize(uint64_t addr, size_t len)
{
    g_autofree uint8_t *p = g_malloc(len);

    random_bytes(p, len);
    guest_put(addr, p, len);
}

/*
 * Tests
 */

static void test_crc_vectors(void)
{
    static const struct {
        const char *what;
        uint32_t crc;
    } vectors[] = {
        { "123456789", 0xe3069283 }, { "zeros32", 0x8a9136aa },
        { "ones32", 0x62a8ab43 }, { "zeros4096", 0x98f94189 },
        { "ones4096", 0x25c1fe13 }, { "count4096", 0x9c71fe32 },
    };
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE], buf[PAGE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
            const char *what = vectors[i].what;
            size_t len = g_str_has_suffix(what, "4096") ? 4096 : 32;

            if (g_str_has_prefix(what, "zeros")) {
                memset(buf, 0, len);
            } else if (g_str_has_prefix(what, "ones")) {
                memset(buf, 0xff, len);
            } else if (g_str_has_prefix(what, "count")) {
                for (size_t k = 0; k < len; k++) {
                    buf[k] = k;
                }
            } else {
                len = strlen(what);
                memcpy(buf, what, len);
            }
            /* Across a page, to have both ends tested */
            guest_put(BASE + 4000, buf, len);
            desc_init(raw, IDXD_OP_CRCGEN, BASE + 4000, 0, len);
            g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
            g_assert_cmphex(ldq_le_p(cr + 16), ==, vectors[i].crc);
            g_assert_cmpuint(CR_BYTES(cr), ==, 0);

            /* In two descriptors, the second seeded with the first's sum */
            desc_init(raw, IDXD_OP_CRCGEN, BASE + 4000, 0, 5);
            run(raw, cr);
            desc_init(raw, IDXD_OP_CRCGEN, BASE + 4005, 0, len - 5);
            memcpy(raw + IDXD_D_CRC_SEED, cr + 16, 4);
            run(raw, cr);
            g_assert_cmphex(ldq_le_p(cr + 16), ==, vectors[i].crc);
        }
    }
}

static void test_crc_functions(void)
{
    uint8_t buf[9000];

    random_bytes(buf, sizeof(buf));
    for (int i = 0; i < 3000; i++) {
        size_t at = g_test_rand_int_range(0, 64);
        size_t len = i < 600 ? i : g_test_rand_int_range(0, 8900);
        uint32_t seed = g_test_rand_int();
        uint32_t crc = ~naive_crc(0, ~seed, buf + at, len);

        g_assert_cmphex(idxd_crc32c(seed, buf + at, len), ==, crc);
        g_assert_cmphex(idxd_crc32c_portable(seed, buf + at, len), ==, crc);
        g_assert_cmphex(crc32c(seed, buf + at, len), ==, ~crc);
        g_assert_cmphex(idxd_crc16_t10(seed, buf + at, len), ==,
                        naive_t10(seed, buf + at, len));
    }
    /* The check value of CRC-16/T10-DIF, and two longer texts */
    g_assert_cmphex(idxd_crc16_t10(0, "123456789", 9), ==, 0xd0db);
    g_assert_cmphex(idxd_crc16_t10(0, "abc", 3), ==, 0x443b);
    g_assert_cmphex(idxd_crc16_t10(0, "1234567890123456789012345678901234567890"
                                   "123456789012345678901234567890123456789",
                                   79), ==, 0x4b70);
}

static void test_crc_flags(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE], buf[24];

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_randomize(BASE, 3 * PAGE);
        for (uint32_t flags = 0; flags < 8; flags++) {
            for (int copy = 0; copy < 2; copy++) {
                desc_init(raw, copy ? IDXD_OP_COPY_CRC : IDXD_OP_CRCGEN,
                          BASE + 77, copy ? BASE + 8 * PAGE + 5 : 0, 5003);
                desc_set_flags(raw, CRAV_RCR | flags << 16);
                stl_le_p(raw + IDXD_D_CRC_SEED, 0x12345678);
                if (flags & 1) {
                    /* Straddles a page, and is not the one in place */
                    stq_le_p(raw + IDXD_D_CRC_SEED_ADDR, BASE + PAGE - 2);
                }
                run_and_judge(raw, cr);
            }
        }
    }

    /* Without inversion and reflection: CRC-32 of the other bit order */
    layout = FLAT;
    guest_put(BASE, "123456789", 9);
    desc_init(raw, IDXD_OP_CRCGEN, BASE, 0, 9);
    desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CRC_NO_INVERT);
    stl_le_p(raw + IDXD_D_CRC_SEED, 0xffffffff);
    run(raw, cr);
    g_assert_cmphex(U32(cr + 16), ==, naive_mirror32(~0xe3069283u));
    /* Mirrored data without data reflection is data with */
    for (int i = 0; i < 9; i++) {
        buf[i] = naive_mirror("123456789"[i]);
    }
    guest_put(BASE, buf, 9);
    desc_init(raw, IDXD_OP_CRCGEN, BASE, 0, 9);
    desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CRC_NO_REFLECT);
    run(raw, cr);
    g_assert_cmphex(U32(cr + 16), ==, 0xe3069283);
}

static void test_compare(void)
{
    static const uint32_t places[] = { 0, 1, 63, 64, 4095 };
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];
    uint8_t page[PAGE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        for (unsigned shift = 0; shift < 100; shift += 33) {
            uint64_t a = BASE + shift, b = BASE + 16 * PAGE + 2 * shift;

            random_bytes(page, PAGE);
            guest_put(a, page, PAGE);
            guest_put(b, page, PAGE);
            desc_init(raw, IDXD_OP_COMPARE, a, b, PAGE);
            run_and_judge(raw, cr);
            g_assert_cmpuint(cr[1], ==, 0);
            g_assert_cmpuint(CR_BYTES(cr), ==, 0);
            for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
                guest_poke8(b + places[i], page[places[i]] ^ 0x10);
                g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
                g_assert_cmpuint(cr[1], ==, 1);
                g_assert_cmpuint(CR_BYTES(cr), ==, places[i]);
                guest_poke8(b + places[i], page[places[i]]);
            }
            /* Every offset, with a second difference behind it */
            for (size_t i = 0; i < PAGE; i++) {
                guest_poke8(a + i, page[i] ^ 1);
                guest_poke8(b + PAGE - 1, page[PAGE - 1] ^ 2);
                run(raw, cr);
                g_assert_cmpuint(cr[1], ==, 1);
                g_assert_cmpuint(CR_BYTES(cr), ==, i);
                guest_poke8(a + i, page[i]);
                guest_poke8(b + PAGE - 1, page[PAGE - 1]);
            }
        }
    }
}

static void test_compval(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];
    uint64_t pattern = 0x1122334455667788ull;

    for (layout = 0; layout < LAYOUTS; layout++) {
        for (unsigned shift = 0; shift < 9; shift++) {
            for (unsigned size = 1; size < 40; size += shift + 1) {
                desc_init(raw, IDXD_OP_FILL, pattern, BASE + PAGE - 20 + shift,
                          size);
                run_and_judge(raw, cr);
                desc_init(raw, IDXD_OP_COMPVAL, BASE + PAGE - 20 + shift,
                          pattern, size);
                run_and_judge(raw, cr);
                g_assert_cmpuint(cr[1], ==, 0);
                guest_poke8(BASE + PAGE - 20 + shift + size - 1, 0xee);
                run_and_judge(raw, cr);
                g_assert_cmpuint(cr[1], ==, 1);
                g_assert_cmpuint(CR_BYTES(cr), ==, size - 1);
            }
        }
        desc_init(raw, IDXD_OP_FILL, pattern, BASE + 3, 9 * PAGE);
        run_and_judge(raw, cr);
        desc_init(raw, IDXD_OP_COMPVAL, BASE + 3, pattern, 9 * PAGE);
        run_and_judge(raw, cr);
        g_assert_cmpuint(cr[1], ==, 0);
        for (unsigned at = 0; at < 9 * PAGE; at += 997) {
            guest_poke8(BASE + 3 + at, 0);
            run_and_judge(raw, cr);
            g_assert_cmpuint(CR_BYTES(cr), ==, at);
            guest_poke8(BASE + 3 + at, pattern >> at % 8 * 8);
        }
    }
}

static void test_check_result(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];

    guest_reset(PAGED);
    for (int differ = 0; differ < 2; differ++) {
        guest_poke8(BASE + 100, differ);
        for (int expected = 0; expected < 2; expected++) {
            uint8_t want = differ == expected ? IDXD_ST_SUCCESS
                                              : IDXD_ST_SUCCESS_FALSE;

            desc_init(raw, IDXD_OP_COMPARE, BASE, BASE + PAGE, 200);
            raw[IDXD_D_EXPECTED] = expected;
            g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
            desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CR);
            g_assert_cmphex(run(raw, cr), ==, want);
            g_assert_cmpuint(cr[1], ==, differ);
            desc_init(raw, IDXD_OP_COMPVAL, BASE, 0, 200);
            raw[IDXD_D_EXPECTED] = expected;
            desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CR);
            g_assert_cmphex(run(raw, cr), ==, want);
            g_assert_cmpuint(cr[1], ==, differ);
        }
        for (int mask = 0; mask < 8; mask++) {
            desc_init(raw, IDXD_OP_CREATE_DELTA, BASE, BASE + PAGE, 200);
            stq_le_p(raw + IDXD_D_DELTA_ADDR, BASE + 4 * PAGE);
            stl_le_p(raw + IDXD_D_DELTA_MAX, 80);
            raw[IDXD_D_DELTA_EXPECTED] = mask;
            desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CR);
            g_assert_cmphex(run(raw, cr), ==, mask & (1 << differ) ?
                            IDXD_ST_SUCCESS : IDXD_ST_SUCCESS_FALSE);
        }
    }
}

static void test_memmove(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        static const int distances[] = {
            0, 1, 7, 8, 100, 4095, 4096, 4097, 10000, 50000,
        };

        for (size_t i = 0; i < ARRAY_SIZE(distances); i++) {
            for (int sign = -1; sign <= 1; sign += 2) {
                for (uint32_t size = 1; size < 60000; size = size * 3 + 1) {
                    uint64_t src = BASE + 20 * PAGE + 123;
                    uint64_t dst = src + sign * distances[i];

                    /* Short ones come in one, two or three odd pieces */
                    for (int k = size < 400 && layout == ODD ? 20 : 1; k; k--) {
                        guest_randomize(src, size);
                        desc_init(raw, IDXD_OP_MEMMOVE, src, dst, size);
                        run_and_judge(raw, cr);
                        g_assert_cmpuint(cr[1], ==,
                                         sign > 0 && distances[i] &&
                                         distances[i] < size);
                    }
                }
            }
        }
    }
}

static void test_delta(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];
    g_autofree uint8_t *old = g_malloc(64 * KiB);
    g_autofree uint8_t *new = g_malloc(64 * KiB);
    g_autofree uint8_t *is = g_malloc(64 * KiB);
    uint64_t a = BASE + 8, b = BASE + 20 * PAGE + 16, r = BASE + 40 * PAGE + 24;

    for (layout = 0; layout < LAYOUTS; layout++) {
        for (int round = 0; round < 60; round++) {
            uint32_t size = 8 * g_test_rand_int_range(1, 64 * KiB / 8);
            int changes = round % 3 ? g_test_rand_int_range(0, 60)
                                    : g_test_rand_int_range(0, size);
            uint32_t record;

            random_bytes(old, size);
            memcpy(new, old, size);
            while (changes--) {
                new[g_test_rand_int_range(0, size)] = g_test_rand_int();
            }
            guest_put(a, old, size);
            guest_put(b, new, size);
            desc_init(raw, IDXD_OP_CREATE_DELTA, a, b, size);
            stq_le_p(raw + IDXD_D_DELTA_ADDR, r);
            stl_le_p(raw + IDXD_D_DELTA_MAX, 100000);
            run_and_judge(raw, cr);
            g_assert_cmpuint(cr[1], ==, !!memcmp(old, new, size));
            record = U32(cr + 16);

            if (record >= 90) {
                /* One entry too little room */
                stl_le_p(raw + IDXD_D_DELTA_MAX, record - 10);
                run_and_judge(raw, cr);
                g_assert_cmpuint(cr[1], ==, 2);
                g_assert_cmpuint(U32(cr + 16), ==, record - 10);
                stl_le_p(raw + IDXD_D_DELTA_MAX, record);
                run_and_judge(raw, cr);
                g_assert_cmpuint(cr[1], ==, 1);
            }
            if (record) {
                desc_init(raw, IDXD_OP_APPLY_DELTA, r, a, size);
                stl_le_p(raw + IDXD_D_DELTA_SIZE, record);
                run_and_judge(raw, cr);
                guest_get(a, is, size);
                g_assert_cmpmem(is, size, new, size);
            }
        }
    }
}

static void put_entry(uint64_t record, int index, uint16_t offset)
{
    uint8_t entry[10] = { offset & 0xff, offset >> 8, 0xd0 + index };

    guest_put(record + 10 * index, entry, 10);
}

static void test_delta_errors(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE], byte;

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_reset(layout);
        put_entry(BASE, 0, 3);
        put_entry(BASE, 1, 4);
        put_entry(BASE, 2, 4);
        desc_init(raw, IDXD_OP_APPLY_DELTA, BASE, BASE + 8 * PAGE, 64);
        stl_le_p(raw + IDXD_D_DELTA_SIZE, 30);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_DELTA_OFFSET_ORDER);
        g_assert_cmpuint(CR_BYTES(cr), ==, 20);
        /* What came before has been applied */
        guest_get(BASE + 8 * PAGE + 32, &byte, 1);
        g_assert_cmphex(byte, ==, 0xd1);

        put_entry(BASE, 2, 8);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_DELTA_OFFSET_RANGE);
        g_assert_cmpuint(CR_BYTES(cr), ==, 20);
        guest_get(BASE + 8 * PAGE + 64, &byte, 1);
        g_assert_cmphex(byte, ==, 0);
        put_entry(BASE, 2, 7);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
        g_assert_cmpuint(CR_BYTES(cr), ==, 0);
    }
}

/* Insert, check, update, check, strip: for each block size and CRC variant */
static void test_dif(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];
    uint64_t a = BASE + 3, b = BASE + 40 * PAGE + 5, c = BASE + 80 * PAGE + 7;
    g_autofree uint8_t *data = g_malloc(20 * 4104);
    g_autofree uint8_t *is = g_malloc(20 * 4104);

    for (layout = 0; layout < LAYOUTS; layout++) {
        for (uint8_t f = 0; f < 16; f++) {
            unsigned block = dif_blocks[f & 3], n = 20;
            uint8_t types = f & 4 ? IDXD_DIF_REF_FIXED | IDXD_DIF_APP_INCREMENT
                                  : 0;

            random_bytes(data, n * block);
            guest_put(a, data, n * block);

            desc_init(raw, IDXD_OP_DIF_INSERT, a, b, n * block);
            raw[IDXD_D_DIF_DST_FLAGS] = types;
            raw[IDXD_D_DIF_FLAGS] = f;
            stl_le_p(raw + 56, 0xfffffff8);
            stw_le_p(raw + 60, 0x00f0);
            stw_le_p(raw + 62, 0xface);
            run_and_judge(raw, cr);
            g_assert_cmphex(U32(cr + 24), ==,
                            0xfffffff8 + (f & 4 ? 0 : n));
            g_assert_cmphex(lduw_le_p(cr + 30), ==, 0xface + (f & 4 ? n : 0));

            desc_init(raw, IDXD_OP_DIF_CHECK, b, 0, n * (block + 8));
            raw[IDXD_D_DIF_SRC_FLAGS] = types;
            raw[IDXD_D_DIF_FLAGS] = f;
            stl_le_p(raw + 48, 0xfffffff8);
            stw_le_p(raw + 52, 0x00f0);
            stw_le_p(raw + 54, 0xface);
            run_and_judge(raw, cr);
            g_assert_cmphex(cr[0], ==, IDXD_ST_SUCCESS);

            raw[7] = IDXD_OP_DIF_UPDATE;
            stq_le_p(raw + 24, c);
            raw[IDXD_D_DIF_DST_FLAGS] = types ^ IDXD_DIF_REF_FIXED;
            stl_le_p(raw + 56, 77);
            stw_le_p(raw + 60, 0);
            stw_le_p(raw + 62, 0x1234);
            run_and_judge(raw, cr);
            g_assert_cmphex(cr[0], ==, IDXD_ST_SUCCESS);

            desc_init(raw, IDXD_OP_DIF_STRIP, c, a, n * (block + 8));
            raw[IDXD_D_DIF_SRC_FLAGS] = types ^ IDXD_DIF_REF_FIXED;
            raw[IDXD_D_DIF_FLAGS] = f;
            stl_le_p(raw + 48, 77);
            stw_le_p(raw + 54, 0x1234);
            run_and_judge(raw, cr);
            g_assert_cmphex(cr[0], ==, IDXD_ST_SUCCESS);
            guest_get(a, is, n * block);
            g_assert_cmpmem(is, n * block, data, n * block);
        }
    }
}

/* A block by hand: the T10 sum of 512 bytes of counting is no own invention */
static void test_dif_layout(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE], block[520];
    static const uint8_t dif[8] = {
        0x00, 0x00, 0xab, 0xcd, 0x01, 0x02, 0x03, 0x04,
    };

    guest_reset(FLAT);
    desc_init(raw, IDXD_OP_DIF_INSERT, BASE, BASE + PAGE, 512);
    stl_le_p(raw + 56, 0x01020304);
    stw_le_p(raw + 62, 0xabcd);
    g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
    guest_get(BASE + PAGE, block, 520);
    g_assert_cmpmem(block + 512, 8, dif, 8);

    /* "123456789" at the end of zeros has its check value, from seed 0 */
    guest_put(BASE + 503, "123456789", 9);
    g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
    guest_get(BASE + PAGE, block, 520);
    g_assert_cmphex(lduw_be_p(block + 512), ==, 0xd0db);
    raw[IDXD_D_DIF_FLAGS] = IDXD_DIF_INVERT_RESULT;
    g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
    guest_get(BASE + PAGE, block, 520);
    g_assert_cmphex(lduw_be_p(block + 512), ==, 0xd0db ^ 0xffff);
}

static void test_dif_errors(void)
{
    static const struct {
        unsigned byte;          /* of the DIF of block 2 that is damaged */
        uint8_t disable;        /* source flag that makes it pass */
        uint16_t mask;          /* application tag mask that makes it pass */
        uint8_t result;
    } damage[] = {
        { 0, IDXD_DIF_GUARD_OFF, 0, IDXD_DIF_BAD_GUARD },
        { 1, IDXD_DIF_GUARD_OFF, 0, IDXD_DIF_BAD_GUARD },
        { 2, 0, 0xff00, IDXD_DIF_BAD_APP },
        { 3, 0, 0x00ff, IDXD_DIF_BAD_APP },
        { 4, IDXD_DIF_REF_OFF, 0, IDXD_DIF_BAD_REF },
        { 7, IDXD_DIF_REF_OFF, 0, IDXD_DIF_BAD_REF },
    };
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE], dif[8];
    uint64_t a = BASE, b = BASE + 8 * PAGE, at = b + 2 * 520 + 512;
    uint8_t f_dif[8];

    guest_reset(PAGED);
    guest_randomize(a, 4 * 512);
    desc_init(raw, IDXD_OP_DIF_INSERT, a, b, 4 * 512);
    stl_le_p(raw + 56, 1000);
    stw_le_p(raw + 62, 0x5a5a);
    run_and_judge(raw, cr);
    guest_get(at, dif, 8);

    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        guest_poke8(at + damage[i].byte, dif[damage[i].byte] ^ 0x42);
        for (int op = IDXD_OP_DIF_CHECK; op <= IDXD_OP_DIF_UPDATE; op++) {
            if (op == IDXD_OP_DIF_INSERT) {
                continue;
            }
            desc_init(raw, op, b,
                      op == IDXD_OP_DIF_CHECK ? 0 : BASE + 16 * PAGE, 4 * 520);
            stl_le_p(raw + 48, 1000);
            stw_le_p(raw + 54, 0x5a5a);
            run_and_judge(raw, cr);
            g_assert_cmphex(cr[0], ==, IDXD_ST_DIF_ERROR);
            g_assert_cmphex(cr[1], ==, damage[i].result);
            g_assert_cmpuint(CR_BYTES(cr), ==, 2 * 520);
            g_assert_cmpuint(U32(cr + 16), ==, 1002);
            raw[IDXD_D_DIF_SRC_FLAGS] = damage[i].disable;
            stw_le_p(raw + 52, damage[i].mask);
            run_and_judge(raw, cr);
            g_assert_cmphex(cr[0], ==, IDXD_ST_SUCCESS);
        }
        guest_poke8(at + damage[i].byte, dif[damage[i].byte]);
    }

    /* F conditions: all 8 bytes, the two tags, the first or second tag alone */
    for (int kind = 0; kind < 4; kind++) {
        memset(f_dif, 0xff, 8);
        f_dif[0] = kind >= 1 ? 0x12 : 0xff;
        f_dif[2] = kind == 3 ? 0x56 : 0xff;
        f_dif[7] = kind == 2 ? 0x34 : 0xff;
        guest_put(at, f_dif, 8);
        for (uint8_t flags = 0; flags < 16; flags++) {
            bool exempt = (kind == 0 && (flags & 2)) ||
                          (kind <= 1 && (flags & 8)) ||
                          (kind <= 2 && (flags & 4));
            bool error = kind == 0 && (flags & 3) == 3;

            desc_init(raw, IDXD_OP_DIF_CHECK, b, 0, 4 * 520);
            stl_le_p(raw + 48, 1000);
            stw_le_p(raw + 54, 0x5a5a);
            raw[IDXD_D_DIF_SRC_FLAGS] = flags;
            run_and_judge(raw, cr);
            g_assert_cmphex(cr[0], ==, exempt && !error ? IDXD_ST_SUCCESS
                                                        : IDXD_ST_DIF_ERROR);
            g_assert_cmphex(cr[1], ==, error ? IDXD_DIF_BAD_ALL_F :
                            exempt ? 0 : IDXD_DIF_BAD_GUARD |
                            IDXD_DIF_BAD_APP | IDXD_DIF_BAD_REF);
        }
    }
}

/* A random descriptor that passes the checks */
static void random_desc(uint8_t *raw)
{
    static const uint8_t ops[] = {
        IDXD_OP_NOOP, IDXD_OP_MEMMOVE, IDXD_OP_FILL, IDXD_OP_COMPARE,
        IDXD_OP_COMPVAL, IDXD_OP_CREATE_DELTA, IDXD_OP_APPLY_DELTA,
        IDXD_OP_DUALCAST, IDXD_OP_CRCGEN, IDXD_OP_COPY_CRC, IDXD_OP_DIF_CHECK,
        IDXD_OP_DIF_INSERT, IDXD_OP_DIF_STRIP, IDXD_OP_DIF_UPDATE,
        IDXD_OP_CFLUSH,
    };
    uint8_t op = ops[g_test_rand_int_range(0, ARRAY_SIZE(ops))];
    /* Three areas of a quarter of the guest each, and mostly short */
    uint32_t area = GUEST_SIZE / 4;
    uint32_t size = g_test_rand_int_range(1, g_test_rand_bit() ? 300 : 40000);
    uint64_t a = BASE + g_test_rand_int_range(0, 9000);
    uint64_t b = BASE + area + g_test_rand_int_range(0, 9000);
    uint64_t c = BASE + 2 * area + g_test_rand_int_range(0, 9000);
    g_autofree uint8_t *buf = g_malloc(size + 8 * PAGE);
    uint32_t n, entries;

    random_bytes(buf, size);
    desc_init(raw, op, a, b, size);

    switch (op) {
    case IDXD_OP_NOOP:
        memset(raw + 16, 0, 20);
        return;
    case IDXD_OP_MEMMOVE:
        if (g_test_rand_bit()) {
            stq_le_p(raw + 24, a + g_test_rand_int_range(0, 9000));
        }
        guest_put(a, buf, size);
        return;
    case IDXD_OP_FILL:
        random_bytes(raw + 16, 8);
        return;
    case IDXD_OP_CFLUSH:
        memset(raw + 16, 0, 8);
        return;
    case IDXD_OP_COMPARE:
        guest_put(a, buf, size);
        if (g_test_rand_bit()) {
            buf[g_test_rand_int_range(0, size)] ^= 4;
        }
        guest_put(b, buf, size);
        break;
    case IDXD_OP_COMPVAL:
        random_bytes(raw + 24, 8);
        for (n = 0; n < size; n++) {
            buf[n] = raw[24 + n % 8];
        }
        if (g_test_rand_bit()) {
            buf[g_test_rand_int_range(0, size)] ^= 4;
        }
        guest_put(a, buf, size);
        break;
    case IDXD_OP_CREATE_DELTA:
        a &= ~7;
        b &= ~7;
        size = ROUND_UP(size, 8);
        desc_init(raw, op, a, b, size);
        stq_le_p(raw + IDXD_D_DELTA_ADDR, c & ~7);
        stl_le_p(raw + IDXD_D_DELTA_MAX, g_test_rand_bit() ?
                 80000 : 80 + 10 * g_test_rand_int_range(0, 100));
        guest_put(a, buf, size);
        for (n = g_test_rand_int_range(0, 200); n; n--) {
            buf[g_test_rand_int_range(0, size)] ^= 4;
        }
        guest_put(b, buf, size);
        if (g_test_rand_bit()) {
            desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CR);
            raw[IDXD_D_DELTA_EXPECTED] = g_test_rand_int_range(0, 8);
        }
        return;
    case IDXD_OP_APPLY_DELTA:
        a &= ~7;
        b &= ~7;
        size = ROUND_UP(size, 8);
        desc_init(raw, op, a, b, size);
        for (n = entries = 0; n < size / 8; n++) {
            if (g_test_rand_bit()) {
                uint8_t entry[10];

                random_bytes(entry, 10);
                stw_le_p(entry, n);
                guest_put(a + 10 * entries++, entry, 10);
            } else if (g_test_rand_bit()) {
                n += 7;
            }
        }
        if (!entries) {
            uint8_t entry[10] = { 0 };

            guest_put(a, entry, 10);
            entries = 1;
        }
        stl_le_p(raw + IDXD_D_DELTA_SIZE, 10 * entries);
        return;
    case IDXD_OP_DUALCAST:
        stq_le_p(raw + IDXD_D_DST2, QEMU_ALIGN_DOWN(c, PAGE) + b % PAGE);
        guest_put(a, buf, size);
        return;
    case IDXD_OP_CRCGEN:
        stq_le_p(raw + 24, 0);
        /* fall through */
    case IDXD_OP_COPY_CRC:
        desc_set_flags(raw, CRAV_RCR | g_test_rand_int_range(0, 8) << 16);
        random_bytes(raw + IDXD_D_CRC_SEED, 4);
        if (desc_flags(raw) & IDXD_FLAG_CRC_READ_SEED) {
            stq_le_p(raw + IDXD_D_CRC_SEED_ADDR, c);
            guest_put(c, raw + IDXD_D_CRC_SEED, 4);
        }
        guest_put(a, buf, size);
        return;
    default: {
        uint8_t f = g_test_rand_int_range(0, 16);
        uint32_t block = dif_blocks[f & 3];
        IDXDDesc desc;
        IDXDOpResult res;

        /* An insert makes the source of the others, some then damaged */
        n = size / 4104 + 1;
        random_bytes(buf, n * block);
        guest_put(a, buf, n * block);
        desc_init(raw, IDXD_OP_DIF_INSERT, a, b, n * block);
        raw[IDXD_D_DIF_DST_FLAGS] = g_test_rand_int_range(0, 16) & 9 ? 0x90 : 0;
        raw[IDXD_D_DIF_FLAGS] = f;
        random_bytes(raw + 56, 8);
        if (op == IDXD_OP_DIF_INSERT) {
            return;
        }
        idxd_desc_decode(&desc, raw);
        idxd_op_run(&env, &desc, &res);
        if (g_test_rand_bit()) {
            guest_poke8(b + g_test_rand_int_range(0, n * (block + 8)), 0xff);
        }
        raw[7] = op;
        stq_le_p(raw + 16, b);
        stq_le_p(raw + 24, op == IDXD_OP_DIF_CHECK ? 0 : c);
        stl_le_p(raw + 32, n * (block + 8));
        memcpy(raw + 48, raw + 56, 8);
        raw[IDXD_D_DIF_SRC_FLAGS] = raw[IDXD_D_DIF_DST_FLAGS];
        if (g_test_rand_bit()) {
            raw[IDXD_D_DIF_SRC_FLAGS] ^= 1 << g_test_rand_int_range(0, 7);
        }
        memset(raw + 56, 0, 8);
        raw[IDXD_D_DIF_DST_FLAGS] = 0;
        if (op == IDXD_OP_DIF_UPDATE) {
            random_bytes(raw + 56, 8);
            raw[IDXD_D_DIF_DST_FLAGS] = g_test_rand_int_range(0, 32) << 3;
        }
        return;
    }
    }
    if (g_test_rand_bit()) {
        desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CR);
        raw[IDXD_D_EXPECTED] = g_test_rand_bit();
    }
}

static unsigned rounds(unsigned quick)
{
    return g_test_slow() ? quick * 10 : quick;
}

static void test_fuzz(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_reset(layout);
        for (unsigned i = 0; i < rounds(1500); i++) {
            /*
             * Some of it may be a device's memory.  As long as nothing of that
             * changes, descriptors may share what they know of it.
             */
            if (i % 16 == 0) {
                window = (IDXDWindow) { .len = 0 };
                env.window = g_test_rand_bit() ? &window : NULL;
                memset(is_io, 0, sizeof(is_io));
                while (g_test_rand_bit()) {
                    is_io[g_test_rand_int_range(0, PAGES)] = true;
                }
            }
            do {
                random_desc(raw);
                /* of which there is none for devices */
            } while (raw[7] == IDXD_OP_CFLUSH);
            run_and_judge(raw, cr);
        }
        env_reset();
        memset(is_io, 0, sizeof(is_io));
    }
}

/* What an earlier descriptor found out spares a later one the question */
static void test_window(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_reset(layout);
        window = (IDXDWindow) { .len = 0 };
        env.window = &window;
        desc_init(raw, IDXD_OP_CRCGEN, BASE + 10, 0, 50);
        run_and_judge(raw, cr);
        translations = 0;
        run_and_judge(raw, cr);
        g_assert_cmpuint(translations, <=, layout == ODD ? 50 : 0);

        /* A fault that is injected comes first, also in what is known */
        env.inject_fault = true;
        env.inject_fault_addr = BASE;
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_PAGE_FAULT);
        env.inject_fault = false;

        /* Neither writes nor other pages are covered by it */
        missing[1] = true;
        desc_init(raw, IDXD_OP_CRCGEN, BASE + 4000, 0, 97);
        window = (IDXDWindow) { .len = 0 };
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmpuint(CR_BYTES(cr), ==, 96);
        missing[1] = false;
        read_only[0] = true;
        desc_init(raw, IDXD_OP_MEMMOVE, BASE + 4000, BASE + 4010, 20);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_HW_ERROR);
        g_assert_cmpuint(CR_BYTES(cr), ==, 0);
        env_reset();
    }
}

static uint64_t ror_bytes(uint64_t value, unsigned bytes)
{
    return ror64(value, bytes % 8 * 8);
}

/*
 * Turn a descriptor that faulted into one for what is left of it, as the
 * record says; false if the record alone cannot tell how.
 */
static bool desc_continue(uint8_t *raw, const uint8_t *cr)
{
    uint32_t done = CR_BYTES(cr), size = U32(raw + 32);
    uint64_t src = ldq_le_p(raw + 16), dst = ldq_le_p(raw + 24);

    stl_le_p(raw + 32, size - done);
    switch (raw[7]) {
    case IDXD_OP_CREATE_DELTA:
        return false;
    case IDXD_OP_APPLY_DELTA:
        stl_le_p(raw + 32, size);
        stq_le_p(raw + 16, src + done);
        stl_le_p(raw + IDXD_D_DELTA_SIZE,
                 U32(raw + IDXD_D_DELTA_SIZE) - done);
        return true;
    case IDXD_OP_MEMMOVE:
        if (cr[1]) {
            return true;
        }
        break;
    case IDXD_OP_FILL:
        stq_le_p(raw + 16, ror_bytes(src, done));
        stq_le_p(raw + 24, dst + done);
        return true;
    case IDXD_OP_COMPVAL:
        stq_le_p(raw + 16, src + done);
        stq_le_p(raw + 24, ror_bytes(dst, done));
        return true;
    case IDXD_OP_DUALCAST:
        stq_le_p(raw + 40, ldq_le_p(raw + 40) + done);
        break;
    case IDXD_OP_CRCGEN:
    case IDXD_OP_COPY_CRC:
        if (!(desc_flags(raw) & IDXD_FLAG_CRC_READ_SEED) ||
            CR_FAULT(cr) - ldq_le_p(raw + IDXD_D_CRC_SEED_ADDR) >= 4) {
            memcpy(raw + IDXD_D_CRC_SEED, cr + 16, 4);
            memset(raw + 48, 0, 8);
            desc_set_flags(raw,
                           desc_flags(raw) & ~IDXD_FLAG_CRC_READ_SEED);
        }
        break;
    case IDXD_OP_DIF_INSERT: {
        unsigned block = dif_blocks[raw[IDXD_D_DIF_FLAGS] & 3];

        stq_le_p(raw + 16, src + done);
        stq_le_p(raw + 24, dst + done / block * (block + 8));
        memcpy(raw + 56, cr + 24, 8);
        return true;
    }
    case IDXD_OP_DIF_STRIP:
    case IDXD_OP_DIF_UPDATE:
    case IDXD_OP_DIF_CHECK: {
        unsigned block = dif_blocks[raw[IDXD_D_DIF_FLAGS] & 3];

        stq_le_p(raw + 16, src + done);
        if (raw[7] == IDXD_OP_DIF_STRIP) {
            stq_le_p(raw + 24, dst + done / (block + 8) * block);
        } else if (raw[7] == IDXD_OP_DIF_UPDATE) {
            stq_le_p(raw + 24, dst + done);
            memcpy(raw + 56, cr + 24, 8);
        }
        memcpy(raw + 48, cr + 16, 8);
        return true;
    }
    default:
        break;
    }
    stq_le_p(raw + 16, src + done);
    stq_le_p(raw + 24, dst + done);
    return true;
}

/*
 * The record of a delta that a fault cut short must be the head of the whole,
 * and the offset reached one from which the rest can be made.
 */
static void assert_delta_head(const uint8_t *raw, const uint8_t *cr,
                              const uint8_t *mem, const uint8_t *whole_cr)
{
    uint64_t at = ldq_le_p(raw + IDXD_D_DELTA_ADDR);
    uint32_t len = U32(cr + 16), whole = U32(whole_cr + 16);
    g_autofree uint8_t *is = g_malloc(len + 1);
    uint32_t next = 8 * lduw_le_p(mem + at - BASE + len);

    g_assert_cmpuint(len, <=, whole);
    g_assert_cmpuint(len % IDXD_DELTA_ENTRY, ==, 0);
    guest_get(at, is, len);
    g_assert_cmpmem(is, len, mem + at - BASE, len);
    if (CR_FAULT(cr) - at < whole) {
        g_assert_cmpuint(len, <, whole);
        g_assert_cmpuint(CR_BYTES(cr), ==, next);
    } else {
        uint64_t src = ldq_le_p(raw + 16), dst = ldq_le_p(raw + 24);
        bool first = CR_FAULT(cr) - src <= CR_BYTES(cr);

        g_assert_cmpuint(CR_BYTES(cr), ==,
                         CR_FAULT(cr) - (first ? src : dst));
        g_assert_true(len == whole || next >= CR_BYTES(cr));
    }
}

/* Somewhere in an operand if there is one, where a descriptor notices */
static unsigned fault_page(const uint8_t *raw, unsigned otherwise)
{
    static const uint8_t fields[] = { 16, 24, 40, 48 };
    uint64_t at = ldq_le_p(raw + fields[g_test_rand_int_range(0, 4)]) - BASE;
    uint32_t size = U32(raw + 32);

    at += g_test_rand_int_range(0, size + 1);
    return at < GUEST_SIZE ? at / PAGE : otherwise;
}

/*
 * A page is missing, or taken away by fault injection: the record must say
 * where, and what it says was done must be done, for going on from there with
 * the page back gives what an undisturbed run gives.
 */
static void test_faults(void)
{
    static uint8_t mem[GUEST_SIZE];
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE], expected[IDXD_CR_SIZE];
    unsigned faults = 0, continued = 0;

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_reset(layout);
        for (unsigned i = 0; i < rounds(3000); i++) {
            unsigned page = g_test_rand_int_range(0, PAGES);
            int how = g_test_rand_int_range(0, 3);
            uint32_t size, total = 0;
            uint8_t code;
            bool going;

            random_desc(raw);
            size = U32(raw + 32);
            page = fault_page(raw, page);
            guest_get(BASE, mem, GUEST_SIZE);
            oracle(raw, mem, expected);

            if (how == 0) {
                env.inject_fault = true;
                env.inject_fault_addr = BASE + page * PAGE + 99;
                if (g_test_rand_bit() && raw[7] != IDXD_OP_NOOP) {
                    env.wq_bof = true;
                    desc_set_flags(raw, desc_flags(raw) | IDXD_FLAG_BOF);
                }
            } else if (how == 1) {
                missing[page] = true;
            } else {
                read_only[page] = true;
            }
            run(raw, cr);
            code = cr[0] & IDXD_ST_CODE_MASK;
            going = true;
            if (code == IDXD_ST_PAGE_FAULT ||
                code == IDXD_ST_PAGE_FAULT_INVALID ||
                code == IDXD_ST_TRANSLATION || code == IDXD_ST_HW_ERROR) {
                faults++;
                g_assert_cmphex((CR_FAULT(cr) - BASE) / PAGE, ==, page);
                switch (how) {
                case 0:
                    g_assert_cmphex(code, ==,
                                    desc_flags(raw) & IDXD_FLAG_BOF ?
                                    IDXD_ST_PAGE_FAULT_INVALID :
                                    IDXD_ST_PAGE_FAULT);
                    break;
                case 1:
                    g_assert_cmphex(cr[0] & IDXD_ST_FAULT_WRITE, ==, 0);
                    break;
                default:
                    g_assert_cmphex(cr[0], ==, IDXD_ST_HW_ERROR);
                    break;
                }
                total = CR_BYTES(cr);
                if (raw[7] == IDXD_OP_APPLY_DELTA) {
                    size = U32(raw + 40);
                }
                g_assert_cmpuint(total, <, size);
                going = desc_continue(raw, cr);
            }
            env_reset();
            missing[page] = read_only[page] = false;
            if (code == IDXD_ST_PAGE_FAULT ||
                code == IDXD_ST_PAGE_FAULT_INVALID ||
                code == IDXD_ST_TRANSLATION || code == IDXD_ST_HW_ERROR) {
                if (!going) {
                    assert_delta_head(raw, cr, mem, expected);
                    continue;
                }
                env.wq_bof = true;
                run_unchecked(raw, cr);
                env.wq_bof = false;
                continued++;
                if (CR_BYTES(cr)) {
                    stl_le_p(cr + 4, CR_BYTES(cr) + total);
                } else if (cr[1] && (raw[7] == IDXD_OP_COMPARE ||
                                     raw[7] == IDXD_OP_COMPVAL ||
                                     cr[0] == IDXD_ST_DIF_ERROR)) {
                    stl_le_p(cr + 4, total);
                }
                /* What was left of a backward copy may overlap no longer */
                if (raw[7] == IDXD_OP_MEMMOVE) {
                    cr[1] = expected[1];
                }
            }
            assert_cr(cr, expected);
            assert_mem(mem);
        }
    }
    g_test_message("%u faults, %u continued", faults, continued);
    g_assert_cmpuint(continued, >, 100);
}

static void test_fault_details(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_reset(layout);

        /* A read: up to the page, whichever operand it is */
        missing[2] = true;
        desc_init(raw, IDXD_OP_COMPARE, BASE + 100, BASE + 8 * PAGE, 5 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmpuint(CR_BYTES(cr), ==, 2 * PAGE - 100);
        g_assert_cmphex(CR_FAULT(cr), ==, BASE + 2 * PAGE);
        g_assert_cmpuint(cr[1], ==, 0);
        desc_init(raw, IDXD_OP_COMPARE, BASE + 8 * PAGE, BASE + 100, 5 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmpuint(CR_BYTES(cr), ==, 2 * PAGE - 100);
        g_assert_cmphex(CR_FAULT(cr), ==, BASE + 2 * PAGE);

        /* A difference before the missing page counts, one behind does not */
        guest_poke8(BASE + 8 * PAGE + 10, 1);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_SUCCESS);
        g_assert_cmpuint(cr[1], ==, 1);
        g_assert_cmpuint(CR_BYTES(cr), ==, 10);
        guest_poke8(BASE + 8 * PAGE + 10, 0);
        guest_poke8(BASE + 8 * PAGE + 2 * PAGE - 100, 1);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);

        /* A write */
        desc_init(raw, IDXD_OP_FILL, 0x55, BASE + PAGE + 1, 5 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_HW_ERROR);
        g_assert_cmpuint(CR_BYTES(cr), ==, PAGE - 1);
        g_assert_cmphex(CR_FAULT(cr), ==, BASE + 2 * PAGE);

        /* Backwards: what is done is done at the end */
        missing[2] = false;
        missing[3] = true;
        guest_randomize(BASE, 3 * PAGE);
        guest_randomize(BASE + 4 * PAGE, 2 * PAGE);
        desc_init(raw, IDXD_OP_MEMMOVE, BASE, BASE + 16, 6 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmpuint(cr[1], ==, 1);
        g_assert_cmpuint(CR_BYTES(cr), ==, 2 * PAGE);
        g_assert_cmphex(CR_FAULT(cr) / PAGE, ==, BASE / PAGE + 3);

        /* Injected */
        missing[3] = false;
        env.inject_fault = true;
        env.inject_fault_addr = BASE + 3 * PAGE;
        desc_init(raw, IDXD_OP_FILL, 0, BASE + 2 * PAGE, 3 * PAGE);
        g_assert_cmphex(run(raw, cr), ==,
                        IDXD_ST_PAGE_FAULT | IDXD_ST_FAULT_WRITE);
        g_assert_cmpuint(CR_BYTES(cr), ==, PAGE);
        desc_init(raw, IDXD_OP_COMPVAL, BASE + 2 * PAGE, 0, 3 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_PAGE_FAULT);
        env.wq_bof = true;
        desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_BOF);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_PAGE_FAULT_INVALID);
        env_reset();

        /* The seed */
        desc_init(raw, IDXD_OP_CRCGEN, BASE, 0, PAGE);
        desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CRC_READ_SEED);
        missing[9] = true;
        stq_le_p(raw + IDXD_D_CRC_SEED_ADDR, BASE + 9 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmphex(CR_FAULT(cr), ==, BASE + 9 * PAGE);
        g_assert_cmpuint(CR_BYTES(cr), ==, 0);

        /* A flush reaches, or says where it does not */
        desc_init(raw, IDXD_OP_CFLUSH, 0, BASE + 7 * PAGE, 3 * PAGE);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmpuint(CR_BYTES(cr), ==, 2 * PAGE);

        /* Beyond the end of all addresses nothing follows, not even page 0 */
        guest_reset(layout);
        for (ends_mapped = false;; ends_mapped = true) {
            uint32_t done = ends_mapped ? 100 : 0;

            desc_init(raw, IDXD_OP_COMPVAL, -100, 0, PAGE);
            g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
            g_assert_cmpuint(CR_BYTES(cr), ==, done);
            desc_init(raw, IDXD_OP_MEMMOVE, BASE, -100, PAGE);
            g_assert_cmphex(run(raw, cr), ==, IDXD_ST_HW_ERROR);
            g_assert_cmpuint(CR_BYTES(cr), ==, done);
            desc_init(raw, IDXD_OP_MEMMOVE, -200, -100, 300);
            g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
            g_assert_cmpuint(CR_BYTES(cr), ==, 0);
            desc_init(raw, IDXD_OP_CFLUSH, 0, -100, PAGE);
            g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
            g_assert_cmpuint(CR_BYTES(cr), ==, done);
            if (ends_mapped) {
                break;
            }
        }
        ends_mapped = false;
    }
}

static void test_io_memory(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];

    for (layout = 0; layout < LAYOUTS; layout++) {
        guest_reset(layout);
        guest_randomize(BASE, 16 * PAGE);
        is_io[1] = is_io[6] = true;
        io_accesses = 0;
        desc_init(raw, IDXD_OP_MEMMOVE, BASE + 50, BASE + 5 * PAGE, 3 * PAGE);
        run_and_judge(raw, cr);
        g_assert_cmpuint(io_accesses, >, 1);

        /* A flush does not touch devices */
        io_accesses = 0;
        desc_init(raw, IDXD_OP_CFLUSH, 0, BASE + PAGE, 10);
        g_assert_cmphex(run(raw, cr), ==, IDXD_ST_TRANSLATION);
        g_assert_cmpuint(io_accesses, ==, 0);
    }
}

/*
 * Checks
 */

static void assert_status(const uint8_t *raw, uint8_t status)
{
    uint32_t passed = IDXD_NONE_PASSED;

    g_assert_cmphex(check(raw, NULL), ==, status);
    if (status == IDXD_ST_BAD_OPCODE || status == IDXD_ST_CR_ALIGN ||
        status == IDXD_ST_INVALID_FLAGS) {
        return;
    }

    /* Behind one whose opcode and flags were the same no less is seen */
    env.passed = &passed;
    g_assert_cmphex(check(raw, NULL), ==, status);
    g_assert_cmphex(passed, ==, ldl_le_p(raw + 4));
    g_assert_cmphex(check(raw, NULL), ==, status);
    env.passed = NULL;
}

static void assert_bad_flags(const uint8_t *raw, uint32_t expected)
{
    uint32_t flags;

    g_assert_cmphex(check(raw, &flags), ==, IDXD_ST_INVALID_FLAGS);
    g_assert_cmphex(flags, ==, expected);
}

#define FLAGS_ALWAYS (IDXD_FLAG_CRAV | IDXD_FLAG_RCR | IDXD_FLAG_RCI | \
                      IDXD_FLAG_CR_TCS)
#define TC1 IDXD_FLAG_ADDR1_TCS
#define TC2 IDXD_FLAG_ADDR2_TCS
#define TC3 IDXD_FLAG_ADDR3_TCS
#define MEM (IDXD_FLAG_FENCE | IDXD_FLAG_BOF)
#define WR  (MEM | IDXD_FLAG_CC | IDXD_FLAG_STORD | IDXD_FLAG_DRDBK)

/* For every operation: flags it takes, bytes it leaves alone, a good example */
static const struct {
    uint8_t opcode;
    const char *name;
    uint32_t flags;
    bool record;
    uint32_t size;
    const char *zero;           /* "first-last" of each reserved range */
} rules[] = {
    { IDXD_OP_NOOP, "noop", IDXD_FLAG_FENCE, false, 0, "16-35 38-63" },
    { IDXD_OP_BATCH, "batch", TC1, false, 2, "24-31 38-63" },
    { IDXD_OP_DRAIN, "drain", 0, false, 0, "16-35 38-63" },
    { IDXD_OP_MEMMOVE, "memmove", WR | TC1 | TC2, false, 64, "38-63" },
    { IDXD_OP_FILL, "fill", WR | TC2, false, 64, "38-63" },
    { IDXD_OP_COMPARE, "compare", MEM | IDXD_FLAG_CR | TC1 | TC2, true, 64,
      "38-39 41-63" },
    { IDXD_OP_COMPVAL, "compval", MEM | IDXD_FLAG_CR | TC1, true, 64,
      "38-39 41-63" },
    { IDXD_OP_CREATE_DELTA, "create-delta",
      WR | IDXD_FLAG_CR | TC1 | TC2 | TC3, true, 64, "38-39 52-55 57-63" },
    { IDXD_OP_APPLY_DELTA, "apply-delta", WR | TC1 | TC2, false, 64,
      "38-39 44-63" },
    { IDXD_OP_DUALCAST, "dualcast", WR | TC1 | TC2 | TC3, false, 64,
      "38-39 48-63" },
    { IDXD_OP_CRCGEN, "crcgen", MEM | TC1 | TC3 | 7 << 16, true, 64,
      "24-31 38-39 44-63" },
    { IDXD_OP_COPY_CRC, "copy-crc", WR | TC1 | TC2 | TC3 | 7 << 16, true, 64,
      "38-39 44-63" },
    { IDXD_OP_DIF_CHECK, "dif-check", MEM | TC1, false, 520,
      "24-31 38-39 41-41 43-47 56-63" },
    { IDXD_OP_DIF_INSERT, "dif-insert", WR | TC1 | TC2, false, 512,
      "38-40 43-55" },
    { IDXD_OP_DIF_STRIP, "dif-strip", WR | TC1 | TC2, false, 520,
      "38-39 41-41 43-47 56-63" },
    { IDXD_OP_DIF_UPDATE, "dif-update", WR | TC1 | TC2, false, 520,
      "38-39 43-47" },
    { IDXD_OP_CFLUSH, "cflush", (WR & ~IDXD_FLAG_CC) | TC2, false, 64,
      "16-23 38-63" },
};

static bool must_be_zero(const char *ranges, unsigned byte)
{
    g_auto(GStrv) list = g_strsplit(ranges, " ", 0);

    for (char **p = list; *p; p++) {
        unsigned first, last;

        g_assert_cmpint(sscanf(*p, "%u-%u", &first, &last), ==, 2);
        if (byte >= first && byte <= last) {
            return true;
        }
    }
    return false;
}

static void rule_example(uint8_t *raw, unsigned rule)
{
    const char *zero = rules[rule].zero;

    desc_init(raw, rules[rule].opcode,
              must_be_zero(zero, 16) ? 0 : BASE,
              must_be_zero(zero, 24) ? 0 : BASE + 8 * PAGE, rules[rule].size);
    switch (rules[rule].opcode) {
    case IDXD_OP_CREATE_DELTA:
        stq_le_p(raw + IDXD_D_DELTA_ADDR, BASE + 16 * PAGE);
        stl_le_p(raw + IDXD_D_DELTA_MAX, 80);
        break;
    case IDXD_OP_APPLY_DELTA:
        stl_le_p(raw + IDXD_D_DELTA_SIZE, 10);
        break;
    case IDXD_OP_DUALCAST:
        stq_le_p(raw + IDXD_D_DST2, BASE + 16 * PAGE);
        break;
    }
}

static void test_check_opcodes(void)
{
    uint8_t raw[IDXD_DESC_SIZE];
    unsigned known = 0;

    env_reset();
    for (unsigned op = 0; op < 256; op++) {
        bool exists = false;

        for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
            if (rules[i].opcode == op) {
                g_assert_cmpstr(idxd_op_name(op), ==, rules[i].name);
                exists = true;
                known++;

                rule_example(raw, i);
                assert_status(raw, IDXD_ST_NONE);
                env.op_cap[0] = OP_CAP & ~(1ull << op);
                assert_status(raw, IDXD_ST_BAD_OPCODE);
                env_reset();
                env.in_batch = true;
                assert_status(raw, op == IDXD_OP_BATCH || op == IDXD_OP_DRAIN ?
                              IDXD_ST_BAD_OPCODE : IDXD_ST_NONE);
                env_reset();
            }
        }
        if (!exists) {
            /* Not even if the capability claims it */
            memset(env.op_cap, 0xff, sizeof(env.op_cap));
            desc_init(raw, op, BASE, BASE + PAGE, 64);
            assert_status(raw, IDXD_ST_BAD_OPCODE);
            g_assert_null(idxd_op_name(op));
            env_reset();
        }
    }
    g_assert_cmpuint(known, ==, 17);
}

static void test_check_flags(void)
{
    uint8_t raw[IDXD_DESC_SIZE];

    env_reset();
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        uint8_t op = rules[i].opcode;
        bool batchable = op != IDXD_OP_BATCH && op != IDXD_OP_DRAIN;

        for (int bit = 0; bit < 24; bit++) {
            uint32_t flag = 1u << bit;
            bool good = (rules[i].flags | FLAGS_ALWAYS) & flag;

            rule_example(raw, i);
            desc_set_flags(raw, CRAV_RCR | flag);
            /* A queue with everything on, in a batch where that is possible */
            env.in_batch = batchable;
            env.wq_bof = true;
            if (good) {
                assert_status(raw, IDXD_ST_NONE);
            } else {
                assert_bad_flags(raw, flag);
            }
            env_reset();
            if (flag & (IDXD_FLAG_FENCE | IDXD_FLAG_BOF)) {
                assert_bad_flags(raw, flag);
            }
            env.gen_cap = 0;
            if (flag & (IDXD_FLAG_CC | IDXD_FLAG_DRDBK)) {
                assert_bad_flags(raw, flag);
            }
            env_reset();
        }

        /* All wrong ones are named at once */
        rule_example(raw, i);
        desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CRSTS |
                       IDXD_FLAG_RESERVED6 | IDXD_FLAG_DSTS | 0x800000);
        assert_bad_flags(raw, IDXD_FLAG_CRSTS | IDXD_FLAG_RESERVED6 |
                         IDXD_FLAG_DSTS | 0x800000);

        /* No record */
        desc_set_flags(raw, op == IDXD_OP_DRAIN ? IDXD_FLAG_RCI : 0);
        if (rules[i].record) {
            assert_bad_flags(raw, CRAV_RCR);
            desc_set_flags(raw, IDXD_FLAG_CRAV);
            assert_bad_flags(raw, IDXD_FLAG_RCR);
        } else {
            assert_status(raw, IDXD_ST_NONE);
        }
        /* A record without an address */
        desc_set_flags(raw, IDXD_FLAG_RCR);
        assert_bad_flags(raw, IDXD_FLAG_CRAV);
    }

    desc_init(raw, IDXD_OP_DRAIN, 0, 0, 0);
    desc_set_flags(raw, IDXD_FLAG_CRAV);
    assert_bad_flags(raw, IDXD_FLAG_RCR | IDXD_FLAG_RCI);
    desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_DRAIN_RDBK1);
    assert_bad_flags(raw, IDXD_FLAG_DRAIN_RDBK1);
    env.gen_cap |= IDXD_GENCAP_DRAIN_RDBK;
    assert_status(raw, IDXD_ST_NONE);
    stq_le_p(raw + 16, BASE);
    assert_status(raw, IDXD_ST_NONE);
    stq_le_p(raw + 24, BASE);
    assert_status(raw, IDXD_ST_RESERVED_FIELD);
    env_reset();

    desc_init(raw, IDXD_OP_CFLUSH, 0, BASE, 64);
    desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CC);
    assert_bad_flags(raw, IDXD_FLAG_CC);
    env.gen_cap |= IDXD_GENCAP_CC_CACHE;
    assert_status(raw, IDXD_ST_NONE);
    env_reset();
}

static void test_check_reserved(void)
{
    uint8_t raw[IDXD_DESC_SIZE];

    env_reset();
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        for (unsigned byte = 16; byte < 64; byte++) {
            rule_example(raw, i);
            if (must_be_zero(rules[i].zero, byte)) {
                for (int bit = 0; bit < 8; bit++) {
                    raw[byte] = 1 << bit;
                    assert_status(raw, IDXD_ST_RESERVED_FIELD);
                }
            } else {
                /* May be wrong in other ways, not in this one */
                raw[byte] ^= 1;
                if (!(rules[i].opcode == IDXD_OP_DIF_INSERT && byte == 41) &&
                    !(rules[i].opcode == IDXD_OP_DIF_UPDATE && byte == 41)) {
                    g_assert_cmphex(check(raw, NULL), !=,
                                    IDXD_ST_RESERVED_FIELD);
                }
            }
        }
        for (int bit = 20; bit <= 31; bit++) {
            rule_example(raw, i);
            stl_le_p(raw, 1u << bit);
            assert_status(raw, bit == 31 ? IDXD_ST_NONE
                                         : IDXD_ST_RESERVED_FIELD);
        }
        for (int bit = 0; bit < 8; bit++) {
            bool good;

            switch (rules[i].opcode) {
            case IDXD_OP_COMPARE:
            case IDXD_OP_COMPVAL:
                rule_example(raw, i);
                raw[40] = 1 << bit;
                assert_status(raw, bit ? IDXD_ST_RESERVED_FIELD
                                       : IDXD_ST_NONE);
                break;
            case IDXD_OP_CREATE_DELTA:
                rule_example(raw, i);
                raw[56] = 1 << bit;
                assert_status(raw, bit > 2 ? IDXD_ST_RESERVED_FIELD
                                           : IDXD_ST_NONE);
                break;
            case IDXD_OP_DIF_INSERT:
            case IDXD_OP_DIF_UPDATE:
                rule_example(raw, i);
                raw[41] = 1 << bit;
                good = bit == 4 || bit == 7 ||
                       (rules[i].opcode == IDXD_OP_DIF_UPDATE && bit >= 3);
                assert_status(raw, good ? IDXD_ST_NONE
                                        : IDXD_ST_RESERVED_FIELD);
                /* fall through */
            case IDXD_OP_DIF_CHECK:
            case IDXD_OP_DIF_STRIP:
                if (bit >= 2) {
                    rule_example(raw, i);
                    raw[42] = 1 << bit;
                    assert_status(raw, bit >= 4 ? IDXD_ST_RESERVED_FIELD
                                                : IDXD_ST_NONE);
                }
                break;
            }
        }
    }
    /* The seed's address belongs to a flag */
    desc_init(raw, IDXD_OP_CRCGEN, BASE, 0, 64);
    stq_le_p(raw + IDXD_D_CRC_SEED_ADDR, BASE);
    assert_status(raw, IDXD_ST_RESERVED_FIELD);
    desc_set_flags(raw, CRAV_RCR | IDXD_FLAG_CRC_READ_SEED);
    assert_status(raw, IDXD_ST_NONE);
    raw[56] = 1;
    assert_status(raw, IDXD_ST_RESERVED_FIELD);
}

static void test_check_sizes(void)
{
    uint8_t raw[IDXD_DESC_SIZE];

    env_reset();
    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        uint8_t op = rules[i].opcode;

        if (op == IDXD_OP_NOOP || op == IDXD_OP_DRAIN || op == IDXD_OP_BATCH) {
            continue;
        }
        rule_example(raw, i);
        stl_le_p(raw + 32, 0);
        assert_status(raw, IDXD_ST_XFER_SIZE);
        rule_example(raw, i);
        env.max_xfer = rules[i].size - 1;
        assert_status(raw, IDXD_ST_XFER_SIZE);
        if (op != IDXD_OP_CREATE_DELTA) {
            env.max_xfer = rules[i].size;
            assert_status(raw, IDXD_ST_NONE);
        }
        env_reset();
    }

    /* Batches: 2 to the limit, 1 only where the capability says so */
    desc_init(raw, IDXD_OP_BATCH, BASE, 0, 1);
    assert_status(raw, IDXD_ST_DESC_COUNT);
    env.gen_cap |= IDXD_GENCAP_BATCH1;
    assert_status(raw, IDXD_ST_NONE);
    stl_le_p(raw + 32, 0);
    assert_status(raw, IDXD_ST_DESC_COUNT);
    stl_le_p(raw + 32, 32);
    assert_status(raw, IDXD_ST_NONE);
    stl_le_p(raw + 32, 33);
    assert_status(raw, IDXD_ST_DESC_COUNT);
    env_reset();
    desc_init(raw, IDXD_OP_BATCH, BASE + 32, 0, 2);
    assert_status(raw, IDXD_ST_DESC_LIST_ALIGN);

    /* Completion record */
    desc_init(raw, IDXD_OP_NOOP, 0, 0, 0);
    stq_le_p(raw + 8, 0x1010);
    assert_status(raw, IDXD_ST_CR_ALIGN);
    desc_set_flags(raw, 0);
    assert_status(raw, IDXD_ST_NONE);

    /* Delta records */
    rule_example(raw, 7);
    g_assert_cmpuint(raw[7], ==, IDXD_OP_CREATE_DELTA);
    stl_le_p(raw + 32, 60);
    assert_status(raw, IDXD_ST_XFER_SIZE);
    stl_le_p(raw + 32, 512 * KiB);
    stq_le_p(raw + 24, BASE + 1024 * KiB);
    stq_le_p(raw + 40, BASE + 2048 * KiB);
    assert_status(raw, IDXD_ST_NONE);
    stl_le_p(raw + 32, 512 * KiB + 8);
    assert_status(raw, IDXD_ST_XFER_SIZE);
    for (int byte = 16; byte <= 40; byte += byte == 16 ? 8 : 16) {
        rule_example(raw, 7);
        raw[byte] += 4;
        assert_status(raw, IDXD_ST_ADDR_ALIGN);
    }
    rule_example(raw, 7);
    stl_le_p(raw + IDXD_D_DELTA_MAX, 70);
    assert_status(raw, IDXD_ST_DELTA_RECORD_SIZE);
    stl_le_p(raw + IDXD_D_DELTA_MAX, 85);
    assert_status(raw, IDXD_ST_DELTA_RECORD_SIZE);
    stl_le_p(raw + IDXD_D_DELTA_MAX, 2 * MiB + 8);
    assert_status(raw, IDXD_ST_DELTA_RECORD_SIZE);
    for (int byte = 16; byte <= 24; byte += 8) {
        rule_example(raw, 7);
        stq_le_p(raw + IDXD_D_DELTA_ADDR, ldq_le_p(raw + byte) - 72);
        assert_status(raw, IDXD_ST_OVERLAP);
        stq_le_p(raw + IDXD_D_DELTA_ADDR, ldq_le_p(raw + byte) - 80);
        assert_status(raw, IDXD_ST_NONE);
    }

    rule_example(raw, 8);
    g_assert_cmpuint(raw[7], ==, IDXD_OP_APPLY_DELTA);
    stl_le_p(raw + IDXD_D_DELTA_SIZE, 0);
    assert_status(raw, IDXD_ST_DELTA_RECORD_SIZE);
    stl_le_p(raw + IDXD_D_DELTA_SIZE, 15);
    assert_status(raw, IDXD_ST_DELTA_RECORD_SIZE);
    stl_le_p(raw + IDXD_D_DELTA_SIZE, 80);
    stq_le_p(raw + 24, BASE + 72);
    assert_status(raw, IDXD_ST_OVERLAP);
    stq_le_p(raw + 24, BASE + 80);
    assert_status(raw, IDXD_ST_NONE);
    stq_le_p(raw + 24, BASE + 84);
    assert_status(raw, IDXD_ST_ADDR_ALIGN);

    /* Dualcast */
    rule_example(raw, 9);
    g_assert_cmpuint(raw[7], ==, IDXD_OP_DUALCAST);
    stq_le_p(raw + IDXD_D_DST2, BASE + 16 * PAGE + 1);
    assert_status(raw, IDXD_ST_DUALCAST_ALIGN);
    stq_le_p(raw + IDXD_D_DST2, BASE + 8 * PAGE);
    assert_status(raw, IDXD_ST_OVERLAP);
    stq_le_p(raw + IDXD_D_DST2, BASE);
    assert_status(raw, IDXD_ST_OVERLAP);
    stq_le_p(raw + 24, BASE + PAGE);
    stq_le_p(raw + 16, BASE + PAGE - 63);
    stq_le_p(raw + IDXD_D_DST2, BASE + 16 * PAGE);
    assert_status(raw, IDXD_ST_OVERLAP);

    /* Copies */
    desc_init(raw, IDXD_OP_COPY_CRC, BASE, BASE + 63, 64);
    assert_status(raw, IDXD_ST_OVERLAP);
    stq_le_p(raw + 24, BASE + 64);
    assert_status(raw, IDXD_ST_NONE);
    desc_init(raw, IDXD_OP_MEMMOVE, BASE, BASE + 63, 64);
    assert_status(raw, IDXD_ST_NONE);
    env.gen_cap &= ~IDXD_GENCAP_OVERLAP;
    assert_status(raw, IDXD_ST_OVERLAP);
    stq_le_p(raw + 24, BASE - 63);
    assert_status(raw, IDXD_ST_OVERLAP);
    stq_le_p(raw + 24, BASE - 64);
    assert_status(raw, IDXD_ST_NONE);
    env_reset();

    /* DIF: whole blocks, and both sides apart by what they are long */
    for (unsigned f = 0; f < 4; f++) {
        desc_init(raw, IDXD_OP_DIF_INSERT, BASE, BASE - 2 * dif_blocks[f] - 16,
                  2 * dif_blocks[f]);
        raw[IDXD_D_DIF_FLAGS] = f;
        assert_status(raw, IDXD_ST_NONE);
        stq_le_p(raw + 24, BASE - 2 * dif_blocks[f] - 15);
        assert_status(raw, IDXD_ST_OVERLAP);
        stl_le_p(raw + 32, 2 * dif_blocks[f] + 8);
        assert_status(raw, IDXD_ST_XFER_SIZE);
        for (int op = IDXD_OP_DIF_STRIP; op <= IDXD_OP_DIF_UPDATE; op++) {
            uint32_t out = op == IDXD_OP_DIF_STRIP ? 2 * dif_blocks[f]
                                                   : 2 * dif_blocks[f] + 16;

            desc_init(raw, op, BASE, BASE - out, 2 * dif_blocks[f] + 16);
            raw[IDXD_D_DIF_FLAGS] = f;
            assert_status(raw, IDXD_ST_NONE);
            stq_le_p(raw + 24, BASE - out + 1);
            assert_status(raw, IDXD_ST_OVERLAP);
            stl_le_p(raw + 32, 2 * dif_blocks[f]);
            assert_status(raw, IDXD_ST_XFER_SIZE);
        }
    }
}

static void test_bytes(void)
{
    static const struct {
        uint8_t opcode;
        uint64_t reads, writes;
    } bytes[] = {
        { IDXD_OP_NOOP, 0, 0 }, { IDXD_OP_DRAIN, 0, 0 },
        { IDXD_OP_BATCH, 128, 0 }, { IDXD_OP_MEMMOVE, 64, 64 },
        { IDXD_OP_FILL, 0, 64 }, { IDXD_OP_COMPARE, 128, 0 },
        { IDXD_OP_COMPVAL, 64, 0 }, { IDXD_OP_CREATE_DELTA, 128, 0 },
        { IDXD_OP_APPLY_DELTA, 10, 8 }, { IDXD_OP_DUALCAST, 64, 128 },
        { IDXD_OP_CRCGEN, 64, 0 }, { IDXD_OP_COPY_CRC, 64, 64 },
        { IDXD_OP_DIF_CHECK, 520, 0 }, { IDXD_OP_DIF_INSERT, 512, 520 },
        { IDXD_OP_DIF_STRIP, 520, 512 }, { IDXD_OP_DIF_UPDATE, 520, 520 },
        { IDXD_OP_CFLUSH, 0, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rules); i++) {
        uint8_t raw[IDXD_DESC_SIZE];
        IDXDDesc desc;

        rule_example(raw, i);
        idxd_desc_decode(&desc, raw);
        for (unsigned k = 0; k < ARRAY_SIZE(bytes); k++) {
            if (bytes[k].opcode == desc.opcode) {
                g_assert_cmpuint(idxd_op_read_bytes(&desc), ==,
                                 bytes[k].reads);
                g_assert_cmpuint(idxd_op_write_bytes(&desc), ==,
                                 bytes[k].writes);
            }
        }
    }
}

static void test_decode(void)
{
    uint8_t raw[IDXD_DESC_SIZE], cr[IDXD_CR_SIZE];
    IDXDDesc desc;
    IDXDOpResult res = {
        .status = 0x83, .result = 1, .fault_info = 2,
        .bytes_completed = 0x04030201, .fault_addr = 0x1817161514131211ull,
        .specific = "0123456789abcde",
    };
    static const uint8_t expected[IDXD_CR_SIZE] = {
        0x83, 1, 2, 0, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
        0x18, '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c',
        'd', 'e', 0,
    };

    for (int i = 0; i < IDXD_DESC_SIZE; i++) {
        raw[i] = 0x81 + i;
    }
    idxd_desc_decode(&desc, raw);
    g_assert_cmphex(desc.pasid, ==, 0x38281);
    g_assert_true(desc.priv);
    g_assert_cmphex(desc.flags, ==, 0x878685);
    g_assert_cmphex(desc.opcode, ==, 0x88);
    g_assert_cmphex(desc.completion_addr, ==, 0x908f8e8d8c8b8a89ull);
    g_assert_cmphex(desc.src, ==, 0x9897969594939291ull);
    g_assert_cmphex(desc.dst, ==, 0xa09f9e9d9c9b9a99ull);
    g_assert_cmphex(desc.size, ==, 0xa4a3a2a1);
    g_assert_cmphex(desc.int_handle, ==, 0xa6a5);
    g_assert_cmpmem(desc.raw, IDXD_DESC_SIZE, raw, IDXD_DESC_SIZE);

    idxd_completion_encode(cr, &res);
    assert_cr(cr, expected);
}

/*
 * Cost of a descriptor, against the plain function on the same memory
 */

/* Results go here, so that the compiler cannot leave out what makes them */
static volatile uint64_t sink;

/* The best of some rounds, in nanoseconds: other load only ever adds */
#define TIMED(calls, statement) ({ \
    double best_ = 1e9; \
    for (int round_ = 0; round_ < 15; round_++) { \
        int64_t start_ = get_clock(); \
        for (int i = 0; i < (calls); i++) { \
            statement; \
        } \
        best_ = MIN(best_, (double)(get_clock() - start_) / (calls)); \
    } \
    best_; \
})

static uint64_t desc_whole(const uint8_t *raw)
{
    uint8_t cr[IDXD_CR_SIZE];
    IDXDDesc desc;
    IDXDOpResult res;

    idxd_desc_decode(&desc, raw);
    if (idxd_op_check(&env, &desc, &res)) {
        idxd_op_run(&env, &desc, &res);
    }
    idxd_completion_encode(cr, &res);
    return cr[0];
}

static double time_desc(uint8_t opcode, unsigned calls, unsigned pages)
{
    g_autofree uint8_t *raw = g_malloc(pages * IDXD_DESC_SIZE);

    /* As in a batch */
    RCU_READ_LOCK_GUARD();
    window = (IDXDWindow) { .len = 0 };
    env.window = &window;
    for (unsigned page = 0; page < pages; page++) {
        desc_init(raw + page * IDXD_DESC_SIZE, opcode, BASE + page * PAGE,
                  opcode == IDXD_OP_COMPARE ? BASE + (page + pages) * PAGE : 0,
                  PAGE);
    }
    return TIMED(calls, sink += desc_whole(raw + i % pages * IDXD_DESC_SIZE));
}

/* Equal pages, from sets that fit the first, second, last cache, or none */
static void test_perf(void)
{
    static const unsigned sets[] = { 1, 32, 1024, 16384 };

    env_reset();
    for (size_t k = 0; k < ARRAY_SIZE(sets); k++) {
        unsigned pages = sets[k];
        unsigned calls = MAX(pages, 4096);
        g_autofree uint8_t *ram = g_malloc(2 * (size_t)pages * PAGE);
        double memcmp_ns, crc_ns, qemu_ns, compare, crcgen;

        memset(ram, 0x5a, 2 * (size_t)pages * PAGE);
        all_ram = 2 * (hwaddr)pages * PAGE;
        flat_mr.ram_block = (RAMBlock *)ram;

        memcmp_ns = TIMED(calls,
                          sink += memcmp(ram + i % pages * PAGE,
                                         ram + (i % pages + pages) * PAGE,
                                         PAGE));
        compare = time_desc(IDXD_OP_COMPARE, calls, pages);
        crc_ns = TIMED(calls, sink += idxd_crc32c(-1, ram + i % pages * PAGE,
                                                  PAGE));
        crcgen = time_desc(IDXD_OP_CRCGEN, calls, pages);
        qemu_ns = TIMED(256, sink += crc32c(-1, ram + i % pages * PAGE, PAGE));

        g_test_message("%u pages: compare %.0f ns, memcmp %.0f ns (%.2f); "
                       "crcgen %.0f ns, fastest crc32c %.0f ns (%.2f), "
                       "util/crc32c.c %.0f ns (%.2f)", pages,
                       compare, memcmp_ns, compare / memcmp_ns,
                       crcgen, crc_ns, crcgen / crc_ns,
                       qemu_ns, crcgen / qemu_ns);
    }
    all_ram = 0;
    flat_mr.ram_block = (RAMBlock *)flat;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    guest_init();
    env_reset();

    g_test_add_func("/idxd-ops/decode", test_decode);
    g_test_add_func("/idxd-ops/check/opcodes", test_check_opcodes);
    g_test_add_func("/idxd-ops/check/flags", test_check_flags);
    g_test_add_func("/idxd-ops/check/reserved", test_check_reserved);
    g_test_add_func("/idxd-ops/check/sizes", test_check_sizes);
    g_test_add_func("/idxd-ops/bytes", test_bytes);
    g_test_add_func("/idxd-ops/crc/functions", test_crc_functions);
    g_test_add_func("/idxd-ops/crc/vectors", test_crc_vectors);
    g_test_add_func("/idxd-ops/crc/flags", test_crc_flags);
    g_test_add_func("/idxd-ops/compare", test_compare);
    g_test_add_func("/idxd-ops/compval", test_compval);
    g_test_add_func("/idxd-ops/check-result", test_check_result);
    g_test_add_func("/idxd-ops/memmove", test_memmove);
    g_test_add_func("/idxd-ops/delta/round-trip", test_delta);
    g_test_add_func("/idxd-ops/delta/errors", test_delta_errors);
    g_test_add_func("/idxd-ops/dif/round-trip", test_dif);
    g_test_add_func("/idxd-ops/dif/layout", test_dif_layout);
    g_test_add_func("/idxd-ops/dif/errors", test_dif_errors);
    g_test_add_func("/idxd-ops/io-memory", test_io_memory);
    g_test_add_func("/idxd-ops/fault/details", test_fault_details);
    g_test_add_func("/idxd-ops/fault/continue", test_faults);
    g_test_add_func("/idxd-ops/window", test_window);
    g_test_add_func("/idxd-ops/fuzz", test_fuzz);
    if (g_test_perf()) {
        g_test_add_func("/idxd-ops/perf", test_perf);
    }
    return g_test_run();
}
