/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The start of a kernel with two processors: main() runs on the first one, second() on the one that it wakes. */
#ifndef SECOND_H
#define SECOND_H

#include "bare.h"

#define TRAMPOLINE 0x8000

#define U "\n\t"

asm(".pushsection .note.Xen, \"a\", @note" U ".balign 4" U ".long 4, 4, 18" U ".asciz \"Xen\"" U ".long _start" U
    ".popsection" U
    ".text" U ".globl _start" U "_start: cli; mov $stack_end, %esp; call main; 1: hlt; jmp 1b" U
    /* the second processor wakes up in real mode, in a copy of this */
    ".code16" U "trampoline: cli; xor %ax, %ax; mov %ax, %ds" U "lgdtl (0x8000 + 3f - trampoline)" U
    "mov %cr0, %eax; or $1, %eax; mov %eax, %cr0; ljmpl $8, $2f" U "3: .word 23; .long gdt" U "trampoline_end:" U
    ".code32" U "2: mov $16, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov $second_stack_end, %esp" U
    "call second; 1: hlt; jmp 1b");

static uint8_t stack[16384] __attribute__((used, aligned(16)));
static uint8_t second_stack[16384] __attribute__((used, aligned(16)));
asm(".set stack_end, stack + 16384" U ".set second_stack_end, second_stack + 16384");

uint64_t gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
extern const uint8_t trampoline[], trampoline_end[];
void _start(void), second(void), main(void);

static void wake_second(void)
{
	volatile uint32_t *apic = (volatile uint32_t *)0xfee00000;

	for (unsigned i = 0; i < (unsigned)(trampoline_end - trampoline); i++)
		((volatile uint8_t *)TRAMPOLINE)[i] = trampoline[i];
	apic[0xf0 / 4] = 0x1ff;
	apic[0x310 / 4] = 1u << 24;
	apic[0x300 / 4] = 0x4500;	/* INIT */
	for (uint64_t until = now() + 10000000; now() < until;)
		;
	apic[0x310 / 4] = 1u << 24;
	apic[0x300 / 4] = 0x4600 | TRAMPOLINE >> 12;
}

#endif
