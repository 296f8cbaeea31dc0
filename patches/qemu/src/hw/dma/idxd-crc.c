/*
 * Intel Data Streaming Accelerator: checksums
 *
 * The device computes checksums of whole pages by the thousand, and the
 * simulator must not spend more on one than the guest's own CPU would.  The
 * byte-wise table of util/crc32c.c takes about twenty times as long as the
 * instruction that x86 hosts have for just this polynomial.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/dma/idxd-crc.h"

#define CRC32C_POLY     0x82f63b78u
#define T10_POLY        0x8bb7

/* Eight bytes a step: table k is for a byte that k more bytes follow */
static uint32_t crc32c_table[8][256];
static uint16_t t10_table[8][256];

uint32_t idxd_crc32c_portable(uint32_t crc, const void *buf, size_t len)
{
    const uint8_t *p = buf;

    for (; len >= 8; len -= 8, p += 8) {
        uint32_t lo = ldl_le_p(p) ^ crc;
        uint32_t hi = ldl_le_p(p + 4);

        crc = crc32c_table[7][lo & 0xff] ^
              crc32c_table[6][(lo >> 8) & 0xff] ^
              crc32c_table[5][(lo >> 16) & 0xff] ^
              crc32c_table[4][lo >> 24] ^
              crc32c_table[3][hi & 0xff] ^
              crc32c_table[2][(hi >> 8) & 0xff] ^
              crc32c_table[1][(hi >> 16) & 0xff] ^
              crc32c_table[0][hi >> 24];
    }
    while (len--) {
        crc = (crc >> 8) ^ crc32c_table[0][(crc ^ *p++) & 0xff];
    }
    return crc;
}

uint16_t idxd_crc16_t10(uint16_t crc, const void *buf, size_t len)
{
    const uint8_t *p = buf;

    for (; len >= 8; len -= 8, p += 8) {
        crc = t10_table[7][p[0] ^ (crc >> 8)] ^
              t10_table[6][p[1] ^ (crc & 0xff)] ^
              t10_table[5][p[2]] ^
              t10_table[4][p[3]] ^
              t10_table[3][p[4]] ^
              t10_table[2][p[5]] ^
              t10_table[1][p[6]] ^
              t10_table[0][p[7]];
    }
    while (len--) {
        crc = (crc << 8) ^ t10_table[0][(crc >> 8) ^ *p++];
    }
    return crc;
}

#ifdef HOST_X86_64
#include <immintrin.h>

/*
 * The instruction delivers a result after three cycles but can start one every
 * cycle, so three strides of the buffer are summed side by side and joined
 * afterwards.  Joining means appending zero bytes to a checksum, which is a
 * multiplication by a power of x: PCLMULQDQ multiplies, CRC32 reduces the
 * product, and the constants carry x^-33 because the two bring in x^33.
 */
#define STRIDE          1344            /* three of them: nearly 4 KiB */
#define STRIDE_X1       0xc9c8b782u     /* x^(8 * STRIDE - 33) mod P */
#define STRIDE_X2       0x889774e1u     /* x^(16 * STRIDE - 33) mod P */
#define SHORT_STRIDE    168
#define SHORT_STRIDE_X1 0x1b3d8f29u
#define SHORT_STRIDE_X2 0xa60ce07bu

static inline uint64_t __attribute__((target("sse4.2,pclmul")))
crc32c_append(uint64_t crc, uint32_t power)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(crc),
                                           _mm_cvtsi64_si128(power), 0);

    return _mm_crc32_u64(0, _mm_cvtsi128_si64(product));
}

static inline uint64_t __attribute__((target("sse4.2,pclmul")))
crc32c_strides(uint64_t crc, const uint8_t *p, size_t stride,
               uint32_t x1, uint32_t x2)
{
    uint64_t second = 0, third = 0;

    for (size_t i = 0; i < stride; i += 8) {
        crc = _mm_crc32_u64(crc, ldq_le_p(p + i));
        second = _mm_crc32_u64(second, ldq_le_p(p + stride + i));
        third = _mm_crc32_u64(third, ldq_le_p(p + 2 * stride + i));
    }
    return crc32c_append(crc, x2) ^ crc32c_append(second, x1) ^ third;
}

static uint32_t __attribute__((target("sse4.2,pclmul")))
crc32c_sse42(uint32_t crc32, const void *buf, size_t len)
{
    const uint8_t *p = buf;
    uint64_t crc = crc32;

    for (; len >= 3 * STRIDE; len -= 3 * STRIDE, p += 3 * STRIDE) {
        crc = crc32c_strides(crc, p, STRIDE, STRIDE_X1, STRIDE_X2);
    }
    for (; len >= 3 * SHORT_STRIDE;
         len -= 3 * SHORT_STRIDE, p += 3 * SHORT_STRIDE) {
        crc = crc32c_strides(crc, p, SHORT_STRIDE,
                             SHORT_STRIDE_X1, SHORT_STRIDE_X2);
    }
    for (; len >= 8; len -= 8, p += 8) {
        crc = _mm_crc32_u64(crc, ldq_le_p(p));
    }
    while (len--) {
        crc = _mm_crc32_u8(crc, *p++);
    }
    return crc;
}
#endif

static uint32_t (*crc32c_best)(uint32_t crc, const void *buf, size_t len) =
    idxd_crc32c_portable;

uint32_t idxd_crc32c(uint32_t crc, const void *buf, size_t len)
{
    return crc32c_best(crc, buf, len);
}

static void __attribute__((constructor)) idxd_crc_init(void)
{
    for (unsigned b = 0; b < 256; b++) {
        uint32_t crc = b;
        uint16_t t10 = b << 8;

        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLY : 0);
            t10 = (t10 << 1) ^ (t10 & 0x8000 ? T10_POLY : 0);
        }
        crc32c_table[0][b] = crc;
        t10_table[0][b] = t10;
    }
    for (int k = 1; k < 8; k++) {
        for (unsigned b = 0; b < 256; b++) {
            uint32_t crc = crc32c_table[k - 1][b];
            uint16_t t10 = t10_table[k - 1][b];

            crc32c_table[k][b] = (crc >> 8) ^ crc32c_table[0][crc & 0xff];
            t10_table[k][b] = (t10 << 8) ^ t10_table[0][t10 >> 8];
        }
    }
#ifdef HOST_X86_64
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        crc32c_best = crc32c_sse42;
    }
#endif
}
