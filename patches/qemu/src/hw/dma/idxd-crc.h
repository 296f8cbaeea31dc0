/*
 * Intel Data Streaming Accelerator: checksums
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_DMA_IDXD_CRC_H
#define HW_DMA_IDXD_CRC_H

/*
 * CRC32C (Castagnoli, reflected constant 0x82f63b78) of @len bytes.  @crc and
 * the return value are the bare shift register: inverting it at either end is
 * left to the caller.
 */
uint32_t idxd_crc32c(uint32_t crc, const void *buf, size_t len);

/* The same without instructions of the host's, for hosts without and tests */
uint32_t idxd_crc32c_portable(uint32_t crc, const void *buf, size_t len);

/* T10 DIF guard: polynomial 0x8bb7, most significant bit first */
uint16_t idxd_crc16_t10(uint16_t crc, const void *buf, size_t len);

#endif
