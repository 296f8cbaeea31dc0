// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dsa-put: 64 bytes as they are into the portal of a work queue, under the feet of the driver that owns the device.
 * To see what driver and device make of descriptors that no client sends.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096UL
#define WORDS 8

static const char usage[] =
	"usage: dsa-put ADDRESS QUEUE COUNT WORD...\n"
	"\n"
	"Writes a descriptor COUNT times to the limited portal of work queue QUEUE of the DSA at PCI address ADDRESS, by\n"
	"MOVDIR64B. WORD: its 64-bit words from the first on; those that are not given are 0.\n"
	"Example: dsa-put 0000:00:03.0 0 1 0 0x8 (a no-op with an unaligned record)\n";

int main(int argc, char **argv)
{
	uint64_t descriptor[WORDS] __attribute__((aligned(64))) = { 0 };
	unsigned long queue, count;
	char path[128];
	uint8_t *portal;
	int fd;

	if (argc < 5 || argc > 4 + WORDS) {
		fputs(usage, stderr);
		return 2;
	}
	queue = strtoul(argv[2], NULL, 0);
	count = strtoul(argv[3], NULL, 0);
	for (int i = 4; i < argc; i++)
		descriptor[i - 4] = strtoull(argv[i], NULL, 0);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", argv[1]);
	fd = open(path, O_RDWR | O_CLOEXEC);
	portal = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (queue * 4 + 1) * PAGE);
	if (portal == MAP_FAILED) {
		fprintf(stderr, "dsa-put: %s: %m\n", path);
		return 1;
	}
	for (unsigned long i = 0; i < count; i++)
		asm volatile("sfence; .byte 0x66, 0x0f, 0x38, 0xf8, 0x02"	/* movdir64b (%rdx), %rax */
			     : : "a"(portal + i % 64 * 64), "d"(descriptor) : "memory");
	return 0;
}
