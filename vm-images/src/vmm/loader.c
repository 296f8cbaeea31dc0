// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Linux in memory, by the 64-bit boot protocol (Linux: Documentation/x86/boot.rst): the segments of vmlinux, moved to a
 * random virtual address as the kernel's own decompressor would do, the initramfs, the zero page.
 */
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mix64.h"
#include "vmm.h"

#define COMMAND_LINE 0x20000ULL
#define COMMAND_LINE_SIZE 2048
#define SETUP_DATA 0x21000ULL
#define KERNEL_MAP 0xffffffff80000000ULL	/* __START_KERNEL_map */
#define KERNEL_SPACE (1ULL << 30)	/* of virtual addresses for the kernel's image */
#define KERNEL_ALIGN (2ULL << 20)

#ifndef SETUP_RNG_SEED
#define SETUP_RNG_SEED 9
#endif

/* SplitMix64 (Steele, Lea, Flood 2014) */
uint64_t random_word(uint64_t *state)
{
	return mix64(*state += MIX64_STEP);
}

static int open_file(const char *path, uint64_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %m", path);
	*size = st.st_size;
	return fd;
}

static void read_at(int fd, const char *path, void *to, uint64_t size, uint64_t offset)
{
	for (uint64_t done = 0; done < size;) {
		ssize_t n = pread(fd, (char *)to + done, size - done, offset + done);

		if (n <= 0)
			die("%s: %s", path, n ? strerror(errno) : "shorter than it says");
		done += n;
	}
}

static void *need(const struct vm *vm, uint64_t address, uint64_t size, const char *what)
{
	void *at = guest_memory(vm, address, size);

	if (!at)
		die("%s does not fit into %llu MiB of memory", what, (unsigned long long)vm->options.memory >> 20);
	return at;
}

/* The first word at a kernel address of the link; the kernel lies where it was linked to lie. */
static void *linked(const struct vm *vm, int32_t address, size_t size)
{
	void *at = guest_memory(vm, (uint64_t)(int64_t)address - KERNEL_MAP, size);

	if (!at)
		die("%s: relocation outside of the kernel: %x", vm->options.relocs, (unsigned int)address);
	return at;
}

/*
 * vmlinux.relocs (Linux: arch/x86/tools/relocs.c): a zero, addresses of 64-bit words, a zero, addresses of 32-bit words
 * that are relative to per-CPU data and so move the other way, a zero, addresses of 32-bit words.
 */
static void relocate(const struct vm *vm, uint64_t shift)
{
	uint64_t size;
	int fd = open_file(vm->options.relocs, &size);
	int32_t address;
	FILE *file = fdopen(fd, "r");
	int kind = -1;

	while (file && fread(&address, sizeof(address), 1, file) == 1) {
		uint64_t wide;
		uint32_t narrow;

		if (!address) {
			kind++;
			continue;
		}
		if (kind < 0 || kind > 2)
			die("%s is no table of relocations", vm->options.relocs);
		if (!kind) {
			memcpy(&wide, linked(vm, address, 8), 8);
			wide += shift;
			memcpy(linked(vm, address, 8), &wide, 8);
			continue;
		}
		memcpy(&narrow, linked(vm, address, 4), 4);
		narrow += kind == 1 ? -(uint32_t)shift : (uint32_t)shift;
		memcpy(linked(vm, address, 4), &narrow, 4);
	}
	if (kind != 2)
		die("%s ends early", vm->options.relocs);
	fclose(file);
}

static uint64_t load_kernel(struct vm *vm, uint64_t *end)
{
	const char *path = vm->options.kernel;
	uint64_t size;
	int fd = open_file(path, &size);
	Elf64_Ehdr elf;

	read_at(fd, path, &elf, sizeof(elf), 0);
	if (memcmp(elf.e_ident, ELFMAG, SELFMAG) || elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_machine != EM_X86_64)
		die("%s is no vmlinux for x86-64", path);
	*end = 0;
	for (int i = 0; i < elf.e_phnum; i++) {
		Elf64_Phdr part;

		read_at(fd, path, &part, sizeof(part), elf.e_phoff + i * elf.e_phentsize);
		if (part.p_type != PT_LOAD)
			continue;
		read_at(fd, path, need(vm, part.p_paddr, part.p_memsz, "the kernel"), part.p_filesz, part.p_offset);
		if (part.p_paddr + part.p_memsz > *end)
			*end = part.p_paddr + part.p_memsz;
	}
	close(fd);
	return elf.e_entry;
}

/* At the end of low memory: the kernel and its first page tables are far away. */
static void load_initramfs(struct vm *vm, struct boot_params *boot, uint64_t kernel_end)
{
	uint64_t size, low = vm->options.memory < GAP_START ? vm->options.memory : GAP_START, at;
	int fd;

	if (!vm->options.initramfs)
		return;
	fd = open_file(vm->options.initramfs, &size);
	at = size < low ? (low - size) & ~0xfffULL : 0;
	if (at < kernel_end)
		die("the initramfs does not fit into %llu MiB of memory", (unsigned long long)vm->options.memory >> 20);
	read_at(fd, vm->options.initramfs, need(vm, at, size, "the initramfs"), size, 0);
	close(fd);
	boot->hdr.ramdisk_image = at;
	boot->hdr.ramdisk_size = size;
}

static void add_range(struct boot_params *boot, uint64_t from, uint64_t to, uint32_t type)
{
	struct boot_e820_entry *entry = &boot->e820_table[boot->e820_entries];

	if (from >= to)
		return;
	boot->e820_entries++;
	entry->addr = from;
	entry->size = to - from;
	entry->type = type;
}

/* The guest's own random numbers start from ours, so that equal seeds make equal guests. */
static void seed_random(struct vm *vm, struct boot_params *boot, uint64_t *random)
{
	struct setup_data *data = need(vm, SETUP_DATA, sizeof(*data) + 32, "the seed");

	data->type = SETUP_RNG_SEED;
	data->len = 32;
	for (int i = 0; i < 4; i++) {
		uint64_t word = random_word(random);

		memcpy(data->data + i * 8, &word, 8);
	}
	boot->hdr.setup_data = SETUP_DATA;
}

uint64_t load_linux(struct vm *vm)
{
	struct boot_params *boot = need(vm, ZERO_PAGE, sizeof(*boot), "the zero page");
	char *words = need(vm, COMMAND_LINE, COMMAND_LINE_SIZE, "the command line");
	uint64_t memory = vm->options.memory, random = vm->options.seed, end;
	uint64_t entry = load_kernel(vm, &end), first = entry & ~(KERNEL_ALIGN - 1);

	if (strlen(vm->options.words) >= COMMAND_LINE_SIZE)
		die("a command line of more than %d bytes", COMMAND_LINE_SIZE - 1);
	strcpy(words, vm->options.words);
	boot->hdr.boot_flag = 0xaa55;
	boot->hdr.header = 0x53726448;	/* "HdrS" */
	boot->hdr.version = 0x20f;
	boot->hdr.type_of_loader = 0xff;
	boot->hdr.loadflags = LOADED_HIGH;
	boot->hdr.kernel_alignment = KERNEL_ALIGN;
	boot->hdr.cmd_line_ptr = COMMAND_LINE;
	boot->hdr.cmdline_size = COMMAND_LINE_SIZE - 1;
	add_range(boot, 0, EBDA_START, 1);
	add_range(boot, EBDA_START, BASE_MEMORY_END, 2);
	add_range(boot, HIGH_MEMORY, memory < GAP_START ? memory : GAP_START, 1);
	add_range(boot, GAP_END, memory < GAP_START ? 0 : memory - GAP_START + GAP_END, 1);
	load_initramfs(vm, boot, end);
	seed_random(vm, boot, &random);
	if (vm->options.relocs) {
		uint64_t places = (KERNEL_SPACE - end) / KERNEL_ALIGN - first / KERNEL_ALIGN;

		boot->hdr.loadflags |= KASLR_FLAG;
		vm->shift = random_word(&random) % places * KERNEL_ALIGN;
		relocate(vm, vm->shift);
	}
	return entry;
}
