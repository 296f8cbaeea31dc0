// SPDX-License-Identifier: GPL-2.0-or-later
/* Where Linux without ACPI learns of its processor and of the I/O APIC: MultiProcessor Specification 1.4, chapter 4. */
#include <string.h>

#include "vmm.h"

#define TABLE (EBDA_START + 16)
#define LOCAL_APIC 0xfee00000U
#define IO_APIC 0xfec00000U
#define IO_APIC_ID 1
#define APIC_VERSION 0x14
#define ISA_INTERRUPTS 16

struct floating_pointer {
	char signature[4];
	uint32_t table;
	uint8_t length, revision, checksum, features[5];
} __attribute__((packed));

struct header {
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t local_apic;
	uint16_t extended_length;
	uint8_t extended_checksum, reserved;
} __attribute__((packed));

struct processor {
	uint8_t type, id, version, flags;
	uint32_t signature, features, reserved[2];
} __attribute__((packed));

struct bus {
	uint8_t type, id;
	char name[6];
} __attribute__((packed));

struct io_apic {
	uint8_t type, id, version, flags;
	uint32_t address;
} __attribute__((packed));

struct assignment {
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, irq, apic, pin;
} __attribute__((packed));

static uint8_t checksum(const void *data, size_t size)
{
	const uint8_t *at = data;
	uint8_t sum = 0;

	while (size--)
		sum += *at++;
	return -sum;
}

static void *append(void *end, const void *entry, size_t size)
{
	memcpy(end, entry, size);
	return (char *)end + size;
}

void write_mptable(struct vm *vm)
{
	struct floating_pointer *pointer = guest_memory(vm, EBDA_START, sizeof(*pointer));
	struct header *header = guest_memory(vm, TABLE, BASE_MEMORY_END - TABLE);
	struct processor processor = { .type = 0, .id = 0, .version = APIC_VERSION, .flags = 3, .signature = 0x600,
				       .features = 0x201 };	/* usable, the first; FPU and APIC */
	struct bus bus = { .type = 1, .id = 0, .name = "ISA   " };
	struct io_apic apic = { .type = 2, .id = IO_APIC_ID, .version = APIC_VERSION, .flags = 1, .address = IO_APIC };
	void *end = header + 1;

	end = append(end, &processor, sizeof(processor));
	end = append(end, &bus, sizeof(bus));
	end = append(end, &apic, sizeof(apic));
	header->entries = 3;
	for (uint8_t irq = 0; irq < ISA_INTERRUPTS; irq++) {
		struct assignment line = { .type = 3, .irq = irq, .apic = IO_APIC_ID, .pin = irq };

		end = append(end, &line, sizeof(line));
		header->entries++;
	}
	for (uint8_t kind = 1; kind <= 3; kind += 2) {	/* local: NMI on pin 1, the old controller on pin 0 */
		struct assignment line = { .type = 4, .kind = kind, .apic = kind == 1 ? 0xff : 0, .pin = kind == 1 };

		end = append(end, &line, sizeof(line));
		header->entries++;
	}
	memcpy(header->signature, "PCMP", 4);
	memcpy(header->oem, "PARAKSM ", 8);
	memcpy(header->product, "FLEET       ", 12);
	header->revision = 4;
	header->local_apic = LOCAL_APIC;
	header->length = (char *)end - (char *)header;
	header->checksum = checksum(header, header->length);
	memcpy(pointer->signature, "_MP_", 4);
	pointer->table = TABLE;
	pointer->length = 1;
	pointer->revision = 4;
	pointer->checksum = checksum(pointer, sizeof(*pointer));
}
