/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a kernel that is nothing but a test needs of the machine: ports, the first serial port, PCI, an idxd-dsa. */
#ifndef BARE_H
#define BARE_H

#include <stdbool.h>
#include <stdint.h>

static void outb(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static uint8_t inb(uint16_t port)
{
	uint8_t value;

	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static void outl(uint16_t port, uint32_t value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static uint32_t inl(uint16_t port)
{
	uint32_t value;

	asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void put(const char *text)
{
	for (; *text; text++) {
		while (!(inb(0x3fd) & 0x20))
			;
		outb(0x3f8, *text);
	}
}

static void put_number(uint32_t value)
{
	char text[11], *p = text + 10;

	*p = 0;
	do {
		*--p = '0' + value % 10;
		value /= 10;
	} while (value);
	put(p);
}

static volatile uint32_t *reg(uint32_t base, uint32_t offset) { return (volatile uint32_t *)(base + offset); }

static void pci_write(unsigned slot, unsigned offset, uint32_t value)
{
	outl(0xcf8, 0x80000000 | slot << 11 | offset);
	outl(0xcfc, value);
}

static unsigned pci_find(uint32_t id)
{
	for (unsigned slot = 0; slot < 32; slot++) {
		outl(0xcf8, 0x80000000 | slot << 11);
		if (inl(0xcfc) == id)
			return slot;
	}
	return 0;
}

/* where the accelerator's registers and portals go */
#define BAR0 0xd0000000
#define BAR2 0xd1000000
static bool command(uint32_t code, uint32_t operand)
{
	*reg(BAR0, 0xa0) = code << 20 | operand;
	while (*reg(BAR0, 0xa8) & 0x80000000)
		;
	return !(*reg(BAR0, 0xa8) & 0xff);
}

/* One group with these engines, a dedicated queue and, behind it, a shared one; entries are at most what they hold. */
static bool set_up_accelerator(uint32_t engines, uint32_t dedicated, uint32_t shared)
{
	unsigned slot = pci_find(0x0b258086);

	if (!slot)
		return false;
	pci_write(slot, 0x10, BAR0);
	pci_write(slot, 0x14, 0);
	pci_write(slot, 0x18, BAR2);
	pci_write(slot, 0x1c, 0);
	pci_write(slot, 4, 6);
	*reg(BAR0, 0x400) = 3;		/* group 0: both queues, */
	*reg(BAR0, 0x420) = engines;
	*reg(BAR0, 0x428) = 96u << 20;	/* all read buffers */
	for (unsigned wq = 0; wq < 2; wq++) {
		*reg(BAR0, 0x800 + wq * 32) = wq ? shared : dedicated;
		*reg(BAR0, 0x804 + wq * 32) = wq ? shared : 0;
		*reg(BAR0, 0x808 + wq * 32) = 10 << 4 | (wq ? 3 << 28 : 1);	/* shared: PASIDs, privileged too */
		*reg(BAR0, 0x80c + wq * 32) = 20 | 5 << 5;
	}
	return command(1, 0) && command(6, 0) && command(6, 1);
}

static uint64_t now(void)
{
	uint64_t value;

	asm volatile("rdtsc" : "=A"(value));
	return value;
}

#endif
