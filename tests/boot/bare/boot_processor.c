// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kernel that is nothing but a test: what the floating point unit of the second processor does to the first one,
 * which is to have IGNNE# as port F0h left it, and to enter and leave a virtual machine again and again. One page is
 * another one in the machine than outside: whoever sees the wrong one has lost, or kept, its nested page tables.
 */
#include "second.h"

#define ROUNDS 100000
#define WINDOW 0x1000000	/* this page; nested page tables put the one at BEHIND here */
#define BEHIND 0x1400000
#define OUTSIDE 0x07515d3
#define INSIDE 0x1451de

/* the virtual machine: paging is off, so nested page tables alone decide what it reads */
asm(".text" U "virtual: mov 0x1000000, %eax; vmmcall");
extern const uint8_t virtual[];

/* PAE, pages of 2 MiB: four directories, and the entries that name them */
static struct tables {
	uint64_t directories[2048], top[4];
} outer __attribute__((aligned(4096))), nested __attribute__((aligned(4096)));
static uint8_t control[4096] __attribute__((aligned(4096))), host[4096] __attribute__((aligned(4096)));
static uint32_t clean[7];		/* a floating point environment without an exception */
static volatile unsigned order, loops;	/* to the second processor, and how often it has cleared its exceptions */

void second(void)
{
	uint32_t environment[7];

	asm volatile("fninit; fnstenv %0" : "=m"(environment));
	for (;;) {
		if (order == 1) {
			outb(0xf0, 0);
			order = 2;
		}
		asm volatile("fldenv %0" : : "m"(environment));
		loops++;
	}
}

/* --- FERR# and IGNNE# -------------------------------------------------------------------------------------- */

/* Does an exception that is pending raise interrupt 13? */
static bool raised(void)
{
	outb(0xa0, 0x11);		/* the interrupt controller forgets what it has seen */
	outb(0xa1, 8);
	outb(0xa1, 2);
	outb(0xa1, 1);
	asm volatile("fwait");
	outb(0xa0, 0x0a);
	return inb(0xa0) & 0x20;
}

static void divide_by_zero(void)
{
	uint16_t word = 0x37b;

	asm volatile("fldenv %0; fldcw %1; fld1; fldz; fdivrp" : : "m"(clean), "m"(word));
}

static void answer(const char *question, unsigned value)
{
	put(question);
	put_number(value);
	put("\n");
}

static void pins(void)
{
	unsigned before;
	bool later = false;
	uint64_t until;

	asm volatile("fninit; fnstenv %0" : "=m"(clean));
	divide_by_zero();
	answer("raised ", raised());
	outb(0xf0, 0);
	answer("ignored ", !raised());
	divide_by_zero();
	answer("raised again ", raised());
	order = 1;
	while (order == 1)
		asm volatile("pause");
	for (until = now() + 10000000000; raised() && now() < until;)
		;
	answer("ignored by order of the other ", !raised());
	for (before = loops; loops - before < 100000;)
		later |= raised();
	answer("raised while the other clears its own ", later);
	asm volatile("fldenv %0" : : "m"(clean));
}

/* --- the virtual machine ------------------------------------------------------------------------------------ */

#define CONTROL(offset, type) (*(volatile type *)(control + (offset)))

static void set_msr(uint32_t number, uint32_t value)
{
	asm volatile("wrmsr" : : "c"(number), "a"(value), "d"(0));
}

static void identity(struct tables *tables)
{
	for (uint32_t i = 0; i < 2048; i++)
		tables->directories[i] = i << 21 | 0xe7;
	for (unsigned i = 0; i < 4; i++)
		tables->top[i] = (uint32_t)&tables->directories[512 * i] | 1;
}

static void prepare(void)
{
	identity(&outer);
	identity(&nested);
	nested.directories[WINDOW >> 21] = BEHIND | 0xe7;
	*reg(WINDOW, 0) = OUTSIDE;
	*reg(BEHIND, 0) = INSIDE;
	asm volatile("mov %0, %%cr3; mov %%cr4, %%eax; or $0x20, %%eax; mov %%eax, %%cr4;"
		     "mov %%cr0, %%eax; or $0x80000000, %%eax; mov %%eax, %%cr0" : : "r"(outer.top) : "eax", "memory");
	set_msr(0xc0000080, 1 << 12);		/* EFER.SVME */
	set_msr(0xc0010117, (uint32_t)host);	/* VM_HSAVE_PA */
	CONTROL(0x10, uint32_t) = 3;		/* VMRUN, VMMCALL */
	CONTROL(0x58, uint32_t) = 1;		/* ASID */
	CONTROL(0x90, uint32_t) = 1;		/* nested paging */
	CONTROL(0xb0, uint32_t) = (uint32_t)nested.top;
	for (unsigned segment = 0x400; segment < 0x440; segment += 16) {
		CONTROL(segment, uint32_t) = segment == 0x410 ? 0xc9b0008 : 0xc930010;
		CONTROL(segment + 4, uint32_t) = 0xffffffff;
	}
	CONTROL(0x4d0, uint32_t) = 1 << 12;	/* EFER */
	CONTROL(0x558, uint32_t) = 0x11;	/* CR0 */
	CONTROL(0x560, uint32_t) = 0x400;	/* DR7 */
	CONTROL(0x568, uint32_t) = 0xffff0ff0;	/* DR6 */
	CONTROL(0x570, uint32_t) = 2;		/* RFLAGS */
}

static void machines(void)
{
	unsigned entered = 0, inside = 0, outside = 0, before = loops;

	prepare();
	while (entered < ROUNDS) {
		CONTROL(0x578, uint32_t) = (uint32_t)virtual;
		asm volatile("vmrun" : : "a"(control) : "memory", "cc");
		if (CONTROL(0x70, uint32_t) != 0x81) {
			answer("exit ", CONTROL(0x70, uint32_t));
			break;
		}
		entered++;
		inside += CONTROL(0x5f8, uint32_t) != INSIDE;
		outside += *reg(WINDOW, 0) != OUTSIDE;
	}
	answer("entered ", entered);
	answer("wrong inside ", inside);
	answer("wrong outside ", outside);
	answer("loops of the other ", loops - before);
}

void main(void)
{
	wake_second();
	while (!loops)
		asm volatile("pause");
	pins();
	machines();
	outb(0xf4, 0);
	for (;;)
		asm volatile("hlt");
}
