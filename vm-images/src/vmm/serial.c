// SPDX-License-Identifier: GPL-2.0-or-later
/* Every character costs an exit: only for what a kernel says when it fails. Whole lines go to standard error. */
#include <stdio.h>

#include "vmm.h"

#define TRANSMIT_REGISTER 0
#define LINE_CONTROL 3
#define LINE_STATUS 5
#define DIVISOR_LATCH 0x80
#define TRANSMITTER_EMPTY 0x60

static uint8_t line_control, scratch[8];

uint8_t serial_read(uint16_t offset)
{
	return offset == LINE_STATUS ? TRANSMITTER_EMPTY : scratch[offset & 7];
}

void serial_write(const struct vm *vm, uint16_t offset, uint8_t value)
{
	static char line[256];
	static size_t used;

	if (offset == LINE_CONTROL)
		line_control = value;
	if (offset != TRANSMIT_REGISTER || line_control & DIVISOR_LATCH) {
		if (offset == LINE_CONTROL || offset == 7)
			scratch[offset] = value;
		return;
	}
	if (value == '\r')
		return;
	if (value != '\n')
		line[used++] = value;
	if (value == '\n' || used == sizeof(line) - 1) {
		line[used] = 0;
		fprintf(stderr, "%s: %s\n", vm->options.name, line);
		used = 0;
	}
}
