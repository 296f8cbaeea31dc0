// SPDX-License-Identifier: GPL-2.0-or-later
/* Random numbers and pages, both functions of the seed alone. */
#include <string.h>

#include "storm.h"

#define POOL 48			/* contents that many pages have */
#define LAST (PAGE_WORDS - 1)

uint64_t draw(struct random *random)
{
	return mix64(random->state += 0x9e3779b97f4a7c15ULL);
}

unsigned long below(struct random *random, unsigned long limit)
{
	return draw(random) % limit;
}

bool one_in(struct random *random, unsigned long n)
{
	return !below(random, n);
}

void choose(struct random *random, const char *list, char *out, size_t size)
{
	unsigned long n = 1, length;

	for (const char *at = list; *at; at++)
		n += *at == ',';
	for (n = below(random, n); n; n--)
		list = strchr(list, ',') + 1;
	length = strcspn(list, ",");
	if (length >= size)
		length = size - 1;
	memcpy(out, list, length);
	out[length] = 0;
}

/* Most pages have likes, some are zero, some are the only ones of their kind. */
uint32_t content_draw(struct random *random)
{
	unsigned long die = below(random, 10);

	if (die == 0)
		return 0;
	if (die <= 2)
		return 1024 + (draw(random) & 0xffffff);
	return 8 + below(random, POOL);
}

/* Every other kind begins as all of them do, and so its pages are told apart late. */
static uint64_t word_of(uint32_t id, size_t word)
{
	uint64_t kind = id & 8 && word < PAGE_WORDS / 2 ? 0 : id >> 3;

	return id ? mix64(mix64(opt.seed ^ mix64(kind)) + word) : 0;
}

void content_write(uint64_t *page, struct content content)
{
	for (size_t i = 0; i < LAST; i++)
		page[i] = word_of(content.id, i);
	page[LAST] = content.id & 7;
	if (content.poke)
		content_poke(page, content.poke);
}

void content_poke(uint64_t *page, uint32_t poke)
{
	page[poke % PAGE_WORDS] = mix64(poke);
}

bool content_holds(const uint64_t *page, struct content content)
{
	uint64_t wanted[PAGE_WORDS];

	content_write(wanted, content);
	return !memcmp(page, wanted, PAGE);
}
