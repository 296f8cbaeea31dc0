// SPDX-License-Identifier: GPL-2.0-or-later
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "device.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define HUGE_PAGE (2UL << 20)
#define PORTAL_PAGE 4096UL

static bool slurp(const char *address, const char *file, char *text, size_t size)
{
	char path[128];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", address, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, size - 1);
	text[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
	return n > 0;
}

static bool put(const char *address, const char *file, const char *text)
{
	char path[128];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", address, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (!ok)
		fprintf(stderr, "dsa: %s: %m\n", path);
	if (fd >= 0)
		close(fd);
	return ok;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* PCI addresses in order: the n-th DSA is the same one at every start. */
static bool find(char found[32], unsigned int number)
{
	char names[256][32], vendor[16], device[16];
	struct dirent *entry;
	unsigned int count = 0, hit = 0;
	DIR *dir = opendir(PCI_DEVICES);

	while (dir && count < 256 && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && strlen(entry->d_name) < 32)
			strcpy(names[count++], entry->d_name);
	if (dir)
		closedir(dir);
	qsort(names, count, sizeof(names[0]), by_name);
	for (unsigned int i = 0; i < count; i++) {
		if (!slurp(names[i], "vendor", vendor, sizeof(vendor)) ||
		    !slurp(names[i], "device", device, sizeof(device)))
			continue;
		if (strtoul(vendor, NULL, 16) != 0x8086 || strtoul(device, NULL, 16) != 0x0b25)
			continue;
		if (hit++ == number) {
			strcpy(found, names[i]);
			return true;
		}
	}
	fprintf(stderr, "dsa: this machine has %u DSA (PCI 8086:0b25), number %u was asked for\n", hit, number);
	return false;
}

static void *map(const struct dsa *dsa, const char *file, size_t *size)
{
	char path[128];
	struct stat status;
	void *memory = MAP_FAILED;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", dsa->address, file);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &status)) {
		*size = status.st_size;
		memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (memory == MAP_FAILED)
		fprintf(stderr, "dsa: %s: %m\n", path);
	if (fd >= 0)
		close(fd);
	return memory == MAP_FAILED ? NULL : memory;
}

static bool release(const struct dsa *dsa, bool unbind)
{
	char path[128], driver[256];
	ssize_t n;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver", dsa->address);
	n = readlink(path, driver, sizeof(driver) - 1);
	if (n < 0)
		return true;
	driver[n] = 0;
	if (!unbind) {
		fprintf(stderr, "dsa: driver %s owns %s; --unbind takes it away\n", strrchr(driver, '/') + 1,
			dsa->address);
		return false;
	}
	return put(dsa->address, "driver/unbind", dsa->address);
}

uint32_t dsa_read32(struct dsa *dsa, size_t at)
{
	return *(volatile uint32_t *)(dsa->registers + at);
}

uint64_t dsa_read64(struct dsa *dsa, size_t at)
{
	return *(volatile uint64_t *)(dsa->registers + at);
}

void dsa_write32(struct dsa *dsa, size_t at, uint32_t value)
{
	*(volatile uint32_t *)(dsa->registers + at) = value;
}

void dsa_write64(struct dsa *dsa, size_t at, uint64_t value)
{
	*(volatile uint64_t *)(dsa->registers + at) = value;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

uint32_t dsa_command(struct dsa *dsa, unsigned int command, uint32_t operand)
{
	double end = now() + 1.0;
	uint32_t status;

	dsa_write32(dsa, REG_CMD, command << 20 | operand);
	while ((status = dsa_read32(dsa, REG_CMDSTS)) >> 31)
		if (now() > end)
			return ~0u;
	return status;
}

bool dsa_open(struct dsa *dsa, unsigned int number, bool unbind)
{
	uint16_t command;
	uint64_t offsets;
	uint32_t status;

	memset(dsa, 0, sizeof(*dsa));
	dsa->config = -1;
	if (!find(dsa->address, number) || !release(dsa, unbind) || !put(dsa->address, "enable", "1"))
		return false;
	{
		char path[128];

		snprintf(path, sizeof(path), PCI_DEVICES "/%s/config", dsa->address);
		dsa->config = open(path, O_RDWR | O_CLOEXEC);
	}
	if (dsa->config < 0 || pread(dsa->config, &command, 2, 4) != 2) {
		fprintf(stderr, "dsa: configuration space of %s: %m\n", dsa->address);
		return false;
	}
	command |= 1 << 2;	/* bus master */
	if (pwrite(dsa->config, &command, 2, 4) != 2)
		return false;
	dsa->registers = map(dsa, "resource0", &dsa->registers_size);
	dsa->portals = map(dsa, "resource2", &dsa->portals_size);
	if (!dsa->registers || !dsa->portals)
		return false;
	dsa->gencap = dsa_read64(dsa, REG_GENCAP);
	dsa->wqcap = dsa_read64(dsa, REG_WQCAP);
	dsa->wq_total = dsa->wqcap & 0xffff;
	dsa->wqs = dsa->wqcap >> 16 & 0xff;
	dsa->wqcfg_stride = 32UL << (dsa->wqcap >> 24 & 0xf);
	dsa->groups = dsa_read64(dsa, REG_GRPCAP) & 0xff;
	dsa->engines = dsa_read64(dsa, REG_ENGCAP) & 0xff;
	offsets = dsa_read64(dsa, REG_OFFSETS);
	dsa->grpcfg = (offsets & 0xffff) << 8;
	dsa->wqcfg = (offsets >> 16 & 0xffff) << 8;
	dsa->msixperm = (offsets >> 32 & 0xffff) << 8;
	if (!dsa->wqs || dsa->wqs > DSA_MAX_WQS || dsa->portals_size < dsa->wqs * 4 * PORTAL_PAGE) {
		fprintf(stderr, "dsa: %s tells of %u work queues and has %zu bytes of portals\n", dsa->address,
			dsa->wqs, dsa->portals_size);
		return false;
	}
	status = dsa_command(dsa, CMD_RESET_DEVICE, 0);
	if (status) {
		fprintf(stderr, "dsa: %s does not reset: command status 0x%x\n", dsa->address, status);
		return false;
	}
	dsa_write64(dsa, REG_SWERROR, 3);
	dsa_write32(dsa, REG_INTCAUSE, ~0u);
	return true;
}

void dsa_close(struct dsa *dsa)
{
	if (dsa->registers) {
		dsa_command(dsa, CMD_RESET_DEVICE, 0);
		munmap((void *)dsa->registers, dsa->registers_size);
	}
	if (dsa->portals)
		munmap(dsa->portals, dsa->portals_size);
	if (dsa->config >= 0)
		close(dsa->config);
	memset(dsa, 0, sizeof(*dsa));
	dsa->config = -1;
}

bool dsa_configure(struct dsa *dsa, const struct dsa_wq *wq, unsigned int count)
{
	uint32_t status;

	for (unsigned int n = 0; n < count; n++) {
		size_t at = dsa->wqcfg + n * dsa->wqcfg_stride;

		dsa_write32(dsa, at, wq[n].size);
		dsa_write32(dsa, at + 4, 0);
		dsa_write32(dsa, at + 8, 1 | wq[n].block_on_fault << 1 | wq[n].priority << 4);
		dsa_write32(dsa, at + 12, wq[n].max_transfer_shift | wq[n].max_batch_shift << 5);
		dsa_write32(dsa, at + 16, 0);
		dsa_write32(dsa, at + 20, 0);
	}
	dsa_write64(dsa, dsa->grpcfg, count == 64 ? ~0ULL : (1ULL << count) - 1);
	dsa_write64(dsa, dsa->grpcfg + 32, (1ULL << dsa->engines) - 1);
	status = dsa_command(dsa, CMD_ENABLE_DEVICE, 0);
	for (unsigned int n = 0; !status && n < count; n++)
		status = dsa_command(dsa, CMD_ENABLE_WQ, n);
	if (status)
		fprintf(stderr, "dsa: %s is not enabled: command status 0x%x\n", dsa->address, status);
	return !status;
}

void dsa_submit(struct dsa *dsa, unsigned int wq, const struct descriptor *descriptor)
{
	uint8_t *to = dsa->portals + (wq * 4 + 1) * PORTAL_PAGE + dsa->slot[wq]++ % 64 * 64;

	/* movdir64b (%rdx), %rax; what it reads was written before */
	asm volatile("sfence; .byte 0x66, 0x0f, 0x38, 0xf8, 0x02" : : "a"(to), "d"(descriptor) : "memory");
}

bool dsa_wait(const struct record *record, double seconds)
{
	const volatile uint8_t *status = &record->status;
	double end = 0;

	for (unsigned int i = 1; !*status; i++) {
		asm volatile("pause");
		if (i % 1024)
			continue;
		if (!end)
			end = now() + seconds;
		else if (now() > end)
			return false;
	}
	asm volatile("" : : : "memory");
	return true;
}

static uint64_t physical(int pagemap, const void *at)
{
	uint64_t entry;

	if (pread(pagemap, &entry, 8, (uintptr_t)at / 4096 * 8) != 8 || !(entry >> 63))
		return 0;
	return (entry & ((1ULL << 55) - 1)) * 4096;
}

/* A knob of the kernel; what does not work without it says so. */
static void set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "dsa: %s: %m\n", path);
	if (fd >= 0)
		close(fd);
}

bool dma_allocate(struct dma *dma, size_t size)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint8_t *memory = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *aligned = (uint8_t *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	bool ok = false;

	if (memory == MAP_FAILED || size > HUGE_PAGE || pagemap < 0) {
		fprintf(stderr, "dsa: memory for the device: %m\n");
		goto out;
	}
	/* nobody moves it: locked pages are not swapped, but may be compacted */
	set("/proc/sys/vm/compact_unevictable_allowed", "0");
	/* Linux turns huge pages off where there is little memory */
	set("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	set("/sys/kernel/mm/transparent_hugepage/defrag", "madvise");
	madvise(aligned, HUGE_PAGE, MADV_HUGEPAGE);
	memset(aligned, 0, HUGE_PAGE);
	if (mlock(aligned, HUGE_PAGE)) {
		fprintf(stderr, "dsa: mlock: %m\n");
		goto out;
	}
	dma->bus = physical(pagemap, aligned);
	ok = dma->bus != 0;
	for (size_t at = 0; ok && at < size; at += 4096)
		ok = physical(pagemap, aligned + at) == dma->bus + at;
	if (!ok) {
		fprintf(stderr, "dsa: no contiguous memory; it takes root, transparent huge pages and "
			"CONFIG_PROC_PAGE_MONITOR\n");
		goto out;
	}
	dma->memory = aligned;
	dma->size = size;
	if (aligned != memory)
		munmap(memory, aligned - memory);
	munmap(aligned + HUGE_PAGE, memory + HUGE_PAGE - aligned);
out:
	if (!ok && memory != MAP_FAILED)
		munmap(memory, 2 * HUGE_PAGE);
	if (pagemap >= 0)
		close(pagemap);
	return ok;
}

void dma_free(struct dma *dma)
{
	if (dma->memory)
		munmap(dma->memory, HUGE_PAGE);
	memset(dma, 0, sizeof(*dma));
}
