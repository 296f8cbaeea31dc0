/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A DSA driven from user space: registers and portals through /sys/bus/pci/devices/ADDRESS/resource0 and 2, memory
 * by its physical address. Needs root, no driver bound, and no IOMMU that translates for the device.
 */
#ifndef DSA_DEVICE_H
#define DSA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "descriptor.h"

#define DSA_MAX_WQS 64

enum {
	REG_VERSION = 0x00,
	REG_GENCAP = 0x10,
	REG_WQCAP = 0x20,
	REG_GRPCAP = 0x30,
	REG_ENGCAP = 0x38,
	REG_OPCAP = 0x40,
	REG_OFFSETS = 0x60,
	REG_GENCFG = 0x80,
	REG_GENCTRL = 0x88,
	REG_GENSTS = 0x90,
	REG_INTCAUSE = 0x98,
	REG_CMD = 0xa0,
	REG_CMDSTS = 0xa8,
	REG_SWERROR = 0xc0,
};

enum {
	CMD_ENABLE_DEVICE = 1, CMD_DISABLE_DEVICE, CMD_DRAIN_ALL, CMD_ABORT_ALL, CMD_RESET_DEVICE, CMD_ENABLE_WQ,
	CMD_DISABLE_WQ, CMD_DRAIN_WQ, CMD_ABORT_WQ, CMD_RESET_WQ,
};

struct dsa {
	char address[32];		/* PCI address, "0000:00:05.0" */
	volatile uint8_t *registers;
	size_t registers_size;
	uint8_t *portals;
	size_t portals_size;
	int config;			/* its PCI configuration space, a file */
	uint64_t gencap, wqcap;
	unsigned int wqs, groups, engines, wq_total;
	size_t grpcfg, wqcfg, msixperm, wqcfg_stride;
	unsigned int slot[DSA_MAX_WQS];	/* portal slots are used in turn */
};

/* Physically contiguous memory that stays where it is. */
struct dma {
	uint8_t *memory;
	uint64_t bus;			/* address for the device */
	size_t size;
};

/*
 * Open the n-th DSA of this machine, reset it. Says on standard error what is wrong.
 * With unbind, a kernel driver that owns it loses it.
 */
bool dsa_open(struct dsa *dsa, unsigned int number, bool unbind);
void dsa_close(struct dsa *dsa);

uint32_t dsa_read32(struct dsa *dsa, size_t at);
uint64_t dsa_read64(struct dsa *dsa, size_t at);
void dsa_write32(struct dsa *dsa, size_t at, uint32_t value);
void dsa_write64(struct dsa *dsa, size_t at, uint64_t value);

/* Run a command and wait for its end; what CMDSTS says then, 0: success. A second without an end: ~0. */
uint32_t dsa_command(struct dsa *dsa, unsigned int command, uint32_t operand);
static inline uint32_t dsa_wq_bit(unsigned int wq)
{
	return 1u << wq % 16 | wq / 16 << 16;
}

struct dsa_wq {
	unsigned int size;		/* entries */
	unsigned int priority;
	unsigned int max_batch_shift, max_transfer_shift;
	bool block_on_fault;
};

/* Dedicated work queues 0 .. count - 1 and all engines in group 0, device and queues enabled. */
bool dsa_configure(struct dsa *dsa, const struct dsa_wq *wq, unsigned int count);

/* MOVDIR64B to the queue's limited portal. */
void dsa_submit(struct dsa *dsa, unsigned int wq, const struct descriptor *descriptor);

/* Wait until the record's status is written; false: it was not within so many seconds. */
bool dsa_wait(const struct record *record, double seconds);

/* size: a power of two up to 2 MiB; memory is zero. */
bool dma_allocate(struct dma *dma, size_t size);
void dma_free(struct dma *dma);
static inline uint64_t dma_bus(const struct dma *dma, const void *at)
{
	return dma->bus + (uint64_t)((const uint8_t *)at - dma->memory);
}

#endif
