/*
 * Intel Data Streaming Accelerator: the operations
 *
 * Follows the Intel DSA architecture specification (341204) for version 1.0 of
 * the device.  Where it leaves a choice, or where only real parts could tell,
 * the rule taken here stands in a comment that begins with "Choice:".
 *
 * Guest memory is used in place.  A descriptor may name 2 GiB and any address:
 * nothing is allocated by its size, and no address is believed before the
 * device's address space, with whatever IOMMU stands before it, translated it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "qemu/rcu.h"
#include "hw/dma/idxd-ops.h"
#include "hw/dma/idxd-crc.h"

/*
 * Builds initialise all automatic variables; for staging buffers of some KiB
 * that would cost more than most operations.
 */
#ifndef QEMU_UNINITIALIZED
#if __has_attribute(uninitialized)
#define QEMU_UNINITIALIZED  __attribute__((uninitialized))
#else
#define QEMU_UNINITIALIZED
#endif
#endif

/* The granule of address translation, and what is staged at once */
#define PAGE                4096

/*
 * Operations that read their source twice do so in pieces that stay in the
 * host's cache between the two.
 */
#define PIECE               (32 * 1024)

#define DELTA_STAGED        400     /* entries: just below a page */

/* A descriptor's way to memory; remembers the first access that failed */
typedef struct Access {
    const IDXDOpEnv *env;
    bool bof;
    uint8_t status;             /* IDXD_ST_NONE: no access failed */
    hwaddr fault_addr;
} Access;

/*
 * Choice: without PASID and ATS the device has no page faults, and a posted
 * write that the IOMMU refused goes unnoticed in hardware.  Software that is
 * developed on a simulator is better off knowing, so a refused read ends the
 * operation with "address translation failed" and a refused write with
 * "hardware error", both with the address in the completion record.
 */
static void access_fail(Access *acc, hwaddr addr, bool is_write)
{
    if (acc->status == IDXD_ST_NONE) {
        acc->status = is_write ? IDXD_ST_HW_ERROR : IDXD_ST_TRANSLATION;
        acc->fault_addr = addr;
    }
}

static void access_page_fault(Access *acc, hwaddr addr, bool is_write)
{
    if (acc->status == IDXD_ST_NONE) {
        acc->status = (acc->bof ? IDXD_ST_PAGE_FAULT_INVALID
                                : IDXD_ST_PAGE_FAULT) |
                      (is_write ? IDXD_ST_FAULT_WRITE : 0);
        acc->fault_addr = addr;
    }
}

/*
 * How many of the @len bytes at @base + @off can be tried: up to the end of
 * the address space or to the page that fault injection took away.  0: none,
 * the access has failed.
 */
static hwaddr access_limit(Access *acc, hwaddr base, hwaddr off, hwaddr len,
                           bool is_write)
{
    hwaddr addr = base + off;

    if (unlikely(addr < base)) {
        access_fail(acc, addr, is_write);
        return 0;
    }
    if (unlikely(len - 1 > HWADDR_MAX - addr)) {
        len = HWADDR_MAX - addr + 1;
    }
    if (unlikely(acc->env->inject_fault)) {
        hwaddr page = QEMU_ALIGN_DOWN(acc->env->inject_fault_addr, PAGE);

        if (addr - page < PAGE) {
            access_page_fault(acc, addr, is_write);
            return 0;
        }
        len = MIN(len, page - addr);
    }
    return len;
}

static hwaddr to_page_end(hwaddr addr)
{
    return PAGE - addr % PAGE;
}

/* What peek() does outside of the window */
static const uint8_t *peek_translated(Access *acc, hwaddr base, hwaddr off,
                                      hwaddr *len, uint8_t *bounce)
{
    const IDXDOpEnv *env = acc->env;
    IDXDWindow *window = env->window;
    hwaddr addr = base + off;
    hwaddr n = access_limit(acc, base, off, *len, false);
    hwaddr there = n;
    MemoryRegion *mr;
    hwaddr xlat;

    if (unlikely(!n)) {
        return NULL;
    }
    if (window) {
        there = HWADDR_MAX - addr;      /* as far as it goes */
        there = MAX(there, n);
    }
    mr = address_space_translate(env->as, addr, &xlat, &there, false,
                                 env->attrs);
    n = MIN(n, there);
    if (likely(memory_access_is_direct(mr, false, env->attrs))) {
        const uint8_t *host = (const uint8_t *)memory_region_get_ram_ptr(mr) +
                              xlat;

        if (window) {
            *window = (IDXDWindow) { addr, there, host };
        }
        *len = n;
        return host;
    }
    n = MIN(n, to_page_end(addr));
    if (address_space_read_full(env->as, addr, env->attrs, bounce, n)) {
        access_fail(acc, addr, false);
        return NULL;
    }
    *len = n;
    return bounce;
}

/*
 * Read guest memory: some bytes from @base + @off, at least one and at most
 * *@len.  RAM is returned in place and stays valid while the RCU read lock is
 * held; anything else is read into @bounce, which takes MIN(*@len, PAGE) bytes.
 * NULL: the access failed.
 */
static inline const uint8_t *peek(Access *acc, hwaddr base, hwaddr off,
                                  hwaddr *len, uint8_t *bounce)
{
    const IDXDWindow *window = acc->env->window;
    hwaddr addr = base + off;

    if (likely(window && addr - window->addr < window->len && addr >= base &&
               !acc->env->inject_fault)) {
        *len = MIN(*len, window->len - (addr - window->addr));
        return window->host + (addr - window->addr);
    }
    return peek_translated(acc, base, off, len, bounce);
}

/* Like peek(), but all of the @len bytes or nothing; @buf takes them */
static const uint8_t *gather(Access *acc, hwaddr base, hwaddr off, size_t len,
                             uint8_t *buf)
{
    hwaddr n = len;
    const uint8_t *p = peek(acc, base, off, &n, buf);
    size_t got = 0;

    if (!p || n == len) {
        return p;
    }
    for (;;) {
        if (p != buf + got) {
            memcpy(buf + got, p, n);
        }
        got += n;
        if (got == len) {
            return buf;
        }
        n = len - got;
        p = peek(acc, base, off + got, &n, buf + got);
        if (!p) {
            return NULL;
        }
    }
}

/* Write guest memory; returns how many bytes arrived before one did not */
static hwaddr poke(Access *acc, hwaddr base, hwaddr off, const uint8_t *buf,
                   hwaddr len)
{
    const IDXDOpEnv *env = acc->env;
    hwaddr done = 0;

    while (done < len) {
        hwaddr addr = base + off + done;
        hwaddr n = access_limit(acc, base, off + done, len - done, true);
        MemoryRegion *mr;
        hwaddr xlat;

        if (!n) {
            break;
        }
        /* Only as far as one answer holds for all the bytes */
        mr = address_space_translate(env->as, addr, &xlat, &n, true,
                                     env->attrs);
        if (!memory_access_is_direct(mr, true, env->attrs)) {
            n = MIN(n, to_page_end(addr));
        }
        if (address_space_write(env->as, addr, env->attrs, buf + done, n)) {
            access_fail(acc, addr, true);
            break;
        }
        done += n;
    }
    return done;
}

/*
 * The offset of the first byte that differs, @len if none does.  Guest CPUs may
 * write at the same time: a difference that is gone when looked at closer is
 * none.
 */
static inline size_t first_difference(const uint8_t *a, const uint8_t *b,
                                      size_t len)
{
    size_t i = 0;

    while (i < len) {
        size_t end = i + MIN(len - i, PAGE);

        if (likely(!memcmp(a + i, b + i, end - i))) {
            i = end;
            continue;
        }
        /* Halve the piece until a look at each word is cheaper */
        while (end - i > 64) {
            size_t half = (end - i) / 2;

            if (memcmp(a + i, b + i, half)) {
                end = i + half;
            } else {
                i += half;
            }
        }
        for (; end - i >= 8; i += 8) {
            uint64_t diff = ldq_le_p(a + i) ^ ldq_le_p(b + i);

            if (diff) {
                return i + ctz64(diff) / 8;
            }
        }
        for (; i < end; i++) {
            if (a[i] != b[i]) {
                return i;
            }
        }
    }
    return len;
}

/*
 * Operations.  Each returns how many bytes it completed, which goes to the
 * record if an access failed, and otherwise sets what the record says.
 */

static uint32_t run_memmove(Access *acc, const IDXDDesc *desc,
                            IDXDOpResult *res)
{
    QEMU_UNINITIALIZED uint8_t bounce[PAGE];
    hwaddr done = 0;

    /* Backwards only if going forwards would overwrite what is yet to come */
    if (desc->dst == desc->src || desc->dst - desc->src >= desc->size) {
        while (done < desc->size) {
            hwaddr len = desc->size - done, n;
            const uint8_t *p = peek(acc, desc->src, done, &len, bounce);

            if (!p) {
                break;
            }
            n = poke(acc, desc->dst, done, p, len);
            done += n;
            if (n < len) {
                break;
            }
        }
        return done;
    }

    res->result = 1;
    while (done < desc->size) {
        hwaddr left = desc->size - done;
        hwaddr src_last = desc->src + left - 1;
        hwaddr dst_last = desc->dst + left - 1;
        hwaddr len = MIN(left, MIN(src_last % PAGE, dst_last % PAGE) + 1);
        const uint8_t *p = gather(acc, desc->src, left - len, len, bounce);

        if (!p) {
            break;
        }
        /* Written in parts, it would overwrite itself */
        if (p != bounce) {
            memcpy(bounce, p, len);
        }
        if (poke(acc, desc->dst, left - len, bounce, len) < len) {
            break;
        }
        done += len;
    }
    return done;
}

static uint32_t run_fill(Access *acc, const IDXDDesc *desc)
{
    QEMU_UNINITIALIZED uint8_t pattern[PAGE];
    hwaddr done = 0;

    for (size_t i = 0; i < MIN(desc->size, PAGE); i += 8) {
        stq_le_p(pattern + i, desc->src);
    }
    while (done < desc->size) {
        hwaddr len = MIN(desc->size - done, PAGE);
        hwaddr n = poke(acc, desc->dst, done, pattern, len);

        done += n;
        if (n < len) {
            break;
        }
    }
    return done;
}

/* What check result makes of a result that was or was not expected */
static void check_result(const IDXDDesc *desc, bool expected,
                         IDXDOpResult *res)
{
    if ((desc->flags & IDXD_FLAG_CR) && !expected) {
        res->status = IDXD_ST_SUCCESS_FALSE;
    }
}

static uint32_t compare_done(const IDXDDesc *desc, bool differ,
                             hwaddr done, IDXDOpResult *res)
{
    res->result = differ;
    res->bytes_completed = differ ? done : 0;
    check_result(desc, (desc->raw[IDXD_D_EXPECTED] & 1) == differ, res);
    return done;
}

static uint32_t run_compare(Access *acc, const IDXDDesc *desc,
                            IDXDOpResult *res)
{
    QEMU_UNINITIALIZED uint8_t bounce1[PAGE];
    QEMU_UNINITIALIZED uint8_t bounce2[PAGE];
    hwaddr done = 0;

    while (done < desc->size) {
        hwaddr len = desc->size - done;
        const uint8_t *p = peek(acc, desc->src, done, &len, bounce1);
        const uint8_t *q = p ? peek(acc, desc->dst, done, &len, bounce2) : NULL;
        size_t same;

        if (!q) {
            return done;
        }
        same = first_difference(p, q, len);
        done += same;
        if (same < len) {
            return compare_done(desc, true, done, res);
        }
    }
    return compare_done(desc, false, done, res);
}

/* The first byte that is not the pattern's, which begins at @phase of it */
static size_t pattern_difference(const uint8_t *p, size_t len,
                                 uint64_t pattern, unsigned phase)
{
    uint8_t expected[8];
    size_t i = 0;

    stq_le_p(expected, ror64(pattern, phase * 8));
    while (i + 8 <= len) {
        /* A multiple of eight, so that the phase stays */
        size_t n = MIN(len - i, PAGE) & ~(size_t)7;

        /* All is the pattern if the head is and each byte is the 8th before */
        if (!memcmp(p + i, expected, 8) && !memcmp(p + i + 8, p + i, n - 8)) {
            i += n;
            continue;
        }
        for (size_t end = i + n; i < end; i += 8) {
            uint64_t diff = ldq_le_p(p + i) ^ ldq_le_p(expected);

            if (diff) {
                return i + ctz64(diff) / 8;
            }
        }
    }
    for (size_t k = 0; i < len; i++, k++) {
        if (p[i] != expected[k]) {
            return i;
        }
    }
    return len;
}

static uint32_t run_compval(Access *acc, const IDXDDesc *desc,
                            IDXDOpResult *res)
{
    QEMU_UNINITIALIZED uint8_t bounce[PAGE];
    hwaddr done = 0;

    while (done < desc->size) {
        hwaddr len = desc->size - done;
        const uint8_t *p = peek(acc, desc->src, done, &len, bounce);
        size_t same;

        if (!p) {
            return done;
        }
        same = pattern_difference(p, len, desc->dst, done % 8);
        done += same;
        if (same < len) {
            return compare_done(desc, true, done, res);
        }
    }
    return compare_done(desc, false, done, res);
}

/*
 * Write staged entries of a delta record behind the *@size bytes already in
 * memory.  If memory gives way, *@done becomes the source offset of the first
 * entry that is not in memory: from there the operation can be continued.
 */
static bool delta_flush(Access *acc, hwaddr record, uint32_t *size,
                        const uint8_t *staged, unsigned entries, hwaddr *done)
{
    hwaddr n = poke(acc, record, *size, staged, entries * IDXD_DELTA_ENTRY);
    unsigned stored = n / IDXD_DELTA_ENTRY;

    *size += stored * IDXD_DELTA_ENTRY;
    if (stored < entries) {
        *done = lduw_le_p(staged + stored * IDXD_DELTA_ENTRY) * 8;
        return false;
    }
    return true;
}

static uint32_t run_create_delta(Access *acc, const IDXDDesc *desc,
                                 IDXDOpResult *res)
{
    hwaddr record = ldq_le_p(desc->raw + IDXD_D_DELTA_ADDR);
    uint32_t max = ldl_le_p(desc->raw + IDXD_D_DELTA_MAX);
    QEMU_UNINITIALIZED uint8_t bounce1[PAGE];
    QEMU_UNINITIALIZED uint8_t bounce2[PAGE];
    QEMU_UNINITIALIZED uint8_t staged[DELTA_STAGED * IDXD_DELTA_ENTRY];
    unsigned entries = 0;
    uint32_t size = 0;
    hwaddr done = 0;
    bool room = true;

    while (room && done < desc->size) {
        /* All three operands are multiples of 8, and so is every step */
        size_t len = MIN(desc->size - done,
                         MIN(to_page_end(desc->src + done),
                             to_page_end(desc->dst + done)));
        const uint8_t *p = gather(acc, desc->src, done, len, bounce1);
        const uint8_t *q = p ? gather(acc, desc->dst, done, len, bounce2)
                             : NULL;
        size_t i = 0;

        if (!q) {
            break;
        }
        while (i < len) {
            uint64_t theirs;

            i += first_difference(p + i, q + i, len - i) & ~(size_t)7;
            if (i == len) {
                break;
            }
            theirs = ldq_le_p(q + i);
            if (theirs != ldq_le_p(p + i)) {
                if (size + (entries + 1) * IDXD_DELTA_ENTRY > max) {
                    room = false;
                    break;
                }
                stw_le_p(staged + entries * IDXD_DELTA_ENTRY, (done + i) / 8);
                stq_le_p(staged + entries * IDXD_DELTA_ENTRY + 2, theirs);
                if (++entries == DELTA_STAGED) {
                    if (!delta_flush(acc, record, &size, staged, entries,
                                     &done)) {
                        goto out;
                    }
                    entries = 0;
                }
            }
            i += 8;
        }
        done += i;
    }
    delta_flush(acc, record, &size, staged, entries, &done);

out:
    stl_le_p(res->specific, size);
    if (!room) {
        res->result = IDXD_DELTA_NO_ROOM;
        res->bytes_completed = done;
    } else {
        res->result = size ? IDXD_DELTA_DIFFERENT : IDXD_DELTA_EQUAL;
    }
    /* One bit for each result that is expected */
    check_result(desc, desc->raw[IDXD_D_DELTA_EXPECTED] & (1 << res->result),
                 res);
    return done;
}

static uint32_t run_apply_delta(Access *acc, const IDXDDesc *desc,
                                IDXDOpResult *res)
{
    uint32_t size = ldl_le_p(desc->raw + IDXD_D_DELTA_SIZE);
    QEMU_UNINITIALIZED uint8_t bounce[DELTA_STAGED * IDXD_DELTA_ENTRY];
    QEMU_UNINITIALIZED uint8_t staged[DELTA_STAGED * 8];
    uint32_t next = 0;          /* the least offset / 8 that may follow */
    hwaddr done = 0;

    while (done < size) {
        /* Whole entries, and not beyond a page unless one straddles it */
        size_t page = to_page_end(desc->src + done) / IDXD_DELTA_ENTRY;
        size_t len = MIN(size - done,
                         MIN(MAX(page, 1), DELTA_STAGED) * IDXD_DELTA_ENTRY);
        const uint8_t *p = gather(acc, desc->src, done, len, bounce);
        uint8_t status = IDXD_ST_NONE;
        size_t i = 0;

        if (!p) {
            break;
        }
        while (i < len && status == IDXD_ST_NONE) {
            uint32_t first = 0;
            unsigned run = 0;
            hwaddr n;

            /* Entries for consecutive places make one write */
            for (; i < len; i += IDXD_DELTA_ENTRY) {
                uint32_t offset = lduw_le_p(p + i);

                if (offset < next) {
                    status = IDXD_ST_DELTA_OFFSET_ORDER;
                } else if (offset * 8 >= desc->size) {
                    status = IDXD_ST_DELTA_OFFSET_RANGE;
                }
                if (status != IDXD_ST_NONE || (run && offset != next)) {
                    break;
                }
                if (!run) {
                    first = offset;
                }
                memcpy(staged + run++ * 8, p + i + 2, 8);
                next = offset + 1;
            }
            n = poke(acc, desc->dst, first * 8, staged, run * 8);
            done += n / 8 * IDXD_DELTA_ENTRY;
            if (n < run * 8) {
                return done;
            }
        }
        if (status != IDXD_ST_NONE) {
            res->status = status;
            res->bytes_completed = done;
            return done;
        }
    }
    return done;
}

static uint32_t run_dualcast(Access *acc, const IDXDDesc *desc)
{
    hwaddr dst2 = ldq_le_p(desc->raw + IDXD_D_DST2);
    QEMU_UNINITIALIZED uint8_t bounce[PAGE];
    hwaddr done = 0;

    while (done < desc->size) {
        hwaddr len = MIN(desc->size - done, PIECE), n;
        const uint8_t *p = peek(acc, desc->src, done, &len, bounce);

        if (!p) {
            break;
        }
        n = poke(acc, desc->dst, done, p, len);
        n = poke(acc, dst2, done, p, n);
        done += n;
        if (n < len) {
            break;
        }
    }
    return done;
}

/* CRC32C of bytes whose bits are mirrored first */
static uint32_t crc32c_mirrored(uint32_t crc, const uint8_t *p, size_t len)
{
    QEMU_UNINITIALIZED uint8_t mirrored[1024];

    while (len) {
        size_t n = MIN(len, sizeof(mirrored)), i = 0;

        for (; i + 8 <= n; i += 8) {
            stq_le_p(mirrored + i, bswap64(revbit64(ldq_le_p(p + i))));
        }
        for (; i < n; i++) {
            mirrored[i] = revbit8(p[i]);
        }
        crc = idxd_crc32c(crc, mirrored, n);
        p += n;
        len -= n;
    }
    return crc;
}

/*
 * CRC generation, and copy with CRC.
 *
 * The checksum so far stands in the record even after a fault: as the seed of
 * the rest it continues the sum.
 *
 * Choice: sizes that are no multiple of 4 are summed as they are, without
 * padding, as Intel's own tests expect it.
 */
static uint32_t run_crc(Access *acc, const IDXDDesc *desc, bool copy,
                        IDXDOpResult *res)
{
    bool invert = !(desc->flags & IDXD_FLAG_CRC_NO_INVERT);
    bool reflect = !(desc->flags & IDXD_FLAG_CRC_NO_REFLECT);
    uint32_t crc = ldl_le_p(desc->raw + IDXD_D_CRC_SEED);
    QEMU_UNINITIALIZED uint8_t bounce[PAGE];
    hwaddr done = 0;

    if (desc->flags & IDXD_FLAG_CRC_READ_SEED) {
        hwaddr seed_addr = ldq_le_p(desc->raw + IDXD_D_CRC_SEED_ADDR);
        const uint8_t *p = gather(acc, seed_addr, 0, 4, bounce);

        if (!p) {
            return 0;
        }
        crc = ldl_le_p(p);
    }

    /* The checksum's register holds the highest power in its lowest bit */
    crc = invert ? ~crc : revbit32(crc);
    while (done < desc->size) {
        hwaddr len = desc->size - done, n;
        const uint8_t *p;

        if (copy) {
            len = MIN(len, PIECE);
        }
        p = peek(acc, desc->src, done, &len, bounce);
        if (!p) {
            break;
        }
        n = copy ? poke(acc, desc->dst, done, p, len) : len;
        crc = reflect ? idxd_crc32c(crc, p, n) : crc32c_mirrored(crc, p, n);
        done += n;
        if (n < len) {
            break;
        }
    }
    stq_le_p(res->specific, invert ? (uint32_t)~crc : revbit32(crc));
    return done;
}

/* Expected or generated tags: what the descriptor gives and where they are */
typedef struct DIFTags {
    uint8_t flags;              /* source or destination DIF flags */
    uint32_t ref;
    uint16_t app_mask;          /* bits of the application tag not in use */
    uint16_t app;
} DIFTags;

static DIFTags dif_tags_load(const uint8_t *p, uint8_t flags)
{
    return (DIFTags) {
        .flags = flags,
        .ref = ldl_le_p(p + IDXD_DIF_TAG_REF),
        .app_mask = lduw_le_p(p + IDXD_DIF_TAG_APP_MASK),
        .app = lduw_le_p(p + IDXD_DIF_TAG_APP),
    };
}

static void dif_tags_store(uint8_t *p, const DIFTags *tags)
{
    stl_le_p(p + IDXD_DIF_TAG_REF, tags->ref);
    stw_le_p(p + IDXD_DIF_TAG_APP_MASK, tags->app_mask);
    stw_le_p(p + IDXD_DIF_TAG_APP, tags->app);
}

static void dif_tags_next(DIFTags *tags)
{
    if (!(tags->flags & IDXD_DIF_REF_FIXED)) {
        tags->ref++;
    }
    if (tags->flags & IDXD_DIF_APP_INCREMENT) {
        tags->app++;
    }
}

static uint16_t dif_guard(const IDXDDesc *desc, const uint8_t *block,
                          unsigned size)
{
    uint8_t flags = desc->raw[IDXD_D_DIF_FLAGS];
    uint16_t crc = flags & IDXD_DIF_INVERT_SEED ? 0xffff : 0;

    crc = idxd_crc16_t10(crc, block, size);
    return flags & IDXD_DIF_INVERT_RESULT ? ~crc : crc;
}

/*
 * Check the DIF behind a block against what is expected; returns DIF_BAD_*.
 *
 * Choice: a detected F condition exempts the block from all its checks.  For
 * application tags only the bits outside the mask are compared.
 */
static uint8_t dif_check(const IDXDDesc *desc, const uint8_t *block,
                         unsigned size, const DIFTags *tags)
{
    const uint8_t *dif = block + size;
    uint16_t guard = lduw_be_p(dif);
    uint16_t app = lduw_be_p(dif + 2);
    uint32_t ref = ldl_be_p(dif + 4);
    bool app_f = app == 0xffff;
    bool tags_f = app_f && ref == 0xffffffff;
    bool all_f = tags_f && guard == 0xffff;
    uint8_t bad = 0;

    if ((tags->flags & IDXD_DIF_ALL_F_DETECT) && all_f) {
        return tags->flags & IDXD_DIF_ALL_F_ERROR ? IDXD_DIF_BAD_ALL_F : 0;
    }
    if (((tags->flags & IDXD_DIF_APP_F_DETECT) && app_f) ||
        ((tags->flags & IDXD_DIF_TAGS_F_DETECT) && tags_f)) {
        return 0;
    }
    if (!(tags->flags & IDXD_DIF_GUARD_OFF) &&
        guard != dif_guard(desc, block, size)) {
        bad |= IDXD_DIF_BAD_GUARD;
    }
    if ((app ^ tags->app) & ~tags->app_mask) {
        bad |= IDXD_DIF_BAD_APP;
    }
    if (!(tags->flags & IDXD_DIF_REF_OFF) && ref != tags->ref) {
        bad |= IDXD_DIF_BAD_REF;
    }
    return bad;
}

/* The DIF of a block in the destination; @old is the source's, if it has one */
static void dif_make(const IDXDDesc *desc, const uint8_t *block, unsigned size,
                     const DIFTags *tags, const uint8_t *old, uint8_t *dif)
{
    if (old) {
        memcpy(dif, old, IDXD_DIF_SIZE);
    }
    if (!(tags->flags & IDXD_DIF_GUARD_OFF)) {
        stw_be_p(dif, dif_guard(desc, block, size));
    }
    if (!(tags->flags & IDXD_DIF_APP_PASS)) {
        stw_be_p(dif + 2, tags->app & ~tags->app_mask);
    }
    if (!(tags->flags & IDXD_DIF_REF_OFF)) {
        stl_be_p(dif + 4, tags->ref);
    }
}

/*
 * DIF check, insert, strip and update.
 *
 * Blocks are taken one after the other.  The bytes completed are those of the
 * source's whole blocks before the one that failed or faulted, and the record
 * holds the tags that belong to that one: seeds to continue with.
 */
static uint32_t run_dif(Access *acc, const IDXDDesc *desc, IDXDOpResult *res)
{
    bool reads = desc->opcode != IDXD_OP_DIF_INSERT;
    bool writes = desc->opcode != IDXD_OP_DIF_CHECK;
    bool makes = desc->opcode == IDXD_OP_DIF_INSERT ||
                 desc->opcode == IDXD_OP_DIF_UPDATE;
    QEMU_UNINITIALIZED uint8_t bounce[IDXD_DIF_BLOCK_MAX + IDXD_DIF_SIZE];
    uint8_t dif[IDXD_DIF_SIZE];
    DIFTags src = { }, dst = { };
    hwaddr done = 0, written = 0;
    IDXDDifSteps steps;
    unsigned size;

    idxd_dif_steps(desc, &steps);
    size = steps.block;
    if (reads) {
        src = dif_tags_load(desc->raw + IDXD_D_DIF_SRC_TAGS,
                            desc->raw[IDXD_D_DIF_SRC_FLAGS]);
    }
    if (makes) {
        dst = dif_tags_load(desc->raw + IDXD_D_DIF_DST_TAGS,
                            desc->raw[IDXD_D_DIF_DST_FLAGS]);
    }

    while (done < desc->size) {
        const uint8_t *p = gather(acc, desc->src, done, steps.in, bounce);

        if (!p) {
            break;
        }
        if (reads) {
            uint8_t bad = dif_check(desc, p, size, &src);

            if (bad) {
                res->status = IDXD_ST_DIF_ERROR;
                res->result = bad;
                res->bytes_completed = done;
                break;
            }
        }
        if (makes) {
            dif_make(desc, p, size, &dst, reads ? p + size : NULL, dif);
        }
        if (writes && poke(acc, desc->dst, written, p, size) < size) {
            break;
        }
        if (makes && poke(acc, desc->dst, written + size, dif,
                          IDXD_DIF_SIZE) < IDXD_DIF_SIZE) {
            break;
        }
        dif_tags_next(&src);
        dif_tags_next(&dst);
        done += steps.in;
        written += steps.out;
    }

    if (reads) {
        dif_tags_store(res->specific, &src);
    }
    if (makes) {
        dif_tags_store(res->specific + 8, &dst);
    }
    return done;
}

/*
 * Cache flush.  The simulator's memory has no caches; what is left is that the
 * range must be memory that the device can reach.
 */
static uint32_t run_cflush(Access *acc, const IDXDDesc *desc)
{
    const IDXDOpEnv *env = acc->env;
    hwaddr done = 0;

    while (done < desc->size) {
        hwaddr addr = desc->dst + done;
        hwaddr n = access_limit(acc, desc->dst, done, desc->size - done, false);
        MemoryRegion *mr;
        hwaddr xlat;

        if (!n) {
            break;
        }
        mr = address_space_translate(env->as, addr, &xlat, &n, false,
                                     env->attrs);
        if (!memory_access_is_direct(mr, false, env->attrs)) {
            access_fail(acc, addr, false);
            break;
        }
        done += n;
    }
    return done;
}

void idxd_op_run(const IDXDOpEnv *env, const IDXDDesc *desc, IDXDOpResult *res)
{
    Access acc = {
        .env = env,
        .bof = desc->flags & IDXD_FLAG_BOF,
    };
    uint32_t done = 0;

    *res = (IDXDOpResult) { .status = IDXD_ST_SUCCESS };

    if (!env->window) {
        rcu_read_lock();
    }
    switch (desc->opcode) {
    case IDXD_OP_MEMMOVE:
        done = run_memmove(&acc, desc, res);
        break;
    case IDXD_OP_FILL:
        done = run_fill(&acc, desc);
        break;
    case IDXD_OP_COMPARE:
        done = run_compare(&acc, desc, res);
        break;
    case IDXD_OP_COMPVAL:
        done = run_compval(&acc, desc, res);
        break;
    case IDXD_OP_CREATE_DELTA:
        done = run_create_delta(&acc, desc, res);
        break;
    case IDXD_OP_APPLY_DELTA:
        done = run_apply_delta(&acc, desc, res);
        break;
    case IDXD_OP_DUALCAST:
        done = run_dualcast(&acc, desc);
        break;
    case IDXD_OP_CRCGEN:
        done = run_crc(&acc, desc, false, res);
        break;
    case IDXD_OP_COPY_CRC:
        done = run_crc(&acc, desc, true, res);
        break;
    case IDXD_OP_DIF_CHECK:
    case IDXD_OP_DIF_INSERT:
    case IDXD_OP_DIF_STRIP:
    case IDXD_OP_DIF_UPDATE:
        done = run_dif(&acc, desc, res);
        break;
    case IDXD_OP_CFLUSH:
        done = run_cflush(&acc, desc);
        break;
    default:
        break;
    }
    if (!env->window) {
        rcu_read_unlock();
    }

    if (acc.status != IDXD_ST_NONE) {
        res->status = acc.status;
        res->bytes_completed = done;
        res->fault_addr = acc.fault_addr;
    }
}
