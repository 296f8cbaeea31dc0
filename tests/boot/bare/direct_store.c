// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kernel that is nothing but a test: the direct stores in 32-bit protected mode at CPL 0, where segments have bases,
 * addresses may be 16 bits wide, IA32_PASID can be written and ENQCMDS works; and what devices get to see of them.
 * The machine has an idxd-dsa and an edu device. Writes to the first serial port, ends by isa-debug-exit at 0xf4.
 */
#include <stdbool.h>
#include <stdint.h>

#include "bare.h"

#define U "\n\t"

/* QEMU starts ELF kernels with this note in 32-bit protected mode, paging off */
asm(".pushsection .note.Xen, \"a\", @note" U ".balign 4" U ".long 4, 4, 18" U ".asciz \"Xen\"" U ".long _start" U
    ".popsection" U
    ".text" U ".globl _start" U "_start: cli; mov $stack_end, %esp; call main; 1: hlt; jmp 1b" U
    /* exception: keep vector and error code, go where the instruction under test said */
    "vector_6: pushl $0; pushl $6; jmp fault" U
    "vector_13: pushl $13; jmp fault" U
    "vector_14: pushl $14; jmp fault" U
    "fault: popl fault_vector; popl fault_code; mov resume_stack, %esp; jmp *resume_at");

static uint8_t stack[16384] __attribute__((used, aligned(16)));
asm(".globl stack_end" U ".set stack_end, stack + 16384");

uint32_t fault_vector, fault_code, resume_stack, resume_at;
void _start(void), vector_6(void), vector_13(void), vector_14(void);

static unsigned checks, failures;

static void check_(bool ok, const char *what, unsigned line)
{
	checks++;
	if (ok)
		return;
	failures++;
	put("not ok: line ");
	put_number(line);
	put(": ");
	put(what);
	put(" (vector ");
	put_number(fault_vector);
	put(")\n");
}
#define check(condition) check_(condition, #condition, __LINE__)

/* --- segments, exceptions, MSR ---------------------------------------------------------------------------- */

#define ES_BASE 0x300000
#define FLAT 0x10
#define BASED 0x18

static uint64_t gdt[] = {
	0,
	0x00cf9b000000ffff,
	0x00cf93000000ffff,
	0x00cf93000000ffff | ((uint64_t)(ES_BASE & 0xffffff) << 16),
};
static uint64_t idt[32];

static void gate(unsigned vector, void (*handler)(void))
{
	uint32_t at = (uint32_t)handler;

	idt[vector] = ((uint64_t)((at & 0xffff0000) | 0x8e00) << 32) | 0x80000 | (at & 0xffff);
}

static void set_up(void)
{
	struct { uint16_t limit; uint32_t base; } __attribute__((packed)) g = { sizeof(gdt) - 1, (uint32_t)gdt },
		i = { sizeof(idt) - 1, (uint32_t)idt };

	gate(6, vector_6);
	gate(13, vector_13);
	gate(14, vector_14);
	asm volatile("lgdt %0; lidt %1; ljmp $8, $1f; 1: mov %2, %%ds; mov %2, %%es; mov %2, %%ss; mov %2, %%fs; mov %2, %%gs"
		     : : "m"(g), "m"(i), "r"(FLAT) : "memory");
}

#define FLAGS 0x8d5
#define ZF 0x40

/* One instruction with EAX, EDI and this ES, all flags set; the flags after it, or what faulted in fault_vector */
#define RUN(selector, a, d, bytes) ({                                                                                 \
	uint32_t f_ = FLAGS | 2;                                                                                      \
	fault_vector = 0;                                                                                             \
	asm volatile("push %0; mov %3, %%es; mov %%esp, resume_stack; movl $2f, resume_at; popf; .byte " bytes U      \
		     "pushf; jmp 3f; 2: nop; 3: pop %0; mov %4, %%es"                                                 \
		     : "+b"(f_) : "a"((uint32_t)(a)), "D"((uint32_t)(d)), "r"(selector), "r"(FLAT) : "memory", "cc"); \
	f_ & FLAGS;                                                                                                   \
})
#define MOVDIR64B "0x66, 0x0f, 0x38, 0xf8, 0x07" /* eax, [edi] */
#define ENQCMD "0xf2, 0x0f, 0x38, 0xf8, 0x07"
#define ENQCMDS "0xf3, 0x0f, 0x38, 0xf8, 0x07"

static void write_pasid(uint32_t high, uint32_t low)
{
	fault_vector = 0;
	asm volatile("mov %%esp, resume_stack; movl $1f, resume_at; wrmsr; 1:"
		     : : "c"(0xd93), "a"(low), "d"(high) : "memory");
}

static uint64_t read_pasid(void)
{
	uint64_t value = 0;

	fault_vector = 0;
	asm volatile("mov %%esp, resume_stack; movl $1f, resume_at; rdmsr; 1:" : "+A"(value) : "c"(0xd93) : "memory");
	return value;
}

static uint8_t dst[256] __attribute__((aligned(64)));
static uint32_t src[64] __attribute__((aligned(64)));

static void fill(void)
{
	for (unsigned i = 0; i < sizeof(dst); i++)
		dst[i] = 0xee;
	for (unsigned i = 0; i < 64; i++)
		src[i] = i ? 0x01010101 * i : 0;
}

static bool same(const void *a, const void *b)
{
	const uint8_t *x = a, *y = b;

	for (unsigned i = 0; i < 64; i++)
		if (x[i] != y[i])
			return false;
	return true;
}

static bool untouched(void)
{
	for (unsigned i = 0; i < sizeof(dst); i++)
		if (dst[i] != 0xee)
			return false;
	return true;
}

static void test_segments(void)
{
	fill();
	check(RUN(FLAT, dst, src, MOVDIR64B) == FLAGS && !fault_vector && same(dst, src));
	fill();
	RUN(BASED, (uint32_t)dst - ES_BASE, src, MOVDIR64B);
	check(!fault_vector && same(dst, src));
	fill();
	/* overrides say where the source is; the destination stays in ES */
	RUN(BASED, (uint32_t)dst - ES_BASE, src, "0x3e, " MOVDIR64B);
	check(!fault_vector && same(dst, src));
	fill();
	RUN(BASED, (uint32_t)dst - ES_BASE, (uint32_t)src - ES_BASE, "0x26, " MOVDIR64B);
	check(!fault_vector && same(dst, src));
	/* the linear address has to be aligned, not the offset */
	gdt[3] += 32ull << 16;
	fill();
	RUN(BASED, (uint32_t)dst - ES_BASE, src, MOVDIR64B);
	check(fault_vector == 13 && fault_code == 0 && untouched());
	RUN(BASED, (uint32_t)dst - ES_BASE - 32, src, MOVDIR64B);
	check(!fault_vector && same(dst, src));
	gdt[3] -= 32ull << 16;

	/* 16-bit addresses: ax, [di] */
	uint32_t *low = (uint32_t *)0x2000;

	fill();
	for (unsigned i = 0; i < 16; i++)
		low[i] = 0xabcd0000 + i;
	RUN(BASED, 0xdead3000, 0xbeef2000, "0x67, 0x66, 0x0f, 0x38, 0xf8, 0x05");
	check(!fault_vector && same((void *)(ES_BASE + 0x3000), low));
	RUN(FLAT, dst, src, "0xf0, " MOVDIR64B);
	check(fault_vector == 6);
	RUN(FLAT, dst, src, "0x66, 0x0f, 0x38, 0xf8, 0xc7");
	check(fault_vector == 6 && untouched());
}

static void test_pasid(void)
{
	check(read_pasid() == 0 && !fault_vector);
	fill();
	RUN(FLAT, dst, src, ENQCMD);
	check(fault_vector == 13 && fault_code == 0);
	write_pasid(1, 0x80000001);
	check(fault_vector == 13);
	for (unsigned bit = 20; bit < 31; bit++) {
		write_pasid(0, 0x80000001 | 1u << bit);
		check(fault_vector == 13);
	}
	write_pasid(0, 0x12345); /* a PASID that is not valid */
	check(!fault_vector && read_pasid() == 0x12345);
	RUN(FLAT, dst, src, ENQCMD);
	check(fault_vector == 13);
	write_pasid(0, 0x80012345);
	check(!fault_vector && read_pasid() == 0x80012345);
	check(untouched());
}

/* Memory does not answer a deferrable write: retry, all other flags clear, nothing stored */
static void test_enqueue_memory(void)
{
	fill();
	check(RUN(FLAT, dst, src, ENQCMD) == ZF && !fault_vector);
	check(RUN(FLAT, dst, src, "0xf2, 0x66, 0x0f, 0x38, 0xf8, 0x07") == ZF && !fault_vector);
	check(RUN(FLAT, dst, src, ENQCMDS) == ZF && !fault_vector);
	RUN(FLAT, dst + 8, src, ENQCMD);
	check(fault_vector == 13);
	RUN(FLAT, dst + 8, src, ENQCMDS);
	check(fault_vector == 13);
	for (unsigned bit = 0; bit < 32; bit++) {
		src[0] = 1u << bit;
		RUN(FLAT, dst, src, ENQCMD);
		check(fault_vector == 13);
		RUN(FLAT, dst, src, ENQCMDS);
		check(fault_vector == (bit >= 20 && bit < 31 ? 13 : 0));
	}
	RUN(FLAT, dst, src, "0xf0, " ENQCMDS);
	check(fault_vector == 6);
	RUN(FLAT, dst, src, "0xf3, 0x0f, 0x38, 0xf8, 0xc7");
	check(fault_vector == 6);
	RUN(FLAT, dst, src, "0xf2, 0x0f, 0x38, 0xf8, 0xc7");
	check(fault_vector == 6 && untouched());
}

/* --- devices ------------------------------------------------------------------------------------------------ */

#define EDU 0xd2000000
#define SHARED_LIMIT 4

/* A device without the interface gets eight writes of 8 bytes */
static void test_plain_device(void)
{
	unsigned slot = pci_find(0x11e81234);

	check(slot);
	pci_write(slot, 0x10, EDU);
	pci_write(slot, 4, 6);
	fill();
	src[6] = 0;
	RUN(FLAT, EDU + 0x80, src, MOVDIR64B);
	check(!fault_vector);
	/* source, destination and count of its DMA, 8 bytes each; the fourth is a command whose bit 0 is clear */
	check(*reg(EDU, 0x80) == src[0] && *reg(EDU, 0x88) == src[2] && *reg(EDU, 0x90) == src[4]);
	check(RUN(FLAT, EDU + 0x80, src, ENQCMD) == ZF && !fault_vector);
	check(RUN(FLAT, EDU + 0x80, src, ENQCMDS) == ZF && !fault_vector);
}

static uint8_t record[32] __attribute__((aligned(32)));

static uint32_t *noop(uint32_t dword0)
{
	fill();
	for (unsigned i = 0; i < 16; i++)
		src[i] = 0;
	src[0] = dword0;
	src[1] = 0xc; /* no operation, completion record valid and requested */
	src[2] = (uint32_t)record;
	*(volatile uint8_t *)record = 0;
	return src;
}

static bool completed(void)
{
	uint64_t until = now() + 100000000;

	while (!*(volatile uint8_t *)record && now() < until)
		;
	return *(volatile uint8_t *)record == 1;
}

static void test_accelerator(void)
{
	unsigned accepted = 0, refused = 0;

	check(pci_find(0x0b258086));
	check(set_up_accelerator(1, 16, SHARED_LIMIT));

	check(RUN(FLAT, BAR2, noop(0), MOVDIR64B) == FLAGS && !fault_vector && completed());
	/* a dedicated queue takes no deferrable write */
	check(RUN(FLAT, BAR2, noop(0), ENQCMDS) == ZF && !*(volatile uint8_t *)record);
	/* a shared one does, from the supervisor and with the PASID of IA32_PASID */
	check(RUN(FLAT, BAR2 + 0x4000, noop(0x80000001), ENQCMDS) == 0 && completed());
	check(RUN(FLAT, BAR2 + 0x4000, noop(0), ENQCMD) == 0 && completed());
	/* until it is full */
	noop(0x80000001);
	for (unsigned i = 0; i < 4 * SHARED_LIMIT; i++) {
		uint32_t flags = RUN(FLAT, BAR2 + 0x4000, src, ENQCMDS);

		check(flags == 0 || flags == ZF);
		accepted += flags == 0;
		refused += flags == ZF;
	}
	check(completed() && accepted >= SHARED_LIMIT);
	put("refused ");
	put_number(refused);
	put("\n");
}

/*
 * From the store to the record, in ticks. The store ends its block of translated code, wherever in it it stands, so
 * with instructions counted the figures differ by no more than a round of the loop that polls.
 */
static void test_time(void)
{
	uint32_t least = ~0u, most = 0;

#define ONE(pad) ({                                                                                                   \
	noop(0);                                                                                                      \
	asm volatile(".skip " #pad ", 0x90; .byte " MOVDIR64B : : "a"(BAR2), "D"(src) : "memory");                    \
	uint64_t start_ = now();                                                                                      \
	while (!*(volatile uint8_t *)record)                                                                          \
		;                                                                                                     \
	uint32_t ticks_ = now() - start_;                                                                             \
	least = ticks_ < least ? ticks_ : least;                                                                      \
	most = ticks_ > most ? ticks_ : most;                                                                         \
})
	ONE(1); ONE(2); ONE(3); ONE(5); ONE(8); ONE(13); ONE(21); ONE(34); ONE(55); ONE(89);
	put("latency ");
	put_number(least);
	put(" to ");
	put_number(most);
	put(" ticks\n");
}

void main(void)
{
	set_up();
	test_segments();
	test_pasid();
	test_enqueue_memory();
	test_plain_device();
	test_accelerator();
	test_time();
	put(failures ? "not ok: " : "ok: ");
	put_number(checks);
	put(" checks, ");
	put_number(failures);
	put(" failed\n");
	outb(0xf4, failures ? 1 : 0);
	for (;;)
		asm volatile("hlt");
}
