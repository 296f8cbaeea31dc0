// SPDX-License-Identifier: GPL-2.0-or-later
/* The guest's hvc0 is our standard input and output: the fleet's runner talks through it to a program in the guest. */
#include <errno.h>
#include <unistd.h>

#include "vmm.h"

#define CONSOLE_ID 3

static void transmit(struct device *device, const struct iovec *parts, int count)
{
	(void)device;
	for (int i = 0; i < count; i++)
		for (size_t done = 0; done < parts[i].iov_len;) {
			ssize_t n = write(1, (char *)parts[i].iov_base + done, parts[i].iov_len - done);

			if (n < 0 && errno != EINTR)
				die("standard output: %m");
			done += n > 0 ? n : 0;
		}
}

bool console_receive(struct device *device)
{
	struct chain chain;
	ssize_t n;

	if (!take_chain(device, RECEIVE, &chain))
		return true;
	n = readv(0, chain.part, chain.count);
	give_back(device, RECEIVE, &chain, n > 0 ? n : 0);
	return n > 0 || (n < 0 && errno == EINTR);
}

void console_init(struct vm *vm, struct device *device)
{
	device->vm = vm;
	device->base = CONSOLE_BASE;
	device->irq = CONSOLE_IRQ;
	device->id = CONSOLE_ID;
	device->transmit = transmit;
}
