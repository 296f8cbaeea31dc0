// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kernel that is nothing but a test: two processors that give one accelerator work at the same time, through one
 * dedicated and one shared queue, each with its own IA32_PASID. Then it waits for a byte on the serial port, in
 * which time it may be saved and loaded elsewhere, and does it all once more.
 */
#include "second.h"

#define ROUNDS 5000
#define SLOTS 16		/* that a processor has in flight */
#define ENTRIES 64		/* of the dedicated queue: room for all */
#define SHARED_ENTRIES 8	/* of the shared one: not enough, so that some have to be retried */
#define PASID(cpu) (0x80000100u + (cpu))

struct slot {
	uint32_t descriptor[16] __attribute__((aligned(64)));
	volatile uint8_t record[32];
	uint32_t source[16];
	volatile uint32_t target[16];
	uint32_t pattern;
	bool prepared, busy;
};

static struct side {
	struct slot slots[SLOTS];
	uint32_t accepted, retried, wrong, lost;
	uint32_t pasid;			/* what this processor's register says */
} sides[2];

static volatile unsigned phase[2];	/* what each processor may begin; what the second one has ended */

static void write_pasid(uint32_t value)
{
	asm volatile("wrmsr" : : "c"(0xd93), "a"(value), "d"(0));
}

static uint32_t read_pasid(void)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0xd93));
	return low;
}

static bool enqueue(uint32_t portal, const uint32_t *descriptor)
{
	bool retry;

	asm volatile(".byte 0xf2, 0x0f, 0x38, 0xf8, 0x07; setz %0"
		     : "=q"(retry) : "a"(portal), "D"(descriptor) : "memory", "cc");
	return !retry;
}

static void store(uint32_t portal, const uint32_t *descriptor)
{
	asm volatile(".byte 0x66, 0x0f, 0x38, 0xf8, 0x07" : : "a"(portal), "D"(descriptor) : "memory");
}

/* A copy whose content nobody else has */
static void prepare(struct slot *s, uint32_t pattern)
{
	s->pattern = pattern;
	for (unsigned i = 0; i < 16; i++) {
		s->source[i] = pattern + i;
		s->target[i] = 0;
		s->descriptor[i] = 0;
	}
	s->record[0] = 0;
	s->descriptor[1] = 3u << 24 | 0xc;	/* memmove, record valid and requested */
	s->descriptor[2] = (uint32_t)s->record;
	s->descriptor[4] = (uint32_t)s->source;
	s->descriptor[6] = (uint32_t)s->target;
	s->descriptor[8] = sizeof(s->source);
	s->prepared = true;
}

static bool right(const struct slot *s)
{
	for (unsigned i = 0; i < 16; i++)
		if (s->target[i] != s->pattern + i)
			return false;
	return s->record[0] == 1;
}

static void work(unsigned cpu, unsigned wq)
{
	uint32_t portal = BAR2 + wq * 0x4000, begun = 0, done = 0;
	struct side *side = &sides[cpu];
	uint64_t until = now() + 300000000000;	/* for a machine that is very busy */

	side->pasid = read_pasid();
	side->accepted = side->retried = side->wrong = side->lost = 0;
	while (done < ROUNDS && now() < until) {
		for (unsigned i = 0; i < SLOTS; i++) {
			struct slot *s = &side->slots[i];

			if (s->busy && s->record[0]) {
				side->wrong += !right(s);
				s->busy = false;
				done++;
			}
			if (s->busy || (!s->prepared && begun == ROUNDS))
				continue;
			if (!s->prepared)
				prepare(s, ++begun << 8 | cpu << 7 | wq << 6);
			if (!wq) {
				store(portal, s->descriptor);
			} else if (!enqueue(portal, s->descriptor)) {
				side->retried++;
				continue;
			}
			side->accepted++;
			s->prepared = false;
			s->busy = true;
		}
		asm volatile("pause");
	}
	side->lost = ROUNDS - done;
}

void second(void)
{
	write_pasid(PASID(1));
	for (unsigned next = 1;; next++) {
		while (phase[0] < next)
			asm volatile("pause");
		work(1, (next - 1) % 2);
		phase[1] = next;
	}
}

static void tell(unsigned cpu)
{
	const struct side *side = &sides[cpu];

	put(" accepted ");
	put_number(side->accepted);
	put(" retried ");
	put_number(side->retried);
	put(" wrong ");
	put_number(side->wrong);
	put(" lost ");
	put_number(side->lost);
	put(" pasid ");
	put_number(side->pasid & 0xfffff);
}

static void both_queues(void)
{
	for (unsigned wq = 0; wq < 2; wq++) {
		unsigned now = ++phase[0];

		work(0, wq);
		while (phase[1] < now)
			asm volatile("pause");
		put(wq ? "shared:" : "dedicated:");
		tell(0);
		put(" and");
		tell(1);
		put("\n");
	}
}

void main(void)
{
	if (!set_up_accelerator(0xf, ENTRIES, SHARED_ENTRIES)) {
		put("no accelerator\n");
		outb(0xf4, 1);
	}
	write_pasid(PASID(0));
	wake_second();
	both_queues();
	put("waiting\n");
	while (!(inb(0x3fd) & 1))
		asm volatile("pause");
	inb(0x3f8);
	both_queues();
	put("end\n");
	while (!(inb(0x3fd) & 1))
		asm volatile("pause");
	outb(0xf4, 0);
	for (;;)
		asm volatile("hlt");
}
