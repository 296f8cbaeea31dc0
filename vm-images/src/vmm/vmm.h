/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small monitor for one VM of the fleet, on top of KVM: one processor, anonymous memory that KSM may merge, interrupt
 * controllers in the kernel, a console and a network card as virtio devices over MMIO, a serial port for the kernel's
 * last words. It starts a Linux kernel in 64-bit mode by itself: no firmware, nothing to decompress.
 */
#ifndef VMM_H
#define VMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define GAP_START 0xc0000000ULL		/* no memory from here to 4 GiB: devices and interrupt controllers */
#define GAP_END 0x100000000ULL
#define EBDA_START 0x9fc00ULL		/* the last KiB of base memory holds the MP table */
#define BASE_MEMORY_END 0xa0000ULL
#define HIGH_MEMORY 0x100000ULL

#define CONSOLE_BASE 0xd0000000ULL
#define NET_BASE 0xd0001000ULL
#define DEVICE_SIZE 0x1000ULL
#define CONSOLE_IRQ 5
#define NET_IRQ 6
#define SERIAL_PORT 0x3f8

struct options {
	const char *kernel, *relocs, *initramfs, *words, *tap, *bridge, *name;
	uint64_t memory;		/* bytes */
	uint64_t seed;
};

struct vm {
	struct options options;
	int kvm, fd, vcpu;
	uint64_t shift;			/* of the kernel, from where it was linked to lie */
	uint8_t *memory;		/* [0, GAP_START) and, above it, what lies from GAP_END on */
	pthread_mutex_t lock;		/* of the devices */
};

/* main.c */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* size bytes of the guest's memory, or NULL where there are not so many */
void *guest_memory(const struct vm *vm, uint64_t address, uint64_t size);
void interrupt(const struct vm *vm, int irq);

/* loader.c: kernel, initramfs and what the boot protocol wants in memory; the entry, 0x7000 is the zero page */
#define ZERO_PAGE 0x7000ULL
uint64_t load_linux(struct vm *vm);
uint64_t random_word(uint64_t *state);

/* cpu.c: the state in which Linux is entered, and what the processor says of itself */
void cpu_init(struct vm *vm, uint64_t entry);

/* mptable.c: processor, buses and interrupts, as the MultiProcessor Specification 1.4 describes them */
void write_mptable(struct vm *vm);

/* serial.c: the transmitting half of a 16550 */
uint8_t serial_read(uint16_t offset);
void serial_write(const struct vm *vm, uint16_t offset, uint8_t value);

/* virtio.c: virtio 1.2 over MMIO (4.2), split virtqueues (2.7) */
#define QUEUES 2
#define QUEUE_MAX 256
#define RECEIVE 0			/* of consoles and network cards */
#define TRANSMIT 1

struct queue {
	uint32_t size;
	bool ready;
	uint64_t descriptors, driver, device;	/* guest addresses */
	uint16_t taken;			/* entries of the available ring that were taken */
};

struct device {
	struct vm *vm;
	uint64_t base;
	int irq;
	uint32_t id;
	uint64_t features, accepted;
	uint32_t feature_page, driver_page, selected, status, isr;
	struct queue queue[QUEUES];
	const uint8_t *config;
	size_t config_size;
	int wake;			/* an eventfd: there is room to receive */
	void (*transmit)(struct device *device, const struct iovec *parts, int count);
};

/* a chain of buffers */
struct chain {
	uint16_t head;
	int count;
	struct iovec part[QUEUE_MAX];
};

uint32_t device_read(struct device *device, uint64_t offset, unsigned int size);
void device_write(struct device *device, uint64_t offset, uint32_t value);
bool can_receive(const struct device *device);
bool take_chain(struct device *device, int queue, struct chain *chain);
void give_back(struct device *device, int queue, const struct chain *chain, uint32_t written);
void notify_driver(struct device *device, uint32_t cause);
size_t scatter(const struct iovec *parts, int count, const void *data, size_t size);

/* console.c, net.c: a device, and a file descriptor that poll() watches while it can receive */
void console_init(struct vm *vm, struct device *device);
bool console_receive(struct device *device);	/* false: the other end is gone */
void net_init(struct vm *vm, struct device *device);
int net_fd(void);
void net_receive(struct device *device);

#endif
