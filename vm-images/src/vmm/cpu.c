// SPDX-License-Identifier: GPL-2.0-or-later
/* The processor as the 64-bit boot protocol wants it: long mode, flat segments, the low 4 GiB mapped to themselves. */
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm.h"

#define GDT 0x500ULL
#define PAGE_TABLES 0x9000ULL		/* one page of each upper level, four of 2 MiB entries */
#define TABLE_ENTRIES 512
#define PRESENT 0x1ULL
#define WRITABLE 0x2ULL
#define LARGE 0x80ULL
#define CODE_SELECTOR 0x10
#define DATA_SELECTOR 0x18
#define CPUID_MAX 128

static void map_low(struct vm *vm)
{
	uint64_t *level4 = guest_memory(vm, PAGE_TABLES, 6 * 4096);
	uint64_t *level3 = level4 + TABLE_ENTRIES, *level2 = level3 + TABLE_ENTRIES;

	level4[0] = (PAGE_TABLES + 4096) | PRESENT | WRITABLE;
	for (uint64_t i = 0; i < 4; i++)
		level3[i] = (PAGE_TABLES + (2 + i) * 4096) | PRESENT | WRITABLE;
	for (uint64_t i = 0; i < 4 * TABLE_ENTRIES; i++)
		level2[i] = i << 21 | PRESENT | WRITABLE | LARGE;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment) {
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .s = 1, .g = 1, .l = code, .db = !code,
	};
}

static void set_registers(struct vm *vm, uint64_t entry)
{
	static const uint64_t gdt[] = { 0, 0, 0x00af9b000000ffffULL, 0x00cf93000000ffffULL };
	struct kvm_regs regs = { .rip = entry, .rsi = ZERO_PAGE, .rflags = 2 };
	struct kvm_sregs sregs;

	memcpy(guest_memory(vm, GDT, sizeof(gdt)), gdt, sizeof(gdt));
	if (ioctl(vm->vcpu, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS: %m");
	sregs.cs = segment(CODE_SELECTOR, 11, true);
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = segment(DATA_SELECTOR, 3, false);
	sregs.gdt.base = GDT;
	sregs.gdt.limit = sizeof(gdt) - 1;
	sregs.cr0 = 0x80050033;		/* PG, AM, WP, NE, ET, MP, PE */
	sregs.cr3 = PAGE_TABLES;
	sregs.cr4 = 0x20;		/* PAE */
	sregs.efer = 0x500;		/* LMA, LME */
	if (ioctl(vm->vcpu, KVM_SET_SREGS, &sregs) || ioctl(vm->vcpu, KVM_SET_REGS, &regs))
		die("KVM_SET_REGS: %m");
}

/* What KVM supports, with a timer by deadline, which needs no calibration, and without further virtualisation. */
static void set_cpuid(struct vm *vm)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[CPUID_MAX];
	} leaves = { .head.nent = CPUID_MAX };

	if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, &leaves))
		die("KVM_GET_SUPPORTED_CPUID: %m");
	for (uint32_t i = 0; i < leaves.head.nent; i++) {
		struct kvm_cpuid_entry2 *leaf = &leaves.entry[i];

		if (leaf->function == 1) {
			leaf->ebx &= 0xffff;		/* the only processor: APIC 0 */
			leaf->ecx |= 1U << 24 | 1U << 31;	/* timer by deadline, a hypervisor */
		} else if (leaf->function == 0x80000001) {
			leaf->ecx &= ~(1U << 2);	/* SVM */
		}
	}
	if (ioctl(vm->vcpu, KVM_SET_CPUID2, &leaves))
		die("KVM_SET_CPUID2: %m");
}

void cpu_init(struct vm *vm, uint64_t entry)
{
	map_low(vm);
	set_cpuid(vm);
	set_registers(vm, entry);
}
