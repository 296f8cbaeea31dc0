// SPDX-License-Identifier: GPL-2.0-or-later
/* Virtio 1.2 over MMIO. All of it runs under vm->lock, in the vCPU's thread or in that of the files. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vmm.h"

/* registers: virtio 1.2, 4.2.2 */
enum {
	MAGIC = 0x00, VERSION = 0x04, DEVICE_ID = 0x08, VENDOR_ID = 0x0c, DEVICE_FEATURES = 0x10, DEVICE_PAGE = 0x14,
	DRIVER_FEATURES = 0x20, DRIVER_PAGE = 0x24, QUEUE_SELECT = 0x30, QUEUE_SIZE_MAX = 0x34, QUEUE_SIZE = 0x38,
	QUEUE_READY = 0x44, QUEUE_NOTIFY = 0x50, INTERRUPT_STATUS = 0x60, INTERRUPT_ACK = 0x64, STATUS = 0x70,
	QUEUE_DESCRIPTORS = 0x80, QUEUE_DRIVER = 0x90, QUEUE_DEVICE = 0xa0, GENERATION = 0xfc, CONFIG = 0x100,
};

#define MAGIC_VALUE 0x74726976U
#define VENDOR 0x4d534b50U
#define FEATURE_VERSION_1 (1ULL << 32)
#define DESCRIPTOR_NEXT 1
#define DESCRIPTOR_WRITE 2
#define NO_INTERRUPT 1
#define CAUSE_QUEUE 1

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};

struct available {
	uint16_t flags, index, ring[];
};

struct used {
	uint16_t flags, index;
	struct {
		uint32_t id, length;
	} ring[];
};

static void *ring(const struct device *device, uint64_t address, uint64_t size)
{
	void *at = guest_memory(device->vm, address, size);

	if (!at)
		die("a virtqueue outside of memory: %llx", (unsigned long long)address);
	return at;
}

static struct available *available(const struct device *device, const struct queue *queue)
{
	return ring(device, queue->driver, sizeof(struct available) + 2 * queue->size);
}

static struct used *used(const struct device *device, const struct queue *queue)
{
	return ring(device, queue->device, sizeof(struct used) + 8 * queue->size);
}

static bool waiting(const struct device *device, const struct queue *queue)
{
	return queue->ready && __atomic_load_n(&available(device, queue)->index, __ATOMIC_ACQUIRE) != queue->taken;
}

bool can_receive(const struct device *device)
{
	return waiting(device, &device->queue[RECEIVE]);
}

/* One direction a chain is all that consoles and network cards use. */
bool take_chain(struct device *device, int number, struct chain *chain)
{
	struct queue *queue = &device->queue[number];
	const struct descriptor *table;
	uint16_t at;

	if (!waiting(device, queue))
		return false;
	table = ring(device, queue->descriptors, sizeof(*table) * queue->size);
	at = chain->head = available(device, queue)->ring[queue->taken++ % queue->size];
	for (chain->count = 0;; at = table[at].next) {
		if (at >= queue->size || chain->count == QUEUE_MAX)
			die("a chain of descriptors without an end");
		if (!!(table[at].flags & DESCRIPTOR_WRITE) != (number == RECEIVE))
			die("a buffer of the wrong direction");
		chain->part[chain->count].iov_base = ring(device, table[at].address, table[at].length);
		chain->part[chain->count++].iov_len = table[at].length;
		if (!(table[at].flags & DESCRIPTOR_NEXT))
			return true;
	}
}

void give_back(struct device *device, int number, const struct chain *chain, uint32_t written)
{
	struct queue *queue = &device->queue[number];
	struct used *done = used(device, queue);
	uint16_t index = done->index;

	done->ring[index % queue->size].id = chain->head;
	done->ring[index % queue->size].length = written;
	__atomic_store_n(&done->index, index + 1, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(available(device, queue)->flags & NO_INTERRUPT))
		notify_driver(device, CAUSE_QUEUE);
}

void notify_driver(struct device *device, uint32_t cause)
{
	device->isr |= cause;
	interrupt(device->vm, device->irq);
}

size_t scatter(const struct iovec *parts, int count, const void *data, size_t size)
{
	size_t done = 0;

	for (int i = 0; i < count && done < size; i++) {
		size_t now = size - done < parts[i].iov_len ? size - done : parts[i].iov_len;

		memcpy(parts[i].iov_base, (const char *)data + done, now);
		done += now;
	}
	return done;
}

static void reset(struct device *device)
{
	memset(device->queue, 0, sizeof(device->queue));
	device->accepted = device->isr = device->status = 0;
}

static void notified(struct device *device, uint32_t number)
{
	struct chain chain;
	uint64_t one = 1;

	if (number == RECEIVE) {
		if (write(device->wake, &one, sizeof(one)) < 0)
			die("eventfd: %m");
		return;
	}
	while (number == TRANSMIT && take_chain(device, TRANSMIT, &chain)) {
		device->transmit(device, chain.part, chain.count);
		give_back(device, TRANSMIT, &chain, 0);
	}
}

uint32_t device_read(struct device *device, uint64_t offset, unsigned int size)
{
	const struct queue *queue = &device->queue[device->selected % QUEUES];
	uint32_t value = 0;

	if (offset >= CONFIG) {
		offset -= CONFIG;
		if (offset < device->config_size)
			memcpy(&value, device->config + offset,
			       size < device->config_size - offset ? size : device->config_size - offset);
		return value;
	}
	switch (offset) {
	case MAGIC: return MAGIC_VALUE;
	case VERSION: return 2;
	case DEVICE_ID: return device->id;
	case VENDOR_ID: return VENDOR;
	case DEVICE_FEATURES:
		return device->feature_page > 1 ? 0 :
		       (device->features | FEATURE_VERSION_1) >> (32 * device->feature_page);
	case QUEUE_SIZE_MAX: return device->selected < QUEUES ? QUEUE_MAX : 0;
	case QUEUE_READY: return device->selected < QUEUES && queue->ready;
	case INTERRUPT_STATUS: return device->isr;
	case STATUS: return device->status;
	case GENERATION: return 0;
	}
	return 0;
}

static void set_half(uint64_t *address, bool upper, uint32_t value)
{
	*address = upper ? (*address & 0xffffffffULL) | (uint64_t)value << 32 : (*address & ~0xffffffffULL) | value;
}

void device_write(struct device *device, uint64_t offset, uint32_t value)
{
	struct queue *queue = &device->queue[device->selected % QUEUES];

	switch (offset) {
	case DEVICE_PAGE: device->feature_page = value; return;
	case DRIVER_PAGE: device->driver_page = value; return;
	case DRIVER_FEATURES:
		if (device->driver_page < 2)
			device->accepted |= (uint64_t)value << (32 * device->driver_page);
		return;
	case QUEUE_SELECT: device->selected = value; return;
	case QUEUE_NOTIFY: notified(device, value); return;
	case INTERRUPT_ACK: device->isr &= ~value; return;
	case STATUS:
		if (value)
			device->status = value;
		else
			reset(device);
		return;
	}
	if (device->selected >= QUEUES)
		return;
	switch (offset) {
	case QUEUE_SIZE:
		if (!value || value > QUEUE_MAX || value & (value - 1))
			die("a virtqueue of %u entries", value);
		queue->size = value;
		return;
	case QUEUE_READY:
		queue->ready = value & 1 && queue->size;
		queue->taken = 0;
		return;
	case QUEUE_DESCRIPTORS: case QUEUE_DESCRIPTORS + 4:
		set_half(&queue->descriptors, offset & 4, value);
		return;
	case QUEUE_DRIVER: case QUEUE_DRIVER + 4:
		set_half(&queue->driver, offset & 4, value);
		return;
	case QUEUE_DEVICE: case QUEUE_DEVICE + 4:
		set_half(&queue->device, offset & 4, value);
		return;
	}
}
